"""Do what a plan says, stage by stage.

Killed at any moment and started again, a run ends with the same artifacts: a stage counts as done when
its commit is in the store, and a stage that was interrupted finds its ``work`` directory again.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from uuid import uuid4

from partseg.datasets.shards import Mapper
from partseg.errors import MissingArtifact, PartsegError, RecipeError
from partseg.files import write_file
from partseg.store import Action, tree_of
from pipelines.artifact import Artifact, StageContext
from pipelines.keys import key_of, key_parts
from pipelines.laid_out import laid_out
from pipelines.manifest import Manifest, now
from pipelines.plan import Plan, Row
from pipelines.provenance import plain_metrics, provenance
from pipelines.raw import listing_digest
from pipelines.recipe import Stage
from pipelines.watch import Outcome, Result, StageProgress, Unwatched, Watcher
from pipelines.workspace import Workspace


class Run:
    """One run of a plan: open it with ``with``, call :meth:`stage` for every row, then :meth:`finish`.

    Args:
        plan: what to do.
        workspace: where.
        watcher: told how it goes.
        mapper: runs the shards of conversions somewhere else than in this machine's processes.

    Raises:
        RecipeError: on opening, if a selected stage is blocked.
    """

    def __init__(
        self,
        plan: Plan,
        workspace: Workspace,
        *,
        watcher: Watcher | None = None,
        mapper: Mapper | None = None,
    ) -> None:
        check_runnable(plan)
        self.plan, self.workspace, self.store = plan, workspace, workspace.store
        self._mapper = mapper
        self.watcher: Watcher = watcher or Unwatched()
        self.results: dict[str, Result] = {}
        self.page: Path | None = None
        stamp = now()[:19].replace("-", "").replace(":", "")
        self.run_id = f"{stamp}-{plan.recipe.label}-{uuid4().hex[:6]}"
        self.folder = workspace.home / "runs" / self.run_id
        self._manifest = Manifest(self.folder, self._first_manifest())

    def __enter__(self) -> Run:
        # Read when torch is first loaded. Threads that wait for each other at every operator cost a small
        # model more than they bring, and twenty times more than that beside another busy process; and one
        # thread gives the same bits whatever the number of cores. Whoever wants more sets the variable.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._manifest.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manifest.__exit__(kind, error, trace)

    def stage(self, name: str) -> Result:
        """Bring one stage to its artifact: find it in the store, or build it.

        The stages it needs must have been through this before.
        """
        row, start = self.plan.row(name), time.monotonic()
        self.watcher.started(row)
        try:
            result = self._skipped(row) if row.state == "skipped" else self._reached(row)
        except BaseException as error:
            self._note(name, state="failed" if isinstance(error, Exception) else "stopped", error=str(error))
            if isinstance(error, Exception) and not isinstance(error, PartsegError):
                text = "".join(traceback.format_exception(error))
                write_file(self.folder / f"{name}.traceback.txt", text.encode())
            self.watcher.failed(row, error)
            raise
        result = replace(result, seconds=round(time.monotonic() - start, 3))
        self.results[name] = result
        self._note(name, **{k: v for k, v in asdict(result).items() if k not in ("stage", "kind")})
        self.watcher.finished(result)
        return result

    def artifact(self, name: str) -> Artifact:
        """The artifact of a stage of this run, laid out on this machine."""
        digests = {stage: result.digest for stage, result in self.results.items()}
        return laid_out(self.plan, self.store, name, key=str(self.results[name].key), digests=digests)

    def finish(self) -> Path | None:
        """Write the report of the run, if its recipe has one or covers published rows; returns the page.

        The kind of stage that offers ``finish(artifact, run_summary, destination)`` adds what is
        not content (states, seconds) to what its artifact says.
        """
        rows = self.zoo()
        for row in reversed(self.plan.rows):
            module = self.plan.recipe.stages[row.stage].kind.module
            if hasattr(module, "finish") and self.results[row.stage].digest is not None:
                return self._write_page(module.finish, self.artifact(row.stage), rows)
        if rows:
            from pipelines.report import finish

            return self._write_page(finish, None, rows)
        return None

    def zoo(self) -> list[dict[str, Any]]:
        """The published rows that the recipe covers, with what this run found or made of them."""
        recipe = self.plan.recipe
        if recipe.zoo is None:
            return []
        from pipelines.zoo_state import run_rows

        keys = {name: result.key for name, result in self.results.items() if result.key is not None}
        return [state.as_json() for state in run_rows(recipe, self.store, keys)]

    def _write_page(self, finish: Any, artifact: Artifact | None, zoo: list[dict[str, Any]]) -> Path:
        page = self.folder / "report.html"
        finish(artifact, {**self.summary(), "zoo": zoo}, page)
        self.page = self.workspace.home / "reports" / f"{self.plan.recipe.label}.html"
        write_file(self.page, page.read_bytes())
        return self.page

    def summary(self) -> dict[str, Any]:
        """The manifest as it stands: plain data for the report."""
        return {**self._manifest.data, "published": self.plan.recipe.published, "finished": now()}

    # -- inside ------------------------------------------------------------------------------

    def _first_manifest(self) -> dict[str, Any]:
        recipe = self.plan.recipe
        return {
            "run_id": self.run_id,
            "recipe": recipe.name,
            "profile": recipe.profile,
            "description": recipe.description,
            "store": self.store.url,
            "stages": [
                {"stage": row.stage, "kind": row.kind, "needs": list(row.needs), "state": "waiting"}
                for row in self.plan.rows
            ],
        }

    def _note(self, stage: str, **changes: Any) -> None:
        for entry in self._manifest.data["stages"]:
            if entry["stage"] == stage:
                entry.update(changes)
        self._manifest.save()

    def _skipped(self, row: Row) -> Result:
        action = self.store.action(row.key) if row.key is not None and row.digest is not None else None
        return _result(row, "skipped", action)

    def _reached(self, row: Row) -> Result:
        if row.state == "cached" and row.key is not None:
            action = self.store.lookup(row.key)
            if action is not None and action.tree == row.digest:
                return self._done(row, "cached", action)
        stage = self.plan.recipe.stages[row.stage]
        parts = self._parts(stage)
        key = key_of(parts)
        action = None if row.forced else self.store.lookup(key)
        if action is not None:
            return self._done(row, "cached", action)

        def waiting(owner: str) -> None:
            self.watcher.log(row.stage, f"waiting for {owner}, which builds the same artifact")

        with self.store.lease(key, waiting=waiting) as lease:
            action = None if row.forced else self.store.lookup(key)
            if action is not None:  # somebody built it while we waited
                return self._done(row, "cached", action)
            self.watcher.building(row)
            self._note(row.stage, state="running", key=key, why=list(row.why))
            out, metrics, seconds = self._build(stage, key)
            theirs = None if lease.check() else self.store.lookup(key)
            if theirs is not None:  # we were thought dead, and they were faster
                return self._done(row, "cached", theirs)
            facts = self._facts(stage, out, metrics, seconds)
            action = self.store.publish(key, out, parts=parts, facts=facts)
            shutil.rmtree(self._work(key), ignore_errors=True)
        return self._done(row, "built", action)

    def _done(self, row: Row, state: Outcome, action: Action) -> Result:
        self.store.set_ref(self.plan.recipe.label, row.stage, action.key)
        return _result(row, state, action)

    def _parts(self, stage: Stage) -> dict[str, Any]:
        digests = {name: str(self.results[name].digest) for name in stage.needs}
        listing = self.plan.listings.get(stage.name)
        return key_parts(
            stage.kind, stage.params, digests, None if listing is None else listing_digest(listing)
        )

    def _work(self, key: str) -> Path:
        return self.workspace.home / "work" / key

    def _build(self, stage: Stage, key: str) -> tuple[Path, dict[str, Any], float]:
        """Run the stage's function; returns the finished directory, its metrics and the wall time."""
        work = self._work(key)
        state = work / "state"
        state.mkdir(parents=True, exist_ok=True)
        for left in work.glob(".tmp-*"):  # of a run that was killed; the lease is ours
            shutil.rmtree(left, ignore_errors=True)
        out = Path(tempfile.mkdtemp(dir=work, prefix=".tmp-")) / "out"
        out.mkdir()
        source = stage.params.raw_source()
        listing = self.plan.listings.get(stage.name)
        context = StageContext(
            work=state,
            records=self.folder / stage.name,
            workers=self.workspace.workers,
            launch=self.workspace.launch,
            listing=listing,
            raw_root=self.plan.raw.get(source) if source is not None and listing is not None else None,
            mapper=self._mapper,
            progress=StageProgress(stage.name, self.folder, self._manifest, self.watcher),
        )
        inputs = {name: self._input(name) for name in stage.needs}
        start = time.monotonic()
        metrics = stage.kind.run(stage.params, inputs, out, context)
        return out, plain_metrics(metrics or {}), round(time.monotonic() - start, 3)

    def _input(self, name: str) -> Artifact:
        """The artifact of a stage before; one that turns out damaged as it is read is built again.

        Raises:
            MissingArtifact: it cannot be built, or its content is another one than before.
        """
        before = self.results[name]
        try:
            return self.artifact(name)
        except MissingArtifact as error:
            if before.state == "skipped":
                raise
            self.watcher.log(name, f"{error.what}: it is built again")
        if self.stage(name).digest != before.digest:
            raise MissingArtifact(
                f"stage {name} was damaged in the store; built again it has other content",
                where=self.store.url,
                fix="run again: what is made from it follows",
            )
        return self.artifact(name)

    def _facts(self, stage: Stage, out: Path, metrics: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        tree = tree_of(out)
        if not tree.entries:
            raise PartsegError("the stage wrote no file", where=stage.name)
        return {
            "stage": stage.name,
            "kind": stage.kind.name,
            "recipe": self.plan.recipe.label,
            "inputs": {name: self.results[name].digest for name in stage.needs},
            "input_keys": {name: self.results[name].key for name in stage.needs},
            "metrics": dict(metrics),
            "seconds": seconds,
            "size": tree.size,
            "files": len(tree.entries),
            "provenance": {**provenance(), "run_id": self.run_id, "finished": now()},
        }


def check_runnable(plan: Plan) -> None:
    """Raise :class:`RecipeError` for the first selected stage that cannot run."""
    for row in plan.rows:
        if row.state == "blocked":
            raise RecipeError(
                f"stage {row.stage} cannot run", where=plan.recipe.label, fix="; ".join(row.why)
            )


def run_recipe(plan: Plan, workspace: Workspace, *, watcher: Watcher | None = None) -> Run:
    """Run every stage of a plan in order and write the report; returns the finished run.

    Raises:
        PartsegError: a stage failed for a reason a person can mend.
    """
    with Run(plan, workspace, watcher=watcher) as run, stopped_by_sigterm():
        for row in plan.rows:
            run.stage(row.stage)
        run.finish()
    return run


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop the block as Ctrl-C does, so that leases are given back and children ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _result(row: Row, state: Outcome, action: Action | None) -> Result:
    facts = action.facts if action is not None else {}
    return Result(
        stage=row.stage,
        kind=row.kind,
        state=state,
        why=row.why,
        key=action.key if action is not None else None,
        digest=action.tree if action is not None else None,
        built_seconds=facts.get("seconds"),
        size=facts.get("size"),
        metrics=facts.get("metrics", {}),
    )
