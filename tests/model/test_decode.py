"""Decoding by the cache is decoding by full forwards; batches, codes, sampling and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.backbone.base import CacheView
from omniloom.errors import ConfigError, PlanError
from omniloom.generators import CodeOutput, TokenStream
from omniloom.media import Image
from omniloom.model import Sampling, generate
from omniloom.sequence import IGNORE, Codes, Item, Kind, Plan, Sample, Shape, Text, Turn
from tests.examples import answered, asked, drawing, largest, logits_of, media

PROMPTS = [
    asked(Text("hi")),
    asked(media("image"), Text("what is this?")),
    asked(Text("a rather longer question, without media")),
    asked(media("sound", 2), media("points"), Text("and"), media("motion", 3)),
    asked(media("image", 1)),
    Sample("s", (*answered((media("image"),), drawing(2)).turns, Turn("user", (Text("again"),)))),
]


def prompts_of(model, samples=PROMPTS):
    return [model.planner.plan(sample, ask=True) for sample in samples]


def grown(plan: Plan, ids: list[int], model) -> Plan:
    """A plan with answered ids behind it, as the planner would have planned them."""
    block = model.vocabulary.blocks["drawing"]
    fill = {"item": -1, "source": -1, "label": IGNORE, "segment": 10_000, "span": -1}
    columns = {name: [] for name in plan.tensors()}
    for step, token in enumerate(ids):
        is_code = block.first <= token < block.stop
        facts = {"ids": token, "position": plan.shape[1] + step, "route": 5 if is_code else 0}
        facts |= {"kind": int(Kind.CODE if is_code else Kind.TEXT), "modality": 4 if is_code else -1}
        for name, column in columns.items():
            column.append({**fill, **facts}.get(name, 0))
    tensors = {}
    for name, value in plan.tensors().items():
        new = torch.tensor(columns[name], dtype=value.dtype)
        tensors[name] = torch.cat([value, new.reshape(*([1] * (value.dim() - 1)), -1)], -1)
    return replace(plan, **tensors)


def slow(model, plan: Plan, sampling: Sampling) -> list[int]:
    """Greedy ids, each from a forward of everything before it, without any cache."""
    row = model.rows["drawing"].output
    outputs = {"drawing": CodeOutput(row.block, row.layout, row.codec.code_shape(), row.codec.decode)}
    stream = TokenStream(model.vocabulary, outputs, model.planner.template.stop, sampling.outputs, sampling.required)
    ids: list[int] = []
    while len(ids) < sampling.max_new and not stream.is_done:
        logits = logits_of(model, grown(plan, ids, model))[0][-1]
        ids.append(int(stream.allow(logits).argmax()))
        stream.push(ids[-1])
    return ids


@pytest.mark.parametrize("required", [None, "drawing"])
def test_greedy_ids_are_those_of_full_forwards(bounded, required):
    model, _ = bounded
    sampling = Sampling(max_new=9, required=required)
    plans = prompts_of(model)
    said = generate(model, plans, sampling, batch=3)
    assert [list(reply.ids) for reply in said] == [slow(model, plan, sampling) for plan in plans]
    assert all(reply.ids[0] == model.vocabulary.blocks["drawing"].begin for reply in said) == (required is not None)


def test_each_step_of_the_cache_gives_the_logits_of_the_full_forward(bounded):
    model, limit = bounded
    plans = prompts_of(model)
    block = model.vocabulary.blocks["drawing"]
    given_ids = [20, 30, block.begin, block.first + 3, block.first, block.first + 15, block.first + 7, block.end, 40]
    batch = Plan.stack(plans)
    with torch.no_grad():
        cache = model.backbone.new_cache()
        done = model.run(batch, cache=cache)
        hidden, facts = done.hidden, done.facts
        last = hidden[torch.arange(len(plans)), batch.lengths - 1]
        view = CacheView(cache, ~batch.is_padding, batch.lengths.clone())
        seen = [model.logits(last)]
        for count, token in enumerate(given_ids):
            route = 5 if block.first <= token < block.stop else 0
            facts = facts.step(torch.full((len(plans), 1), route), batch.lengths - 1 + count)
            with model.context.of(facts):
                last = model.backbone.step(model.embed_ids(torch.full((len(plans), 1), token)), view)
            seen.append(model.logits(last))
    cached = torch.stack(seen, 1)
    full = [logits_of(model, grown(plan, given_ids, model))[0][plan.shape[1] - 1 :] for plan in plans]
    assert largest(list(cached), full) <= limit


def test_a_slot_decodes_under_the_route_it_is_planned_with(stock):
    sample = answered((Text("draw"),), Text("x"), drawing(5))
    plan = stock.planner.plan(sample)
    row = stock.rows["drawing"].output
    outputs = {"drawing": CodeOutput(row.block, row.layout, row.codec.code_shape(), row.codec.decode)}
    stream = TokenStream(stock.vocabulary, outputs, stock.planner.template.stop)
    ids = plan.ids[0].tolist()
    assert [stream.route_of(token, plan.modalities) for token in ids] == plan.route[0].tolist()
    assert 5 in plan.route[0].tolist()


@settings(max_examples=8)
@given(order=st.permutations(range(len(PROMPTS))), batch=st.integers(1, 6))
def test_answers_do_not_depend_on_the_batch_they_were_made_in(clean, order, batch):
    plans = prompts_of(clean)
    for temperature in (0.0, 1.0):
        sampling = Sampling(max_new=6, temperature=temperature)
        alone = [generate(clean, [plans[index]], sampling)[0].ids for index in order] if not temperature else None
        together = generate(clean, [plans[index] for index in order], sampling, batch=batch)
        if alone is not None:
            assert [reply.ids for reply in together] == alone
        again = generate(clean, [plans[index] for index in order], sampling, batch=len(order))
        assert [reply.ids for reply in again] == [reply.ids for reply in together]


def test_draws_follow_the_seed_and_differ_with_it(stock):
    plans = prompts_of(stock)[:2]
    said = [
        [reply.ids for reply in generate(stock, plans, Sampling(max_new=8, temperature=2.0, seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert said[0] == said[1] != said[2]


def test_a_tiny_top_p_or_top_k_of_one_is_the_greedy_choice(stock):
    plans = prompts_of(stock)[:3]
    greedy = [reply.ids for reply in generate(stock, plans, Sampling(max_new=6))]
    for options in ({"top_k": 1}, {"top_p": 1e-6}):
        assert [
            reply.ids for reply in generate(stock, plans, Sampling(max_new=6, temperature=1.0, **options))
        ] == greedy


def test_a_drawing_that_was_asked_for_is_a_picture_of_its_codes(stock):
    reply = generate(stock, prompts_of(stock)[:1], Sampling(max_new=6, required="drawing"))[0]
    block = stock.vocabulary.blocks["drawing"]
    assert reply.ids[0] == block.begin and reply.ids[-1] == block.end and reply.finish == "length"
    item = reply.parts[0]
    assert isinstance(item, Item) and item.role == "out" and isinstance(item.payload, Image)
    codes = Codes((torch.tensor(reply.ids[1:-1]) - block.first,), Shape(4, (1, 2, 2)))
    assert (stock.rows["drawing"].output.codec.decode(codes).pixels == item.payload.pixels).all()


def test_a_drawing_that_does_not_fit_is_no_item(stock):
    reply = generate(stock, prompts_of(stock)[:1], Sampling(max_new=4, required="drawing"))[0]
    assert reply.parts == () and reply.finish == "length" and len(reply.ids) == 4


def test_an_output_that_is_not_wanted_never_begins(clean):
    plans = prompts_of(clean)
    begin = clean.vocabulary.blocks["drawing"].begin
    hot = Sampling(max_new=40, temperature=5.0)
    free = {token for reply in generate(clean, plans, hot) for token in reply.ids}
    assert begin in free
    text_only = Sampling(max_new=40, temperature=5.0, outputs=frozenset())
    assert max(token for reply in generate(clean, plans, text_only) for token in reply.ids) < clean.vocabulary.base_size


def test_an_answer_ends_at_a_stop_id_and_its_text_is_without_it(private):
    with torch.no_grad():  # an output layer that says `A` until it says the end
        private.backbone.lm.model.embed_tokens.weight[2] *= 40
    reply = generate(private, prompts_of(private)[:1], Sampling(max_new=200, temperature=1.0))[0]
    assert reply.finish == "stop" and reply.ids[-1] in private.planner.template.stop
    assert "<|im_end|>" not in reply.text


def test_progress_counts_every_prompt(stock):
    counts = []
    generate(stock, prompts_of(stock), Sampling(max_new=1), batch=4, progress=counts.append)
    assert counts == [4, 2]


def test_no_prompts_have_no_answers(stock):
    assert generate(stock, []) == []


def test_an_output_that_the_model_has_not_is_refused(stock):
    with pytest.raises(PlanError, match="no learned output 'song'; it has: drawing"):
        generate(stock, prompts_of(stock)[:1], Sampling(required="song"))


@pytest.mark.parametrize(
    "options", [{"max_new": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_sampling_that_means_nothing_is_refused(options):
    with pytest.raises(ConfigError, match="sampling needs"):
        Sampling(**options)
