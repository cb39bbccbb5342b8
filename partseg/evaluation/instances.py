"""The streaming state behind every average precision: chunks of images in, records out.

A chunk's predictions are put in order, compared with the truth cell by cell and matched; what stays is
:mod:`partseg.evaluation.detection_records`. Nothing depends on how images are chunked, ordered or shared out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.detection_records import DETECTION, TRUTH, DetectionRecords, DetectionTable
from partseg.evaluation.instance_cells import Cells, MatchSettings, cell_keys, find_cells
from partseg.evaluation.instance_overlaps import Shapes, best_overlaps, cell_pairs, shapes
from partseg.evaluation.instance_truth import Flags, Floats, InstanceTruth, IouType, need_masks, read_truth
from partseg.evaluation.matching import Matches, Pairs, ignored_by_area, match
from partseg.evaluation.predictions import Predictions
from partseg.layout.runs import Ints


@dataclass(slots=True, kw_only=True, eq=False)
class Chunk:
    """Some images on their way: N predictions in the order of their cells, and G true ones.

    Attributes:
        found: the predictions that count.
        cells: which cell each is in, and its rank there.
        truth: the true ones that are scored.
        everything: all of the truth, whatever its category.
        pairs: overlaps within the cells.
        shapes: masks or boxes of the predictions.
        truth_shapes: masks or boxes of the true ones.
        truth_ignored: bool [G, A].
        matches: rows in ``truth``; not with what is void.
        ignored: bits of the size ranges and thresholds at which a prediction does not count, uint64 [N].
    """

    found: Predictions
    cells: Cells
    truth: InstanceTruth
    everything: InstanceTruth
    pairs: Pairs
    shapes: Shapes
    truth_shapes: Shapes
    truth_ignored: Flags
    matches: Matches
    ignored: NDArray[np.uint64]


class InstanceMatches:
    """Matches of any number of images.

    Args:
        settings: see there.
    """

    def __init__(self, settings: MatchSettings) -> None:
        self.settings = settings
        self.records = DetectionRecords(len(settings.thresholds), len(settings.area_ranges))

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predictions of some images; larger chunks are faster.

        Args:
            images: records of the layout, none added before.
            predictions: all of these images, in any order.

        Raises:
            PredictionError: predictions of another image or category, masks that are missing or do not fit,
                or an image that was added before.
        """
        everything = self._truth(images)
        chunk = self.match_chunk(everything, predictions, images)
        self.records.add(everything.image_ids, self._detections(chunk), self._truths(chunk))

    def merge(self, other: Self) -> Self:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have other settings.
        """
        if self._identity() != other._identity():
            raise ValueError("states of different settings cannot be merged")
        merged = self._empty()
        merged.records = self.records.merge(other.records)
        return merged

    def table(self) -> DetectionTable:
        """All records, in an order that depends on nothing but themselves."""
        return self.records.sorted()

    # what a family of measures may change

    def inside_ranges(self, areas: Floats) -> Flags:
        """Which of N areas lie in each size range, bool [N, A]."""
        return ~ignored_by_area(areas, np.asarray(self.settings.area_ranges))

    def _identity(self) -> Any:
        return self.settings

    def _empty(self) -> Self:
        return type(self)(self.settings)

    def _truth(self, images: Sequence[Any]) -> InstanceTruth:
        return read_truth(images)

    def _category_keys(self, category_ids: Ints) -> Ints:
        """What tells cells of one image apart."""
        return category_ids

    def _allowed(
        self, found: Predictions, cells: Cells, everything: InstanceTruth, truth: InstanceTruth, pairs: Pairs
    ) -> Flags | None:
        """Which pairs may match; None for all of them."""
        return None

    def _adjust(self, chunk: Chunk, images: Sequence[Any]) -> None:
        """Change what does not count, in ``chunk.ignored``."""

    # the way of a chunk

    def match_chunk(
        self, everything: InstanceTruth, predictions: Predictions, images: Sequence[Any]
    ) -> Chunk:
        """Match the predictions of some images, without keeping anything."""
        settings = self.settings
        kept = np.isin(everything.category_ids, np.asarray(settings.category_ids, np.int64))
        if settings.federated:
            kept &= everything.areas > 0
        truth = everything.where(kept)
        if settings.iou_type == "segm":
            need_masks(truth)
        cells = find_cells(settings, truth, predictions, images, self._category_keys)
        found = predictions[cells.rows]
        own = shapes(
            settings.iou_type,
            found.boxes_xywh,
            found.rles,
            everything.sizes[cells.images],
            found.image_ids,
        )
        if settings.federated and not (own.areas > 0).all():
            some = np.flatnonzero(own.areas > 0)
            cells, found, own = cells.at(some), found[some], own.at(some)
        true = truth_shapes(settings.iou_type, truth)
        pairs = cell_pairs(
            own,
            true,
            cells.keys,
            cell_keys(truth.images, self._category_keys(truth.category_ids)),
            truth.is_crowd & (not settings.federated),
            0.0 if settings.details else min(settings.thresholds),
        )
        crowd = truth.is_crowd & (not settings.federated)
        ranges = np.asarray(settings.area_ranges)
        truth_ignored = ignored_by_area(truth.areas, ranges) | (truth.is_ignore | crowd)[:, None]
        allowed = self._allowed(found, cells, everything, truth, pairs)
        matches = match(
            pairs if allowed is None else pairs.where(allowed),
            cells.keys,
            truth_ignored,
            crowd,
            np.asarray(settings.thresholds),
        )
        alone = ignored_by_area(own.areas, ranges) | cells.not_exhaustive[:, None]
        chunk = Chunk(
            found=found,
            cells=cells,
            truth=truth,
            everything=everything,
            pairs=pairs,
            shapes=own,
            truth_shapes=true,
            truth_ignored=truth_ignored,
            matches=matches,
            ignored=_ignored(truth, truth_ignored, matches, alone),
        )
        self._adjust(chunk, images)
        return chunk

    def _detections(self, chunk: Chunk) -> NDArray[Any]:
        rows = np.zeros(len(chunk.found), DETECTION)
        rows["image_id"], rows["score"] = chunk.found.image_ids, chunk.found.scores
        rows["category_id"] = self._category_keys(chunk.found.category_ids.astype(np.int64))
        rows["rank"] = chunk.cells.ranks
        rows["matched"][chunk.matches.rows] = packed(chunk.matches.truth >= 0)
        rows["ignored"] = chunk.ignored
        counted = ~(chunk.truth.is_crowd | chunk.truth.is_ignore)
        rows["iou"], rows["truth_id"] = best_overlaps(
            chunk.pairs.where(counted[chunk.pairs.truth]), len(rows), chunk.truth.ann_ids
        )
        rows["match_id"], rows["other_iou"], rows["other_truth_id"] = -1, np.nan, -1
        first = chunk.matches.truth[:, 0, 0]
        rows["match_id"][chunk.matches.rows] = np.append(chunk.truth.ann_ids, -1)[first]
        if self.settings.details:
            others = cell_pairs(
                chunk.shapes,
                chunk.truth_shapes,
                chunk.cells.images,
                chunk.truth.images,
                np.zeros(len(chunk.truth), np.bool_),
                0.0,
            )
            different = chunk.found.category_ids[others.found] != chunk.truth.category_ids[others.truth]
            others = others.where(different & counted[others.truth])
            rows["other_iou"], rows["other_truth_id"] = best_overlaps(others, len(rows), chunk.truth.ann_ids)
        return rows

    def _truths(self, chunk: Chunk) -> NDArray[Any]:
        truth = chunk.truth
        rows = np.zeros(len(truth), TRUTH)
        rows["image_id"], rows["ann_id"] = truth.image_ids[truth.images], truth.ann_ids
        rows["category_id"], rows["area"] = self._category_keys(truth.category_ids), truth.areas
        rows["matched"] = found_bits(chunk.matches, len(truth))
        rows["ignored"] = np.packbits(chunk.truth_ignored, axis=1, bitorder="little")[:, 0]
        return rows


def packed(flags: Flags) -> NDArray[np.uint64]:
    """Flags [N, A, T] as the bits of one number each."""
    flat = flags.reshape(len(flags), flags.shape[1] * flags.shape[2])
    padded = np.zeros((len(flat), 8), np.uint8)
    octets = np.packbits(flat, axis=1, bitorder="little")
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u8")[:, 0].astype(np.uint64)


def unpacked(bits: NDArray[np.uint64], ranges: int, thresholds: int) -> Flags:
    """The inverse: bool [N, A, T]."""
    octets = bits.astype("<u8").view(np.uint8).reshape(len(bits), 8)
    flat = np.unpackbits(octets, axis=1, bitorder="little", count=ranges * thresholds)
    return flat.reshape(len(bits), ranges, thresholds).astype(np.bool_)


def found_bits(matches: Matches, truths: int) -> NDArray[np.uint64]:
    """At which size ranges and thresholds each of G true ones was found."""
    found = np.zeros((truths, *matches.truth.shape[1:]), np.bool_)
    hits = np.nonzero(matches.truth >= 0)
    found[matches.truth[hits], hits[1], hits[2]] = True
    return packed(found)


def _ignored(
    truth: InstanceTruth, truth_ignored: Flags, matches: Matches, alone: Flags
) -> NDArray[np.uint64]:
    """Bits of what does not count; matches with what is void are taken back.

    Args:
        truth: the true ones.
        truth_ignored: bool [G, A].
        matches: of the predictions.
        alone: bool [N, A], predictions that do not count unless they match.
    """
    levels = matches.truth.shape[2]
    own = np.repeat(alone[matches.rows][:, :, None], levels, axis=2)
    hits = np.nonzero(matches.truth >= 0)
    partner = matches.truth[hits]
    void = truth.is_void[partner]
    own[hits] = truth_ignored[partner, hits[1]] | (void & own[hits])
    matches.truth[hits] = np.where(void, -1, partner)
    # all thresholds of a range have the same bits where nothing can match
    spread = packed(np.repeat(_combinations(alone.shape[1])[:, :, None], levels, axis=2))
    result: NDArray[np.uint64] = spread[np.packbits(alone, axis=1, bitorder="little")[:, 0]]
    result[matches.rows] = packed(own)
    return result


def _combinations(ranges: int) -> Flags:
    """All combinations of flags, bool [2 ** ranges, ranges]."""
    combinations: Flags = (np.arange(1 << ranges)[:, None] >> np.arange(ranges)) & 1 == 1
    return combinations


def truth_shapes(iou_type: IouType, truth: InstanceTruth) -> Shapes:
    """Masks or boxes of true ones."""
    sizes, ids = truth.sizes[truth.images], truth.image_ids[truth.images]
    return shapes(iou_type, truth.boxes_xywh, truth.rles, sizes, ids)
