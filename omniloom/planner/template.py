"""How turns become text around their contents: the chat template, taken apart once into prefixes and suffixes.

A stock template renders a whole conversation as one string. Here it is asked with marked contents, and what it puts
around them is kept as token ids per role, so that a conversation can be planned turn by turn and appended to.
Contents are tokenised apart from the scaffold, as plain text: a special token typed by a user stays text.

A template that lets its model think aloud and drops the thoughts of earlier turns (Qwen3's, arXiv:2505.09388) puts
other text around the last answer than around the others. It is planned as with `enable_thinking=False`: every answer,
an earlier one too, opens with the empty thought, so that turns can still be appended one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omniloom.errors import ConfigError

__all__ = ["Template"]

_MARKS = {"system": "⟦s⟧", "user": "⟦u⟧", "assistant": "⟦a⟧", "again": "⟦v⟧"}
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
    end an answer. `ending`: ids that end what an encoder reads."""

    bos: tuple[int, ...]
    head: tuple[int, ...]
    prefix: Mapping[str, tuple[int, ...]]
    suffix: Mapping[str, tuple[int, ...]]
    said_suffix: tuple[int, ...]
    learned_suffix: int
    stop: frozenset[int]
    ending: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        *,
        kind: str = "chat",
        system: str | None = None,
        stop: frozenset[int] = frozenset(),
        is_answer_bare: bool = False,
    ) -> Template:
        """From a tokenizer: `kind` "chat" takes its chat template apart, "plain" writes "User: ... Assistant: ...".
        `is_answer_bare`: an answer that is said ends with the tokenizer's own end token alone, as a decoder with an
        encoder has it; around what is read stands what the tokenizer itself puts around a text.

        Raises:
            ConfigError: the tokenizer has no chat template, or one that does not put the same text around every turn;
                but see above for templates that think.
        """
        if kind == "plain":
            bos, around, default = _bos_of(tokenizer), _PLAIN, ""
        else:
            bos, around, default = _take_apart(tokenizer)
        prefix = {role: _ids(tokenizer, text[0]) for role, text in around.items()}
        suffix = {role: _ids(tokenizer, text[1]) for role, text in around.items()}
        bos_ids, said, end = _ids(tokenizer, bos), suffix["assistant"], ()
        if is_answer_bare:
            begin, end = _around_text(tokenizer)
            bos_ids, said = bos_ids or begin, (tokenizer.eos_token_id,)
        if system is None:
            head = bos_ids + _ids(tokenizer, default)
        elif system == "":
            head = bos_ids
        elif "system" in prefix:
            head = bos_ids + prefix["system"] + _ids(tokenizer, system, plain=True) + suffix["system"]
        else:
            raise ConfigError("the chat template takes no system turn; leave `system` out of the backbone.")
        specials = set(tokenizer.all_special_ids)
        place = next((index for index, token in enumerate(said) if token in specials or token in stop), None)
        learned = len(said) if place is None else place + 1
        stops = stop | ({said[learned - 1]} if said else set())
        return cls(bos_ids, head, prefix, suffix, said, learned, frozenset(stops), end)


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


def _take_apart(tokenizer: Any) -> tuple[str, dict[str, tuple[str, str]], str]:
    """(bos, role -> (prefix, suffix), default opening) of a chat template, proven on a longer conversation."""
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("this tokenizer has no chat template. Set `template: plain` in the backbone.")

    def render(*turns: tuple[str, str], ask: bool = False, **switches: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **switches))

    def render_without_thought(*turns: tuple[str, str], ask: bool = False) -> str:
        return render(*turns, ask=ask, enable_thinking=False)

    bos = tokenizer.bos_token or ""
    found = _around_turns(render, bos)
    question = ("user", _MARKS["user"])
    if found is None and render(question, ask=True) != render_without_thought(question, ask=True):
        found = _around_turns(render_without_thought, bos, has_thought=True)
    if found is None:
        raise ConfigError(
            "the chat template does not put the same text around every turn, so it cannot be planned turn by turn. "
            "Set `template: plain` in the backbone, or give the tokenizer a plainer template."
        )
    return found


def _around_turns(
    render: Callable[..., str], bos: str, *, has_thought: bool = False
) -> tuple[str, dict[str, tuple[str, str]], str] | None:
    """What a template puts around turns; None if it is not the same around every turn.

    `has_thought`: the prefix of an answer may be longer than that of earlier answers, by an empty thought at its end.
    """
    user, assistant, again = _MARKS["user"], _MARKS["assistant"], _MARKS["again"]
    one = render(("user", user))
    asked = render(("user", user), ask=True)
    three = render(("user", user), ("assistant", assistant), ("user", again))
    user_suffix = one.partition(user)[2]
    assistant_prefix = asked.partition(user)[2][len(user_suffix) :]
    between = three.partition(user)[2].partition(assistant)[0]
    middle = three.partition(assistant)[2].partition(again)[0]
    answered = render(("user", user), ("assistant", assistant))
    assistant_suffix = answered.partition(assistant)[2]
    user_prefix = middle[len(assistant_suffix) :]
    opening = one.partition(user)[0]
    if not opening.startswith(bos) or user_prefix.startswith(bos):
        bos = ""  # none, or a token that opens every turn, as ChatML's does
    default = opening[len(bos) : len(opening) - len(user_prefix)]
    before = user_suffix + assistant_prefix
    around = {"user": (user_prefix, user_suffix), "assistant": (assistant_prefix, assistant_suffix)}
    sound = (
        asked.startswith(one)
        and answered.startswith(asked + assistant)
        and middle.startswith(assistant_suffix)
        and opening.endswith(user_prefix)
        and (between == before or (has_thought and before.startswith(between) and len(between) > len(user_suffix)))
    )
    if not sound:
        return None
    system = _MARKS["system"]
    try:
        with_system = render(("system", system), ("user", user))
    except Exception:  # a template may refuse the role by any error of its own; then it has no system turn
        return bos, around, default
    opened, found, after = with_system.partition(system)
    if found and opened.startswith(bos) and after.endswith(user_prefix + user + user_suffix):
        suffix = after[: len(after) - len(user_prefix + user + user_suffix)]
        around["system"] = (opened[len(bos) :], suffix)
    return bos, around, default
