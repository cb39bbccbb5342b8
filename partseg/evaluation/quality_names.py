"""The names under which PQ and PartPQ appear in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from partseg.evaluation.match_counts import Average, Floats, MatchTable


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityNames:
    """What a family calls its measures.

    Attributes:
        family: stands before every name, with a slash.
        quality: name of the quality; so are ``segmentation`` and ``recognition``.
    """

    family: str
    quality: str
    segmentation: str
    recognition: str

    def metrics(self, averages: Mapping[str, Average]) -> dict[str, float]:
        """The numbers of groups of classes, by name; what is not defined is left out."""
        found: dict[str, float] = {}
        for group, average in averages.items():
            for measure, name in self._of(group).items():
                value = getattr(average, measure)
                if value is not None:
                    found[name] = value
        return found

    def resampled(
        self, table: MatchTable, weights: ArrayLike, members: Mapping[str, Sequence[bool]]
    ) -> dict[str, Floats]:
        """The same numbers for B samples of the images.

        Args:
            table: every image's counts.
            weights: int [B, I], how often each image is in each sample.
            members: group -> which of the table's classes belong to it.

        Returns:
            float64 [B] by name; nan where it is not defined.
        """
        found: dict[str, Floats] = {}
        for group, chosen in members.items():
            values = table.averages(weights, chosen)
            found |= {name: values[measure] for measure, name in self._of(group).items()}
        return found

    def _of(self, group: str) -> dict[str, str]:
        suffix = "" if group == "all" else f"_{group}"
        measures = ("quality", "segmentation", "recognition")
        return {measure: f"{self.family}/{getattr(self, measure)}{suffix}" for measure in measures}
