from dataclasses import replace

import pytest

from omniloom.errors import DataError
from omniloom.eval import Results, compare, comparison_table, run_task
from omniloom.eval.intervals import mcnemar

from .test_tasks import guesser, oracle, samples_of


def results(answer_fn, *names: str, count: int = 40) -> Results:
    return Results("run", "", {name: run_task(name, samples_of(count), answer_fn, probes=[]) for name in names})


def test_comparing_pairs_items_by_their_id_not_their_place() -> None:
    a, b = results(guesser(1), "t"), results(guesser(0), "t")
    mixed = Results("b", "", {"t": replace(b.tasks["t"], items=b.tasks["t"].items[::-1])})
    (row,) = compare(a, mixed)
    expected = mcnemar([item.correct for item in a.tasks["t"].items], [item.correct for item in b.tasks["t"].items])
    assert (row.only_a, row.only_b, row.p, row.mid_p) == (expected.only_a, expected.only_b, expected.p, expected.mid_p)
    assert row.difference == pytest.approx(b.tasks["t"].score - a.tasks["t"].score)


def test_a_clear_difference_is_found() -> None:
    (row,) = compare(results(oracle, "t"), results(guesser(0), "t"))
    assert row.p < 1e-4 and row.only_b == 0 and row.n == 40


def test_several_tasks_are_corrected_together() -> None:
    rows = compare(results(oracle, "t", "u", "v"), results(guesser(0), "t", "u", "v"))
    assert [row.task for row in rows] == ["t", "u", "v"]
    assert all(row.p_holm == pytest.approx(min(1.0, 3 * row.p)) for row in rows)


def test_only_common_tasks_are_compared() -> None:
    assert [row.task for row in compare(results(oracle, "t", "u"), results(oracle, "u"))] == ["u"]
    with pytest.raises(DataError, match="share no task"):
        compare(results(oracle, "t"), results(oracle, "u"))


def test_different_items_are_refused() -> None:
    with pytest.raises(DataError, match="in one result only"):
        compare(results(oracle, "t", count=40), results(oracle, "t", count=36))
    b = results(oracle, "t")
    items = (replace(b.tasks["t"].items[0], expected="yak"), *b.tasks["t"].items[1:])
    with pytest.raises(DataError, match="yak"):
        compare(results(oracle, "t"), Results("b", "", {"t": replace(b.tasks["t"], items=items)}))


def test_the_comparison_prints_as_a_table() -> None:
    text = comparison_table(compare(results(oracle, "t"), results(oracle, "t")), "mlp", "qformer")
    header, _, row = text.splitlines()
    assert "only qformer" in header and row.split()[-1] == "1"
