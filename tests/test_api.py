"""The Python door: what `import omniloom` gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import omniloom
from omniloom.errors import ConfigError
from omniloom.media import Image
from omniloom.sequence import Item
from omniloom.testing.tiny_run import write_tiny_run


@pytest.fixture(scope="module")
def omni(trained):
    return omniloom.load(trained)


@pytest.fixture(scope="module")
def picture(trained):
    return next((trained.parent / "data").glob("test-*.png"))


def test_training_is_a_door_before_and_after_its_room_was_imported(tmp_path):
    import omniloom.train.stage

    folder = omniloom.train(write_tiny_run(tmp_path, steps=1, count=8), out=tmp_path / "run")
    assert (folder / "manifest.json").is_file()
    assert set(omniloom.evaluate(folder).tasks) == {"things", "drawn"}


def test_a_path_and_its_payload_get_the_same_answer(omni, picture):
    from omniloom.media import load

    by_path = omni.chat([picture, "Which colour?"], max_new=6)
    by_payload = omni.chat([load(picture, "image"), "Which colour?"], max_new=6)
    by_part = omni.chat([{"type": "image", "path": str(picture)}, "Which colour?"], max_new=6)
    assert by_path == by_payload == by_part


def test_the_order_of_parts_reaches_the_model(omni, picture):
    parts = [picture, "Which colour?"]
    one, two = (omni.engine.pipeline.plans([_sample(omni, order)], ask=True)[0] for order in (parts, parts[::-1]))
    assert not one.equals(two) and one.shape == two.shape


def _sample(omni, parts):
    from omniloom.sequence import Sample

    return omni.engine.pipeline.prepare(Sample("one", omni.turns(parts)))


def test_a_batch_of_conversations_equals_one_by_one(omni, picture):
    asked = [[picture, "Which colour?"], ["Say something."], ["And", picture, "now?"]]
    assert omni.chat_batch(asked, max_new=6) == [omni.chat(one, max_new=6) for one in asked]


def test_a_conversation_remembers_its_turns(omni, picture):
    conversation = omni.conversation()
    conversation.ask(picture, "Which colour?", max_new=4)
    second = conversation.ask("Sure?", max_new=4)
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user", "assistant"]
    assert any(isinstance(part, Item) for part in conversation.turns[0].parts)
    assert second.text == conversation.turns[-1].text.strip()


def test_an_ambiguous_or_unknown_part_is_refused_by_name(omni):
    with pytest.raises(ConfigError, match="no output 'speech'"):
        omni.chat(["Hello"], outputs=["speech"])
    with pytest.raises(ConfigError, match=r"no modality 'imagee'.*'image'"):
        omni.chat([{"type": "imagee", "path": "x.png"}])
    with pytest.raises(ConfigError, match="at least one part"):
        omni.chat([])


def test_a_required_output_is_a_valid_picture(omni):
    from omniloom.model import Sampling
    from omniloom.sequence import Sample

    reply = omni.engine.answer([Sample("draw", omni.turns(["Draw white."]))], Sampling(max_new=8, required="drawing"))[
        0
    ]
    (item,) = [part for part in reply.parts if isinstance(part, Item)]
    assert isinstance(item.payload, Image) and item.payload.pixels.shape == (8, 8, 3)
    assert item.payload.pixels.dtype == np.uint8


def test_predict_answers_every_record_once_and_goes_on_after_a_bad_one(omni, picture, tmp_path):
    records = [
        {"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "path": picture.name}]}]},
        {"id": "b", "messages": [{"role": "user", "content": [{"type": "image", "path": "missing.png"}]}]},
        {"id": "c", "messages": [{"role": "user", "content": "Hello"}]},
    ]
    (tmp_path / picture.name).write_bytes(picture.read_bytes())
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert omni.predict(asked, answered, max_new=4) == 2
    lines = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert "error" in lines[1] and not {"error"} & (set(lines[0]) | set(lines[2]))
    before = answered.read_bytes()
    assert omni.predict(asked, answered, max_new=4) == 2 and answered.read_bytes() == before


def test_saved_items_load_as_they_were(omni, tmp_path):
    from omniloom.api import Answer
    from omniloom.media import Series, load

    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    (path,) = Answer((Item("motion", Series(values, 50.0)),), "stop").save_items(tmp_path)
    assert isinstance(path, Path) and load(path, "series").digest() == Series(values, 50.0).digest()
