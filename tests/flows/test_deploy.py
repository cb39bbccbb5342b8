"""Every recipe as a deployment: what it is called, says, is given, and where it queues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from partseg.datasets.catalogue import SOURCES
from partseg.errors import RecipeError
from pipelines.recipe import load_recipe, recipe_names

NAMES = ["demo", "prepare", "vlpart_swinb", "voc2007"]


@pytest.fixture
def register(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a few deployments in a pool; gives them by name."""
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PARTSEG_STORE", raising=False)
    from prefect.client.orchestration import get_client

    from flows.deploy import main

    def call(pool: str, **options: Any) -> dict[str, Any]:
        main(NAMES, pool=pool, **options)
        with get_client(sync_client=True) as client:
            found = {d.name: d for d in client.read_deployments(limit=200) if d.work_pool_name == pool}
        assert set(found) == set(NAMES)
        return found

    return call


def limit(pool: str, queue: str) -> int | None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_work_queue_by_name(queue, work_pool_name=pool).concurrency_limit


def test_what_trains_waits_in_a_queue_that_lets_one_through(register: Any, tmp_path: Path) -> None:
    found = register("p1", profile="smoke", schedule=["demo=0 22 * * 5"], workers=3, processes="auto")
    queues = {name: deployment.work_queue_name for name, deployment in found.items()}
    assert queues == {"demo": "cpu", "prepare": "cpu", "vlpart_swinb": "gpu", "voc2007": "cpu"}
    assert (limit("p1", "gpu"), limit("p1", "cpu")) == (1, None)
    swinb, demo = found["vlpart_swinb"], found["demo"]
    assert swinb.parameters == {
        "recipe": "vlpart_swinb",
        "profile": "smoke",
        "processes": "auto",
        "store": str(tmp_path / "home/store"),
        "home": str(tmp_path / "home"),
        "workers": 3,
    }
    assert swinb.tags == ["partseg", "vlpart", "swinb", "gpu"]
    assert swinb.job_variables["working_dir"] == str(Path.cwd())
    assert [str(s.schedule.cron) for s in demo.schedules] == ["0 22 * * 5"]
    assert not swinb.schedules
    # again: brought up to date, nothing twice
    again = register("p1", trainings=2)
    assert again["vlpart_swinb"].id == swinb.id
    assert "profile" not in again["vlpart_swinb"].parameters
    assert limit("p1", "gpu") == 2


def test_one_queue_for_all_and_workers_with_homes_of_their_own(register: Any) -> None:
    found = register("p2", queue="mine", remote=True, store="s3://bucket/partseg", raw=["voc2007=/data/voc"])
    assert {deployment.work_queue_name for deployment in found.values()} == {"mine"}
    swinb = found["vlpart_swinb"]
    assert swinb.parameters == {
        "recipe": "vlpart_swinb",
        "store": "s3://bucket/partseg",
        "raw": {"voc2007": "/data/voc"},
        "workers": 0,
    }
    assert "working_dir" not in swinb.job_variables


def test_the_server_refuses_a_parameter_of_the_wrong_type(register: Any) -> None:
    from prefect.deployments import run_deployment
    from prefect.exceptions import PrefectHTTPStatusError

    register("p3")
    with pytest.raises(PrefectHTTPStatusError, match="seed"):
        run_deployment("reproduce/demo", parameters={"seed": "one"}, timeout=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ["vlpart_swimb"]},
            "there is no recipe or source called vlpart_swimb; did you mean vlpart_swin",
        ),
        ({"schedule": ["demo=daily"]}, "--schedule demo=daily is not understood"),
        ({"schedule": ["dmo=0 0 * * *"]}, "called dmo; did you mean demo"),
        ({"names": ["prepare"], "profile": "smok"}, "there is no profile called smok"),
        ({"names": ["demo"], "image": "partseg:1"}, "no containers: leave out --image"),
        ({"processes": "many"}, "'many' is not understood"),
    ],
)
def test_mistakes_are_told_before_anything_is_registered(
    prefect_server: str, options: dict[str, Any], message: str
) -> None:
    from flows.deploy import main

    with pytest.raises(RecipeError, match=message):
        main(**{"pool": "mistakes", **options})


def test_all_recipes_and_sources_are_deployed(prefect_server: str, tmp_path: Path) -> None:
    from flows.deployments import Settings, deployments
    from pipelines.workspace import Workspace

    made = list(deployments(Settings(workspace=Workspace.open(home=tmp_path))))
    names = {(deployment.flow_name, deployment.name) for deployment in made}
    assert names == {("reproduce", name) for name in recipe_names()} | {("convert", name) for name in SOURCES}


def test_a_description_says_what_was_published_and_what_it_cost() -> None:
    from flows.deployments import describe, tags, wants_gpu

    swinb = load_recipe("vlpart_swinb")
    text = describe(swinb)
    assert (
        "109.5 h of training on 8 V100" in text
    )  # 53 + 4.5 + 6 + 8 + 20, and 15 + 3 for the R50 that parses
    assert "| `swinb_in_parsed` | 53 + 6 + 20 |" in text
    assert sum(line.startswith("| Swin") for line in text.splitlines()) == 5
    assert wants_gpu(swinb)
    assert not wants_gpu(load_recipe("demo"))
    assert "gpu" not in tags(load_recipe("prepare"))
    assert describe(load_recipe("demo")) == load_recipe("demo").description


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"recipe": "vlpart_swinb"}, "vlpart_swinb"),
        ({"recipe": "/somewhere/own.yaml", "profile": "smoke"}, "own@smoke"),
        ({"recipe": "demo", "target": "plan", "force": ["base", "parsed"]}, "demo, plan, force base parsed"),
        ({"recipe": "demo", "seed": 0, "from_stage": ["base"]}, "demo, seed 0, from base"),
    ],
)
def test_a_run_is_called_what_a_person_would_call_it(
    given: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import reproduce

    class Context:
        parameters = given

    monkeypatch.setattr(reproduce, "flow_run", Context)
    assert reproduce.run_name() == name
