from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from omniloom.codecs.image_fsq import ImageFSQ
from omniloom.errors import ConfigError
from omniloom.media import Image
from omniloom.sequence import Shape


def digits(count: int) -> list[Image]:
    gray = (load_digits().images[:count] * 15.9).astype(np.uint8)
    return [Image(np.repeat(picture[..., None], 3, 2)) for picture in gray]


def test_the_default_makes_sixteen_codes_of_two_hundred():
    part = ImageFSQ()
    codes = part.encode(digits(1)[0])
    assert part.sizes == (200,) and codes.books[0].shape == (16,) and codes.shape == Shape(16, (1, 4, 4))


def test_it_gives_a_gray_picture_of_its_size():
    part = ImageFSQ()
    pixels = part.decode(part.encode(digits(1)[0])).pixels
    assert pixels.shape == (8, 8, 3) and np.array_equal(pixels[..., 0], pixels[..., 2])


def test_a_few_steps_learn_to_reconstruct_digits():
    # The variance of the pixels, what a constant picture leaves, is 0.14 here.
    torch.manual_seed(0)
    part, pictures = ImageFSQ(width=32), digits(256)
    optimizer = torch.optim.AdamW(part.parameters(), lr=3e-3)
    for start in [*range(0, 256, 32)] * 5:
        total, count = part.loss(pictures[start : start + 32])["reconstruction"]
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    with torch.no_grad():
        total, count = part.loss(digits(400)[256:])["reconstruction"]
    assert total / count < 0.04
    seen = {int(code) for picture in pictures[:64] for code in part.encode(picture).books[0]}
    assert len(seen) > 20  # the codebook has not collapsed


def test_decoding_the_codes_gives_what_the_loss_measures():
    part, picture = ImageFSQ(width=8), digits(1)[0]
    total, count = part.loss([picture])["reconstruction"]
    again = part.decode(part.encode(picture)).pixels[..., :1]
    squares = ((again / 255.0 - picture.pixels[..., :1] / 255.0) ** 2).sum()
    # Decoding rounds to 8 bits and clamps to what a picture can hold.
    assert squares <= float(total.detach()) * 1.02 + 0.01 and int(count) == 64


@pytest.mark.parametrize(
    "options", [{"size_px": 12}, {"grid": 3}, {"channels": 2}, {"levels": [1]}, {"grid": 0}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(ConfigError):
        ImageFSQ(**options)
