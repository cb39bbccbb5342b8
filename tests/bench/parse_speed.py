"""Parsing by transfer beside the original on detectron2: seconds, memory and results.

    python -m tests.bench.parse_speed --original-python PYTHON --vlpart CLONE --dino CLONE

PYTHON is the interpreter of an environment with torch (of the same version), detectron2 built from its
repository, timm 0.5.4 and OpenCV; the clones are of VLPart's and DINO's repositories. Both sides get the same
photos, made from formulas, with the same parts, and the same weights of DINO ViT-S/8 (stride 4, a short side
of 224 pixels) and of VLPart R50. Each is a process of its own with the same number of threads; they work in
turn, never at once. The boxes and categories they find are compared first, and must be equal.

What is measured is a pass over all queries, from their files on. By then partseg has the descriptors of the
base images in memory, as after the first images of a parse; the original reads them again for each query.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record, mask_to_rle
from partseg.parsing.base_images import BaseImages
from partseg.parsing.config import DescriptorConfig, ParserConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.detector import ModelDetector
from partseg.parsing.index import build_index
from partseg.parsing.parser import Parser
from partseg.parsing.parts import Base
from tests.bench import original_parser
from tests.bench.original_detector import Side, running
from tests.bench.original_parser import serve
from tests.golden import formula, parser

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 375, 500  # of the photos, as most of Pascal's and ImageNet's
PARTS = 8
CLASSES = 93
# The published setting for IN-S11: every query goes to transfer, as its label 0 is no base object.
BASE_OBJECT, QUERY_OBJECT = "horse", "zebra"
CATEGORIES = tuple(
    category
    for first, name in ((1, BASE_OBJECT), (2 + PARTS, QUERY_OBJECT))
    for category in (
        Category(category_id=first, name=name, kind="object"),
        *(
            Category(category_id=first + 1 + i, name=f"{name}:part {i}", kind="part", parent_id=first)
            for i in range(PARTS)
        ),
    )
)
FIRST_LENT, FIRST_WRITTEN = 2, 3 + PARTS  # categories of the first part, lent and written


class Ours:
    """partseg's parser as the parse stage uses it."""

    def __init__(self, folder: Path, device: str) -> None:
        base = Dataset.open(folder / "base_layout", image_root=folder / "base", cache=folder / "cache")
        labelled = Dataset.open(folder / "labelled", image_root=folder / "queries", cache=folder / "cache")
        describer = Describer(parser.formula_vit(), DescriptorConfig(), device=device)
        lent = {c.category_id: c.name for c in CATEGORIES[1 : 1 + PARTS]}
        split = base.split("train")
        index = build_index(split, describer, object_ids={1}, part_ids=set(lent))
        names = [f"class {i}" for i in range(CLASSES)]
        detector = ModelDetector(
            parser.formula_detector().to(device), names, torch.from_numpy(np.load(folder / "text.npy"))
        )
        self.images = labelled.split("train")
        self.parser = Parser(
            ParserConfig(),
            detector=detector,
            reading=describer.config,
            base=Base(
                index=index,
                images=BaseImages(split, index, describer, part_ids=set(lent)),
                describer=describer,
                part_names=lent,
            ),
            by_detector=(),
            labels={c.category_id: c.name for c in CATEGORIES},
            categories=CATEGORIES,
        )

    def parse(self) -> list[tuple[Any, Any]]:
        """Boxes and categories of all queries, the latter under the ids of the base dataset."""
        found = []
        for record in self.parser.records(self.images, range(len(self.images))):
            parts = [row for row in record.annotations if row.category_id >= FIRST_WRITTEN]
            corners = np.array([row.bbox_xywh for row in parts]).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            categories = [row.category_id - FIRST_WRITTEN + FIRST_LENT for row in parts]
            found.append((corners, np.array(categories, dtype=np.int64)))
        return found


def write_inputs(folder: Path, queries: int, bases: int) -> None:
    """Photos, parts and weights, once for both sides."""
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for name in ("base", "queries"):
        (folder / name).mkdir()
    with DatasetWriter(
        folder / "base_layout", name="base", categories=CATEGORIES, converter={}, image_source="base"
    ) as writer:
        for i in range(bases):
            file_name = f"2008_{i:06}.jpg"
            _save(folder / "base" / file_name, i)
            image_id = int(file_name.removesuffix(".jpg").replace("_", ""))  # the original's rule
            images.append({"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
            rows = [_whole()]
            for number, mask in enumerate(_masks(i)):
                rle = mask_to_rle(mask)
                rows.append(_row(FIRST_LENT + number, mask, rle, parent=0))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": FIRST_LENT + number,
                        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.decode()},
                    }
                )
            image = ImageRow(file_name=file_name, height=HEIGHT, width=WIDTH, source_key=file_name)
            writer.write("train", Record(image=image, annotations=tuple(rows)))
    categories = [{"id": c.category_id, "name": c.name} for c in CATEGORIES]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(coco))
    with DatasetWriter(
        folder / "labelled", name="labelled", categories=CATEGORIES, converter={}, image_source="queries"
    ) as writer:
        for i in range(queries):
            file_name = f"{i:03}.jpg"
            _save(folder / "queries" / file_name, 1000 + i)
            image = ImageRow(
                file_name=file_name,
                height=HEIGHT,
                width=WIDTH,
                source_key=file_name,
                pos_category_ids=(2 + PARTS,),
            )
            writer.write("train", Record(image=image))
    np.save(folder / "text.npy", formula.tensor("classifier_base", (CLASSES, 1024)))
    state = {f"model.{name}": value for name, value in parser.formula_vit().state_dict().items()}
    state |= parser.formula_detector().state_dict()
    # The original keeps the classes it was trained with, and looks for those of text.npy.
    state["roi_heads.box_predictor.cls_score.zs_weight"] = torch.zeros(1024, CLASSES + 1)
    torch.save(state, folder / "weights.pth")


def _save(path: Path, seed: int) -> None:
    """A photo without loss, so that all libraries read the same, under the name the original expects."""
    Image.fromarray(formula.image(HEIGHT, WIDTH, seed)).save(path, format="png")


def _masks(seed: int) -> np.ndarray:
    """Parts as ellipses, bool [PARTS, HEIGHT, WIDTH]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rows = formula.integers(f"parts:{seed}", 4 * PARTS).reshape(PARTS, 4)
    w, h = 60 + rows[:, 0] % (WIDTH // 2), 60 + rows[:, 1] % (HEIGHT // 2)
    left, top = rows[:, 2] % (WIDTH - w), rows[:, 3] % (HEIGHT - h)
    return np.stack(
        [
            ((2 * x - 2 * x0 - bw) / bw) ** 2 + ((2 * y - 2 * y0 - bh) / bh) ** 2 <= 1
            for x0, y0, bw, bh in zip(left, top, w, h, strict=True)
        ]
    )


def _whole() -> AnnotationRow:
    return AnnotationRow(category_id=1, bbox_xywh=(0, 0, WIDTH, HEIGHT), area=float(WIDTH * HEIGHT))


def _row(category_id: int, mask: np.ndarray, rle: bytes, parent: int) -> AnnotationRow:
    ys, xs = np.nonzero(mask)
    box = tuple(float(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1))
    return AnnotationRow(
        category_id=category_id, bbox_xywh=box, area=float(mask.sum()), rle=rle, parent=parent
    )  # type: ignore[arg-type]


def compare(folder: Path, queries: int) -> str:
    """How far the two sides' results are apart, in words.

    Raises:
        SystemExit: they are not the same.
    """
    theirs, ours = (np.load(folder / f"{name}.npz") for name in ("Original", "Ours"))
    furthest, parts = 0.0, 0
    for i in range(queries):
        a, b = theirs[f"categories{i}"], ours[f"categories{i}"]
        if a.tolist() != b.tolist():
            raise SystemExit(f"query {i}: the original finds {a.tolist()}, partseg {b.tolist()}")
        parts += len(a)
        if len(a):
            furthest = max(furthest, float(np.abs(theirs[f"boxes{i}"] - ours[f"boxes{i}"]).max()))
    if furthest > 0.05 or not parts:
        raise SystemExit(f"{parts} parts, boxes up to {furthest} pixels apart")
    return f"equal: {parts} parts in {queries} images, boxes within {furthest:.1e} of a pixel"


def measure(options: argparse.Namespace) -> None:
    """Compare the results, then measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, options.queries, options.bases)
        arguments = [str(folder), str(options.threads), options.device]
        original = [str(options.original_python.absolute()), original_parser.__file__, *arguments]
        own = [sys.executable, "-m", "tests.bench.parse_speed", "--serve", *arguments]
        dino = str(options.dino.absolute())
        with (
            running([*original, dino], options.threads, options.vlpart) as a,
            running(own, options.threads, ROOT) as b,
        ):
            for side in (a, b):
                side.do("results")
            print(compare(folder, options.queries), flush=True)
            rows = [_round(a, b) for _ in range(options.rounds)]
    walls = [statistics.median(row[side]["wall"] for row in rows) for side in (0, 1)]
    # Of processor time the least: other work on the machine can only add to it.
    processors = [min(row[side]["processor"] for row in rows) for side in (0, 1)]
    peaks = [max(row[side]["peak"] for row in rows) for side in (0, 1)]
    print(f"{'':9} {'images/s':>9} {'s/image':>8} {'processor s/image':>18} {'MiB':>6}")
    for name, wall, processor, memory in zip(("original", "partseg"), walls, processors, peaks, strict=True):
        n = options.queries
        print(f"{name:9} {n / wall:9.4f} {wall / n:8.2f} {processor / n:18.2f} {memory:6.0f}")
    print(
        f"ratio: {walls[0] / walls[1]:.2f} by the clock, {processors[0] / processors[1]:.2f} by the processor"
    )


def _round(a: Side, b: Side) -> tuple[dict[str, float], dict[str, float]]:
    return a.do("parse"), b.do("parse")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    arguments.add_argument("--original-python", type=Path)
    arguments.add_argument("--vlpart", type=Path)
    arguments.add_argument("--dino", type=Path)
    arguments.add_argument("--queries", type=int, default=4)
    arguments.add_argument("--bases", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve(Ours, Path(options.serve[0]), int(options.serve[1]), options.serve[2])
        return
    if None in (options.original_python, options.vlpart, options.dino):
        raise SystemExit("name the original with --original-python, --vlpart and --dino")
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {options.rounds} rounds")
    measure(options)


if __name__ == "__main__":
    main()
