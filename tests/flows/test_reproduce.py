"""The flow on Prefect's own test server; everything below it is tested without."""

from __future__ import annotations

import pytest

from partseg.errors import TrainingError
from pipelines.kinds import KINDS
from tests.pipelines import fakes

RECIPE = """
description: a small world
stages:
  one: {kind: numbers, value: 1}
  two: {kind: numbers, value: 2}
  slow: {kind: slow, of: one, steps: 2}
  page: {kind: page, of: slow}
"""


@pytest.fixture
def flow(prefect_server, tmp_path, monkeypatch):
    for name, module in fakes.KINDS.items():
        monkeypatch.setitem(KINDS, name, module)
    path = tmp_path / "w.yaml"
    path.write_text(RECIPE)
    from flows.reproduce import reproduce

    def run(**arguments):
        return reproduce(recipe=str(path), home=str(tmp_path / "home"), return_state=True, **arguments)

    return run


def task_states():
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[newest.id])))
        return {run.name: run.state.name for run in runs}


def artifact_types():
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={}).json()
        return {artifact["key"]: artifact["type"] for artifact in found}


def test_stages_are_task_runs_named_after_them_and_say_how_they_ended(flow, tmp_path):
    state = flow()
    assert state.is_completed()
    assert state.message == "4 stages built, 0 from the store"
    assert (tmp_path / "home/reports/w.html").exists()
    assert set(artifact_types()) == {"plan-w", "report-w", "report-page-w"}
    state = flow(until=["slow"], overrides={"two.value": 3})
    assert state.message == "0 stages built, 2 from the store"
    states = task_states()
    assert states == {"one": "Cached", "two": "Skipped", "slow": "Cached", "page": "Skipped"}


def test_a_long_stage_shows_how_far_it_is(flow, monkeypatch):
    monkeypatch.setattr("flows.pages.INTERVAL", 0.0)
    assert flow(until=["slow"]).is_completed()
    assert "progress" in artifact_types().values()


def test_a_plan_runs_nothing(flow, tmp_path):
    state = flow(target="plan")
    assert (state.name, state.message) == ("Planned", "4 of 4 stages would run")
    assert not (tmp_path / "home/runs").exists()


def test_a_failed_stage_fails_the_flow_in_one_line(flow):
    state = flow(overrides={"slow.fail": True})
    assert state.is_failed()
    assert state.message == "stage slow: the loss is not finite; lower the learning rate"


def test_an_error_in_the_recipe_fails_the_flow_in_one_line(flow):
    state = flow(force=["slwo"])
    assert state.is_failed()
    assert "there is no stage slwo; did you mean slow?" in state.message


def test_a_server_that_goes_away_is_told_in_one_line(flow, tmp_path, monkeypatch):
    import httpx

    from flows.here import run_here
    from partseg.errors import PartsegError
    from pipelines.plan import Selection, make_plan
    from pipelines.recipe import load_recipe
    from pipelines.watch import Unwatched
    from pipelines.workspace import Workspace

    class Cut(Unwatched):
        def building(self, row):
            raise httpx.ConnectError("refused")

    workspace = Workspace.open(home=tmp_path / "home")
    plan = make_plan(load_recipe(tmp_path / "w.yaml"), workspace)
    with pytest.raises(PartsegError, match=r"does not answer any more.*goes on where this one ended"):
        run_here(plan, workspace, Selection(), {}, Cut())


def test_the_error_itself_reaches_a_caller_in_the_same_process(flow, tmp_path):
    from flows.here import run_here
    from pipelines.plan import Selection, make_plan
    from pipelines.recipe import load_recipe
    from pipelines.watch import Unwatched
    from pipelines.workspace import Workspace

    workspace = Workspace.open(home=tmp_path / "home")
    plan = make_plan(load_recipe(tmp_path / "w.yaml"), workspace)
    with pytest.raises(TrainingError):
        run_here(plan, workspace, Selection(), {"slow.fail": True}, Unwatched())
    assert run_here(plan, workspace, Selection(), {}, Unwatched()) == tmp_path / "home/reports/w.html"
