"""What a run needs to go on after it was killed at any moment: complete, verified, or not there at all.

A state is a folder `state/NNNNNNNN` that appears in one rename; the newest one whose manifest verifies is resumed.
The order of samples and all noise are functions of (seed, stage, step), so no generator's state has to be kept.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from omniloom.checkpoint.tensors import read_tensors, write_tensors
from omniloom.errors import CheckpointError, TrainingError
from omniloom.files import remove_leftovers, sha256_of_file, whole_folder, write_whole

__all__ = ["Progress", "StateFolder", "run_lock"]

_KEEP = 2


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `stage` and `step` to do next, counted from 0. `metrics_bytes`: how much of metrics.jsonl
    belongs to what was done; a resumed run cuts off the rest. `elapsed_s`: training time so far. `trained`:
    components that any stage has trained so far."""

    run_digest: str
    stage: int
    step: int
    metrics_bytes: int
    elapsed_s: float
    trained: tuple[str, ...]


class StateFolder:
    """The states of one run, in `RUN/state`."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "state"

    def save(self, progress: Progress, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Write a state, then remove all but the newest two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in self._found()), default=-1) + 1
        with whole_folder(self.folder / f"{number:08d}") as draft:
            write_tensors(draft / "weights.safetensors", weights)
            write_tensors(draft / "optimizer.safetensors", optimizer)
            write_whole(draft / "progress.json", json.dumps(asdict(progress), sort_keys=True))
            names = ("weights.safetensors", "optimizer.safetensors", "progress.json")
            digests = {name: sha256_of_file(draft / name) for name in names}
            write_whole(draft / "manifest.json", json.dumps(digests, sort_keys=True))
        for path in self._found()[:-_KEEP]:
            shutil.rmtree(path)

    def newest(self) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]] | None:
        """The newest state that verifies; None if nothing was saved.

        Raises:
            CheckpointError: states are there, but none of them verifies.
        """
        remove_leftovers(self.folder)
        found = self._found()
        for path in reversed(found):
            if self._verifies(path):
                facts = json.loads((path / "progress.json").read_text())
                progress = Progress(**{**facts, "trained": tuple(facts["trained"])})
                return (
                    progress,
                    read_tensors(path / "weights.safetensors"),
                    read_tensors(path / "optimizer.safetensors"),
                )
        if found:
            raise CheckpointError(
                f"none of the {len(found)} states in {self.folder} verifies. Remove the folder to start again."
            )
        return None

    def remove(self) -> None:
        """Remove all states: the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.name.isdigit()) if self.folder.is_dir() else []

    def _verifies(self, path: Path) -> bool:
        manifest = path / "manifest.json"
        if not manifest.is_file():
            return False
        digests = json.loads(manifest.read_text())
        return all(
            (path / name).is_file() and sha256_of_file(path / name) == digest for name, digest in digests.items()
        )


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run folder for one process; the lock goes with the process, however it ends.

    Raises:
        TrainingError: another process trains in this folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"another process trains in {run}. Wait for it, or choose another --out.") from None
        yield
