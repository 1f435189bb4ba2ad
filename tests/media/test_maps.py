"""Maps through the gateway: the stored numbers come in as they are, and nothing that would change them does."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import torch

from omniloom.errors import MediaError
from omniloom.media import Limits, Map, load

from .makers import encode_image, noise_image, raw_png
from .test_arrays import HEADERS, Marker, npy, npy_with_header, npz

DEPTH = np.random.default_rng(0).integers(0, 65_536, (6, 9), dtype=np.uint16)


def depth_png(values: np.ndarray = DEPTH) -> bytes:
    return encode_image(PIL.Image.fromarray(values), "PNG")


def depth_tiff(values: np.ndarray = DEPTH, **options: object) -> bytes:
    return encode_image(PIL.Image.fromarray(values), "TIFF", **options)


def refusal(source: object, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, "map", **options)
    return caught.value


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_numbers_of_a_tiff_are_the_stored_ones(dtype) -> None:
    values = (DEPTH / 300).astype(dtype)
    assert np.array_equal(load(depth_tiff(values), "map").values, values[None].astype(np.float32))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_packed_tiffs_hold_the_same_numbers(compression) -> None:
    assert np.array_equal(load(depth_tiff(compression=compression), "map").values[0], DEPTH)


def test_a_tiff_of_the_other_byte_order_holds_the_same_numbers() -> None:
    swapped = PIL.Image.fromarray(DEPTH.astype(">u2"))
    assert swapped.mode == "I;16B"
    assert np.array_equal(load(encode_image(swapped, "TIFF"), "map").values[0], DEPTH)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_a_grey_png_are_the_stored_ones(dtype) -> None:
    values = (DEPTH / 300).astype(dtype)
    assert np.array_equal(load(depth_png(values), "map").values[0], values)


def test_rgb_is_three_channels() -> None:
    picture = noise_image(4, 5)
    for content in (encode_image(picture, "PNG"), encode_image(picture, "TIFF"), picture):
        assert np.array_equal(load(content, "map").values, np.asarray(picture).transpose(2, 0, 1))


def test_arrays_are_channels_lines_columns() -> None:
    values = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    for source in (values, torch.tensor(values), values.tolist(), {"values": values}, npy(values), npz(values=values)):
        assert np.array_equal(load(source, "map").values, values)
    assert load(values[0], "map").values.shape == (1, 3, 4)
    assert load(npy(values[0]), "map").digest() == load(values[:1], "map").digest()


def test_a_payload_passes_and_is_held_to_the_limits() -> None:
    made = Map(np.zeros((2, 3, 4), np.float32))
    assert load(made, "map") is made
    assert refusal(made, limits=Limits(map_values=23)).code == "map_too_large"
    assert refusal(made, limits=Limits(map_channels=1)).code == "map_too_large"


@pytest.mark.parametrize(
    "make",
    [depth_png, depth_tiff, lambda: npy(DEPTH), lambda: npz(values=DEPTH), lambda: DEPTH],
    ids=["png", "tiff", "npy", "npz", "array"],
)
def test_the_limit_of_values_holds_for_every_source(make) -> None:
    assert load(make(), "map", limits=Limits(map_values=54)).values.size == 54
    assert refusal(make(), limits=Limits(map_values=53)).code == "map_too_large"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_values_are_refused_and_never_guessed(value) -> None:
    values = np.ones((3, 3), np.float32)
    values[1, 1] = value
    for source in (values, npy(values), depth_tiff(values)):
        error = refusal(source)
        assert error.code == "invalid_map" and "Set missing ones to 0" in error.message


def _marked(orientation: int) -> bytes:
    out, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(DEPTH).save(out, "PNG", exif=exif)
    return out.getvalue()


REFUSED = {
    "palette": lambda: encode_image(noise_image().convert("P"), "PNG"),
    "transparency": lambda: encode_image(noise_image().convert("RGBA"), "PNG"),
    "bits": lambda: encode_image(noise_image().convert("1"), "TIFF"),
    "16-bit colour": lambda: raw_png(2, 2, depth=16, colour=2),
    "two bits of grey": lambda: raw_png(2, 2, depth=2, colour=0),
    "rotated": lambda: _marked(6),
    "several pages": lambda: depth_tiff(save_all=True, append_images=[PIL.Image.fromarray(DEPTH)]),
    "white is zero": lambda: depth_tiff(tiffinfo={262: 0}),
    "cmyk": lambda: encode_image(noise_image().convert("CMYK"), "TIFF"),
    "four axes": lambda: npy(np.zeros((1, 2, 3, 4))),
    "text": lambda: [["a", "b"]],
    "ragged": lambda: [[1, 2], [3]],
    "nothing": lambda: np.zeros((1, 0, 3)),
    "another name": lambda: npz(depth=DEPTH),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_numbers_or_has_none_is_refused(name) -> None:
    assert refusal(REFUSED[name]()).code == "invalid_map"


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_that_lose_numbers_are_no_maps(fmt) -> None:
    assert refusal(encode_image(noise_image(), fmt)).code == "unsupported_media_type"


@pytest.mark.parametrize("keep", [3, 20, 60, -5])
@pytest.mark.parametrize("make", [depth_png, depth_tiff, lambda: npy(DEPTH)], ids=["png", "tiff", "npy"])
def test_truncated_files_are_refused(make, keep) -> None:
    error = refusal(make()[:keep])
    assert error.code in ("invalid_map", "unsupported_media_type") and "0x" not in error.message


def test_pickles_are_never_read() -> None:
    objects = np.array([[Marker()]], dtype=object)
    assert refusal(npy(objects, allow_pickle=True)).code == "pickle_refused"
    assert refusal(npz(values=objects)).code == "pickle_refused"


@pytest.mark.parametrize("header", HEADERS)
def test_npy_headers_that_lie_or_break_are_refused(header) -> None:
    assert refusal(npy_with_header(header, bytes(12 * 8))).code in ("invalid_map", "map_too_large")


def test_the_content_decides_and_not_the_name(tmp_path) -> None:
    (tmp_path / "depth.jpg").write_bytes(depth_tiff())
    assert np.array_equal(load(tmp_path / "depth.jpg", "map").values[0], DEPTH)


def test_a_map_is_finite_float32_of_three_axes() -> None:
    for wrong in (np.zeros((2, 3), np.float32), np.zeros((1, 2, 3)), np.zeros((0, 2, 3), np.float32)):
        with pytest.raises(MediaError, match="invalid_map"):
            Map(wrong)
