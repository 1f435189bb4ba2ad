"""Bombs cost little: memory growth of each refusal, measured in a process of its own, against the case's bound.

One child imports the room once and forks for every case, so that the peak of one case is not the peak of another.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile

from .makers import chunk, encode_audio, encode_image, encode_video, raw_png, tone, zeros_deflated

CHILD = """
import json, os, resource, sys, time
from omniloom.errors import MediaError
from omniloom.media import load
load(b"1,2,3", "points")
results = {}
for name, (kind, path) in json.load(open(sys.argv[1])).items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
        start = time.monotonic()
        try:
            load(path, kind)
            code = "loaded"
        except MediaError as error:
            code = error.code
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writer, json.dumps([code, grown / 1024, time.monotonic() - start]).encode())
        os._exit(0)
    os.close(writer)
    results[name] = json.loads(os.read(reader, 4096) or b'["died", 0, 0]')
    os.wait()
print(json.dumps(results))
"""


def _png_bomb() -> bytes:
    return raw_png(50_000, 50_000, depth=1, colour=0, data=zeros_deflated(300 << 20))


def _text_bomb(name: bytes, head: bytes) -> bytes:
    return raw_png(1, 1, data=zlib.compress(bytes(4)), extra=chunk(name, head + zeros_deflated(100 << 20)))


def _gif_of_many_frames() -> bytes:
    one = encode_image(PIL.Image.new("P", (64, 64)), "GIF")
    start = 13 + 3 * 2 ** ((one[10] & 7) + 1) if one[10] & 0x80 else 13
    return one[:start] + one[start:-1] * 10_000 + b";"


def _flac_of_hours(path: Path) -> None:
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(100):
            file.write(np.zeros(8000 * 72, np.int16))


def _npz_bomb() -> bytes:
    return _zip_of("values.npy", b"\x93NUMPY\x01\x00" + _npy_header(50_000_000) + bytes(200_000_000))


def _npy_header(count: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},), }}\n".encode()
    return len(text).to_bytes(2, "little") + text


def _zip_of(name: str, data: bytes, declared: int | None = None) -> bytes:
    packed = zlib.compressobj(1, wbits=-15)
    body = packed.compress(data) + packed.flush()
    size = len(data) if declared is None else declared
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(data), len(body), size, len(name), 0)
    local = b"PK\x03\x04" + common + name.encode() + body
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def _tiff(width: int, height: int, tags: list[tuple[int, int, int, int]] | None = None, size: int = 0) -> bytes:
    """A grey TIFF of one strip: declared width and height, and further tags (number, type, count, offset)."""
    own = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries = [*own, (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 32), *(tags or [])]
    pixels = bytes(max(size, 32))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + bytes(4)


def _mp4_index_bomb() -> bytes:
    """One chunk of a hundred million samples of one byte each: an index of gigabytes, if it were believed."""
    content = bytearray(encode_video())
    count = 100_000_000
    at = bytes(content).index(b"stsz") + 8
    content[at : at + 8] = struct.pack(">II", 1, count)
    at = bytes(content).index(b"stsc") + 16
    content[at : at + 4] = struct.pack(">I", count)
    at = bytes(content).index(b"stts") + 12
    content[at : at + 4] = struct.pack(">I", count)
    return bytes(content)


# name: (kind, expected codes, MiB of growth allowed, what makes the bytes). The bounds leave room for the encoded bytes
# themselves and for what a decoder keeps; every one of these would take 0.1 to 10 GiB if it were decoded in full.
CASES = {
    "png of 2.5 gigapixels": ("image", {"image_too_large"}, 50, _png_bomb),
    "zTXt of 100 MiB": ("image", {"invalid_image"}, 50, lambda: _text_bomb(b"zTXt", b"k\0\0")),
    "iTXt of 100 MiB": ("image", {"invalid_image"}, 50, lambda: _text_bomb(b"iTXt", b"k\0\1\0\0\0")),
    "iCCP of 100 MiB": ("image", {"invalid_image"}, 50, lambda: _text_bomb(b"iCCP", b"k\0\0")),
    "gif of 10 000 frames": ("image", {"loaded"}, 50, _gif_of_many_frames),
    "gif of 10 000 frames as video": ("video", {"video_too_large"}, 50, _gif_of_many_frames),
    "flac of two hours": ("audio", {"audio_too_long"}, 50, _flac_of_hours),
    # 600 s at 8 kHz are 18 MiB of float32; doubling the buffer holds two of them for a moment
    "mp3 of 11 minutes without a length": (
        "audio",
        {"audio_too_long"},
        100,
        lambda: encode_audio(np.zeros((8000 * 660, 1), np.float32), 8000, "MP3"),
    ),
    "mp3 with an ID3 tag of 30 MiB": (
        "audio",
        {"audio_too_large"},
        50,
        lambda: b"ID3\4\0\0\x0f\0\0\0" + bytes(30 << 20) + encode_audio(tone(), 16_000, "MP3"),
    ),
    "npz of 200 MB": ("series", {"series_too_large", "invalid_series"}, 50, _npz_bomb),
    "zip whose size lies": (
        "series",
        {"invalid_series"},
        50,
        lambda: _zip_of("values.npy", b"\x93NUMPY\x01\x00" + _npy_header(50_000_000) + bytes(200_000_000), 4096),
    ),
    "npy of 4 exabytes": ("points", {"points_too_large"}, 10, lambda: b"\x93NUMPY\x01\x00" + _npy_header(1 << 60)),
    "table of one line": ("series", {"invalid_series"}, 100, lambda: b"1 " * (16 << 20)),
    "obj face of 16 million corners": ("points", {"invalid_points"}, 100, lambda: b"v 0 0 0\nf" + b" 1" * (16 << 20)),
    "obj of 3 million vertices": ("points", {"points_too_large"}, 120, lambda: b"v 1 2 3\n" * 3_000_000),
    "ply that declares a trillion": (
        "points",
        {"points_too_large"},
        10,
        lambda: b"ply\nformat ascii 1.0\nelement vertex 1000000000000\nproperty float x\nend_header\n".replace(
            b"float x", b"float x\nproperty float y\nproperty float z"
        ),
    ),
    "8K video": ("video", {"video_too_large"}, 150, lambda: encode_video([0], size_px=(7680, 4320))),
    "mp4 index of 100 million samples": ("video", {"invalid_video"}, 100, _mp4_index_bomb),
    "tiff of 2.5 gigapixels": ("map", {"map_too_large"}, 10, lambda: _tiff(50_000, 50_000)),
    "tiff whose tags are its whole file": (
        "map",
        {"invalid_map"},
        30,
        lambda: _tiff(4, 4, [(40_000 + k, 1, 8 << 20, 8) for k in range(40)], 8 << 20),
    ),
    "tiff of 60 000 tags": ("map", {"invalid_map"}, 30, lambda: _tiff(4, 4, [(300, 3, 1, 0)] * 60_000)),
    "16-bit png of 2.5 gigapixels": (
        "map",
        {"map_too_large"},
        50,
        lambda: raw_png(50_000, 50_000, depth=16, colour=0, data=zeros_deflated(30 << 20)),
    ),
    "gzip": ("points", {"unsupported_media_type"}, 10, lambda: gzip.compress(bytes(10 << 20))),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, float]]:
    folder = tmp_path_factory.mktemp("bombs")
    listing = {}
    for index, (name, (kind, _, _, make)) in enumerate(CASES.items()):
        path = folder / f"{index}.bin"
        if make is _flac_of_hours:
            make(path)
        else:
            path.write_bytes(make())
        listing[name] = (kind, str(path))
    (folder / "cases.json").write_text(json.dumps(listing))
    command = [sys.executable, "-c", CHILD, str(folder / "cases.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and forks")
@pytest.mark.parametrize("name", CASES)
def test_a_bomb_is_refused_within_its_memory_and_time(name: str, results: dict[str, tuple[str, float, float]]) -> None:
    _, codes, limit_mib, _ = CASES[name]
    code, grown_mib, seconds = results[name]
    assert code in codes
    assert grown_mib < limit_mib
    assert seconds < 10
