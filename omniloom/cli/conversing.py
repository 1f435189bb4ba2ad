"""A conversation on the terminal or over a pipe: a line asks, `/NAME PATH` or a pasted path attaches a file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omniloom.cli.answers import Desk
from omniloom.cli.chat_arguments import input_named
from omniloom.cli.terminal import say, warn
from omniloom.errors import ConfigError, OmniloomError
from omniloom.media import Payload, to_data_uri
from omniloom.media.formats import sniff
from omniloom.sequence import Item, Text

__all__ = ["Session", "split_paths"]

_HELP = """\
a line of text          asks; paths of files in it are attached where they stand
/{name} PATH [TEXT]      attaches a file; several, and text between them, keep their order
/reset                  forgets the conversation
/save FILE              writes the conversation as a line of JSON, as `omniloom train` and `predict` read it
/help, /quit            this text; leave (also with Ctrl-D)
inputs: {inputs}; outputs: {outputs}"""

# What a file holds by its content -> the kinds of payload it may be meant as.
_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("png", "jpeg", "webp", "gif"), ("image",)),
    **dict.fromkeys(("wav", "flac", "ogg", "mp3"), ("audio",)),
    **dict.fromkeys(("mp4", "matroska", "avi"), ("video",)),
    **dict.fromkeys(("ply", "off"), ("points",)),
    **dict.fromkeys(("npy", "zip"), ("series", "points", "map")),
    "tiff": ("map",),
}

_LIKE_A_PATH = re.compile(r"(?:/|\./|\.\./).*\.[A-Za-z0-9]{2,5}")

# A path as a shell or a file manager writes it: quoted, or with blanks escaped.
_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|(?:\\.|[^\s\\])+|\\")


class Session:
    """A conversation. `waiting`: parts attached to the next question."""

    def __init__(self, desk: Desk, waiting: list[Any], *, is_terminal: bool) -> None:
        self.desk, self.waiting, self.is_terminal = desk, list(waiting), is_terminal
        self.conversation = desk.omni.conversation()
        self.config = desk.omni.config

    def run(self) -> None:
        """Answer until the end of the input or `/quit`. An error is shown, and the conversation goes on."""
        if self.is_terminal:
            say(f"{self.config.name}: ask; /help for attachments and more")
        for line in self._lines():
            try:
                if not self._take(line):
                    return
            except OmniloomError as error:
                self.waiting = []
                if self.desk.as_json:
                    say(json.dumps({"error": str(error)}, ensure_ascii=False))
                warn(f"error: {error}")

    def _lines(self) -> Iterator[str]:
        if not self.is_terminal:
            yield from (line.rstrip("\r\n") for line in sys.stdin)
            return
        try:
            import readline  # noqa: F401 - gives `input` its history and line editing
        except ModuleNotFoundError:
            pass  # not every system has it; lines can be typed without
        while True:
            try:
                yield input("you> ")
            except EOFError:
                say()
                return

    def _take(self, line: str) -> bool:
        """Do what a line says; False to leave."""
        word, _, rest = line.strip().partition(" ")
        if not line.strip():
            if self.waiting and self.is_terminal:
                say("(attached; now ask)")
            return True
        if word == "/quit":
            return False
        if word == "/help":
            self._help()
        elif word == "/reset":
            self.conversation, self.waiting = self.desk.omni.conversation(), []
            self._note("(forgotten)")
        elif word == "/save":
            self._save(rest.strip())
        else:
            self._ask(line.strip())
        return True

    def _ask(self, line: str) -> None:
        parts = [*self.waiting, *split_paths(line, self.config)]
        if any(isinstance(part, str) for part in parts):
            self.waiting = []
            self.desk.answer(self.conversation, parts)
        else:
            new = parts[len(self.waiting) :]
            self.waiting = parts
            self._note("".join(f"(attached {part['type']}: {part['path']})" for part in new))

    def _note(self, text: str) -> None:
        if self.is_terminal:
            say(text)

    def _help(self) -> None:
        inputs = [name for name, row in self.config.modalities.items() if row.in_ is not None]
        outputs = [name for name, row in self.config.modalities.items() if row.out is not None]
        example = inputs[0] if inputs else "image"
        say(_HELP.format(name=example, inputs=", ".join(inputs) or "text", outputs=", ".join(["text", *outputs])))

    def _save(self, name: str) -> None:
        if not name:
            raise ConfigError("/save needs the name of a file.")
        if Path(name).exists():
            raise ConfigError(f"{name} is there already; nothing was written. Choose another name.")
        if not self.conversation.turns:
            raise ConfigError("nothing was said yet, so there is nothing to save.")
        messages = [
            {"role": turn.role, "content": [self._record(part, name) for part in turn.parts]}
            for turn in self.conversation.turns
        ]
        Path(name).write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
        self._note(f"(saved in {name})")

    def _record(self, part: Text | Item, name: str) -> dict[str, Any]:
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        if isinstance(part.payload, Payload):
            return {"type": part.modality, "data": to_data_uri(part.payload)}
        path = Path(part.payload["path"]).resolve()
        folder = Path(name).resolve().parent
        # Paths of a record start at its own file; what lies elsewhere keeps its whole path.
        return {"type": part.modality, "path": str(path.relative_to(folder) if path.is_relative_to(folder) else path)}


def split_paths(line: str, config: Any) -> list[Any]:
    """Text and items of a line in their order: `/NAME PATH` and bare paths of files that are there become items.

    Raises:
        ConfigError: `/NAME` is no input of the run, or its file is not there.
    """
    parts: list[Any] = []
    text = ""
    place = 0
    words = list(_WORD.finditer(line))
    index = 0
    while index < len(words):
        word = words[index]
        item, used = _item(words, index, config)
        if item is None:
            index += 1
            continue
        text = line[place : word.start()]
        if text.strip():
            parts.append(text.strip())
        parts.append(item)
        place = words[index + used - 1].end()
        index += used
    rest = line[place:].strip()
    return [*parts, rest] if rest else parts


def _item(words: list[re.Match[str]], index: int, config: Any) -> tuple[dict[str, str] | None, int]:
    """The item that starts at a word, and how many words it takes; None for plain text."""
    word = words[index].group()
    path = _unquoted(word)
    if _LIKE_A_PATH.fullmatch(path) and not Path(path).is_file():
        raise ConfigError(f"there is no file {path!r}.")
    if _is_file(path):
        modality = _modality_of(path, config)
        return ({"type": modality, "path": path}, 1) if modality is not None else (None, 1)
    name = word[1:].replace("-", "_")
    # Within a line `/word` may be plain text; at its start it is meant as a command.
    if not re.fullmatch(r"/[a-z][a-z0-9_-]*", word) or (index > 0 and name not in config.modalities):
        return None, 1
    modality = input_named(name, config, word)
    if index + 1 >= len(words):
        raise ConfigError(f"{word} needs the path of a file after it.")
    path = _unquoted(words[index + 1].group())
    if not _is_file(path):
        raise ConfigError(f"{word}: there is no file {path!r}.")
    return {"type": modality, "path": path}, 2


def _unquoted(word: str) -> str:
    is_quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
    path = word[1:-1] if is_quoted else re.sub(r"\\(.)", r"\1", word)
    return (
        str(Path(path.removeprefix("file://")).expanduser()) if path.startswith("~/") else path.removeprefix("file://")
    )


def _is_file(path: str) -> bool:
    # A word of plain text such as `cat` may be the name of a file by chance: a path has an ending or a folder.
    return bool(path) and ("/" in path or "." in path.rstrip(".")) and Path(path).is_file()


def _modality_of(path: str, config: Any) -> str | None:
    """The input that alone reads what the file holds, by its content; None where there is none.

    Raises:
        ConfigError: several inputs read it.
    """
    with Path(path).open("rb") as file:
        kinds = _KINDS.get(sniff(file.read(4096)) or "", ())
    inputs = [name for name, row in config.modalities.items() if row.in_ is not None and row.payload in kinds]
    if len(inputs) > 1:
        choices = " or ".join(f"/{name} {path}" for name in inputs)
        raise ConfigError(f"{path} can be given to several inputs. Write {choices}.")
    return inputs[0] if inputs else None
