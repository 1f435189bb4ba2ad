"""Where samples come from: JSON lines of conversations, a table of paths and answers, a folder of classes.

A source is a sized, indexable list of samples. Records are parsed when they are asked for; media are never opened here.
Relative paths start from `base`, the folder of the run file; `scheme:name` is looked up in the table of data sets.
"""

from __future__ import annotations

import csv
import hashlib
import os
from abc import abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omniloom.data.records import parse_line
from omniloom.errors import ConfigError, DataError, did_you_mean
from omniloom.registry import build, resolve_asset
from omniloom.sequence import Item, Sample, Text, Turn

__all__ = ["CsvSource", "FolderSource", "JsonlSource", "Source", "open_source"]

_LINE_LIMIT = 64 << 20


class Source(Sequence[Sample]):
    """A list of samples. `root`: the folder that the paths of its media start from and may not leave."""

    media_root: Path

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """One sample; its items hold references to media.

        Raises:
            DataError: the record is malformed.
            IndexError: no such record.
        """

    @abstractmethod
    def where(self, index: int) -> tuple[str, int | None]:
        """File and line of a record, for messages."""

    @abstractmethod
    def _manifest(self) -> str:
        """sha256 of everything but the media."""

    def digest(self, *, content: bool = False) -> str:
        """sha256 of the records and of the path and size of every medium; of its bytes with `content`.

        Raises:
            DataError: a record is malformed or a medium is missing.
        """
        sha = hashlib.sha256(self._manifest().encode())
        for index in range(len(self)):
            for _, item in self[index].items():
                path = item.payload.get("path") if isinstance(item.payload, Mapping) else None
                if isinstance(path, str):
                    sha.update(self._stamp(path, content, index).encode())
        return sha.hexdigest()

    def _stamp(self, path: str, content: bool, index: int) -> str:
        file, line = self.where(index)
        try:
            full = self.media_root / path
            if not content:
                return f"{path}\0{os.path.getsize(full)}\n"
            with full.open("rb") as medium:
                return f"{path}\0{hashlib.file_digest(medium, 'sha256').hexdigest()}\n"
        except (OSError, ValueError):
            raise DataError(
                f"there is no readable medium {path!r} below {self.media_root}.", file=file, line=line
            ) from None


class JsonlSource(Source):
    """Conversations as JSON lines; `omniloom.data.records` describes a record.

    Args:
        base: folder that `path` starts from.
        path: the file; or a folder, which holds one file `SPLIT.jsonl` per split.
        split: the file of a folder to read.
        limit: the first records only; null: all.
        root: folder of the media, from the manifest's own folder; null: that folder. `/` allows absolute paths.
    """

    def __init__(
        self,
        base: str | Path = ".",
        *,
        path: str,
        split: str | None = None,
        limit: int | None = None,
        root: str | None = None,
    ) -> None:
        self.path, self.split, self.limit, self.root = path, split, limit, root
        self.file = _manifest_of(_resolved(base, path), split)
        self.media_root = self.file.parent if root is None else self.file.parent / root
        self._offsets, self._lines = _line_index(self.file, _checked_limit(limit))

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        number = self._lines[index]
        with self.file.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline(_LINE_LIMIT + 1)
        if len(line) > _LINE_LIMIT:
            message = f"the record is longer than {_LINE_LIMIT} bytes. Keep media in files of their own."
            raise DataError(message, file=str(self.file), line=number)
        return parse_line(line, name=f"{self.file.name}:{number}", file=str(self.file), number=number)

    def where(self, index: int) -> tuple[str, int | None]:
        """File and line of a record."""
        return str(self.file), self._lines[index]

    def _manifest(self) -> str:
        with self.file.open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {len(self)}"


class CsvSource(Source):
    """A table with a header: one medium and one answer a row.

    Args:
        base: folder that `path` starts from.
        path: the file, comma separated; paths in it start from its own folder.
        modality: what the media are.
        prompt: what the user asks after the medium.
        column: name of the column of paths.
        answer: name of the column of answers.
        group: name of the column that tells which rows belong together (subject, voice, file); null: every row alone.
        root: as in `JsonlSource`.
    """

    def __init__(
        self,
        base: str | Path = ".",
        *,
        path: str,
        modality: str,
        prompt: str,
        column: str = "path",
        answer: str = "label",
        group: str | None = None,
        root: str | None = None,
    ) -> None:
        self.path, self.modality, self.prompt = path, modality, prompt
        self.column, self.answer, self.group, self.root = column, answer, group, root
        self.file = _readable(_resolved(base, path))
        self.media_root = self.file.parent if root is None else self.file.parent / root
        self._rows = list(self._read())

    def _read(self) -> Iterator[tuple[int, tuple[str | None, ...]]]:
        try:
            with self.file.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                names = reader.fieldnames or []
                wanted = [self.column, self.answer, *([self.group] if self.group is not None else [])]
                for name in wanted:
                    if name not in names:
                        message = f"the table has no column {name!r}.{did_you_mean(name, names)}"
                        raise DataError(message, file=str(self.file), line=1)
                for row in reader:
                    extra = row.pop(None, None)  # type: ignore[call-overload]
                    inner = sum(cell.count("\n") for cell in row.values() if cell)
                    yield reader.line_num - inner, (*(row[name] for name in wanted), extra and repr(extra))
        except UnicodeDecodeError:
            raise DataError("the table is not UTF-8 text. Save it as UTF-8.", file=str(self.file)) from None
        except csv.Error as error:
            line = reader.line_num + ("unexpected end" not in str(error))
            raise DataError(f"the table is not CSV: {error}.", file=str(self.file), line=line) from None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        line, cells = self._rows[index]
        path, answer = cells[0], cells[1]
        group = cells[2] if self.group is not None else None
        if cells[-1]:
            message = f"the row has more cells than the header: {cells[-1][:60]}. Quote cells that hold a comma."
            raise DataError(message, file=str(self.file), line=line)
        if not path or not answer:
            empty = self.answer if path else self.column
            raise DataError(f"the column {empty!r} is empty in this row.", file=str(self.file), line=line)
        return _asked(f"{self.file.name}:{line}", self.modality, path, self.prompt, answer, group or None)

    def where(self, index: int) -> tuple[str, int | None]:
        """File and line of a row."""
        return str(self.file), self._rows[index][0]

    def _manifest(self) -> str:
        with self.file.open("rb") as file:
            table = hashlib.file_digest(file, "sha256").hexdigest()
        return repr((table, self.modality, self.prompt, self.column, self.answer, self.group))


class FolderSource(Source):
    """A folder of classes: `pets/cat/1.png` is a cat; `_` and `-` in a class's name are read as spaces.

    Args:
        base: folder that `path` starts from.
        path: the folder; files below each of its folders belong to that class. Hidden files are left out.
        modality: what the media are.
        prompt: what the user asks after the medium.
        answer_template: the answer, with `{name}` for the class.
    """

    def __init__(
        self, base: str | Path = ".", *, path: str, modality: str, prompt: str, answer_template: str = "{name}"
    ) -> None:
        self.path, self.modality, self.prompt, self.answer_template = path, modality, prompt, answer_template
        if "{name}" not in answer_template:
            raise ConfigError(f"answer_template must hold '{{name}}', where the class stands, got {answer_template!r}.")
        self.media_root = _resolved(base, path)
        if not self.media_root.is_dir():
            raise DataError(f"there is no folder {path!r}: looked at {self.media_root}.", file=str(self.media_root))
        self._files = sorted(self._find())
        if not self._files:
            message = "no file lies in a folder of this folder. Expected CLASS/FILE, for instance cat/1.png."
            raise DataError(message, file=str(self.media_root))

    def _find(self) -> Iterator[tuple[str, str]]:
        for file in self.media_root.rglob("*"):
            parts = file.relative_to(self.media_root).parts
            if len(parts) > 1 and not any(part.startswith(".") for part in parts) and file.is_file():
                yield parts[0], "/".join(parts)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        folder, path = self._files[index]
        name = " ".join(folder.replace("_", " ").replace("-", " ").split()) or folder
        return _asked(path, self.modality, path, self.prompt, self.answer_template.replace("{name}", name), None)

    def where(self, index: int) -> tuple[str, int | None]:
        """The medium's own file; it has no line."""
        return str(self.media_root / self._files[index][1]), None

    def _manifest(self) -> str:
        return repr((self._files, self.modality, self.prompt, self.answer_template))


def open_source(spec: Mapping[str, Any], base: str | Path = ".") -> Source:
    """The source of a spec `{"type": ..., "path": ...}` of a run file in the folder `base`.

    Raises:
        ConfigError: an unknown type or option. DataError: the file is missing or malformed.
    """
    return build("sources", spec, base, base=Path(base))


def _asked(name: str, modality: str, path: str, prompt: str, answer: str, group: str | None) -> Sample:
    item = Item(modality, {"path": path})
    question: tuple[Text | Item, ...] = (item, Text(prompt)) if prompt else (item,)
    return Sample(name, (Turn("user", question), Turn("assistant", (Text(answer),))), group=group)


def _resolved(base: str | Path, path: str) -> Path:
    if not isinstance(path, str) or not path:
        raise ConfigError(f"`path` of a data source must be text, got {path!r}.")
    return Path(base) / resolve_asset(path, table="datasets")


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise DataError("there is no such file. Paths start at the run file's folder.", file=str(path))
    return path


def _manifest_of(path: Path, split: str | None) -> Path:
    if not path.is_dir():
        if split is not None:
            raise DataError(f"`split: {split}` needs a folder that holds {split}.jsonl; this is none.", file=str(path))
        return _readable(path)
    known = sorted(file.stem for file in path.glob("*.jsonl"))
    if split is None and len(known) == 1:
        return path / f"{known[0]}.jsonl"
    if split is None or split not in known:
        what = "the folder needs `split:`" if split is None else f"the folder has no split {split!r}"
        raise DataError(f"{what}.{did_you_mean(split or '', known)}", file=str(path))
    return path / f"{split}.jsonl"


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"`limit` must be a whole number above 0, or null for all records, got {limit!r}.")
    return limit


def _line_index(path: Path, limit: int | None) -> tuple[array[int], array[int]]:
    """Start and number of every line that is not blank."""
    offsets, numbers = array("Q"), array("Q")
    with path.open("rb") as file:
        start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        file.seek(start)
        for number, line in enumerate(file, 1):
            if limit is not None and len(offsets) == limit:
                break
            if line.strip():
                offsets.append(start)
                numbers.append(number)
            start += len(line)
    if not offsets:
        raise DataError("the file holds no record.", file=str(path))
    return offsets, numbers
