from __future__ import annotations

import json
import os

import pytest

from partseg.errors import PartsegError, RecipeError, SourceError, TrainingError
from pipelines.manifest import read_runs
from pipelines.watch import Unwatched

SLOW = "stages: {one: {kind: numbers}, slow: {kind: slow, of: one, steps: 3}}"


def test_the_numbers_are_right_and_two_homes_agree(bench, tmp_path):
    run = bench.run()
    assert bench.number(run, "last") == 13
    assert run.results["sum"].metrics == {"total": 3}
    again = bench.run(store=str(tmp_path / "other"))
    assert {n: r.digest for n, r in run.results.items()} == {n: r.digest for n, r in again.results.items()}


@pytest.mark.parametrize("store", [None, "memory://engine-run"])
def test_a_store_anywhere(bench, store):
    assert set(bench.outcomes(store=store).values()) == {"built"}
    run = bench.run(store=store)
    assert {result.state for result in run.results.values()} == {"cached"}
    assert bench.number(run, "last") == 13


def test_an_interrupted_stage_finds_its_work_again(bench, monkeypatch, tmp_path):
    bench.write("recipes/work.yaml", SLOW)
    trace = tmp_path / "trace"
    monkeypatch.setenv("FAKE_TRACE", str(trace))

    class StopAtTwo(Unwatched):
        def progress(self, stage, done, total, message):
            if done == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.watch.PROGRESS_INTERVAL", 0.0)
    with pytest.raises(KeyboardInterrupt):
        bench.run(watcher=StopAtTwo())
    assert read_runs(bench.folder / "home")[0]["state"] == "stopped"
    assert bench.number(bench.run(), "slow") == 4
    assert trace.read_text().split() == ["step", "0", "step", "1", "step", "2"]
    assert not list((bench.folder / "home/work").iterdir())


def test_a_failed_stage_leaves_no_artifact_and_what_was_done_stays(bench):
    bench.write("recipes/work.yaml", SLOW.replace("steps: 3", "fail: true"))
    with pytest.raises(TrainingError, match="the loss is not finite; lower the learning rate"):
        bench.run()
    assert bench.states() == {"one": "cached", "slow": "run"}
    run = read_runs(bench.folder / "home")[0]
    assert (run["state"], run["stages"][1]["state"]) == ("failed", "failed")


def test_a_bug_in_a_stage_keeps_its_traceback(bench, monkeypatch):
    monkeypatch.setattr("tests.pipelines.fakes.add.run", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    assert "ZeroDivisionError" in next((bench.folder / "home/runs").glob("*/sum.traceback.txt")).read_text()


def test_a_stage_that_writes_nothing_is_an_error(bench, monkeypatch):
    monkeypatch.setattr("tests.pipelines.fakes.numbers.run", lambda *arguments: {})
    with pytest.raises(PartsegError, match="one: the stage wrote no file"):
        bench.run()


def test_metrics_that_json_cannot_hold_become_null(bench, monkeypatch):
    def run(params, inputs, out, report):
        (out / "number.txt").write_text("1")
        return {"ap": float("nan"), "n": 3}

    monkeypatch.setattr("tests.pipelines.fakes.numbers.run", run)
    assert bench.run().results["one"].metrics == {"ap": None, "n": 3}


def test_the_record_tells_where_and_how_long(bench):
    run = bench.run()
    facts = bench.workspace().store.action(run.results["sum"].key).facts
    assert facts["inputs"] == {"one": run.results["one"].digest, "two": run.results["two"].digest}
    assert facts["provenance"]["run_id"] == run.run_id
    assert facts["provenance"]["partseg"]
    assert facts["seconds"] >= 0


def test_a_report_is_finished_even_when_all_is_cached(bench):
    bench.write("recipes/work.yaml", "stages: {one: {kind: numbers}, page: {kind: page, of: one}}")
    first = bench.run()
    assert first.page == bench.folder / "home/reports/work.html"
    assert "one=built page=built" in first.page.read_text()
    second = bench.run()
    assert "one=cached page=cached" in second.page.read_text()
    assert (second.folder / "report.html").exists()
    assert bench.run(until=("one",)).page is not None  # the report's artifact is in the store


class TestRaw:
    RECIPE = """
stages:
  pics: {kind: raw, source: pets}
  next: {kind: add, of: []}
  page: {kind: page, of: pics, raw: pets}
"""

    @pytest.fixture
    def pets(self, bench):
        bench.write("recipes/work.yaml", self.RECIPE)
        folder = bench.folder / "pets"
        folder.mkdir()
        (folder / "number.txt").write_text("5")
        old = 1_600_000_000
        os.utime(folder / "number.txt", (old, old))
        return folder

    def test_without_the_folder_it_is_blocked_and_says_what_to_do(self, bench, pets):
        row = bench.plan().row("pics")
        assert row.state == "blocked"
        assert "give --raw pets=DIR" in row.why[0]
        assert bench.plan().row("page").state == "blocked"
        with pytest.raises(RecipeError, match=r"stage pics cannot run; .*--raw pets=DIR"):
            bench.run()

    def test_the_folder_comes_from_the_option_the_environment_or_the_recipe(self, bench, pets, monkeypatch):
        assert bench.plan(raw={"pets": pets}).row("pics").state == "run"
        monkeypatch.setenv("PARTSEG_RAW_PETS", str(pets))
        assert bench.plan().row("pics").state == "run"
        monkeypatch.delenv("PARTSEG_RAW_PETS")
        bench.write("recipes/work.yaml", f"{self.RECIPE}raw: {{pets: {pets}}}\n")
        assert bench.plan().row("pics").state == "run"

    def test_what_data_get_has_put_into_the_home_folder_is_found(self, bench, pets):
        raw = bench.folder / "home" / "raw"
        raw.mkdir(parents=True)
        pets.rename(raw / "pets")
        run = bench.run()
        assert bench.number(run, "page") == 5
        (raw / "pets" / "number.txt").unlink()
        (raw / "pets" / "number.txt").mkdir()  # a folder that nobody named and that is not whole stops nobody
        assert bench.states()["pics"] == "cached"

    def test_nothing_is_copied_and_later_stages_find_the_folder(self, bench, pets):
        run = bench.run(raw={"pets": pets})
        assert bench.number(run, "page") == 5
        listing = json.loads((run.artifact("pics").path / "listing.json").read_text())
        assert [(file["path"], file["size"]) for file in listing] == [("number.txt", 1)]

    def test_a_changed_file_is_noticed_and_named(self, bench, pets):
        bench.run(raw={"pets": pets})
        (pets / "number.txt").write_text("6")
        row = bench.plan(raw={"pets": pets}).row("pics")
        assert (row.state, row.why) == ("run", ("the raw files changed",))
        assert bench.number(bench.run(raw={"pets": pets}), "page") == 6

    def test_known_files_are_not_hashed_again(self, bench, pets, monkeypatch):
        bench.plan(raw={"pets": pets})
        monkeypatch.setattr("partseg.hashes.sha256_file", None)
        bench.plan(raw={"pets": pets})

    def test_once_listed_a_run_elsewhere_goes_without_the_folder_until_it_needs_a_file(self, bench, pets):
        bench.run(raw={"pets": pets})
        assert set(bench.states().values()) == {"cached"}
        with pytest.raises(SourceError, match="give it with --raw pets=DIR"):
            bench.run(force=("page",))

    def test_made_up_files_are_laid_out_for_later_stages(self, bench):
        bench.write("recipes/work.yaml", self.RECIPE.replace("source: pets", "source: pets, made_up: '8'"))
        assert bench.number(bench.run(), "page") == 8
