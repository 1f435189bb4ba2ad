"""Samples: turns of text and items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omniloom.errors import DataError
from omniloom.sequence import Item, Sample, Text, Turn

ASKED = Turn("user", (Text("a "), Item("image", 1), Text("b"), Item("sound", 2), Item("image", 3)))
SAID = Turn("assistant", (Text("c"),))


def test_items_come_in_reading_order_with_their_turn():
    sample = Sample("s", (ASKED, SAID, Turn("user", (Item("sound", 4),))))
    assert [(turn.role, item.payload) for turn, item in sample.items()] == [("user", n) for n in (1, 2, 3, 4)]
    assert sample.modalities == ("image", "sound") and ASKED.text == "a b"


def test_the_prompt_is_everything_but_a_last_answer():
    whole = Sample("s", (ASKED, SAID, ASKED, SAID))
    assert whole.prompt().turns == (ASKED, SAID, ASKED) and whole.answer() == SAID
    assert whole.prompt().prompt() == whole.prompt() and whole.prompt().answer() is None
    assert Sample("s", ()).prompt() == Sample("s", ()) and Sample("s", ()).answer() is None


def test_changing_items_changes_nothing_else():
    changed = Sample("s", (ASKED, SAID), group="g").map_items(
        lambda turn, item: replace(item, payload=item.payload * 10)
    )
    assert [item.payload for _, item in changed.items()] == [10, 20, 30]
    assert changed.turns[0].text == "a b" and changed.turns[1] == SAID and changed.group == "g"


def test_a_turn_of_no_known_role_is_refused():
    with pytest.raises(DataError, match="'narrator'; expected one of system, user, assistant"):
        Turn("narrator", ())
