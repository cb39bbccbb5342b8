"""Every recipe and every source as a deployment: ``python -m flows.deploy`` puts them on a process pool.

Then ``prefect worker start --pool partseg`` runs them, on this machine or another that has partseg
installed and reaches the same store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

POOL = "partseg"


def deployments(workspace: Workspace, *, for_pool: bool) -> Iterator[RunnerDeployment]:
    """One deployment per recipe, and one per source to convert.

    Paths are settled here: a worker runs flows in a folder of its own.

    Args:
        workspace: store, home and workers of the runs.
        for_pool: the runs go to a pool's worker, which needs to be told the folder to run in.
    """
    from prefect.types.entrypoint import EntrypointType

    from flows.convert import convert
    from flows.reproduce import reproduce
    from partseg.datasets.catalogue import SOURCES
    from pipelines.recipe import load_recipe, recipe_names

    folder = {"working_dir": str(Path.cwd())} if for_pool else None
    for name in recipe_names():
        recipe = load_recipe(name)
        made: Any = reproduce.to_deployment(
            name=name,
            parameters={
                "recipe": name,
                "store": workspace.store.url,
                "home": str(workspace.home),
                "workers": workspace.workers,
            },
            description=recipe.description or None,
            tags=["partseg", *recipe.tags],
            job_variables=folder,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        yield made
    for source in sorted(SOURCES):
        made = convert.to_deployment(
            name=source,
            parameters={"source": source, "workers": workspace.workers},
            description=f"Raw files of {source} to the common layout.",
            tags=["partseg", "convert"],
            job_variables=folder,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        yield made


def make_pool(name: str) -> None:
    """A process pool called ``name``, unless there is one."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        except ObjectAlreadyExists:
            return


def main(
    pool: Annotated[str, typer.Option(help="Name of the process pool; made if missing.")] = POOL,
    store: Annotated[str | None, typer.Option(help="Folder or URL of the store.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes each stage may start.")] = 0,
) -> None:
    """Deploy every recipe and every source. The server is the one in PREFECT_API_URL."""
    from flows.settings import apply

    workspace = Workspace.open(store=store, workers=workers)
    apply(workspace.home, logging_level="INFO")
    from prefect import deploy

    make_pool(pool)
    made = list(deployments(workspace, for_pool=True))
    deploy(
        *made,
        work_pool_name=pool,
        build=False,
        push=False,
        ignore_warnings=True,
        print_next_steps_message=False,
    )
    typer.echo(f"prefect worker start --pool {pool}")
    typer.echo(f"prefect deployment run reproduce/{made[0].name} --watch")


if __name__ == "__main__":
    typer.run(main)
