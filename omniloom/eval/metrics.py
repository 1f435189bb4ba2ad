"""From a generated answer to right, wrong or unparsable. Strict: what cannot be read is wrong, and is counted.

A lenient parser invents skill: one that looks for "no" anywhere gives credit to "not sure" and "I know". Every
parser here reads a short list of forms, written down in the tests, and gives None for all others.

    normalize("The red Fox!")                      -> "red fox"
    yes_no("No.")                                  -> False
    choice("The answer is B) cat", ["dog", "cat"]) -> 1
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from omniloom.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "SCORERS",
    "Expected",
    "Score",
    "Scorer",
    "choice",
    "exact",
    "normalize",
    "score_choice",
    "score_exact",
    "score_yes_no",
    "scorer",
    "yes_no",
]

ARTICLES = frozenset({"a", "an", "the"})
# Words after which a verdict is no verdict: "no idea", "yes, I guess", "no, not sure".
HEDGES = frozenset(
    "clue guess idea if know maybe may might one perhaps possibly probably sure unclear unsure wait".split()
)
_VERDICT = re.compile(r"(?:(?:my |final |correct )*answer (?:is |would be )?)?(yes|no)(?: |$)")
_LEAD = (
    r"(?:(?:the |my )?(?:final |correct |right |best )*(?:answer|option|choice)(?:\s+is|\s+would\s+be)?\s*:?\s*"
    r"(?:option\s+)?|(?:i\s+(?:choose|pick)\s+)(?:option\s+)?|(?:我)?选(?:择|项)?\s*:?\s*|答案(?:是|为)?\s*:?\s*)?"
)
_LETTER = re.compile(
    _LEAD + r"[(\[]?\s*(?P<letter>[A-Z])(?![A-Za-z0-9])\s*(?P<mark>[)\].:,]*)\s*(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_LEAD_ONLY = re.compile(_LEAD + r"(?P<rest>.*)", re.IGNORECASE | re.DOTALL)


def normalize(answer: str) -> str:
    """The one rule by which answers are compared.

    Unicode NFKC and case folding; apostrophes and invisible characters vanish; letters, marks, digits, emoji and
    currency stay, with the point inside a number and the minus before one; every other character is a space;
    the words a, an and the go, unless nothing else is left; single spaces.
    """
    text = unicodedata.normalize("NFKC", answer).casefold().replace("−", "-")
    kept: list[str] = []
    for position, character in enumerate(text):
        before = text[position - 1] if position else " "
        after = text[position + 1] if position + 1 < len(text) else " "
        category = unicodedata.category(character)
        in_number = character == "." and before.isdigit() and after.isdigit()
        sign = character == "-" and after.isdigit() and not before.isalnum()
        if category[0] in "LMN" or category in ("So", "Sc") or in_number or sign:
            kept.append(character)
        elif character not in "'’‘`´" and category != "Cf":
            kept.append(" ")
    words = "".join(kept).split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def exact(answer: str, expected: str, accepted: Sequence[str] = ()) -> bool:
    """Whether the answer equals the expected one, or one of the `accepted` others, after `normalize`."""
    given = normalize(answer)
    return bool(given) and any(given == normalize(right) for right in (expected, *accepted))


def yes_no(answer: str) -> bool | None:
    """True, False, or None for anything that does not open with one clear verdict.

    Read are "yes ..." and "[the] [final] answer is yes ...", without the opposite word and without a hedge.
    """
    text = normalize(answer)
    match = _VERDICT.match(text)
    words = set(text.split())
    if match is None or {"yes", "no"} <= words or words & HEDGES:
        return None
    return match[1] == "yes"


def choice(answer: str, options: Sequence[str]) -> int | None:
    """The position of the chosen option, or None where no single option is named.

    Read are the letter alone ("B", "(b).", "**B**"), the letter after a lead-in ("Answer: B", "Option B", "选B"), the
    letter with its mark and any text that names no other option ("B) cat"), and the option's own text. A letter
    followed by plain words is no choice: "A dog barks" opens with an article.

    Raises:
        DataError: fewer than two options, more than 26, or two that read the same.
    """
    keys = [normalize(option) for option in options]
    if not 2 <= len(keys) <= 26 or len(set(keys)) != len(keys):
        raise DataError(f"the options {list(options)!r} are not 2 to 26 different texts. Correct them in the sample.")
    text = re.sub(r"[*_`#]+", "", unicodedata.normalize("NFKC", answer)).strip()
    lead = _LEAD_ONLY.fullmatch(text)
    readings = {_text_choice(text, keys), _text_choice(lead["rest"] if lead else "", keys), _letter_choice(text, keys)}
    readings.discard(None)
    return readings.pop() if len(readings) == 1 else None


def _text_choice(text: str, keys: list[str]) -> int | None:
    # "A. cat" names option A and the text of another one; normalize would read the letter as an article.
    key = "" if re.match(r"[(\[]?[A-Z]\s*[)\].:]", text) else normalize(text)
    return keys.index(key) if key and key in keys else None


def _letter_choice(text: str, keys: list[str]) -> int | None:
    match = _LETTER.fullmatch(text)
    if match is None:
        return None
    position = ord(match["letter"].upper()) - ord("A")
    rest = match["rest"].strip()
    if position >= len(keys):
        return None
    if not rest or normalize(rest) == keys[position]:
        return position
    if not re.search(r"[)\].:]", match["mark"]):
        return None
    letters = {chr(ord("A") + other) for other in range(len(keys)) if other != position}
    others = [key for key in keys if key != keys[position]]
    names_other = any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", normalize(rest)) for key in others)
    return None if names_other or letters & set(re.findall(r"(?<!\w)[A-Z](?!\w)", rest)) else position


@dataclass(frozen=True)
class Expected:
    """What a sample wants: the expected answer's text, other texts that count as right, and a choice's options."""

    text: str
    accepted: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Score(NamedTuple):
    """`parsed` is the answer as it was read, for the table of confusions; None means unparsable, which is wrong."""

    correct: bool
    parsed: str | None


Scorer = Callable[[str, Expected], Score]


def score_exact(answer: str, expected: Expected) -> Score:
    """Right if the whole answer equals an accepted one after `normalize`; accepted variants read as the expected."""
    correct = exact(answer, expected.text, expected.accepted)
    return Score(correct, normalize(expected.text) if correct else normalize(answer) or None)


def score_yes_no(answer: str, expected: Expected) -> Score:
    """Right if both say yes or both say no; DataError if the expected answer says neither."""
    wanted, given = yes_no(expected.text), yes_no(answer)
    if wanted is None:
        raise DataError(
            f"the expected answer {expected.text!r} is neither yes nor no. "
            "Use the metric `exact` or correct the sample."
        )
    return Score(given is wanted, None if given is None else "yes" if given else "no")


def score_choice(answer: str, expected: Expected) -> Score:
    """Right if both name the same option, by letter or text; DataError if the expected answer names none."""
    wanted = choice(expected.text, expected.options)
    if wanted is None:
        raise DataError(
            f"the expected answer {expected.text!r} is none of the options {list(expected.options)!r}. "
            "Give meta.options and an answer that is one of them."
        )
    given = choice(answer, expected.options)
    return Score(given == wanted, None if given is None else normalize(expected.options[given]))


SCORERS: dict[str, Scorer] = {"exact": score_exact, "yes_no": score_yes_no, "choice": score_choice}


def scorer(name: str) -> Scorer:
    """The scorer of that name; ConfigError with the nearest name if there is none."""
    if name not in SCORERS:
        raise ConfigError(f"unknown metric {name!r}.{did_you_mean(name, SCORERS)}")
    return SCORERS[name]
