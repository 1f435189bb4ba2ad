"""Clips, times as text, spans that see both ways, items inside the layers: what a plan lays out beyond one run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from omniloom.backbone.base import attention_mask
from omniloom.data.pipeline import Pipeline
from omniloom.errors import DataError, PlanError
from omniloom.media import Audio, Image, Series, Video
from omniloom.model import Sampling, compose, generate
from omniloom.sequence import Item, Kind, Plan, Sample, Text, Turn
from tests.examples import asked, config_of, example_values, largest, logits_of


def values(**changes):
    """The example with a video modality of two rows a frame, and a clip of both."""
    run = example_values()["modalities"]
    frames = {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2}
    run["frames"] = {
        "payload": "video",
        "in": {
            "processor": {"type": "video", "frames": 8, "rate_hz": 1.0, "size_px": 8},
            "encoder": frames,
            "projector": "mlp",
        },
    }
    run["sound"]["in"]["processor"] = {"type": "log_mel", "num_mels": 16, "max_s": 4.0}
    run["sound"]["in"]["projector"] = [{"type": "stack", "factor": 10}, "linear"]
    run["clip"] = {"payload": "video", "split": ["frames", "sound"]}
    for path, value in changes.items():
        modality, _, key = path.partition("__")
        run[modality]["in"][key] = value
    return run


def composed(folder, *, context=None, **changes):
    options = {} if context is None else {"context": context}
    return compose(config_of(folder, modalities=values(**changes), **options), base=folder)


def clip(seconds=5, *, sound=True, seed=0):
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.1, (1, 16000 * seconds)).astype(np.float32)
    frames = rng.integers(0, 256, (seconds, 8, 8, 3), dtype=np.uint8)
    return Video(frames, np.arange(seconds, dtype=np.float64), Audio(samples, 16000) if sound else None)


def plan_of(model, *parts, ask=False):
    pipeline = Pipeline(model)
    return pipeline.plans([pipeline.prepare(asked(*parts))], ask=ask)[0]


def kinds_of(plan):
    """(modality, length) of every run of rows."""
    runs: list[list] = []
    for kind, modality in zip(plan.kind[0].tolist(), plan.modality[0].tolist(), strict=True):
        name = plan.modalities[modality] if kind == int(Kind.MEDIA) else None
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return [tuple(run) for run in runs if run[0] is not None]


def test_a_video_with_sound_becomes_chunks_of_frames_and_sound_on_one_clock(omni_folder):
    model = composed(omni_folder, sound__windows=True)
    plan = plan_of(model, Item("clip", clip(5)), Text("what?"))
    # A row of sound is 0.8 s; 5 s of it are two windows of 2.5 s, whose rows begin at 0, 0.8, 1.6, 2.4 each.
    assert kinds_of(plan) == [("frames", 2), ("sound", 3), ("frames", 2), ("sound", 3), ("frames", 1), ("sound", 2)]
    times = plan.time_s[0][plan.kind[0] == int(Kind.MEDIA)]
    assert times.isfinite().all() and float(times.max()) == pytest.approx(4.9)
    chunks = (times / 2).floor()
    assert bool((chunks[1:] >= chunks[:-1]).all())
    names = [item.modality for item in plan.items]
    assert names == ["frames", "sound", "sound"]


def test_rows_of_a_clip_are_the_rows_of_its_items_wherever_they_stand(omni_folder):
    """Interleaving moves slots, not rows: the embeddings of an item are those it has by itself, in order."""
    model = composed(omni_folder)
    video = clip(3)
    together = plan_of(model, Item("clip", video))
    alone = plan_of(model, Item("frames", Video(video.frames, video.times_s)), Text("|"), Item("sound", video.audio))
    with torch.no_grad():
        ours, theirs = model.embed(together)[0], model.embed(alone)[0]
    for index in range(2):
        torch.testing.assert_close(ours[together.slots_of(index)], theirs[alone.slots_of(index)])


def test_markers_of_a_clip_stand_around_the_whole(omni_folder):
    model = composed(omni_folder)
    text = plan_of(model, Item("clip", clip(3))).explain(model.planner.decode)
    ordered = [text.index(mark) for mark in ("<frames><sound>", "</sound></frames>")]
    assert ordered == sorted(ordered)


def test_a_video_without_sound_is_its_frames(omni_folder):
    assert kinds_of(plan_of(composed(omni_folder), Item("clip", clip(3, sound=False)))) == [("frames", 3)]


def test_a_recording_without_anything_to_read_is_refused(omni_folder):
    run = values()
    run["clip"] = {"payload": "video", "split": ["sound"]}
    model = compose(config_of(omni_folder, modalities=run), base=omni_folder)
    with pytest.raises(DataError, match="'clip' is split into sound, which read audio; it holds only video"):
        plan_of(model, Item("clip", clip(3, sound=False)))


@pytest.mark.parametrize("positions", ["sequential"])
@pytest.mark.parametrize("interleave", ["chunks", "even", "in_order"])
def test_interleaved_batches_equal_one_by_one_and_packed(omni_folder, interleave, positions):
    model = composed(omni_folder, context={"interleave": interleave, "positions": positions})
    plans = [
        plan_of(model, Item("clip", clip(3, seed=1)), Text("a")),
        plan_of(model, Text("text only")),
        plan_of(model, Item("clip", clip(4, seed=2)), Item("sound", clip(1).audio)),
    ]
    plans = [Plan.join([[plan]]) for plan in plans]
    names = ["0", "1", "2"]
    plans = [_named(plan, name) for plan, name in zip(plans, names, strict=True)]
    alone = [logits_of(model, plan)[0] for plan in plans]
    assert largest(logits_of(model, Plan.stack(plans)), alone) < 1e-4
    assert largest(logits_of(model, Plan.join([plans])), alone) < 1e-4


def _named(plan, name):
    return replace(plan, samples=(name,))


def test_times_stand_as_text_before_the_rows_of_each(omni_folder):
    model = composed(omni_folder, frames__timestamps={"format": "<{:.0f}s>"})
    plan = plan_of(model, Item("clip", clip(3, sound=False)))
    assert kinds_of(plan) == [("frames", 1)] * 3
    decoded = model.planner.decode(plan.ids[0].tolist())
    assert all(f"<{second}s>" in decoded for second in range(3))
    seldom = composed(omni_folder, frames__timestamps={"format": "<{:.0f}s>", "every_s": 2.0})
    assert kinds_of(plan_of(seldom, Item("clip", clip(3, sound=False)))) == [("frames", 2), ("frames", 1)]


def test_times_as_text_need_times(omni_folder):
    run = values(frames__timestamps={"format": "<{:.0f}s>"})
    run["frames"]["in"]["processor"] = {"type": "video", "frames": 2, "size_px": 8}
    model = compose(config_of(omni_folder, modalities=run), base=omni_folder)
    with pytest.raises(PlanError, match="'frames' has timestamps, but its rows have no times"):
        plan_of(model, Item("frames", clip(3, sound=False)))


def test_slots_of_a_span_see_both_ways_and_nothing_else_does(omni_folder):
    model = composed(omni_folder, frames__attention="frames", image__attention="full")
    run = values(frames__attention="frames", image__attention="full")
    run["frames"]["in"]["processor"]["size_px"] = 16  # four rows a frame
    model = compose(config_of(omni_folder, modalities=run), base=omni_folder)
    picture = Image(np.full((16, 16, 3), 9, np.uint8))
    plan = plan_of(model, Text("x"), Item("image", picture), Item("frames", clip(2, sound=False)), Text("y"))
    mask = attention_mask(plan)[0, 0]
    causal = torch.ones_like(mask).tril()
    for later, earlier in (mask & ~causal).nonzero().tolist():
        assert plan.span[0, later] == plan.span[0, earlier] >= 0
    picture_slots, frame_slots = plan.slots_of(0), plan.slots_of(1)
    assert bool(mask[picture_slots][:, picture_slots].all())
    assert bool(mask[frame_slots[:4]][:, frame_slots[:4]].all())
    assert not bool(mask[frame_slots[:4]][:, frame_slots[4:]].any())


def test_a_span_changes_what_its_first_slot_knows(omni_folder):
    model = composed(omni_folder, image__attention="full")
    plain = composed(omni_folder)
    picture = Image(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    plan = plan_of(model, Text("x"), Item("image", picture), Text("y"))
    ours, theirs = (
        logits_of(model, plan)[0],
        logits_of(plain, plan_of(plain, Text("x"), Item("image", picture), Text("y")))[0],
    )
    first = int(plan.items[0].start)
    assert torch.equal(ours[:first], theirs[:first])
    assert bool((ours[first] != theirs[first]).any())


def test_spans_decode_with_a_cache_as_without_and_pack(omni_folder):
    model = composed(omni_folder, image__attention="full", frames__attention="frames")
    picture = Image(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    plans = [
        _named(plan_of(model, Item("image", picture), Text("a"), ask=True), "0"),
        _named(
            plan_of(model, Item("frames", clip(3, sound=False)), Text("and"), Item("image", picture), ask=True), "1"
        ),
    ]
    alone = [logits_of(model, plan)[0] for plan in plans]
    assert largest(logits_of(model, Plan.stack(plans)), alone) < 1e-4
    assert largest(logits_of(model, Plan.join([plans])), alone) < 1e-4
    said = generate(model, plans, Sampling(max_new=4))
    single = [generate(model, [plan], Sampling(max_new=4))[0] for plan in plans]
    assert [reply.ids for reply in said] == [reply.ids for reply in single]


def test_an_item_read_inside_the_layers_fills_no_slots_and_is_in_the_plan(omni_folder):
    model = composed(omni_folder, image__insert="inject")
    picture = Image(np.full((16, 16, 3), 9, np.uint8))
    plan = plan_of(model, Text("x"), Item("image", picture), Text("y"))
    assert kinds_of(plan) == []
    assert [(item.modality, item.role, item.length, item.rows) for item in plan.items] == [("image", "side", 0, 4)]
    media, _ = model.media(plan)
    assert media["image"].projected.x.shape == (4, 32)


def test_side_items_survive_joining_appending_and_cutting(omni_folder):
    model = composed(omni_folder, image__insert="inject", context={"max": 60, "over": "start"})
    picture = Image(np.full((16, 16, 3), 9, np.uint8))
    one = plan_of(model, Item("image", picture), Text("first"))
    batch = Plan.join([[one, one], [one]])
    assert [(item.row, item.start) for item in batch.check().items] == [
        (0, one.items[0].start),
        (0, one.items[0].start + one.shape[1]),
        (1, one.items[0].start),
    ]
    pipeline = Pipeline(model)
    turns = (
        Turn("user", (Item("image", picture), Text("a" * 20))),
        Turn("assistant", (Text("b" * 10),)),
        Turn("user", (Item("image", picture), Text("c" * 5))),
        Turn("assistant", (Text("d"),)),
    )
    (plan,) = pipeline.plans([pipeline.prepare(Sample("s", turns))])
    assert plan.truncated > 0 and plan.shape[1] <= 60
    assert [item.turn for item in plan.items][-1] == 2


def test_a_long_series_becomes_windows_with_their_times(omni_folder):
    run = values()
    run["sound"]["in"]["windows"] = True
    model = compose(config_of(omni_folder, modalities=run), base=omni_folder)
    sound = clip(9).audio
    plan = plan_of(model, Item("sound", sound))
    assert [item.modality for item in plan.items] == ["sound"] * 3
    times = plan.time_s[0][plan.kind[0] == int(Kind.MEDIA)].tolist()
    assert times == sorted(times) and times[-1] == pytest.approx(8.4)
    refused = composed(omni_folder)
    with pytest.raises(Exception, match=r"lasts 9\.00 s"):
        plan_of(refused, Item("sound", sound))


def test_media_that_are_not_split_stay_one_item(omni_folder):
    model = composed(omni_folder)
    series = Series(np.zeros((8, 2), np.float32), 10.0)
    assert [item.modality for item in plan_of(model, Item("motion", series)).items] == ["motion"]
