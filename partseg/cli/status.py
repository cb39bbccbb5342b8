"""`partseg status`: the runs of this home, and which of them are alive."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from partseg.cli.tables import print_table, seconds_text


def status(
    run_id: Annotated[
        str | None, typer.Argument(help="Show the stages of this run (a prefix will do).")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many runs to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the last runs, or the stages of one; a run that was killed shows as dead."""
    from partseg.errors import PartsegError
    from pipelines.manifest import read_runs
    from pipelines.workspace import default_home

    runs = [run for run in read_runs(default_home()) if run_id is None or run["run_id"].startswith(run_id)]
    if run_id is not None and not runs:
        raise PartsegError(f"there is no run {run_id}", where=default_home() / "runs")
    if as_json:
        print(json.dumps(runs[:last], indent=2))
    elif run_id is not None:
        _print_stages(runs[0])
    else:
        rows = [[run["run_id"], run["state"], _took(run), _stages(run)] for run in runs[:last]]
        print_table(["run", "state", "took", "stages"], rows)


def _print_stages(run: dict[str, Any]) -> None:
    rows = []
    for stage in run["stages"]:
        ended = "dead" if stage["state"] == "running" and run["state"] != "running" else stage["state"]
        why = stage.get("error") or _progress(stage) or "; ".join(stage.get("why", ()))
        rows.append([stage["stage"], ended, seconds_text(stage.get("seconds")), why])
    print_table([f"{run['recipe']} ({run['state']})", "state", "took", ""], rows)


def _progress(stage: dict[str, Any]) -> str:
    progress = stage.get("progress") if stage["state"] == "running" else None
    return f"{progress['done']}/{progress['total']} {progress['message']}" if progress else ""


def _stages(run: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for stage in run["stages"]:
        counts[stage["state"]] = counts.get(stage["state"], 0) + 1
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{text}: {run['error']}" if run.get("error") else text


def _took(run: dict[str, Any]) -> str:
    end = run.get("finished") or (run["beat"] if run["state"] == "dead" else datetime.now(UTC).isoformat())
    start = datetime.fromisoformat(run["started"])
    return seconds_text((datetime.fromisoformat(end) - start).total_seconds())
