"""The run folder: everything a run is, in one place, readable without Omniloom.

    run.yaml                 the resolved run
    manifest.json            version; sha256 and size of every file below; per component: parameters, digest, origin
    components/NAME/weights.safetensors
    parts/                   copies of the part files that the run names
    metrics.jsonl            a line per step
    eval/results.json        scores
    report.html, README.md   for people
    state/                   what a resumed run needs; removed when training has ended

A component that is pretrained and was never trained is not copied: the manifest holds where it came from and its
digest, which loading verifies. Everything else is saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omniloom import __version__
from omniloom.checkpoint.tensors import assign_strict, digest_of, read_tensors, write_tensors
from omniloom.config import RunConfig, dump, load_run
from omniloom.config.reading import read_file
from omniloom.errors import CheckpointError, ConfigError
from omniloom.files import sha256_of_file, write_whole
from omniloom.model import OmniModel, compose

__all__ = ["MANIFEST_VERSION", "load_model", "read_manifest", "save_model", "seal"]

MANIFEST_VERSION = 1
# What training and evaluation write beside the weights; sealed by name, so that a report can be written again.
_UNSEALED = ("manifest.json", "state/", "lock", "cache/")


def save_model(model: OmniModel, config: RunConfig, folder: Path, *, trained: Iterable[str]) -> None:
    """Write the resolved run and the components into a run folder, then the manifest.

    `trained`: components that any stage has trained; pretrained ones that are not among them are kept by reference.
    """
    touched = set(trained)
    components: dict[str, Any] = {}
    for name, values in model.components().items():
        if not values:
            continue
        origin = pretrained_origin(model, name)
        is_saved = origin is None or name in touched
        if is_saved:
            write_tensors(folder / "components" / name / "weights.safetensors", dict(values))
        components[name] = {
            "parameters": sum(value.numel() for value in values.values()),
            "digest": digest_of(values),
            "saved": is_saved,
            "origin": origin,
        }
    write_whole(folder / "run.yaml", dump(config))
    seal(folder, components=components)


def pretrained_origin(model: OmniModel, component: str) -> str | None:
    """The id that a pretrained component was loaded from; None for one that began at random."""
    part: Any = (
        model.backbone if component == "backbone" else model.parts[component] if component in model.parts else None
    )
    origin = getattr(part, "id", None)
    return str(origin) if origin is not None and getattr(part, "weights", True) else None


def seal(folder: Path, *, components: dict[str, Any] | None = None) -> None:
    """Write manifest.json over the files as they are now; without `components`, those of the present manifest stay."""
    if components is None:
        components = read_manifest(folder)["components"]
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(_UNSEALED) and ".unfinished-" not in name:
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    manifest = {
        "version": MANIFEST_VERSION,
        "created_by": f"omniloom {__version__}",
        "components": components,
        "files": files,
    }
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        CheckpointError: there is none, or it is not one that this version reads.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        hint = (
            " It holds an unfinished training: run `omniloom train` again to resume it."
            if (folder / "state").is_dir()
            else ""
        )
        raise CheckpointError(f"{folder} is no run folder: it has no manifest.json.{hint}")
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON. Copy the run folder again from its source.") from error
    if not isinstance(manifest, dict) or manifest.get("version") != MANIFEST_VERSION:
        found = manifest.get("version") if isinstance(manifest, dict) else None
        raise CheckpointError(f"{path} has version {found!r}; this Omniloom reads version {MANIFEST_VERSION}.")
    for table, keys in (("components", {"digest", "origin", "saved"}), ("files", {"bytes", "sha256"})):
        rows = manifest.get(table)
        if not isinstance(rows, dict) or not all(isinstance(row, dict) and keys <= set(row) for row in rows.values()):
            raise CheckpointError(f"{path} has no sound table of {table}. Copy the run folder again from its source.")
    return manifest


def verify_files(
    folder: Path, manifest: dict[str, Any], prefixes: tuple[str, ...] = ("components/", "run.yaml", "parts/")
) -> None:
    """Hold the files that make the model to the manifest.

    Raises:
        CheckpointError: a file is missing, altered, or outside the folder.
    """
    if "run.yaml" not in manifest["files"]:
        raise CheckpointError(f"the manifest of {folder} does not name run.yaml. Copy the run folder again.")
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"the manifest of {folder} names a file outside of it: {name!r}.")
        if not name.startswith(prefixes):
            continue
        if not path.is_file():
            raise CheckpointError(f"{name} is missing from {folder}. Copy the run folder again, whole.")
        if path.stat().st_size != facts["bytes"] or sha256_of_file(path) != facts["sha256"]:
            raise CheckpointError(
                f"{name} of {folder} is not the file that was saved (its sha256 differs). Copy it again."
            )


def _code_of(folder: Path) -> list[str]:
    """The Python files that run.yaml names, read without running any of them.

    Raises:
        CheckpointError: run.yaml cannot be read, or takes parts of itself from elsewhere.
    """
    try:
        tree = read_file(folder / "run.yaml")
    except ConfigError as error:
        raise CheckpointError(f"the run in {folder} cannot be read: {error}") from error
    places = [(path, node.value) for path, node in tree.walk() if path and isinstance(node.value, str)]
    if any(path == ("extends",) or (path[0] == "modalities" and path[2:] == ("use",)) for path, _ in places):
        raise CheckpointError(f"run.yaml of {folder} is not resolved: it holds `extends:` or `use:`. Train it again.")
    rooms = ("adapters", "backbone", "components", "context", "fusers", "modalities")
    named = [
        value
        for path, value in places
        if (path[0] in rooms and path != ("backbone", "system")) or (path[0] == "data" and path[-1] == "type")
    ]
    return sorted({value.rpartition(":")[0] for value in named if ".py:" in value})


def load_model(folder: Path, *, allow_code: bool = False) -> tuple[OmniModel, RunConfig]:
    """Build and fill the model of a run folder, strictly.

    `allow_code`: the run names part files of its own, which are Python code; load them only if you have read them.

    Raises:
        CheckpointError: files altered or missing, weights of another model, a pretrained part that is not the one
            trained with, or part files without `allow_code`.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    code = _code_of(folder)
    loose = [name for name in code if name not in manifest["files"]]
    if loose:
        raise CheckpointError(
            f"run.yaml of {folder} names Python code that the manifest does not hold: {', '.join(loose)}."
        )
    if code and not allow_code:
        raise CheckpointError(
            f"the run in {folder} brings Python code of its own ({', '.join(code)}), which loading would execute. "
            "Read it, then pass --allow-code (allow_code=True)."
        )
    try:
        config = load_run(folder / "run.yaml").config
        model = compose(config, base=folder)
    except ConfigError as error:
        raise CheckpointError(f"the run in {folder} cannot be built: {error}") from error
    have = {name for name, values in model.components().items() if values}
    if have != set(manifest["components"]):
        raise CheckpointError(
            f"the run file builds the components {sorted(have)}, the manifest holds {sorted(manifest['components'])}."
        )
    for name, facts in manifest["components"].items():
        values = model.components()[name]
        if facts["saved"]:
            path = folder / "components" / name / "weights.safetensors"
            if path.relative_to(folder).as_posix() not in manifest["files"]:
                raise CheckpointError(f"the manifest of {folder} has no file for the component {name!r}.")
            assign_strict(values, read_tensors(path), what=f"component {name!r}")
        elif digest_of(values) != facts["digest"]:
            raise CheckpointError(
                f"component {name!r} comes from {facts['origin']!r}, but the weights there are not those the run was "
                "trained with. Pin its revision, or restore the same version."
            )
    return model, config
