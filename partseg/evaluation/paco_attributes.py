"""Attributes of PACO's objects and parts: what is true of them, and their average precision.

A *pair* is a category and an attribute, such as a red mug. It is evaluated like a category of its own: its
truth are the category's instances that have the attribute, its predictions are all of the category, scored
with their probability of the attribute. It is scored in the images where the pair occurs or is known not to.
A prediction that matches nothing is wrong if the instance that it matches as a category has known
attributes of that type; if it matches none, it counts as it did for the category.

PACOEval mixes up the overlaps of the predictions of a cell where they do not come by falling score: the n-th
prediction of the file gets those of the n-th best one. This is followed with ``keep_order``, which repeats
the original's numbers on such files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from partseg.errors import LayoutError
from partseg.evaluation.detection_records import DETECTION, TRUTH
from partseg.evaluation.instance_cells import cell_keys, places
from partseg.evaluation.instance_truth import CategoryLike, Floats
from partseg.evaluation.instances import Chunk, found_bits, packed, unpacked
from partseg.evaluation.matching import Matches, Pairs, match
from partseg.layout.runs import Ints

if TYPE_CHECKING:
    from partseg.layout import Dataset

BACKGROUND = ("other(material)", "other(pattern_marking)")
"""Attributes that are in no mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacoAttributes:
    """What is true of attributes in some images.

    Attributes:
        names: of each attribute.
        types: attributes of each type (color, material, ...).
        pairs: category and attribute of each pair's id.
        of: attributes of each annotation that has any.
        unknown: types that are not annotated, of each annotation that has such.
        absent: pairs that are known not to be in each image.
    """

    names: Mapping[int, str]
    types: Mapping[str, Sequence[int]]
    pairs: Mapping[int, tuple[int, int]]
    of: Mapping[int, Sequence[int]] = field(default_factory=dict)
    unknown: Mapping[int, frozenset[str]] = field(default_factory=dict)
    absent: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def pair_ids(self) -> tuple[int, ...]:
        """In ascending order."""
        return tuple(sorted(self.pairs))

    @property
    def type_of(self) -> dict[int, str]:
        """The type of each attribute."""
        return {attribute: name for name, ids in self.types.items() for attribute in ids}


def read_attributes(dataset: Dataset, split: str) -> PacoAttributes:
    """What a converted PACO says about attributes.

    Raises:
        LayoutError: it says nothing.
    """
    reader = dataset.split(split)
    details = reader.entry.details.get("top_level", {})
    needed = ("attributes", "attr_type_to_attr_idxs", "joint_obj_attribute_categories")
    if any(not details.get(name) for name in needed):
        raise LayoutError(
            "there are no attributes in this dataset", where=reader, fix="evaluate with the protocol lvis"
        )
    types = {name: tuple(ids) for name, ids in details["attr_type_to_attr_idxs"].items()}
    own = {
        item.category_id if item.source_id is None else item.source_id: item.category_id
        for item in dataset.categories
    }
    table = reader.table("annotations")
    of, unknown = {}, {}
    for ann_id, values, extra in zip(
        *(table[name].to_pylist() for name in ("ann_id", "attributes", "extra")), strict=True
    ):
        if values:
            of[ann_id] = tuple(values)
        stated = orjson.loads(extra) if extra else {}
        if missing := frozenset(name for name in types if stated.get(f"unknown_{name}")):
            unknown[ann_id] = missing
    images = reader.table("images")
    absent = {
        image_id: tuple(found)
        for image_id, extra in zip(images["image_id"].to_pylist(), images["extra"].to_pylist(), strict=True)
        if extra and (found := orjson.loads(extra).get("neg_category_ids_attrs"))
    }
    return PacoAttributes(
        names={item["id"]: item["name"] for item in details["attributes"]},
        types=types,
        pairs={
            item["obj-attr"]: (own[item["obj"]], item["attr"])
            for item in details["joint_obj_attribute_categories"]
        },
        of=of,
        unknown=unknown,
        absent=absent,
    )


def attribute_records(
    attributes: PacoAttributes, chunk: Chunk, protocol: str, *, keep_order: bool, thresholds: Floats
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Records of every pair in some images, as if pairs were categories.

    Args:
        attributes: what is true.
        chunk: the images, matched by category.
        protocol: ``usual``, ``lb`` or ``ub``.
        keep_order: see the module.
        thresholds: of overlap.
    """
    ids = np.array(attributes.pair_ids, np.int64)
    category = np.array([attributes.pairs[i][0] for i in ids.tolist()], np.int64)
    attribute = np.array([attributes.pairs[i][1] for i in ids.tolist()], np.int64)
    pair_of = {attributes.pairs[i]: place for place, i in enumerate(ids.tolist())}
    truth, truth_pair = _true_pairs(attributes, chunk, pair_of)
    cells = np.unique(
        np.concatenate([cell_keys(chunk.truth.images[truth], truth_pair), _absent(attributes, chunk, ids)])
    )
    image, pair = cells >> 32, cells & 0xFFFFFFFF
    # every prediction of the pair's category, once for each cell
    keys = cell_keys(image, category[pair])
    begin = np.searchsorted(chunk.cells.keys, keys, side="left")
    count = np.searchsorted(chunk.cells.keys, keys, side="right") - begin
    cell = np.repeat(np.arange(len(cells)), count)
    rows = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
    scores = chunk.found.scores[rows].copy()
    if protocol == "usual" and len(rows):
        probabilities = chunk.found.attribute_probs
        assert probabilities is not None
        scores *= probabilities[rows, attribute[pair[cell]]]
    place = _file_places(chunk) if keep_order else chunk.cells.ranks
    order = np.lexsort((place[rows], -scores, cell))
    cell, rows, scores = cell[order], rows[order], scores[order]
    source = rows - chunk.cells.ranks[rows] + place[rows] if keep_order else rows
    pairs = _pairs(chunk, source, pair[cell], truth, truth_pair)
    true_order = np.lexsort((truth, truth_pair, chunk.truth.images[truth]))
    truth, truth_pair = truth[true_order], truth_pair[true_order]
    ignored_truth = chunk.truth_ignored[truth, :1]
    copies = _copies(pairs, pair[cell], truth, truth_pair, len(chunk.truth))
    matches = match(
        copies,
        cell,
        ignored_truth,
        np.zeros(len(truth), np.bool_),
        thresholds,
    )
    return (
        _detections(
            attributes, chunk, protocol, rows, scores, cell, pair, ids, attribute, matches, ignored_truth
        ),
        _truths(chunk, truth, ids[truth_pair], matches, ignored_truth),
    )


def _true_pairs(
    attributes: PacoAttributes, chunk: Chunk, pair_of: Mapping[tuple[int, int], int]
) -> tuple[Ints, Ints]:
    """Rows of the truth that have an attribute, once for each, and the position of the pair."""
    rows, pairs = [], []
    for row, (ann_id, category) in enumerate(
        zip(chunk.truth.ann_ids.tolist(), chunk.truth.category_ids.tolist(), strict=True)
    ):
        for attribute in dict.fromkeys(attributes.of.get(ann_id, ())):
            if (category, attribute) in pair_of:
                rows.append(row)
                pairs.append(pair_of[category, attribute])
    return np.array(rows, np.int64), np.array(pairs, np.int64)


def _absent(attributes: PacoAttributes, chunk: Chunk, ids: Ints) -> Ints:
    lists = [
        np.searchsorted(
            ids, [item for item in attributes.absent.get(image_id, ()) if item in attributes.pairs]
        )
        for image_id in chunk.truth.image_ids.tolist()
    ]
    images = np.repeat(np.arange(len(lists)), [len(item) for item in lists])
    return cell_keys(images, np.concatenate([np.zeros(0, np.int64), *lists]).astype(np.int64))


def _file_places(chunk: Chunk) -> Ints:
    """Place of every prediction in its cell by the order of the rows."""
    order = np.lexsort((chunk.cells.rows, chunk.cells.keys))
    result = np.empty(len(order), np.int64)
    result[order] = places(chunk.cells.keys[order])
    return result


def _pairs(chunk: Chunk, source: Ints, pair: Ints, truth: Ints, truth_pair: Ints) -> Pairs:
    """Overlaps of every copy of a prediction with the instances that have the attribute."""
    begin = np.searchsorted(chunk.pairs.found, source, side="left")
    count = np.searchsorted(chunk.pairs.found, source, side="right") - begin
    rows = np.repeat(np.arange(len(source)), count)
    at = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
    found = Pairs(found=rows, truth=chunk.pairs.truth[at], iou=chunk.pairs.iou[at])
    own = cell_keys(found.truth, pair[rows])
    return found.where(np.isin(own, cell_keys(truth, truth_pair)))


def _copies(pairs: Pairs, pair: Ints, truth: Ints, truth_pair: Ints, size: int) -> Pairs:
    """The same pairs with rows of the copies of the truth instead of the truth."""
    keys = cell_keys(truth, truth_pair)
    order = np.argsort(keys)
    wanted = cell_keys(pairs.truth, pair[pairs.found])
    return Pairs(found=pairs.found, truth=order[np.searchsorted(keys[order], wanted)], iou=pairs.iou)


def _detections(
    attributes: PacoAttributes,
    chunk: Chunk,
    protocol: str,
    rows: Ints,
    scores: Floats,
    cell: Ints,
    pair: Ints,
    ids: Ints,
    attribute: Ints,
    matches: Matches,
    ignored_truth: NDArray[np.bool_],
) -> NDArray[Any]:
    type_of = attributes.type_of
    types = list(attributes.types)
    unknown = np.array(
        [[name in attributes.unknown.get(i, ()) for name in types] for i in chunk.truth.ann_ids.tolist()],
        np.bool_,
    ).reshape(-1, len(types))
    own_type = np.array([types.index(type_of[i]) for i in attribute.tolist()], np.int64)[pair[cell]]
    partner = chunk.matches.dense(len(chunk.found))[rows, 0]  # of the category, [N, T]
    as_category = unpacked(chunk.ignored, *chunk.matches.truth.shape[1:])[rows, 0]
    some = np.append(unknown, np.zeros((1, len(types)), np.bool_), axis=0)[partner, own_type[:, None]]
    ignored = np.where(partner >= 0, some, as_category)
    dense = matches.dense(len(rows))
    own = dense[:, 0]
    if len(ignored_truth):
        ignored = np.where(own >= 0, ignored_truth[own, 0], ignored)
    result = np.zeros(len(rows), DETECTION)
    result["image_id"], result["category_id"] = chunk.found.image_ids[rows], ids[pair[cell]]
    result["rank"] = places(cell)
    result["score"] = (own[:, 0] >= 0).astype(np.float64) if protocol == "ub" else scores
    result["matched"], result["ignored"] = packed(dense >= 0), packed(ignored[:, None, :])
    result["iou"] = result["other_iou"] = np.nan
    result["truth_id"] = result["other_truth_id"] = result["match_id"] = -1
    return result


def _truths(
    chunk: Chunk, truth: Ints, ids: Ints, matches: Matches, ignored: NDArray[np.bool_]
) -> NDArray[Any]:
    result = np.zeros(len(truth), TRUTH)
    result["image_id"] = chunk.truth.image_ids[chunk.truth.images[truth]]
    result["category_id"], result["ann_id"] = ids, chunk.truth.ann_ids[truth]
    result["area"], result["ignored"] = chunk.truth.areas[truth], ignored[:, 0]
    result["matched"] = found_bits(matches, len(truth))
    return result


def attribute_means(
    attributes: PacoAttributes,
    categories: Mapping[int, CategoryLike],
    parts: Mapping[int, Any],
    values: Sequence[float | None],
) -> dict[str, Any]:
    """AP of attributes, of their types and over all, for objects and for parts.

    Args:
        attributes: their names, types and pairs.
        categories: by id.
        parts: categories that are parts.
        values: AP of each pair, in the order of ``attributes.pair_ids``.
    """
    found: dict[str, Any] = {}
    by_pair = dict(zip(attributes.pair_ids, values, strict=True))
    for kind, is_part in (("objects", False), ("parts", True)):
        own: dict[int, list[float | None]] = {}
        for pair_id, value in by_pair.items():
            category, attribute = attributes.pairs[pair_id]
            if (category in parts) == is_part and attributes.names[attribute] not in BACKGROUND:
                own.setdefault(attribute, []).append(value)
        means = {attribute: _mean(items) for attribute, items in own.items()}
        types = {
            name: _mean([means[item] for item in ids if item in means])
            for name, ids in attributes.types.items()
        }
        found[kind] = {
            "AP": _mean(list(types.values())),
            "types": types,
            "attributes": {attributes.names[item]: value for item, value in means.items()},
        }
    found["pairs"] = {
        f"{categories[category].name}:{attributes.names[attribute]}": by_pair[pair_id]
        for pair_id, (category, attribute) in sorted(attributes.pairs.items())
    }
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
