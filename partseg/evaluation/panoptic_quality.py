"""Panoptic quality: PQ, SQ and RQ over all classes, things and stuff.

A predicted and a true segment of one class match where their IoU is above one half; void pixels do not count
as predicted. A predicted segment that matches none is no mistake where more than half of it is void, or a
crowd of its class (Kirillov et al. 2019, "Panoptic Segmentation", sections 3 and 4). Values are 0 to 1.

Protocols:

- ``panopticapi``: panopticapi's numbers, the published ones. Its peculiarities are kept: areas of true
  segments are those that the JSON file states; only the last crowd of a class takes predictions in; pixels
  whose id the truth does not list are not void; of two predicted segments with one id the last one counts; a
  true segment without a pixel is missed.
- ``correct``: areas are counted, all crowds of a class take predictions in, every pixel without a listed
  segment is void, segments without a pixel do not exist, an id that occurs twice is an error.

In both, SQ of a class of which nothing is found is 0, and classes that do not occur are left out of means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, get_args

from numpy.typing import ArrayLike

from partseg.evaluation.match_counts import Average, Floats, ImageId, MatchCounts, average
from partseg.evaluation.panoptic_image import PanopticClass, PanopticImage, ThingOrStuff
from partseg.evaluation.panoptic_matching import PanopticProtocol, match_segments
from partseg.evaluation.quality_names import QualityNames

_GROUPS = {"all": (True, False), "things": (True,), "stuff": (False,)}
_NAMES = QualityNames(family="panoptic", quality="pq", segmentation="sq", recognition="rq")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """One class; the three measures are 0 to 1, None where it does not occur."""

    category_id: int
    name: str
    is_thing: bool
    tp: int
    fp: int
    fn: int
    pq: float | None
    sq: float | None
    rq: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticResult:
    """Panoptic quality over any number of images.

    Attributes:
        protocol: whose rules were followed.
        images: how many there were.
        all: means over classes that occur: ``quality`` is PQ, ``segmentation`` SQ, ``recognition`` RQ; so are
            ``things`` and ``stuff``.
        classes: every class, in the order given.
    """

    protocol: PanopticProtocol
    images: int
    all: Average
    things: Average
    stuff: Average
    classes: tuple[ClassQuality, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "classes": [asdict(item) for item in self.classes]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave."""
        groups = {name: Average(**content[name]) for name in _GROUPS}
        classes = tuple(ClassQuality(**item) for item in content["classes"])
        return cls(protocol=content["protocol"], images=content["images"], classes=classes, **groups)

    def metrics(self) -> dict[str, float]:
        """The numbers that tables show; what is not defined is left out."""
        return _NAMES.metrics({group: getattr(self, group) for group in _GROUPS})


class PanopticQuality:
    """Panoptic quality, image by image.

    Args:
        categories: the classes that are evaluated; parts do not belong here.
        protocol: see the module.
    """

    def __init__(
        self, categories: Iterable[PanopticClass], protocol: PanopticProtocol = "panopticapi"
    ) -> None:
        if protocol not in get_args(PanopticProtocol):
            raise ValueError(f"no protocol {protocol!r} of panoptic quality")
        self.protocol: PanopticProtocol = protocol
        self.categories = tuple(
            ThingOrStuff(item.category_id, item.name, bool(item.is_thing)) for item in categories
        )
        self.counts = MatchCounts([item.category_id for item in self.categories])

    def add(
        self, image_id: ImageId, truth: PanopticImage, predicted: PanopticImage, *, where: object = None
    ) -> None:
        """Compare one image.

        Args:
            image_id: not added before.
            truth: its true segments.
            predicted: its predicted segments.
            where: what errors name: the file of the prediction, say; the image by default.

        Raises:
            PredictionError: as :func:`~partseg.evaluation.panoptic_matching.match_segments`, or the image was
                added before.
        """
        place = f"image {image_id}" if where is None else str(where)
        outcome = match_segments(truth, predicted, self.counts.category_ids, self.protocol, place)
        self.counts.add(image_id, *outcome)

    def merge(self, other: PanopticQuality) -> PanopticQuality:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have other classes or another protocol.
        """
        if self.protocol != other.protocol or set(self.categories) != set(other.categories):
            raise ValueError("states of different classes or protocols cannot be merged")
        merged = PanopticQuality(self.categories, self.protocol)
        merged.counts = self.counts.merge(other.counts)
        return merged

    def result(self) -> PanopticResult:
        """The measures over all images so far."""
        totals = self.counts.totals()
        groups = {
            name: average([totals[item.category_id] for item in self.categories if item.is_thing in kinds])
            for name, kinds in _GROUPS.items()
        }
        classes = []
        for item in self.categories:
            row = totals[item.category_id]
            classes.append(
                ClassQuality(
                    category_id=item.category_id,
                    name=item.name,
                    is_thing=item.is_thing,
                    tp=row.tp,
                    fp=row.fp,
                    fn=row.fn,
                    pq=row.quality,
                    sq=row.segmentation,
                    rq=row.recognition,
                )
            )
        return PanopticResult(
            protocol=self.protocol, images=len(self.counts), classes=tuple(classes), **groups
        )

    def resampled(self, weights: ArrayLike) -> dict[str, Floats]:
        """The numbers of ``result().metrics()`` for B samples of the images.

        Args:
            weights: int [B, I], how often each image of ``counts.image_ids`` is in each sample.

        Returns:
            float64 [B] by name; nan where it is not defined.
        """
        members = {
            group: [item.is_thing in kinds for item in self.categories] for group, kinds in _GROUPS.items()
        }
        return _NAMES.resampled(self.counts.table(), weights, members)
