"""The code blocks of README.md and docs/ run, in order, in a working folder; what is not run is listed with its reason.

The word after a fence's language says what becomes of the block:
    ```python             runs; all blocks of a page share one namespace
    ```bash               runs line by line
    ```LANGUAGE file=NAME     is, letter by letter, that file of the page's example folder
    ```LANGUAGE no-run        is not run; NOT_RUN says why
Blocks of yaml that look like a run file are held to the schema of run files; toml must parse; text is output, for people.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

import omniloom
from omniloom.config import problems
from omniloom.testing import write_tiny_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if path.is_file()]

# Page -> the folder that its commands start in; other pages start beside a tiny trained run.
FOLDERS = {"docs/new_modality.md": "examples/event_camera"}

# (page, first line of the block) -> why it is not run here.
NOT_RUN = {
    (
        "docs/new_modality.md",
        "python make_data.py data --train 960 --test 120",
    ): "trains the packaged model for minutes",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, the word behind it, its text."""

    page: str
    line: int
    language: str
    tag: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.page, self.text.strip().splitlines()[0]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    name = page.relative_to(ROOT).as_posix()
    start: int | None = None
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        language, _, tag = lines[start - 1][3:].strip().partition(" ")
        yield Block(name, start, language, tag, "\n".join(lines[start : number - 1]) + "\n")
        start = None
    assert start is None, f"{name}:{start}: a fence that is never closed"


ALL = [block for page in PAGES for block in blocks(page)]


def commands(text: str) -> list[str]:
    """The commands of a bash block: continued lines joined, comments left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """What training pins holds for its own process, not for the tests after it."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(is_deterministic)


def run_command(command: str, folder: Path) -> None:
    """One line of a bash block, in the interpreter's own environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"$ {command}\nends with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )


def play(page: Path, folder: Path) -> Path:
    """Run all blocks of a page in a folder; returns the folder."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.tag == "no-run" or block.tag.startswith("file="):
            continue
        if block.language == "bash":
            for command in commands(block.text):
                run_command(command, folder)
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, str(page), "exec")
            with chdir(folder), torch_as_it_was():
                exec(code, namespace)
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Page -> the folder in which its blocks have run, each page once."""
    done: dict[Path, Path] = {}

    def run(page: Path) -> Path:
        if page not in done:
            folder = tmp_path_factory.mktemp(page.stem) / "work"
            example = FOLDERS.get(page.relative_to(ROOT).as_posix())
            if example is not None:
                shutil.copytree(ROOT / example, folder, ignore=shutil.ignore_patterns("__pycache__", "data", "runs"))
            elif any(block.language in ("bash", "python") and not block.tag for block in blocks(page)):
                with torch_as_it_was():
                    omniloom.train(write_tiny_run(folder, steps=2, count=8), out=folder / "runs" / "tiny")
            else:
                folder.mkdir()
            done[page] = play(page, folder)
        return done[page]

    return run


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
    shown = ROOT / FOLDERS[block.page] / block.tag.removeprefix("file=")
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
