"""What a stage is given: the artifacts it builds on and the context it runs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from partseg.datasets.shards import Mapper
from partseg.errors import SourceError
from partseg.progress import Progress, Silent
from pipelines.launch import Launch

Metrics = Mapping[str, float | int | str]


class RawRoots(dict[str, Path]):
    """Raw source name -> its local folder; a missing one says how to give it."""

    def __missing__(self, source: str) -> Path:
        raise SourceError(
            f"the raw files of {source} are needed and no folder is known for them",
            fix=f"give it with --raw {source}=DIR or PARTSEG_RAW_{source.upper()}, "
            f"or run partseg data get {source}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The finished output of one stage, as the stages after it see it.

    Attributes:
        stage: name of the stage in its recipe.
        key: what it was made from (see :mod:`pipelines.keys`).
        digest: sha256 of its content; equal digests mean equal files.
        path: local directory with its files; read only.
        raw: local folder of every raw source among the stages it was made from.
    """

    stage: str
    key: str
    digest: str
    path: Path
    raw: Mapping[str, Path] = field(default_factory=RawRoots)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """One file of a raw source: posix path under its folder, size in bytes and sha256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a running stage may use beside its parameters and inputs; a ``Progress`` as well.

    Nothing in here may influence the content the stage writes.

    Attributes:
        work: a directory that survives an interruption and is found again by the next run of the
            same stage with the same key: the place for checkpoints. Removed once the stage is done.
        records: the run's own folder for this stage's logs and curves, which are no content; made by the
            stage if it has any.
        workers: how many worker processes the stage may start; 0 means none.
        launch: how many processes and machines train.
        listing: the files of the local raw folder, for a stage that lists one
            (:meth:`pipelines.params.StageParams.raw_files`).
        raw_root: that folder.
        mapper: runs the shards of a conversion on other machines; None for this one's processes.
        progress: where ``update`` and ``log`` go.
    """

    work: Path
    records: Path | None = None
    workers: int = 0
    launch: Launch = field(default_factory=Launch)
    listing: Sequence[RawFile] | None = None
    raw_root: Path | None = None
    mapper: Mapper | None = None
    progress: Progress = field(default_factory=Silent)

    def update(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` steps are finished; ``message`` says what is going on now."""
        self.progress.update(done, total, message)

    def log(self, message: str) -> None:
        """One line for the run's log."""
        self.progress.log(message)


StageFunction = Callable[[object, Mapping[str, Artifact], Path, StageContext], Metrics]
