"""The graph of stages: who needs whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from partseg.errors import RecipeError

Needs = Mapping[str, Sequence[str]]
"""Stage name -> names of the stages it needs. Every name is a key."""


def order(needs: Needs) -> tuple[str, ...]:
    """The stages, each after those it needs, otherwise in the order given.

    Raises:
        RecipeError: the stages need each other in a circle.
    """
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise RecipeError(f"stages need each other in a circle: {' -> '.join(error.args[1])}") from None
    ordered: dict[str, None] = {}

    def visit(stage: str) -> None:
        if stage not in ordered:
            for other in needs[stage]:
                visit(other)
            ordered[stage] = None

    for stage in needs:
        visit(stage)
    return tuple(ordered)


def ancestors(needs: Needs, stages: Iterable[str]) -> frozenset[str]:
    """``stages`` and everything they are made from."""
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting.extend(needs[stage])
    return frozenset(found)


def descendants(needs: Needs, stages: Iterable[str]) -> frozenset[str]:
    """``stages`` and everything that is made from them."""
    users: dict[str, list[str]] = {stage: [] for stage in needs}
    for stage, others in needs.items():
        for other in others:
            users[other].append(stage)
    return ancestors(users, stages)
