"""Plans for an encoder-decoder: what its encoder reads, what its decoder says, and where the border lies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omniloom.errors import PlanError
from omniloom.planner import Planner, Template
from omniloom.sequence import IGNORE, Plan, Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_encoder_decoder

START, END = 0, 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """That of the tiny T5: it ends a text with its end token."""
    from omniloom.backbone.stock import load_tokenizer

    return load_tokenizer(str(tiny_encoder_decoder(tmp_path_factory.mktemp("t5"))))


def planner(tokenizer=None, *, start=(START,), **options) -> Planner:
    from omniloom.testing.doubles import tiny_tokenizer

    tokenizer = tokenizer or tiny_tokenizer()
    template = Template.of(tokenizer, kind="plain", is_answer_bare=True)
    return Planner(tokenizer, template, {}, Vocabulary.of(len(tokenizer), {}), decoder_start=start, **options)


def talk(*words: str) -> Sample:
    """Turns of the user and the assistant by turns."""
    return Sample("s", tuple(Turn(("user", "assistant")[n % 2], (Text(word),)) for n, word in enumerate(words)))


def sides(plan: Plan, tokenizer) -> tuple[str, str]:
    """What is read and what is said."""
    read, said = (tokenizer.decode(plan.ids[0][plan.stream[0] == number]) for number in (1, 0))
    return read, said


def test_everything_but_the_last_answer_is_read_and_ends_as_the_tokenizer_ends_a_text(tokenizer):
    plan = planner(tokenizer).plan(talk("hi", "yes", "so", "no"))
    read, said = sides(plan, tokenizer)
    assert read == "User: hi\nAssistant: yes\nUser: so\nAssistant: <|im_end|>"
    assert said == "<|endoftext|>no<|im_end|>"
    assert plan.label[0][plan.label[0] != IGNORE].tolist() == [*tokenizer("no").input_ids]
    assert int(plan.label[0, (plan.stream[0] == 0).nonzero()[0]]) == tokenizer("n").input_ids[0]


def test_asking_ends_with_the_token_that_begins_an_answer(tokenizer):
    plan = planner(tokenizer, start=(START, 1)).plan(talk("hi", "yes", "so"), ask=True)
    read, said = sides(plan, tokenizer)
    assert read == "User: hi\nAssistant: yes\nUser: so\nAssistant: <|im_end|>"
    assert said == "<|endoftext|><|im_start|>" and plan.supervised == 0


def test_an_answer_that_is_read_is_not_learned_even_where_the_turn_asks_for_it(tokenizer):
    sample = talk("hi", "yes", "so", "no")
    earlier = replace(sample.turns[1], learn=True)
    plan = planner(tokenizer).plan(replace(sample, turns=(sample.turns[0], earlier, *sample.turns[2:])))
    assert plan.supervised == len("no") + 1


def test_turns_go_on_behind_what_is_read_and_not_behind_an_answer(tokenizer):
    made = planner(tokenizer)
    with pytest.raises(PlanError, match="Plan all turns again"):
        made.plan(talk("hi", "yes")).append(made.plan(talk("so", "no"), opening=False))
    joined = made.plan(talk("hi")).append(made.plan(talk("so", "no"), opening=False))
    whole = made.plan(Sample("s", (*talk("hi").turns, *talk("so", "no").turns)))
    assert joined.equals(whole) and joined.check() is joined


def test_the_sides_are_told_by_explain(tokenizer):
    lines = planner(tokenizer).plan(talk("hi", "no")).explain(tokenizer.decode).splitlines()
    assert " side kind " in lines[0]
    told = [line.split()[3] for line in lines[1:-1]]
    assert told == ["enc"] * 5 + ["dec"] * 3 and "<|endoftext|>" in lines[6]


@pytest.mark.parametrize("overflow", ["start", "end"])
def test_cuts_leave_the_border_and_the_begin_of_an_answer(tokenizer, overflow):
    sample = talk("x" * 20, "yes", "y" * 10, "no")
    whole = planner(tokenizer).plan(sample).shape[1]
    outcomes = set()
    for limit in range(1, whole):
        try:
            plan = planner(tokenizer, overflow=overflow, max_length=limit).plan(sample)
        except PlanError as error:
            outcomes.add("nothing to learn" if "nothing to learn" in str(error) else "no segment")
            continue
        read, said = sides(plan, tokenizer)
        outcomes.add("cut")
        assert read.endswith("<|im_end|>") and len(read) > len("<|im_end|>")
        assert said.startswith("<|endoftext|>no") and plan.shape[1] <= limit
        assert said.endswith("<|im_end|>") or overflow == "end"
    assert outcomes == {"cut", "no segment", *(["nothing to learn"] if overflow == "end" else [])}


def test_what_asks_is_never_cut(tokenizer):
    plan = planner(tokenizer, overflow="end", max_length=40).plan(talk("x" * 20, "yes", "y" * 30), ask=True)
    read, said = sides(plan, tokenizer)
    assert plan.truncated and read.endswith("Assistant: <|im_end|>") and said == "<|endoftext|>"


def test_a_plan_whose_decoder_speaks_before_its_encoder_has_read_is_refused(tokenizer):
    plan = planner(tokenizer).plan(talk("hi", "no"))
    with pytest.raises(PlanError, match="the encoder reads a slot behind what the decoder says"):
        replace(plan, stream=1 - plan.stream).check()
    with pytest.raises(PlanError, match="a label stands on a slot of the encoder"):
        replace(plan, stream=torch.ones_like(plan.stream)).check()


def test_a_tokenizer_that_begins_a_text_begins_what_is_read(tokenizer):
    from tokenizers import processors

    from omniloom.testing.doubles import tiny_tokenizer

    other = tiny_tokenizer()
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    read, _ = sides(planner(other).plan(talk("hi", "no")), other)
    assert read == "<|im_start|>User: hi\nAssistant: <|im_end|>"
