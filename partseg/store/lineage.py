"""From an artifact to those it was made from: an artifact names its inputs by their content."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from partseg.store.records import Action
from partseg.store.store import Store


class Producers:
    """Finds the records of what an artifact was made from; reads as few others as it can."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Action | None] = {}
        self._by_content: dict[str, list[Action]] | None = None

    def of(self, action: Action, stage: str, *, above: Collection[str] = ()) -> Action | None:
        """The record of one input; None if the store has it no more.

        Two artifacts may have the same content. The one that the record names by its key comes first, then
        the last one of that stage in the same recipe, then the last one made before ``action``. Those under
        the keys ``above`` were made from this input themselves.
        """
        digest = action.inputs[stage]
        named = action.facts.get("input_keys", {}).get(stage)
        ref = self.store.ref(str(action.facts.get("recipe")), stage)
        for key in (named, ref):
            found = self._action(key) if key else None
            if found is not None and found.tree == digest and found.key not in above:
                return found
        same = [other for other in self._made().get(digest, []) if other.key not in above]
        return max(
            same,
            key=lambda other: (
                other.facts.get("stage") == stage,
                other.finished <= action.finished,
                other.finished,
                other.key,
            ),
            default=None,
        )

    def _action(self, key: str) -> Action | None:
        if key not in self._known:
            self._known[key] = self.store.action(key)
        return self._known[key]

    def _made(self) -> dict[str, list[Action]]:
        if self._by_content is None:
            self._by_content = {}
            for action in self.store.actions():
                self._by_content.setdefault(action.tree, []).append(action)
        return self._by_content


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An artifact in a lineage.

    Attributes:
        stage: what it is called by the one made from it.
        digest: of its content.
        action: its record; None if the store has it no more.
        inputs: what it was made from.
    """

    stage: str
    digest: str
    action: Action | None
    inputs: tuple[Node, ...] = ()

    @property
    def name(self) -> tuple[str, str]:
        """What tells it from others: its content, and what that was made from as far as it is known."""
        return self.digest, self.action.key if self.action else ""

    def walk(self) -> list[Node]:
        """This one and all it was made from, each once, inputs before what is made of them."""
        found: dict[tuple[str, str], Node] = {}

        def visit(node: Node) -> None:
            if node.name not in found:
                for other in node.inputs:
                    visit(other)
                found.setdefault(node.name, node)

        visit(self)
        return list(found.values())


def lineage(store: Store, action: Action, *, producers: Producers | None = None) -> Node:
    """An artifact with everything it was made from, down to what was made from nothing."""
    producers = producers or Producers(store)
    done: dict[tuple[str, str], Node] = {}

    def node(stage: str, digest: str, made: Action | None, above: frozenset[str]) -> Node:
        name = (digest, made.key if made else "")
        if name not in done:
            inputs = []
            if made is not None:
                for other in made.inputs:
                    found = producers.of(made, other, above=above | {made.key})
                    inputs.append(node(other, made.inputs[other], found, above | {made.key}))
            done[name] = Node(stage=stage, digest=digest, action=made, inputs=tuple(inputs))
        return done[name]

    return node(str(action.facts.get("stage", "")), action.tree, action, frozenset())


def chain(store: Store, actions: Iterable[Action]) -> dict[str, Action]:
    """Key -> record of ``actions`` and of all they were made from, inputs first."""
    producers = Producers(store)
    found: dict[str, Action] = {}
    for action in actions:
        for node in lineage(store, action, producers=producers).walk():
            if node.action is not None:
                found.setdefault(node.action.key, node.action)
    return found


__all__ = ["Node", "Producers", "chain", "lineage"]
