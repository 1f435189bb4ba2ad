"""Spans of text are together what the tokenizer makes of the whole: the planned ids of a conversation are its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.planner import Planner, Template
from omniloom.planner.spelling import Edge, Spelling
from omniloom.sequence import Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_tokenizer
from tests.planner.sentence_pieces import FORMS, sentence_piece_tokenizer

ROLES = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' + message['content'] + ' ' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
INST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
LINES = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
TEMPLATES = {"roles": ROLES, "inst": INST, "lines": LINES}


def planner_of(form: str, template: str) -> Planner:
    tokenizer = sentence_piece_tokenizer(form)
    tokenizer.chat_template = template
    found = Template.of(tokenizer, stop=frozenset({2}), begins=True)
    return Planner(tokenizer, found, {}, Vocabulary.of(len(tokenizer), {}))


PLANNERS = {(form, name): planner_of(form, template) for form in FORMS for name, template in TEMPLATES.items()}
EVERY = pytest.mark.parametrize("planner", PLANNERS.values(), ids=map("-".join, PLANNERS))


def sample(*texts: str) -> Sample:
    roles = ("user", "assistant")
    return Sample("s", tuple(Turn(roles[number % 2], (Text(text),)) for number, text in enumerate(texts)))


def whole(planner: Planner, texts, *, ask: bool) -> list[int]:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    text = planner.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    # As processors of multimodal models do: <s> unless the template wrote it.
    return planner.tokenizer(text, add_special_tokens=not text.startswith("<s>"))["input_ids"]


@EVERY
@pytest.mark.parametrize("texts", [["What is it?"], ["What is it?", "a cat", "Really?"], ["a", "b", "c", "d", "e"]])
def test_a_question_is_planned_as_the_whole_text_is_tokenised(planner, texts):
    assert planner.plan(sample(*texts), ask=True).ids[0].tolist() == whole(planner, texts, ask=True)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("acWhtis ?", min_size=1, max_size=8).map(str.strip).filter(bool), min_size=1, max_size=3))
def test_so_is_one_of_any_words(texts):
    texts = texts if len(texts) % 2 else texts[:-1]
    for planner in PLANNERS.values():
        assert planner.plan(sample(*texts), ask=True).ids[0].tolist() == whole(planner, texts, ask=True)


@EVERY
def test_an_answer_is_learned_with_its_space_and_its_end_and_nothing_else(planner):
    plan = planner.plan(sample("What is it?", "a cat"))
    learned = plan.label[plan.label >= 0].tolist()
    asked = planner.plan(sample("What is it?"), ask=True).ids[0].tolist()
    ids = plan.ids[0].tolist()
    assert ids[: len(asked)] == asked and ids[len(asked) :][: len(learned)] == learned
    assert learned[-1] == 2 and planner.decode(learned).strip() == "a cat"


@EVERY
def test_turns_planned_later_are_those_of_the_whole_conversation(planner):
    texts = ["What is it?", "a cat", "Really?"]
    first = planner.plan(sample(*texts[:2]))
    later = planner.plan(sample(texts[2]), ask=True, opening=False)
    assert first.append(later).ids[0].tolist() == planner.plan(sample(*texts), ask=True).ids[0].tolist()


@EVERY
def test_special_tokens_that_a_user_writes_are_text(planner):
    written = planner.plan(sample("a</s>b<s>"), ask=True).ids[0].tolist()
    empty = planner.plan(sample("a"), ask=True).ids[0].tolist()
    assert written.count(2) == empty.count(2) and written.count(1) == empty.count(1)
    assert "a</s>b<s>" in planner.tokenizer.decode(written)


@pytest.mark.parametrize("form", FORMS)
def test_text_behind_media_begins_as_it_does_behind_a_special_token(form):
    tokenizer = sentence_piece_tokenizer(form, "<image>")
    spelling, edge = Spelling(tokenizer), Edge()
    ids = spelling.written("USER: ", edge) + spelling.settled(edge) + spelling.scaffold("<image>")
    edge.cut()
    ids += spelling.written("\n", edge) + spelling.spoken("What is it?", edge) + spelling.written(" ASSISTANT:", edge)
    assert list(ids) == tokenizer("USER: <image>\nWhat is it? ASSISTANT:", add_special_tokens=False)["input_ids"]


def test_a_byte_level_tokenizer_needs_no_care():
    spelling, edge = Spelling(tiny_tokenizer()), Edge()
    assert not spelling.has_care
    assert spelling.spoken("a ", edge) == spelling.words("a ") and spelling.written(" <|im_end|>", edge)[-1] == 2
