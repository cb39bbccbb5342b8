"""`partseg zoo` and what it says when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partseg.cli import main
from tests.cli.fresh_process import output_of

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`partseg zoo ...` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PARTSEG_STORE", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["partseg", "zoo", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_every_row_is_listed_with_its_numbers(zoo: Command, tmp_path: Path) -> None:
    code, out, _ = zoo()
    assert code == 0
    assert out.count(" nothing ") == 33
    line = next(line for line in out.splitlines() if " r50_joint_in_parsed " in line)
    numbers = "38.3 67.8 28.5 47.8 26.2 17.8 31.6 55.7 24.0 49.8 9.6 20.2"
    assert line.split() == ["r50_joint_in_parsed", "r50_in_parsed", "nothing", *numbers.split()]
    assert "recipe vlpart_r50\n" in out
    assert "0 of 33 rows done; published: 282 h of training on 8 V100" in out
    assert "…" not in out  # nothing is cut off
    assert not (tmp_path / "home").exists()  # looking leaves no trace


def test_a_narrow_terminal_cuts_nothing_off(zoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "…" not in zoo()[1]


def test_rows_for_machines(zoo: Command) -> None:
    rows = json.loads(zoo("--json")[1])
    assert len(rows) == 33
    row = next(row for row in rows if row["row"] == "swinbase_specific_voc")
    assert (row["recipe"], row["stage"], row["state"]) == ("vlpart_swinb_voc", "swinb_voc", "nothing")
    assert [(n["dataset"], n["measure"], n["published"], n["reproduced"]) for n in row["numbers"]] == [
        ("voc2007", "bbox/AP", 59.0, None),
        ("voc2007", "bbox/AP50", 82.0, None),
    ]


def test_one_row(zoo: Command) -> None:
    code, out, _ = zoo("show", "r50_specific_paco")
    assert code == 0
    for text in (
        "vlpart_r50_paco, stage r50_paco",
        "7 h on 8 V100",
        "r50_paco.pth",
        "or segm/obj-part-AP50",
        "21.7",
    ):
        assert text in out
    assert "r50_paco_on_paco_lvis_v1" in out
    shown = json.loads(zoo("show", "r50_specific_paco", "--json")[1])
    assert shown["hours"] == [7]
    assert [stage["in_store"] for stage in shown["stages"]] == [False] * 6


@pytest.mark.parametrize("command", [("show",), ("check", "--weights", "x.pth")])
def test_an_unknown_row_gets_a_suggestion(zoo: Command, command: tuple[str, ...]) -> None:
    code, _, err = zoo(*command, "r50_jont")
    assert code == 2
    assert "no published row is called r50_jont; did you mean r50_joint?" in err


def test_a_check_says_all_that_is_missing(zoo: Command, tmp_path: Path) -> None:
    file = tmp_path / "r50_lvis_paco.pth"
    code, _, err = zoo("check", "r50_joint", "--weights", str(file))
    assert code == 2
    assert "there is no such file of weights" in err
    file.write_bytes(b"")
    code, _, err = zoo("check", "r50_joint", "--weights", str(file))
    assert code == 2
    for source in ("pascal_part", "partimagenet", "paco_lvis_v1", "coco", "lvis_v1", "voc2007"):
        assert err.count(f"give --raw {source}=DIR") == 1
    code, _, err = zoo("check", "r50_joint", "--weights", str(file), "--raw", f"weights={tmp_path / 'other'}")
    assert code == 2
    assert "is not in the raw folder weights" in err


def test_a_planned_check_trains_nothing_and_needs_only_what_is_evaluated(
    zoo: Command, tmp_path: Path
) -> None:
    file = tmp_path / "r50_coco.pth"
    file.write_bytes(b"weights")
    arguments = ("check", "r50_specific_coco", "--weights", str(file), "--plan", "--json")
    code, out, _ = zoo(*arguments)
    assert code == 0
    plan = json.loads(out)
    assert {stage["stage"]: stage["kind"] for stage in plan["stages"]} == {
        "r50_coco": "pretrained",
        "raw_coco": "acquire",
        "coco": "convert",
        "texts": "vocabulary",
        "r50_coco_on_coco": "evaluate",
    }
    assert plan["stages"][0]["stage"] == "r50_coco"  # what is quick to fail comes first


def test_damaged_weights_are_an_error_before_anything_else(zoo: Command, tmp_path: Path) -> None:
    file = tmp_path / "r50_coco.pth"
    file.write_bytes(b"no weights")
    code, out, err = zoo("check", "r50_specific_coco", "--weights", str(file), "--profile", "smoke")
    assert code == 2
    assert "r50_coco.pth" in err
    assert "raw_coco" not in out


def test_the_table_loads_neither_torch_nor_prefect(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['partseg', 'zoo']\nfrom partseg.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'prefect', 'timm'} & set(sys.modules)))"
    )
    assert output_of(code, tmp_path).strip().endswith("[]")
