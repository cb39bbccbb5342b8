"""The pages under docs/ are run as they are, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from partseg.cli.data import app

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of what is to be run."""
    found = BLOCK.findall((DOCS / page).read_text())
    return [(language, text) for not_run, language, text in found if not not_run]


def commands(text: str) -> None:
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[:2] == ["partseg", "data"], line
        result = CliRunner().invoke(app, words[2:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_what_the_page_about_data_shows_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("datasets").disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    seen = []
    for language, text in blocks("data.md"):
        seen.append(language)
        if language == "sh":
            commands(text)
        elif language == "python":
            exec(compile(text, "docs/data.md", "exec"), names)
        elif language == "sql":
            monkeypatch.chdir(tmp_path / "parts")
            rows = duckdb.sql(text).fetchall()
            monkeypatch.chdir(tmp_path)
            assert len(rows) == 5
            assert all(count > 0 and 0 < share <= 1 for _, count, share in rows)
        else:
            pytest.fail(f"what to do with a block of {language}?")
    assert seen.count("python") >= 4
    assert {"sh", "sql"} <= set(seen)
    assert " of " in capsys.readouterr().out
    assert {"look.png", "val.json", "hub"} <= {path.name for path in tmp_path.iterdir()}


def test_the_page_about_data_names_every_column_and_format() -> None:
    from partseg.cli.data_export import Compat, Format
    from partseg.layout import schema

    text = (DOCS / "data.md").read_text()
    for table in (schema.CATEGORIES, schema.IMAGES, schema.ANNOTATIONS, schema.POLYGONS, schema.PANOPTIC):
        for name in table.names:
            assert f"`{name}`" in text or f"`{name.removesuffix('category_ids')}`" in text, name
    for name in (*Format, *Compat):
        assert f"`{name}`" in text, name
