"""A made-up dataset of somebody's own: COCO-like files with what partseg's export adds to COCO's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partseg.synthetic.outlines import outlines
from partseg.synthetic.raw_coco import polygon_record
from partseg.synthetic.scenes import (
    COCO_JSON,
    compressed,
    joined_parts,
    jpeg,
    mask_bbox,
    scene_series,
    write,
    write_json,
)

_SHAPES = {"dog": "dog", "car": "car", "bird": "bird"}
_PARTS = {
    "dog": {"head": "head", "tail": "tail", "torso": "torso"},
    "car": {"wheel": "wheel", "window": "window"},
    "bird": {"head": "head", "tail": "tail", "lwing": "wing", "rwing": "wing"},
}


def write_coco_json(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """``{train,val}.json`` and ``images/{train,val}``; file names are relative to ``root``.

    Categories have a ``kind``; parts have the ``parent_id`` of their object, in the table and in the list of
    annotations. Objects have polygons and parts compressed run lengths; companions are marked with
    ``ignore``, and tails have a ``score``.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
    """
    categories = _categories()
    ids = {item["name"]: item["id"] for item in categories}
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        series = scene_series(COCO_JSON, number, seed=seed, count=count, shapes=_SHAPES, size=size)
        for image_id, (scene, random) in enumerate(series, start=1):
            name = f"images/{split}/{image_id:04d}.jpg"
            write(root / name, jpeg(scene.image))
            shown = sorted({ids[item.name] for item in scene.objects})
            images.append(
                {
                    "id": image_id,
                    "file_name": name,
                    "width": scene.image.shape[1],
                    "height": scene.image.shape[0],
                    "pos_category_ids": shown,
                }
            )
            for position, item in enumerate(scene.objects):
                parent = len(annotations) + 1
                whole = polygon_record(outlines(item.mask, random))
                whole |= {"id": parent, "image_id": image_id, "category_id": ids[item.name], "iscrowd": 0}
                annotations.append(whole | ({"ignore": 1} if position else {}))
                for part, mask in joined_parts(item, _PARTS[item.name]).items():
                    row = {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": ids[f"{item.name}:{part}"],
                        "parent_id": parent,
                        "bbox": mask_bbox(mask),
                        "area": int(mask.sum()),
                        "segmentation": compressed(mask),
                        "iscrowd": 0,
                    }
                    annotations.append(row | ({"score": 0.5} if part == "tail" else {}))
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(root / f"{split}.json", content)


def _categories() -> list[dict[str, Any]]:
    """Objects from 1, parts after them."""
    objects = [{"id": row, "name": name, "kind": "object"} for row, name in enumerate(_SHAPES, start=1)]
    parts = [(name, part) for name in _SHAPES for part in dict.fromkeys(_PARTS[name].values())]
    first = len(objects) + 1
    return [
        *objects,
        *(
            {"id": row, "name": f"{name}:{part}", "kind": "part", "parent_id": list(_SHAPES).index(name) + 1}
            for row, (name, part) in enumerate(parts, start=first)
        ),
    ]
