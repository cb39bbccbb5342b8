"""Mask AP of a model while it is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from partseg.errors import TrainingError
from partseg.evaluation.coco import evaluate
from partseg.evaluation.predictions import concatenate
from partseg.layout import Dataset, Split
from partseg.models.vlpart import VLPart
from partseg.training.distributed import Processes
from partseg.training.inference import predict_split
from partseg.vocabulary import EmbeddingTable


class Validation(Protocol):
    """What the loop wants of a validation.

    Attributes:
        name: of the measured value, in ``metrics.jsonl``.
        every: iterations between two of them; there is one more at the end.
        identity: of the images and what is looked for in them.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def every(self) -> int: ...  # noqa: D102
    @property
    def identity(self) -> str: ...  # noqa: D102

    def __call__(self, model: VLPart, processes: Processes) -> float:
        """The value, larger is better, the same in every process. All processes call it together."""
        ...


@dataclass(frozen=True, slots=True)
class _First:
    """The first ``count`` images of a split."""

    split: Split
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return self.split[row]


class MaskAP:
    """COCO's AP of masks on images of a dataset, which the processes share.

    Args:
        dataset: with its images.
        split: one of its splits.
        table: an embedding for every category that is looked for.
        every: iterations between two validations.
        names: the categories that are looked for; None means all.
        limit: only the first so many images.
        workers: processes that read images, per process.

    Raises:
        TrainingError: the dataset does not have one of the categories.
        WeightsError: a category has no embedding.
    """

    name = "validation/segm/AP"

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        table: EmbeddingTable,
        *,
        every: int,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        workers: int = 0,
    ) -> None:
        known = {category.name for category in dataset.categories}
        if missing := sorted(set(names or ()) - known):
            raise TrainingError(f"the dataset has no category {missing[0]!r}", where=dataset.folder)
        chosen = [c for c in dataset.categories if names is None or c.name in set(names)]
        self.every, self.workers = every, workers
        self.categories, self.ids = dataset.categories, [c.category_id for c in chosen]
        self.split = dataset.split(split)
        self.images = _First(self.split, min(limit or len(self.split), len(self.split)))
        self.text = table.rows([c.name for c in chosen])
        digest = hashlib.sha256(repr((every, len(self.images), self.split.entry, self.ids)).encode())
        digest.update(self.text.tobytes())
        self.identity = digest.hexdigest()

    def __call__(self, model: VLPart, processes: Processes) -> float:
        """Detect in this process's share of the images; process 0 scores all of them.

        Raises:
            TrainingError: there is nothing to find in the images.
        """
        rows = list(processes.share_of(len(self.images)))
        found = predict_split(model, self.split, self.text, self.ids, rows=rows, workers=self.workers)
        parts = processes.gather(found)

        def score() -> float:
            if processes.rank:
                return 0.0
            result = evaluate(
                self.images, self.categories, concatenate(parts), iou_type="segm", category_ids=self.ids
            )
            value = result.stats["AP"]
            if value is None:
                raise TrainingError(
                    f"the validation's {len(self.images)} images of {self.split!r} show nothing that is "
                    "looked for",
                    fix="check its split, kind and group of categories, and number of images",
                )
            return value

        return processes.share(processes.together(score))
