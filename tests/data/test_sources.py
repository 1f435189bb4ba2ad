"""Sources: JSON lines, tables and folders become the same samples."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from omniloom.data import CsvSource, FolderSource, JsonlSource, Source, open_source
from omniloom.errors import ConfigError, DataError
from omniloom.registry import spec_of
from omniloom.sequence import Item, Sample, Text, Turn

from .files import png, record, write_jsonl


def _asked(name: str, path: str, answer: str, group: str | None = None) -> Sample:
    question = Turn("user", (Item("image", {"path": path}), Text("What is this?")))
    return Sample(name, (question, Turn("assistant", (Text(answer),))), group=group)


# -- JSON lines -----------------------------------------------------------------------------------------------


def test_json_lines_are_read_in_any_order_with_their_own_lines(tmp_path: Path) -> None:
    lines = ["\ufeff", record("é.png", "a"), "", record("b.png", "b", id="second"), "   ", record("c.png", "c")]
    path = write_jsonl(tmp_path / "a.jsonl", lines)
    path.write_text(path.read_text(encoding="utf-8").replace("\ufeff\n", "\ufeff", 1), encoding="utf-8")
    source = JsonlSource(tmp_path, path="a.jsonl")
    assert len(source) == 3
    assert source[2] == _asked("a.jsonl:5", "c.png", "c") and source[0] == _asked("a.jsonl:1", "é.png", "a")
    assert source[-1] == source[2] and source[1].id == "second"
    assert source.where(1) == (str(path), 3)
    assert [sample.id for sample in source] == ["a.jsonl:1", "second", "a.jsonl:5"]


def test_a_folder_holds_one_file_per_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "things" / "train.jsonl", [record(), record()])
    write_jsonl(tmp_path / "things" / "test.jsonl", [record()])
    source = JsonlSource(tmp_path, path="things", split="test")
    assert len(source) == 1 and source.media_root == tmp_path / "things"
    with pytest.raises(DataError, match=r"no split 'tset'. Did you mean 'test'\?"):
        JsonlSource(tmp_path, path="things", split="tset")
    with pytest.raises(DataError, match="needs `split:`"):
        JsonlSource(tmp_path, path="things")
    with pytest.raises(DataError, match="needs a folder"):
        JsonlSource(tmp_path, path="things/test.jsonl", split="test")


def test_limit_and_root_are_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [record(answer=str(index)) for index in range(5)])
    source = JsonlSource(tmp_path, path="a.jsonl", limit=2, root="media")
    assert len(source) == 2 and source.media_root == tmp_path / "media"
    assert spec_of("sources", source) == {
        "type": "jsonl",
        "path": "a.jsonl",
        "split": None,
        "limit": 2,
        "root": "media",
    }
    for limit in (0, True, 1.5):
        with pytest.raises(ConfigError):
            JsonlSource(tmp_path, path="a.jsonl", limit=limit)  # type: ignore[arg-type]


def test_a_bad_record_harms_itself_alone(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record(), "{", record()])
    source = JsonlSource(tmp_path, path="a.jsonl")
    assert source[0] and source[2]
    with pytest.raises(DataError) as caught:
        source[1]
    assert (caught.value.file, caught.value.line) == (str(path), 2)


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_file_without_records_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError):
        JsonlSource(tmp_path, path="a.jsonl")


def test_a_source_travels_to_another_process(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [record()])
    source = JsonlSource(tmp_path, path="a.jsonl")
    assert pickle.loads(pickle.dumps(source))[0] == source[0]


# -- tables ---------------------------------------------------------------------------------------------------


def _csv(folder: Path, text: str) -> Path:
    (folder / "mine.csv").write_text(text, encoding="utf-8")
    return folder / "mine.csv"


def test_a_table_becomes_questions_and_answers(tmp_path: Path) -> None:
    _csv(tmp_path, '\ufefffile,what,who\na.png,"a ""big"" cat,\nblack",anna\n\nb.png,dog,\n')
    source = CsvSource(
        tmp_path, path="mine.csv", modality="image", prompt="What is this?", column="file", answer="what", group="who"
    )
    assert list(source) == [
        _asked("mine.csv:2", "a.png", 'a "big" cat,\nblack', "anna"),
        _asked("mine.csv:5", "b.png", "dog"),
    ]
    assert source.where(1)[1] == 5


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("path,lable\na,b\n", 1, "Did you mean 'lable'?"),
        ("", 1, "no column 'path'"),
        ("path,label\na,b,c\n", 2, "more cells than the header"),
        ("path,label\na\n", 2, "'label' is empty"),
        ("path,label\n,b\n", 2, "'path' is empty"),
        ('path,label\n"a"b,c\n', 2, "not CSV"),
    ],
)
def test_a_wrong_table_is_a_data_error_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = _csv(tmp_path, text)
    with pytest.raises(DataError) as caught:
        list(CsvSource(tmp_path, path="mine.csv", modality="image", prompt="?"))
    assert message in str(caught.value) and (caught.value.file, caught.value.line) == (str(path), line)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"path,label\na.png,caf\xe9\n")
    with pytest.raises(DataError, match="UTF-8"):
        CsvSource(tmp_path, path="mine.csv", modality="image", prompt="?")


# -- folders --------------------------------------------------------------------------------------------------


def test_a_folder_of_classes_becomes_questions_and_answers(tmp_path: Path) -> None:
    for name in (
        "cat/1.png",
        "polar_bear/deep/2.png",
        "guinea-pig/1.png",
        ".hidden/1.png",
        "cat/.DS_Store",
        "loose.png",
    ):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(png())
    source = FolderSource(tmp_path, path="pets", modality="image", prompt="What is this?", answer_template="a {name}.")
    assert list(source) == [
        _asked("cat/1.png", "cat/1.png", "a cat."),
        _asked("guinea-pig/1.png", "guinea-pig/1.png", "a guinea pig."),
        _asked("polar_bear/deep/2.png", "polar_bear/deep/2.png", "a polar bear."),
    ]
    assert source.where(0) == (str(tmp_path / "pets" / "cat/1.png"), None)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(DataError, match="CLASS/FILE"):
        FolderSource(tmp_path, path=".", modality="image", prompt="?")
    with pytest.raises(DataError, match="no folder"):
        FolderSource(tmp_path, path="none", modality="image", prompt="?")
    with pytest.raises(ConfigError, match="answer_template"):
        FolderSource(tmp_path, path=".", modality="image", prompt="?", answer_template="cat")


# -- all ------------------------------------------------------------------------------------------------------


def test_a_spec_of_a_run_file_opens_its_source(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [record()])
    assert isinstance(open_source({"type": "jsonl", "path": "a.jsonl"}, tmp_path), Source)
    with pytest.raises(ConfigError, match=r"Did you mean 'path'\?"):
        open_source({"type": "jsonl", "pth": "a.jsonl"}, tmp_path)


def test_the_digest_changes_with_records_and_media_and_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    write_jsonl(tmp_path / "a.jsonl", [record()])

    def digests() -> tuple[str, str]:
        source = JsonlSource(tmp_path, path="a.jsonl")
        return source.digest(), source.digest(content=True)

    first = digests()
    assert digests() == first
    content = bytearray(png())
    content[-15] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    other_bytes = digests()
    assert other_bytes[0] == first[0] and other_bytes[1] != first[1], "of the same size: only the bytes tell"
    (tmp_path / "a.png").write_bytes(png(size=99))
    assert digests()[0] != first[0]
    (tmp_path / "a.png").write_bytes(png())
    write_jsonl(tmp_path / "a.jsonl", [record(answer="a dog")])
    assert digests()[0] != first[0] and digests()[1] != first[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*'a\.png'"):
        digests()


def test_table_and_folder_have_digests_of_their_options(tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "a.png").write_bytes(png())
    _csv(tmp_path, "path,label\npets/cat/a.png,cat\n")
    tables = [
        CsvSource(tmp_path, path="mine.csv", modality="image", prompt=prompt).digest() for prompt in ("a", "b", "a")
    ]
    folders = [
        FolderSource(tmp_path, path="pets", modality="image", prompt=prompt).digest() for prompt in ("a", "b", "a")
    ]
    assert tables[0] == tables[2] != tables[1] and folders[0] == folders[2] != folders[1]
