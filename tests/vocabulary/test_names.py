from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from partseg.datasets.facts import category_facts
from partseg.errors import RecipeError, WeightsError
from partseg.vocabulary import build_table, embed, from_names, published, resolve
from partseg.vocabulary.prompts import prompt

SHARED = Path(__file__).parents[2].parent / "shared"
# name -> (objects, parts), and a prompt of each that shows its rule
PUBLISHED = {
    "addition_part": (0, 55, {"elephant:head": "a elephant head"}),
    "coco": (80, 0, {"traffic light": "a traffic light"}),
    "imagenet_golden": (117, 0, {"Quadruped": "a quadruped", "dog (paco)": "a dog"}),
    "lvis_v1": (1203, 0, {"traffic_light": "a traffic_light", "Band_Aid": "a Band_Aid"}),
    "paco": (75, 456, {"bicycle:seat_tube": "a bicycle seat_tube", "trash_can": "a trash_can"}),
    "partimagenet": (0, 40, {"Quadruped:Head": "a quadruped head"}),
    "partimagenet_supercat": (11, 0, {"Quadruped": "a quadruped"}),
    "pascal_part": (0, 93, {"aeroplane:body": "a aeroplane body"}),
    "pascal_part_base": (0, 77, {"potted plant:pot": "a potted plant pot"}),
    "voc": (20, 0, {"dining table": "a dining table", "potted plant": "a potted plant"}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_vocabularies(name: str) -> None:
    objects, parts, prompts = PUBLISHED[name]
    found = resolve(name)
    assert (found.kinds.count("object"), found.kinds.count("part")) == (objects, parts)
    assert len(set(found.names)) == len(found) == objects + parts
    given = dict(zip(found.names, found.prompts, strict=True))
    assert {each: given[each] for each in prompts} == prompts
    for table in published()[name].released:
        assert (table.rows, table.dim, table.encoder) == (len(found), 1024, "open_clip:RN50")


def test_all_published_vocabularies_are_tested() -> None:
    assert set(published()) == set(PUBLISHED)


def test_names_are_those_of_the_datasets() -> None:
    def ids(name: str) -> dict[int | None, str]:
        return {term.id: term.name for term in resolve(name).terms}

    parts = category_facts("pascal_part")["parts"]
    assert ids("pascal_part") == {part["category_id"]: part["name"] for part in parts}
    base = [part["name"] for part in parts if part["group"] == "base"]
    assert list(resolve("pascal_part_base").names) == base
    assert ids("voc") == {row["category_id"]: row["name"] for row in category_facts("voc")["objects"]}
    facts = category_facts("partimagenet")
    assert ids("partimagenet") == {row["id"]: f"{row['object']}:{row['part']}" for row in facts["parts"]}
    assert list(resolve("partimagenet_supercat").names) == facts["objects"]
    assert "horned_cow" in next(term.synonyms for term in resolve("lvis").terms if term.name == "bull")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared facts")
@pytest.mark.parametrize("name", ["coco", "lvis_v1", "paco"])
def test_ids_and_order_are_published(name: str) -> None:
    rows = json.loads((SHARED / "zoo/categories" / f"{name}.json").read_bytes())["categories"]
    assert [(term.id, term.name) for term in resolve(name).terms] == [
        (row["id"], row["name"]) for row in rows
    ]


def test_objects_and_parts_of_ones_own() -> None:
    found = resolve(" dog, dog: head ,cat:paw")
    assert found.names == ("dog", "dog:head", "cat:paw")
    assert found.prompts == ("a dog", "a dog head", "a cat paw")
    assert found.kinds == ("object", "part", "part")
    assert found.parents == (None, 0, None)
    assert [(term.object, term.part) for term in found.terms[1:]] == [("dog", "head"), ("cat", "paw")]
    # no dataset of this name: a word
    assert resolve("pascal").names == ("pascal",)
    assert resolve("salt+pepper").names == ("salt+pepper",)


def test_vocabularies_put_together() -> None:
    both = resolve("voc+pascal_part")
    assert len(both) == 20 + 93
    assert both.names[both.parents[both.names.index("dog:head")] or 0] == "dog"
    # the 75 objects of PACO are LVIS categories
    joint = resolve("lvis_v1+paco")
    assert len(joint) == 1203 + 456
    assert all(
        parent is not None for parent, kind in zip(joint.parents, joint.kinds, strict=True) if kind == "part"
    )


def test_all_faults_of_a_list_in_one_error() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("dog,,Dog,cat:,a:b:c,bus")
    text = str(caught.value)
    assert "an empty name" in text
    assert "occur twice: dog" in text
    assert "neither 'object' nor 'object:part': cat:, a:b:c" in text
    for nothing in ("", " ", ",", ", ,"):
        with pytest.raises(RecipeError, match="no names"):
            resolve(nothing)


def test_templates() -> None:
    assert prompt("{name}!", "Dog:head") == "Dog:head!"
    assert prompt("a {words}", "Dog:head") == "a dog head"
    assert prompt("{part} of a {object}", "dog:head") == "head of a dog"
    assert prompt("a {name}", "{words}") == "a {words}"
    assert resolve("pascal_part", template="the {words}").prompts[0] == "the aeroplane body"
    with pytest.raises(RecipeError, match="'dog' is an object"):
        resolve("dog", template="{part} of a {object}")


def test_files_of_names(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("dog\n\nbox (for salt, pepper)\n dog:head\n", encoding="utf-8-sig")
    assert resolve(str(words)).names == ("dog", "box (for salt, pepper)", "dog:head")
    words.write_text("dog\ndog\n")
    with pytest.raises(RecipeError, match=r"words\.txt: .*occur twice: dog"):
        resolve(str(words))
    words.write_bytes(b"caf\xe9\n")
    with pytest.raises(WeightsError, match="UTF-8"):
        resolve(str(words))
    with pytest.raises(WeightsError, match="no such file"):
        resolve(str(tmp_path / "none.npy"))


def test_tables_as_vocabularies(tmp_path: Path) -> None:
    table = build_table(["dog", "dog:head"], encoder="offline:8")
    table.save(tmp_path / "own.safetensors")
    found = resolve(str(tmp_path / "own.safetensors"))
    assert (found.names, found.prompts) == (("dog", "dog:head"), ("a dog", "a dog:head"))
    np.testing.assert_array_equal(embed(found).vectors, table.vectors)

    np.save(tmp_path / "rows.npy", table.vectors)
    with pytest.raises(WeightsError, match=r"put them into rows\.txt"):
        resolve(str(tmp_path / "rows.npy"))
    (tmp_path / "rows.txt").write_text("dog\ndog:head\n")
    again = embed(resolve(str(tmp_path / "rows.npy")))
    assert again.names == ("dog", "dog:head")
    np.testing.assert_array_equal(again.vectors, table.vectors)
    (tmp_path / "rows.txt").write_text("dog\n")
    with pytest.raises(WeightsError, match="does not fit 1 names"):
        embed(resolve(str(tmp_path / "rows.npy")))


def test_names_from_a_program() -> None:
    assert from_names(["dog", "a, b"]).names == ("dog", "a, b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pascal_prat", "no published vocabulary 'pascal_prat'; did you mean 'pascal_part'"),
        ("pascalpart", "did you mean 'pascal_part'"),
        ("voc+birds", "no published vocabulary 'birds'; see `partseg vocabulary list`"),
        ("lvis+", "no published vocabulary ''"),
    ],
)
def test_a_misspelt_vocabulary_is_not_taken_for_a_word(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(text)


def test_words_stay_words() -> None:
    assert resolve("cocoa").names == ("cocoa",)
    assert resolve("rock+roll").names == ("rock+roll",)
