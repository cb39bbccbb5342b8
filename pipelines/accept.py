"""Bless an existing artifact: a stage's version or parameters changed, its result did not."""

from __future__ import annotations

from dataclasses import replace

from partseg.errors import RecipeError, StoreError
from partseg.store import Action
from pipelines.keys import key_of, key_parts
from pipelines.manifest import now
from pipelines.plan import make_plan
from pipelines.problems import suggestion
from pipelines.raw import listing_digest
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace


def accept_last(recipe: Recipe, stage: str, workspace: Workspace) -> Action:
    """Commit the last artifact of a stage under its present key as well; the record says so.

    Raises:
        RecipeError: there is no such stage, or its inputs are not known yet.
        StoreError: there is nothing to accept.
    """
    if stage not in recipe.stages:
        raise RecipeError(f"there is no stage {stage}", fix=suggestion(stage, list(recipe.stages)))
    store, plan = workspace.store, make_plan(recipe, workspace)
    row = plan.row(stage)
    if row.state == "cached":
        raise StoreError(f"stage {stage} is up to date already")
    if row.state == "blocked" or any(plan.row(name).digest is None for name in row.needs):
        raise RecipeError(
            f"the inputs of {stage} are not known yet", fix="accept or run the stages before it"
        )
    key = store.ref(recipe.label, stage)
    last = None if key is None else store.lookup(key)
    if last is None:
        raise StoreError(f"no artifact of {stage} is in the store", where=store.url)
    digests = {name: str(plan.row(name).digest) for name in row.needs}
    listing = plan.listings.get(stage)
    chosen = recipe.stages[stage]
    parts = key_parts(
        chosen.kind, chosen.params, digests, None if listing is None else listing_digest(listing)
    )
    facts = {**last.facts, "accepted": {"key": last.key, "parts": dict(last.parts), "when": now()}}
    action = store.commit(replace(last, key=key_of(parts), parts=parts, facts=facts))
    store.set_ref(recipe.label, stage, action.key)
    return action
