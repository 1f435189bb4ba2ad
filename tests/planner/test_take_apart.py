"""What chat templates of multimodal models put between media, words and turns."""

from __future__ import annotations

import pytest

from omniloom.errors import ConfigError
from omniloom.planner import Planner, Template
from omniloom.planner.take_apart import around_media, take_apart
from omniloom.sequence import Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_tokenizer

ROLES = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LINES = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] if part['type'] != 'text' %}{{ '<' + part['type'] + '>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NUMBERED = (
    "{% set count = namespace(value=0) %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{% set count.value = count.value + 1 %}Sound {{ count.value }}: <audio>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen2-Audio's: an item is known by the key of its place.
BY_KEY = NUMBERED.replace("part['type'] == 'audio'", "'audio' in part or 'audio_url' in part")
CHATML = tiny_tokenizer().chat_template


def tokenizer_of(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_contents_may_have_to_be_lists_of_parts():
    found = take_apart(tokenizer_of(ROLES))
    assert found.around == {"user": ("USER: ", " "), "assistant": ("ASSISTANT:", " "), "system": ("SYSTEM: ", " ")}


def test_what_stands_before_a_given_answer_but_is_not_asked_with_leads_the_answer():
    assert take_apart(tokenizer_of(ROLES)).lead == {"assistant": " "}


def test_white_space_in_which_asked_and_given_answers_differ_is_taken_as_it_is_asked_with():
    found = take_apart(tokenizer_of(LINES), ["image"])
    assert found.around["assistant"] == ("<|im_start|>assistant\n", "<|im_end|>") and "assistant" not in found.lead


@pytest.mark.parametrize("kinds", [["image"], ["image", "video"], ["points", "image"]])
def test_text_behind_media_that_stands_there_without_them_too_leads_the_words(kinds):
    found = take_apart(tokenizer_of(LINES), kinds)
    assert found.around["user"] == ("<|im_start|>user ", "<|im_end|>") and found.lead["user"] == "\n"


def test_a_template_that_knows_no_media_has_no_lead():
    found = take_apart(tokenizer_of(CHATML), ["image"])
    assert found.around["user"] == ("<|im_start|>user\n", "<|im_end|>\n") and found.lead == {}


def test_what_stands_around_an_item_is_told_and_its_number_is_left_open():
    assert around_media(tokenizer_of(ROLES), "image", "<image>") == ("", "\n")
    assert around_media(tokenizer_of(LINES), "image", "<image>") == ("", "")
    assert around_media(tokenizer_of(NUMBERED), "audio", "<audio>") == ("Sound {n}: ", "\n")
    assert around_media(tokenizer_of(BY_KEY), "audio", "<audio>") == ("Sound {n}: ", "\n")
    with pytest.raises(ConfigError, match="without '<video>'"):
        around_media(tokenizer_of(NUMBERED), "audio", "<video>")


def test_a_template_of_words_alone_shows_no_items_and_says_so():
    words = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"does not show an item of 'image'.*TypeError.*chat_template.json"):
        around_media(tokenizer_of(words), "image", "<image>")
    with pytest.raises(ConfigError, match="no chat template"):
        around_media(tokenizer_of(None), "image", "<image>")


def text_of(tokenizer, turns, **options) -> str:
    template = Template.of(tokenizer, **options)
    planner = Planner(tokenizer, template, {}, Vocabulary.of(len(tokenizer), {}))
    plan = planner.plan(Sample("s", tuple(Turn(role, (Text(text),)) for role, text in turns)), ask=True)
    return tokenizer.decode(plan.ids[0])


def test_leads_stand_before_the_first_words_of_every_turn():
    turns = [("user", "hi"), ("assistant", "yes"), ("user", "so?")]
    text = text_of(tokenizer_of(ROLES), turns, kinds=["image"])
    assert text == "USER: hi ASSISTANT: yes<|im_end|> USER: so? ASSISTANT:"
    text = text_of(tokenizer_of(LINES), turns, kinds=["image"])
    assert text == (
        "<|im_start|>user \nhi<|im_end|><|im_start|>assistant\nyes<|im_end|><|im_start|>user \nso?<|im_end|>"
        "<|im_start|>assistant\n"
    )


def test_the_lead_of_an_answer_is_learned_with_it():
    tokenizer = tokenizer_of(ROLES)
    planner = Planner(tokenizer, Template.of(tokenizer), {}, Vocabulary.of(len(tokenizer), {}))
    plan = planner.plan(Sample("s", (Turn("user", (Text("hi"),)), Turn("assistant", (Text("yes"),)))))
    assert tokenizer.decode(plan.label[plan.label >= 0]) == " yes<|im_end|>"


def test_nothing_stands_around_what_is_said_barely_but_what_the_tokenizer_puts_there():
    tokenizer = tiny_tokenizer()
    assert text_of(tokenizer, [("user", "hi"), ("assistant", "yes"), ("user", "so?")], kind="bare") == (
        "hiyes<|im_end|>so?"
    )
    template = Template.of(tokenizer, kind="bare", stop=frozenset({9}))
    assert template.stop == {9} and template.said_suffix == (9,)
