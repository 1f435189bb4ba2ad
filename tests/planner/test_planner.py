"""Samples become plans: labels, specials, truncation, budgets, refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.backbone.causal_lm import load_tokenizer
from omniloom.errors import PlanError
from omniloom.planner import Planner, Template
from omniloom.planner.paths import keep_uniform
from omniloom.sequence import IGNORE, Codes, Item, Kind, Packed, Sample, Shape, Text, Turn, Vocabulary
from tests.examples import SAMPLES, answered, asked, codes_of, drawing, media

IM_END = 2


def planner_of(model, **options) -> Planner:
    base = model.planner
    return Planner(base.tokenizer, base.template, base.rows, base.vocabulary, **options)


def learned_of(plan) -> list[int]:
    return plan.label[0][plan.label[0] != IGNORE].tolist()


def test_what_is_learned_is_what_the_assistant_says_and_its_end(stock):
    planner, block = stock.planner, stock.vocabulary.blocks["drawing"]

    @given(SAMPLES)
    def law(sample):
        expected: list[int] = []
        for turn in sample.turns:
            if turn.role == "assistant":
                text = ""
                for part in turn.parts:
                    if isinstance(part, Text):
                        text += part.text
                        continue
                    expected += planner.tokenizer(text, split_special_tokens=True).input_ids
                    text = ""
                    expected += [block.begin, *(block.first + part.payload.books[0]).tolist(), block.end]
                expected += [*planner.tokenizer(text, split_special_tokens=True).input_ids, IM_END]
        plan = planner.plan(sample)
        assert learned_of(plan) == expected
        said = "".join(turn.text for turn in sample.turns if turn.role == "assistant")
        assert planner.decode([token for token in learned_of(plan) if token < stock.vocabulary.base_size]) == said

    law()


def test_every_text_is_there_in_order_with_its_turn_around_it(stock):
    @given(SAMPLES)
    def law(sample):
        plan = stock.planner.plan(sample)
        text = plan.ids[0][plan.kind[0] == int(Kind.TEXT)].tolist()
        expected = "".join(f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n" for turn in sample.turns)
        assert stock.planner.tokenizer.decode(text) == expected

    law()


@given(
    st.lists(
        st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>", "a", " ", "\n"]), min_size=1
    )
)
def test_special_tokens_that_a_user_types_are_text(stock, pieces):
    typed = "".join(pieces)
    plan = stock.planner.plan(
        Sample("s", (Turn("system", (Text(typed),)), *answered((Text(typed),), Text(typed)).turns))
    )
    specials = [token for token in plan.ids[0].tolist() if token in stock.planner.tokenizer.all_special_ids]
    assert specials == [1, 2] * 3  # those of the three turns and no others
    assert stock.planner.decode(stock.planner.text_ids(typed)) == typed


def test_markers_written_in_a_text_are_text(stock):
    plan = stock.planner.plan(asked(Text("<image>"), media("image")))
    markers = plan.ids[0][plan.kind[0] == int(Kind.MARKER)].tolist()
    assert stock.planner.decode(markers) == "<image></image>" and len(plan.items) == 1


def test_learning_can_be_set_for_a_turn_and_for_a_text(stock):
    planner = stock.planner
    quiet = Sample("s", (Turn("user", (Text("q"),)), Turn("assistant", (Text("a"), drawing()), learn=False)))
    assert planner.plan(quiet).supervised == 0
    some = answered((Text("q", learn=True),), Text("a", learn=False), Text("b"))
    ids = planner.text_ids
    assert learned_of(planner.plan(some)) == [*ids("q"), *ids("b"), IM_END]


def test_a_weight_goes_with_the_labels_of_its_own_tokens(stock):
    plan = stock.planner.plan(answered((Text("q"),), Text("ab", weight=0.5), replace(drawing(), weight=2.0)))
    weights = plan.weight[0][plan.label[0] != IGNORE].tolist()
    assert weights == [0.5] * 2 + [2.0] * 6 + [1.0]


def test_a_border_between_texts_in_a_file_is_none_in_the_tokens(stock):
    assert stock.planner.plan(asked(Text("ab"), Text("cd"))).equals(stock.planner.plan(asked(Text("abcd"))))


def test_codes_of_an_item_become_a_block_with_begin_and_end(stock):
    block = stock.vocabulary.blocks["drawing"]
    plan = stock.planner.plan(answered((Text("q"),), drawing(7)))
    item = plan.items[0]
    slots = plan.ids[0, item.start : item.start + item.length].tolist()
    assert slots == [block.begin, *(block.first + codes_of(7).books[0]).tolist(), block.end]
    kinds = plan.kind[0, item.start : item.start + item.length].tolist()
    assert kinds == [int(Kind.MARKER), *[int(Kind.CODE)] * 4, int(Kind.MARKER)]


def test_codes_that_a_user_shows_are_not_learned(stock):
    plan = stock.planner.plan(answered((drawing(1),), Text("ok")))
    assert plan.items[0].role == "out" and all(token < stock.vocabulary.base_size for token in learned_of(plan))


def test_rows_with_a_clock_tell_the_time_of_their_slots(stock):
    encoded = Packed(torch.randn(4, 32), (Shape(4, times=(0.0, 0.5, 1.0, 1.5)),))
    plan = stock.planner.plan(asked(Text("a"), Item("motion", encoded, t0=10.0)))
    item = plan.items[0]
    span = slice(item.start, item.start + item.length)
    assert plan.time_s[0, span].tolist() == [10.0, 10.5, 11.0, 11.5]
    assert bool(plan.time_s[0, : item.start].isnan().all())


def test_asking_ends_with_the_assistants_prefix(stock):
    plan = stock.planner.plan(asked(Text("q")), ask=True)
    tail = stock.planner.tokenizer.decode(plan.ids[0].tolist())
    assert tail == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


# -- limits ---------------------------------------------------------------------------------------------------------

LONG = answered((Text("x" * 10), media("image", 1), Text("y" * 10)), Text("z" * 5))


def test_a_document_that_is_too_long_is_refused_by_default(stock):
    length = stock.planner.plan(LONG).shape[1]
    assert planner_of(stock, max_length=length).plan(LONG).truncated == 0
    with pytest.raises(PlanError, match=f"fills {length} slots, the limit is {length - 1}"):
        planner_of(stock, max_length=length - 1).plan(LONG)


@pytest.mark.parametrize("overflow", ["start", "end"])
def test_cuts_fall_between_segments_and_are_counted(stock, overflow):
    whole = stock.planner.plan(Sample("s", (Turn("system", (Text("be good"),)), *LONG.turns, *LONG.turns)))
    planner = planner_of(stock, overflow=overflow)
    sample = Sample("s", (Turn("system", (Text("be good"),)), *LONG.turns, *LONG.turns))
    segments = int(whole.segment.max()) + 1
    sizes = torch.bincount(whole.segment[0])

    @given(st.integers(1, whole.shape[1]))
    def law(limit):
        planner.max_length = limit
        try:
            plan = planner.plan(sample)
        except PlanError as error:
            assert "nothing to learn" in str(error) or "no segment" in str(error)
            return
        kept = plan.segment[0].unique().tolist()
        assert len(kept) == segments - plan.truncated and plan.shape[1] <= limit
        assert all(int((plan.segment[0] == number).sum()) == int(sizes[number]) for number in kept)
        assert kept == (list(range(segments - len(kept), segments)) if overflow == "start" else list(range(len(kept))))
        if plan.truncated:  # one segment less cut would not have fitted
            missing = segments - len(kept) - 1 if overflow == "start" else len(kept)
            assert plan.shape[1] + int(sizes[missing]) > limit

    law()


def test_the_opening_is_never_cut(omni_folder):
    from omniloom.model import compose
    from tests.examples import config_of

    backbone = {"type": "causal_lm", "id": "./language-model", "system": "be good"}
    model = compose(config_of(omni_folder, backbone=backbone, context={"max": 60, "over": "start"}), base=omni_folder)
    plan = model.planner.plan(Sample("s", (*answered((Text("x" * 60),), Text("z")).turns,)))
    assert plan.truncated > 0 and model.planner.tokenizer.decode(plan.ids[0].tolist()).startswith(
        "<|im_start|>system\nbe good"
    )


def test_what_asks_is_never_cut(stock):
    plan = planner_of(stock, max_length=40, overflow="end").plan(
        asked(Text("x" * 10), Text("y" * 30, weight=2.0)), ask=True
    )
    assert plan.truncated and stock.planner.tokenizer.decode(plan.ids[0].tolist()).endswith("<|im_start|>assistant\n")


def test_a_cut_that_leaves_nothing_to_learn_is_refused(stock):
    with pytest.raises(PlanError, match="leaves nothing to learn"):
        planner_of(stock, max_length=30, overflow="end").plan(LONG)


def test_items_that_are_cut_are_gone_and_the_others_keep_their_rows(stock):
    sample = answered((media("image", 0), Text("x" * 20), media("image", 1)), Text("z"))
    plan = planner_of(stock, max_length=60, overflow="start").plan(sample)
    assert plan.truncated and len(plan.items) == 1
    assert torch.equal(plan.items[0].raw, media("image", 1).payload) and plan.check()


def budgeted(model, modality: str, **changes) -> Planner:
    rows = dict(model.planner.rows)
    rows[modality] = replace(rows[modality], input=replace(rows[modality].input, **changes))
    return Planner(model.planner.tokenizer, model.planner.template, rows, model.vocabulary)


def test_an_item_over_its_slot_budget_is_refused(stock):
    planner = budgeted(stock, "image", max_slots=3)
    with pytest.raises(PlanError, match="'image' fills 4 slots, its budget is 3"):
        planner.plan(asked(media("image", 0)))


def test_an_item_over_its_slot_budget_is_resampled_to_evenly_spaced_rows(stock):
    planner = budgeted(stock, "image", max_slots=3, over="resample")
    sample = asked(Text("a"), media("image", 1))
    plan = planner.plan(sample)
    item = plan.items[0]
    assert (item.rows, item.length, item.keep) == (6, 3, (0, 2, 5))
    rows = stock.project("image", stock.planner.plan(sample).items).x
    embeds = stock.embed(plan)[0, item.start : item.start + item.length]
    torch.testing.assert_close(embeds, rows[[0, 2, 5]])


@given(st.integers(1, 200), st.data())
def test_kept_rows_are_evenly_spaced_from_the_first_to_the_last(rows, data):
    count = data.draw(st.integers(1, rows))
    kept = keep_uniform(rows, count)
    assert len(kept) == count and len(set(kept)) == count and list(kept) == sorted(kept)
    assert 0 <= kept[0] and kept[-1] <= rows - 1
    if count > 1:
        assert (kept[0], kept[-1]) == (0, rows - 1)
        gaps = [b - a for a, b in pairwise(kept)]
        assert max(gaps) - min(gaps) <= 1


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (asked(Item("imgae", None)), "unknown modality 'imgae'. Did you mean 'image'"),
        (asked(Item("image", codes_of(0))), "asks for 'image' as an output"),
        (answered((Text("q"),), Item("image", media("image").payload)), "asks for 'image' as an output"),
        (asked(Item("drawing", media("image").payload)), "gives 'drawing' as an input"),
        (answered((Text("q"),), Item("drawing", media("image").payload)), "must hold codes"),
        (Sample("s", ()), "no turns"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_planned_is_refused(stock, sample, message):
    with pytest.raises(PlanError, match=message):
        stock.planner.plan(sample)


def test_codes_outside_their_block_are_refused(stock):
    from omniloom.errors import ShapeError

    with pytest.raises((PlanError, ShapeError), match="outside"):
        stock.planner.plan(answered((Text("q"),), Item("drawing", Codes((torch.tensor([0, 1, 2, 16]),), Shape(4)))))


def test_a_continuation_that_begins_with_a_learned_token_is_refused(stock):
    template = replace(stock.planner.template, prefix={**stock.planner.template.prefix, "assistant": ()})
    planner = Planner(stock.planner.tokenizer, template, stock.planner.rows, stock.vocabulary)
    with pytest.raises(PlanError, match="continues a plan with a learned token"):
        planner.plan(Sample("s", (Turn("assistant", (Text("yes"),)),)), opening=False)


def test_a_processor_gets_the_generator_of_its_sample(stock):
    seen = []
    rows = dict(stock.planner.rows)
    path = rows["image"].input

    class Noisy(type(path.processor)):
        def __call__(self, payload, rng=None):
            seen.append(rng)
            return torch.zeros(3, 16, 16)

    rows["image"] = replace(rows["image"], input=replace(path, processor=Noisy(size_px=16)))
    planner = Planner(stock.planner.tokenizer, stock.planner.template, rows, stock.vocabulary)
    rng = torch.Generator()
    planner.plan(asked(Item("image", "a payload")), rng=rng)
    assert seen == [rng]


def test_tokens_that_were_added_to_a_tokenizer_are_text_when_typed(omni_folder):
    tokenizer = load_tokenizer(str(omni_folder / "language-model"))
    tokenizer.add_tokens(["</think>"])
    control = tokenizer.convert_tokens_to_ids("</think>")
    planner = Planner(tokenizer, Template.of(tokenizer), {}, Vocabulary.of(len(tokenizer), {}))
    ids = planner.text_ids("so</think>then<|im_end|>")
    assert control not in ids and not set(ids) & set(tokenizer.all_special_ids)
    assert planner.decode(ids) == "so</think>then<|im_end|>"
