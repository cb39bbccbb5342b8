"""Facts of VLPart's published trainings in one table: ``python tests/golden/vlpart_zoo.py FACTS > TABLE``.

FACTS is a YAML file with one entry per row of the publication's tables, each with its resolved configuration
(facebookresearch/VLPart at e48903a, its configs and MODEL_ZOO.md). TABLE, ``vlpart_zoo.json``, keeps what
decides a result and what was published, under the originals' own names. A value that all rows share stands
once, in ``common``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

SOURCE = "facebookresearch/VLPart at e48903a: configs and MODEL_ZOO.md, resolved"
DATA = ("dataset", "annotation", "ratio", "batch_per_gpu", "min_size", "max_size")
LOADER = (
    "sampler",
    "repeat_threshold",
    "filter_empty_annotations",
    "aspect_ratio_grouping",
    "min_size_train_sampling",
    "min_size_test",
    "max_size_test",
    "format",
)
SOLVER = (
    "optimizer",
    "base_lr",
    "ims_per_batch",
    "steps",
    "gamma",
    "max_iter",
    "scheduler",
    "warmup_iters",
    "warmup_factor",
    "warmup_method",
    "weight_decay",
    "betas",
    "backbone_multiplier",
    "clip_gradients",
    "fp16_backbone_autocast",
)
MODEL = {
    "backbone": ("name", "norm", "freeze_at", "window", "drop_path_rate", "embed_dim", "depths"),
    "neck": ("name", "out_channels", "norm", "fuse"),
    "rpn": (
        "anchor_sizes",
        "aspect_ratios",
        "iou_thresholds",
        "batch_per_image",
        "positive_fraction",
        "nms_thresh",
        "pre_nms_topk_train",
        "pre_nms_topk_test",
        "post_nms_topk_train",
        "post_nms_topk_test",
    ),
    "roi_heads": (
        "name",
        "batch_per_image",
        "positive_fraction",
        "iou_thresholds",
        "mask_weight",
        "ws_num_props",
        "cascade.ious",
        "cascade.bbox_reg_weights",
    ),
    "box_head": ("num_fc", "fc_dim", "num_conv", "pooler_resolution", "bbox_reg_weights", "smooth_l1_beta"),
    "classifier": ("embedding_dim", "temperature", "mult_object_score"),
    "mask_head": ("enabled", "num_conv", "conv_dim", "pooler_resolution", "output", "class_agnostic"),
    "losses": (
        "loss_cls.fed_num_cats",
        "loss_cls.fed_freq_power",
        "loss_mask.weight",
        "loss_noun.active",
        "loss_noun.weight",
        "loss_ppart.active",
        "loss_ppart.type",
        "loss_ppart.weight",
    ),
}
TEST = ("score_thresh", "nms_thresh", "detections_per_image", "mask_threshold")
PARSE_DINO = ("model", "patch", "stride", "thresh", "base_image_min_size")
PARSE_DETECTOR = (
    "init_checkpoint",
    "score_thresh",
    "nms_thresh",
    "detections_per_image",
    "ws_num_props",
    "iou_keep_thresh",
)
EVALUATION = {
    "evaluator": "evaluator",
    "iou_type": "iou_type",
    "r50": "eval_config_r50",
    "swinbase": "eval_config_swinbase",
}


def table(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a file of facts."""
    rows = [_row(row) for row in facts["rows"]]
    settings = [row["settings"] for row in rows]
    common = {
        name: value
        for name, value in settings[0].items()
        if all(name in other and other[name] == value for other in settings)
    }
    for row in rows:
        row["settings"] = {name: value for name, value in row["settings"].items() if name not in common}
    return {
        "source": SOURCE,
        "common": common,
        "rows": rows,
        "evaluation": {
            dataset: {ours: entry[name] for ours, name in EVALUATION.items()}
            for dataset, entry in facts["evaluation_protocol"].items()
            if isinstance(entry, Mapping)
        },
        "parse": [_parse(stage) for stage in facts["parse_stages"]],
    }


def settings_of(content: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a row of the table, the common ones among them."""
    return {**content["common"], **row["settings"]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    resolved = row["resolved"]
    loss = resolved["model"]["losses"]["loss_cls"]["federated"]
    federated = [entry["federated"] for entry in loss] if isinstance(loss, list) else [loss["federated"]]
    embeddings = resolved["model"]["classifier"]["train_embeddings"]
    vocabularies = embeddings if isinstance(embeddings, list) else [embeddings]
    strong = resolved["data"]["augmentation"]["strong_aug_on_parsed"]
    settings = {f"data.{name}": resolved["data"][name] for name in LOADER}
    settings |= {f"solver.{name}": resolved["solver"][name] for name in SOLVER}
    settings |= {f"test.{name}": resolved["test"][name] for name in TEST}
    words = resolved["model"]["classifier"]["inference_embedding"]
    settings["test.vocabulary"] = [words["vocab"], words["size"]]
    for part, names in MODEL.items():
        for name, value in _picked(resolved["model"][part], names):
            settings[f"model.{part}.{name}"] = value
    return {
        "id": row["id"],
        "table": row["table"],
        "label": row["seed_label"],
        "checkpoint": row["checkpoint"],
        "config": row["config"],
        "init": row["init_weights"]["name"],
        "hours": row["training_hours_by_stage"],
        "data": [
            {
                **{name: entry[name] for name in DATA},
                "federated": fed,
                "vocabulary": [words["vocab"], words["size"]],
                "strong": strong and entry["annotation"] == "ppart",
            }
            for entry, fed, words in zip(resolved["data"]["train"], federated, vocabularies, strict=True)
        ],
        "settings": settings,
        "metrics": [
            {
                name: metric[name]
                for name in ("dataset", "metric", "category", "category_group", "iou_type", "value")
                if name in metric
            }
            for metric in row["metrics"]
        ],
    }


def _parse(stage: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "id": stage["id"],
        "reads": stage["test_dataset"],
        "base": stage["dino"]["basedata_save_dir"],
        "outputs": [output.removeprefix("artifact:") for output in stage["outputs"]],
        "short_side": stage["input"]["min_size_test"],
        "long_side": stage["input"]["max_size_test"],
        "dino": {name: stage["dino"][name] for name in PARSE_DINO if name in stage["dino"]},
    }
    if "detector" in stage:
        detector = stage["detector"]
        words = detector["inference_embedding"]
        found["detector"] = {name: detector[name] for name in PARSE_DETECTOR}
        found["detector"]["vocabulary"] = [words["vocab"], words["size"]]
        found["base_objects"] = stage["base_obj_cat"]
    return found


def _picked(values: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        value: Any = values
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            yield name, value


def main() -> None:
    """Print the table of the file that the command line names."""
    facts = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(written(table(facts)), end="")  # noqa: T201


def written(content: Mapping[str, Any]) -> str:
    """The table as JSON: one line per setting, dataset and metric."""

    def one(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = ["{", f' "source": {one(content["source"])},', ' "common": {']
    lines.append(",\n".join(f"  {one(name)}: {one(value)}" for name, value in content["common"].items()))
    lines += [" },", ' "rows": [']
    lines.append(",\n".join(_block(row, one) for row in content["rows"]))
    lines += [" ],", ' "evaluation": {']
    lines.append(",\n".join(f"  {one(name)}: {one(entry)}" for name, entry in content["evaluation"].items()))
    lines += [" },", ' "parse": [']
    lines.append(",\n".join(f"  {one(stage)}" for stage in content["parse"]))
    return "\n".join([*lines, " ]", "}", ""])


def _block(row: Mapping[str, Any], one: Any) -> str:
    lines = []
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = ",\n".join(f"    {one(entry)}" for entry in value)
            lines.append(f"   {one(name)}: [\n{inner}\n   ]")
        else:
            lines.append(f"   {one(name)}: {one(value)}")
    return "  {\n" + ",\n".join(lines) + "\n  }"


if __name__ == "__main__":
    main()
