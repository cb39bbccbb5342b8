"""Part-aware panoptic maps: class, instance and part of every pixel, as predictions have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from partseg.evaluation.overlaps import LabelMap
from partseg.evaluation.part_specs import UNKNOWN
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints
from partseg.layout.uids import unpack_uids

Encoding = Literal["channels", "uids"]


class Ids(NamedTuple):
    """Class, instance and part of N labels, int64 [N] each; the part is 255 where it is not known."""

    sids: Ints
    iids: Ints
    pids: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMap:
    """A predicted map.

    Attributes:
        labels: see ``encoding``.
        encoding: "channels" as TAPPS writes them, uint8 [H, W, 3] (or ``c0 + 256 * c1 + 65536 * c2``): class,
            instance, part; part 255 is unknown, and so are classes that are not evaluated. "uids" as
            panoptic-parts has them (:mod:`partseg.layout.uids`): no instance is instance 0, no part is
            unknown.
        folded: the parts are numbered as in the evaluation; False where they are as in the dataset's files
            (only PASCAL's differ).
    """

    labels: LabelMap
    encoding: Encoding
    folded: bool = True

    def decode(self, labels: Ints, part_numbers: Ints, *, where: object = None) -> Ids:
        """Take labels of the map apart.

        Args:
            labels: int64 [N].
            part_numbers: [10000], as :meth:`~partseg.evaluation.part_specs.PartSpec.part_numbers`.
            where: what errors name.

        Raises:
            PredictionError: a number is no label of this kind.
        """
        if self.encoding == "channels":
            if len(labels) and not 0 <= labels.min() <= labels.max() < 1 << 24:
                raise PredictionError("a channel is outside 0 to 255", where=where)
            return Ids(labels & 255, labels >> 8 & 255, labels >> 16)
        try:
            ids = unpack_uids(labels, missing=0)
        except ValueError as error:
            raise PredictionError(
                f"not a panoptic-parts map ({error})",
                where=where,
                fix="write sid, sid * 1000 + iid, or (sid * 1000 + iid) * 100 + pid",
            ) from error
        pids = ids.pids if self.folded else part_numbers[np.where(ids.pids > 0, ids.sids_pids, ids.sids)]
        return Ids(ids.sids, ids.iids, np.where(pids > 0, pids, UNKNOWN))
