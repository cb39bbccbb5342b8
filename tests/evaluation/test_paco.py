from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partseg.datasets.convert import convert
from partseg.evaluation.instance_run import run
from partseg.evaluation.paco import PacoAP, PacoResult, evaluate_paco
from partseg.evaluation.paco_attributes import PacoAttributes, read_attributes
from partseg.evaluation.predictions import PredictionError
from partseg.layout import Dataset
from tests.evaluation.coco_files import categories, golden, predictions, records


def attributes(truth: dict[str, Any]) -> PacoAttributes:
    types = truth["attr_type_to_attr_idxs"]
    return PacoAttributes(
        names={row["id"]: row["name"] for row in truth["attributes"]},
        types=types,
        pairs={row["obj-attr"]: (row["obj"], row["attr"]) for row in truth["joint_obj_attribute_categories"]},
        of={row["id"]: row["attribute_ids"] for row in truth["annotations"]},
        unknown={
            row["id"]: frozenset(name for name in types if row[f"unknown_{name}"])
            for row in truth["annotations"]
        },
        absent={row["id"]: row["neg_category_ids_attrs"] for row in truth["images"]},
    )


def evaluated(kind: str, protocol: str) -> PacoResult:
    truth = golden("paco_gt")
    state = PacoAP(
        categories(truth),  # type: ignore[arg-type]
        protocol=protocol,  # type: ignore[arg-type]
        attributes=attributes(truth),
        iou_type=kind,
        keep_order=True,
    )
    return run(state, records(truth), predictions(golden("paco_results"))).result()


def pairs(expected: dict[str, Any], found: PacoResult) -> Iterator[tuple[str, float, float | None]]:
    """What the original prints beside what is found, both in percent."""
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
        yield name, expected[name], found.stats[name]
    more = expected["post-processed"]
    classes = {row.name: row.ap for row in found.classes}
    for part in ("per-obj-AP", "per-part-AP"):
        for name, value in more[part].items():
            yield name, value, (classes if part == "per-obj-AP" else found.parts)[name]
    if "attributes-heirarchical" not in more:
        return
    content, own = more["attributes-heirarchical"], found.attributes
    assert own is not None
    yield "objects", content["obj-attr-AP"], own["objects"]["AP"]
    yield "parts", content["obj-attr-part-AP"], own["parts"]["AP"]
    for key, kind, level in (
        ("obj-attrs", "objects", "types"),
        ("obj-part-attrs", "parts", "types"),
        ("obj-attr-AP-per-class", "objects", "attributes"),
        ("obj-attr-part-AP-per-class", "parts", "attributes"),
    ):
        for name, value in content[key].items():
            yield name, value, own[kind][level][name]
    for name, value in content["per-obj-part-attr-AP"].items():
        yield name, value, own["pairs"][name]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize(
    ("protocol", "original"), [("lvis", "None"), ("usual", "usual"), ("lb", "lb"), ("ub", "ub")]
)
def test_the_numbers_of_the_original_evaluator(kind: str, protocol: str, original: str) -> None:
    found, expected = evaluated(kind, protocol), golden("paco")[f"{kind}:{original}"]
    checked = 0
    for name, value, ours in pairs(expected, found):
        checked += 1
        if np.isnan(value):
            assert ours is None, name
        else:
            assert ours is not None, name
            assert 100 * ours == pytest.approx(value, abs=1e-9), name
    assert checked == (16 if protocol == "lvis" else 94)
    more = expected["post-processed"]
    for name in ("obj-AP", "obj-AP50"):
        assert round(100 * (found.stats[name] or 0), 3) == pytest.approx(more[name], abs=1e-9)
    for name, long in (
        ("obj-part-AP", "obj-part-AP-heirarchical"),
        ("obj-part-AP50", "obj-part-AP50-heirarchical"),
    ):
        assert round(100 * (found.stats[name] or 0), 3) == pytest.approx(more[long], abs=1e-9)


def test_the_same_numbers_from_a_converted_file(tmp_path: Path) -> None:
    (tmp_path / "raw/annotations").mkdir(parents=True)
    (tmp_path / "raw/annotations/paco_lvis_v1_val.json").write_text(json.dumps(golden("paco_gt")))
    options = {"splits": ["val"], "images": "none"}
    convert("paco_lvis_v1", tmp_path / "raw", tmp_path / "out", options=options)
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    split = dataset.split("val")
    own = dict(zip(split.table("images")["source_id"].to_pylist(), [r.image_id for r in split], strict=True))
    results = [row | {"image_id": own[row["image_id"]]} for row in golden("paco_results")]
    found = evaluate_paco(
        split,
        dataset.categories,
        predictions(results),
        protocol="usual",
        attributes=read_attributes(dataset, "val"),
        keep_order=True,
    )
    for name, value, ours in pairs(golden("paco")["segm:usual"], found):
        assert (ours is None) if np.isnan(value) else (100 * (ours or 0) == pytest.approx(value, abs=1e-9)), (
            name
        )


def test_a_result_survives_a_json_file() -> None:
    found = evaluated("segm", "usual")
    assert PacoResult.from_dict(found.as_dict()) == found
    assert found.metrics()["segm/obj-attr-AP"] == found.stats["obj-attr-AP"]


def test_parts_of_two_states_together_are_the_whole() -> None:
    truth, found = golden("paco_gt"), predictions(golden("paco_results"))
    images = records(truth)

    def state() -> PacoAP:
        return PacoAP(categories(truth), protocol="usual", attributes=attributes(truth))  # type: ignore[arg-type]

    whole = run(state(), images, found).result()
    parts = []
    for own in (images[6:], images[:3], images[3:6]):
        ids = [image.image_id for image in own]
        parts.append(run(state(), own, found[np.isin(found.image_ids, ids)]))
    assert parts[0].merge(parts[1]).merge(parts[2]).result() == whole


def test_attributes_that_are_missing_are_asked_for() -> None:
    truth = golden("paco_gt")
    with pytest.raises(PredictionError, match="attributes, which are not given"):
        PacoAP(categories(truth), protocol="usual")  # type: ignore[arg-type]
    state = PacoAP(categories(truth), protocol="lb", attributes=attributes(truth))  # type: ignore[arg-type]
    rows = [{k: v for k, v in row.items() if k != "attribute_probs"} for row in golden("paco_results")]
    with pytest.raises(PredictionError, match="attributes, which are not predicted"):
        run(state, records(truth), predictions(rows))
