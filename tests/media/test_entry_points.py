"""The same bombs through every door: whichever way a medium enters, it is refused with the same code.

`DOORS` is the table of doors. A door takes a file and what it claims to be, brings it in, and raises the MediaError or
gives back the words in which it was written down.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import omniloom
from omniloom.api import Omni
from omniloom.config import EvaluationConfig, StageConfig
from omniloom.data import MediaLoader, check_source, load_media, open_source
from omniloom.data.pipeline import Pipeline
from omniloom.errors import MediaError
from omniloom.eval.run import evaluate_model
from omniloom.media import Audio, Image, load
from omniloom.train.stage import Stage, Trainer

from .makers import chunk, encode_audio, encode_image, noise_image, raw_png, tone, zeros_deflated

# -- bombs ----------------------------------------------------------------------------------------------------


def _flac_of_hours(path: Path) -> None:
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(10):
            file.write(np.zeros(8000 * 720, np.int16))


def _forged_rate(path: Path) -> None:
    """Eight channels at 655 350 Hz, by the header; 16 kHz, mono, by the truth."""
    content = bytearray(encode_audio(tone(), 16_000))
    at = content.index(b"fmt ") + 10
    struct.pack_into("<HI", content, at, 8, 655_350)
    path.write_bytes(content)


def _written(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(make())


@dataclass(frozen=True)
class Bomb:
    """A file that would cost gigabytes: its modality in the tiny run, kind of payload, ending, code, and maker."""

    modality: str
    kind: str
    ending: str
    code: str
    make: Callable[[Path], object]


BOMBS = {
    "png of 2.5 gigapixels": Bomb(
        "image",
        "image",
        ".png",
        "image_too_large",
        _written(lambda: raw_png(50_000, 50_000, depth=1, colour=0, data=zeros_deflated(300 << 20))),
    ),
    "zTXt of 100 MiB": Bomb(
        "image",
        "image",
        ".png",
        "invalid_image",
        _written(lambda: raw_png(1, 1, extra=chunk(b"zTXt", b"k\0\0" + zeros_deflated(100 << 20)))),
    ),
    "flac of two hours": Bomb("sound", "audio", ".flac", "audio_too_long", _flac_of_hours),
    "wav of a forged rate": Bomb("sound", "audio", ".wav", "audio_too_large", _forged_rate),
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("bombs"), {}
    for index, (name, bomb) in enumerate(BOMBS.items()):
        made[name] = folder / f"{index}{bomb.ending}"
        bomb.make(made[name])
    return made


# -- doors ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What a door is given: the bomb and its file in an empty folder of its own, and a model to bring it to."""

    bomb: Bomb
    file: Path
    omni: Omni

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def text(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.file.read_bytes()).decode()

    @property
    def data_uri(self) -> str:
        return f"data:;base64,{self.text}"

    def record(self, **medium: str) -> dict:
        """A record of one question about the bomb."""
        item = {"type": self.bomb.modality, **(medium or {"path": self.file.name})}
        messages = [{"role": "user", "content": [item, "What is it?"]}, {"role": "assistant", "content": "bad"}]
        return {"id": "bomb", "messages": messages}

    def good_record(self) -> dict:
        """A record of one question about a small medium."""
        content = encode_image(noise_image(), "PNG") if self.bomb.kind == "image" else encode_audio(tone())
        (self.folder / "good").write_bytes(content)
        return {**self.record(path="good"), "id": "good"}

    def manifest(self, *records: dict) -> Path:
        """The records as JSON lines."""
        path = self.folder / "records.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records or [self.record()]))
        return path

    def source(self, kind: str, **options: object):
        return open_source({"type": kind, **options}, self.folder)

    def bring(self, source) -> None:
        """The first sample of a source, loaded."""
        kinds = {name: row.payload_kind for name, row in self.omni.model.rows.items()}
        load_media(source[0], kinds, root=source.media_root)


def gateway_dict(entry: Entry) -> None:
    load({"base64": entry.text}, entry.bomb.kind)


def jsonl_data_uri(entry: Entry) -> None:
    entry.manifest(entry.record(data=entry.data_uri))
    entry.bring(entry.source("jsonl", path="records.jsonl"))


def csv_row(entry: Entry) -> None:
    with (entry.folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], [entry.file.name, "bad"]])
    entry.bring(entry.source("csv", path="table.csv", modality=entry.bomb.modality, prompt="What is it?"))


def folder_of_classes(entry: Entry) -> None:
    (entry.folder / "classes" / "bad").mkdir(parents=True)
    shutil.move(entry.file, entry.folder / "classes" / "bad")
    entry.bring(entry.source("folder", path="classes", modality=entry.bomb.modality, prompt="What is it?"))


def quarantine(entry: Entry) -> str:
    """A loader that skips broken media writes down why."""
    source, notes = entry.source("jsonl", path=entry.manifest().name), entry.folder / "quarantine.jsonl"
    loader = MediaLoader({entry.bomb.modality: entry.bomb.kind}, on_error="skip", quarantine=notes)
    assert loader.load(source[0], source.media_root) is None
    return "[{code}] {reason}".format(**json.loads(notes.read_text()))


def check(entry: Entry) -> str:
    """`omniloom check --deep`."""
    source = entry.source("jsonl", path=entry.manifest().name)
    [problem] = check_source(source, entry.omni.config.modalities, is_deep=True).problems
    return problem.message


def training_row(entry: Entry) -> None:
    sources = {"bad": entry.source("jsonl", path=entry.manifest().name)}
    config = StageConfig(name="only", train=["*/projector*"], data={"bad": 1.0}, steps=1, batch=1)
    Trainer(entry.omni.model, Stage(config, sources, 0), Pipeline(entry.omni.model)).step(0)


def evaluation_row(entry: Entry) -> str:
    """The row stays in the denominator, as failed, and the next one is asked."""
    spec = {"type": "jsonl", "path": entry.manifest(entry.record(), entry.good_record()).name}
    tasks = {"task": EvaluationConfig(data="mine", probes=[], max_new=2)}
    config = entry.omni.config.model_copy(update={"data": {"mine": spec}, "evaluation": tasks})
    result = evaluate_model(entry.omni.engine, config, entry.folder).tasks["task"]
    bad, good = sorted(result.items, key=lambda item: item.id)
    assert result.n == 2 and good.reason is None and bad.answer is None
    return str(bad.reason)


def predict_row(entry: Entry) -> str:
    """The error stands in the record's place, and the next one is answered."""
    out = entry.folder / "answers.jsonl"
    asked = entry.manifest(entry.record(), entry.good_record())
    assert entry.omni.predict(asked, out, max_new=2) == 1
    bad, good = (json.loads(line) for line in out.read_text().splitlines())
    assert (bad["id"], good["id"]) == ("bomb", "good") and "error" not in good
    return bad["error"]


def chat_path(entry: Entry) -> None:
    entry.omni.chat(["What is it?", entry.file])


def chat_mapping(entry: Entry) -> None:
    entry.omni.chat([{"type": entry.bomb.modality, "path": str(entry.file)}])


def chat_data_uri(entry: Entry) -> None:
    entry.omni.chat([{"type": entry.bomb.modality, "data": entry.data_uri}])


def chat_messages(entry: Entry) -> None:
    entry.omni.chat(entry.record(path=str(entry.file))["messages"][:1])


def chat_openai(entry: Entry) -> None:
    """The parts of OpenAI's requests."""
    url = {"type": "image_url", "image_url": {"url": entry.data_uri}}
    sound = {"type": "input_audio", "input_audio": {"data": entry.text, "format": "wav"}}
    entry.omni.chat([{"role": "user", "content": [url if entry.bomb.kind == "image" else sound]}])


def chat_second_turn(entry: Entry) -> None:
    conversation = entry.omni.conversation()
    conversation.ask("Hello?", max_new=1)
    conversation.ask(entry.file, max_new=1)


DOORS: dict[str, Callable[[Entry], str | None]] = {
    "gateway: path": lambda entry: load(entry.file, entry.bomb.kind) and None,
    "gateway: bytes": lambda entry: load(entry.file.read_bytes(), entry.bomb.kind) and None,
    "gateway: base64": gateway_dict,
    "gateway: data URI": lambda entry: load(entry.data_uri, entry.bomb.kind) and None,
    "source: JSON lines": lambda entry: entry.bring(entry.source("jsonl", path=entry.manifest().name)),
    "source: JSON lines, data URI": jsonl_data_uri,
    "source: table": csv_row,
    "source: folder of classes": folder_of_classes,
    "loader that skips": quarantine,
    "check": check,
    "training": training_row,
    "evaluation": evaluation_row,
    "predict": predict_row,
    "chat: path": chat_path,
    "chat: mapping": chat_mapping,
    "chat: data URI": chat_data_uri,
    "chat: messages": chat_messages,
    "chat: parts of OpenAI": chat_openai,
    "chat: second turn": chat_second_turn,
}


@pytest.fixture(scope="module")
def omni(trained):
    return omniloom.load(trained)


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("door", DOORS)
def test_a_bomb_is_refused_with_the_same_code_at_every_door(door, name, bombs, omni, tmp_path):
    bomb = BOMBS[name]
    file = tmp_path / bombs[name].name
    shutil.copy(bombs[name], file)
    try:
        told = DOORS[door](Entry(bomb, file, omni))
    except MediaError as error:
        assert error.code == bomb.code
    else:
        assert told is not None, "it came in"
        assert re.search(r"\[(\w+)\]", told)[1] == bomb.code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (lambda: Image(np.zeros((1, 16_385, 3), np.uint8)), "image_too_large"),
        (lambda: Audio(np.zeros((1, 4000 * 601), np.float32), 4000), "audio_too_long"),
    ],
    ids=["image", "audio"],
)
def test_a_payload_made_by_hand_is_held_to_the_same_limits(payload, code, omni):
    for bring in (lambda made: load(made, made.kind), lambda made: omni.chat([made])):
        with pytest.raises(MediaError) as caught:
            bring(payload())
        assert caught.value.code == code
