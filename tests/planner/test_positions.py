"""Where slots stand: transformers' own functions are the measure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniPreTrainedModelForConditionalGeneration as Omni,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from omniloom.errors import ConfigError
from omniloom.planner.interleave import Chunks, Strand
from omniloom.planner.positions import MRoPE, Place, Sequential, TMRoPE
from omniloom.sequence import Shape

IMAGE, VIDEO, AUDIO, VISION_START, VISION_END, AUDIO_START, AUDIO_END, WORD = 90, 91, 92, 93, 94, 95, 96, 7

texts = st.tuples(st.just("text"), st.integers(1, 6))
images = st.tuples(st.just("image"), st.integers(1, 4), st.integers(1, 4))
videos = st.tuples(
    st.just("video"), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0, 4.0])
)


class Layout:
    """A document as places and shapes here, and as ids there."""

    def __init__(self):
        self.places, self.shapes, self.ids, self.types = [], [], [], []

    def text(self, ids, **facts):
        self.places += [Place(**facts) for _ in ids]
        self.ids += ids
        self.types += [0] * len(ids)

    def item(self, shape, token, kind):
        self.shapes.append(shape)
        self.rows(len(self.shapes) - 1, range(shape.len), token, kind)

    def rows(self, item, rows, token, kind=2, clip=-1):
        self.places += [Place(item, row, clip) for row in rows]
        self.ids += [token] * len(rows)
        self.types += [kind] * len(rows)


def grid_shape(t, y, x, seconds=None):
    times = None if seconds is None else tuple(frame * seconds for frame in range(t) for _ in range(y * x))
    return Shape(t * y * x, (t, y, x), times)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(texts, images, videos), min_size=1, max_size=6))
def test_mrope_is_that_of_qwen_vl(segments):
    layout = Layout()
    grids = {"image": [], "video": []}
    seconds = []
    for segment in segments:
        if segment[0] == "text":
            layout.text([WORD] * segment[1])
            continue
        layout.text([VISION_START])
        if segment[0] == "image":
            layout.item(grid_shape(1, *segment[1:]), IMAGE, 1)
            grids["image"].append((1, 2 * segment[1], 2 * segment[2]))
        else:
            _, t, y, x, per_grid = segment
            layout.item(grid_shape(t, y, x, per_grid), VIDEO, 2)
            grids["video"].append((t, 2 * y, 2 * x))
            seconds.append(per_grid)
        layout.text([VISION_END])
    model = SimpleNamespace(
        config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=4)),
        get_vision_position_ids=lambda *args, **options: Qwen2_5_VLModel.get_vision_position_ids(
            None, *args, **options
        ),
    )
    ids = torch.tensor([layout.ids])
    theirs, delta = Qwen2_5_VLModel.get_rope_index(
        model,
        ids,
        torch.tensor([layout.types]),
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
        second_per_grid_ts=torch.tensor(seconds) if seconds else None,
        attention_mask=torch.ones_like(ids),
    )
    ours = MRoPE(rate_hz=4, advance="grid").place(layout.places, layout.shapes)
    assert torch.equal(ours, theirs[:, 0])
    assert int(ours.max()) + 1 - len(layout.ids) == int(delta)


audios = st.tuples(st.just("audio"), st.integers(1, 8))


def omni_positions(layout, grids, seconds, lengths, *, in_video):
    model = SimpleNamespace(
        spatial_merge_size=2,
        config=SimpleNamespace(
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            vision_start_token_id=VISION_START,
            audio_start_token_id=AUDIO_START,
            position_id_per_seconds=25,
            seconds_per_chunk=2.0,
        ),
    )
    for name in ("get_llm_pos_ids_for_vision", "get_chunked_index"):
        setattr(model, name, getattr(Omni, name).__get__(model))
    ids = torch.tensor([layout.ids])
    # The last row of the audio tower comes from 4 frames: rows r -> 4 r frames.
    return Omni.get_rope_index(
        model,
        ids,
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
        attention_mask=torch.ones_like(ids),
        use_audio_in_video=in_video,
        audio_seqlens=torch.tensor([4 * rows for rows in lengths]) if lengths else None,
        second_per_grids=torch.tensor(seconds) if seconds else None,
    )[0][:, 0]


def sound_shape(rows):
    return Shape(rows, times=tuple(row / 25 for row in range(rows)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(texts, images, videos, audios), min_size=1, max_size=6))
def test_tmrope_is_that_of_qwen_omni(segments):
    layout, grids, seconds, lengths = Layout(), {"image": [], "video": []}, [], []
    for segment in segments:
        if segment[0] == "text":
            layout.text([WORD] * segment[1])
        elif segment[0] == "audio":
            layout.text([AUDIO_START])
            layout.item(sound_shape(segment[1]), AUDIO, 3)
            layout.text([AUDIO_END])
            lengths.append(segment[1])
        else:
            t, y, x, per_grid = (1, *segment[1:], None) if segment[0] == "image" else segment[1:]
            layout.text([VISION_START])
            layout.item(grid_shape(t, y, x, per_grid), IMAGE if segment[0] == "image" else VIDEO, 2)
            layout.text([VISION_END])
            grids[segment[0]].append((t, 2 * y, 2 * x))
            seconds += [per_grid] if segment[0] == "video" else []
    if not grids["image"] and not grids["video"]:
        return  # without pictures the original counts slots, which is what text and sound give here as well
    ours = TMRoPE().place(layout.places, layout.shapes)
    assert torch.equal(ours, omni_positions(layout, grids, seconds, lengths, in_video=False))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0]), st.data())
def test_sound_and_frames_of_a_clip_share_one_clock_as_in_qwen_omni(t, y, x, per_grid, data):
    rows = data.draw(st.integers(1, round(25 * t * per_grid) + 10))
    layout = Layout()
    layout.text([WORD] * data.draw(st.integers(1, 4)))
    layout.text([VISION_START])
    layout.text([AUDIO_START], is_beside=True)
    video, sound = grid_shape(t, y, x, per_grid), sound_shape(rows)
    layout.shapes += [video, sound]
    for stretch in Chunks(every_s=2.0).order([Strand(video.len, video.times), Strand(sound.len, sound.times)]):
        token = (VIDEO, AUDIO)[stretch.strand]
        layout.rows(stretch.strand, range(stretch.first, stretch.stop), token, clip=0)
    layout.text([AUDIO_END])
    layout.text([VISION_END], is_beside=True)
    layout.text([WORD] * 3)
    grids = {"image": [], "video": [(t, 2 * y, 2 * x)]}
    theirs = omni_positions(layout, grids, [per_grid], [rows], in_video=True)
    assert torch.equal(TMRoPE().place(layout.places, layout.shapes), theirs)


def test_slots_in_sequence_are_counted():
    assert Sequential().place([Place(), Place(0, 0), Place(0, 1)], [Shape(2)]).tolist() == [[0, 1, 2]]


def test_frames_apart_from_one_another_each_begin_anew():
    """Qwen3-VL's videos: a time as text before every frame, so every frame is a picture of its own."""
    places = [Place(), *(Place(0, row) for row in range(2)), Place(), *(Place(0, row) for row in range(2, 4))]
    placed = MRoPE().place(places, [grid_shape(2, 1, 2)])
    assert placed.tolist() == [[0, 1, 1, 3, 4, 4], [0, 1, 1, 3, 4, 4], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("options", [{}, {"rate_hz": 25.0}], ids=["frames", "clock"])
def test_windows_of_one_clip_do_not_stand_on_one_another(options):
    """The last window has one frame; with a rate it stands at its time, without one behind what came before."""
    first, last = grid_shape(3, 1, 2, 1.0), Shape(2, (1, 1, 2), (3.0, 3.0))
    places = [Place(), *(Place(0, row, clip=0) for row in range(6)), *(Place(1, row, clip=0) for row in range(2))]
    placed = MRoPE(**options).place(places, [first, last])
    time = [0, *(1 + step for step in ([0, 0, 25, 25, 50, 50, 75, 75] if options else [0, 0, 1, 1, 2, 2, 3, 3]))]
    assert placed[0].tolist() == time
    assert len({tuple(column) for column in placed.T.tolist()}) == len(places)


def test_text_behind_an_item_goes_on_where_an_answer_would():
    shape = grid_shape(5, 1, 1)
    places = [Place(), *(Place(0, row) for row in range(5)), Place()]
    assert MRoPE().place(places, [shape])[:, -1].tolist() == [6, 6, 6]
    assert MRoPE(advance="grid").place(places, [shape])[:, -1].tolist() == [2, 2, 2]


@pytest.mark.parametrize("options", [{"rate_hz": 0}, {"advance": "far"}], ids=str)
def test_positions_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError):
        MRoPE(**options)
