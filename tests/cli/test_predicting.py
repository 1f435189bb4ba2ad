"""A file of records answered into another."""

import json

import pytest


def test_every_record_is_answered_and_broken_ones_say_why(call, run, media, tmp_path):
    source, target = media / "mixed.jsonl", tmp_path / "out.jsonl"
    good = (media / "test.jsonl").read_text().splitlines()[:3]
    source.write_text(
        "\n".join(
            [
                *good,
                "{",
                '{"id": "m", "messages": [{"role": "user", "content": [{"type": "image", "path": "no.png"}]}]}',
            ]
        )
    )
    done = call("predict", run, source, target, "--max-new", "2", "--batch", "2")
    assert done.exit_code == 1
    assert f"3 of 5 records answered in {target}" in done.stdout
    assert "2 could not be answered" in done.stderr and "mixed.jsonl:4" in done.stderr
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [("error" in record) for record in records] == [False, False, False, True, True]


def test_a_second_call_keeps_what_is_answered(call, run, media, tmp_path):
    target = tmp_path / "out.jsonl"
    assert call("predict", run, media / "test.jsonl", target, "--max-new", "2").exit_code == 0
    before = target.read_text().splitlines()
    target.write_text("\n".join([before[0].replace('"text": "', '"text": "kept'), *before[1:-1]]) + "\n")
    done = call("predict", run, media / "test.jsonl", target, "--max-new", "2")
    assert done.exit_code == 0, done.output
    after = target.read_text().splitlines()
    assert "kept" in after[0] and after[1:] == before[1:]
    assert "records  1/1" in done.stdout


@pytest.mark.parametrize("target", ["same", "folder"])
def test_a_target_that_cannot_be_is_refused(call, run, media, target):
    path = media / "test.jsonl"
    out = path if target == "same" else media / "no" / "out.jsonl"
    before = path.read_text()
    assert call("predict", run, path, out).exit_code == 2
    assert path.read_text() == before
