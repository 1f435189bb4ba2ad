import re

import numpy as np
import pytest

from omniloom.eval.svg import curves, lines, number, scatter, smooth, waveform


def test_smoothing_keeps_a_constant_from_the_first_step_on() -> None:
    assert smooth([3.0] * 50) == pytest.approx(np.full(50, 3.0))


def test_smoothing_takes_the_noise_out() -> None:
    noisy = np.random.default_rng(0).normal(1, 0.5, 400)
    assert smooth(noisy)[200:].std() < 0.25 * noisy.std()


def test_numbers_are_short() -> None:
    assert [number(value) for value in (1.0, 2.26, -0.5)] == ["1", "2.3", "-0.5"]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0], [5.0, 0.01, 0.02], [-1.0, 1.0], [1e-9, 1e9]])
def test_curves_of_any_finite_losses_lie_in_the_picture(values: list[float]) -> None:
    drawing = curves({"all": (list(range(len(values))), values)}, "loss", "clip")
    line = re.search(r'class="line"[^>]* d="([^"]*)"', drawing)
    assert line is not None and "nan" not in drawing
    ys = [float(point.split()[1]) for point in re.split("[ML]", line[1]) if point]
    assert all(-10 <= y <= 272 for y in ys)


def test_long_curves_stay_small() -> None:
    steps = list(range(20_000))
    values = list(np.random.default_rng(0).random(20_000))
    assert len(curves({f"s{k}": (steps, values) for k in range(5)}, "loss", "clip")) < 60_000


def test_losses_over_many_decades_are_drawn_on_a_logarithmic_scale() -> None:
    assert "loss (log)" in curves({"all": ([0, 1], [10.0, 0.01])}, "t", "c")
    assert "loss (log)" not in curves({"all": ([0, 1], [2.0, 1.0])}, "t", "c")


def test_a_waveform_reaches_full_height_whatever_its_loudness() -> None:
    for scale in (1.0, 1e-3):
        drawing = waveform((np.sin(np.arange(4000)) * scale).astype(np.float32), 0.5)
        ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", drawing)]
        assert min(ys) == pytest.approx(3, abs=0.2) and max(ys) == pytest.approx(61, abs=0.2)


def test_silence_and_single_samples_can_be_drawn() -> None:
    assert "nan" not in waveform(np.zeros(1, np.float32), 0.0)
    assert "nan" not in lines(np.zeros((1, 1), np.float32), "x")
    assert "nan" not in scatter(np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("channels", [1, 3, 6, 7, 32])
def test_every_channel_of_a_series_is_a_line(channels: int) -> None:
    values = np.random.default_rng(0).normal(size=(500, channels)).astype(np.float32)
    assert lines(values, "series").count('class="line"') == channels


def test_a_point_cloud_is_drawn_twice_and_thinned() -> None:
    cloud = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    drawing = scatter(cloud, limit=300)
    assert drawing.count("h0") == 600
