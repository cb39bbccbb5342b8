"""Predictions in files against datasets in the common layout, in one process and in several."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch.distributed as dist
from PIL import Image

from partseg.datasets.convert import convert
from partseg.errors import LayoutError
from partseg.evaluation.merging import gathered, merged, share
from partseg.evaluation.panoptic_files import PanopticFolder, PartFolder, SemanticFolder
from partseg.evaluation.panoptic_run import evaluate_panoptic, evaluate_parts, evaluate_semantic
from partseg.evaluation.panoptic_truth import PanopticTruth, PartTruth, SemanticTruth
from partseg.evaluation.predictions import PredictionError
from partseg.layout import Dataset
from partseg.layout.export.panoptic import write_coco_panoptic, write_panoptic_parts
from partseg.layout.export.semantic import write_semantic
from partseg.synthetic.worlds import make_up
from tests.evaluation.test_panoptic_quality import check
from tests.golden.panoptic import SHARED

GOLDEN = SHARED / "golden/pq/a"
SAMPLE = SHARED / "samples/coco"
COCO = {"annotations": {"val2017": "annotations/panoptic_val2017.json"}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    root = tmp_path_factory.mktemp("worlds")

    def build(source: str, raw: Path | None = None, **options: Any) -> Dataset:
        name = "-".join([source, *map(str, options.values())]).replace("/", "_")[:60]
        out = root / f"{name}-dataset"
        if raw is None:
            raw = root / source
            if not raw.is_dir():
                make_up(source, raw, {"train": 1, "val": 7, "size": 64})
        if not out.is_dir():
            convert(source, raw, out, options={"images": "none", **options})
        return Dataset.open(out, image_root=raw, cache=root / "cache")

    return build


def moved(path: Path) -> None:
    """Shift a map by three rows, so that the prediction is not perfect."""
    pixels = np.asarray(Image.open(path))
    Image.fromarray(np.roll(pixels, 3, axis=0)).save(path)


@pytest.fixture
def coco(opened: Any, tmp_path: Path) -> tuple[PanopticTruth, Path]:
    """A made-up dataset, and predictions that are its truth three rows lower."""
    dataset = opened("coco_panoptic", **COCO)
    write_coco_panoptic(dataset, "val2017", tmp_path / "out", name="model")
    for path in (tmp_path / "out/model").iterdir():
        moved(path)
    return PanopticTruth(dataset, "val2017"), tmp_path / "out/model.json"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the shared golden files")
@pytest.mark.parametrize("kind", ["shift", "drop_swap", "split"])
def test_panopticapis_numbers_out_of_the_layout(opened: Any, tmp_path: Path, kind: str) -> None:
    truth = PanopticTruth(opened("coco_panoptic", SAMPLE, **COCO), "val2017")
    content = json.loads((GOLDEN / f"pred_{kind}.json").read_text())
    (tmp_path / "model").mkdir()
    with np.load(GOLDEN / f"pred_{kind}.npz") as maps:
        for name in maps.files:
            ids = maps[name].astype("<u4")
            rgb = ids.view(np.uint8).reshape(*ids.shape, 4)[..., :3]
            Image.fromarray(np.ascontiguousarray(rgb)).save(tmp_path / "model" / name)
    (tmp_path / "model.json").write_bytes(orjson.dumps(content))
    predictions = PanopticFolder(tmp_path / "model.json", category_of=truth.category_of())
    wanted = {row["image_id"] for row in content["annotations"]}
    indices = [index for index in range(len(truth)) if truth.key(index) in wanted]
    assert len(indices) == len(wanted)
    for workers in (0, 2):
        state = evaluate_panoptic(truth, predictions, indices=indices, workers=workers)
        check(state.result(), json.loads((GOLDEN / "pq.json").read_text())[kind])


def test_the_truth_as_its_own_prediction(opened: Any, tmp_path: Path) -> None:
    for source, split, options in (
        ("coco_panoptic", "val2017", COCO),
        ("cityscapes_pp", "val", {}),
        ("pascal_pp", "validation", {}),
    ):
        dataset = opened(source, **options)
        out = tmp_path / source
        write_coco_panoptic(dataset, split, out, name="model")
        content = orjson.loads((out / "model.json").read_bytes())
        truth = PanopticTruth(dataset, split)
        known = truth.category_of()
        for annotation in content["annotations"]:  # crowds and classes nobody evaluates are not predicted
            kept = [
                row
                for row in annotation["segments_info"]
                if row["category_id"] in known and not row["iscrowd"]
            ]
            path = out / "model" / annotation["file_name"]
            pixels = np.asarray(Image.open(path)).astype(np.int64) @ [1, 256, 65536]
            pixels[~np.isin(pixels, [row["id"] for row in kept])] = 0
            rgb = np.stack([pixels % 256, pixels // 256 % 256, pixels // 65536], 2).astype(np.uint8)
            Image.fromarray(rgb).save(path)
            annotation["segments_info"] = kept
        (out / "model.json").write_bytes(orjson.dumps(content))
        state = evaluate_panoptic(truth, PanopticFolder(out / "model.json", category_of=known))
        result = state.result()
        assert result.images == len(truth)
        assert result.all.n > 0
        assert result.all.quality == 1.0


def test_parts_and_classes_of_the_truth_as_predictions(opened: Any, tmp_path: Path) -> None:
    for source, split, spec in (
        ("cityscapes_pp", "val", "cpp_grouped"),
        ("pascal_pp", "validation", "ppp_107"),
    ):
        dataset = opened(source)
        write_panoptic_parts(dataset, split, tmp_path / source)
        folder = PartFolder(tmp_path / source, folded=False)
        own = evaluate_parts(PartTruth(dataset, split), folder, protocol="correct").result()
        other = evaluate_parts(PartTruth(dataset, split, spec), folder, protocol="correct").result()
        assert own.all.quality == other.all.quality == 1.0
        assert (own.spec, other.spec) == (dataset.manifest.name, spec)
        assert own.parts.n > 0
        for ids, kind in (("train", "object"), ("category", "part")):
            out = tmp_path / f"{source}-{ids}"
            truth = SemanticTruth(dataset, split, ids=ids, kind=kind, ignore=9999 if kind == "part" else 255)
            write_semantic(dataset, split, out, ids=ids, kind=kind, ignore=truth.ignore)
            result = evaluate_semantic(truth, SemanticFolder(out)).result()
            assert result.pixel_accuracy == result.mean_iou == 1.0
            assert len(result.classes) == len(truth.classes())


def test_tapps_files_are_found_by_the_key_of_the_image(opened: Any, tmp_path: Path) -> None:
    dataset = opened("cityscapes_pp")
    truth = PartTruth(dataset, "val")
    for index in range(len(truth)):
        Image.fromarray(np.zeros((*truth.runs(index).to_map().shape, 3), np.uint8)).save(
            tmp_path / f"{truth.key(index)}_gtFine_leftImg8bit.png"
        )
    result = evaluate_parts(truth, PartFolder(tmp_path)).result()
    assert result.images == len(truth)
    assert result.all.quality == 0.0
    (tmp_path / f"{truth.key(0)}_again.png").write_bytes(b"")
    with pytest.raises(PredictionError, match="several maps for image"):
        evaluate_parts(truth, PartFolder(tmp_path))
    (tmp_path / f"{truth.key(0)}.png").write_bytes(b"")
    with pytest.raises(PredictionError, match=r"the map is damaged"):
        evaluate_parts(truth, PartFolder(tmp_path))


def test_predictions_that_are_not_there(coco: tuple[PanopticTruth, Path], tmp_path: Path) -> None:
    truth, path = coco
    content = orjson.loads(path.read_bytes())
    key = truth.key(2)

    def fails(message: str) -> None:
        with pytest.raises(PredictionError, match=message) as error:
            evaluate_panoptic(truth, PanopticFolder(path, category_of=truth.category_of()))
        assert str(path.parent) in str(error.value)

    def rewrite(change: Callable[[dict[str, Any]], None]) -> None:
        copy = orjson.loads(orjson.dumps(content))
        change(next(row for row in copy["annotations"] if row["image_id"] == key))
        path.write_bytes(orjson.dumps(copy))

    rewrite(lambda row: row["segments_info"][0].update(category_id=4711))
    fails("has the unknown category 4711")
    rewrite(lambda row: row["segments_info"].pop())
    fails("is not in segments_info")
    rewrite(lambda row: row.pop("segments_info"))
    fails(f"the annotation of image {key} lacks 'segments_info'")
    rewrite(lambda row: row.update(file_name="nowhere.png"))
    fails("the map is missing")
    rewrite(lambda row: row.update(image_id=-1))
    fails(f"no prediction for image {key}; predict every image")
    path.write_bytes(b"{")
    fails("not readable JSON")
    path.write_bytes(b"{}")
    fails("no list of annotations")
    with pytest.raises(PredictionError, match="there is no folder of PNG files"):
        PanopticFolder(tmp_path / "nothing.json")
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(PredictionError, match="there is no"):
            SemanticFolder(folder if folder.name == "nothing" else _empty(tmp_path))
    with pytest.raises(LayoutError, match="has no panoptic-parts maps"):
        PartTruth(truth.dataset, "val2017")


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_workers_change_no_bit(coco: tuple[PanopticTruth, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    truth, path = coco
    predictions = PanopticFolder(path, category_of=truth.category_of())
    seen = []

    class Told:
        def update(self, done: int, total: int, message: str = "") -> None:
            seen.append((done, total))

        def log(self, message: str) -> None:
            raise AssertionError

    whole = evaluate_panoptic(truth, predictions, report=Told()).result()
    assert seen[-1] == (len(truth), len(truth))
    assert 0 < whole.all.quality < 1
    monkeypatch.setattr("partseg.evaluation.merging.CHUNK", 3)
    assert evaluate_panoptic(truth, predictions, workers=2).result() == whole


def test_1_2_and_4_ranks_change_no_bit(coco: tuple[PanopticTruth, Path], opened: Any, tmp_path: Path) -> None:
    truth, path = coco
    parts = PartTruth(opened("cityscapes_pp"), "val")
    write_panoptic_parts(parts.dataset, "val", tmp_path / "uids")
    classes = SemanticTruth(parts.dataset, "val")
    write_semantic(parts.dataset, "val", tmp_path / "classes", ids="train")
    for folder in ("uids", "classes"):
        for item in (tmp_path / folder).rglob("*.[pt][ni][gf]"):
            moved(item)
    jobs = (
        (evaluate_panoptic, truth, PanopticFolder(path, category_of=truth.category_of())),
        (evaluate_parts, parts, PartFolder(tmp_path / "uids")),
        (evaluate_semantic, classes, SemanticFolder(tmp_path / "classes")),
    )
    alone = [gathered(evaluate(one, two)).result() for evaluate, one, two in jobs]  # type: ignore[operator]
    context = multiprocessing.get_context("fork")  # torch is loaded already
    queue = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, jobs, tmp_path, queue)) for rank in range(4)]
    for process in ranks:
        process.start()
    answers = [queue.get(timeout=120) for _ in range(6)]
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    assert sorted(world for world, _ in answers) == [2, 2, 4, 4, 4, 4]
    assert all(results == alone for _, results in answers)


def _rank(rank: int, jobs: Any, folder: Path, queue: Any) -> None:
    for world in (4, 2):
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world
        )
        results = [
            gathered(evaluate(one, two, indices=share(range(len(one)), rank, world))).result()
            for evaluate, one, two in jobs
        ]
        queue.put((world, results))
        dist.barrier()
        dist.destroy_process_group()


def test_nothing_to_merge() -> None:
    with pytest.raises(ValueError, match="no state"):
        merged([])


@pytest.mark.parametrize("shape", [(300, 7), (128, 5), (1, 1), (300, 7, 3), (129, 2, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_tall_maps_are_read_whole(tmp_path: Path, shape: tuple[int, ...], kind: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(np.uint8 if len(shape) > 2 else kind)
    name = "map.tif" if pixels.dtype == np.int32 else "map.png"
    Image.fromarray(pixels).save(tmp_path / name)
    read = PartFolder(tmp_path).read("somewhere/map.jpg")
    assert read.encoding == ("channels" if len(shape) > 2 else "uids")
    assert (read.labels == pixels).all()
    if len(shape) > 2:
        with pytest.raises(PredictionError, match="three channels"):
            SemanticFolder(tmp_path).read("map")
