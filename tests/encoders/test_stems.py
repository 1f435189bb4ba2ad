from __future__ import annotations

import pytest
import torch

from omniloom.encoders.stems import SeriesStem, Stem
from omniloom.errors import ConfigError, ShapeError
from omniloom.sequence import Shape


def small(**options):
    return Stem(**{"width": 8, "kernel": 4, "size": (8, 12), **options})


@pytest.mark.parametrize(
    "options,shape,rows",
    [
        # 224 / 14 = 16 a side; 15 frames of depth or normal maps or video, as OneLLM reads them.
        ({}, Shape(224 * 224, (1, 224, 224)), 256),
        ({}, Shape(15 * 224 * 224, (15, 224, 224)), 15 * 256),
        # 1 + (1024 - 16) // 10 = 101 times of 1 + (128 - 16) // 10 = 12 pitches.
        ({"channels": 1, "kernel": 16, "stride": 10, "size": (1024, 128)}, Shape(1024), 1212),
    ],
)
def test_the_published_sizes_give_the_published_rows(options, shape, rows):
    with torch.device("meta"):
        part = Stem(**options)
    assert part.out_shape(shape).len == rows


def test_four_hundred_steps_of_a_motion_sensor_are_391_rows():
    with torch.device("meta"):
        assert SeriesStem().out_shape(Shape(400)).len == 391


def test_a_row_is_the_map_of_its_patch_and_its_position():
    part, picture = small(), torch.randn(3, 8, 12)
    patch = picture[:, 4:8, 8:12]  # line 1, column 2
    expected = (part.conv.weight * patch).sum((1, 2, 3)) + part.conv.bias + part.positions[1, 2]
    torch.testing.assert_close(part([picture]).x[5], expected)


def test_frames_of_a_video_are_cut_one_by_one():
    part, clip = small(), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(part([clip]).x, part(list(clip)).x)
    assert part([clip]).shapes[0].grid == (2, 2, 3)


def test_positions_of_another_size_are_interpolated():
    part = small()
    with torch.no_grad():
        part.positions.copy_(torch.arange(2.0)[:, None, None].expand(2, 3, 8))
        part.conv.weight.zero_(), part.conv.bias.zero_()
        lines = part([torch.zeros(3, 16, 12)]).x.view(4, 3, 8)[:, 0, 0]
    assert lines.diff().gt(0).all() and float(lines.mean()) == pytest.approx(0.5)


def test_rows_of_a_sound_lie_in_time_and_pitch():
    part = small(channels=1, stride=2, size=(20, 8))
    frames = torch.randn(10, 8)
    out = part([frames])
    # 1 + (10 - 4) // 2 times of 1 + (8 - 4) // 2 pitches; time 1, pitch 2 begins at frame 2 and mel 4.
    assert out.shapes[0].grid == (4, 3, 1)
    expected = (part.conv.weight[:, 0] * frames[2:6, 4:8]).sum((1, 2)) + part.conv.bias + part.positions[1, 2]
    torch.testing.assert_close(out.x[5], expected)
    times = part.out_shape(Shape(10, times=tuple(i / 100 for i in range(10)))).times
    assert times == (0.0, 0.0, 0.0, 0.02, 0.02, 0.02, 0.04, 0.04, 0.04, 0.06, 0.06, 0.06)


def test_a_short_sound_has_the_first_positions_of_a_long_one():
    part = small(channels=1, stride=2, size=(20, 8))
    frames = torch.randn(20, 8)
    torch.testing.assert_close(part([frames[:8]]).x, part([frames]).x[:9])


def test_a_row_of_a_series_is_the_map_of_its_steps_and_its_position():
    part = SeriesStem(channels=2, width=4, kernel=3, stride=2, length=9)
    steps = torch.randn(8, 2)
    expected = (part.conv.weight * steps[4:7].T).sum((1, 2)) + part.positions[2]
    torch.testing.assert_close(part([steps]).x[2], expected)
    assert part.out_shape(Shape(8, times=tuple(float(i) for i in range(8)))).times == (0.0, 2.0, 4.0)


@pytest.mark.parametrize("steps", [2, 10])
def test_too_few_and_too_many_steps_are_refused(steps):
    with pytest.raises(ShapeError, match="reads 3 to 9"):
        SeriesStem(channels=2, width=4, kernel=3, length=9)([torch.zeros(steps, 2)])


@pytest.mark.parametrize("frames", [3, 21])
def test_too_few_and_too_many_frames_are_refused(frames):
    with pytest.raises(ShapeError, match="reads 4 to 20"):
        small(channels=1, size=(20, 8)).out_shape(Shape(frames))


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(size=(3, 8)),
        lambda: small(size=(8,)),
        lambda: small(channels=0),
        lambda: SeriesStem(length=9),
        lambda: SeriesStem(stride=0),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make):
    with pytest.raises(ConfigError):
        make()
