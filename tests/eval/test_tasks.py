from collections.abc import Callable

import numpy as np
import pytest

from omniloom.errors import ConfigError, DataError, MediaError
from omniloom.eval import FailedSample, TaskResult, run_task
from omniloom.sequence import Item, Sample, Text, Turn

LABELS = ("ape", "bee", "cow", "doe")


def samples_of(count: int, *modalities: str) -> list[Sample]:
    """Item payloads are (position, label); the label is the expected answer."""
    made = []
    for k in range(count):
        label = LABELS[k % len(LABELS)]
        items = tuple(Item(modality, (k, label)) for modality in modalities or ("image",))
        turns = (Turn("user", (*items, Text("Which animal?"))), Turn("assistant", (Text(label),)))
        made.append(Sample(f"s{k}", turns, group=f"g{k // 5}"))
    return made


def seen(prompt: Sample) -> list[str]:
    return [item.payload[1] for _, item in prompt.items()]


def oracle(prompts: list[Sample]) -> list[str]:
    return [(seen(prompt) or ["ape"])[0] for prompt in prompts]


def guesser(seed: int) -> Callable[[list[Sample]], list[str]]:
    def answer(prompts: list[Sample]) -> list[str]:
        return [str(np.random.default_rng([seed, *prompt.id.encode()]).choice(LABELS)) for prompt in prompts]

    return answer


def test_an_oracle_has_all_right_and_lies_above_chance() -> None:
    result = run_task("t", samples_of(40), oracle)
    assert (result.score, result.correct, result.n) == (1.0, 40, 40)
    assert result.above_chance and result.interval95.high == 1.0


def test_a_guesser_lies_in_the_chance_band() -> None:
    results = [run_task("t", samples_of(120), guesser(seed), probes=[]) for seed in range(20)]
    outside = [r for r in results if not r.chance.band99.low <= r.score <= r.chance.band99.high]
    assert len(outside) <= 1
    assert [r for r in results if r.above_chance] == [r for r in outside if r.score > 0.25]


def test_always_the_same_answer_scores_its_share() -> None:
    result = run_task("t", samples_of(40), lambda prompts: ["bee"] * len(prompts), probes=[])
    assert result.score == 0.25 == result.chance.value
    chance = result.chance
    assert (chance.rule, chance.majority, chance.uniform, chance.k) == ("majority", 0.25, 0.25, 4)


def test_empty_answers_score_zero_and_are_all_unparsable() -> None:
    result = run_task("t", samples_of(20), lambda prompts: [""] * len(prompts))
    assert result.score == 0.0 and result.unparsable == 20
    assert result.confusion["ape"] == {"(unparsable)": 5}


def test_chance_can_be_given() -> None:
    chance = run_task("t", samples_of(40), oracle, chance=0.5, probes=[]).chance
    assert (chance.value, chance.rule) == (0.5, "given")


def test_blind_prompts_reach_the_model_without_media() -> None:
    asked: list[Sample] = []

    def watch(prompts: list[Sample]) -> list[str]:
        asked.extend(prompts)
        return oracle(prompts)

    result = run_task("t", samples_of(40), watch, probes=["blind"])
    assert result.blind is not None
    assert (result.blind.score, result.blind.n) == (0.25, 40)
    # All forty read alike without their pictures, so they are asked once.
    assert [bool(prompt.modalities) for prompt in asked] == [True] * 40 + [False]


def test_prompts_never_hold_the_expected_answer() -> None:
    def watch(prompts: list[Sample]) -> list[str]:
        assert all(turn.role == "user" for prompt in prompts for turn in prompt.turns)
        return oracle(prompts)

    run_task("t", samples_of(8), watch, probes=["blind", "shuffled", "permuted"])


def test_shuffled_media_take_an_oracle_to_zero_and_permuted_ones_to_chance() -> None:
    result = run_task("t", samples_of(120), oracle, probes=["shuffled", "permuted"])
    assert result.shuffled is not None and result.permuted is not None
    assert result.shuffled.score == 0.0
    assert result.permuted.band99.low <= result.permuted.score <= result.permuted.band99.high


def test_a_model_that_ignores_media_does_not_notice_the_shuffle() -> None:
    result = run_task("t", samples_of(60), guesser(0), probes=["shuffled", "permuted"])
    assert result.shuffled is not None and result.permuted is not None
    assert result.shuffled.score == result.permuted.score == result.score


def test_each_modality_alone_shows_which_one_the_model_needs() -> None:
    def needs_audio(prompts: list[Sample]) -> list[str]:
        heard = [[item.payload[1] for _, item in prompt.items() if item.modality == "audio"] for prompt in prompts]
        return [(label or ["ape"])[0] for label in heard]

    result = run_task("t", samples_of(40, "image", "audio"), needs_audio, probes=["alone"])
    assert {modality: probe.score for modality, probe in result.alone.items()} == {"image": 0.25, "audio": 1.0}


def test_a_task_that_needs_both_is_at_chance_with_either_alone() -> None:
    made = []
    for k in range(80):
        a, b = k // 2 % 2, k % 2
        items = (Item("image", a), Item("audio", b))
        answer = "yes" if a == b else "no"
        turns = (Turn("user", (*items, Text("Do they agree?"))), Turn("assistant", (Text(answer),)))
        made.append(Sample(str(k), turns))

    def agree(prompts: list[Sample]) -> list[str]:
        values = [[item.payload for _, item in prompt.items()] for prompt in prompts]
        return ["yes" if len(set(value)) < 2 else "no" for value in values]

    result = run_task("t", made, agree, metric="yes_no", probes=["alone", "blind", "permuted"])
    assert result.score == 1.0 and result.blind is not None and result.permuted is not None
    assert all(probe.score == 0.5 for probe in (*result.alone.values(), result.blind))
    assert result.permuted.band99.low <= result.permuted.score <= result.permuted.band99.high


@pytest.mark.parametrize("batch", [1, 3, 16, 1000])
def test_the_batch_size_changes_nothing(batch: int) -> None:
    probes = ["blind", "shuffled", "permuted", "alone"]
    reference = run_task("t", samples_of(30, "image", "audio"), guesser(1), probes=probes, batch=7)
    assert run_task("t", samples_of(30, "image", "audio"), guesser(1), probes=probes, batch=batch) == reference


def test_the_order_of_samples_changes_no_number() -> None:
    forward = run_task("t", samples_of(30), guesser(1), probes=["blind"])
    backward = run_task("t", samples_of(30)[::-1], guesser(1), probes=["blind"])
    assert (forward.score, forward.confusion, forward.chance) == (backward.score, backward.confusion, backward.chance)
    assert sorted(item.id for item in forward.items) == sorted(item.id for item in backward.items)


def broken_at(*bad: str) -> Callable[[list[Sample]], list[str]]:
    def answer(prompts: list[Sample]) -> list[str]:
        if any(prompt.id in bad for prompt in prompts):
            raise MediaError("invalid_image", "the picture is cut short.")
        return oracle(prompts)

    return answer


def test_a_failing_sample_is_wrong_with_its_reason_and_takes_nobody_along() -> None:
    result = run_task("t", samples_of(20), broken_at("s3"), probes=[], batch=8)
    assert (result.n, result.correct, result.failed, result.unparsable) == (20, 19, 1, 0)
    failed = result.items[3]
    assert (failed.id, failed.answer, failed.correct) == ("s3", None, False)
    assert failed.reason == "MediaError: [invalid_image] the picture is cut short."
    assert result.confusion["doe"] == {"(failed)": 1, "doe": 4}


def test_a_sample_that_could_not_be_read_stays_in_the_denominator() -> None:
    lost = FailedSample("lost", "ape", "no such file", group="g9", modalities=("image",))
    result = run_task("t", [*samples_of(8), lost], oracle)
    assert (result.n, result.correct, result.failed) == (9, 8, 1)
    assert result.items[-1].reason == "no such file"


def test_a_task_of_which_everything_fails_is_an_error_not_a_zero() -> None:
    with pytest.raises(DataError, match=r"every sample of task 't' failed.*cut short"):
        run_task("t", samples_of(4), broken_at("s0", "s1", "s2", "s3"))


def test_a_probe_of_which_everything_fails_has_no_score_but_a_note() -> None:
    def no_blind(prompts: list[Sample]) -> list[str]:
        if any(not prompt.modalities for prompt in prompts):
            raise DataError("a picture is needed.")
        return oracle(prompts)

    result = run_task("t", samples_of(8), no_blind, probes=["blind"])
    assert result.blind is None and result.score == 1.0
    (note,) = result.notes
    assert note == "probe blind: every prompt failed, so it has no score; the first: DataError: a picture is needed."


def test_a_defect_of_the_model_is_not_counted_as_a_wrong_answer() -> None:
    def defect(prompts: list[Sample]) -> list[str]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError):
        run_task("t", samples_of(4), defect)


def test_probes_that_cannot_apply_say_so() -> None:
    text_only = [
        Sample(str(k), (Turn("user", (Text(f"{k}?"),)), Turn("assistant", (Text(LABELS[k % 2]),)))) for k in range(4)
    ]
    result = run_task("t", text_only, lambda prompts: ["ape"] * len(prompts), probes=["blind", "shuffled", "alone"])
    assert (result.blind, result.shuffled, result.alone) == (None, None, {})
    assert len(result.notes) == 3


def test_groups_widen_the_interval_and_are_counted() -> None:
    def by_group(prompts: list[Sample]) -> list[str]:
        return [answer if int(p.group[1:]) % 2 else "" for p, answer in zip(prompts, oracle(prompts), strict=True)]

    result = run_task("t", samples_of(40), by_group, probes=[])
    assert result.groups == 8 and result.clustered95 is not None
    width = result.interval95.high - result.interval95.low
    assert result.clustered95.high - result.clustered95.low > 1.5 * width


def test_other_accepted_answers_count_as_right() -> None:
    turns = (Turn("user", (Text("?"),)), Turn("assistant", (Text("sofa"),)))
    made = [Sample(str(k), turns, meta={"accept": ["couch"]}) for k in range(2)]
    result = run_task("t", made, lambda prompts: ["A couch."] * len(prompts), probes=[])
    assert result.score == 1.0 and result.confusion == {"sofa": {"sofa": 2}}


def test_progress_ends_at_its_total() -> None:
    calls: list[tuple[int, int]] = []
    run_task("t", samples_of(20), oracle, probes=["blind", "shuffled"], progress=lambda *call: calls.append(call))
    assert calls[-1] == (41, 41) and calls == sorted(calls)


def test_equal_runs_are_equal() -> None:
    def run() -> TaskResult:
        return run_task("t", samples_of(40), guesser(3), probes=["blind", "shuffled", "permuted"], seed=5)

    assert run() == run()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metric": "bleu"}, ConfigError, "unknown metric"),
        ({"probes": ["blnd"]}, ConfigError, "Did you mean 'blind'"),
        ({"batch": 0}, ConfigError, "batch 0"),
        ({"samples": []}, DataError, "no samples"),
        ({"samples": samples_of(2) * 2}, DataError, "more than once"),
        ({"samples": [sample.prompt() for sample in samples_of(2)]}, DataError, "no expected answer"),
        ({"answer_fn": lambda prompts: ["one"]}, DataError, "1 answers to 8 prompts"),
        ({"chance": 1.2}, DataError, "chance"),
    ],
)
def test_tasks_that_cannot_be_measured_are_refused(change: dict, error: type[Exception], message: str) -> None:
    call = {"samples": samples_of(8), "answer_fn": oracle, **change}
    with pytest.raises(error, match=message):
        run_task("t", call.pop("samples"), call.pop("answer_fn"), **call)
