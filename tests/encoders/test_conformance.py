"""Every encoder of the part table keeps the contract.

Published kinds are tiny random instances of their real classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from omniloom.errors import ShapeError
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Bundle, Raw, Shape
from tests.encoders.tiny_language_bind import BRANCHES, save_branch
from tests.encoders.tiny_models import TINY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of each tiny model."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("tiny")
    for name, make in TINY.items():
        make().save_pretrained(root / name)
    for kind in BRANCHES:
        save_branch(root / kind, kind)
    return root


def _pictures(channels, *sides):
    return [(channels, *side) for side in sides]


def _timed(frames, length, mels=8):
    return {"frames": (frames, mels), "length": [length]}


def _pair(first, second):
    """Two streams of one item, a row each 20 ms and each 30 ms."""
    both = {"0": (first, 4), "0:shape": [first, 0, 0, 0], "0:times_us": [20_000 * i for i in range(first)]}
    return both | {"1": (second, 3), "1:shape": [second, 0, 0, 0], "1:times_us": [30_000 * i for i in range(second)]}


# (options, shapes of raw tensors the part takes, shapes it must refuse). An id is the name of a tiny model. A mapping
# is a bundle: names of shapes, or of numbers themselves in a list.
_RGB = [(3, 16, 16), (3, 24, 16), (2, 3, 16, 16), (3, 16, 16)]
_NOT_RGB = [(1, 16, 16), (16, 16), (0, 3, 16, 16), (3, 4, 4)]
_NATIVE = [(1, 3, 4, 6), (2, 3, 8, 6), (1, 3, 2, 2), (1, 3, 4, 6)]
_CLIPS = [(4, 3, 16, 16)] * 3
_JOINT = {"width": 16, "depth": 2, "heads": 2, "joint_width": 12, "weights": False}
_TILES = [{"pixels": (3, 3, 16, 16), "mosaic": [1, 2, 20, 30]}, {"pixels": (1, 3, 16, 16), "mosaic": [0, 0, 9, 9]}]
CASES = {
    "patch_vit": [
        ({"width": 16, "depth": 1, "heads": 2}, _RGB, [*_NOT_RGB, (3, 16, 20)]),
        ({"width": 16, "depth": 1, "heads": 2}, _TILES, [{"pixels": (3, 3, 16, 16), "mosaic": [1, 2, 5]}]),
        ({"width": 16, "depth": 2, "heads": 2, "stem": "patch", "patch_px": 4}, _RGB, [(1, 16, 16), (3, 16, 18)]),
        ({"width": 16, "depth": 1, "heads": 2, "patch_px": 1, "channels": 1}, [(1, 3, 4), (1, 1, 1)], [(3, 4, 4)]),
    ],
    "log_mel_conv": [
        (
            {"num_mels": 10, "width": 16, "depth": 1, "heads": 2, "conv_width": 8},
            [(n, 10) for n in (1, 8, 9, 40, 8)],
            [(5, 11), (0, 10), (10,)],
        ),
    ],
    "series_conv": [
        ({"channels": 3, "width": 16, "heads": 2}, [(n, 3) for n in (1, 8, 9, 50)], [(4, 2), (0, 3), (3,)]),
        ({"channels": 2, "width": 16, "heads": 2, "stride": 1, "depth": 0}, [(4, 2), (1, 2)], [(4, 3)]),
    ],
    "point_net": [
        ({"width": 16, "groups": 4, "neighbours": 5}, [(30, 3), (2, 3), (30, 3), (1, 3)], [(5, 4), (0, 3), (3,)]),
        ({"width": 16, "groups": 4, "neighbours": 5, "features": 3}, [(30, 6), (9, 6)], [(5, 3)]),
    ],
    "object_points": [
        (
            {"groups": [4, 2], "neighbours": [5, 3], "radii": [0.5, 1.0], "widths": [[8, 8], [16], [12]]},
            [{"places": (count, 6), "points": (count, 20, 6)} for count in (3, 1, 2)],
            [{"places": (2, 6), "points": (2, 20, 5)}, {"places": (1, 6), "points": (2, 20, 6)}, (20, 6)],
        ),
    ],
    "joint": [
        ({"kind": "vision", **_JOINT, "size": [16, 16], "patch": 8}, _RGB[2:], [(1, 16, 16), (3, 3, 16, 16)]),
        ({"kind": "vision", **_JOINT, "size": [16, 16], "patch": 8, "tokens": "all"}, _RGB[2:], [(3, 8, 16)]),
        (
            {"kind": "audio", **_JOINT, "size": [12, 20], "patch": 6, "stride": 4, "tokens": "patches"},
            [(3, 1, 12, 20), (1, 1, 12, 20)],
            [(3, 1, 12, 21), (12, 20)],
        ),
        ({"kind": "depth", **_JOINT, "size": [16, 16], "patch": 8}, [(1, 16, 16), (2, 1, 16, 16)], [(3, 16, 16)]),
        ({"kind": "imu", **_JOINT, "size": [24], "patch": 8, "scaled": True}, [(24, 6)] * 2, [(23, 6), (24, 3)]),
    ],
    "efficientnet_lite0": [
        ({"weights": False}, [(3, 64, 64), (2, 3, 33, 64)], _NOT_RGB[:3]),
        ({"weights": False, "tokens": "pooled"}, [(3, 64, 64), (2, 3, 33, 64)], _NOT_RGB[:1]),
    ],
    "hub_vision": [
        ({"id": "clip", "layer": -2}, _RGB, _NOT_RGB),
        ({"id": "clip_vision", "tokens": "cls"}, _RGB, _NOT_RGB),
        ({"id": "siglip"}, _RGB, _NOT_RGB),
        ({"id": "siglip2", "pooled": True, "taps": [1]}, _RGB, _NOT_RGB),
        ({"id": "dinov2", "tokens": "all"}, _RGB, _NOT_RGB),
        ({"id": "registers", "layer": 1}, _RGB, _NOT_RGB),
        ({"id": "vit", "weights": False}, _RGB, _NOT_RGB),
        ({"id": "clip", "layer": 1, "tokens": "all", "pooled": True}, _RGB, _NOT_RGB),
        ({"id": "siglip", "tokens": "pooled"}, _RGB, _NOT_RGB),
        ({"id": "siglip"}, _TILES, [{"pixels": (3, 16, 16), "mosaic": [0, 0, 1, 1]}, {"tiles": (3, 3, 16, 16)}]),
        ({"id": "dinov2", "layer": 0, "taps": [-1, 1]}, _RGB, _NOT_RGB),
    ],
    "native_vision": [
        ({"id": "qwen2_5_vl"}, _NATIVE, [(1, 1, 4, 4), (3, 4, 4), (0, 3, 4, 4), (1, 3, 4, 5)]),
        ({"id": "qwen3_vl", "taps": "deepstack"}, _NATIVE, [(1, 3, 3, 4)]),
        ({"id": "qwen2_5_vl", "taps": [1], "weights": False}, _NATIVE, [(1, 3, 4, 5)]),
    ],
    "hub_video": [
        ({"id": "videomae"}, _CLIPS, [(2, 3, 16, 16), (3, 16, 16), (4, 3, 16, 24)]),
        ({"id": "timesformer", "tokens": "all", "weights": False}, _CLIPS, [(4, 1, 16, 16)]),
        ({"id": "vivit", "layer": 1, "tokens": "cls", "taps": [-1]}, _CLIPS, [(3, 3, 16, 16)]),
    ],
    "language_bind": [
        ({"id": "LanguageBindImage"}, [(3, 16, 16), (2, 3, 16, 16)], _NOT_RGB),
        ({"id": "LanguageBindVideo", "tokens": "patches"}, [(3, 16, 16), (4, 3, 16, 16)], [(5, 3, 16, 16)]),
        ({"id": "LanguageBindAudio", "tokens": "all", "layer": 1}, [(3, 16, 24)], [(3, 16, 16)]),
    ],
    "hub_speech": [
        ({"id": "whisper"}, [(40, 8), (7, 8), (2, 8)], [(41, 8), (7, 9), (0, 8), (8,)]),
        ({"id": "wav2vec2"}, [(200,), (33,), (200,)], [(19,), (20, 1)]),
        ({"id": "hubert", "weights": False, "taps": "all"}, [(200,), (33,)], [(19,)]),
        ({"id": "conformer", "layer": 1, "taps": [0]}, [(200,), (33,)], [(19,)]),
    ],
    "vector": [({"length": 7, "rows": 3, "width": 4}, [(7,), (7,)], [(6,), (7, 1), ()])],
    "identity": [({"width": 5}, [(3, 5), (1, 5)], [(3, 4), (0, 5), (5,)])],
    "stem": [
        ({"width": 8, "kernel": 8, "size": [16, 16]}, _RGB, _NOT_RGB),
        ({"width": 8, "kernel": 4, "stride": 3, "size": [24, 8], "channels": 1}, [(20, 8), (7, 8)], [(7, 9), (25, 8)]),
        ({"width": 8, "kernel": 4, "size": [8, 8], "channels": 1}, [(1, 8, 8), (1, 12, 8)], [(3, 8, 8), (3, 8)]),
    ],
    "series_stem": [
        ({"channels": 3, "width": 8, "kernel": 4, "stride": 2, "length": 20}, [(n, 3) for n in (4, 9, 20)], [(3, 3)]),
    ],
    "together": [
        (
            {
                "encoders": [
                    {"type": "log_mel_conv", "num_mels": 4, "width": 8, "depth": 1, "heads": 2, "conv_width": 4},
                    {"type": "series_conv", "channels": 3, "width": 6, "heads": 2, "stride": 4},
                ],
                "sampling": "linear",
            },
            [_pair(40, 27), _pair(3, 2), _pair(40, 27)],
            [(5, 4), _pair(5, 3) | {"1": (3, 2)}],
        ),
    ],
    "beats": [
        (
            {
                "weights": False,
                "num_mels": 8,
                "width": 8,
                "depth": 2,
                "heads": 2,
                "hidden": 12,
                "stem_width": 6,
                "patch": 4,
                "reach": 6,
                "groups": 2,
                "buckets": 16,
                "distance": 10,
            },
            [(20, 8), (7, 8), (20, 8)],
            [(3, 8), (20, 9), (8,)],
        ),
    ],
    "hub_audio": [
        ({"id": "ast"}, [(24, 16), (24, 16)], [(23, 16), (24, 8), (24,)]),
        ({"id": "ast", "tokens": "cls", "layer": -2, "taps": [0, 1]}, [(24, 16), (24, 16)], [(25, 16)]),
        ({"id": "ast", "tokens": "all", "pooled": True}, [(24, 16), (24, 16)], [(25, 16)]),
        ({"id": "clap"}, [(101, 8), (20, 8), (101, 8)], [(129, 8), (100, 9), (0, 8)]),
        ({"id": "clap", "tokens": "pooled"}, [(101, 8), (20, 8)], [(129, 8)]),
    ],
    "phi_audio": [({"id": "phi"}, [(n, 16) for n in (1, 8, 41, 41)], [(4, 15), (0, 16), (16,)])],
    "qwen_audio": [
        (
            {"id": "qwen2_audio"},
            [_timed(22, 20), _timed(40, 40), _timed(3, 3)],
            [_timed(5, 5, 9), _timed(5, 6), _timed(2, 2), (20, 8)],
        ),
        ({"id": "omni"}, [_timed(22, 20), _timed(410, 408), _timed(3, 3)], [_timed(5, 5, 9), _timed(2, 2), (9, 8)]),
        ({"id": "aut"}, [_timed(22, 20), _timed(210, 208), _timed(1, 1), _timed(22, 20)], [_timed(5, 0)]),
    ],
}
FLAT = [(name, *case) for name, cases in CASES.items() for case in cases]


@pytest.fixture(params=FLAT, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request, tiny):
    """(a fresh part in evaluation mode, its spec, raw tensors, shapes it must refuse)."""
    name, options, good, bad = request.param
    spec = {"type": name, **options}
    if "id" in options:
        spec["id"] = str(tiny / options["id"])
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator)
    return build("encoders", spec).eval(), spec, [made(shape, draw) for shape in good], bad


def made(shape: Any, draw: Callable[..., torch.Tensor]) -> Raw:
    """A raw tensor of that shape, or a bundle of several."""
    if not isinstance(shape, dict):
        return draw(shape)
    return Bundle(**{k: draw(size) if isinstance(size, tuple) else torch.tensor(size) for k, size in shape.items()})


def raw_shape(raw: Raw) -> Shape:
    """What the processors say of such a raw tensor: pixels on a grid, or rows."""
    if isinstance(raw, Bundle):
        return Shape(int(raw["length"])) if "length" in raw else raw_shape(next(iter(raw.values())))
    if raw.dim() < 3:
        return Shape(raw.shape[0])
    frames = raw.shape[0] if raw.dim() == 4 else 1
    grid = (frames, raw.shape[-2], raw.shape[-1])
    return Shape(grid[0] * grid[1] * grid[2], grid)


def test_every_built_in_encoder_is_tested_here():
    assert set(CASES) == set(BUILT_IN["encoders"])


def test_a_spec_read_back_builds_an_equal_part(case):
    part, spec, _, _ = case
    read = spec_of("encoders", part)
    assert spec.items() <= read.items()
    again = build("encoders", read)
    assert spec_of("encoders", again) == read
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in part.state_dict().items()}


def test_declared_rows_are_produced_rows(case):
    part, _, raws, _ = case
    out = part(raws)
    assert [shape.len for shape in out.shapes] == [part.out_shape(raw_shape(raw)).len for raw in raws]
    assert [shape.grid for shape in out.shapes] == [part.out_shape(raw_shape(raw)).grid for raw in raws]
    assert out.x.shape == (sum(out.lengths), part.out_dim)
    assert bool(out.x.isfinite().all())
    assert {layer: rows.shape for layer, rows in out.taps.items()} == {
        layer: (len(out.x), width) for layer, width in part.tap_dims.items()
    }
    assert (None if out.pooled is None else out.pooled.shape) == (part.pooled_dim and (len(raws), part.pooled_dim))


def test_rows_keep_the_clock_of_the_raw_tensor(case):
    part, _, raws, _ = case
    shape = raw_shape(raws[0])
    step = shape.len // (shape.grid[0] if shape.grid else shape.len)
    timed = Shape(shape.len, shape.grid, tuple(float(index // step) for index in range(shape.len)))
    times = part.out_shape(timed).times
    if times is None:
        assert part.out_shape(timed).grid is None  # groups of points have no order in time
    else:
        assert list(times) == sorted(times) and times[0] == 0.0


def test_every_parameter_gets_a_gradient(case):
    part, spec, raws, _ = case
    part.train()
    out, draw = part(raws), torch.Generator().manual_seed(2)
    if not list(part.parameters()):
        assert spec["type"] == "identity"
        return
    given = [out.x, *out.taps.values(), *([] if out.pooled is None else [out.pooled])]
    sum((rows * torch.randn(rows.shape[1], generator=draw)).square().sum() for rows in given).backward()
    trainable = [(name, p) for name, p in part.named_parameters() if p.requires_grad]
    assert [name for name, p in trainable if p.grad is None or not p.grad.any()] == []
    assert len(trainable) >= 1


def test_an_item_alone_equals_the_item_in_a_batch(case):
    part, _, raws, _ = case
    for raw, expected in zip(raws, part(raws).items(), strict=True):
        torch.testing.assert_close(part([raw]).x, expected, atol=1e-5, rtol=1e-5)


def test_training_mode_is_as_deterministic_as_evaluation(case):
    part, _, raws, _ = case
    torch.testing.assert_close(part.train()(raws).x, part.eval()(raws).x, atol=1e-6, rtol=1e-6)


def test_it_runs_in_bfloat16(case):
    part, _, raws, _ = case
    out = part.to(torch.bfloat16)(raws).x
    assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())


def test_a_state_dict_round_trip_gives_the_same_bits(case):
    part, spec, raws, _ = case
    torch.manual_seed(5)
    other = build("encoders", spec).eval()
    other.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(part(raws).x, other(raws).x)


def test_the_minimal_raw_runs(case):
    part, _, _, _ = case
    assert part([part.minimal_raw()]).lengths == [part.out_shape(raw_shape(part.minimal_raw())).len]


def test_raw_tensors_of_another_shape_are_refused_with_what_was_expected(case):
    part, _, raws, bad = case
    for shape in bad:
        with pytest.raises(ShapeError, match=r"expected|reads|needs"):
            part([raws[0], made(shape, torch.zeros)])


def test_a_batch_without_items_is_refused(case):
    part, _, _, _ = case
    with pytest.raises(ShapeError, match="minimal_raw"):
        part([])


def test_it_builds_on_the_meta_device_without_weights(case):
    part, spec, raws, _ = case
    if "weights" in spec_of("encoders", part):
        spec = {**spec, "weights": False}
    with torch.device("meta"):
        empty = build("encoders", spec)
    assert all(p.is_meta for p in empty.parameters())
    assert [empty.out_shape(raw_shape(raw)) for raw in raws] == [part.out_shape(raw_shape(raw)) for raw in raws]
