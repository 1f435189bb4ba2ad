"""Progress of long work: bars with time left on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from omniloom.cli.terminal import console, duration, say

__all__ = ["View"]

_SECONDS_BETWEEN_LINES = 5.0


class View:
    """Named counters. On a terminal each is a bar; elsewhere the one that moves is a line from time to time."""

    def __init__(self) -> None:
        self.console = console()
        self.bars: Any = None
        self.ids: dict[str, Any] = {}
        self.started: dict[str, tuple[float, int]] = {}
        self.last_line_s = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            facts = TextColumn("{task.fields[facts]}", markup=False)
            name = TextColumn("{task.description}", markup=False)
            self.bars = Progress(
                name, BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), facts, console=self.console
            )
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.bars is not None:
            self.bars.console.print(text)
        else:
            say(text)

    def start(self, name: str, total: int, first: int = 0) -> None:
        """A counter that stands at `first` of `total`."""
        self.started[name] = (time.monotonic(), first)
        if self.bars is not None:
            self.ids[name] = self.bars.add_task(name, total=total, completed=first, facts="")

    def moved(self, name: str, done: int, total: int, facts: str = "") -> None:
        """A counter stands at `done` now."""
        if name not in self.started:
            self.start(name, total, max(done - 1, 0))
        now = time.monotonic()
        since, first = self.started[name]
        left_s = (now - since) / max(done - first, 1) * (total - done)
        is_done = done >= total
        text = f"{facts}  " * bool(facts) + ("" if is_done else f"{duration(left_s)} left")
        if self.bars is not None:
            self.bars.update(self.ids[name], completed=done, total=total, facts=text)
        elif is_done or now - self.last_line_s >= _SECONDS_BETWEEN_LINES:
            self.last_line_s = now
            took = f"done in {duration(now - since)}" if is_done else ""
            say(f"{name}  {done}/{total}  {text}{took}".rstrip())

    def tell(self, event: Mapping[str, Any]) -> None:
        """Show an event of training, evaluation or the quickstart; what has no picture here is passed over."""
        kind = event["event"]
        if kind == "stage":
            self.note(f"stage {event['stage']}: {event['steps']} steps, {event['parameters']:,} parameters train")
        elif kind == "step":
            facts = f"loss {event['loss']:.3f}"
            if "tokens_per_s" in event:
                facts += f"  {event['tokens_per_s']:,.0f} tokens/s"
            self.moved(event["stage"], event["step"] + 1, event["steps"], facts)
        elif kind == "sample":
            place = f"{event['stage']} {event['step'] + 1}, {event['source']} {event['id']}"
            self.note(f"  {place}: expected {event['expected']!r}, says {event['answer']!r}")
        elif kind == "note":
            self.note(event["text"])
        elif kind == "saved":
            self.note(f"trained in {duration(event['elapsed_s'])}, saved")
        elif kind == "task":
            self.moved(f"evaluate {event['task']}", event["done"], event["total"])
        elif kind == "fetch":
            self.note(f"{event['name']}: {event['stage']}")
        elif kind == "phases":
            self.note(f"{duration(event['total_s'])} in all, {duration(event['fetch_s'])} of it to fetch and convert")
