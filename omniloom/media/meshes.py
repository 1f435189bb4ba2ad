"""Geometry files: PLY point clouds, and OBJ and OFF meshes, sampled on their surface.

A mesh says where its surface is, not where its vertices should be dense; so a mesh with faces becomes `MESH_POINTS`
points drawn uniformly by area with a fixed seed (the same file always gives the same points), a mesh without faces its
vertices.
"""

from __future__ import annotations

import re
from array import array
from itertools import islice, pairwise

import numpy as np

from ..errors import MediaError
from .codes import foreign_decoder
from .tables import text_lines

__all__ = ["MESH_POINTS", "read_obj", "read_off", "read_ply", "sample_surface"]

MESH_POINTS = 4096
_BROKEN_PLY = "the PLY data are broken, truncated or of another layout: vertices first, each of plain numbers."
_BROKEN_MESH = "the mesh is broken: a vertex is not three numbers, or a face names a vertex that is not there."
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_COLOURS = ("red", "green", "blue", "alpha")


def read_ply(content: bytes, limit_points: int) -> np.ndarray:
    """The vertices of a PLY file as float32 (N, 3 + C): x, y, z, then the other properties in their order.

    8-bit colours are scaled to 0..1, all else is kept as it is. Faces are not read. ASCII, and binary of both byte
    orders.

    Raises:
        MediaError: `points_too_large` from the declared count, `invalid_points` otherwise.
    """
    broken = MediaError("invalid_points", _BROKEN_PLY)
    end = content.find(b"end_header", 0, 65_536)
    newline = content.find(b"\n", end)
    if end < 0 or newline < 0:
        raise broken
    lines = [line.split() for line in content[:end].decode("latin-1").splitlines()]
    lines = [line for line in lines[1:] if line and line[0] not in ("comment", "obj_info")]
    elements = [at for at, line in enumerate(lines) if line[0] == "element"] + [len(lines)]
    if not lines or lines[0][:1] != ["format"] or len(elements) < 2 or elements[0] != 1:
        raise broken
    encoding, element = lines[0][1:2], lines[1]
    if len(element) != 3 or element[1] != "vertex" or not re.fullmatch(r"\d{1,18}", element[2]):
        raise broken
    properties = lines[2 : elements[1]]
    if not all(len(line) == 3 and line[0] == "property" and line[1] in _PLY_TYPES for line in properties):
        raise broken
    names = [line[2] for line in properties]
    count = int(element[2])
    if not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise broken
    if count == 0:
        raise broken
    if count > limit_points:
        message = f"the PLY file declares {count} points; at most {limit_points} are read. Thin it out first."
        raise MediaError("points_too_large", message)
    body = content[newline + 1 :]
    columns: dict[str, np.ndarray] = {}
    if encoding == ["ascii"]:
        with foreign_decoder("invalid_points", _BROKEN_PLY):
            if not body.strip():  # the parser only warns
                raise broken
            values_NP = np.loadtxt(text_lines(body, "points"), np.float32, comments=None, ndmin=2, max_rows=count)
        if values_NP.shape == (count, len(names)):
            columns = {name: values_NP[:, at] for at, name in enumerate(names)}
    elif encoding in (["binary_little_endian"], ["binary_big_endian"]):
        order = "<" if encoding == ["binary_little_endian"] else ">"
        record = np.dtype([(name, order + _PLY_TYPES[line[1]]) for name, line in zip(names, properties, strict=True)])
        table = np.frombuffer(body, record, count) if record.itemsize * count <= len(body) else None
        if table is not None:
            columns = {name: table[name].astype(np.float32) for name in names}
    else:
        raise broken
    if not columns:
        raise broken
    for name, line in zip(names, properties, strict=True):
        if name in _COLOURS and _PLY_TYPES[line[1]] == "u1":
            columns[name] = columns[name] / np.float32(255)
    others = [name for name in names if name not in ("x", "y", "z")]
    return np.stack([columns[name] for name in ["x", "y", "z", *others]], axis=1)


def read_obj(content: bytes, limit_points: int) -> np.ndarray:
    """The surface (or, without faces, the vertices) of a Wavefront OBJ file, float32 (N, 3).

    Polygons are split into fans of triangles. Materials, normals and texture coordinates are not read.
    """
    vertices, triangles = array("f"), array("q")  # flat, as Python tuples would take ten times the memory
    with foreign_decoder("invalid_points", _BROKEN_MESH):
        for line in text_lines(content, "points"):
            words = line.split()
            if words[:1] == ["v"]:
                vertices.extend(float(word) for word in words[1:4])
            elif words[:1] == ["f"]:
                corners = [int(word.partition("/")[0]) for word in words[1:]]
                # Indices count from 1; negative ones count back from the latest vertex.
                _add_fan(triangles, [corner - 1 if corner > 0 else len(vertices) // 3 + corner for corner in corners])
            _check_count(max(len(vertices), len(triangles)) // 3, limit_points)
        return _surface(vertices, triangles)


def read_off(content: bytes, limit_points: int) -> np.ndarray:
    """The surface (or, without faces, the vertices) of an OFF file, float32 (N, 3)."""
    vertices, triangles = array("f"), array("q")
    with foreign_decoder("invalid_points", _BROKEN_MESH):
        lines = (line.partition("#")[0].split() for line in text_lines(content[3:], "points"))
        rows = (row for row in lines if row)
        n_vertices, n_faces = (int(word) for word in next(rows)[:2])
        _check_count(max(n_vertices, n_faces), limit_points)
        for row in islice(rows, n_vertices):
            vertices.extend(float(word) for word in row[:3])
        for row in islice(rows, n_faces):
            _add_fan(triangles, [int(word) for word in row[1 : 1 + int(row[0])]])
            _check_count(len(triangles) // 3, limit_points)
        if len(vertices) != 3 * n_vertices:
            raise MediaError("invalid_points", _BROKEN_MESH)
        return _surface(vertices, triangles)


def _add_fan(triangles: array[int], corners: list[int]) -> None:
    for second, third in pairwise(corners[1:]):
        triangles.extend((corners[0], second, third))


def _check_count(count: int, limit_points: int) -> None:
    if count > limit_points:
        raise MediaError(
            "points_too_large", f"the mesh has over {limit_points} vertices or faces, the limit. Simplify it."
        )


def _surface(vertices: array[float], triangles: array[int]) -> np.ndarray:
    vertices_V3 = np.array(vertices, np.float32).reshape(-1, 3)
    if not triangles:
        return vertices_V3
    corners_T3 = np.array(triangles, np.int64).reshape(-1, 3)
    if corners_T3.min() < 0 or corners_T3.max() >= len(vertices_V3):
        raise MediaError("invalid_points", _BROKEN_MESH)
    return sample_surface(vertices_V3, corners_T3, MESH_POINTS, seed=0)


def sample_surface(vertices_V3: np.ndarray, triangles_T3: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` points drawn uniformly by area from the triangles, float32 (count, 3).

    Raises:
        MediaError: `invalid_points`: the triangles have no area, or corners that are not finite.
    Source: Osada et al., Shape Distributions (ACM TOG 2002), section 4.2: the square root keeps the density even.
    """
    corners_T33 = vertices_V3.astype(np.float64)[triangles_T3]
    side_a_T3, side_b_T3 = corners_T33[:, 1] - corners_T33[:, 0], corners_T33[:, 2] - corners_T33[:, 0]
    area_T = np.linalg.norm(np.cross(side_a_T3, side_b_T3), axis=1)
    if not (np.isfinite(area_T.sum()) and area_T.sum() > 0):
        raise MediaError("invalid_points", "the mesh has no surface: its triangles have no area or are not finite.")
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(area_T), size=count, p=area_T / area_T.sum())
    root, along = np.sqrt(generator.random((count, 1))), generator.random((count, 1))
    points = corners_T33[chosen, 0] + root * (1 - along) * side_a_T3[chosen] + root * along * side_b_T3[chosen]
    return points.astype(np.float32)
