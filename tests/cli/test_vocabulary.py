from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from partseg.cli.vocabulary import app
from partseg.errors import RecipeError, WeightsError
from partseg.vocabulary import EmbeddingTable


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def read(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_list() -> None:
    rows = {row["name"]: row for row in read("list")}
    assert (rows["paco"]["objects"], rows["paco"]["parts"], rows["paco"]["template"]) == (
        75,
        456,
        "a {words}",
    )
    assert "pascal_part" in run("list")


def test_show_names_kinds_and_prompts() -> None:
    terms = read("show", "dog,dog:head")["terms"]
    assert [(term["name"], term["kind"], term["prompt"], term["parent"]) for term in terms] == [
        ("dog", "object", "a dog", None),
        ("dog:head", "part", "a dog head", 0),
    ]
    text = run("show", "pascal_part")
    assert "aeroplane:body" in text
    assert "a aeroplane body" in text


def test_show_neighbours() -> None:
    words = "dog,dog:head,cat:head,bus:wheel"
    terms = read("show", words, "--encoder", "offline:256")["terms"]
    neighbours = {term["name"]: [each["name"] for each in term["neighbours"]] for term in terms}
    assert set(neighbours["dog:head"][:2]) == {"dog", "cat:head"}
    assert "nearest" in run("show", words, "--encoder", "offline:256")

    near = read("show", words, "--near", "head", "--encoder", "offline:256", "--count", 2)["neighbours"]
    assert {each["name"] for each in near} == {"dog:head", "cat:head"}
    assert 1 > near[0]["cosine"] >= near[1]["cosine"] > 0.3
    own = read("show", words, "--near", "dog", "--encoder", "offline:256")["neighbours"]
    assert own[0]["name"] == "dog:head"
    assert len(own) == 3


def test_build(tmp_path: Path) -> None:
    out = tmp_path / "table.safetensors"
    assert "2 names, 64 numbers" in run("build", "dog,dog:head", "--encoder", "offline:64", "--out", out)
    assert EmbeddingTable.load(out).names == ("dog", "dog:head")
    assert [term["name"] for term in read("show", out)["terms"]] == ["dog", "dog:head"]
    assert read("show", out, "--near", "dog")["neighbours"][0]["name"] == "dog:head"
    with pytest.raises(WeightsError, match="did you mean 'dog'"):
        run("show", out, "--near", "dogs")
    with pytest.raises(RecipeError, match="safetensors"):
        run("build", "dog", "--encoder", "offline", "--out", tmp_path / "table.npy")
