"""Laws and what became of them: kept, broken, or not reached because an earlier one broke.

A law is a sentence, a proof that runs, and what to do if it does not hold. The ledger runs every proof it can, so that
one run of the kit tells everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from omniloom.errors import OmniloomError

__all__ = ["ConformanceFailure", "ConformanceReport", "LawBrokenError", "LawResult", "Ledger"]

_MARKS = {"kept": "kept  ", "broken": "BROKEN", "unreached": "-     "}


class LawBrokenError(AssertionError):
    """Raised inside a proof: what was got and what was expected."""


@dataclass(frozen=True)
class LawResult:
    """`law`: the sentence. `seen`: what the proof measured, or what was got and expected. `remedy`: what to do."""

    law: str
    state: Literal["kept", "broken", "unreached"]
    seen: str
    remedy: str

    def __str__(self) -> str:
        line = f"{_MARKS[self.state]}  {self.law:<58} {self.seen}"
        return f"{line}\n        what to do: {self.remedy}" if self.state == "broken" else line


@dataclass(frozen=True)
class ConformanceReport:
    """What the kit found of `subject`, law by law; `str()` is a table."""

    subject: str
    results: tuple[LawResult, ...]

    @property
    def broken(self) -> tuple[LawResult, ...]:
        """The laws that do not hold."""
        return tuple(result for result in self.results if result.state == "broken")

    @property
    def is_kept(self) -> bool:
        """Whether every law holds."""
        return all(result.state == "kept" for result in self.results)

    def __getitem__(self, law: str) -> LawResult:
        """The result of one law, by its sentence or the only sentence that begins so."""
        found = [result for result in self.results if result.law == law or result.law.startswith(law)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} laws begin with {law!r}; known: {', '.join(r.law for r in self.results)}.")
        return found[0]

    def __str__(self) -> str:
        count = {state: sum(result.state == state for result in self.results) for state in _MARKS}
        head = f"{self.subject}: {count['kept']} laws kept, {count['broken']} broken"
        head += f", {count['unreached']} not reached" if count["unreached"] else ""
        return "\n".join([head, *map(str, self.results)])


class ConformanceFailure(AssertionError):
    """A part breaks a law; the message is the table, `report` the same as data."""

    def __init__(self, report: ConformanceReport) -> None:
        self.report = report
        broken = "\n".join(map(str, report.broken))
        super().__init__(
            f"{report.subject} breaks {len(report.broken)} of {len(report.results)} laws.\n{broken}\n\n{report}"
        )


class Ledger:
    """Runs proofs and keeps their results."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._results: list[LawResult] = []

    def prove(self, law: str, proof: Callable[[], str], *, remedy: str, needs: Sequence[str] = ()) -> bool:
        """Run a proof, which returns what it measured or raises; returns whether the law is kept.

        `needs`: laws without which this one means nothing; if one of them is not kept, this one is not reached.
        """
        missing = [need for need in needs if not self.is_kept(need)]
        if missing:
            self._results.append(LawResult(law, "unreached", f"needs: {missing[0]}", remedy))
            return False
        try:
            self._results.append(LawResult(law, "kept", proof(), remedy))
        except LawBrokenError as error:
            self._results.append(LawResult(law, "broken", str(error), remedy))
        except OmniloomError as error:
            self._results.append(LawResult(law, "broken", str(error), remedy))
        except Exception as error:  # the part is somebody's own code: whatever it raises is the finding
            self._results.append(LawResult(law, "broken", f"raised {type(error).__name__}: {error}", remedy))
        return self._results[-1].state == "kept"

    def is_kept(self, law: str) -> bool:
        """Whether a law was proven and holds."""
        return any(result.law == law and result.state == "kept" for result in self._results)

    def report(self) -> ConformanceReport:
        """Everything so far.

        Raises:
            ConformanceFailure: a law is broken.
        """
        report = ConformanceReport(self.subject, tuple(self._results))
        if report.broken:
            raise ConformanceFailure(report)
        return report
