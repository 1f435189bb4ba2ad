"""Chat templates taken apart: planned ids are those of the tokenizer's own template, or the template is refused."""

from __future__ import annotations

import pytest

from omniloom.errors import ConfigError, PlanError
from omniloom.planner import Planner, Template
from omniloom.sequence import Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_tokenizer

CHATML = tiny_tokenizer().chat_template
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nbe good<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '[h]' + message['role'] + '[/h]\n\n' + message['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[h]assistant[/h]\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<|im_start|>' + role + '\n' + message['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
# An empty thought before the last answer, none before the earlier ones nor when asked, and no switch to turn it off.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
NUMBERED = (
    "{% for message in messages %}"
    "{{ loop.index | string + message['role'] + message['content'] + '<|im_end|>' }}{% endfor %}"
)

USER, SAID, SYSTEM = ("user", "hello there"), ("assistant", "fine, thanks"), ("system", "be brief")


def tokenizer_of(template: str | None):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def planned(tokenizer, turns, *, ask=False, **options) -> list[int]:
    template = Template.of(tokenizer, **options)
    planner = Planner(tokenizer, template, {}, Vocabulary.of(len(tokenizer), {}))
    sample = Sample("s", tuple(Turn(role, (Text(text),)) for role, text in turns))
    return planner.plan(sample, ask=ask).ids[0].tolist()


def rendered(tokenizer, turns, *, ask=False) -> list[int]:
    messages = [{"role": role, "content": text} for role, text in turns]
    return list(tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=ask, return_dict=False))


CONVERSATIONS = [
    ([USER], True),
    ([USER], False),
    ([USER, SAID], False),
    ([USER, SAID, USER], True),
    ([USER, SAID, USER, SAID], False),
]


@pytest.mark.parametrize(
    ("turns", "ask"), CONVERSATIONS, ids=lambda value: str(len(value)) if isinstance(value, list) else str(value)
)
@pytest.mark.parametrize(
    "template", [CHATML, DEFAULT_SYSTEM, LLAMA, MISTRAL, GEMMA], ids=["chatml", "default", "llama", "mistral", "gemma"]
)
def test_planned_ids_are_those_of_the_tokenizers_template(template, turns, ask):
    tokenizer = tokenizer_of(template)
    assert planned(tokenizer, turns, ask=ask) == rendered(tokenizer, turns, ask=ask)


@pytest.mark.parametrize(("turns", "ask"), CONVERSATIONS[:3], ids=str)
@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, LLAMA], ids=["chatml", "default", "llama"])
def test_a_system_turn_stands_as_the_template_puts_it(template, turns, ask):
    tokenizer = tokenizer_of(template)
    assert planned(tokenizer, [SYSTEM, *turns], ask=ask) == rendered(tokenizer, [SYSTEM, *turns], ask=ask)


@pytest.mark.parametrize("template", [MISTRAL, GEMMA], ids=["mistral", "gemma"])
def test_a_template_without_system_turns_refuses_one(template):
    tokenizer = tokenizer_of(template)
    assert "system" not in Template.of(tokenizer).prefix
    with pytest.raises(PlanError, match="no system turn"):
        planned(tokenizer, [SYSTEM, USER])
    with pytest.raises(ConfigError, match="takes no system turn"):
        Template.of(tokenizer, system="be brief")


def test_a_system_prompt_of_the_run_opens_conversations_without_one():
    for template in (CHATML, DEFAULT_SYSTEM, LLAMA):
        tokenizer = tokenizer_of(template)
        assert planned(tokenizer, [USER], system="be brief") == rendered(tokenizer, [SYSTEM, USER])
        assert planned(tokenizer, [SYSTEM, USER], system="never seen") == rendered(tokenizer, [SYSTEM, USER])


def test_an_empty_system_prompt_opens_with_nothing():
    assert planned(tokenizer_of(DEFAULT_SYSTEM), [USER], system="") == rendered(tokenizer_of(CHATML), [USER])


@pytest.mark.parametrize("template", [THINKING, NUMBERED], ids=["thinking", "numbered"])
def test_a_template_that_is_not_the_same_around_every_turn_is_refused(template):
    with pytest.raises(ConfigError, match="cannot be planned turn by turn"):
        Template.of(tokenizer_of(template))


def test_a_tokenizer_without_a_template_is_refused_and_told_of_the_plain_one():
    with pytest.raises(ConfigError, match="template: plain"):
        Template.of(tokenizer_of(None))


def test_the_plain_template_needs_none():
    tokenizer = tokenizer_of(None)
    ids = planned(tokenizer, [SYSTEM, USER, SAID, USER], ask=True, kind="plain")
    assert (
        tokenizer.decode(ids) == "be brief\nUser: hello there\nAssistant: fine, thanks\nUser: hello there\nAssistant: "
    )


def test_an_answer_is_learned_up_to_the_token_that_ends_it():
    tokenizer = tokenizer_of(CHATML)
    template = Template.of(tokenizer)
    assert template.learned_suffix == 1 and template.suffix["assistant"][0] == 2 and template.stop == {2}
    assert Template.of(tokenizer, stop=frozenset({0})).stop == {0, 2}
    plain = Template.of(tokenizer, kind="plain")
    assert tokenizer.decode(sorted(plain.stop)) == "\n" and plain.learned_suffix == 1


def test_the_bos_token_stands_once_before_any_first_turn():
    tokenizer = tokenizer_of(LLAMA)
    template = Template.of(tokenizer)
    assert template.bos == template.head == (0,)
    for turns in ([USER], [SYSTEM, USER, SAID]):
        assert planned(tokenizer, turns).count(0) == 1
