"""A chat template taken apart: what it puts around turns, before words, and around media, found by asking it.

A template renders a whole conversation as one string. It is asked with marked contents; what stands around the marks
is proven to be the same around every turn, so that a conversation can be planned turn by turn and appended to.

Templates of multimodal models take contents as lists of parts. Some put text between a turn's media and its words
(LLaVA-OneVision breaks the line there), or before an answer in a conversation but not where they ask for one (LLaVA's
"ASSISTANT:" and then a space): the words' lead. Where an answer that is asked for and one that was given differ in
other white space, the form that asks is taken for both. Templates that write the number of an item before it
(Qwen2-Audio's "Audio 2: ") have it as `{n}` in their markers.

A template that lets its model think aloud and drops the thoughts of earlier turns (Qwen3's, arXiv:2505.09388) puts
other text around the last answer than around the others. It is planned as with `enable_thinking=False`: every answer,
an earlier one too, opens with the empty thought, so that turns can still be appended one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from omniloom.errors import ConfigError

__all__ = ["Scaffold", "around_media", "take_apart"]

_MARKS = {"system": "⟦s⟧", "user": "⟦u⟧", "assistant": "⟦a⟧", "again": "⟦v⟧"}

_Render = Callable[..., str]


@dataclass
class Scaffold:
    """The text of a template. `bos`: before any first turn. `opening`: before the first turn unless that is a system
    turn. `around`: role -> (prefix, suffix) of a turn. `lead`: role -> text before the first words of a turn."""

    bos: str
    around: dict[str, tuple[str, str]]
    opening: str = ""
    lead: dict[str, str] = field(default_factory=dict)


def take_apart(tokenizer: Any, kinds: Sequence[str] = ()) -> Scaffold:
    """The scaffold of a tokenizer's chat template, proven on a longer conversation.

    `kinds`: of media that turns may hold, by the names the template knows them by; others are no matter.

    Raises:
        ConfigError: there is no template, or it does not put the same text around every turn.
    """
    render, bos = _renderer(tokenizer), tokenizer.bos_token or ""

    def render_without_thought(*turns: tuple[str, Any], ask: bool = False) -> str:
        return render(*turns, ask=ask, enable_thinking=False)

    found = _around_turns(render, bos)
    question = ("user", _MARKS["user"])
    if found is None and render(question, ask=True) != render_without_thought(question, ask=True):
        found = _around_turns(render_without_thought, bos, has_thought=True)
    if found is None:
        raise ConfigError(
            "the chat template does not put the same text around every turn, so it cannot be planned turn by turn. "
            "Set `template: plain` in the backbone, or give the tokenizer a plainer template."
        )
    leads = {_lead_behind(render, kind) for kind in kinds} - {""}
    if len(leads) == 1:
        found.lead["user"] = leads.pop()
        prefix, suffix = found.around["user"]
        found.around["user"] = (prefix.removesuffix(found.lead["user"]), suffix)
    return found


def around_media(tokenizer: Any, kind: str, placeholder: str) -> tuple[str, str]:
    """What a chat template puts before and behind an item of a kind, whose place is held by the text `placeholder`.

    Raises:
        ConfigError: there is no template, or it does not show such items.
    """
    render = _renderer(tokenizer)
    problem = ""
    for form in _forms(kind):
        try:
            shown = [_shown(render, [form] * count) for count in (1, 2)]
        except Exception as error:  # a template may stumble over parts by any error of its own
            problem = problem or f"ends with {type(error).__name__}: {error}"
            continue
        before, found, behind = shown[0].partition(placeholder)
        if found:
            break
        problem = problem or f"writes {shown[0]!r}, without {placeholder!r}"
    else:
        raise ConfigError(
            f"the chat template does not show an item of {kind!r}: it {problem}. Put the template of the model's "
            "processor beside its tokenizer, as chat_template.json or chat_template.jinja."
        )
    second = shown[1].removeprefix(shown[0])
    if "1" in before and second == shown[0].replace("1", "2", 1):
        before = before.replace("1", "{n}", 1)
    return before, behind


def _forms(kind: str) -> list[dict[str, str]]:
    """An item as templates know it: by its type, or by a key that names where it lies (Qwen2-Audio's older ones)."""
    return [{"type": kind}, {"type": kind, kind: "x", f"{kind}_url": "x"}]


def _renderer(tokenizer: Any) -> _Render:
    """Turns as (role, text or parts) -> the template's text. A template that does not show contents that are text
    takes lists of parts.

    Raises:
        ConfigError: there is no template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "this tokenizer has no chat template. Put the model's beside it, as chat_template.jinja, or set "
            "`template: plain` in the backbone."
        )

    def render(*turns: tuple[str, Any], ask: bool = False, as_parts: bool = False, **switches: bool) -> str:
        messages = []
        for role, content in turns:
            if as_parts and isinstance(content, str):
                content = [{"type": "text", "text": content}]
            messages.append({"role": role, "content": content})
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **switches))

    def render_parts(*turns: tuple[str, Any], **switches: bool) -> str:
        return render(*turns, as_parts=True, **switches)

    mark = _MARKS["user"]
    try:
        is_shown = mark in render(("user", mark))
    except Exception:  # a template may stumble over text where it expects parts by any error of its own
        is_shown = False
    return render if is_shown else render_parts


def _around_turns(render: _Render, bos: str, *, has_thought: bool = False) -> Scaffold | None:
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
    answered, _, assistant_suffix = render(("user", user), ("assistant", assistant)).partition(assistant)
    user_prefix = middle[len(assistant_suffix) :]
    opening = one.partition(user)[0]
    if not opening.startswith(bos) or user_prefix.startswith(bos):
        bos = ""  # none, or a token that opens every turn, as ChatML's does
    before = user_suffix + assistant_prefix
    lead = between.removeprefix(before) if between.startswith(before) else ""
    is_thought = has_thought and before.startswith(between) and len(between) > len(user_suffix)
    sound = (
        asked.startswith(one)
        and answered in (asked, opening + user + between)
        and middle.startswith(assistant_suffix)
        and opening.endswith(user_prefix)
        and (between.split() == before.split() or is_thought)
    )
    if not sound:
        return None
    found = Scaffold(
        bos,
        {"user": (user_prefix, user_suffix), "assistant": (assistant_prefix, assistant_suffix)},
        opening[len(bos) : len(opening) - len(user_prefix)],
        {"assistant": lead} if lead else {},
    )
    system = _MARKS["system"]
    try:
        with_system = render(("system", system), ("user", user))
    except Exception:  # a template may refuse the role by any error of its own; then it has no system turn
        return found
    opened, shown, after = with_system.partition(system)
    if shown and opened.startswith(bos) and after.endswith(user_prefix + user + user_suffix):
        suffix = after[: len(after) - len(user_prefix + user + user_suffix)]
        found.around["system"] = (opened[len(bos) :], suffix)
    return found


def _lead_behind(render: _Render, kind: str) -> str:
    """The text between an item of a kind and the words behind it that stands before the words without the item too."""
    mark = _MARKS["user"]
    words = {"type": "text", "text": mark}

    def before(*parts: dict[str, str]) -> str | None:
        try:
            return render(("user", [*parts, words])).partition(mark)[0]
        except Exception:  # a template may know no parts, or not this kind, or want more of an item
            return None

    bare = before()
    full = next((text for form in _forms(kind) if (text := before(form)) not in (None, bare)), None)
    if bare is None or full is None:
        return ""
    rest = bare[_common(bare, full) :]
    return rest if full.endswith(rest) else ""


def _shown(render: _Render, items: list[dict[str, str]]) -> str:
    """What a template writes for items in front of the words of a turn."""
    mark = _MARKS["user"]
    words = {"type": "text", "text": mark}
    bare = render(("user", [words])).partition(mark)[0]
    full = render(("user", [*items, words])).partition(mark)[0]
    start = _common(bare, full)
    return full[start : len(full) - (len(bare) - start)]


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
