"""Points and series through the gateway: array files without pickle, tables, PLY, meshes, and lying headers."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch

from omniloom.errors import MediaError
from omniloom.media import Limits, Points, Series, load
from omniloom.media.meshes import MESH_POINTS

from .makers import encode_audio, tone

POINTS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def refusal(source: object, kind: str, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, kind, **options)
    return caught.value


def npy(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


class Marker:
    """Unpickling this would be seen: it raises."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("kind", ["points", "series"])
def test_pickles_are_never_read(kind: str) -> None:
    objects = np.array([Marker()], dtype=object)
    assert refusal(npy(objects, allow_pickle=True), kind).code == "pickle_refused"
    name = "xyz" if kind == "points" else "values"
    assert refusal(npz(**{name: objects}), kind).code == "pickle_refused"
    assert refusal(pickle.dumps(Marker()), kind).code == "unsupported_media_type"
    record = np.zeros(2, dtype=[("a", "f4"), ("b", "O")])
    assert refusal(npy(record, allow_pickle=True), kind).code == "pickle_refused"


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3), }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (1, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
    "{'descr': '<U9', 'fortran_order': False, 'shape': (1, 3), }",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (1, 3), }",
    "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 3), }",
    "{'descr': '<f4', 'shape': (1, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), 'x': 1}",
    "__import__('os').system('true')",
    "{" * 900,
    "[" * 2000 + "]" * 2000,
    "",
]


@pytest.mark.parametrize("kind", ["points", "series"])
@pytest.mark.parametrize("header", HEADERS)
def test_npy_headers_that_lie_or_break_are_refused(header: str, kind: str) -> None:
    error = refusal(npy_with_header(header, bytes(12 * 8)), kind)
    assert error.code in (f"invalid_{kind}", f"{kind}_too_large")


@pytest.mark.parametrize("keep", [6, 9, 40, -1, 130])
def test_a_truncated_npy_is_refused(keep: int) -> None:
    assert refusal(npy(POINTS)[:keep], "points").code == "invalid_points"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "<i2", ">i8", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_plain_dtype_and_order_loads(dtype: str, order: str) -> None:
    values = np.asarray(np.arange(12).reshape(4, 3), order=order).astype(dtype)
    assert np.array_equal(load(npy(values), "series").values, values.astype(np.float32))


def test_npy_header_versions_2_and_3_load() -> None:
    for version in ((2, 0), (3, 0)):
        out = io.BytesIO()
        np.lib.format.write_array(out, POINTS, version=version)
        assert np.array_equal(load(out.getvalue(), "series").values, POINTS)


def test_a_zip_bomb_is_refused_before_it_unfolds() -> None:
    content = npz(values=np.zeros(3_000_000, np.float32))
    assert len(content) < 20_000
    assert refusal(content, "series", limits=Limits(series_bytes=100_000)).code == "series_too_large"
    assert refusal(content, "series", limits=Limits(series_values=2_999_999)).code == "series_too_large"


def test_a_zip_whose_sizes_lie_is_refused() -> None:
    content = bytearray(npz(values=np.zeros(100_000, np.float32)))
    at = bytes(content).rindex(b"PK\x01\x02") + 24  # unpacked size in the central directory
    content[at : at + 4] = (200).to_bytes(4, "little")
    assert refusal(bytes(content), "series").code == "invalid_series"


def test_odd_zips_are_refused() -> None:
    def archive(method: int, names: list[str], data: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as file, pytest.warns() if len(set(names)) < len(names) else _silent():
            for name in names:
                file.writestr(name, data)
        return out.getvalue()

    good = npy(np.zeros((3, 2), np.float32))
    assert load(archive(zipfile.ZIP_STORED, ["values.npy"], good), "series").values.shape == (3, 2)
    assert refusal(archive(zipfile.ZIP_BZIP2, ["values.npy"], good), "series").code == "invalid_series"
    assert refusal(archive(zipfile.ZIP_STORED, ["values.npy"] * 2, good), "series").code == "invalid_series"
    assert refusal(archive(zipfile.ZIP_STORED, ["other.npy"], good), "series").code == "invalid_series"
    assert refusal(archive(zipfile.ZIP_STORED, ["values.npy"], b"PK"), "series").code == "invalid_series"
    many = [f"{index}.npy" for index in range(17)]
    assert refusal(archive(zipfile.ZIP_STORED, many, good), "series").code == "series_too_large"
    assert refusal(b"PK\x05\x06" + bytes(18), "series").code == "invalid_series"


class _silent:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _ply(encoding: str, body: bytes, count: int = 2) -> bytes:
    head = f"""ply
format {encoding} 1.0
comment made here
element vertex {count}
property float x
property float y
property double z
property uchar red
property float heat
element face 1
property list uchar int vertex_indices
end_header
"""
    return head.encode() + body


EXPECTED = [[0, 1, 2, 1, 5], [3, 4, 5, 0.2, 6]]


def test_ply_ascii_and_binary_give_the_same_points() -> None:
    record = [("x", "f4"), ("y", "f4"), ("z", "f8"), ("red", "u1"), ("heat", "f4")]
    rows = [(0, 1, 2, 255, 5), (3, 4, 5, 51, 6)]
    ascii_body = b"0 1 2 255 5\n3 4 5 51 6\n3 0 1 1\n"
    for content in (
        _ply("ascii", ascii_body),
        _ply("ascii", ascii_body).replace(b"\n", b"\r\n"),
        _ply("binary_little_endian", np.array(rows, [(n, "<" + t) for n, t in record]).tobytes() + b"\x03" + bytes(12)),
        _ply("binary_big_endian", np.array(rows, [(n, ">" + t) for n, t in record]).tobytes() + b"\x03" + bytes(12)),
    ):
        points = load(content, "points")
        assert np.allclose(np.concatenate([points.xyz, points.features], axis=1), EXPECTED)


@pytest.mark.parametrize(
    "content",
    [
        _ply("binary_little_endian", bytes(41)),
        _ply("ascii", b"0 1 2 255 5\n"),
        _ply("ascii", b"0 1 2 255\n3 4 5 51\n"),
        _ply("ascii", b"", 0),
        _ply("binary_middle_endian", bytes(99)),
        _ply("ascii", b"0 1 2 255 nan\n0 1 2 255 5\n"),
        _ply("ascii", b"").replace(b"float x", b"list uchar float x"),
        _ply("ascii", b"").replace(b"vertex 2", b"vertex -2"),
        _ply("ascii", b"").replace(b"end_header", b"end"),
        _ply("ascii", b"").replace(b"float y", b"float x"),
        b"ply\n",
    ],
)
def test_broken_ply_is_refused(content: bytes) -> None:
    assert refusal(content, "points").code == "invalid_points"


def test_a_ply_that_declares_too_many_points_is_refused_from_its_header() -> None:
    assert refusal(_ply("binary_little_endian", b"", 10**12), "points").code == "points_too_large"


CUBE_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
CUBE_FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
OBJ = "".join(f"v {x} {y} {z}\n" for x, y, z in CUBE_CORNERS) + "".join(
    "f " + " ".join(f"{corner + 1}/1/1" for corner in face) + "\n" for face in CUBE_FACES
)
OFF = (
    "OFF\n# a cube\n8 6 0\n"
    + "".join(f"{x} {y} {z}\n" for x, y, z in CUBE_CORNERS)
    + "".join("4 " + " ".join(map(str, face)) + "\n" for face in CUBE_FACES)
)


@pytest.mark.parametrize("text", [OBJ, "# c\no cube\n" + OBJ, OFF, OFF.replace("OFF\n# a cube\n", "OFF ")])
def test_a_mesh_is_sampled_evenly_on_its_surface(text: str) -> None:
    points = load(text.encode(), "points")
    assert points.xyz.shape == (MESH_POINTS, 3) and points.features.shape == (MESH_POINTS, 0)
    on_side = (np.abs(points.xyz) < 1e-6) | (np.abs(points.xyz - 1) < 1e-6)
    assert on_side.any(axis=1).all()
    # six equal sides: each holds 1/6 of 4096 = 683 points, standard deviation 24
    counts = [(np.abs(points.xyz[:, axis] - side) < 1e-6).sum() for axis in range(3) for side in (0, 1)]
    assert min(counts) > 683 - 120 and max(counts) < 683 + 120
    assert load(text.encode(), "points").digest() == points.digest()


def test_an_obj_without_faces_gives_its_vertices() -> None:
    assert np.array_equal(load(OBJ.split("f ")[0].encode(), "points").xyz, np.array(CUBE_CORNERS))


@pytest.mark.parametrize(
    "text",
    [
        "v 0 0\n",
        "v 0 0 0\nf 1 2 3\n",
        "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
        "v a b c\n v 1 2 3\nv -1 x 0",
        "OFF\n9 9\n",
    ],
)
def test_broken_meshes_are_refused(text: str) -> None:
    assert refusal(text.encode(), "points").code == "invalid_points"


def test_negative_obj_indices_count_back() -> None:
    assert len(load(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\n", "points").xyz) == MESH_POINTS


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6\n",
        "1 2 3\n4 5 6\n",
        "1\t2\t3\n4\t5\t6",
        "x;y;z\n1;2;3\n4;5;6\n",
        "# c\n\n// d\n 1  2 3\r\n4 5 6\r\n\r\n",
        "\ufeffx,y,z\n1,2,3\n4,5,6\n",
    ],
)
def test_tables_of_any_separator_load(text: str) -> None:
    assert load(text.encode(), "points").xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert load(text.encode(), "series").values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "text", ["1,2,3\n4,5\n", "1,,3\n", "a,b,c\nd,e,f\n", "a,b,c\n", "\n\n", "1,2,nan\n", "1,2,1e99\n", "1,2,0x1p\n"]
)
@pytest.mark.parametrize("kind", ["points", "series"])
def test_broken_tables_are_refused(text: str, kind: str) -> None:
    assert refusal(text.encode(), kind).code == f"invalid_{kind}"


def test_tables_are_bounded_by_their_values() -> None:
    content = b"1 2 3\n" * 100
    assert refusal(content, "points", limits=Limits(points_count=99)).code == "points_too_large"
    assert refusal(content, "series", limits=Limits(series_values=299)).code == "series_too_large"
    assert load(content, "series", limits=Limits(series_values=300)).values.shape == (100, 3)


@pytest.mark.parametrize(
    "form", [list, np.asarray, torch.from_numpy, npy, lambda a: {"xyz": a[:, :3], "features": a[:, 3:]}]
)
def test_points_of_every_form_are_the_same(form: Callable[[np.ndarray], object]) -> None:
    source = POINTS.tolist() if form is list else form(POINTS)
    assert load(source, "points").digest() == Points(POINTS[:, :3], POINTS[:, 3:]).digest()


def test_npz_points_load_by_name() -> None:
    assert (
        load(npz(points=POINTS), "points").digest()
        == load(npz(xyz=POINTS[:, :3], features=POINTS[:, 3:]), "points").digest()
    )
    assert load(npz(xyz=POINTS[:, :3]), "points").features.shape == (7, 0)


@pytest.mark.parametrize(
    "form", [list, np.asarray, torch.from_numpy, npy, lambda a: npz(values=a), lambda a: {"values": a}]
)
def test_series_of_every_form_are_the_same(form: Callable[[np.ndarray], object]) -> None:
    source = POINTS.tolist() if form is list else form(POINTS)
    assert load(source, "series").digest() == Series(POINTS).digest()


def test_a_series_keeps_its_rate_where_the_source_knows_it() -> None:
    assert load({"values": [1, 2], "rate_hz": 50}, "series").rate_hz == 50.0
    assert load(npz(values=POINTS, rate_hz=np.float64(12.5)), "series").rate_hz == 12.5
    assert load([1, 2], "series").rate_hz is None and load([1, 2], "series").values.shape == (2, 1)


def test_a_wav_is_a_series_of_its_channels_even_at_slow_rates() -> None:
    series = load(encode_audio(tone(1.0, 100, channels=3), 100, subtype="FLOAT"), "series")
    assert series.values.shape == (100, 3) and series.rate_hz == 100
    limits = Limits(series_values=299)
    assert refusal(encode_audio(tone(1.0, 100, channels=3), 100), "series", limits=limits).code == "series_too_large"


@pytest.mark.parametrize(
    "source", [[[1, 2, 3], [4, 5]], [["a", "b", "c"]], [], [[]], [[1, 2]], [[1, 2, float("nan")]], np.zeros((2, 3, 4))]
)
def test_lists_that_are_no_points_are_refused(source: object) -> None:
    assert refusal(source, "points").code == "invalid_points"


@pytest.mark.parametrize(
    "source", [[[1, 2], [3]], ["a"], [], [[]], [float("inf")], [1e39], np.zeros((1, 2, 3)), [1j], [None]]
)
def test_lists_that_are_no_series_are_refused(source: object) -> None:
    assert refusal(source, "series").code == "invalid_series"


@pytest.mark.parametrize("rate_hz", [0, -1, float("nan"), float("inf"), "50", True])
def test_rates_that_are_no_rate_are_refused(rate_hz: object) -> None:
    assert refusal({"values": [1, 2], "rate_hz": rate_hz}, "series").code == "invalid_series"


def test_limits_hold_for_arrays_and_payloads_too() -> None:
    limits = Limits(points_count=6, series_values=34, points_features=1)
    for source in (POINTS, POINTS.tolist(), Points(POINTS[:, :3], POINTS[:, 3:]), npy(POINTS), {"xyz": POINTS[:, :3]}):
        assert refusal(source, "points", limits=limits).code == "points_too_large"
    for source in (POINTS, POINTS.tolist(), Series(POINTS), npy(POINTS), {"values": POINTS}):
        assert refusal(source, "series", limits=limits).code == "series_too_large"
    assert refusal(POINTS, "points", limits=Limits(points_features=1)).code == "points_too_large"


def test_one_series_has_one_digest_however_its_rate_is_written() -> None:
    assert Series(POINTS, 50).digest() == Series(POINTS, 50.0).digest() != Series(POINTS).digest()
