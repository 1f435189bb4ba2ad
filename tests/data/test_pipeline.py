"""From samples to plans: what is kept, what is made anew, and that keeping changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.config import load_run
from omniloom.data import FeatureCache
from omniloom.data.pipeline import Pipeline, seed_of
from omniloom.errors import DataError, MediaError, ShapeError
from omniloom.media import Audio, Series
from omniloom.model import compose
from omniloom.sequence import Codes, Item, Packed, Sample, Text, Turn
from omniloom.testing.tiny_run import write_tiny_run
from omniloom.train import open_sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the tiny run, untrained."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_tiny_run(folder, count=3)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    """The tiny run's model."""
    return compose(load_run(folder / "run.yaml").config, base=folder)


@pytest.fixture(scope="module")
def samples(folder):
    """(samples, the folder their paths start from): three of every kind."""
    sources = open_sources(load_run(folder / "run.yaml").config, folder, ["things", "drawings"])
    found = [source[index] for source in sources.values() for index in range(len(source))]
    return found, sources["things"].media_root


def prepared(pipeline, samples):
    return [pipeline.prepare(sample, root=samples[1]) for sample in samples[0]]


def watched(model, monkeypatch):
    """How many items each encoder is run over."""
    counts: dict[str, list[int]] = {}
    for modality, (component, _) in model.inputs.items():
        part, seen = model.parts[component], counts.setdefault(modality, [])

        def forward(raws, run=part.forward, seen=seen):
            seen.append(len(raws))
            return run(raws)

        monkeypatch.setattr(part, "forward", forward)
    return counts


def test_media_are_decoded_and_output_items_become_codes(model, samples):
    for sample in prepared(Pipeline(model), samples):
        for turn, item in sample.items():
            assert isinstance(item.payload, Codes) == (turn.role == "assistant")
            assert item.role == ("out" if turn.role == "assistant" else None)


def test_output_items_stay_payloads_where_their_codec_trains(model, samples):
    pipeline = Pipeline(model)
    drawings = [pipeline.prepare(sample, root=samples[1], as_codes=False) for sample in samples[0][-2:]]
    assert [item.payload.kind for sample in drawings for _, item in sample.items()] == ["image", "image"]


def test_planned_samples_hold_raw_tensors_of_their_processors(model, samples):
    pipeline = Pipeline(model)
    sample = prepared(pipeline, samples)[0]
    (plan,) = pipeline.plans([sample])
    payload = next(item.payload for _, item in sample.items())
    assert torch.equal(plan.items[0].raw, model.rows["image"].input.processor(payload, None))


def test_rows_of_frozen_encoders_are_encoded_once_and_give_the_same_plan(model, samples, tmp_path, monkeypatch):
    pipeline = Pipeline(model, cache=FeatureCache(tmp_path))
    ready = prepared(pipeline, samples)
    counts = watched(model, monkeypatch)
    pipeline.freeze(["image/encoder", "sound/encoder"])
    first, again = pipeline.plans(ready), Pipeline(model, cache=FeatureCache(tmp_path))
    again.freeze(["image/encoder", "sound/encoder"])
    second = again.plans(ready)
    assert counts == {"image": [1] * 3, "sound": [1] * 3, "motion": [], "points": []}
    assert all(one.equals(two) for one, two in zip(first, second, strict=True))
    modalities = {
        item.modality: item.features is not None for plan in first for item in plan.items if item.role == "in"
    }
    assert modalities == {"image": True, "sound": True, "motion": False, "points": False}


def test_cached_rows_have_the_times_and_positions_that_rows_made_anew_have(model, samples, tmp_path):
    ready = prepared(Pipeline(model), samples)
    pipeline = Pipeline(model, cache=FeatureCache(tmp_path))
    pipeline.freeze([encoder for encoder, _ in model.inputs.values()])
    anew = Pipeline(model).plans(ready)
    timed = set()
    for cached in (pipeline.plans(ready), pipeline.plans(ready)):
        for one, two in zip(anew, cached, strict=True):
            assert [item.shape for item in one.items] == [item.shape for item in two.items]
            assert torch.equal(one.position, two.position)
            torch.testing.assert_close(one.time_s, two.time_s, equal_nan=True, rtol=0, atol=0)
            timed |= {item.modality for item in two.items if item.features is not None and item.shape.times}
    assert "sound" in timed


def test_cached_rows_do_not_depend_on_what_was_encoded_beside_them(model, samples, tmp_path):
    ready = [sample for sample in prepared(Pipeline(model), samples) if "image" in sample.modalities]
    rows = []
    for name, batches in (("one", [ready[:1], ready[1:2], ready[2:]]), ("all", [ready])):
        pipeline = Pipeline(model, cache=FeatureCache(tmp_path / name))
        pipeline.freeze(["image/encoder"])
        rows.append([plan.items[0].features.x for batch in batches for plan in pipeline.plans(batch)])
    assert all(torch.equal(one, two) for one, two in zip(*rows, strict=True))


def test_rows_of_other_weights_are_encoded_anew(model, samples, tmp_path, monkeypatch):
    pipeline = Pipeline(model, cache=FeatureCache(tmp_path))
    ready = prepared(pipeline, samples)
    pipeline.freeze(["motion/encoder"])
    pipeline.plans(ready)
    value = next(iter(model.parts["motion/encoder"].parameters()))
    with torch.no_grad():
        value.add_(1.0)
    counts = watched(model, monkeypatch)
    pipeline.plans(ready)
    assert not counts["motion"]  # declared frozen: not looked at again
    pipeline.freeze(["motion/encoder"])
    pipeline.plans(ready)
    with torch.no_grad():
        value.sub_(1.0)
    assert counts["motion"] == [1] * 3


def test_without_a_cache_nothing_is_encoded_before_the_model(model, samples, monkeypatch):
    pipeline = Pipeline(model)
    counts = watched(model, monkeypatch)
    pipeline.freeze(["image/encoder"])
    pipeline.plans(prepared(pipeline, samples))
    assert not any(counts.values())


def test_raw_tensors_are_made_once_and_kept_up_to_a_bound(model, samples, monkeypatch):
    processor = type(model.rows["image"].input.processor)
    made, call = [], processor.__call__
    monkeypatch.setattr(
        processor, "__call__", lambda self, payload, rng=None: made.append(1) or call(self, payload, rng)
    )
    images = [sample for sample in prepared(Pipeline(model), samples) if "image" in sample.modalities]
    size = 3 * 16 * 16 * 4
    for bound, times in ((10 * size, 3), (2 * size, 6), (1, 6)):
        made.clear()
        pipeline = Pipeline(model, memory_bytes=bound)
        for _ in range(2):
            pipeline.plans(images)
        assert len(made) == times and pipeline._raws_bytes <= max(bound, size)


def test_noise_follows_the_generators_and_is_not_kept(folder, samples):
    values = load_run(folder / "run.yaml", sets=["modalities.image.in.processor.shift_px=4"]).config
    model = compose(values, base=folder)
    pipeline = Pipeline(model)
    ready = [sample for sample in prepared(pipeline, samples) if "image" in sample.modalities]

    def raws(seed):
        rngs = None if seed is None else [torch.Generator().manual_seed(seed + index) for index in range(len(ready))]
        return torch.stack([plan.items[0].raw for plan in pipeline.plans(ready, rngs=rngs)])

    assert torch.equal(raws(1), raws(1)) and not torch.equal(raws(1), raws(100))
    assert torch.equal(raws(None), raws(None)) and not torch.equal(raws(None), raws(1))


def test_codes_are_made_anew_after_their_codec_was_trained(model, samples, monkeypatch):
    pipeline = Pipeline(model)
    codec = model.rows["drawing"].output.codec
    made, encode = [], codec.encode
    monkeypatch.setattr(codec, "encode", lambda payload: made.append(1) or encode(payload))
    drawing = samples[0][-1]
    for _ in range(2):
        pipeline.prepare(drawing, root=samples[1])
    assert len(made) == 1
    pipeline.freeze([])
    pipeline.prepare(drawing, root=samples[1])
    assert len(made) == 2


def test_items_that_are_ready_stay_as_they_are(model):
    raw, rows = torch.randn(3, 16, 16), Packed.of([torch.randn(4, 32)])
    sample = Sample("s", (Turn("user", (Item("image", raw), Item("image", rows), Text("x"))),))
    (plan,) = Pipeline(model).plans([sample])
    assert plan.items[0].raw is raw and plan.items[1].features is rows


def test_broken_media_and_unknown_modalities_are_refused(model, tmp_path):
    pipeline = Pipeline(model)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="sample 's': "):
        pipeline.prepare(Sample("s", (Turn("user", (Item("image", {"path": "a.png"}),)),)), root=tmp_path)
    with pytest.raises(DataError, match="unknown modality 'touch'"):
        pipeline.prepare(Sample("s", (Turn("user", (Item("touch", {"path": "a.png"}),)),)), root=tmp_path)


@pytest.mark.parametrize("name,says", [("far/7", "sample 'far/7': sound: the sound lasts"), ("", "] sound: the sound")])
def test_what_a_processor_refuses_is_said_of_which_item(model, name, says):
    long = Item("sound", Audio(np.zeros((1, 31 * 16_000), np.float32), 16_000))
    with pytest.raises(MediaError) as raised:
        Pipeline(model).plans([Sample("a", (Turn("user", (Text("x"),)),)), Sample(name, (Turn("user", (long,)),))])
    assert raised.value.code == "audio_too_long" and says in str(raised.value)


def test_numbers_that_overflow_in_a_processor_are_refused_and_not_learned_from(model):
    huge = Item("motion", Series(np.array([[1e38, -1e38], [-1e38, 1e38], [3e38, 0.0]], np.float32)))
    with pytest.raises(MediaError, match="sample 's': motion: its numbers are too large"):
        Pipeline(model).plans([Sample("s", (Turn("user", (huge,)),))])


def test_a_raw_tensor_that_an_encoder_does_not_take_is_said_to_be_of_its_modality(model):
    (plan,) = Pipeline(model).plans([Sample("s", (Turn("user", (Item("image", torch.zeros(1, 16, 16)),)),))])
    with pytest.raises(ShapeError, match="the encoder of 'image': PatchViT"):
        model.hidden(plan)


def test_a_seed_is_a_function_of_its_names():
    assert seed_of("a", 1) == seed_of("a", 1) == seed_of("a/1") and seed_of("a", 1) != seed_of("a", 2)
    assert 0 <= seed_of("x") < 2**56
