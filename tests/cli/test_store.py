"""`partseg store` and `partseg diff` as a person uses them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.store.s3_server import new_url, s3_server

RAW = """
stages:
  files: {kind: raw, source: things}
  one: {kind: numbers, value: 1, schedule: {max_iter: 100}}
  two: {kind: add, of: [one, one]}
  last: {kind: add, of: [two, one], plus: 1}
profiles:
  big: {stages: {one: {value: 10}}}
"""


@pytest.fixture(scope="module")
def s3():
    with s3_server():
        yield new_url


@pytest.fixture
def made(partseg):
    """The recipe above has run."""
    Path("r.yaml").write_text(RAW)
    Path("raw").mkdir()
    Path("raw/a.txt").write_text("1")
    Path("raw/b.txt").write_text("2")
    code, _, err = partseg("run", "r.yaml", "--no-prefect", "--raw", "things=raw")
    assert code == 0, err
    return partseg


def run(partseg, *more):
    code, _, err = partseg("run", "r.yaml", "--no-prefect", "--raw", "things=raw", *more)
    assert code == 0, err


class TestShow:
    def test_an_artifact_with_all_it_was_made_from(self, made):
        code, out, _ = made("store", "show", "r/last", "--params")
        assert code == 0
        for text in (
            "r/last",
            "kind     add v1",
            "plus: 1",
            "├── one  numbers v1",
            "max_iter: 100",
            "number.txt",
        ):
            assert text in out
        assert "└── two  add v1" in out

    def test_down_to_the_raw_files(self, made):
        out = made("store", "show", "r/files")[1]
        assert "2 raw files, 2 B" in out
        assert "6b86b273ff34       1 B  a.txt" in out  # printf 1 | sha256sum
        for number in range(20):
            Path(f"raw/{number}.txt").write_text("3")
        run(made)
        assert "and 10 more; --all lists them" in made("store", "show", "r/files")[1]
        assert "more" not in made("store", "show", "r/files", "--all")[1]

    def test_as_json(self, made):
        rows = json.loads(made("store", "show", "r/last", "--json")[1])
        assert [row["stage"] for row in rows] == ["one", "two", "last"]
        assert rows[1]["inputs"] == {"one": rows[0]["key"]}
        assert rows[0]["facts"]["provenance"]["host"]
        assert json.loads(made("store", "show", "r/files", "--json")[1])[0]["raw_files"][1]["path"] == "b.txt"

    def test_a_record_that_is_gone_is_said(self, made):
        made("store", "rm", "r/one")
        code, out, _ = made("store", "show", "r/last")
        assert code == 0
        assert "the store does not have its record any more" in out


class TestDiff:
    def test_the_first_ancestor_that_differs_is_named(self, made):
        run(made, "--profile", "big")
        code, out, _ = made("diff", "r/last", "r@big/last")
        assert code == 1
        assert "one differs (for two -> last)\n  params.value: 1 -> 10\n" in out
        assert "file changed: number.txt" in out
        assert out.count("differs") == 1  # reached in two ways, said once

    def test_raw_file_by_raw_file(self, made):
        before = json.loads(made("store", "show", "r/files", "--json")[1])[0]["key"]
        Path("raw/a.txt").write_text("9")
        Path("raw/b.txt").rename("raw/c.txt")
        run(made)
        code, out, _ = made("diff", before, "r/files")
        assert code == 1
        assert "  raw file changed: a.txt (6b86b273ff34 -> 19581e27de7c, 1 -> 1 bytes)\n" in out
        assert "  raw file removed: b.txt\n  raw file added: c.txt\n" in out

    def test_two_recipes_and_two_runs_stage_by_stage(self, made):
        run(made, "--profile", "big")
        code, out, _ = made("diff", "r", "r@big")
        assert code == 1
        assert [line.split()[1] for line in out.splitlines()[3:7]] == [
            "same",
            "differs",
            "differs",
            "differs",
        ]
        assert "one differs\n  params.value: 1 -> 10" in out
        runs = [run["run_id"] for run in json.loads(made("status", "--json")[1])]
        found = json.loads(made("diff", runs[1], runs[0], "--json")[1])
        assert (found["same"], [cause["first"] for cause in found["causes"]]) == (False, ["one"])
        assert made("diff", runs[0], "r@big")[0] == 0

    def test_a_stage_that_only_one_has_is_a_difference(self, made):
        Path("s.yaml").write_text("extends: r\nstages: {more: {kind: numbers}}".replace("r\n", "r.yaml\n"))
        code, _, err = made("run", "s.yaml", "--no-prefect", "--raw", "things=raw")
        assert code == 0, err
        code, out, _ = made("diff", "r", "s")
        assert (code, "only in the second" in out, "differs" in out) == (1, True, False)

    def test_an_input_and_a_version_more(self, made, monkeypatch):
        monkeypatch.setattr("tests.pipelines.fakes.add.VERSION", "2")
        key = json.loads(made("store", "show", "r/last", "--json")[1])[-1]["key"]
        run(made, "--set", "last.of=[two, one, one]")
        out = made("diff", key, "r/last")[1]
        assert "version: 1 -> 2" in out
        assert "params.of.2 is given in the second only" in out

    def test_the_same_content_made_in_two_ways_is_the_same(self, made):
        code, out, _ = made("diff", "r/two", "r/one", "--json")
        assert (code, json.loads(out)["same"]) == (1, False)
        run(made, "--set", "one.schedule.max_iter=7")
        key = json.loads(made("store", "ls", "--json")[1])[1]["key"]
        code, out, _ = made("diff", key, "r/one")
        assert (code, out) == (0, "same content, made in two ways\n  params.schedule.max_iter: 100 -> 7\n")

    def test_the_same_is_0_and_what_cannot_be_compared_2(self, made):
        assert made("diff", "r/one", "r/one")[:2] == (0, "same content\n")
        for pair, message in [
            (("r", "r/one"), "r is all stages of a recipe or run, r/one is one artifact; write r/STAGE"),
            (("r/none", "r/one"), "no artifact of r/none in the store"),
            (("zz", "r/one"), "no artifact with a key that starts with zz"),
        ]:
            code, _, err = made("diff", *pair)
            assert (code, message in err) == (2, True), err


class TestPins:
    def test_a_pin_is_a_name(self, made):
        assert "pinned" in made("store", "pin", "paper", "r/two")[1]
        assert "r/two" in made("store", "pins")[1]
        assert "pinned:paper" in made("store", "ls")[1]
        assert made("diff", "paper", "r/two")[0] == 0
        code, _, err = made("store", "rm", "r/two")
        assert (code, "store unpin paper" in err) == (2, True)
        assert made("store", "unpin", "paper")[0] == 0
        assert made("store", "rm", "r/two")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("pin", "a/b", "r/two"), "a/b is no name for a pin"),
            (("pin", "a", "r/none"), "no artifact of r/none"),
            (("unpin", "a"), "there is no pin a"),
        ],
    )
    def test_mistakes(self, made, arguments, message):
        code, _, err = made("store", *arguments)
        assert (code, message in err) == (2, True)


class TestGc:
    def test_what_recipes_would_find_now_stays(self, made):
        run(made, "--set", "one.value=7")  # the last artifacts are those of the exception now
        assert (
            "would free 0 B: 0 artifacts" in made("store", "gc", "--grace", "0", "--keep-recipe", "r.yaml")[1]
        )
        out = made("store", "gc", "--grace", "0")[1]  # nobody knows where r.yaml is
        assert out.count(" r/") == 3
        assert "--delete does it" in out

    def test_only_the_recipes_that_are_named_count(self, made):
        run(made, "--profile", "big")
        assert "0 artifacts" in made("store", "gc", "--grace", "0", "--keep-recipe", "r")[1]
        out = made("store", "gc", "--grace", "0", "--keep-recipe", "r@big", "--delete")[1]
        assert out.count(" r/") == 3
        assert "0 damaged" in made("store", "verify", "--deep")[1]
        assert made("store", "ls", "--json")[1].count('"key"') == 4
        code, _, err = made("store", "gc", "--keep-recipe", "rr")
        assert (code, "there is no recipe called rr" in err) == (2, True)

    def test_a_pin_keeps_the_whole_chain(self, made):
        made("store", "pin", "paper", "r/last")
        out = made("store", "gc", "--grace", "0", "--keep-recipe", "demo", "--delete")[1]
        assert out.splitlines()[0].endswith("r/files")
        assert "freed" in out
        assert len(json.loads(made("store", "show", "paper", "--json")[1])) == 3


class TestPushAndPull:
    def test_a_chain_goes_to_a_team_and_to_another_home(self, made, s3, monkeypatch, tmp_path):
        url = s3()
        out = made("store", "push", url, "r/two", "--dry-run")[1]
        assert "would copy 2 artifacts" in out
        assert "2 B in 2 files; 0 are there already" in out
        assert made("store", "ls", "--store", url, "--json")[1] == "[]\n"
        assert "2 artifacts are in s3://" in made("store", "push", url, "r/two")[1]
        assert "1 artifacts are in s3://" in made("store", "push", url, "r/last", "--alone")[1]
        assert "0 B copied" in made("store", "push", url, "r/last")[1]
        assert "4 artifacts are in s3://" in made("store", "push", url, "r")[1]
        monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "colleague"))
        assert "4 artifacts are in" in made("store", "pull", url)[1]
        states = json.loads(made("plan", "r.yaml", "--raw", "things=raw", "--json")[1])["stages"]
        assert {stage["state"] for stage in states} == {"cached"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("pull", "empty"), "there is nothing to copy"),
            (("push", "other", "r/none"), "no artifact of r/none"),
            (("push", "nothing://x"), "no file system for this store"),
            (("push", "s3://nobodys-bucket/x"), "make the bucket"),
        ],
    )
    def test_mistakes(self, made, s3, arguments, message):
        code, _, err = made("store", *arguments)
        assert (code, message in err, err.count("\n")) == (2, True, 1), err


def test_a_damaged_record_is_found_and_dropped(made, tmp_path):
    record = next((tmp_path / "home/store/actions").iterdir())
    record.write_bytes(record.read_bytes()[:-1])
    code, out, _ = made("store", "verify")
    assert (code, "the record is damaged" in out) == (1, True)
    assert made("store", "verify", "--drop")[0] == 0
    assert not record.exists()
    run(made)
    assert made("store", "verify", "--deep")[:2] == (0, "4 artifacts, 0 damaged\n")


def test_rot_without_a_trace_is_not_taken_out(made, tmp_path):
    for blob in (tmp_path / "home/store/blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(b"9" * blob.stat().st_size)
            os.utime(blob, (1_000_000_000, 1_000_000_000))
    code, _, err = made("store", "get", "r/last", "--out", "taken")
    assert (code, "it was removed: run again" in err) == (2, True)
    assert not Path("taken").exists()
