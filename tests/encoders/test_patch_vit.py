from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from omniloom.encoders.patch_vit import PatchViT
from omniloom.errors import ConfigError, ShapeError
from omniloom.sequence import Shape


def test_rows_lie_on_the_grid_of_patches():
    part = PatchViT(patch_px=8, width=16, heads=2)
    assert part([torch.zeros(3, 16, 24), torch.zeros(2, 3, 8, 8)]).shapes == (
        Shape(6, (1, 2, 3)),
        Shape(2, (2, 1, 1)),
    )


def test_a_patch_has_the_time_of_its_frame():
    pixels = Shape(2 * 16 * 16, (2, 16, 16), (0.0,) * 256 + (0.5,) * 256)
    assert PatchViT(patch_px=8, width=16, heads=2).out_shape(pixels).times == (0.0,) * 4 + (0.5,) * 4


def test_frames_of_an_item_see_each_other():
    part = PatchViT(patch_px=8, width=16, heads=2, depth=1).eval()
    clip = torch.randn(2, 3, 8, 8)
    changed = torch.stack([clip[0], torch.randn(3, 8, 8)])
    assert not torch.allclose(part([clip]).x[0], part([changed]).x[0])


def test_the_order_of_frames_matters():
    part, clip = PatchViT(patch_px=8, width=16, heads=2).eval(), torch.randn(2, 3, 8, 8)
    assert not torch.allclose(part([clip]).x, part([clip.flip(0)]).x.flip(0), atol=1e-3)


def test_a_picture_is_a_video_of_one_frame():
    part, picture = PatchViT(patch_px=8, width=16, heads=2).eval(), torch.randn(3, 16, 16)
    assert torch.equal(part([picture]).x, part([picture[None]]).x)


def test_pixels_without_a_grid_are_refused():
    with pytest.raises(ShapeError, match="patch_px=8"):
        PatchViT().out_shape(Shape(64))


@pytest.mark.parametrize(
    "options", [{"patch_px": 6}, {"width": 90, "heads": 3}, {"stem": "big"}, {"heads": 5}, {"patch_px": 0}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(ConfigError):
        PatchViT(**options)


def test_it_learns_digits_from_a_few_hundred_pictures():
    # 500 digits, three passes, under a second. Chance is 0.1; with a frozen encoder it stays under 0.5.
    torch.manual_seed(0)
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    part = PatchViT(patch_px=2, width=48, depth=1, heads=2, channels=1)
    head = nn.Linear(part.out_dim, 10)
    optimizer = torch.optim.AdamW([*part.parameters(), *head.parameters()], lr=3e-3)

    def logits(batch):
        return head(part(list(batch)).x.view(len(batch), 16, -1).mean(1))

    for start in [*range(0, 500, 25)] * 3:
        loss = nn.functional.cross_entropy(logits(x[start : start + 25]), y[start : start + 25])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (logits(x[1000:1400]).argmax(1) == y[1000:1400]).float().mean() > 0.75
