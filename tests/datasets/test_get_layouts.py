"""From the publishers' archives to a folder that a converter reads, with the rules of the manifests.

The archives are made of made-up worlds, wrapped the way the publishers wrap theirs.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from partseg.acquire.archives import unpack
from partseg.datasets.facts import data_manifest
from partseg.synthetic import make_up

Files = dict[str, bytes]
LITTER = {"__MACOSX/._x.json": b"x", "README": b"read me"}


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


def tarred(files: Files, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def below(world: Files, *prefixes: str, wrapped: str = "", cut: str = "") -> Files:
    """The files below some folders, with their names' beginning replaced."""
    chosen = {name: content for name, content in world.items() if name.startswith(prefixes)}
    return {wrapped + name.removeprefix(cut): content for name, content in chosen.items()}


def coco_photos(world: Files) -> Files:
    return {f"{split}.zip": zipped(below(world, f"{split}/")) for split in ("train2017", "val2017")}


def coco(world: Files) -> Files:
    annotations = {**below(world, "annotations/"), "annotations/captions_val2017.json": b"{}"}
    return {**coco_photos(world), "annotations_trainval2017.zip": zipped(annotations)}


def coco_panoptic(world: Files) -> Files:
    outer = {name: content for name, content in world.items() if name.endswith("2017.json")}
    for split in ("train2017", "val2017"):
        maps = below(world, f"annotations/panoptic_{split}/", cut="annotations/")
        outer[f"annotations/panoptic_{split}.zip"] = zipped({**maps, **LITTER})
    return {**coco_photos(world), "panoptic_annotations_trainval2017.zip": zipped({**outer, **LITTER})}


def lvis(world: Files) -> Files:
    names = ("lvis_v1_train.json", "lvis_v1_val.json")
    return {
        **coco_photos(world),
        **{f"{name}.zip": zipped({name: world[f"annotations/{name}"]}) for name in names},
    }


def paco_lvis(world: Files) -> Files:
    return {
        **coco_photos(world),
        "paco_lvis_v1.zip": zipped(below(world, "annotations/", cut="annotations/")),
    }


def partimagenet(world: Files) -> Files:
    outer = {name: content for name, content in world.items() if name.endswith(".json")}
    outer |= {f"{split}.zip": zipped(below(world, f"{split}/")) for split in ("train", "val", "test")}
    wrapped = {f"PartImageNet_OOD/{name}": content for name, content in outer.items()}
    return {"PartImageNet_OOD.zip": zipped({**wrapped, **LITTER})}


def pascal_part(world: Files) -> Files:
    return {
        "trainval.tar.gz": tarred({**below(world, "Annotations_Part/"), **LITTER}, "w:gz"),
        "VOCtrainval_03-May-2010.tar": tarred(below(world, "VOCdevkit/")),
    }


def pascal_pp(world: Files) -> Files:
    photos = below(world, "JPEGImages/", wrapped="VOCdevkit/VOC2010/")
    return {"VOCtrainval_03-May-2010.tar": tarred({**photos, "VOCdevkit/VOC2010/Annotations/1.xml": b"x"})}


def cityscapes_pp(world: Files) -> Files:
    return {
        "leftImg8bit_trainvaltest.zip": zipped({**below(world, "leftImg8bit/"), **LITTER}),
        "gtFinePanopticParts_trainval.zip": zipped({**below(world, "gtFinePanopticParts/"), **LITTER}),
    }


def voc2007(world: Files) -> Files:
    return {"VOCtrainval_06-Nov-2007.tar": tarred(below(world, "VOCdevkit/"))}


def imagenet(world: Files) -> Files:
    folders = sorted({name.split("/")[0] for name in world})
    inner = {f"{folder}.tar": tarred(below(world, f"{folder}/", cut=f"{folder}/")) for folder in folders}
    return {"ILSVRC2012_img_train.tar": tarred(inner)}


PUBLISHED: dict[str, Callable[[Files], Files]] = {
    "cityscapes_pp": cityscapes_pp,
    "coco": coco,
    "coco_panoptic": coco_panoptic,
    "imagenet_folder": imagenet,
    "imagenet_subset": imagenet,
    "lvis_v1": lvis,
    "paco_lvis_v1": paco_lvis,
    "partimagenet": partimagenet,
    "partimagenet_supercat": partimagenet,
    "pascal_part": pascal_part,
    "pascal_pp": pascal_pp,
    "voc2007": voc2007,
}


def tree(root: Path) -> Files:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_archives_of_the_publisher_become_the_folder_that_is_read(name: str, tmp_path: Path) -> None:
    if name.startswith("imagenet"):
        world = {f"{folder}/{folder}_{n}.JPEG": b"x" for folder in ("n01440764", "n02085620") for n in (1, 2)}
    else:
        make_up(name, tmp_path / "world", {"size": 48, "train": 3, "val": 2})
        world = tree(tmp_path / "world")
    rules = {
        file.name: file.unpack for file in data_manifest(name).files if file.unpack and not file.optional
    }
    published = PUBLISHED[name](world)
    assert set(published) == set(rules)
    for archive, content in published.items():
        path = tmp_path / archive
        path.write_bytes(content)
        unpack(path, tmp_path / "raw", rules[archive])
    by_hand = {path for path in world if name == "pascal_pp" and path.startswith("labels/")}
    assert tree(tmp_path / "raw") == {path: content for path, content in world.items() if path not in by_hand}
