"""One more modality onto a published model: from its checkpoint to a run that hears, feels or whatever comes next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from omniloom.checkpoint import adopt, load_model
from omniloom.sequence import Item, Plan
from omniloom.train.adding import add_modality
from tests.published.models import picture, sample, stirred, user, write
from tests.published.test_qwen_vl import PROCESSOR, SPECIALS, TEMPLATE, qwen2_5_vl


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a Qwen2.5-VL, the run it became, and recordings of a pressure pad."""
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    write(folder / "original", stirred(qwen2_5_vl()), SPECIALS, TEMPLATE, preprocessor_config=PROCESSOR)
    adopt(str(folder / "original"), folder / "run")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label, sign in (("soft", -1), ("hard", 1)):
            (folder / "pads" / split / label).mkdir(parents=True)
            for index in range(count):
                values = sign * np.ones((16, 2)) + rng.normal(0, 0.1, (16, 2))
                np.save(folder / "pads" / split / label / f"{index}.npy", values.astype(np.float32))
    addition = {
        "modalities": {
            "touch": {
                "payload": "series",
                "in": {
                    "processor": {"type": "series", "normalize": False},
                    "encoder": {"type": "series_conv", "channels": 2, "width": 32},
                    "projector": [{"type": "pool", "tokens": 2}, "mlp"],
                },
            }
        },
        "data": {
            split: {"type": "folder", "path": f"pads/{split}/", "modality": "touch", "prompt": "How?"}
            for split in ("train", "test")
        },
        "stages": [
            {"name": "touch", "train": ["touch/*"], "data": {"train": 1.0}, "steps": 40, "batch": 8, "lr": 0.01}
        ],
        "evaluation": {"touch": {"data": "test", "max_new": 5, "probes": []}},
    }
    (folder / "touch.yaml").write_text(yaml.safe_dump(addition))
    return folder


def test_it_is_trained_scored_and_leaves_the_published_model_bit_identical(home):
    result = add_modality(home / "run", home / "touch.yaml", out=home / "felt")
    assert result.unchanged == {"text": True} and result.changed == []
    assert result.new["touch"].n == 6 and set(result.parameters) == {"touch"}
    old, new = load_model(home / "run")[0], load_model(home / "felt")[0]
    assert new.planner.positions.axes == 3
    asked = [
        sample(user("What is this?", Item("image", picture(1)))),
        sample(user("Plain text.")),
        sample(user(Item("image", picture(2, 40, 24)), "And ", Item("image", picture(3)), "?")),
    ]
    with torch.no_grad():
        logits = [
            model.logits(model.hidden(Plan.stack([model.planner.plan(s) for s in asked]))) for model in (old, new)
        ]
    assert torch.equal(*logits)


def test_the_new_modality_stands_beside_pictures_in_one_prompt(home):
    if not (home / "felt").exists():
        add_modality(home / "run", home / "touch.yaml", out=home / "felt")
    model, _ = load_model(home / "felt")
    pad = Item("touch", torch.ones(16, 2))
    plan = model.planner.plan(sample(user(Item("image", picture(1)), pad, "Both?")))
    with torch.no_grad():
        hidden = model.hidden(plan)
        other = model.planner.plan(sample(user(Item("image", picture(1)), Item("touch", -torch.ones(16, 2)), "Both?")))
        assert hidden.isfinite().all() and not torch.equal(hidden, model.hidden(other))
