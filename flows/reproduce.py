"""The one flow: a recipe's plan, stage by stage, each as a task run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.cancel import CancelCheck, RunCancelled
from flows.pages import ProgressPage, show_plan, show_report
from flows.runners import Runner, shard_mapper
from partseg.datasets.shards import Mapper
from partseg.errors import PartsegError
from pipelines.plan import Plan, Row, Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import Run
from pipelines.seeds import seeded
from pipelines.watch import Result, Unwatched, Watcher
from pipelines.workspace import Workspace

NAMES = {"built": "Completed", "cached": "Cached", "skipped": "Skipped"}


@dataclass(slots=True)
class Here:
    """What a caller in the same process shares with the flow: Prefect only carries plain data."""

    watcher: Watcher = field(default_factory=Unwatched)
    error: BaseException | None = None
    page: Path | None = None


HERE: ContextVar[Here | None] = ContextVar("partseg_here", default=None)


def run_name() -> str:
    """What a person calls a run: recipe and profile, and what was asked for beyond the whole of it."""
    given = flow_run.parameters
    recipe = Path(str(given["recipe"])).stem
    words = [f"{recipe}@{given['profile']}" if given.get("profile") else recipe]
    if given.get("target") == "plan":
        words.append("plan")
    if given.get("seed") is not None:
        words.append(f"seed {given['seed']}")
    for name, word in (("only", "only"), ("from_stage", "from"), ("until", "until"), ("force", "force")):
        if stages := given.get(name):
            words.append(f"{word} {' '.join(stages)}")
    return ", ".join(words)


@flow(name="reproduce", flow_run_name=run_name, persist_result=False)
def reproduce(
    recipe: str,
    profile: str | None = None,
    store: str | None = None,
    raw: dict[str, str] | None = None,
    only: list[str] | None = None,
    from_stage: list[str] | None = None,
    until: list[str] | None = None,
    force: list[str] | None = None,
    downstream: bool = False,
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    target: Literal["run", "plan"] = "run",
    workers: int = 0,
    processes: int | Literal["auto"] | None = None,
    nodes: int | None = None,
    rendezvous: str | None = None,
    runner: Runner = "local",
    runner_address: str | None = None,
    home: str | None = None,
) -> Any:
    """Make the artifacts and the report of a recipe; what is in the store already is not made again.

    Args:
        recipe: name of a recipe, or the path of a YAML file.
        profile: profile to merge over it.
        store: folder or URL of the store.
        raw: raw source -> folder with its files.
        only: only these stages; their inputs come from the store.
        from_stage: these stages and everything made from them, again.
        until: these stages and all they are made from.
        force: run these stages even if they are cached.
        downstream: force what is made from forced stages, too.
        overrides: ``stage.param`` -> value.
        seed: of every training; by default what the recipe says.
        target: ``plan`` shows what would run, and stops.
        workers: worker processes each stage may start.
        processes: processes that train, ``auto`` for one per GPU; by default what ``PARTSEG_PROCESSES`` says
            where the flow runs, or 1.
        nodes: machines that train; by default ``PARTSEG_NODES``, or 1.
        rendezvous: ``host:port`` where the other machines find this one; by default ``PARTSEG_RENDEZVOUS``.
        runner: who converts raw data: processes of this machine, a Dask or a Ray cluster.
        runner_address: scheduler of a cluster that is up already; by default one is started here.
        home: partseg's folder for checkpoints, caches and reports.
    """
    here = _here()
    folders = {name: Path(folder) for name, folder in (raw or {}).items()}
    selection = Selection(
        only=tuple(only or ()),
        from_=tuple(from_stage or ()),
        until=tuple(until or ()),
        force=tuple(force or ()),
        downstream=downstream,
    )
    try:
        workspace = Workspace.open(
            home=Path(home) if home else None,
            store=store,
            raw=folders,
            workers=workers,
            processes=processes,
            nodes=nodes,
            rendezvous=rendezvous,
        )
        loaded = load_recipe(recipe, profile=profile, overrides=overrides)
        plan = make_plan(loaded if seed is None else seeded(loaded, seed), workspace, selection)
        show_plan(plan, workspace)
        if target == "plan":
            waiting = sum(row.state in ("run", "maybe") for row in plan.rows)
            return Completed(name="Planned", message=f"{waiting} of {len(plan.rows)} stages would run")
        mapper = shard_mapper(runner, address=runner_address, workers=workers)
        return _run(plan, workspace, here, mapper)
    except PartsegError as error:  # one line, not three tracebacks
        here.error = error
        return Failed(message=str(error))


def _here() -> Here:
    """Not in the flow's own body, which travels to the workers of a cluster with all it names."""
    return HERE.get() or Here()


def _run(plan: Plan, workspace: Workspace, here: Here, mapper: Mapper | None) -> State[Any]:
    states: dict[str, State[Any]] = {}
    try:
        with Run(plan, workspace, watcher=_FlowWatcher(here.watcher), mapper=mapper) as run:
            for row in plan.rows:
                before = [states[name] for name in row.needs]
                states[row.stage] = _run_stage(run, row, before, here)
                if here.error is not None:
                    raise here.error
            here.page = run.finish()
            show_report(run, here.page)
    except RunCancelled:
        return Cancelled(message="stopped; the same run again goes on where this one ended")
    except Exception as error:
        here.error = error
        failed = next((name for name, state in states.items() if not state.is_completed()), None)
        return Failed(message=f"stage {failed}: {error}" if failed else str(error))
    counts = [sum(result.state == state for result in run.results.values()) for state in ("built", "cached")]
    return Completed(message=f"{counts[0]} stages built, {counts[1]} from the store")


def _run_stage(run: Run, row: Row, before: list[State[Any]], here: Here) -> State[Any]:
    """One stage as a task run named after it.

    Called, not submitted: then it runs in the main thread, where SIGTERM reaches it.
    """

    @task(name=row.stage, task_run_name=row.stage, cache_policy=NO_CACHE, persist_result=False)
    def stage() -> State[dict[str, Any]]:
        try:
            result = run.stage(row.stage)
        except RunCancelled as error:
            here.error = error
            return Cancelled()
        except Exception as error:
            here.error = error
            return Failed(message=_message(error, run, row))
        return Completed(
            name=NAMES[result.state], message="; ".join(result.why) or None, data=_reference(result)
        )

    state: State[Any] = stage(wait_for=before, return_state=True)
    return state


def _message(error: Exception, run: Run, row: Row) -> str:
    if isinstance(error, PartsegError):
        return str(error)
    return f"{type(error).__name__}: {error}; see {run.folder / f'{row.stage}.traceback.txt'}"


def _reference(result: Result) -> dict[str, Any]:
    """All that Prefect keeps of an artifact."""
    return {"stage": result.stage, "key": result.key, "tree": result.digest, "bytes": result.size}


class _FlowWatcher:
    """Shows a run on Prefect's pages, and to the caller's own watcher."""

    def __init__(self, inner: Watcher) -> None:
        self.inner = inner
        self.page = ProgressPage()
        self.check_cancelled = CancelCheck(flow_run.id)

    def started(self, row: Row) -> None:
        self.page = ProgressPage()
        self.inner.started(row)

    def building(self, row: Row) -> None:
        get_run_logger().info("running: %s", "; ".join(row.why))
        self.inner.building(row)

    def progress(self, stage: str, done: int, total: int, message: str) -> None:
        self.page.update(done, total, message)
        self.inner.progress(stage, done, total, message)
        self.check_cancelled()

    def log(self, stage: str, message: str) -> None:
        get_run_logger().info("%s", message)
        self.inner.log(stage, message)

    def finished(self, result: Result) -> None:
        get_run_logger().info("%s: %s", result.state, _plain(result.metrics))
        self.inner.finished(result)

    def failed(self, row: Row, error: BaseException) -> None:
        self.inner.failed(row, error)


def _plain(metrics: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in metrics.items())
