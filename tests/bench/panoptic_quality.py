"""PQ and PartPQ beside panopticapi and panoptic_parts, on maps of 1024 x 2048 pixels.

    python -m tests.bench.panoptic_quality --panopticapi DIR --panoptic-parts DIR

The originals are read from clones that the arguments (or ``$PANOPTICAPI``, ``$PANOPTIC_PARTS``) name; without
one, its part is left out. Both sides compare the same maps, in turns, in one process, and their counts have
to be equal. Times are processor time per image, the least of all runs; memory is the peak of what numpy
allocates (pillow's own buffers are not seen, on either side).

"colours in memory" is from arrays as panopticapi wants them, "ids in memory" from one number per pixel, as a
model gives them. "files" is from two image files each. "layout" is what the evaluation of a dataset does: the
truth comes as runs out of the layout, the prediction from a file, or as ids in memory; the original reads
files both times. Decoding PNG is pillow's work on both sides, and most of what is left of "files".
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import os
import platform
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
from PIL import Image

from partseg.datasets.convert import convert
from partseg.evaluation.match_counts import MatchCounts
from partseg.evaluation.panoptic_files import PanopticFolder, PartFolder
from partseg.evaluation.panoptic_image import PanopticImage, ThingOrStuff, from_segments_info
from partseg.evaluation.panoptic_quality import PanopticQuality
from partseg.evaluation.panoptic_truth import PanopticTruth, PartTruth
from partseg.evaluation.part_maps import PartMap
from partseg.evaluation.part_panoptic_quality import PartPanopticQuality
from partseg.evaluation.part_specs import published_spec
from partseg.layout import Dataset
from partseg.layout.uids import unpack_uids
from partseg.synthetic.worlds import make_up
from tests.bench.run_lengths import wavy

HEIGHT, WIDTH, SEGMENTS = 1024, 2048, 60
EVAL_SPEC = "panoptic_parts/specs/eval_specs/ppq_cpp_19_23_cvpr21_default_evalspec.yaml"

Work = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--panopticapi", type=Path, default=os.environ.get("PANOPTICAPI"))
    parser.add_argument("--panoptic-parts", type=Path, default=os.environ.get("PANOPTIC_PARTS"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--images", type=int, default=2, help="for PartPQ, of which the original takes seconds"
    )
    options = parser.parse_args()
    print(f"{'':38}{'original':>10}{'partseg':>9}   ms per image{'original':>12}{'partseg':>9}   MiB")
    with tempfile.TemporaryDirectory() as folder:
        if options.panopticapi is None:
            print("PQ: left out, no clone of cocodataset/panopticapi is named (--panopticapi)")
        else:
            bench_panoptic(Path(options.panopticapi), Path(folder), options.runs)
        if options.panoptic_parts is None:
            print("PartPQ: left out, no clone of pmeletis/panoptic_parts is named (--panoptic-parts)")
        elif missing := [name for name in ("ruamel",) if importlib.util.find_spec(name) is None]:
            print(f"PartPQ: left out, panoptic_parts needs {missing[0]}.yaml")
        else:
            bench_parts(Path(options.panoptic_parts), Path(folder), options.images, min(options.runs, 3))


def bench_panoptic(clone: Path, work: Path, runs: int) -> None:
    """``pq_compute_single_core``, which is what each process of panopticapi runs."""
    sys.path.insert(0, str(clone))
    import panopticapi.evaluation as original

    root = work / "coco"
    annotation, prediction = write_coco(root)
    classes = (ThingOrStuff(1, "thing", True), ThingOrStuff(2, "stuff", False))
    known = {1: {}, 2: {}}
    true, own = root / "annotations/panoptic_val2017", root / "model"
    arrays = {f"{folder}/1.png": np.asarray(Image.open(folder / "1.png")) for folder in (true, own)}

    def theirs() -> Any:
        pairs = [(copy.deepcopy(annotation), copy.deepcopy(prediction))]
        with contextlib.redirect_stdout(io.StringIO()):
            return original.pq_compute_single_core(0, pairs, str(true), str(own), known)

    def theirs_in_memory() -> Any:
        with mock.patch.object(original.Image, "open", arrays.__getitem__):
            return theirs()

    def state(truth: PanopticImage, predicted: PanopticImage) -> MatchCounts:
        found = PanopticQuality(classes)
        found.add(1, truth, predicted)
        return found.counts

    first, second = (arrays[f"{folder}/1.png"] for folder in (true, own))
    ids, own_ids = (item.astype(np.int32) @ np.array([1, 256, 65536], np.int32) for item in (first, second))
    rows, own_rows = annotation["segments_info"], prediction["segments_info"]
    truth_file = PanopticFolder(true.with_suffix(".json"))
    predicted_file = PanopticFolder(root / "model.json")
    settings = {"annotations": {"val2017": "annotations/panoptic_val2017.json"}, "images": "none"}
    convert("coco_panoptic", root, work / "coco-layout", options=settings)
    truth = PanopticTruth(Dataset.open(work / "coco-layout", cache=work / "cache"), "val2017")
    cases: dict[str, tuple[Work, Work]] = {
        "PQ, colours in memory": (
            theirs_in_memory,
            lambda: state(from_segments_info(first, rows), from_segments_info(second, own_rows)),
        ),
        "PQ, ids in memory": (
            theirs_in_memory,
            lambda: state(from_segments_info(ids, rows), from_segments_info(own_ids, own_rows)),
        ),
        "PQ, files": (theirs, lambda: state(truth_file.read(1), predicted_file.read(1))),
        "PQ, layout and files": (theirs, lambda: state(truth.image(0), predicted_file.read(1))),
        "PQ, layout and ids in memory": (
            theirs,
            lambda: state(truth.image(0), from_segments_info(own_ids, own_rows)),
        ),
    }
    compare(cases, runs, lambda stat: {key: vars(stat[key]) for key in known})


def bench_parts(clone: Path, work: Path, images: int, runs: int) -> None:
    """What ``evaluate_single_core`` of panoptic_parts does with one image."""
    original, spec = load_panoptic_parts(clone)
    root = work / "cityscapes"
    make_up("cityscapes_pp", root, {"train": 1, "val": images, "size": WIDTH})
    convert("cityscapes_pp", root, work / "parts-layout", options={"images": "none"})
    truth = PartTruth(Dataset.open(work / "parts-layout", cache=work / "cache"), "val")
    (work / "parts").mkdir()
    files = sorted((root / "gtFinePanopticParts/val").rglob("*.tif"))
    uids, channels = [], []
    for path in files:
        uids.append(np.asarray(Image.open(path)))
        channels.append(predicted_channels(uids[-1]))
        name = path.name.removesuffix("_gtFinePanopticParts.tif")
        Image.fromarray(channels[-1]).save(work / f"parts/{name}.png")
    folder = PartFolder(work / "parts")
    keys = [str(truth.key(index)) for index in range(images)]

    def theirs(pairs: Sequence[tuple[Any, Any]]) -> Any:
        stat = original.PQStat()
        for true, own in pairs:
            segments, extra = original.annotation_parsing(spec, true)
            predicted = original.prediction_parsing(
                spec.cat_definition, *(own[..., i].astype(np.int32) for i in range(3))
            )
            ignored = original.generate_ignore_info_tiff(true, spec)
            ignored[extra != 0] = extra[extra != 0]
            crowds = original.ignore_img_parsing(ignored, spec.cat_definition)
            stat += original.pq_part(predicted, segments, crowds, spec.cat_definition, spec.ignore_label)
        return stat

    def theirs_from_files() -> Any:
        return theirs(
            [
                (np.array(Image.open(path)).astype(np.int32), np.array(Image.open(folder.path(key))))
                for path, key in zip(files, keys, strict=True)
            ]
        )

    def state(pairs: Any) -> MatchCounts:
        found = PartPanopticQuality(published_spec("cpp_default"))
        for number, (true, own) in enumerate(pairs):
            found.add(number, true, own)
        return found.counts

    cases: dict[str, tuple[Work, Work]] = {
        "PartPQ, in memory": (
            lambda: theirs(list(zip(uids, channels, strict=True))),
            lambda: state(
                (true, PartMap(labels=own, encoding="channels"))
                for true, own in zip(uids, channels, strict=True)
            ),
        ),
        "PartPQ, layout and files": (
            theirs_from_files,
            lambda: state((truth.runs(index), folder.read(key)) for index, key in enumerate(keys)),
        ),
    }
    sids = [item["sem_cls"][0] for item in spec.cat_definition["cat_def"]]
    compare(
        cases, runs, lambda stat: {sid: vars(stat[place]) for place, sid in enumerate(sids)}, images=images
    )


def compare(
    cases: dict[str, tuple[Work, Work]], runs: int, counts_of: Callable[[Any], Any], images: int = 1
) -> None:
    """Time both sides of every case in turns; their counts are equal."""
    for title, (theirs, ours) in cases.items():
        expected, found = theirs(), ours()
        totals = found.totals()
        for category, row in counts_of(expected).items():
            item = totals[category]
            assert (item.tp, item.fp, item.fn) == (row["tp"], row["fp"], row["fn"]), (title, category)
            assert abs(item.iou - row["iou"]) < 1e-9, (title, category)
        assert sum(item.tp for item in totals.values()) > 0
        times: list[list[float]] = [[], []]
        for _ in range(runs):
            for place, work in enumerate((theirs, ours)):
                start = time.process_time()
                work()
                times[place].append(1000 * (time.process_time() - start) / images)
        a, b = (min(item) for item in times)
        m, n = peak(theirs), peak(ours)
        print(f"{title:38}{a:10.1f}{b:9.2f}{a / b:9.1f} x{m:17.1f}{n:9.1f}{m / n:9.1f} x")


def peak(work: Work) -> float:
    """MiB that Python and numpy allocate at most."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(found / 2**20)


def write_coco(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """One image of wavy segments, and a prediction that is a little shifted; their annotations."""
    labels = wavy(WIDTH, SEGMENTS)[:HEIGHT]
    annotations = []
    image = {"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}
    categories = [
        {"id": 1, "name": "thing", "isthing": 1, "color": [9, 9, 9], "supercategory": "a"},
        {"id": 2, "name": "stuff", "isthing": 0, "color": [8, 8, 8], "supercategory": "a"},
    ]
    for seed, (name, shift) in enumerate({"annotations/panoptic_val2017": 0, "model": 9}.items()):
        ids = np.random.default_rng(seed).choice(2**24 - 1, SEGMENTS, replace=False) + 1
        ids[3] = 0  # void
        moved = np.roll(labels, shift, axis=1)
        pixels = ids[moved].astype("<u4")
        rgb = np.ascontiguousarray(pixels.view(np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3])
        (root / name).mkdir(parents=True)
        Image.fromarray(rgb).save(root / name / "1.png")
        segments = []
        for label in np.unique(moved).tolist():
            if label == 3:
                continue
            y, x = np.nonzero(moved == label)
            box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            segments.append(
                {
                    "id": int(ids[label]),
                    "category_id": 1 + label % 2,
                    "area": len(x),
                    "bbox": box,
                    "iscrowd": int(label % 9 == 0),
                }
            )
        annotation = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
        content = {"images": [image], "annotations": [annotation], "categories": categories}
        (root / f"{name}.json").write_bytes(orjson.dumps(content))
        annotations.append(annotation)
    return annotations[0], annotations[1]


def predicted_channels(uids: np.ndarray) -> np.ndarray:
    """TAPPS' three channels: the truth a little shifted, with an unknown part where it has none."""
    ids = unpack_uids(np.roll(uids, 5, axis=1), missing=0)
    return np.dstack([ids.sids, ids.iids, np.where(ids.pids > 0, ids.pids, 255)]).astype(np.uint8)


def load_panoptic_parts(clone: Path) -> tuple[Any, Any]:
    """Its evaluation module and its specification of Cityscapes."""
    # it takes "3.11" for 3.1, and imports what this does not need
    sys.modules.update({name: mock.MagicMock() for name in unneeded()})
    if importlib.util.find_spec("sklearn") is None:
        print("scikit-learn is not installed: its confusion matrix is one of numpy here, which is faster")
        sys.modules["sklearn"] = sys.modules["sklearn.metrics"] = mock.MagicMock(
            confusion_matrix=confusion_matrix
        )
    sys.path.insert(0, str(clone))
    with mock.patch.object(platform, "python_version", return_value="3.9.0"), contextlib.chdir(clone):
        from panoptic_parts.specs.eval_spec import PartPQEvalSpec
        from panoptic_parts.utils import evaluation_PartPQ

        return evaluation_PartPQ, PartPQEvalSpec(EVAL_SPEC)


def unneeded() -> list[str]:
    names = ("matplotlib", "matplotlib.pyplot", "matplotlib.patches", "matplotlib.legend_handler")
    return [name for name in names if importlib.util.find_spec(names[0]) is None]


def confusion_matrix(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """As scikit-learn's, over the labels that occur."""
    present = np.bincount(true, minlength=256) + np.bincount(predicted, minlength=256) > 0
    place = np.cumsum(present) - 1
    size = int(present.sum())
    return np.bincount(place[true] * size + place[predicted], minlength=size * size).reshape(size, size)


if __name__ == "__main__":
    main()
