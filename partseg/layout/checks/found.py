"""Rules, and the table of cases in which they are broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

Severity = Literal["error", "warning", "note"]

FOUND = pa.schema(
    [
        pa.field("dataset", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("severity", pa.string()),
        pa.field("split", pa.string()),
        pa.field("image_id", pa.int64()),
        pa.field("ann_id", pa.int64()),
        pa.field("message", pa.string()),
        pa.field("value", pa.float64()),
    ]
)
"""One row per case. ``value`` says how bad it is within its rule (larger is worse), where there is a degree;
split, image_id and ann_id are null where a case is not about one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that holds in a sound dataset.

    Attributes:
        code: short name, such as "part-outside-object".
        severity: an error breaks what readers rely on; a warning is most likely a mistake in the source that
            training survives; a note is worth knowing.
        meaning: what is wrong where the rule is broken, in one line.
    """

    code: str
    severity: Severity
    meaning: str


class Found:
    """Collects the broken rules of one dataset.

    Args:
        dataset: how the dataset is called in the table.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self._tables: list[Any] = []

    def add(
        self,
        rule: Rule,
        messages: str | Iterable[str],
        *,
        split: str | None = None,
        image_ids: ArrayLike | None = None,
        ann_ids: ArrayLike | None = None,
        values: ArrayLike | None = None,
    ) -> None:
        """Record the cases [K] of one rule; one message without ids is one case."""
        texts = [messages] if isinstance(messages, str) else list(messages)
        if not texts:
            return

        def column(given: ArrayLike | None, kind: pa.DataType) -> pa.Array:
            return pa.nulls(len(texts), kind) if given is None else pa.array(np.atleast_1d(given), kind)

        columns = [
            pa.repeat(self.dataset, len(texts)),
            pa.repeat(rule.code, len(texts)),
            pa.repeat(rule.severity, len(texts)),
            pa.nulls(len(texts), pa.string()) if split is None else pa.repeat(split, len(texts)),
            column(image_ids, pa.int64()),
            column(ann_ids, pa.int64()),
            pa.array(texts, pa.string()),
            column(values, pa.float64()),
        ]
        self._tables.append(pa.table(columns, schema=FOUND))

    def __len__(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def table(self) -> Any:
        """All cases as ``pyarrow.Table`` with the columns ``FOUND``."""
        return join(self._tables)


def join(tables: Sequence[Any]) -> Any:
    """One table of cases."""
    return pa.concat_tables([FOUND.empty_table(), *tables])
