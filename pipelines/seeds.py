"""The same recipe from another seed: as many independent repetitions as a comparison needs."""

from __future__ import annotations

from dataclasses import replace

from partseg.errors import RecipeError
from pipelines.recipe import Recipe


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with ``seed`` in every training: data and everything else that is no training stay shared.

    Raises:
        RecipeError: the seed is negative, or nothing in the recipe trains.
    """
    if seed < 0:
        raise RecipeError(f"the seed {seed} is negative", where=recipe.label, fix="give 0 or more")
    changed = {
        name: replace(stage, params=stage.params.model_copy(update={"seed": seed}))
        for name, stage in recipe.stages.items()
        if stage.kind.name == "train"
    }
    if not changed:
        raise RecipeError("there is no training that a seed could change", where=recipe.label)
    return replace(recipe, stages={**recipe.stages, **changed})
