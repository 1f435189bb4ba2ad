"""A small text-only set: simple questions from templates, every answer certain by construction.

It serves as replay while modalities are trained, and as a measure of what the language model forgets meanwhile:
sums, opposites, order, kinds of things. Facts of the test are not in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from omniloom.starter.images import DIGITS
from omniloom.starter.records import Item, Prompts, chooser, write_sets

__all__ = ["instruct_text"]

_NUMBERS = (
    *DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
_OPPOSITES = (
    "hot cold", "big small", "fast slow", "high low", "old new", "rich poor", "light dark", "hard soft", "wet dry",
    "full empty", "open closed", "early late", "near far", "long short", "thick thin", "wide narrow", "deep shallow",
    "strong weak", "clean dirty", "loud quiet", "happy sad", "good bad", "right wrong", "true false", "left right",
    "up down", "in out", "over under", "begin end", "win lose", "buy sell", "give take", "push pull", "love hate",
    "laugh cry", "rise fall", "day night", "summer winter", "north south", "east west", "black white", "first last",
    "always never", "inside outside", "male female", "alive dead", "safe dangerous", "easy difficult", "sharp blunt",
    "success failure", "question answer", "arrive leave", "remember forget", "accept refuse", "attack defend",
    "increase decrease", "expensive cheap", "heavy light", "above below", "asleep awake",
)  # fmt: skip
_CYCLES = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
}
_KINDS = {
    "fruit": "apple banana cherry grape lemon mango melon orange peach pear plum strawberry",
    "animal": "cat dog horse cow sheep goat lion tiger elephant mouse rabbit wolf",
    "bird": "eagle sparrow owl parrot penguin swan crow pigeon robin hawk goose duck",
    "color": "red blue green yellow purple brown pink gray black white violet turquoise",
    "vehicle": "car bus truck train bicycle motorcycle ship airplane boat helicopter tram van",
    "tool": "hammer saw screwdriver drill wrench pliers axe shovel rake chisel file knife",
    "vegetable": "carrot potato onion cabbage spinach broccoli lettuce cucumber celery radish turnip leek",
    "instrument": "piano violin guitar trumpet flute drum cello harp clarinet saxophone trombone banjo",
}
_TEST_SHARE = 0.25


def _facts() -> Iterator[tuple[str, str, Prompts]]:
    """(fact, answer, ways to ask); questions about one fact share its name."""
    for a, first in enumerate(_NUMBERS[:11]):
        for b, second in enumerate(_NUMBERS[:11]):
            ways = Prompts(
                (
                    f"What is {first} plus {second}?",
                    f"Add {first} and {second}.",
                    f"How much is {first} plus {second}?",
                ),
                (
                    f"{first} and {second} make how many?",
                    f"Sum up {first} and {second}.",
                    f"Compute {first} plus {second}.",
                ),
            )
            yield f"sum {min(a, b)} {max(a, b)}", _NUMBERS[a + b], ways
            if a != b:
                ways = Prompts(
                    (f"Which is larger, {first} or {second}?", f"Which number is greater: {first} or {second}?"),
                    (
                        f"Pick the bigger one of {first} and {second}.",
                        f"{first} or {second}: which is more?",
                        f"Maximum of {first} and {second}?",
                    ),
                )
                yield f"larger {min(a, b)} {max(a, b)}", _NUMBERS[max(a, b)], ways
    for pair in _OPPOSITES:
        for word, other in (pair.split(), pair.split()[::-1]):
            if sum(word in pair.split() for pair in _OPPOSITES) > 1:
                continue  # "right" and "light" have two opposites
            ways = Prompts(
                (
                    f"What is the opposite of {word}?",
                    f"Name the opposite of {word}.",
                    f"Which word means the opposite of {word}?",
                ),
                (
                    f"Give an antonym of {word}.",
                    f"{word} is the contrary of what?",
                    f"If it is not {word}, it is the reverse: what?",
                ),
            )
            yield f"opposite {pair}", other, ways
    for kind, names in _CYCLES.items():
        cycle = names.split()
        for place, name in enumerate(cycle):
            after = Prompts(
                (f"Which {kind} comes after {name}?", f"What {kind} follows {name}?"),
                (
                    f"Name the {kind} right behind {name}.",
                    f"It is {name}; what is the next {kind}?",
                    f"{name} is over. Which {kind} begins?",
                ),
            )
            yield f"after {name}", cycle[(place + 1) % len(cycle)], after
    for kind, names in _KINDS.items():
        others = [other for other in _KINDS if other != kind]
        for name in names.split():
            two = [kind, chooser("kinds", name).choice(others)]
            chooser("kinds", name, "order").shuffle(two)
            choice = " or ".join(f"an {word}" if word[0] in "aeiou" else f"a {word}" for word in two)
            ways = Prompts(
                (f"Is {name} {choice}?", f"{name}: {choice}?", f"Would you call {name} {choice}?"),
                (
                    f"Decide whether {name} is {choice}.",
                    f"{name} is one of these: {choice}. Which?",
                    f"What is {name}, {choice}?",
                ),
            )
            yield f"kind {name}", kind, ways


def instruct_text(folder: Path, assets: Mapping[str, Path]) -> None:
    """Short questions and one-word answers without any medium, each training fact asked in every way."""
    facts = list(_facts())
    names = sorted({fact for fact, _, _ in facts})
    test_facts = set(chooser("instruct-text").sample(names, round(len(names) * _TEST_SHARE)))
    sides: dict[str, list[Item]] = {"train": [], "test": []}
    for number, (fact, answer, ways) in enumerate(facts):
        if fact in test_facts:
            sides["test"].append(Item(f"text-{number:04d}", fact, answer, question=ways))
            continue
        for turn, asked in enumerate(ways.train):
            one = Prompts((asked,), ways.held_out)
            sides["train"].append(Item(f"text-{number:04d}-{turn}", fact, answer, question=one))
    for side, items in sides.items():
        chooser("instruct-text", side).shuffle(items)
    write_sets(folder, "instruct-text", None, sides["train"], sides["test"])
