"""Published video towers and processors: rows and numbers of transformers' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    TimesformerConfig,
    TimesformerModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEImageProcessorPil,
    VideoMAEModel,
    VivitConfig,
    VivitForVideoClassification,
    VivitImageProcessor,
    VivitModel,
)

from omniloom.encoders.hub_frames import HubVideoProcessor
from omniloom.encoders.hub_video import HubVideo
from omniloom.encoders.hub_vision import HubVision
from omniloom.errors import CheckpointError, ConfigError, MediaError
from omniloom.media import Video
from omniloom.registry import build, spec_of
from omniloom.sequence import Shape

NOISE = np.random.default_rng(0)
_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "num_frames": 4,
}
_DECODER = {"decoder_hidden_size": 8, "decoder_intermediate_size": 8, "decoder_num_attention_heads": 2}
MODELS = {
    "videomae": lambda: VideoMAEModel(VideoMAEConfig(**_SMALL, patch_size=8, use_mean_pooling=False)),
    "videomae-mean": lambda: VideoMAEModel(VideoMAEConfig(**_SMALL, patch_size=8)),
    "timesformer": lambda: TimesformerModel(TimesformerConfig(**_SMALL, patch_size=8)),
    "vivit": lambda: VivitModel(VivitConfig(**_SMALL, tubelet_size=[2, 8, 8])),
}
CLIPS = list(torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


def clip(frames: int, height: int = 30, width: int = 40, rate_hz: float = 10.0) -> Video:
    return Video(NOISE.integers(0, 256, (frames, height, width, 3), dtype=np.uint8), np.arange(frames) / rate_hz)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """name -> (folder, model in evaluation mode)."""
    torch.manual_seed(0)
    root, saved = tmp_path_factory.mktemp("video"), {}
    for name, make in MODELS.items():
        model = make().eval()
        for value in model.parameters():
            value.data += 0.05 * torch.randn(value.shape)
        model.save_pretrained(root / name)
        saved[name] = (str(root / name), model)
    return saved


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("name", ["videomae", "videomae-mean", "vivit"])
def test_rows_are_the_hidden_states_of_the_layer(name, layer, towers):
    folder, model = towers[name]
    published = model(torch.stack(CLIPS), output_hidden_states=True)
    expected = published.last_hidden_state if layer == -1 else published.hidden_states[layer]
    rows = HubVideo(id=folder, layer=layer, tokens="all").eval()(CLIPS).x
    torch.testing.assert_close(rows.view(expected.shape), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, 2])
def test_rows_of_timesformer_are_put_in_order_of_time(layer, towers):
    folder, model = towers["timesformer"]
    published = model(torch.stack(CLIPS), output_hidden_states=True)
    expected = published.last_hidden_state if layer == -1 else published.hidden_states[layer]
    out = HubVideo(id=folder, layer=layer).eval()(CLIPS)
    assert out.shapes[0] == Shape(16, (4, 2, 2))
    for item, states in zip(out.items(), expected, strict=True):
        for t in range(4):
            for place in range(4):
                torch.testing.assert_close(item[4 * t + place], states[1 + 4 * place + t], atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["timesformer", "vivit"])
def test_class_tokens_of_several_layers_are_taps(name, towers):
    folder, model = towers[name]
    published = model(torch.stack(CLIPS), output_hidden_states=True)
    out = HubVideo(id=folder, tokens="cls", taps=[1, 2]).eval()(CLIPS)
    assert out.shapes == (Shape(1, (1, 1, 1)),) * 2
    torch.testing.assert_close(out.x, published.last_hidden_state[:, 0], atol=1e-6, rtol=1e-6)
    for layer in (1, 2):
        torch.testing.assert_close(out.taps[layer], published.hidden_states[layer][:, 0], atol=1e-6, rtol=1e-6)


def test_rows_have_the_time_of_their_tubelet(towers):
    pixels = 16 * 16
    shape = Shape(4 * pixels, (4, 16, 16), tuple(t / 2 for t in range(4) for _ in range(pixels)))
    assert HubVideo(id=towers["videomae"][0]).out_shape(shape).times == (0.0,) * 4 + (1.0,) * 4
    assert HubVideo(id=towers["vivit"][0], tokens="all").out_shape(shape).times == (0.0,) * 5 + (1.0,) * 4
    assert HubVideo(id=towers["timesformer"][0], tokens="cls").out_shape(shape).times == (0.0,)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pretraining", "classifier"])
def test_the_tower_of_a_whole_model_is_loaded(name, tmp_path):
    torch.manual_seed(0)
    if name == "pretraining":
        model = VideoMAEForPreTraining(
            VideoMAEConfig(**_SMALL, **_DECODER, decoder_num_hidden_layers=1, patch_size=8, use_mean_pooling=False)
        )
        tower = model.videomae.eval()
    else:
        model = VivitForVideoClassification(VivitConfig(**_SMALL, tubelet_size=[2, 8, 8]))
        tower = model.vivit.eval()
    model.save_pretrained(tmp_path)
    rows = HubVideo(id=str(tmp_path), tokens="all").eval()(CLIPS).x
    expected = tower(torch.stack(CLIPS)).last_hidden_state
    torch.testing.assert_close(rows.view(expected.shape), expected, atol=1e-6, rtol=1e-6)


def test_layers_above_the_highest_one_asked_for_are_not_built(towers):
    for name in ("videomae", "timesformer", "vivit"):
        keys = HubVideo(id=towers[name][0], layer=1).state_dict()
        assert not [key for key in keys if ".2." in key or "layers.1." in key or key.startswith("model.layernorm")]


def test_a_saved_configuration_builds_the_same_tower_without_the_source(towers, tmp_path):
    for name in MODELS:
        part = HubVideo(id=towers[name][0], layer=-2).eval()
        part.save_config(tmp_path)
        again = HubVideo(id=str(tmp_path), layer=-2, weights=False).eval()
        again.load_state_dict(part.state_dict(), strict=True)
        assert torch.equal(part(CLIPS).x, again(CLIPS).x)


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("videomae", {"tokens": "cls"}, "no class token"),
        ("vivit", {"tokens": "mean"}, "unknown tokens"),
        ("vivit", {"taps": [7]}, "layers 0 to 3"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(name, options, message, towers):
    with pytest.raises(ConfigError, match=message):
        HubVideo(id=towers[name][0], **options)


def test_a_picture_tower_is_no_video_tower(tmp_path):
    CLIPVisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="clip_vision_model"):
        HubVideo(id=str(tmp_path))


def test_weights_of_fewer_layers_are_refused(towers, tmp_path):
    towers["vivit"][1].save_pretrained(tmp_path)
    VivitConfig(**{**_SMALL, "num_hidden_layers": 4}, tubelet_size=[2, 8, 8]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        HubVideo(id=str(tmp_path))


# -- processor ------------------------------------------------------------------------------------------------------

_SIDES = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
PUBLISHED = {
    "videomae": VideoMAEImageProcessorPil(**_SIDES),
    "vivit": VivitImageProcessor(**_SIDES),
    "clip": CLIPImageProcessorPil(**_SIDES),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(30, 40), (18, 9)])
def test_frames_equal_those_of_transformers(name, size, tmp_path):
    PUBLISHED[name].save_pretrained(tmp_path)
    video = clip(4, *size)
    expected = PUBLISHED[name](list(video.frames), return_tensors="pt")["pixel_values"]
    raw = HubVideoProcessor(id=str(tmp_path), frames=4)(video)
    torch.testing.assert_close(raw, expected.view(raw.shape).float(), atol=1e-6, rtol=1e-6)


def test_the_video_section_comes_before_the_picture_section(tmp_path):
    for file, side in (("video_preprocessor_config.json", 12), ("preprocessor_config.json", 24)):
        kind = {"video_processor_type": "VideoMAEVideoProcessor"}
        sides = {"size": {"height": side, "width": side}, "do_center_crop": False}
        (tmp_path / file).write_text(json.dumps({**kind, **sides}))
    assert HubVideoProcessor(id=str(tmp_path))(clip(2)).shape == (2, 3, 12, 12)


def test_a_short_clip_fills_an_exact_number_of_frames(tmp_path):
    PUBLISHED["videomae"].save_pretrained(tmp_path)
    video = clip(3)
    raw = HubVideoProcessor(id=str(tmp_path), frames=6, exact=True)(video)
    each = HubVideoProcessor(id=str(tmp_path), frames=3)(video)
    assert torch.equal(raw, each[[0, 0, 1, 1, 2, 2]])
    timed = HubVideoProcessor(id=str(tmp_path), frames=4, rate_hz=10.0, exact=True)(video)
    assert torch.equal(timed, each[[0, 1, 2, 2]])


def test_windows_at_a_rate_have_times_and_begin_where_the_last_one_ended(tmp_path):
    PUBLISHED["clip"].save_pretrained(tmp_path)
    part, video = HubVideoProcessor(id=str(tmp_path), frames=2, rate_hz=5.0), clip(10)
    with pytest.raises(MediaError, match="video_too_large"):
        part(video)
    windows = part.split(video)  # marks at 0, 0.2 ... 0.8
    assert [part(window).shape[0] for window in windows] == [2, 2, 1] and part.begins_s(video) == [0.0, 0.4, 0.8]
    shape = part.shape(part(windows[0]))
    assert shape.grid == (2, 16, 16) and set(shape.times) == {0.0, 0.2}


@torch.no_grad()
def test_a_picture_tower_reads_the_frames_one_by_one(tmp_path):
    CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    ).save_pretrained(tmp_path)
    PUBLISHED["clip"].save_pretrained(tmp_path)
    processor, part = HubVideoProcessor(id=str(tmp_path), frames=3), HubVision(id=str(tmp_path), weights=False).eval()
    raw = processor(clip(5))
    assert part([raw]).shapes == (part.out_shape(processor.shape(raw)),) == (Shape(12, (3, 2, 2)),)


def test_an_unknown_kind_of_processor_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Pix2StructImageProcessor"}))
    with pytest.raises(ConfigError, match="Pix2Struct"):
        HubVideoProcessor(id=str(tmp_path))


def test_a_saved_configuration_builds_the_same_processor(tmp_path):
    PUBLISHED["vivit"].save_pretrained(tmp_path)
    part, video = HubVideoProcessor(id=str(tmp_path), frames=2), clip(2)
    (tmp_path / "copy").mkdir()
    part.save_config(tmp_path / "copy")
    assert torch.equal(part(video), HubVideoProcessor(id=str(tmp_path / "copy"), frames=2)(video))


def test_a_spec_read_back_builds_an_equal_processor(tmp_path):
    PUBLISHED["clip"].save_pretrained(tmp_path)
    part = build("processors", {"type": "hub_video", "id": str(tmp_path), "frames": 4, "exact": True})
    read = spec_of("processors", part)
    assert read["exact"] is True and spec_of("processors", build("processors", read)) == read
