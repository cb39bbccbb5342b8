"""``python -m flows.deploy``: every recipe and every source as a deployment on a work pool.

By default that is a process pool, on which ``prefect worker start --pool partseg`` runs them, on this machine
or another that has partseg installed and reaches the same store. Recipes that train wait in the queue
``gpu``, which lets one run through at a time; everything else is in ``cpu``. See docs/operations.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from partseg.cli.options import parse_raw
from partseg.errors import PartsegError, RecipeError
from pipelines.launch import parse_processes
from pipelines.workspace import Workspace

POOL, PROCESS, IMAGE_TYPES = "partseg", "process", ("docker", "kubernetes")


def make_pool(name: str, kind: str = PROCESS) -> str:
    """A work pool called ``name``, unless there is one; returns its type."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            return client.create_work_pool(WorkPoolCreate(name=name, type=kind)).type
        except ObjectAlreadyExists:
            return client.read_work_pool(name).type


def make_queue(pool: str, name: str, *, at_once: int | None = None, description: str = "") -> None:
    """A queue of a pool, with the number of runs it lets through at the same time (None: any)."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_queue(
                name=name, work_pool_name=pool, concurrency_limit=at_once, description=description
            )
        except ObjectAlreadyExists:
            queue = client.read_work_queue_by_name(name, work_pool_name=pool)
            client.update_work_queue(queue.id, concurrency_limit=at_once)


def parse_schedules(texts: Sequence[str]) -> dict[str, str]:
    """``["vlpart_r50_voc=0 22 * * 5"]`` as a mapping.

    Raises:
        RecipeError: it is not a name and a cron line of five fields.
    """
    found = {}
    for text in texts:
        name, equals, line = text.partition("=")
        if not equals or len(line.split()) != 5:
            raise RecipeError(
                f"--schedule {text} is not understood", fix="write --schedule 'RECIPE=0 22 * * 5' (UTC)"
            )
        found[name] = line
    return found


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes and sources. (Default: all.)")
    ] = None,
    pool: Annotated[str, typer.Option(help="Name of the work pool; made if missing.")] = POOL,
    kind: Annotated[str, typer.Option("--type", help="Type of a pool that is made.")] = PROCESS,
    image: Annotated[str | None, typer.Option(help="Image, for pools that run containers.")] = None,
    queue: Annotated[
        str | None, typer.Option(help="One queue for everything, instead of gpu and cpu.")
    ] = None,
    gpu_queue: Annotated[str, typer.Option(help="Queue of the recipes that train.")] = "gpu",
    cpu_queue: Annotated[str, typer.Option(help="Queue of everything else.")] = "cpu",
    trainings: Annotated[
        int, typer.Option(min=1, help="Runs that the GPU queue lets through at once: one per GPU machine.")
    ] = 1,
    profile: Annotated[str | None, typer.Option(help="Profile of every recipe.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder or URL of the store.")] = None,
    raw: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE=DIR", help="Folder with the raw files of a source.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes each stage may start.")] = 0,
    processes: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Processes that train; auto is one per GPU.")
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Workers use their own PARTSEG_HOME and PARTSEG_STORE.")
    ] = False,
    schedule: Annotated[
        list[str] | None, typer.Option(metavar="RECIPE=CRON", help="Also run it regularly (UTC).")
    ] = None,
) -> None:
    """Register recipes and sources on the server of PREFECT_API_URL; again, it brings them up to date."""
    from flows.deployments import Settings
    from flows.settings import apply

    workspace = Workspace.open(store=store, raw=parse_raw(raw), workers=workers)
    apply(workspace.home, logging_level="INFO")
    settings = Settings(
        workspace=workspace,
        remote=remote or image is not None,
        store=store,
        profile=profile,
        processes=None if processes is None else parse_processes(processes, where="--processes"),
        queues=(queue, queue) if queue is not None else (gpu_queue, cpu_queue),
        folder=None if remote or image is not None else Path.cwd(),
        schedules=parse_schedules(schedule or ()),
    )
    _register(settings, names or (), pool, kind, image, None if queue is not None else trainings)


def _register(
    settings: object,
    names: Sequence[str],
    pool: str,
    kind: str,
    image: str | None,
    trainings: int | None,
) -> None:
    from prefect import deploy

    from flows.deployments import Settings, deployments

    assert isinstance(settings, Settings)
    made = list(deployments(settings, names))
    kind = make_pool(pool, kind)
    if (kind in IMAGE_TYPES) != (image is not None):
        runs = "containers: give --image" if image is None else "no containers: leave out --image"
        raise RecipeError(f"the pool {pool} is of type {kind}", fix=f"it runs {runs}")
    gpu, cpu = settings.queues or ("default", "default")
    if gpu == cpu:
        make_queue(pool, gpu)
    else:
        make_queue(pool, gpu, at_once=trainings, description="recipes that train")
        make_queue(pool, cpu, description="everything else")
    deploy(
        *made,
        work_pool_name=pool,
        image=image,
        build=False,
        push=False,
        ignore_warnings=True,
        print_next_steps_message=False,
    )
    queues = f" --work-queue {gpu} --limit 1" if gpu != cpu else f" --work-queue {gpu}"
    typer.echo(f"{len(made)} deployments on the pool {pool}; start a worker for each queue, or one for all:")
    typer.echo(f"  prefect worker start --pool {pool}{queues}")
    if gpu != cpu:
        typer.echo(f"  prefect worker start --pool {pool} --work-queue {cpu}")
    typer.echo(f"  prefect deployment run {made[0].flow_name}/{made[0].name} --watch")


if __name__ == "__main__":
    try:
        typer.run(main)
    except PartsegError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
