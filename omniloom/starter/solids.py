"""Data sets of points in space, (N, 6): three coordinates and three features of each point.

Molecules are atoms: coordinates in angstrom; atomic number, electronegativity and covalent radius. Furniture is
sampled from surfaces: coordinates in metres, y up; the surface's normal. Both are centred and turned at random.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from omniloom.errors import DataError
from omniloom.starter.records import Item, Prompts, chooser, write_array, write_sets

__all__ = ["FURNITURE", "MOLECULES", "furniture_points", "mesh_points", "molecule_points"]

MOLECULES = {
    "alcohols": "alcohol", "alkanes": "alkane", "alkenes": "alkene", "amines": "amine", "amino_acids": "amino acid",
    "aromatics": "aromatic", "carbohydrates": "carbohydrate", "carboxylic_acids": "carboxylic acid", "esters": "ester",
    "haloalkanes": "haloalkane", "ketones": "ketone", "polycyclic_aromatics": "polycyclic aromatic",
}  # fmt: skip
"""The classes of 22 molecules or more, by the source's folders."""

# Atomic number, electronegativity (Pauling), covalent radius in angstrom (Cordero 2008).
_ELEMENTS = {
    "H": (1, 2.20, 0.31), "C": (6, 2.55, 0.76), "N": (7, 3.04, 0.71), "O": (8, 3.44, 0.66), "F": (9, 3.98, 0.57),
    "S": (16, 2.58, 1.05), "Cl": (17, 3.16, 1.02), "Br": (35, 2.96, 1.20),
}  # fmt: skip

FURNITURE = {
    "chair": "chair armchair stool", "table": "table desk", "sofa": "sofa couch", "bed": "bed",
    "lamp": "lamp light lantern", "door": "door", "window": "window", "plant": "plant tree bush",
    "cabinet": "cabinet wardrobe bookcase shelves drawers",
}  # fmt: skip
"""Class -> the words of a model's name that put it there; a name with words of two classes is left out."""
_BY_CATEGORY = {"Characters": "person", "Vehicles": "vehicle"}

_MOLECULE_PROMPTS = Prompts(
    (
        "What kind of molecule is this?", "Which class of compound is it?", "Name the family of this molecule.",
        "What sort of compound do the atoms form?", "Which chemical class does this belong to?",
        "Classify the molecule.",
    ),
    (
        "Tell me the compound family of these atoms.", "How would a chemist call this group of substances?",
        "Identify the type of chemical structure.", "Under which heading would a textbook list it?",
    ),
)  # fmt: skip
_FURNITURE_PROMPTS = Prompts(
    (
        "What object is this?", "Which thing do the points form?", "Name the object.", "What has been scanned?",
        "What do the points show?", "What is this?",
    ),
    (
        "Tell me what stands in the scanner.", "Identify the shape in this point cloud.",
        "Somebody scanned a thing; which?", "What would you call the object measured here?",
    ),
)  # fmt: skip

_POINTS = 512
_TURNS = {"train": 4, "test": 3}  # turned copies of each example; copies share their group, so intervals can cluster
_TEST_SHARE = 1 / 3


def _test_groups(task: str, groups: Mapping[str, Sequence[str]]) -> set[str]:
    """A third of every class's groups, drawn."""
    chosen: set[str] = set()
    for label, names in sorted(groups.items()):
        unique = sorted(set(names))
        chosen.update(chooser(task, "split", label).sample(unique, round(len(unique) * _TEST_SHARE)))
    return chosen


def _turned(points: np.ndarray, id_: str, *, is_upright: bool) -> np.ndarray:
    """(N, 6) points turned at random, about the vertical only if upright; normals turn with them."""
    rng = np.random.default_rng(chooser("turned", id_).getrandbits(32))
    if is_upright:
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        return np.concatenate([points[:, :3] @ turn.T, points[:, 3:] @ turn.T], axis=1)
    turn, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.concatenate([points[:, :3] @ (turn * np.sign(np.diag(upper))).T, points[:, 3:]], axis=1)


class _Solid(NamedTuple):
    id: str
    group: str
    label: str
    points: np.ndarray
    name: str


def _write(folder: Path, task: str, prompts: Prompts, solids: list[_Solid], *, is_upright: bool) -> None:
    groups: dict[str, list[str]] = {}
    for solid in solids:
        groups.setdefault(solid.label, []).append(solid.group)
    test_groups = _test_groups(task, groups)
    sides: dict[str, list[Item]] = {"train": [], "test": []}
    for solid in solids:
        side = "test" if solid.group in test_groups else "train"
        for turn in range(_TURNS[side]):
            id_ = f"{solid.id}-{turn}"
            write_array(folder / f"media/{id_}.npy", _turned(solid.points, id_, is_upright=is_upright))
            item = Item(id_, solid.group, solid.label, (("points", f"media/{id_}.npy"),), meta={"name": solid.name})
            sides[side].append(item)
    for side, items in sides.items():
        chooser(task, side).shuffle(items)
    write_sets(folder, task, prompts, sides["train"], sides["test"])


def molecule_points(folder: Path, assets: Mapping[str, Path]) -> None:
    """Twelve classes of molecules from the positions of their atoms; isomers (equal formulas) stay on one side."""
    solids = []
    for directory, label in MOLECULES.items():
        for path in sorted((assets["molecules"] / directory).glob("*.cml")):
            root = ElementTree.parse(path).getroot()
            atoms = [atom for atom in root.iter() if atom.tag.endswith("}atom")]
            rows = [
                [*(float(atom.get(a, "nan")) for a in ("x3", "y3", "z3")), *_ELEMENTS[atom.get("elementType", "")]]
                for atom in atoms
            ]
            points = np.array(rows)
            if not np.isfinite(points).all():
                raise DataError(f"{path} has an atom without a position.")
            points[:, :3] -= points[:, :3].mean(axis=0)
            formula = next(node.get("concise", "") for node in root.iter() if node.tag.endswith("}formula")).replace(
                " ", ""
            )
            solids.append(_Solid(f"{directory}-{path.stem}", formula, label, points, path.stem))
    _write(folder, "molecule-points", _MOLECULE_PROMPTS, solids, is_upright=False)


def _label(name: str, category: str) -> str:
    """The class of a furniture model; empty if it has none, or more than one."""
    if category in _BY_CATEGORY:
        return _BY_CATEGORY[category]
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [label for label, nouns in FURNITURE.items() if words & set(nouns.split())]
    return found[0] if len(found) == 1 else ""


def furniture_points(folder: Path, assets: Mapping[str, Path]) -> None:
    """Eleven kinds of household things, 512 points of each surface with normals."""
    solids = []
    for archive_path in sorted(assets["furniture"].glob("*.sh3f")):
        with zipfile.ZipFile(archive_path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
            fields = {key: value.strip() for key, value in re.findall(r"^(\w+#\d+)=(.*)$", text, re.MULTILINE)}
            for index in (key.removeprefix("model") for key in fields if key.startswith("model#")):
                label = _label(fields[f"name{index}"], fields[f"category{index}"])
                if not label:
                    continue
                member = fields[f"model{index}"].lstrip("/")
                id_ = re.sub(r"\W+", "-", f"{archive_path.stem}-{Path(member).stem}{index}")
                longest_m = max(float(fields[f"{side}{index}"]) for side in ("width", "depth", "height")) / 100
                points = mesh_points(archive.read(member).decode("latin-1"), _POINTS, seed=id_)
                points[:, :3] -= (points[:, :3].max(axis=0) + points[:, :3].min(axis=0)) / 2
                points[:, :3] *= longest_m / max(float(np.ptp(points[:, :3], axis=0).max()), 1e-6)
                solids.append(_Solid(id_, f"{archive_path.stem}:{member}", label, points, fields[f"name{index}"]))
    _write(folder, "furniture-points", _FURNITURE_PROMPTS, solids, is_upright=True)


def mesh_points(obj: str, count: int, *, seed: str) -> np.ndarray:
    """(count, 6) points and normals spread evenly over the surface of a Wavefront OBJ text; polygons become fans."""
    corners, triangles = [], []
    for line in obj.splitlines():
        if line.startswith("v "):
            corners.append([float(value) for value in line.split()[1:4]])
        elif line.startswith("f "):
            # Indices count from 1, or from the end if negative; after a slash come texture and normal.
            face = [int(part.split("/")[0]) for part in line.split()[1:]]
            face = [index - 1 if index > 0 else len(corners) + index for index in face]
            triangles += [(face[0], face[i], face[i + 1]) for i in range(1, len(face) - 1)]
    vertices = np.array(corners)
    a, b, c = (vertices[[triangle[i] for triangle in triangles]] for i in range(3))
    normals = np.cross(b - a, c - a)
    areas = np.linalg.norm(normals, axis=1)
    rng = np.random.default_rng(chooser("mesh", seed).getrandbits(32))
    chosen = rng.choice(len(areas), count, p=areas / areas.sum())
    u, v = rng.uniform(size=(2, count, 1))
    root = np.sqrt(u)
    points = a[chosen] * (1 - root) + b[chosen] * root * (1 - v) + c[chosen] * root * v
    return np.concatenate([points, normals[chosen] / areas[chosen, None]], axis=1)
