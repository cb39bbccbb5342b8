"""Which classes and parts a part-aware panoptic evaluation looks at: tables of ``data_manifests``, not code.

The published specifications: ``cpp_default`` and ``cpp_grouped`` (19 classes and 23 parts of Cityscapes; they
differ in the numbers of flat part maps alone, so PartPQ is the same), ``ppp_57`` and ``ppp_107`` (59 classes
of PASCAL, their parts folded into 57 or 107).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from partseg.datasets.formats.panoptic_parts import part_categories
from partseg.errors import LayoutError
from partseg.layout.records import Category
from partseg.layout.runs import Ints

PUBLISHED: Mapping[str, tuple[str, int]] = {
    "cpp_default": ("cityscapes_pp", 23),
    "cpp_grouped": ("cityscapes_pp", 23),
    "ppp_57": ("pascal_pp", 57),
    "ppp_107": ("pascal_pp", 107),
}
"""Table and number of parts of every published specification."""

UNKNOWN = 255
"""The part of predicted pixels whose part is not known, and the class of those that have none."""


class PartClass(NamedTuple):
    """One evaluated class.

    Attributes:
        sid: its number in uids.
        parts: name of every part by its number; empty where there are fewer than two, for then the class is
            evaluated as a whole.
    """

    sid: int
    name: str
    is_thing: bool
    parts: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpec:
    """The evaluated classes, and what the numbers in the files mean.

    Attributes:
        name: one of :data:`PUBLISHED`, or of a dataset's own table.
        classes: in ascending order of the sid.
        folded: number of the evaluated part by ``sid * 100 + pid`` of the files, or by ``sid`` where pixels
            without a part count as one.
    """

    name: str
    classes: tuple[PartClass, ...]
    folded: tuple[tuple[int, int], ...]

    def part_numbers(self, *, keep_unlisted: bool) -> Ints:
        """The evaluated part of every ``sid * 100 + pid`` or ``sid`` of the files, int64 [10000]; 0 is none.

        Args:
            keep_unlisted: a part that the table does not list keeps its number, as panoptic_parts has it;
                otherwise it is no part.
        """
        codes = np.arange(10_000)
        numbers = np.where(codes > 99, codes % 100, 0) if keep_unlisted else np.zeros_like(codes)
        for code, number in self.folded:
            numbers[code] = number
        return numbers


def published_spec(name: str) -> PartSpec:
    """One of the published specifications.

    Raises:
        LayoutError: there is none of this name.
    """
    if name not in PUBLISHED:
        raise LayoutError(f"no part specification {name!r}", fix=f"there are: {', '.join(PUBLISHED)}")
    return spec_of(name, part_categories(*PUBLISHED[name]))


def spec_of(name: str, categories: Iterable[Category]) -> PartSpec:
    """The specification that the category table of a panoptic-parts dataset contains.

    Raises:
        LayoutError: the table has no evaluated class or no numbers of parts.
    """
    table = list(categories)
    numbers: dict[int, list[tuple[int, str]]] = {}
    folded: list[tuple[int, int]] = []
    for item in table:
        codes = (item.extra or {}).get("file_sid_pids")
        if item.kind != "part" or codes is None:
            continue
        sid, number = divmod(item.category_id, 100)
        numbers.setdefault(sid, []).append((number, item.name.partition(":")[2]))
        folded += [(int(code), number) for code in codes]
    classes = [
        PartClass(
            item.category_id,
            item.name,
            item.is_thing,
            tuple(sorted(parts)) if len(parts := numbers.get(item.category_id, [])) > 1 else (),
        )
        for item in table
        if item.kind != "part" and "contiguous_id" in (item.extra or {})
    ]
    if not classes or not folded:
        raise LayoutError(
            f"the categories of {name} are not those of a panoptic-parts dataset",
            fix="convert cityscapes_pp or pascal_pp",
        )
    return PartSpec(name=name, classes=tuple(sorted(classes)), folded=tuple(sorted(folded)))
