"""Published tables on the page of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from partseg.report.page import RunSummary, render
from partseg.report.zoo_section import short, zoo_section


def number(
    dataset: str, measure: str, published: float, ours: float | None = None, **maybe: float | None
) -> Any:
    delta = None if ours is None else ours - published
    level = (
        None if delta is None else "reached" if abs(delta) <= 1 else "near" if abs(delta) <= 3 else "missed"
    )
    others = {f"segm/{name}": value for name, value in maybe.items()}
    return {
        "dataset": dataset,
        "measure": measure,
        "published": published,
        "reproduced": ours,
        "delta": delta,
        "verdict": level,
        "maybe": others,
    }


def row(name: str, *numbers: Any, table: str = "one", state: str = "done") -> dict[str, Any]:
    return {
        "row": name,
        "label": f"+ <{name}>",
        "table": table,
        "title": f"Table {table}",
        "note": "",
        "recipe": "r",
        "stage": f"stage_{name}",
        "state": state,
        "stages": [
            {"stage": "a", "in_store": state != "nothing"},
            {"stage": "b", "in_store": state == "done"},
        ],
        "numbers": list(numbers),
    }


ROWS = [
    row("a", number("coco", "bbox/AP", 38.0, 37.4, AP=33.3), number("voc2007", "bbox/AP50", 70.0, 67.5)),
    row("b", number("coco", "bbox/AP", 40.0), number("voc2007", "bbox/AP50", 71.0), state="nothing"),
    row("c", number("pascal_part", "segm/AP50/dog:head", 6.1, 60.0), table="two"),
    row("d", number("pascal_part", "segm/AP50/dog:head", 7.0), table="two", state="1 of 2"),
]


def page(tmp_path: Path, rows: Any = ROWS, profile: str | None = None) -> str:
    summary = RunSummary(
        recipe="made",
        run_id="1",
        started="now",
        seconds=1.0,
        stages=[],
        description="What it is.",
        profile=profile,
        zoo=rows,
        tolerance="Green is good.",
    )
    render(None, summary, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_every_row_and_number_is_on_the_page(tmp_path: Path) -> None:
    html = page(tmp_path)
    for text in ("38.0", "<b>37.4</b>", "40.0", "70.0", "<b>67.5</b>", "6.1", "<b>60.0</b>", "What it is."):
        assert text in html
    for name in "abcd":
        assert f"+ &lt;{name}&gt;" in html
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["Table one", "Table two"]
    assert re.findall(r'<span class="tag" title="(.*?)">(.*?)</span>', html) == [
        ("2 of 2 stages are in the store", "done"),
        ("0 of 2 stages are in the store", "not run"),
        ("2 of 2 stages are in the store", "done"),
        ("1 of 2 stages are in the store", "1 of 2"),
    ]


def test_differences_are_coloured_and_the_text_says_how(tmp_path: Path) -> None:
    html = page(tmp_path)
    colours = re.findall(r'<span class="(reached|near|missed)">(.*?)</span>', html)
    assert colours == [("reached", "−0.6"), ("near", "−2.5"), ("missed", "+53.9")]
    for name in ("reached", "near", "missed"):
        assert f".{name} {{ color:" in html
    assert "Green is good." in html
    assert "2 of 4 rows are complete" in html


def test_what_a_number_may_be_instead_stands_below(tmp_path: Path) -> None:
    assert "or masks 33.3" in page(tmp_path)
    assert "does not say which" in page(tmp_path)
    assert "does not say which" not in page(tmp_path, rows=ROWS[2:])


def test_numbers_of_another_profile_are_said_to_be_incomparable(tmp_path: Path) -> None:
    assert "not comparable" in page(tmp_path, profile="smoke")
    assert "not comparable" not in page(tmp_path)


def test_without_rows_there_is_no_section(tmp_path: Path) -> None:
    assert zoo_section([], tolerance="", profile=None) is None
    assert "Published and reproduced" not in page(tmp_path, rows=[])


def test_rows_of_different_datasets_have_gaps() -> None:
    made = zoo_section(
        [row("a", number("x", "segm/AP", 1.0)), row("b", number("y", "bbox/AP", 2.0))],
        tolerance="",
        profile=None,
    )
    assert made is not None
    (table,) = made["tables"]
    assert [(group["name"], group["kind"], group["width"]) for group in table["groups"]] == [
        ("x", "masks", 1),
        ("y", "boxes", 1),
    ]
    assert [[cell["published"] for cell in line["cells"]] for line in table["rows"]] == [
        [1.0, None],
        [None, 2.0],
    ]


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("segm/AP", "AP"),
        ("segm/novel/AP50", "novel AP50"),
        ("segm/AP50/dog:head", "dog:head"),
        ("bbox/APr", "APr"),
    ],
)
def test_short_names(measure: str, words: str) -> None:
    assert short(measure) == words
