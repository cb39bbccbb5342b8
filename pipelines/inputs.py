"""What several kinds of stage do with their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from partseg.errors import RecipeError
from partseg.layout import Category, Dataset
from partseg.layout.manifest import read_manifest
from pipelines.artifact import Artifact, StageContext

Group = Literal["all", "base", "novel"]
KindOfClass = Literal["object", "part", "all"]
"""Which categories are classes: a dataset's objects, its parts, or both."""


def open_dataset(artifact: Artifact) -> Dataset:
    """The dataset in an artifact, with its images found in the raw source they came from."""
    source = read_manifest(artifact.path).image_source
    return Dataset.open(artifact.path, image_root=artifact.raw[source])


def chosen(
    categories: Sequence[Category],
    *,
    kind: KindOfClass,
    group: Group = "all",
) -> list[Category]:
    """The categories of one kind or of both, and of one group where the dataset has groups.

    Raises:
        RecipeError: there are none.
    """
    kinds = ("object", "part") if kind == "all" else (kind,)
    found = [c for c in categories if c.kind in kinds and group in ("all", c.group)]
    if not found:
        raise RecipeError(
            f"the dataset has no {' or '.join(kinds)} categories of group {group}",
            fix="choose another group, or a dataset whose category table names groups",
        )
    return found


def reading_workers(report: StageContext) -> int:
    """How many processes shall read images: on a CPU none, they would take its time from the network."""
    import torch

    return report.workers if torch.cuda.is_available() else 0
