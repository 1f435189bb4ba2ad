"""Results as plain text for a terminal: aligned columns, no colours, the same bytes everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from omniloom.eval.compare import Comparison
from omniloom.eval.intervals import Interval
from omniloom.eval.results import Probe, Results

__all__ = ["band", "comparison_table", "percent", "table"]


def percent(share: float) -> str:
    """0.7345 -> "73.5 %"."""
    return f"{100 * share:.1f} %"


def band(interval: Interval) -> str:
    """Interval(0.641, 0.79) -> "64.1-79.0"."""
    return f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"


def table(results: Results) -> str:
    """One line per task: the score with its interval beside chance and the probes; then every note."""
    header = ["task", "modalities", "n", "score", "95 %", "chance", "99 % band", "blind", "shuffled"]
    header += ["unparsable", "failed"]
    rows = [
        [
            name,
            "+".join(task.modalities) or "text",
            str(task.n),
            percent(task.score) + ("" if task.above_chance else " *"),
            band(task.interval95),
            percent(task.chance.value),
            band(task.chance.band99),
            _probe(task.blind),
            _probe(task.shuffled),
            str(task.unparsable),
            str(task.failed),
        ]
        for name, task in results.tasks.items()
    ]
    lines = [_align(header, rows, left=2)]
    if any(not task.above_chance for task in results.tasks.values()):
        lines.append("* not above the 99 % chance band")
    for name, task in results.tasks.items():
        extra = {"permuted": task.permuted, **{f"{key} alone": probe for key, probe in task.alone.items()}}
        lines += [f"{name}: {label} {_probe(probe)} (n {probe.n})" for label, probe in extra.items() if probe]
        lines += [f"{name}: {note}" for note in task.notes]
    return "\n".join(lines) + "\n"


def comparison_table(rows: Sequence[Comparison], name_a: str = "a", name_b: str = "b") -> str:
    """One line per task of `compare`."""
    header = ["task", "n", name_a, name_b, "difference", f"only {name_a}", f"only {name_b}", "p", "p (Holm)"]
    body = [
        [
            row.task,
            str(row.n),
            percent(row.score_a),
            percent(row.score_b),
            f"{100 * row.difference:+.1f}",
            str(row.only_a),
            str(row.only_b),
            f"{row.p:.2g}",
            f"{row.p_holm:.2g}",
        ]
        for row in rows
    ]
    return _align(header, body, left=1) + "\n"


def _probe(probe: Probe | None) -> str:
    return "-" if probe is None else percent(probe.score)


def _align(header: list[str], rows: list[list[str]], *, left: int) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
