"""Points of molecules and meshes."""

from __future__ import annotations

import numpy as np

from omniloom.starter.solids import _label, _turned, mesh_points

# A box of 2 x 1 x 1 with a quad, a triangle fan and negative indices; the bottom is missing.
_OBJ = """
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
v 0 0 1
v 2 0 1
v 2 1 1
v 0 1 1
f 1/1/1 2/2/1 3/3/1 4/4/1
f 5 6 7 8
f -4 -1 -5 -8
"""


def test_points_lie_on_the_surface_in_proportion_to_area() -> None:
    points = mesh_points(_OBJ, 4000, seed="box")
    on_left = np.isclose(points[:, 0], 0)
    on_side = np.isclose(points[:, 2], 0) | np.isclose(points[:, 2], 1)
    assert (on_left | on_side).all()
    assert abs(on_left.mean() - 1 / 5) < 0.03  # area 1 of 5
    assert np.allclose(np.linalg.norm(points[:, 3:], axis=1), 1)
    assert np.allclose(np.abs(points[~on_left, 5]), 1)


def test_the_same_seed_gives_the_same_points() -> None:
    assert np.array_equal(mesh_points(_OBJ, 50, seed="a"), mesh_points(_OBJ, 50, seed="a"))
    assert not np.array_equal(mesh_points(_OBJ, 50, seed="a"), mesh_points(_OBJ, 50, seed="b"))


def test_an_upright_turn_keeps_heights_and_distances_and_turns_normals() -> None:
    points = mesh_points(_OBJ, 50, seed="a")
    turned = _turned(points, "x", is_upright=True)
    assert np.allclose(turned[:, 1], points[:, 1]) and not np.allclose(turned, points)
    assert np.allclose(
        np.linalg.norm(turned[:, None, :3] - turned[:, :3], axis=-1),
        np.linalg.norm(points[:, None, :3] - points[:, :3], axis=-1),
    )
    assert np.allclose((turned[:, :3] * turned[:, 3:]).sum(1), (points[:, :3] * points[:, 3:]).sum(1))


def test_a_free_turn_keeps_distances_and_the_features_of_atoms() -> None:
    points = mesh_points(_OBJ, 50, seed="a")
    turned = _turned(points, "x", is_upright=False)
    assert np.array_equal(turned[:, 3:], points[:, 3:])
    assert np.allclose(np.linalg.norm(turned[:, :3], axis=1), np.linalg.norm(points[:, :3], axis=1))


def test_a_model_belongs_to_the_one_class_its_name_speaks_of() -> None:
    assert _label("Rounded table", "Living room") == "table"
    assert _label("Table lamp", "Lights") == ""
    assert _label("Female sitting on chair", "Characters") == "person"
    assert _label("Plug", "Miscellaneous") == ""
