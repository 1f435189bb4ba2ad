"""How turns become text around their contents: the chat template, taken apart once into prefixes and suffixes.

A stock template renders a whole conversation as one string. What it puts around contents is kept as token ids per role,
so that a conversation can be planned turn by turn and appended to. Contents are tokenised apart from the scaffold, as
plain text: a special token typed by a user stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omniloom.errors import ConfigError
from omniloom.planner.spelling import Edge, Spelling
from omniloom.planner.take_apart import Scaffold, take_apart

__all__ = ["Template"]

_PLAIN = {
    "system": ("", "\n"),
    "user": ("User: ", "\n"),
    "assistant": ("Assistant: ", "\n"),
}


@dataclass(frozen=True)
class Template:
    """`head`: ids before the first turn, if that is not a system turn; `bos`: those before any first turn.
    `prefix`, `suffix`: ids around the content of each role. `said_suffix`: ids behind an answer that is said, not
    read. `learned_suffix`: how many of them are learned: up to and with the one that ends an answer. `stop`: ids that
    end an answer. `ending`: ids that end what an encoder reads. `lead`: role -> text before the first words of a turn,
    behind media that stand before them.

    For tokenizers whose spans depend on what is before them: `scaffold`, the same as text; `end`, ids that stand
    before the assistant's suffix of it; `system`, the run's own system prompt. `is_bare`: the first words of a user's
    turn are a text of their own, with `begin` before it.
    """

    bos: tuple[int, ...]
    head: tuple[int, ...]
    prefix: Mapping[str, tuple[int, ...]]
    suffix: Mapping[str, tuple[int, ...]]
    said_suffix: tuple[int, ...]
    learned_suffix: int
    stop: frozenset[int]
    ending: tuple[int, ...] = ()
    lead: Mapping[str, str] = field(default_factory=dict)
    end: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()
    is_bare: bool = False
    scaffold: Scaffold = field(default_factory=lambda: Scaffold("", {}))
    system: str | None = None

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        *,
        kind: str = "chat",
        system: str | None = None,
        stop: frozenset[int] = frozenset(),
        is_answer_bare: bool = False,
        kinds: Sequence[str] = (),
        begins: bool = False,
    ) -> Template:
        """From a tokenizer.

        `kind`: "chat" takes its chat template apart; "plain" writes "User: ... Assistant: ..."; "bare" writes nothing
        but what the tokenizer itself puts before a text, in front of the first words of a user's turn: models that were
        never trained on conversations (BLIP-2) read media and then a text.
        `is_answer_bare`: an answer that is said ends with the tokenizer's own end token alone, as a decoder with an
        encoder has it; around what is read stands what the tokenizer itself puts around a text.
        `kinds`: of the media that turns may hold, by the names a chat template knows them by. `begins`: what the
        tokenizer itself puts before a text stands before a conversation too, unless its template says so itself:
        processors of multimodal models do that, tokenizers alone do not.

        An answer behind which nothing is put that ends it (LLaVA's, and any bare one) ends with the tokenizer's own end
        token, or with one of `stop` if that is none of them.

        Raises:
            ConfigError: the tokenizer has no chat template, or one that does not put the same text around every turn;
                but see `take_apart` for templates that think.
        """
        own_begin, own_end = _around_text(tokenizer) if is_answer_bare or begins or kind == "bare" else ((), ())
        if kind == "plain":
            scaffold = Scaffold(_bos_of(tokenizer), dict(_PLAIN))
        elif kind == "bare":
            scaffold = Scaffold("", {"user": ("", ""), "assistant": ("", "")})
        else:
            scaffold = take_apart(tokenizer, kinds)
        bos, around, default = scaffold.bos, scaffold.around, scaffold.opening
        prefix = {role: _ids(tokenizer, text[0]) for role, text in around.items()}
        suffix = {role: _ids(tokenizer, text[1]) for role, text in around.items()}
        specials, end_id = set(tokenizer.all_special_ids), tokenizer.eos_token_id
        if stop and end_id not in stop:
            end_id = min(stop)
        end: tuple[int, ...] = ()
        if kind != "plain" and end_id is not None and not (specials | stop) & set(suffix["assistant"]):
            end = (end_id,)
            suffix["assistant"] = end + suffix["assistant"]
        bos_ids, said = _ids(tokenizer, bos), suffix["assistant"]
        if is_answer_bare:
            bos_ids, said = bos_ids or own_begin, (tokenizer.eos_token_id,)
        elif begins and kind == "chat" and own_begin:
            first = _ids(tokenizer, bos + default + around["user"][0])[:1]
            bos_ids = bos_ids if first == own_begin[-1:] else own_begin
        if system is None:
            head = bos_ids + _ids(tokenizer, default)
        elif system == "":
            head = bos_ids
        elif "system" in prefix:
            head = bos_ids + prefix["system"] + _ids(tokenizer, system, plain=True) + suffix["system"]
        else:
            raise ConfigError("the chat template takes no system turn; leave `system` out of the backbone.")
        place = next((index for index, token in enumerate(said) if token in specials or token in stop), None)
        learned = len(said) if place is None else place + 1
        stops = stop | ({said[learned - 1]} if said else set())
        return cls(
            bos_ids,
            head,
            prefix,
            suffix,
            said,
            learned,
            frozenset(stops),
            own_end if is_answer_bare else (),
            scaffold.lead,
            end,
            own_begin if kind == "bare" and not is_answer_bare else (),
            kind == "bare",
            scaffold,
            system,
        )

    def opening(self, spelling: Spelling, edge: Edge) -> tuple[int, ...]:
        """What stands between `bos` and the first turn, unless that is a system turn."""
        if self.system is None:
            return spelling.written(self.scaffold.opening, edge)
        if self.system == "":
            return ()
        prefix, suffix = self.scaffold.around["system"]
        ids = spelling.written(prefix, edge) + spelling.spoken(self.system, edge)
        return ids + spelling.written(suffix, edge)

    def edge_before(self, role: str, spelling: Spelling) -> Edge:
        """Where a turn stands that goes on with a conversation: behind the last one's suffix."""
        last = "user" if role == "assistant" else "assistant"
        edge = Edge(is_start=False, is_cut=last == "assistant" and bool(self.end))
        spelling.written(self.scaffold.around[last][1], edge)
        return edge


def _bos_of(tokenizer: Any) -> str:
    return tokenizer.bos_token or "" if getattr(tokenizer, "add_bos_token", False) else ""


def _around_text(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and behind a text: nothing and </s> (T5), <s> and </s> (BART)."""
    text, whole = _ids(tokenizer, "a"), tuple(tokenizer("a")["input_ids"])
    start = next(place for place in range(len(whole)) if whole[place : place + len(text)] == text)
    return whole[:start], whole[start + len(text) :]


def _ids(tokenizer: Any, text: str, *, plain: bool = False) -> tuple[int, ...]:
    if not text:
        return ()
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"])
