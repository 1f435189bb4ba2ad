"""Single projectors of published models in any run: `init` names the model."""

from __future__ import annotations

import pytest
import torch
import transformers
import yaml

from omniloom.checkpoint import begin_with, initial_digests
from omniloom.config import load_run
from omniloom.errors import CheckpointError, ConfigError
from omniloom.model import compose
from omniloom.testing.doubles import tiny_language_model
from tests.published.models import stirred, write
from tests.published.test_llava import PROCESSOR, TEMPLATE, config

MLP = {"type": "mlp", "layers": 2, "norm": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a LLaVA, a language model as wide as its own, and its tensors."""
    folder = tmp_path_factory.mktemp("single")
    theirs = stirred(transformers.LlavaForConditionalGeneration(config()))
    write(folder / "llava", theirs, ["<image>"], TEMPLATE, preprocessor_config=PROCESSOR)
    tiny_language_model(folder / "language-model")
    return folder, theirs.model.multi_modal_projector


def begun(folder, projector, init, width=24):
    series = {"type": "series_conv", "channels": 2, "width": width}
    row = {"payload": "series", "in": {"processor": "series", "encoder": series, "projector": projector}}
    values = {
        "name": "x", "backbone": {"id": "./language-model"}, "modalities": {"motion": row}, "init": init,
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    config = load_run(folder / "run.yaml").config
    model = compose(config, base=folder)
    return model, begin_with(model, config, folder), initial_digests(config, folder)


def test_an_mlp_of_llava_begins_the_projector_of_another_modality_in_another_run(home):
    folder, theirs = home
    model, filled, digests = begun(folder, MLP, {"motion/projector": "./llava"})
    ours = model.parts["motion/projector"]
    assert filled == {"motion/projector"}
    rows = torch.randn(3, 24)
    mapped = ours.maps[1](ours.act(ours.maps[0](rows)))
    torch.testing.assert_close(mapped, theirs(rows), atol=1e-6, rtol=0)
    assert list(digests) == ["init ./llava"] and len(digests["init ./llava"]) == 64


@pytest.mark.parametrize(
    ("projector", "width", "message"),
    [
        (MLP, 32, "the shape"),
        ({**MLP, "activation": "relu"}, 24, "Set activation: gelu"),
        ({**MLP, "norm": True}, 24, "Set norm: False"),
        ("linear", 24, "another kind of part"),
    ],
    ids=["width", "activation", "norm", "kind"],
)
def test_a_part_that_is_not_like_the_published_one_is_refused(home, projector, width, message):
    with pytest.raises(CheckpointError, match=message):
        begun(home[0], projector, {"motion/projector": "./llava"}, width)


def test_a_glob_of_no_part_and_a_model_of_no_known_family_are_refused(home):
    folder = home[0]
    with pytest.raises(CheckpointError, match="no such part"):
        begun(folder, MLP, {"sound/projector": "./llava"})
    with pytest.raises(ConfigError, match="is a 'llama', which cannot be taken over"):
        begun(folder, MLP, {"motion/projector": "./language-model"})
