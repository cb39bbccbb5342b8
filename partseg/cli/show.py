"""A run as it goes by: a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from partseg.cli.tables import console, paint, seconds_text

if TYPE_CHECKING:
    from pipelines.plan import Plan, Row
    from pipelines.watch import Result

PLAIN_INTERVAL = 10.0
"""Seconds between two progress lines where nothing can move."""
MOST_METRICS = 4


class Show:
    """Watches a run (see :class:`pipelines.watch.Watcher`) and prints it."""

    def __init__(self, plan: Plan) -> None:
        self.places = {row.stage: place for place, row in enumerate(plan.rows, 1)}
        self.width = max(len(row.stage) for row in plan.rows)
        self.console: Console = console()
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(24),
                TextColumn("{task.fields[note]}"),
            )
            self.bar = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        self._task: TaskID | None = None
        self._last = 0.0

    def __enter__(self) -> Show:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def started(self, row: Row) -> None:
        """Nothing to say yet: the stage may be cached."""

    def building(self, row: Row) -> None:
        """The stage runs."""
        self._last = time.monotonic()
        why = "; ".join(row.why[:2])
        if self.bar is None:
            self._line(row.stage, f"{paint('running')}  {escape(why)}")
        else:
            self._task = self.bar.add_task(self._head(row.stage), total=None, note=escape(why[:60]))

    def progress(self, stage: str, done: int, total: int, message: str) -> None:
        """How far the stage is."""
        note = f"{done}/{total} {escape(message)}"
        if self.bar is not None and self._task is not None:
            self.bar.update(self._task, completed=done, total=total or None, note=note)
        elif self.bar is None and time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            self._line(stage, note)

    def log(self, stage: str, message: str) -> None:
        """A line of the stage's log."""
        self._line(stage, f"[dim]{escape(message)}[/]")

    def finished(self, result: Result) -> None:
        """How it ended."""
        self._clear()
        if result.state == "skipped":
            return
        took = f" in {seconds_text(result.seconds)}" if result.state == "built" else ""
        self._line(
            result.stage, f"{paint(result.state)}{took}  [dim]{escape(metrics_text(result.metrics))}[/]"
        )

    def failed(self, row: Row, error: BaseException) -> None:
        """The error itself is printed once, at the end."""
        self._clear()
        self._line(row.stage, paint("failed" if isinstance(error, Exception) else "stopped"))

    def _clear(self) -> None:
        if self.bar is not None and self._task is not None:
            self.bar.remove_task(self._task)
        self._task = None

    def _head(self, stage: str) -> str:
        return f"{self.places[stage]:>2}/{len(self.places)} {stage:<{self.width}}"

    def _line(self, stage: str, text: str) -> None:
        self.console.print(f"{self._head(stage)}  {text}".rstrip(), soft_wrap=True)


def metrics_text(metrics: Any) -> str:
    """The first few metrics on one line."""
    shown = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in list(metrics.items())[:MOST_METRICS]
    ]
    return " ".join(shown)
