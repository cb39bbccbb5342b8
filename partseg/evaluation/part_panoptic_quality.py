"""PartPQ: panoptic quality in which a segment that is found is worth the IoU of its parts.

Segments match as for panoptic quality, by the IoU of the whole. The IoU of a match of a class with parts is
the mean over parts, taken over the image but for void, crowds of the class, and pixels of the true segment
without a part. True segments of such classes without any part count as crowd (de Geus et al. 2021,
"Part-aware Panoptic Segmentation", section 3). Values are 0 to 1.

Protocols:

- ``panoptic_parts``: the numbers of panoptic_parts and TAPPS, the published ones. Kept by name: *background
  counts*: what is outside of a segment is one of its parts, usually with an IoU near 1; *stuff has
  instances*: stuff with instance numbers is several segments; *unlisted parts count*: a part of the files
  that the specification does not know is a part of its own.
- ``correct``: the mean is over parts alone, those that occur in the true or the predicted segment; stuff of
  one class is one segment; unlisted parts are no parts.

In both, predicted pixels of an unknown part (255) miss the part that is there and are no part of their own,
and predicted segments of classes that are not evaluated (so also 0 and 255) do not exist. panoptic_parts
removes only the first crowd of a class; as its specifications have one sid per class, there is no second.
Where it stops with an error because nothing of a match is left to evaluate, the match has an IoU of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, get_args

from numpy.typing import ArrayLike

from partseg.evaluation.match_counts import Average, Floats, ImageId, MatchCounts, average
from partseg.evaluation.overlaps import LabelMap
from partseg.evaluation.part_maps import PartMap
from partseg.evaluation.part_matching import PartProtocol, match_parts, tables
from partseg.evaluation.part_specs import PartSpec
from partseg.evaluation.quality_names import QualityNames

_GROUPS = {"all": (True, False), "parts": (True,), "noparts": (False,)}
_NAMES = QualityNames(family="part_panoptic", quality="partpq", segmentation="partsq", recognition="partrq")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartClassQuality:
    """One class; the three measures are 0 to 1, None where it does not occur.

    Attributes:
        sid: its number in uids, which is its category in the layout.
        has_parts: whether matches are scored by their parts.
    """

    sid: int
    name: str
    is_thing: bool
    has_parts: bool
    tp: int
    fp: int
    fn: int
    partpq: float | None
    partsq: float | None
    partrq: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPanopticResult:
    """PartPQ over any number of images.

    Attributes:
        protocol: whose rules were followed.
        spec: which classes and parts were evaluated.
        images: how many there were.
        all: means over classes that occur: ``quality`` is PartPQ, ``segmentation`` PartSQ, ``recognition``
            PartRQ; so are ``parts`` and ``noparts``, for classes with and without parts.
        classes: every class, in ascending order of the sid.
    """

    protocol: PartProtocol
    spec: str
    images: int
    all: Average
    parts: Average
    noparts: Average
    classes: tuple[PartClassQuality, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "classes": [asdict(item) for item in self.classes]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave."""
        groups = {name: Average(**content[name]) for name in _GROUPS}
        return cls(
            protocol=content["protocol"],
            spec=content["spec"],
            images=content["images"],
            classes=tuple(PartClassQuality(**item) for item in content["classes"]),
            **groups,
        )

    def metrics(self) -> dict[str, float]:
        """The numbers that tables show; what is not defined is left out."""
        return _NAMES.metrics({group: getattr(self, group) for group in _GROUPS})


class PartPanopticQuality:
    """PartPQ, image by image.

    Args:
        spec: the evaluated classes and parts.
        protocol: see the module.
    """

    def __init__(self, spec: PartSpec, protocol: PartProtocol = "panoptic_parts") -> None:
        if protocol not in get_args(PartProtocol):
            raise ValueError(f"no protocol {protocol!r} of PartPQ")
        self.spec, self.protocol = spec, protocol
        self.counts = MatchCounts([item.sid for item in spec.classes])
        self._tables = tables(spec, protocol)

    def add(self, image_id: ImageId, truth: LabelMap, predicted: PartMap, *, where: object = None) -> None:
        """Compare one image.

        Args:
            image_id: not added before.
            truth: uids, as the dataset's files have them.
            predicted: its predicted map.
            where: what errors name: the file of the prediction, say; the image by default.

        Raises:
            PredictionError: the maps differ in size, one holds a number that is no label, or the image was
                added before.
        """
        place = f"image {image_id}" if where is None else str(where)
        self.counts.add(image_id, *match_parts(truth, predicted, self._tables, self.protocol, place))

    def merge(self, other: PartPanopticQuality) -> PartPanopticQuality:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have another specification or protocol.
        """
        if (self.protocol, self.spec) != (other.protocol, other.spec):
            raise ValueError("states of different specifications or protocols cannot be merged")
        merged = PartPanopticQuality(self.spec, self.protocol)
        merged.counts = self.counts.merge(other.counts)
        return merged

    def result(self) -> PartPanopticResult:
        """The measures over all images so far."""
        totals = self.counts.totals()
        groups = {
            name: average([totals[item.sid] for item in self.spec.classes if bool(item.parts) in kinds])
            for name, kinds in _GROUPS.items()
        }
        classes = []
        for item in self.spec.classes:
            row = totals[item.sid]
            classes.append(
                PartClassQuality(
                    sid=item.sid,
                    name=item.name,
                    is_thing=item.is_thing,
                    has_parts=bool(item.parts),
                    tp=row.tp,
                    fp=row.fp,
                    fn=row.fn,
                    partpq=row.quality,
                    partsq=row.segmentation,
                    partrq=row.recognition,
                )
            )
        return PartPanopticResult(
            protocol=self.protocol,
            spec=self.spec.name,
            images=len(self.counts),
            classes=tuple(classes),
            **groups,
        )

    def resampled(self, weights: ArrayLike) -> dict[str, Floats]:
        """The numbers of ``result().metrics()`` for B samples of the images.

        Args:
            weights: int [B, I], how often each image of ``counts.image_ids`` is in each sample.

        Returns:
            float64 [B] by name; nan where it is not defined.
        """
        members = {
            group: [bool(item.parts) in kinds for item in self.spec.classes]
            for group, kinds in _GROUPS.items()
        }
        return _NAMES.resampled(self.counts.table(), weights, members)
