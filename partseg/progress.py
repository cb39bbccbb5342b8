"""How long work tells whoever is watching how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Where a stage reports to. Implementations must be cheap: they are called in inner loops."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` steps are finished; ``message`` says what is going on now."""

    def log(self, message: str) -> None:
        """One line for the run's log."""


class Silent:
    """Reports to nobody."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Do nothing."""

    def log(self, message: str) -> None:
        """Do nothing."""
