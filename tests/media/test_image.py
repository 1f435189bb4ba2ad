"""Pictures through the gateway: the cases of broken, hostile and odd images, and the one rule of conversion."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch

from omniloom.errors import MediaError
from omniloom.media import Image, Limits, load

from .makers import chunk, encode_image, noise_image, raw_png, zeros_deflated


def refusal(source: object, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, "image", **options)
    return caught.value


@pytest.mark.parametrize(
    "text", ["%%%%", "iVBORw0KGgo=====", "iVBORw0KGgo", "_-_-", "aaaaa", "\u00e4\u00e4\u00e4\u00e4"]
)
def test_base64_garbage_is_refused(text: str) -> None:
    assert refusal({"base64": text}).code == "invalid_image"


def test_whitespace_in_base64_is_tolerated() -> None:
    content = encode_image(noise_image(), "PNG")
    assert load({"base64": base64.encodebytes(content).decode()}, "image").pixels.shape == (24, 32, 3)


def test_url_safe_base64_is_refused() -> None:
    text = base64.urlsafe_b64encode(encode_image(noise_image(), "PNG")).decode()
    assert "-" in text or "_" in text
    assert refusal({"base64": text}).code == "invalid_image"


def test_a_png_of_50_000_pixels_square_is_refused_from_its_header() -> None:
    assert refusal(raw_png(50_000, 50_000, depth=1, colour=0, data=b"x")).code == "image_too_large"


@pytest.mark.parametrize("size_px", [(30_000, 1), (1, 30_000)])
def test_a_side_beyond_the_limit_is_refused(size_px: tuple[int, int]) -> None:
    assert refusal(encode_image(PIL.Image.new("RGB", size_px), "PNG")).code == "image_too_large"


@pytest.mark.parametrize("size_px", [(16_000, 1), (1, 16_000)])
def test_extreme_ratios_within_the_limit_load(size_px: tuple[int, int]) -> None:
    pixels = load(encode_image(PIL.Image.new("RGB", size_px), "PNG"), "image").pixels
    assert pixels.shape == (size_px[1], size_px[0], 3)


def test_an_image_without_pixels_is_refused() -> None:
    assert refusal(raw_png(0, 0, data=zlib.compress(b""))).code == "invalid_image"
    assert refusal(np.zeros((0, 4, 3), np.uint8)).code == "invalid_image"


def test_no_bytes_are_refused() -> None:
    assert refusal(b"").code == "empty_media"


@pytest.mark.parametrize("size_px", [(1, 1), (2, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize("fmt", ["PNG", "GIF", "WEBP", "JPEG"])
def test_tiny_images_keep_their_shape(size_px: tuple[int, int], fmt: str) -> None:
    pixels = load(encode_image(PIL.Image.new("RGB", size_px, "red"), fmt), "image").pixels
    assert pixels.shape == (size_px[1], size_px[0], 3)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("cut", [1, 8, 30, 0.5])
def test_truncated_images_are_refused(fmt: str, cut: float) -> None:
    content = encode_image(noise_image(), fmt)
    keep = len(content) - cut if isinstance(cut, int) else int(len(content) * cut)
    assert refusal(content[:keep]).code == "invalid_image"


def test_a_truncated_gif_is_refused() -> None:
    content = encode_image(noise_image(), "GIF")
    assert refusal(content[: len(content) // 2]).code == "invalid_image"


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(fmt: str) -> None:
    frames = [PIL.Image.new("RGB", (6, 4), (index % 256, index // 256, 90)) for index in range(500)]
    content = encode_image(frames[0], fmt, save_all=True, append_images=frames[1:], duration=10, **_lossless(fmt))
    image = load(content, "image")
    assert image.pixels.shape == (4, 6, 3)
    assert np.abs(image.pixels.astype(int) - [0, 0, 90]).max() <= 1


def _lossless(fmt: str) -> dict[str, object]:
    return {"lossless": True} if fmt == "WEBP" else {}


FOREIGN = {
    "fits": b"SIMPLE  =                    T" + b" " * 60,
    "psd": b"8BPS\x00\x01" + bytes(20),
    "icns": b"icns" + bytes(20),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "tiff": b"II*\x00" + bytes(20),
    "svg": b'<svg xmlns="x"><image href="file:///etc/passwd"/></svg>',
    "pdf": b"%PDF-1.7\n",
    "bmp": b"BM" + bytes(60),
    "jpeg2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "heif": b"\x00\x00\x00\x18ftypheic" + bytes(12),
    "zip": b"PK\x03\x04" + bytes(30),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_outside_the_list_are_refused_by_content(name: str) -> None:
    uri = "data:image/png;base64," + base64.b64encode(FOREIGN[name]).decode()
    assert refusal(uri).code == "unsupported_media_type"


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x10\x00\x00\x00WEBP"])
def test_a_malformed_header_gives_constant_text_without_addresses(head: bytes) -> None:
    error = refusal(head + b"garbage that is no picture at all")
    assert error.code == "invalid_image"
    assert "0x" not in str(error)
    assert error.__context__ is None or error.__suppress_context__


def test_the_content_decides_and_not_the_declared_type_or_name(tmp_path) -> None:
    content = encode_image(noise_image(), "JPEG")
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    assert load(path, "image").digest() == load(uri, "image").digest() == load(content, "image").digest()


def test_a_png_that_is_also_a_zip_is_a_png_only() -> None:
    content = encode_image(noise_image(), "PNG") + b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    assert load(content, "image").pixels.shape == (24, 32, 3)
    for kind in ("points", "series"):
        with pytest.raises(MediaError) as caught:
            load(content, kind)
        assert caught.value.code == "unsupported_media_type"


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_compressed_text_bomb_is_refused(name: bytes) -> None:
    bomb = zeros_deflated(100 << 20)
    heads = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}
    pixels = zlib.compress(b"\0" + bytes(3))
    assert refusal(raw_png(1, 1, data=pixels, extra=chunk(name, heads[name] + bomb))).code == "invalid_image"


def test_a_plain_text_chunk_is_harmless() -> None:
    pixels = zlib.compress(b"\0" + bytes([9, 8, 7]))
    image = load(raw_png(1, 1, data=pixels, extra=chunk(b"tEXt", b"k\0value")), "image")
    assert image.pixels.tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0], upright[0, 2], upright[1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How a camera stores the upright picture under each orientation: EXIF 2.3, tag 274.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = encode_image(PIL.Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    once = load(content, "image")
    assert np.array_equal(once.pixels, upright)
    assert np.array_equal(load(once, "image").pixels, upright)


def test_an_unknown_orientation_leaves_the_picture_as_it_is() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 42
    image = noise_image()
    assert np.array_equal(load(encode_image(image, "PNG", exif=exif), "image").pixels, np.asarray(image))


def _palette_with_transparency() -> bytes:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 0, 0, 0])
    image.putpixel((1, 0), 1)
    return encode_image(image, "PNG", transparency=bytes([255, 0]))


def _grey_16() -> bytes:
    values = np.array([[0, 257, 32_768, 65_535]], np.uint16)
    return encode_image(PIL.Image.fromarray(values), "PNG")


CONVERSIONS = {
    # white under a transparent black pixel; half black over white is 127 or 128
    "RGBA": (
        encode_image(PIL.Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)), "PNG"),
        [255, 127],
    ),
    "LA": (encode_image(PIL.Image.fromarray(np.array([[[0, 0], [7, 255]]], np.uint8), "LA"), "PNG"), [255, 7]),
    "I;16": (_grey_16(), [0, 1, 128, 255]),
    "L": (encode_image(PIL.Image.new("L", (1, 1), 77), "PNG"), [77]),
    "1": (encode_image(PIL.Image.new("1", (1, 1), 1), "PNG"), [255]),
}


@pytest.mark.parametrize("mode", CONVERSIONS)
def test_grey_and_transparent_modes_follow_the_one_rule(mode: str) -> None:
    content, expected = CONVERSIONS[mode]
    pixels = load(content, "image").pixels
    assert pixels.dtype == np.uint8 and pixels.shape == (1, len(expected), 3)
    assert np.abs(pixels[0].astype(int) - np.array(expected)[:, None]).max() <= (1 if mode == "RGBA" else 0)


def test_a_transparent_palette_colour_becomes_white() -> None:
    assert load(_palette_with_transparency(), "image").pixels.tolist() == [[[200, 100, 50], [255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    content = encode_image(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(load(content, "image").pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_a_webp_with_a_huge_canvas_is_refused_before_its_decoder_runs() -> None:
    body = struct.pack("<I", 0) + (16_383).to_bytes(3, "little") * 2
    content = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + body
    assert refusal(content, limits=Limits(image_pixels=1_000_000)).code == "image_too_large"


def test_encoded_bytes_are_bounded() -> None:
    content = encode_image(noise_image(), "PNG")
    assert refusal(content, limits=Limits(image_bytes=len(content) - 1)).code == "image_too_large"
    assert load(content, "image", limits=Limits(image_bytes=len(content))).pixels.shape == (24, 32, 3)


def test_axes_of_an_array_are_never_guessed() -> None:
    assert load(np.zeros((3, 1, 3), np.uint8), "image").pixels.shape == (3, 1, 3)
    assert load(torch.zeros((3, 5, 3), dtype=torch.uint8), "image").pixels.shape == (3, 5, 3)
    assert refusal(np.zeros((3, 8, 9), np.uint8)).code == "invalid_image"


def test_arrays_follow_the_same_rule_as_files() -> None:
    assert load(np.array([[0, 257, 65_535]], np.uint16), "image").pixels[0, :, 0].tolist() == [0, 1, 255]
    assert load(np.array([[True, False]]), "image").pixels[0, :, 1].tolist() == [255, 0]
    assert load(np.zeros((1, 1, 4), np.uint8), "image").pixels.tolist() == [[[255, 255, 255]]]


def test_float_arrays_are_refused_because_their_range_is_unknown() -> None:
    assert refusal(np.zeros((4, 4, 3), np.float32)).code == "invalid_image"


def test_a_pil_image_loads_like_its_file() -> None:
    image = noise_image()
    assert load(image, "image").digest() == load(encode_image(image, "PNG"), "image").digest()


def test_equal_bytes_of_another_shape_have_another_digest() -> None:
    flat = np.arange(72, dtype=np.uint8)
    digests = {Image(flat.reshape(y, x, 3)).digest() for y, x in ((4, 6), (6, 4), (2, 12), (24, 1))}
    assert len(digests) == 4


def test_an_array_that_is_changed_later_does_not_change_the_image() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    image = load(pixels, "image")
    pixels[:] = 255
    assert image.pixels.max() == 0
