"""`omniloom convert`: published weights in other formats, once, into files that load without executing anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from omniloom.cli.terminal import quiet_libraries, say, working

__all__ = ["convert"]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")


def convert(
    source: Annotated[
        Path, typer.Argument(help="A .gguf file, or a pickled torch checkpoint: .pt, .pth, .bin, .ckpt.")
    ],
    out: Annotated[Path, typer.Argument(help="A new folder; for a checkpoint also a new .safetensors file.")],
    key: Annotated[
        str | None, typer.Option("--key", help="Where in a checkpoint the tensors are, if it holds more than one set.")
    ] = None,
) -> None:
    """Convert a GGUF file into a model folder, or a pickled checkpoint into safetensors.

    A pickle is read as weights only, in a process of its own. The sha256 of source and result go into a JSON file
    beside the result.
    """
    from omniloom.errors import ConfigError

    if not source.is_file():
        raise ConfigError(f"there is no file {source} to convert.")
    if source.suffix.lower() == ".gguf":
        return _convert_gguf(source, out)
    if source.suffix.lower() in _PICKLES:
        return _convert_pickle(source, out, key)
    raise ConfigError(
        f"cannot convert {source.name!r} by its ending {source.suffix!r}. Known: .gguf, {', '.join(_PICKLES)}."
    )


def _convert_gguf(source: Path, out: Path) -> None:
    from omniloom.errors import ConfigError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already. Name a new folder.")
    quiet_libraries()
    from omniloom.backbone.gguf import convert_gguf

    with working("converting"):
        convert_gguf(source, out)
    _record(source, sorted(out.glob("*.safetensors")), out / "conversion.json")
    say(f"{out} is a model folder: in a run file `backbone: {{id: {_as_id(out)}}}`")


def _convert_pickle(source: Path, out: Path, key: str | None) -> None:
    from omniloom.errors import ConfigError

    target = out if out.suffix == ".safetensors" else out / "model.safetensors"
    beside = target.with_suffix(".json")
    for path in (target, beside):
        if path.exists():
            raise ConfigError(f"{path} is there already; nothing was written. Name another.")
    if target.parent.is_file():
        raise ConfigError(f"{target.parent} is a file, not a folder. Name another.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as folder, working("converting"):
        draft = Path(folder) / "model.safetensors"
        child = Path(__file__).with_name("unpickle_child.py")
        # -I: nothing from the environment or the current folder is imported.
        command = [sys.executable, "-I", str(child), str(source), str(draft), key or ""]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
            raise ConfigError(f"cannot convert {source}: {lines[-1]}")
        shutil.move(draft, target)
    facts = json.loads(done.stdout)
    _record(source, [target], beside, **facts)
    say(f"{target}: {facts['tensors']} tensors, {facts['parameters']:,} numbers; hashes in {beside}")


def _record(source: Path, results: list[Path], path: Path, **facts: int) -> None:
    """Write what was converted from what."""
    from omniloom import __version__
    from omniloom.files import sha256_of_file, write_whole

    record = {
        "source": {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256_of_file(source)},
        "results": [
            {"file": result.name, "bytes": result.stat().st_size, "sha256": sha256_of_file(result)}
            for result in results
        ],
        **facts,
        "created_by": f"omniloom {__version__}",
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")


def _as_id(folder: Path) -> str:
    text = folder.as_posix()
    return text if folder.is_absolute() or text.startswith("../") else f"./{text}"
