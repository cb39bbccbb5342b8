"""Artifacts and the raw files behind them, laid out on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from partseg.store import Store
from pipelines.artifact import Artifact, RawRoots
from pipelines.graph import ancestors
from pipelines.plan import Plan


def laid_out(plan: Plan, store: Store, name: str, *, key: str, digests: Mapping[str, str | None]) -> Artifact:
    """The artifact of a stage.

    Args:
        plan: that the stage is of.
        store: has the artifact.
        name: of the stage.
        key: what the artifact was made from.
        digests: of the artifacts of this stage and of those above it; None where there is none.
    """
    digest = digests[name]
    assert digest is not None, f"{name} has no artifact"
    raw = _raw_roots(plan, store, name, digests)
    return Artifact(stage=name, key=key, digest=digest, path=store.materialise(digest), raw=raw)


def _raw_roots(plan: Plan, store: Store, stage: str, digests: Mapping[str, str | None]) -> RawRoots:
    """Folders of the raw sources above a stage; those that a stage made are laid out."""
    roots = RawRoots()
    for name in sorted(ancestors(plan.recipe.needs, [stage])):
        params = plan.recipe.stages[name].params
        source = params.raw_source()
        if source is None:
            continue
        digest = digests[name]
        if params.raw_files() is None and digest is not None:
            roots[source] = store.materialise(digest) / "files"
        elif source in plan.raw:
            roots[source] = plan.raw[source]
    return roots
