"""Whatever happens to the bytes: a payload or a MediaError, never another exception."""

from __future__ import annotations

import random

import numpy as np
import pytest

from omniloom.errors import MediaError
from omniloom.media import CODES, KINDS, load

from .makers import encode_audio, encode_image, encode_video, noise_image, tone
from .test_arrays import OBJ, OFF, POINTS, _ply, npy, npz
from .test_maps import depth_png, depth_tiff

WHOLE = {
    "image": lambda: [encode_image(noise_image(), fmt) for fmt in ("PNG", "JPEG", "WEBP", "GIF")],
    "audio": lambda: [
        *(encode_audio(tone(0.1), 16_000, fmt) for fmt in ("WAV", "FLAC", "OGG", "MP3")),
        encode_video(codec=None, with_sound_s=0.1),
    ],
    "video": lambda: [encode_video(), encode_video(fmt="webm", codec="libvpx"), encode_video(fmt="avi", codec="mpeg4")],
    "points": lambda: [npy(POINTS), npz(points=POINTS), _ply("ascii", b"0 1 2 3 4\n" * 2), OBJ.encode(), OFF.encode()],
    "series": lambda: [npy(POINTS), npz(values=POINTS), b"a,b\n1,2\n3,4\n", encode_audio(np.zeros((9, 2)))],
    "map": lambda: [npy(POINTS), npz(values=POINTS), depth_png(), depth_tiff(), depth_tiff(compression="tiff_lzw")],
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(min(len(changed), rng.choice((64, 512, 1 << 30))))
        how = rng.randrange(3)
        if how == 0:
            changed[at] = rng.choice((0, 255, 127, rng.randrange(256)))
        elif how == 1:
            del changed[at : at + rng.randrange(1, 5)]
        else:
            changed[at:at] = rng.randbytes(rng.randrange(1, 5))
    return bytes(changed)


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_damaged_bytes_give_a_payload_or_a_media_error(kind: str) -> None:
    rng = random.Random(0)
    refused = 0
    for content in WHOLE[kind]():
        assert load(content, kind).kind == kind
        for _ in range(60):
            try:
                assert isinstance(load(damaged(content, rng), kind), KINDS[kind].payload_type)
            except MediaError as error:
                refused += 1
                assert error.code in CODES and "0x" not in error.message
    assert refused > 20
