from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.eval.probes import derange, only, swap_items, without_media
from omniloom.sequence import Item, Sample, Text, Turn


def sample(key: int, *items: Item) -> Sample:
    return Sample(str(key), (Turn("user", (Text("before "), *items, Text(" after"))),))


def pictures(count: int) -> list[Sample]:
    return [sample(k, Item("image", k)) for k in range(count)]


def test_blind_prompts_keep_all_text_and_no_media() -> None:
    blind = without_media(sample(0, Item("image", 1), Item("audio", 2)))
    assert blind.modalities == ()
    assert blind.turns[0].text == "before  after"


def test_one_modality_alone_keeps_its_items_in_their_places() -> None:
    alone = only(sample(0, Item("image", 1), Item("audio", 2), Item("image", 3)), "image")
    assert [item.payload for _, item in alone.items()] == [1, 3]


def test_exchanged_items_keep_modality_and_position() -> None:
    swapped = swap_items(sample(0, Item("image", 1), Item("audio", 2)), sample(1, Item("image", 3), Item("audio", 4)))
    assert [(item.modality, item.payload) for _, item in swapped.items()] == [("image", 3), ("audio", 4)]
    assert swapped.turns[0].text == "before  after" and swapped.id == "0"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(0, 9))
def test_donors_always_expect_another_answer(labels: list[int], seed: int) -> None:
    donors = derange(pictures(len(labels)), labels, seed)
    if len(set(labels)) == 1:
        assert donors == [None] * len(labels)
    else:
        assert all(donor is not None and labels[donor] != label for donor, label in zip(donors, labels, strict=True))


@given(st.integers(2, 8), st.integers(1, 9))
def test_without_a_majority_every_donor_gives_once(classes: int, repeats: int) -> None:
    labels = [k % classes for k in range(classes * repeats)]
    donors = derange(pictures(len(labels)), labels, 0)
    assert sorted(donor for donor in donors if donor is not None) == list(range(len(labels)))


def test_donors_of_one_class_come_from_all_others() -> None:
    labels = [k % 5 for k in range(200)]
    donors = derange(pictures(200), labels, 0)
    met = Counter((label, labels[donor]) for label, donor in zip(labels, donors, strict=True) if donor is not None)
    assert len(met) == 20 and max(met.values()) < 25


def test_only_samples_of_the_same_modalities_exchange() -> None:
    prompts = [sample(0, Item("image", 0)), sample(1, Item("audio", 1)), sample(2, Item("image", 2)), sample(3)]
    assert derange(prompts, list("abcd"), 0) == [2, None, 0, None]


def test_the_exchange_repeats_with_its_seed_and_changes_with_it() -> None:
    labels = [k % 4 for k in range(40)]
    assert derange(pictures(40), labels, 1) == derange(pictures(40), labels, 1)
    assert derange(pictures(40), labels, 1) != derange(pictures(40), labels, 2)
