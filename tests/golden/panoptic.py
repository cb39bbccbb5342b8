"""What the original panopticapi and panoptic_parts say about small made-up maps.

``pq``: maps of 48 x 64 pixels with crowds, void, dropped, split and renamed segments and an empty prediction;
``expected.json`` says which commit of panopticapi gave the numbers. ``partpq``: uids and TAPPS predictions of
96 x 128 pixels, and the numbers of both copies of panoptic_parts (TAPPS' and its own repository's).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from partseg.evaluation.panoptic_image import PanopticImage, ThingOrStuff, from_segments_info

HERE = Path(__file__).parent
SHARED = Path(__file__).parents[2].parent / "shared"
SPECS = ("cpp_default", "cpp_grouped", "ppp_57", "ppp_107")


class PanopticCase(NamedTuple):
    """Images of one run of panopticapi."""

    categories: tuple[ThingOrStuff, ...]
    true: dict[int, PanopticImage]
    predicted: dict[int, PanopticImage]
    expected: dict[str, Any]


def panoptic_case() -> PanopticCase:
    content = json.loads((HERE / "pq/expected.json").read_text())
    with np.load(HERE / "pq/maps.npz") as maps:

        def images(rows: list[dict[str, Any]]) -> dict[int, PanopticImage]:
            return {
                row["image_id"]: from_segments_info(maps[row["file_name"]], row["segments_info"])
                for row in rows
            }

        return PanopticCase(
            tuple(ThingOrStuff(row["id"], row["name"], row["isthing"] == 1) for row in content["categories"]),
            images(content["true"]),
            images(content["predicted"]),
            {name: content[name] for name in ("All", "Things", "Stuff", "per_class")},
        )


def part_case(spec: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Uids [H, W] and predictions [H, W, 3] of six images."""
    with np.load(HERE / f"partpq/inputs_{spec}.npz") as maps:
        count = len(maps.files) // 2
        return [maps[f"gt_{i}"] for i in range(count)], [maps[f"pred_{i}"] for i in range(count)]


def part_expected(repository: str) -> dict[str, Any]:
    """By specification: summary and per_class_by_eval_sid; ``repository`` is "tapps" or "main"."""
    content: dict[str, Any] = json.loads((HERE / f"partpq/partpq_{repository}.json").read_text())
    return content
