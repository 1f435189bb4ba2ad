from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniloom.config.schema import EvaluationConfig
from omniloom.errors import ConfigError, DataError
from omniloom.eval import SCORERS, Expected, choice, exact, normalize, scorer, yes_no


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("  The red Fox! ", "red fox"),
        ("an apple.", "apple"),
        ("a", "a"),
        ("the", "the"),
        ("It's 3.5", "its 3.5"),
        ("-3", "-3"),
        ("−3", "-3"),
        ("T-shirt", "t shirt"),
        ("**cat**\n", "cat"),
        ("ﬁsh", "fish"),
        ("STRASSE", normalize("straße")),
        ("5 €", "5 €"),
        ("", ""),
        ("...", ""),
    ],
)
def test_normalize_follows_its_one_rule(answer: str, normal: str) -> None:
    assert normalize(answer) == normal


def test_normalize_keeps_the_vowel_signs_that_tell_words_apart() -> None:
    assert normalize("की") != normalize("का")


@given(st.text())
def test_normalize_twice_is_normalize_once(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_exact_wants_the_whole_answer_or_an_accepted_other() -> None:
    assert exact("The Dog.", "dog")
    assert exact("puppy", "dog", ["hound", "a puppy"])
    assert not exact("a dog and a cat", "dog")
    assert not exact("", "dog")
    assert not exact("-3", "3")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("yes", True),
        ("No.", False),
        ("**Yes**", True),
        ("Yes, it is.", True),
        ("No, it is not", False),
        ("The answer is yes.", True),
        ("Final answer: no", False),
        ("not sure", None),
        ("Yes, no wait", None),
        ("yes or no", None),
        ("nobody", None),
        ("Nobody, yes I saw", None),
        ("know", None),
        ("I know it", None),
        ("no idea", None),
        ("No one.", None),
        ("Yes, maybe", None),
        ("There is no dog", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_yes_no_reads_this_table(answer: str, verdict: bool | None) -> None:
    assert yes_no(answer) is verdict


OPTIONS = ["dog", "cat", "fish", "bird"]


@pytest.mark.parametrize(
    ("answer", "position"),
    [
        ("B", 1),
        ("(B)", 1),
        ("b.", 1),
        ("[B]", 1),
        ("Answer: B", 1),
        ("**B**", 1),
        ("The answer is B) cat", 1),
        ("Option B.", 1),
        ("I choose B", 1),
        ("选B", 1),
        ("答案是B", 1),
        ("B: cat", 1),
        ("B cat", 1),
        ("B. because it purrs", 1),
        ("cat", 1),
        ("A cat.", 1),
        ("The answer is cat", 1),
        ("a", 0),
        ("A or B", None),
        ("A) or B)", None),
        ("A, B", None),
        ("A. cat", None),
        ("B) not a dog", None),
        ("All of the above", None),
        ("I cannot hear", None),
        ("I cannot hear any audio.", None),
        ("A dog barks", None),
        ("Certainly! B", None),
        ("the answer is not B", None),
        ("Bcat", None),
        ("E", None),
        ("", None),
    ],
)
def test_choice_reads_this_table(answer: str, position: int | None) -> None:
    assert choice(answer, OPTIONS) == position


@pytest.mark.parametrize("options", [[], ["cat"], ["cat", "The cat!"], [str(k) for k in range(27)]])
def test_choice_refuses_options_that_are_not_two_to_26_different_texts(options: list[str]) -> None:
    with pytest.raises(DataError, match="options"):
        choice("A", options)


@given(st.text(max_size=40))
def test_parsers_never_fail_on_what_a_model_may_write(answer: str) -> None:
    assert yes_no(answer) in (True, False, None)
    assert choice(answer, OPTIONS) in (0, 1, 2, 3, None)


def test_scorers_count_the_unparsable_as_wrong() -> None:
    assert SCORERS["yes_no"]("not sure", Expected("no")) == (False, None)
    assert SCORERS["choice"]("none", Expected("B", options=tuple(OPTIONS))) == (False, None)
    assert SCORERS["exact"]("...", Expected("cat")) == (False, None)


def test_scorers_read_both_sides_alike() -> None:
    assert SCORERS["yes_no"]("No, never", Expected("No.")) == (True, "no")
    assert SCORERS["choice"]("(b)", Expected("cat", options=tuple(OPTIONS))) == (True, "cat")
    assert SCORERS["exact"]("puppy", Expected("Dog", accepted=("puppy",))) == (True, "dog")
    assert SCORERS["exact"]("a wolf", Expected("Dog")) == (False, "wolf")


@pytest.mark.parametrize("metric", ["yes_no", "choice"])
def test_scorers_refuse_an_expected_answer_they_cannot_read(metric: str) -> None:
    with pytest.raises(DataError, match="expected answer"):
        SCORERS[metric]("yes", Expected("perhaps", options=tuple(OPTIONS)))


def test_an_unknown_metric_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'exact'"):
        scorer("exakt")


def test_run_files_may_name_every_metric_and_no_other() -> None:
    assert set(get_args(get_type_hints(EvaluationConfig)["metric"])) == set(SCORERS)
