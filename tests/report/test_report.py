from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from partseg.errors import PartsegError
from partseg.report.content import build
from partseg.report.curves_svg import nice_ticks, read_curves
from partseg.report.graph_layout import arrange, implied
from partseg.report.graph_svg import graph_svg, seconds_text
from partseg.report.page import RunSummary, StageSummary, delta, percent, render


def run(**changes: Any) -> RunSummary:
    stages = [
        StageSummary(name="data", kind="convert", needs=[], state="cached", key="a" * 64),
        StageSummary(
            name="train", kind="train", needs=["data"], state="ran", seconds=75.0, metrics={"loss": 0.5}
        ),
        StageSummary(name="report", kind="report", needs=["train", "data"], state="ran", seconds=0.4),
    ]
    return RunSummary(
        **{"recipe": "demo", "run_id": "r1", "started": "today", "seconds": 76.0, "stages": stages, **changes}
    )


def page(tmp_path: Path, inputs: dict[str, Any]) -> str:
    build(tmp_path / "report", **inputs)
    render(tmp_path / "report", run(), tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")
        ]


def test_the_page_asks_nobody_for_anything(tmp_path: Path, inputs: dict[str, Any]) -> None:
    html = page(tmp_path, inputs)
    links = Links()
    links.feed(html)
    assert links.found
    assert all(link.startswith("data:image/") for link in links.found)
    assert not re.search(r"@import|url\(|https?://", html)


def test_the_page_shows_numbers_pictures_stages_and_curves(tmp_path: Path, inputs: dict[str, Any]) -> None:
    html = page(tmp_path, inputs)
    assert "Heads &amp; &lt;tails&gt;" in html  # names cannot break the page
    assert "cat:&lt;tail&gt;" in html
    assert html.count("data:image/webp") == 2 * 3 + 2 * 2  # truth and two models; parsed and its truth
    assert 'class="node state-cached"' in html
    assert "1 min 15 s" in html
    assert "<polyline" in html
    assert "offline encoder" in html
    row = re.search(r"<td>49\.0</td>\s*<td>50\.0</td>\s*<td>(.*?)</td>", html)
    assert row is not None
    assert row[1] == "+1.0"
    assert re.search(r"25\.0.*?\+25\.0", html, re.S)  # AP50 of all parts doubles


def test_content_is_the_same_bytes_every_time_and_knows_no_times(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    build(tmp_path / "a", **inputs)
    build(tmp_path / "b", **inputs)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 11
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / "report.json").read_text()


def test_a_report_without_models_or_pseudo_labels_is_still_a_page(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    inputs |= {"models": [], "parsed": None, "curves": {}, "published": [], "notes": []}
    build(tmp_path / "report", **inputs)
    render(tmp_path / "report", run(stages=[]), tmp_path / "page.html")
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_content_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartsegError, match="no readable report"):
        render(tmp_path, run(), tmp_path / "page.html")
    (tmp_path / "report.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(PartsegError, match="format other"):
        render(tmp_path, run(), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_stages_stand_after_what_they_need() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a", "b"], "late": [], "d": ["c", "late"]}
    places = arrange(needs).places
    assert all(places[other].column < places[name].column for name in needs for other in needs[name])
    assert places["late"].column == places["d"].column - 1  # beside its user, not at the far left
    assert len({(p.column, p.row) for p in places.values()}) == len(places)
    assert implied("a", "c", needs)
    assert not implied("b", "c", needs)
    assert graph_svg([]) == ""


def test_long_histories_are_averaged_and_bad_lines_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        "".join(json.dumps({"iteration": i, "loss": 1.0, "loss_b": i}) + "\n" for i in range(1000))
    )
    total, other = read_curves(path)
    assert (total.name, other.name) == ("loss", "loss_b")
    assert len(total.x) <= 160
    assert set(total.y) == {1.0}
    path.write_text('{"iteration": 1}\nnothing\n')
    with pytest.raises(PartsegError, match=r"m\.jsonl:2"):
        read_curves(path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (65, "1 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_numbers_for_people() -> None:
    assert (percent(0.4236), percent(None)) == ("42.4", "–")
    assert (delta(0.01), delta(-0.01), delta(0.0001), delta(None)) == ("+1.0", "−1.0", "±0.0", "")
    assert nice_ticks(0, 0.9)[-1] >= 0.9
    assert nice_ticks(0, 0)[0] == 0
