"""Records of conversations: every form that is accepted, every mistake told with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omniloom.data import modality_of, parse_line, parse_messages, parse_record
from omniloom.errors import DataError
from omniloom.sequence import Item, Text

from .files import record, uri


def test_a_record_becomes_turns_of_text_and_items() -> None:
    sample = parse_record(record(id="a", group="anna", meta={"n": 1}), name="file:1")
    assert (sample.id, sample.group, sample.meta) == ("a", "anna", {"n": 1})
    assert [turn.role for turn in sample.turns] == ["user", "assistant"]
    assert sample.turns[0].parts == (Item("image", {"path": "a.png"}), Text("What is this?"))
    assert sample.turns[1].parts == (Text("a cat"),)


def test_a_record_without_an_id_has_the_name_of_its_place() -> None:
    sample = parse_record(record(), name="train.jsonl:7")
    assert sample.id == "train.jsonl:7" and sample.group is None


def test_learn_weight_and_times_are_kept() -> None:
    user = {
        "role": "user",
        "content": [{"type": "imu", "data": [[1, 2], [3, 4]], "t0": 0.5, "t1": 2, "weight": 2, "role": "in"}],
        "learn": True,
    }
    answer = {
        "role": "assistant",
        "content": ["so ", {"type": "text", "text": "yes", "weight": 0.5, "learn": False}],
        "learn": False,
    }
    user_turn, answer_turn = parse_messages([user, answer])
    assert user_turn.learn is True and answer_turn.learn is False
    assert user_turn.parts == (Item("imu", [[1, 2], [3, 4]], "in", 0.5, 2.0, 2.0),)
    assert answer_turn.parts == (Text("so "), Text("yes", False, 0.5))


def test_inline_media_are_data_uris_or_numbers() -> None:
    parts = [{"type": "image", "data": uri(b"x")}, {"type": "imu", "data": {"values": [[1.0]], "rate_hz": 50}}]
    (turn,) = parse_messages([{"role": "user", "content": parts}])
    assert [part.payload for part in turn.parts if isinstance(part, Item)] == [
        {"data_uri": uri(b"x")},
        {"values": [[1.0]], "rate_hz": 50},
    ]


def test_parts_in_openai_s_form_are_items_of_the_modality_that_the_model_has() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": uri(b"x"), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    (turn,) = parse_messages([{"role": "user", "content": parts}])
    items = [part for part in turn.parts if isinstance(part, Item)]
    assert [item.payload for item in items] == [
        {"data_uri": uri(b"x")},
        {"base64": "eA=="},
        {"url": "https://example.org/a.png"},
    ]
    assert [modality_of(item.modality, ("image", "sound", "audio")) for item in items] == ["image", "audio", "image"]
    assert modality_of("input_audio", ("speech", "audio")) == "speech"
    assert modality_of("input_audio", ("image",)) == "input_audio"
    assert modality_of("touch", ("image",)) == "touch"


def _part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


WRONG: list[tuple[Any, str]] = [
    ([], "a record is a mapping"),
    ({}, "needs the key 'messages'"),
    ({**record(), "mesages": []}, "Did you mean 'messages'?"),
    ({"messages": []}, "at least one message"),
    ({"messages": "hello"}, "must be a list"),
    ({"messages": ["hello"]}, "message 0 must be a mapping"),
    ({"messages": [{"role": "usr", "content": "a"}]}, "Did you mean 'user'?"),
    ({"messages": [{"content": "a"}]}, "has the role None"),
    ({"messages": [{"role": "user"}]}, "content of message 0 must be text or a list"),
    ({"messages": [{"role": "user", "content": "a", "lern": True}]}, "Did you mean 'learn'?"),
    ({"messages": [{"role": "user", "content": "a", "learn": 1}]}, "`learn` of message 0 must be true or false"),
    ({"messages": [{"role": "user", "content": [3]}]}, "part 0 of message 0 must be text or a mapping"),
    (record(id=7), "`id` must be text"),
    (record(group=""), "`group` must be text"),
    (record(meta=[1]), "`meta` must be a mapping"),
    (_part(text="a"), "needs a `type`"),
    (_part(type="text", text=3), "`text` of part 0 of message 0 must be text"),
    (_part(type="text", txt="a"), "Did you mean 'text'?"),
    (_part(type="image"), "exactly one of `path` and `data`"),
    (_part(type="image", path="a", data="data:,a"), "exactly one of `path` and `data`"),
    (_part(type="image", path=3), "`path` of part 0 of message 0 must be text"),
    (_part(type="image", pth="a"), "Did you mean 'path'?"),
    (_part(type="image", data="aGVsbG8="), "starts with 'data:'"),
    (_part(type="image", data={"path": "/etc/passwd"}), "holds 'path'"),
    (_part(type="image", data=[]), "must be a data URI, a list or a mapping"),
    (_part(type="image", path="a", weight=-1), "must not be negative"),
    (_part(type="image", path="a", weight=True), "must be a number"),
    (_part(type="image", path="a", t0=2, t1=1), "ends before it starts"),
    (_part(type="image", path="a", t0="now"), "`t0` of part 0 of message 0 must be a number"),
    (_part(type="image", path="a", role="both"), "must be 'in' or 'out'"),
    (_part(type="image_url", image_url="data:,a"), "must be a mapping"),
    (_part(type="image_url", image_url={"uri": "data:,a"}), "Did you mean 'url'?"),
    (_part(type="input_audio", input_audio={"format": "wav"}), "must be base64 text"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_record_is_a_data_error_with_file_and_line(wrong: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_line(json.dumps(wrong).encode(), name="a", file="train.jsonl", number=3)
    assert message in caught.value.message and (caught.value.file, caught.value.line) == ("train.jsonl", 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"messages": [', "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"messages": NaN}', "NaN is not a number"),
        (b'{"id": "a", "id": "b"}', "'id' is written twice"),
        (b'{"id": ' + b"9" * 5000 + b"}", "refused"),
    ],
)
def test_a_line_that_is_no_json_is_a_data_error(line: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_line(line, name="a", file="train.jsonl", number=1)
