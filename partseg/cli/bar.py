"""One line on a terminal that shows how far something is; silent elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType


class Bar:
    """A :class:`partseg.progress.Progress` on standard error; use it as a context manager.

    Args:
        unit: what is counted.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)

    def update(self, done: int, total: int, message: str = "") -> None:
        """Draw the line again."""
        if self._shown:
            text = f"\r{done:,} of {total:,} {self.unit} {message}"
            print(text, end="\x1b[K", file=sys.stderr, flush=True)

    def log(self, message: str) -> None:
        """Print one line above it."""
        if self._shown:
            print(f"\r{message}\x1b[K", file=sys.stderr)
