"""Pages of the documentation as blocks of code, and how a page is played: block by block, in a working folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from omniloom.api import train
from omniloom.testing import write_tiny_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if path.is_file()]

# Page -> the folder that its commands start in; other pages start beside a tiny trained run.
FOLDERS = {"docs/new_modality.md": "examples/event_camera"}


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
        """(page, first line without its comment)."""
        return self.page, self.text.strip().splitlines()[0].partition(" #")[0].strip()


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
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, (
        f"$ {command}\nends with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )


def _beside_a_tiny_run(folder: Path) -> None:
    """What a newcomer has after the quickstart, in tiny: an environment, a trained run, a run file, a few media."""
    with torch_as_it_was():
        run = train(write_tiny_run(folder, steps=2, count=8), out=folder / "runs" / "quickstart")
    shutil.copytree(run, folder / "runs" / "mine")
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copy(folder / "data" / "test-0.png", folder / "boot.png")
    record = {"messages": [{"role": "user", "content": [{"type": "image", "path": "boot.png"}]}]}
    (folder / "questions.jsonl").write_text(json.dumps(record) + "\n")
    shutil.copy(ROOT / "examples" / "projector" / "weighted_mean.py", folder)
    for split in ("train", "test"):
        for label, sign in (("soft", -1.0), ("hard", 1.0)):
            (folder / "pads" / split / label).mkdir(parents=True)
            for index in range(3):
                ramp = sign * np.linspace(0, 1, 24)[:, None] * np.ones((1, 6)) + 0.1 * index
                np.save(folder / "pads" / split / label / f"{index}.npy", ramp.astype(np.float32))


def play(page: Path, folder: Path) -> Path:
    """Fill a folder with what the page starts from and run all of its blocks there; returns the folder."""
    example = FOLDERS.get(page.relative_to(ROOT).as_posix())
    if example is not None:
        shutil.copytree(ROOT / example, folder, ignore=shutil.ignore_patterns("__pycache__", "data", "runs"))
    elif any(block.language in ("bash", "python") and not block.tag for block in blocks(page)):
        _beside_a_tiny_run(folder)
    else:
        folder.mkdir()
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
