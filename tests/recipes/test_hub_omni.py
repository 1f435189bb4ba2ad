"""The recipe with hub ids: at its published sizes on the meta device, and trained on small models of its classes."""

from __future__ import annotations

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import omniloom
from omniloom.backbone.stock import fast_dtype
from omniloom.checkpoint import read_manifest
from omniloom.config import load_run
from omniloom.data.pipeline import Pipeline
from omniloom.data.records import parse_messages
from omniloom.errors import MediaError
from omniloom.media import Audio, Image, save
from omniloom.model import compose
from omniloom.planner import Planner, Template
from omniloom.sequence import Kind, Plan, Sample, Text, Turn, Vocabulary
from omniloom.train import open_sources, train
from omniloom.train.stage import Stage, Trainer, peak_memory_gb

from .published import qwen3_tokenizer, write_models

# -- sizes ----------------------------------------------------------------------------------------------------

# By hand from the published sizes; d the width, f the inner one.
SIZES = {
    # Qwen3-0.6B, embeddings tied: 151 936 d + 28 layers of (q 1024 x 2048, k and v 1024 x 1024, o 2048 x 1024, a norm
    # of 128 for q and k, three matrices 1024 x 3072, two norms of 1024) + one norm; the model card says 0.6 B.
    "backbone": 151_936 * 1024 + 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 2 * 128 + 3 * 1024 * 3072 + 2 * 1024) + 1024,
    # Rank 128 at seven matrices of 28 layers: (in + out) * 128 each.
    "lora": 28 * 128 * (2 * (1024 + 2048) + 2 * (1024 + 1024) + 3 * (1024 + 3072)),
    # SigLIP base, 11 of its 12 layers and no norm behind them: patches 16 x 16 x 3, 196 positions; a layer is four maps
    # d x d, two of d x f, two norms, all with biases.
    "image/encoder": (768 * 16 * 16 * 3 + 768)
    + 196 * 768
    + 11 * (4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 4 * 768),
    # A norm of two patches, then 1536 -> 1024 -> 1024.
    "image/projector2": 2 * 1536 + (1536 * 1024 + 1024) + (1024 * 1024 + 1024),
    # Whisper small, encoder: two convolutions of width 3, 1500 positions, 12 layers as above but no bias for k, a norm.
    "speech/encoder": (80 * 768 * 3 + 768)
    + (768 * 768 * 3 + 768)
    + 1500 * 768
    + 12 * (4 * 768 * 768 + 3 * 768 + (768 * 3072 + 3072) + (3072 * 768 + 768) + 4 * 768)
    + 2 * 768,
    # A norm of five rows, then 3840 -> 1024 -> 1024.
    "speech/projector2": 2 * 3840 + (3840 * 1024 + 1024) + (1024 * 1024 + 1024),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The recipe with the published configurations, composed on the meta device."""
    folder = tmp_path_factory.mktemp("published")
    run = load_run("hub_omni", sets=write_models(folder, tiny=False))
    with torch.device("meta"):
        return run.config, compose(run.config, base=run.base_folder, weights=False)


def test_every_part_has_its_published_number_of_parameters(published):
    _, model = published
    counts = {
        name: sum(value.numel() for value in values.values() if isinstance(value, nn.Parameter))
        for name, values in model.components().items()
    }
    assert {name: count for name, count in counts.items() if count} == SIZES
    assert SIZES["backbone"] == 596_049_920  # what the published file holds


def test_nothing_of_it_takes_memory_on_the_meta_device(published):
    _, model = published
    assert {value.device.type for value in model.parameters()} == {"meta"}
    assert {value.dtype for value in model.backbone.lm.base_model.embed_tokens.parameters()} == {torch.bfloat16}


def test_a_picture_and_ten_seconds_of_speech_fill_the_slots_that_the_recipe_says(published, tmp_path):
    _, model = published
    picture, sound = _picture(tmp_path / "a.png", 0), _sound(tmp_path / "a.wav", 0, duration_s=10.0)
    question = [{"type": "image", "path": picture}, {"type": "speech", "path": sound}, "What is it?"]
    sample = Sample("s", parse_messages([{"role": "user", "content": question}]))
    pipeline = Pipeline(model)
    [plan] = pipeline.plans([pipeline.prepare(sample, root=tmp_path)], ask=True)
    # 14 x 14 patches by two; ten seconds and half of Whisper's 25 ms window, 50 rows a second, by five.
    assert [item.length for item in plan.items] == [98, 101]
    assert int((plan.kind == int(Kind.MEDIA)).sum()) == 98 + 101


@pytest.mark.parametrize(
    ("stage", "parts"), [("align", ["image", "speech"]), ("instruct", ["image", "speech", "lora"])], ids=str
)
def test_each_stage_trains_projectors_and_the_second_the_adapters(published, stage, parts):
    config, model = published
    [chosen] = [row for row in config.stages if row.name == stage]
    trained = sum(value.numel() for value in model.train_only(chosen.train).values())
    assert trained == sum(SIZES[name if name in SIZES else f"{name}/projector2"] for name in parts)


# -- training -------------------------------------------------------------------------------------------------


def _picture(path: Path, index: int) -> str:
    pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return save(Image(pixels), path).name


def _sound(path: Path, index: int, duration_s: float = 0.4) -> str:
    times_s = np.arange(round(16_000 * duration_s)) / 16_000
    samples = 0.3 * np.sin(2 * np.pi * 200 * (index + 1) * times_s)
    return save(Audio(samples.astype(np.float32)[None], 16_000), path).name


def write_data(folder: Path, count: int = 4) -> list[str]:
    """Pictures, sounds and text for every source of the recipe; returns what `--set` takes."""
    folder.mkdir()
    lines: dict[str, list[str]] = {"image": [], "speech": [], "text": []}
    for index in range(count):
        media = {"image": _picture(folder / f"{index}.png", index), "speech": _sound(folder / f"{index}.wav", index)}
        for name, path in {**media, "text": ""}.items():
            asked = [{"type": name, "path": path}] if path else []
            messages = [
                {"role": "user", "content": [*asked, {"type": "text", "text": "What is it?"}]},
                {"role": "assistant", "content": f"number {index}"},
            ]
            lines[name].append(json.dumps({"id": f"{name}-{index}", "messages": messages}))
    for name, records in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(records))
    config = load_run("hub_omni").config
    return [f"data.{source}.path={folder / source.partition('_')[0]}.jsonl" for source in config.data]


def sets_of(folder: Path, *, tiny: bool, batch: int) -> list[str]:
    """The recipe's models and data in a folder, and one step of each stage."""
    short = [f"stages.{name}.{key}" for name in ("align", "instruct") for key in (f"steps={1}", f"batch={batch}")]
    return [*write_models(folder, tiny=tiny), *write_data(folder / "data"), *short, "threads=1"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with the recipe trained for one step a stage on small models of the true classes."""
    folder = tmp_path_factory.mktemp("small")
    return train("hub_omni", sets=sets_of(folder, tiny=True, batch=10), out=folder / "run")


def test_the_recipe_trains_one_step_of_each_stage(small):
    steps = [json.loads(line) for line in (small / "metrics.jsonl").read_text().splitlines()]
    steps = [step for step in steps if "loss" in step]
    assert [(step["stage"], step["step"]) for step in steps] == [("align", 0), ("instruct", 0)]
    assert all(0 < step["loss"] < 20 and step["grad_norm"] > 0 for step in steps)
    assert {"loss/image_instruct", "loss/speech_instruct", "loss/text_instruct"} <= set(steps[1])


def test_what_was_published_is_named_and_only_what_was_trained_is_kept(small):
    components = read_manifest(small)["components"]
    kept = {name for name in components if (small / "components" / name / "weights.safetensors").is_file()}
    assert kept == {"image/projector2", "speech/projector2", "lora"}
    assert components["backbone"]["parameters"] > 0


def test_the_trained_recipe_answers_a_picture_and_a_sound(small, tmp_path):
    picture, sound = tmp_path / _picture(tmp_path / "a.png", 7), tmp_path / _sound(tmp_path / "a.wav", 7)
    omni = omniloom.load(small)
    conversation = omni.conversation()
    first = conversation.ask("What is it?", picture, sound, max_new=4)
    second = conversation.ask("And now?", max_new=4)
    assert {first.finish, second.finish} <= {"stop", "length"}
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user", "assistant"]
    assert omni.chat(["What is it?", picture, sound], max_new=4) == first


def test_a_sound_longer_than_whispers_window_is_refused_and_not_cut(small, tmp_path):
    sound = tmp_path / _sound(tmp_path / "a.wav", 0, duration_s=31.0)
    with pytest.raises(MediaError) as caught:
        omniloom.load(small).chat([sound])
    assert caught.value.code == "audio_too_long"


def _full_steps(folder: str) -> dict[str, object]:
    torch.set_num_threads(2)
    # Emulated bfloat16 is twenty times slower; float32 takes twice the room for the language model.
    sets = [*sets_of(Path(folder), tiny=False, batch=4), f"backbone.dtype={fast_dtype()}"]
    run = load_run("hub_omni", sets=sets)
    started = time.perf_counter()
    model = compose(run.config, base=run.base_folder, weights=False)
    found: dict[str, object] = {"compose_s": time.perf_counter() - started}
    for config in run.config.stages:
        sources = open_sources(run.config, run.base_folder, list(config.data))
        trainer = Trainer(model, Stage(config, sources, run.config.seed), Pipeline(model))
        found[config.name] = trainer.step(0)
        trainer.finish()
    return {**found, "peak_gb": peak_memory_gb()}


@pytest.mark.proof
def test_a_step_of_each_stage_at_the_published_size_fits_in_twelve_gigabytes(tmp_path, capsys):
    context = multiprocessing.get_context("spawn")  # a process of its own, whose peak is this run's alone
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(_full_steps, str(tmp_path)).result()
    with capsys.disabled():
        seconds = ", ".join(f"{name} {found[name]['step_s']:.0f} s" for name in ("align", "instruct"))
        print(f"\nhub_omni at full size, random weights of {fast_dtype()}, batch 4:")
        print(f"composed in {found['compose_s']:.0f} s")
        print(f"one step of each stage: {seconds}; {found['peak_gb']:.1f} GB at most")
    # A language model that knows nothing spreads over 151 936 ids: ln(151 936) = 11.9.
    assert all(11 < found[name]["loss"] < 14 for name in ("align", "instruct"))
    assert found["peak_gb"] < 12


# -- Qwen3's turns --------------------------------------------------------------------------------------------

USER, SAID, SYSTEM = ("user", "hello there"), ("assistant", "fine, thanks"), ("system", "be brief")
THOUGHT = "<think>\n\n</think>\n\n"


def planned(turns, *, ask=False) -> Plan:
    tokenizer = qwen3_tokenizer()
    planner = Planner(tokenizer, Template.of(tokenizer), {}, Vocabulary.of(len(tokenizer), {}))
    return planner.plan(Sample("s", tuple(Turn(role, (Text(text),)) for role, text in turns)), ask=ask)


def rendered(turns, *, ask=False) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    tokenizer = qwen3_tokenizer()
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, enable_thinking=False)


def written(plan: Plan) -> str:
    return qwen3_tokenizer().decode(plan.ids[0].tolist())


@pytest.mark.parametrize("opening", [[], [SYSTEM]], ids=["alone", "system"])
@pytest.mark.parametrize(("turns", "ask"), [([USER], True), ([USER], False), ([USER, SAID], False)], ids=str)
def test_a_question_and_its_answer_stand_as_qwen3_puts_them_without_thinking(opening, turns, ask):
    assert written(planned([*opening, *turns], ask=ask)) == rendered([*opening, *turns], ask=ask)


def test_an_earlier_answer_opens_with_the_empty_thought_too():
    turns = [USER, SAID, USER, SAID]
    expected = rendered(turns)
    assert expected.count(THOUGHT) == 1
    bare = "<|im_start|>assistant\nfine"
    assert written(planned(turns)) == expected.replace(bare, f"<|im_start|>assistant\n{THOUGHT}fine")


def test_what_was_answered_is_the_beginning_of_the_next_question():
    asked, answered = planned([USER], ask=True), planned([USER, SAID, USER], ask=True)
    assert answered.ids[0, : asked.ids.shape[1]].tolist() == asked.ids[0].tolist()


def test_the_empty_thought_is_not_learned():
    plan = planned([USER, SAID])
    learned = qwen3_tokenizer().decode(plan.label[0][plan.label[0] >= 0].tolist())
    assert learned == "fine, thanks<|im_end|>"
