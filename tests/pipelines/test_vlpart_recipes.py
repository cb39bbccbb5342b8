"""The recipes of VLPart's 33 published rows, held against the facts of the publication.

``tests/golden/vlpart_zoo.json`` is the table of facts, written by ``tests/golden/vlpart_zoo.py``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from partseg.datasets import imagenet_subset, pascal_part
from partseg.datasets.partimagenet import supercategories
from partseg.datasets.source import Raw
from partseg.parsing.config import PictureSize
from partseg.parsing.naming import rename, spellings
from partseg.vocabulary import resolve
from pipelines.keys import key_parts
from pipelines.parse import Params as ParseParams
from pipelines.parse import detected_labels, names_found, names_written
from pipelines.pretrained import Params as PretrainedParams
from pipelines.recipe import CONFIGS, recipe_names
from pipelines.train import Params
from pipelines.vocabulary import Params as VocabularyParams
from pipelines.zoo import Row, read_zoo
from tests.golden import vlpart_zoo
from tests.pipelines.recipes import VLPART as RECIPES
from tests.pipelines.recipes import recipe

TABLE = Path(vlpart_zoo.__file__).with_name("vlpart_zoo.json")
FACTS: dict[str, Any] = json.loads(TABLE.read_bytes())
ROWS = {row["id"]: row for row in FACTS["rows"]}
PARSES = {stage["id"]: stage for stage in FACTS["parse"]}
NAMES = json.loads(TABLE.with_name("vlpart_parse_names.json").read_bytes())["parse"]
SHARED = Path(__file__).parents[3] / "shared" / "zoo" / "vlpart.yaml"
ZOO = read_zoo("vlpart")

# Our stages for the original's names of datasets: stage, split, kind and group of its classes.
DATASETS = {
    "voc_2007_train": ("voc2007", "train", "object", "all"),
    "coco_2017_train": ("coco", "train2017", "object", "all"),
    "lvis_v1_train": ("lvis_v1", "train", "object", "all"),
    "paco_lvis_v1_train": ("paco_lvis_v1", "train", "all", "all"),
    "pascal_part_train": ("pascal_part", "train", "part", "all"),
    "pascal_part_base_train": ("pascal_part", "train", "part", "base"),
    "partimagenet_train": ("partimagenet", "train", "part", "all"),
    "partimagenet_supercat": ("in_s11", "train", "object", "all"),
    "imagenet_voc": ("in_s20", "train", "object", "all"),
    "imagenet_golden": ("imagenet_golden", "train", "object", "all"),
    "partimagenet_parsed": ("in_s11_parsed", "train", "part", "all"),
    "imagenet_voc_parsed": ("in_s20_parsed", "train", "part", "all"),
    "imagenet_golden_pascal_parsed": ("r50_golden_pascal_parsed", "train", "part", "all"),
    "imagenet_golden_partimagenet_parsed": ("r50_golden_partimagenet_parsed", "train", "part", "all"),
    "imagenet_golden_paco_parsed": ("r50_golden_paco_parsed", "train", "all", "all"),
    "imagenet_golden_addition_parsed": ("r50_golden_addition_parsed", "train", "part", "all"),
    "imagenet_golden_pascal_parsed_swinbase": ("swinb_golden_pascal_parsed", "train", "part", "all"),
    "imagenet_golden_partimagenet_parsed_swinbase": (
        "swinb_golden_partimagenet_parsed",
        "train",
        "part",
        "all",
    ),
    "imagenet_golden_paco_parsed_swinbase": ("swinb_golden_paco_parsed", "train", "all", "all"),
}
# "part" and "box" are the same to the original's losses; a file of parsed parts has boxes alone.
ANNOTATIONS = {"box": "box", "part": "box", "image": "image", "ppart": "parsed_part"}
BACKBONES = {
    "timm resnet50 (timm 0.5.4 ImageNet-1k)": "resnet50",
    "swin_base_patch4_window7_224_22k": "swin_b",
}
STAGE_OF = {row["checkpoint"]: ZOO.row(name).stage for name, row in ROWS.items()}
GOLDEN = ("pascal", "partimagenet", "paco", "addition")
PARSE_OF = {
    "find_ins11": "in_s11_parsed",
    "find_ins20": "in_s20_parsed",
    **{f"golden_r50_{name}": f"r50_golden_{name}_parsed" for name in GOLDEN},
    **{f"golden_swinbase_{name}": f"swinb_golden_{name}_parsed" for name in GOLDEN[:3]},
}
# What the published files are written in; those of golden photos in the vocabulary they are called after.
WRITTEN = {
    "find_ins11": "partimagenet",
    "find_ins20": "pascal_part",
    "golden_r50_pascal": "pascal_part",
    "golden_swinbase_pascal": "pascal_part",
    "golden_r50_addition": "addition_part",
}
READ = {
    "partimagenet_supercat_random": "in_s11",  # the same photos in another order
    "imagenet_voc_random": "in_s20",
    **{f"imagenet_golden_{name}": f"golden_{name}" for name in GOLDEN},
}


def training(row: Row) -> Params:
    params = recipe(ZOO.recipe_of(row)).stages[row.stage].params
    assert isinstance(params, Params)
    return params


def settings(name: str) -> dict[str, Any]:
    return vlpart_zoo.settings_of(FACTS, ROWS[name])


def test_the_table_is_that_of_the_facts() -> None:
    if not SHARED.is_file():
        pytest.skip("the facts are not beside this checkout")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    facts = yaml.load(SHARED.read_text(encoding="utf-8"), Loader=loader)
    assert vlpart_zoo.written(vlpart_zoo.table(facts)) == TABLE.read_text(encoding="utf-8")


def test_every_row_is_there_and_has_a_recipe() -> None:
    assert [row.id for row in ZOO.rows] == list(ROWS)
    assert {ZOO.recipe_of(row) for row in ZOO.rows} == set(RECIPES) - {"vlpart"}
    for row in ZOO.rows:
        fact = ROWS[row.id]
        assert (row.table, row.label, row.config) == (fact["table"], fact["label"], fact["config"])
        assert row.checkpoint == f"{fact['checkpoint']}.pth"
        assert row.id in recipe(ZOO.recipe_of(row)).published[row.stage]["rows"]
    assert len(STAGE_OF) == len(set(STAGE_OF.values())) == 30  # one stage per checkpoint


@pytest.mark.parametrize("name", ROWS)
class TestRow:
    def test_datasets(self, name: str) -> None:
        fact, params = ROWS[name], training(ZOO.row(name))
        everything = settings(name)
        assert len(params.data) == len(fact["data"])
        for data, published in zip(params.data, fact["data"], strict=True):
            assert (data.origin, data.split, data.kind, data.group) == DATASETS[published["dataset"]]
            assert data.annotation == ANNOTATIONS[published["annotation"]]
            assert (data.ratio, data.batch_size) == (published["ratio"], published["batch_per_gpu"])
            assert data.federated is published["federated"]
            assert data.repeat_threshold == everything["data.repeat_threshold"]
            # Images without annotations count where the original does not filter them out; none is without
            # where a label is all there is.
            kept = not everything["data.filter_empty_annotations"]
            assert data.keep_empty is (kept and data.annotation != "image")
            augment = data.augment or params.augment
            assert augment.short_sides == tuple(published["min_size"])
            assert augment.sampling == everything["data.min_size_train_sampling"]
            assert augment.long_side == published["max_size"]
            assert augment.flip == 0.5
            assert augment.strong is published["strong"]

    def test_order(self, name: str) -> None:
        order = {
            "TrainingSampler": "epochs",
            "RepeatFactorTrainingSampler": "epochs",
            "MultiDatasetSampler": "weighted",
        }
        assert training(ZOO.row(name)).order == order[settings(name)["data.sampler"]]
        assert settings(name)["data.aspect_ratio_grouping"]

    def test_schedule(self, name: str) -> None:
        schedule, fact = training(ZOO.row(name)).schedule, settings(name)
        assert (fact["solver.optimizer"], fact["solver.scheduler"]) == ("ADAMW", "WarmupMultiStepLR")
        assert (fact["solver.warmup_method"], fact["solver.clip_gradients"]) == ("linear", False)
        assert schedule.model_dump() == {
            "iterations": fact["solver.max_iter"],
            "batches": 8,  # of two images each
            "learning_rate": fact["solver.base_lr"],
            "backbone_multiplier": fact["solver.backbone_multiplier"],
            "weight_decay": fact["solver.weight_decay"],
            "betas": tuple(fact["solver.betas"]),
            "warmup": fact["solver.warmup_iters"],
            "warmup_factor": fact["solver.warmup_factor"],
            "steps": tuple(fact["solver.steps"]),
            "step_factor": fact["solver.gamma"],
            "gradient_clip": None,
            "ema": None,
        }
        assert fact["solver.ims_per_batch"] == 2 * schedule.batches

    def test_start(self, name: str) -> None:
        params, init = training(ZOO.row(name)), ROWS[name]["init"]
        if init in BACKBONES:
            assert (params.init, params.backbone) == (None, BACKBONES[init])
        else:
            assert (params.init, params.backbone) == (STAGE_OF[init], None)
        assert params.amp == ("fp16" if settings(name)["solver.fp16_backbone_autocast"] else "none")

    def test_model(self, name: str) -> None:
        check_model(training(ZOO.row(name)), settings(name))

    def test_names_are_embedded(self, name: str) -> None:
        found = recipe(ZOO.recipe_of(ZOO.row(name)))
        texts = found.stages[training(ZOO.row(name)).vocabulary].params
        assert isinstance(texts, VocabularyParams)
        assert (texts.encoder, texts.data) == ("open_clip:RN50", ())
        embedded = {term.name: term.prompt for term in resolve("+".join(texts.published)).terms}
        for published in ROWS[name]["data"]:
            vocabulary, size = published["vocabulary"]
            terms = resolve(vocabulary).terms
            assert len(terms) == size
            assert {term.name: term.prompt for term in terms}.items() <= embedded.items()

    def test_hours_are_those_of_the_trainings_before(self, name: str) -> None:
        row = ZOO.row(name)
        found = recipe(ZOO.recipe_of(row))
        stage: str | None = row.stage
        for hours in reversed(row.hours):
            assert stage is not None
            assert found.published[stage]["hours"] == hours
            assert found.published[stage]["cost"] == f"{hours:g} h on 8 V100"
            before = found.stages[stage].params
            assert isinstance(before, Params)
            stage = before.init


def check_model(params: Params, fact: dict[str, Any]) -> None:
    model, swin = params.model, fact["model.backbone.name"] == "swin_transformer"
    cascade = fact["model.roi_heads.name"] == "CascadeVLMROIHeads"
    assert swin is cascade
    backbone = model.backbone
    if swin:
        assert backbone.name == "swin_base_patch4_window7_224"
        assert (backbone.norm, backbone.frozen_stages) == ("batch", 0)
        assert backbone.drop_path == fact["model.backbone.drop_path_rate"]
        assert (fact["model.backbone.window"], fact["model.backbone.embed_dim"]) == (7, 128)
    else:
        assert fact["model.backbone.name"] == f"timm_{backbone.name}"
        assert (fact["model.backbone.norm"], backbone.norm) == ("FrozenBN", "frozen")
        assert backbone.frozen_stages == fact["model.backbone.freeze_at"]
    assert model.pyramid_channels == fact["model.neck.out_channels"]
    assert (model.text_dim, model.temperature) == (
        fact["model.classifier.embedding_dim"],
        fact["model.classifier.temperature"],
    )
    assert model.rpn.model_dump() == {
        "anchor_sizes": tuple(size for (size,) in fact["model.rpn.anchor_sizes"]),
        "anchor_ratios": tuple(fact["model.rpn.aspect_ratios"][0]),
        "negative_iou": fact["model.rpn.iou_thresholds"][0],
        "positive_iou": fact["model.rpn.iou_thresholds"][1],
        "samples_per_image": fact["model.rpn.batch_per_image"],
        "positive_fraction": fact["model.rpn.positive_fraction"],
        "nms_iou": fact["model.rpn.nms_thresh"],
        "candidates_per_level_train": fact["model.rpn.pre_nms_topk_train"],
        "candidates_per_level_test": fact["model.rpn.pre_nms_topk_test"],
        "proposals_train": fact["model.rpn.post_nms_topk_train"],
        "proposals_test": fact["model.rpn.post_nms_topk_test"],
    }
    roi = model.roi
    ious = [roi.positive_iou, *(stage.positive_iou for stage in roi.cascade)]
    weights = [roi.box_weights, *(stage.box_weights for stage in roi.cascade)]
    assert ious == fact.get("model.roi_heads.cascade.ious", fact["model.roi_heads.iou_thresholds"])
    single = [fact["model.box_head.bbox_reg_weights"]]
    published = fact.get("model.roi_heads.cascade.bbox_reg_weights", single)
    assert [list(values) for values in weights] == published
    assert roi.samples_per_image == fact["model.roi_heads.batch_per_image"]
    assert roi.positive_fraction == fact["model.roi_heads.positive_fraction"]
    assert (roi.box_pool, roi.box_channels) == (
        fact["model.box_head.pooler_resolution"],
        fact["model.box_head.fc_dim"],
    )
    assert (roi.mask_pool, roi.mask_convs, roi.mask_channels) == (
        fact["model.mask_head.pooler_resolution"],
        fact["model.mask_head.num_conv"],
        fact["model.mask_head.conv_dim"],
    )
    assert roi.masks is fact["model.mask_head.enabled"]
    losses = model.losses
    assert losses.mask == fact["model.roi_heads.mask_weight"] * fact["model.losses.loss_mask.weight"]
    kinds = {data.annotation for data in params.data}
    assert ("image" in kinds) is fact["model.losses.loss_noun.active"]
    assert ("parsed_part" in kinds) is fact["model.losses.loss_ppart.active"]
    if "image" in kinds:  # elsewhere the weight is the original's default, of a loss that is never computed
        assert losses.image == fact["model.losses.loss_noun.weight"] == 0.1
    assert losses.parsed_part == fact["model.losses.loss_ppart.weight"]
    rule = "max_score" if fact["model.losses.loss_ppart.type"].startswith("max_score") else "sampled"
    assert losses.parsed_part_rule == rule
    assert losses.image_proposals == fact["model.roi_heads.ws_num_props"]
    assert losses.federated_classes == fact["model.losses.loss_cls.fed_num_cats"]
    assert losses.federated_power == fact["model.losses.loss_cls.fed_freq_power"]
    assert model.inference.nms_iou == fact["test.nms_thresh"]
    assert model.inference.mask_threshold == fact["test.mask_threshold"]
    assert (model.inference.short_side, model.inference.long_side) == (
        fact["data.min_size_test"],
        fact["data.max_size_test"],
    )


def test_every_parse_of_the_publication_is_there() -> None:
    builds = {name for name in PARSES if name.startswith("build")}
    assert set(PARSES) - builds == set(PARSE_OF)
    found = {name for name, stage in recipe("vlpart").stages.items() if stage.kind.name == "parse"}
    assert found == set(PARSE_OF.values())


def labels_of(stage: str) -> list[str]:
    """The labels of a dataset of photos, in the published order."""
    found = recipe("vlpart")
    convert = found.stages[stage].params
    raw = found.stages[convert.raw].params  # type: ignore[attr-defined]
    if raw.source == "partimagenet_supercat":  # type: ignore[attr-defined]
        return supercategories()
    options = imagenet_subset.Options(**raw.options)  # type: ignore[attr-defined]
    return [category.name for category in imagenet_subset.categories(Raw(Path(), Path()), options)]


def base_of(params: ParseParams) -> Any:
    """The base dataset of a parse as far as its names go."""
    if params.base is None:
        return None
    assert params.base == "pascal_part"
    return SimpleNamespace(categories=pascal_part.categories(Raw(Path(), Path()), pascal_part.Options()))


@pytest.mark.parametrize("name", PARSE_OF)
def test_parsing(name: str) -> None:
    fact, found = PARSES[name], recipe("vlpart")
    params = found.stages[PARSE_OF[name]].params
    assert isinstance(params, ParseParams)
    detector = fact["detector"]
    assert params.detector == STAGE_OF[detector["init_checkpoint"]]
    assert (params.images, params.split) == (READ[fact["reads"][0]], "train")
    labels = labels_of(params.images)
    to_detector = [labels[place] for place in fact["base_objects"]]
    base = base_of(params)
    assert [label for label in labels if label in detected_labels(params, base, set(labels))] == to_detector
    vocabulary, size = detector["vocabulary"]
    looked_for, finds_objects = names_found(params, base)
    assert tuple(looked_for) == resolve(vocabulary).names
    assert len(looked_for) == size
    assert finds_objects is (vocabulary == "paco")
    written = WRITTEN.get(name, "_".join(name.split("_")[2:]))
    categories = names_written(params, base, labels)
    assert {category.name for category in categories} >= {*labels, *resolve(written).names}
    parts = [category.name for category in categories if category.kind == "part"]
    assert parts == [term.name for term in resolve(written).terms if term.kind == "part"]
    parser = params.parser
    assert parser.part_word == ("first" if vocabulary == "partimagenet" else "all")
    assert (parser.score_threshold, parser.nms_iou) == (detector["score_thresh"], detector["nms_thresh"])
    assert (parser.max_detections, parser.proposals) == (
        detector["detections_per_image"],
        detector["ws_num_props"],
    )
    assert parser.match_iou == detector["iou_keep_thresh"]
    assert (parser.confirmed_by, parser.candidates_ranked_by, parser.detector_sees) == (
        "box",
        "first_class",
        "descriptor",
    )
    if to_detector == labels:  # no image needs a base image; the index says nothing but the size
        assert (params.base, params.index, params.descriptors, params.reading) == (None, None, None, None)
        assert (PictureSize().short_side, PictureSize().long_side) == (fact["short_side"], fact["long_side"])
        return
    lent = (
        "base"
        if "base_train" in PARSES[fact["base"].replace("output_basedata", "build")]["reads"][0]
        else "all"
    )
    assert (params.base, params.base_split, params.base_group) == ("pascal_part", "train", lent)
    assert params.index is not None
    assert params.descriptors is not None
    index = found.stages[params.index].params
    build = PARSES[fact["base"].replace("output_basedata", "build")]
    assert (index.data, index.split) == ("pascal_part", "train")  # type: ignore[attr-defined]
    assert index.group == lent  # type: ignore[attr-defined]
    reading = index.reading  # type: ignore[attr-defined]
    assert (reading.short_side, reading.long_side) == (fact["short_side"], fact["long_side"])
    assert (reading.short_side, reading.long_side) == (build["short_side"], build["long_side"])
    assert (reading.stride, reading.saliency_threshold) == (fact["dino"]["stride"], fact["dino"]["thresh"])
    assert reading.saliency_heads == (0, 2, 4, 5)
    dino = found.stages[params.descriptors].params
    assert isinstance(dino, PretrainedParams)
    assert (dino.weights, dino.vit.patch_size) == ("dino_deitsmall8_pretrain.pth", fact["dino"]["patch"])


@pytest.mark.parametrize("name", PARSE_OF)
def test_found_names_become_those_of_the_publication(name: str) -> None:
    """Every name that may be found in an image of every label, against the original's own function."""
    params = recipe("vlpart").stages[PARSE_OF[name]].params
    assert isinstance(params, ParseParams)
    base, labels, fact = base_of(params), labels_of(params.images), NAMES[name]
    found, finds_objects = names_found(params, base)
    categories = names_written(params, base, labels)
    written = [category.name for category in categories if finds_objects or category.kind == "part"]
    assert (len(found), len(labels), len(written)) == (fact["found"], fact["labels"], fact["written"])
    allowed = spellings(category.name for category in categories)
    lines = [
        f"{i} {j} {written.index(new)}"
        for i, old in enumerate(found)
        for j, label in enumerate(labels)
        # The original's list of VOC's classes has "pottedplant" here, which has no photos.
        if (name, label) != ("find_ins20", "potted plant")
        if (new := rename(old, label, allowed, params.parser)) is not None
    ]
    assert len(lines) == fact["kept"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == fact["sha256"]


def test_a_stage_of_two_recipes_is_the_same_stage() -> None:
    whole = recipe("vlpart")
    for name in RECIPES:
        for profile in (None, "smoke"):
            for stage in recipe(name, profile).stages.values():
                same = recipe("vlpart", profile).stages[stage.name]
                needs = dict.fromkeys(stage.needs, "content")
                assert key_parts(stage.kind, stage.params, needs) == key_parts(same.kind, same.params, needs)
    covered = {stage for name in RECIPES if name != "vlpart" for stage in recipe(name).stages}
    assert covered == set(whole.stages)


def test_the_folder_of_a_recipe_is_not_a_recipe() -> None:
    assert not {path.stem for path in (CONFIGS / "recipes" / "vlpart").glob("*.yaml")} & set(recipe_names())
