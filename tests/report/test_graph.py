"""The picture of a graph: where its nodes and lines go."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.report.graph_layout import LANE, arrange
from partseg.report.graph_svg import graph_svg


@dataclass
class Stage:
    name: str
    needs: tuple[str, ...] = ()
    kind: str = "train"
    state: str = "run"
    note: str = ""


@st.composite
def graphs(draw):
    """Up to fourteen nodes; each needs some of those before it."""
    count = draw(st.integers(1, 14))
    return {
        f"n{i}": sorted(draw(st.sets(st.sampled_from([f"n{j}" for j in range(i)]), max_size=4))) if i else []
        for i in range(count)
    }


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_nothing_overlaps_and_lines_run_to_the_right(needs) -> None:
    layout = arrange(needs)
    assert set(layout.places) == set(needs)
    columns = defaultdict(list)
    for place in layout.places.values():
        columns[place.column].append((place.row, 1.0))
    for (_, column), row in layout.lanes.items():
        columns[column].append((row, LANE))
    for column in columns.values():
        column.sort()
        for (a, height_a), (b, height_b) in pairwise(column):
            assert b - a >= (height_a + height_b) / 2 - 1e-6
    for name, others in needs.items():
        for other in others:
            start, end = layout.places[other].column, layout.places[name].column
            assert start < end
            assert all((other, column) in layout.lanes for column in range(start + 1, end))


def test_a_small_graph_shows_lines_that_follow_from_others_faintly_and_a_large_one_leaves_them_out() -> None:
    chain = [Stage("s0"), *(Stage(f"s{i}", tuple({"s0", f"s{i - 1}"})) for i in range(1, 6))]
    assert graph_svg(chain).count("faint") == 1  # all of one node's are one path
    longer = [Stage("s0"), *(Stage(f"s{i}", tuple({"s0", f"s{i - 1}"})) for i in range(1, 40))]
    assert "faint" not in graph_svg(longer)


def test_long_names_keep_their_ends_and_texts_stay_in_their_boxes() -> None:
    svg = graph_svg([Stage("a" * 30 + "_on_coco"), Stage("b", note="100 min for all four sets on 8 V100")])
    assert "_on_coco</text>" in svg
    width = float(re.search(r'<rect width="([\d.]+)"', svg)[1])
    for name in re.findall(r'class="name"[^>]*>([^<]*)<', svg):
        assert 24 + 7.7 * len(name) <= width
    kind, note = re.findall(r'class="(?:kind|time)"[^>]*>([^<]*)<', svg)[-2:]
    assert 24 + 6 * (len(kind) + len(note)) + 10 <= width


def test_a_picture_of_its_own_has_its_colours_and_escapes_names() -> None:
    svg = graph_svg([Stage("x", state="blocked", note="<b>")], alone=True)
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert ".state-blocked rect" in svg
    assert "--blocked:" in svg
    assert "&lt;b&gt;" in svg
