"""The code blocks of README.md and docs/ run, in order, in a working folder; what is not run is listed with its reason.

The word behind a fence's language says what becomes of the block:
    ```python                 runs; all blocks of a page share one namespace
    ```bash                   runs line by line
    ```LANGUAGE file=NAME     is, letter by letter, that file of the page's example folder, or of the repository
    ```LANGUAGE no-run        is not run; NOT_RUN says why
Blocks of yaml that look like a run file are held to the schema of run files; toml and json must parse; text is output,
for people.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib

import pytest
import yaml

from omniloom.config import problems

from .pages import FOLDERS, PAGES, ROOT, blocks

# (page, first line of the block) -> why it is not run here.
NOT_RUN = {
    ("README.md", "make quickstart"): "installs the environment and trains for ten minutes",
    ("README.md", ".venv/bin/omniloom new run mine"): "needs the reader's own data",
    (
        "docs/new_modality.md",
        "python make_data.py data --train 960 --test 120",
    ): "trains the packaged model for minutes",
}

ALL = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_all_blocks_of_a_page_run_in_order(page, played):
    assert played(page).is_dir()


def test_what_is_not_run_is_listed_with_its_reason_and_nothing_else_is():
    assert {block.key for block in ALL if block.tag == "no-run"} == set(NOT_RUN)
    assert all(NOT_RUN.values())


def test_every_block_has_a_language_and_a_known_tag():
    for block in ALL:
        assert block.language in ("bash", "python", "yaml", "toml", "json", "text", "mermaid"), block
        assert block.tag in ("", "no-run") or re.fullmatch(r"file=[\w./-]+", block.tag), block


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.tag.startswith("file=")], ids=lambda block: f"{block.page}:{block.tag}"
)
def test_a_file_that_is_shown_is_the_file(block):
    shown = ROOT / FOLDERS.get(block.page, ".") / block.tag.removeprefix("file=")
    assert block.text == shown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.language in ("yaml", "toml", "json")], ids=lambda block: f"{block.page}:{block.line}"
)
def test_data_that_is_shown_can_be_read(block, tmp_path):
    if block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        [json.loads(line) for line in block.text.splitlines()]
    else:
        values = yaml.safe_load(block.text)
        if isinstance(values, dict) and {"backbone", "modalities"} & set(values):
            folder = tmp_path / "page"
            example = FOLDERS.get(block.page)
            shutil.copytree(ROOT / example, folder) if example else folder.mkdir()
            (folder / "shown.yaml").write_text(block.text)
            assert problems(folder / "shown.yaml") == []


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
