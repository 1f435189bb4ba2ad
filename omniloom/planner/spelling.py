"""Text as token ids, span by span, so that together they are what the tokenizer makes of the whole text.

A byte-level tokenizer needs no care: its spans are tokenised each by itself. Tokenizers of SentencePiece's kind (LLaMA,
Vicuna, Mistral) put a space before a text, and their words begin with the space in front of them: " cat" is one token.
Cut into spans, "USER: " and "a cat" would get a space too much and a word too little. Here a span that goes on gets no
space of the tokenizer's own, and spaces at the end of one wait for the word behind them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import normalizers, pre_tokenizers

__all__ = ["Edge", "Spelling"]

_MOST_KEPT = 100_000


@dataclass
class Edge:
    """What stands before the next span of text: nothing (`is_start`), a special token or media (`is_cut`), or text.
    `spaces`: at the end of that text, which wait."""

    is_start: bool = True
    is_cut: bool = True
    spaces: str = ""

    def cut(self) -> None:
        """Something that is no text stands here now."""
        self.is_start, self.is_cut = False, True


class Spelling:
    """The spelling of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[str, str], tuple[int, ...]] = {}
        # A tokenizer splits its special tokens on demand, but not the other tokens that were added to it, such as
        # `</think>`. Cut behind its first character, one of these is the text it looks like.
        added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, added)) if added else r"(?!)")
        self._bare, self._scheme, self._is_forced = _without_space(tokenizer)

    @property
    def has_care(self) -> bool:
        """Whether the tokenizer adds spaces, so that the ids of a span depend on what is before it."""
        return self._scheme != "never"

    def words(self, text: str) -> tuple[int, ...]:
        """The ids of a text by itself; special tokens written in it are text."""
        return self._kept(
            "words", text, lambda: tuple(token for piece in self._cut(text) for token in _ids(self.tokenizer, piece))
        )

    def scaffold(self, text: str) -> tuple[int, ...]:
        """The ids of a text by itself; special tokens written in it are special."""
        if not text:
            return ()
        return self._kept("scaffold", text, lambda: _ids(self.tokenizer, text, has_specials=True))

    def spoken(self, text: str, edge: Edge, *, keeps_spaces: bool = False) -> tuple[int, ...]:
        """The ids of words behind `edge`, which moves on; special tokens written in them are text. `keeps_spaces`:
        those at the end do not wait."""
        if not self.has_care:
            return self.words(text)
        first, *rest = self._cut(edge.spaces + text) or [""]
        edge.spaces = ""
        ids = self._spelled(first, edge, waits=not rest and not keeps_spaces)
        for number, piece in enumerate(rest, 1):
            ids += self._spelled(piece, edge, waits=number == len(rest) and not keeps_spaces)
        return ids

    def written(self, text: str, edge: Edge) -> tuple[int, ...]:
        """The ids of a scaffold behind `edge`, which moves on; special tokens written in it are special."""
        if not self.has_care:
            return self.scaffold(text)
        ids: tuple[int, ...] = ()
        for piece, is_special in self._parts(text):
            if is_special:
                ids += self.settled(edge) + self.scaffold(piece)
                edge.cut()
            else:
                piece, edge.spaces = edge.spaces + piece, ""
                ids += self._spelled(piece, edge, waits=True)
        return ids

    def settled(self, edge: Edge) -> tuple[int, ...]:
        """The ids of the spaces that wait, where no text follows them."""
        spaces, edge.spaces = edge.spaces, ""
        return self._spelled(spaces, edge, waits=False)

    def _spelled(self, text: str, edge: Edge, *, waits: bool) -> tuple[int, ...]:
        """A piece of text without special tokens."""
        if waits:
            words = text.rstrip(" ")
            edge.spaces, text = text[len(words) :], words
        if not text:
            return ()
        has_space = edge.is_start or (edge.is_cut and self._scheme == "always")
        if has_space and (self._is_forced or not text.startswith(" ")):
            text = " " + text
        edge.is_start = edge.is_cut = False
        return self._kept("bare", text, lambda: _ids(self._bare, text))

    def _kept(self, way: str, text: str, make: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        if (way, text) not in self._known:
            if len(self._known) > _MOST_KEPT:
                self._known.clear()
            self._known[way, text] = make()
        return self._known[way, text]

    def _cut(self, text: str) -> list[str]:
        cuts = [0, *(match.start() + 1 for match in self._control.finditer(text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts)]

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """(piece, whether it is a special token) of a scaffold."""
        start = 0
        for match in self._control.finditer(text):
            if match.start() > start:
                yield text[start : match.start()], False
            yield match.group(), True
            start = match.end()
        if start < len(text):
            yield text[start:], False


def _ids(tokenizer: Any, text: str, *, has_specials: bool = False) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=not has_specials)["input_ids"])


def _without_space(tokenizer: Any) -> tuple[Any, str, bool]:
    """(the tokenizer without the space it adds, where it adds it: "first", "always" or "never", whether it adds one
    where one is)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pieces = getattr(backend, "pre_tokenizer", None)
    if isinstance(pieces, pre_tokenizers.Metaspace) and pieces.prepend_scheme != "never":
        bare = copy.deepcopy(tokenizer)
        bare.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=pieces.replacement, prepend_scheme="never", split=pieces.split
        )
        return bare, str(pieces.prepend_scheme), False
    steps = _steps(getattr(backend, "normalizer", None))
    if any(step["type"] == "Prepend" for step in steps):
        bare = copy.deepcopy(tokenizer)
        left = {"type": "Sequence", "normalizers": [step for step in steps if step["type"] != "Prepend"]}
        empty = normalizers.Sequence([])
        empty.__setstate__(json.dumps(left).encode())
        bare.backend_tokenizer.normalizer = empty
        return bare, "always", True
    return tokenizer, "never", False


def _steps(normalizer: Any) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    state = json.loads(normalizer.__getstate__())
    steps: list[dict[str, Any]] = state["normalizers"] if state["type"] == "Sequence" else [state]
    return steps
