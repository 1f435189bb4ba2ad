from omniloom.eval import pick_examples, run_task

from .test_tasks import guesser, oracle, samples_of


def test_a_third_of_the_examples_are_failures_even_of_a_good_model() -> None:
    def nearly(prompts):
        return ["" if prompt.id in ("s3", "s9", "s30", "s31", "s32") else oracle([prompt])[0] for prompt in prompts]

    result = run_task("t", samples_of(120), nearly, probes=[])
    chosen = pick_examples(result, 12)
    wrong = {item.id for item in result.items if not item.correct}
    assert len(chosen) == 12 and len(wrong & set(chosen)) == 4


def test_failures_are_shown_in_their_true_share_if_that_is_more() -> None:
    result = run_task("t", samples_of(120), guesser(0), probes=[])
    chosen = pick_examples(result, 12)
    share = sum(not item.correct for item in result.items if item.id in chosen) / 12
    assert abs(share - (1 - result.score)) < 0.06


def test_examples_go_round_the_expected_answers() -> None:
    result = run_task("t", samples_of(120), oracle, probes=[])
    chosen = pick_examples(result, 8)
    labels = [item.expected for item in result.items if item.id in chosen]
    assert sorted(labels) == sorted(["ape", "bee", "cow", "doe"] * 2)


def test_all_items_are_taken_where_there_are_few() -> None:
    result = run_task("t", samples_of(5), oracle, probes=[])
    assert pick_examples(result, 12) == [f"s{k}" for k in range(5)]
    assert pick_examples(result, 0) == []
