"""The data of a recipe's train stage, as its training would read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from partseg.cli import options
from partseg.errors import RecipeError

if TYPE_CHECKING:
    from partseg.training.config import AugmentConfig
    from partseg.training.job import JobSource


def stage_sources(
    recipe: str, stage: str, profile: str | None, raw: Sequence[str] | None, store: str | None
) -> tuple[tuple[JobSource, ...], AugmentConfig]:
    """Datasets and image changes of a train stage whose inputs are in the store.

    Raises:
        RecipeError: there is no such stage, or it does not train.
        MissingArtifact: an input is not in the store.
    """
    from pipelines.artifact import StageContext
    from pipelines.laid_out import laid_out
    from pipelines.plan import Selection, make_plan
    from pipelines.train import Params, job_of

    workspace = options.open_workspace(store=store, raw=raw, workers=0)
    loaded = options.read_recipe(recipe, profile, None)
    trainings = [name for name, one in loaded.stages.items() if isinstance(one.params, Params)]
    if stage not in trainings:
        raise RecipeError(
            f"no stage {stage} that trains", where=loaded.path, fix=f"there are: {', '.join(trainings)}"
        )
    plan = make_plan(loaded, workspace, Selection(only=(stage,)))
    params = loaded.stages[stage].params
    assert isinstance(params, Params)
    digests = {row.stage: row.digest for row in plan.rows}
    inputs = {
        name: laid_out(plan, workspace.store, name, key=plan.row(name).key or "", digests=digests)
        for name in loaded.stages[stage].needs
    }
    nowhere = Path()
    job = job_of(params, inputs, nowhere, StageContext(work=nowhere), processes=1)
    return job.sources, job.train.augment
