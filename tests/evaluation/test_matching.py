"""Average precision against pycocotools itself, and what must change nothing."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from partseg.evaluation import instance_run
from partseg.evaluation.class_agnostic import ClassAgnosticRecall
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.instance_run import run
from partseg.evaluation.predictions import PredictionError, Predictions, concatenate, make
from partseg.layout import mask_to_rle
from tests.evaluation.conftest import Kind

SIZE = 48
CATEGORIES = [Kind(i, f"c{i}", "object") for i in (1, 2, 5)]


def scene(seed: int, images: int = 5, *, ties: bool = False) -> tuple[list[SimpleNamespace], Predictions]:
    """Rectangles and their predictions, crowded enough that several overlap one another."""
    rng = np.random.default_rng(seed)
    truth, rows = [], []
    for image_id in rng.permutation(np.arange(1, images + 1)).tolist():
        count = int(rng.integers(0, 9))
        boxes = boxes_of(rng, count)
        labels = rng.choice([1, 2, 5], count, p=[0.6, 0.3, 0.1])
        crowd = rng.random(count) < 0.15
        truth.append(
            SimpleNamespace(
                image_id=image_id,
                height=SIZE,
                width=SIZE,
                ann_ids=100 * image_id + np.arange(count),
                category_ids=labels.astype(np.int32),
                boxes_xywh=boxes.astype(float),
                areas=np.round(boxes[:, 2] * boxes[:, 3] * rng.choice([0.9, 1, 4], count)),
                rles=[rle(box) for box in boxes],
                is_crowd=crowd,
                is_ignore=np.zeros(count, bool),
            )
        )
        for _ in range(int(rng.integers(0, 25))):
            box, label = boxes_of(rng, 1)[0], rng.choice([1, 2, 5])
            if count and rng.random() < 0.7:
                index = rng.integers(count)
                box, label = boxes[index] + rng.integers(-2, 3, 4), labels[index]
                box = np.maximum(box, (0, 0, 1, 1))
            score = rng.integers(1, 4) / 4 if ties else rng.random()
            rows.append((image_id, int(label), float(score), box.astype(float), rle(box)))
    return truth, make(*zip(*rows, strict=True)) if rows else make([], [], [], [])


def boxes_of(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.integers(0, 30, (count, 2))
    return np.concatenate([corner, rng.choice([4, 12, 16, 40], (count, 2))], axis=1)


def rle(box: Any) -> bytes:
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + h, x : x + w] = True
    return mask_to_rle(mask)


def original(
    truth: list[SimpleNamespace], found: Predictions, kind: str, use_categories: bool = True
) -> COCOeval:
    size = [SIZE, SIZE]
    content = {
        "images": [{"id": image.image_id, "height": SIZE, "width": SIZE} for image in truth],
        "categories": [{"id": item.category_id, "name": item.name} for item in CATEGORIES],
        "annotations": [
            {
                "id": int(image.ann_ids[i]),
                "image_id": image.image_id,
                "category_id": int(image.category_ids[i]),
                "bbox": image.boxes_xywh[i].tolist(),
                "area": float(image.areas[i]),
                "iscrowd": int(image.is_crowd[i]),
                "segmentation": {"size": size, "counts": image.rles[i]},
            }
            for image in truth
            for i in range(len(image.ann_ids))
        ],
    }
    results = [
        {"image_id": i, "category_id": c, "score": s}
        | ({"bbox": b} if kind == "bbox" else {"segmentation": {"size": size, "counts": r}})
        for i, c, s, b, r in zip(
            found.image_ids.tolist(),
            found.category_ids.tolist(),
            found.scores.tolist(),
            found.boxes_xywh.tolist(),
            found.rles,
            strict=True,
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = content
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(results), kind)
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["segm", "bbox"]), st.booleans())
def test_equal_to_pycocotools_bit_for_bit(seed: int, kind: str, ties: bool) -> None:
    truth, found = scene(seed, ties=ties)
    if not len(found) or not any(len(image.ann_ids) for image in truth):
        return
    theirs = original(truth, found, kind)
    state = run(CocoAP(CATEGORIES, iou_type=kind, keep_order=True), truth, found)  # type: ignore[arg-type]
    ours = [-1 if value is None else value for value in state.result().stats.values()]
    assert ours == theirs.stats.tolist()
    for place, limit in enumerate((1, 10, 100)):
        curves = state.curves(limit=limit)
        for name in ("precision", "recall", "scores"):
            expected = theirs.eval[name][..., place]
            assert np.array_equal(np.nan_to_num(getattr(curves, name), nan=-1), expected), name


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_class_agnostic_recall_is_that_of_pycocotools_without_categories(seed: int) -> None:
    truth, found = scene(seed)
    if not len(found) or not any(len(image.ann_ids) for image in truth):
        return
    theirs = original(truth, found, "segm", use_categories=False).stats[6:]
    ours = run(ClassAgnosticRecall(CATEGORIES), truth, found).result()
    assert [-1 if v is None else v for v in ours.stats.values()] == pytest.approx(theirs.tolist(), abs=1e-12)
    assert ours.classes == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_order_and_shares_change_nothing(seed: int, random: Any) -> None:
    truth, found = scene(seed, images=7, ties=True)
    whole = run(CocoAP(CATEGORIES, details=True), truth, found)
    images, rows, table = list(truth), list(range(len(found))), list(CATEGORIES)
    for items in (images, rows, table):
        random.shuffle(items)
    mixed = found[np.array(rows, np.int64)]
    parts = []
    for own in (images[:2], images[2:3], images[3:]):
        ids = [image.image_id for image in own]
        parts.append(run(CocoAP(table, details=True), own, mixed[np.isin(mixed.image_ids, ids)]))
    random.shuffle(parts)
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.result() == whole.result()
    assert merged.table().detections.tobytes() == whole.table().detections.tobytes()
    assert merged.table().truths.tobytes() == whole.table().truths.tobytes()


def test_processes_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = scene(3, images=30, ties=True)
    alone = run(CocoAP(CATEGORIES), truth, found).result()
    monkeypatch.setattr(instance_run, "CHUNK", 4)
    assert run(CocoAP(CATEGORIES), truth, found).result() == alone
    assert run(CocoAP(CATEGORIES), truth, found, workers=2).result() == alone


def test_what_is_found_out_about_every_prediction() -> None:
    boxes = [(0, 0, 10, 10), (1, 0, 10, 10), (0, 3, 10, 10), (30, 30, 5, 5)]
    image = SimpleNamespace(
        image_id=4,
        height=SIZE,
        width=SIZE,
        ann_ids=np.array([11, 12]),
        category_ids=np.array([1, 2]),
        boxes_xywh=np.array([(0, 0, 10, 10), (30, 30, 5, 5)], float),
        areas=np.array([100.0, 25.0]),
        rles=[rle((0, 0, 10, 10)), rle((30, 30, 5, 5))],
        is_crowd=np.zeros(2, bool),
        is_ignore=np.zeros(2, bool),
    )
    found = make([4] * 4, [1] * 4, [0.4, 0.9, 0.3, 0.2], boxes, [rle(box) for box in boxes])
    table = run(CocoAP(CATEGORIES, details=True), [image], found).table()
    rows = table.detections
    assert rows["score"].tolist() == [0.9, 0.4, 0.3, 0.2]
    assert rows["rank"].tolist() == [0, 1, 2, 3]
    assert table.hits(0).tolist() == [True, False, False, False]  # the best score takes it
    assert table.hits(9).tolist() == [False, True, False, False]
    assert table.mistakes(0).tolist() == [False, True, True, True]
    assert rows["iou"].tolist() == pytest.approx([9 / 11, 1, 7 / 13, 0])
    assert rows["truth_id"].tolist() == [11, 11, 11, -1]
    assert rows["match_id"].tolist() == [11, -1, -1, -1]
    assert rows["other_iou"].tolist() == [0, 0, 0, 1]
    assert rows["other_truth_id"].tolist() == [-1, -1, -1, 12]
    assert table.truths["ann_id"].tolist() == [11, 12]
    assert table.missed(0).tolist() == [False, True]
    plain = run(CocoAP(CATEGORIES), [image], found).table().detections
    assert np.isnan(plain["other_iou"]).all()
    assert plain["matched"].tolist() == rows["matched"].tolist()


def test_nothing_predicted_and_nothing_to_find() -> None:
    truth, found = scene(5)
    nothing = run(CocoAP(CATEGORIES), truth, make([], [], [], [])).result()
    assert nothing.stats["AP"] == 0.0
    bare = [SimpleNamespace(**{**vars(image), **empty()}) for image in truth]
    assert set(run(CocoAP(CATEGORIES), bare, found).result().stats.values()) == {None}
    assert set(CocoAP(CATEGORIES).result().stats.values()) == {None}


def empty() -> dict[str, Any]:
    none = np.zeros(0)
    return {
        "ann_ids": none.astype(int),
        "category_ids": none.astype(int),
        "boxes_xywh": none.reshape(0, 4),
        "areas": none,
        "rles": [],
        "is_crowd": none.astype(bool),
        "is_ignore": none.astype(bool),
    }


def test_an_image_counts_once() -> None:
    truth, found = scene(6)
    state = run(CocoAP(CATEGORIES), truth, found)
    with pytest.raises(PredictionError, match="evaluated twice"):
        state.add(truth[:1], found.of_image(truth[0].image_id))
    with pytest.raises(PredictionError, match="evaluated twice"):
        state.merge(state)
    with pytest.raises(ValueError, match="different settings"):
        state.merge(CocoAP(CATEGORIES, max_detections=5))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (mask_to_rle(np.ones((SIZE, SIZE - 1), bool)), "covers 2256 pixels, the image has 2304"),
        (mask_to_rle(np.ones((SIZE, SIZE + 1), bool)), "covers 2352 pixels"),
        (mask_to_rle(np.ones((SIZE, SIZE), bool))[:-1] + b"`", "is damaged"),
        (mask_to_rle(np.ones((SIZE, SIZE), bool))[:-1] + b"z", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_masks_that_do_not_fit_are_refused_at_once(counts: bytes, message: str) -> None:
    # pycocotools itself never returns from the first
    image = next(item for item in scene(7)[0] if len(item.ann_ids))
    full = mask_to_rle(np.ones((SIZE, SIZE), bool))
    image.rles = [full] * len(image.rles)
    label = int(image.category_ids[0])
    found = make([image.image_id], [label], [0.5], [(0, 0, 9, 9)], [counts])
    with pytest.raises(PredictionError, match=message):
        run(CocoAP(CATEGORIES), [image], found)


@pytest.mark.slow
def test_two_ranks_gather_their_states(tmp_path: Any) -> None:
    pytest.importorskip("torch")
    import torch.multiprocessing as processes

    truth, found = scene(8, images=9, ties=True)
    alone = run(CocoAP(CATEGORIES), truth, found).result()
    for world in (2, 4):
        folder = tmp_path / str(world)
        folder.mkdir()
        processes.spawn(_rank, (world, str(folder)), nprocs=world)
        results = [eval((folder / f"{rank}").read_text()) for rank in range(world)]
        assert results == [alone.as_dict()] * world


def _rank(rank: int, world: int, folder: str) -> None:
    from pathlib import Path

    import torch.distributed as dist

    from partseg.evaluation.merging import gathered, share

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    truth, found = scene(8, images=9, ties=True)
    own = share(range(len(truth)), rank, world)
    state = gathered(run(CocoAP(CATEGORIES), truth, found, indices=own))
    Path(folder, str(rank)).write_text(repr(state.result().as_dict()))
    dist.destroy_process_group()


def test_tables_of_several_images_are_put_together() -> None:
    truth, found = scene(9)
    parts = [found[found.image_ids == image.image_id] for image in truth]
    state = CocoAP(CATEGORIES)
    for image, own in zip(truth, parts, strict=True):
        state.add([image], own)
    assert state.result() == run(CocoAP(CATEGORIES), truth, concatenate(parts)).result()
