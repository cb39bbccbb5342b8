"""Errors written for the person who has to act on them.

Every error states what is wrong, where (file, record) and how to mend it. The command line
prints it as one line and exits with code 2; a traceback always means a bug in partseg.
"""

from __future__ import annotations


class PartsegError(Exception):
    """Something a person can mend.

    Args:
        what: what is wrong, without a full stop.
        where: the file, and the record in it, that is at fault.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(": ".join(str(part) for part in (where, what) if part) + (f"; {fix}" if fix else ""))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would otherwise be lost on the way back from a worker process.
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[PartsegError], what: str, where: object, fix: str | None) -> PartsegError:
    return kind(what, where=where, fix=fix)


class SourceError(PartsegError):
    """Raw data is missing, incomplete or damaged."""


class LayoutError(PartsegError):
    """A dataset in the common layout breaks one of the layout's rules."""


class FormatTooNew(LayoutError):
    """The dataset was written by a newer partseg than this one."""


class FormatTooOld(LayoutError):
    """The dataset was written by an older partseg and must be upgraded first."""


class RecipeError(PartsegError):
    """A recipe, a profile or a selection of stages does not make sense."""


class StoreError(PartsegError):
    """The artifact store cannot be read or written."""


class MissingArtifact(StoreError):
    """A stage needs an artifact that is not in the store."""


class WeightsError(PartsegError):
    """Model weights are missing, unreadable or do not fit the model."""


class TrainingError(PartsegError):
    """Training cannot go on, for instance because the loss is no longer finite."""
