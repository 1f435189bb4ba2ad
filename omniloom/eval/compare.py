"""Two models on the same items: exact McNemar per task, and Holm's correction over the tasks."""

from __future__ import annotations

from dataclasses import dataclass

from omniloom.errors import DataError
from omniloom.eval.intervals import holm, mcnemar
from omniloom.eval.results import ItemRecord, Results

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """One task of two runs. `difference` is b's score minus a's; `p_holm` is `p` corrected for the number of tasks."""

    task: str
    n: int
    score_a: float
    score_b: float
    difference: float
    only_a: int
    only_b: int
    p: float
    mid_p: float
    p_holm: float


def compare(a: Results, b: Results) -> list[Comparison]:
    """The tasks that both have, in a's order.

    Raises:
        DataError: no task in common, or a common task whose items or expected answers differ: unpaired answers
            would make the test claim too much.
    """
    common = [name for name in a.tasks if name in b.tasks]
    if not common:
        raise DataError(f"runs {a.run!r} and {b.run!r} share no task; nothing can be compared.")
    tests = []
    for name in common:
        left = {item.id: item for item in a.tasks[name].items}
        right = {item.id: item for item in b.tasks[name].items}
        _check_paired(name, left, right)
        tests.append(mcnemar([item.correct for item in left.values()], [right[key].correct for key in left]))
    adjusted = holm([test.p for test in tests])
    return [
        Comparison(
            task=name,
            n=a.tasks[name].n,
            score_a=a.tasks[name].score,
            score_b=b.tasks[name].score,
            difference=b.tasks[name].score - a.tasks[name].score,
            only_a=test.only_a,
            only_b=test.only_b,
            p=test.p,
            mid_p=test.mid_p,
            p_holm=p_holm,
        )
        for name, test, p_holm in zip(common, tests, adjusted, strict=True)
    ]


def _check_paired(task: str, left: dict[str, ItemRecord], right: dict[str, ItemRecord]) -> None:
    lonely = sorted(left.keys() ^ right.keys())
    if lonely:
        raise DataError(
            f"task {task!r}: item {lonely[0]!r} is in one result only ({len(lonely)} such). "
            "Evaluate both on the same data."
        )
    for key, item in left.items():
        if item.expected != right[key].expected:
            raise DataError(
                f"task {task!r}: item {key!r} expects {item.expected!r} in one result and {right[key].expected!r} "
                "in the other. Evaluate both on the same data."
            )
