"""Evaluation in several processes: on one machine over chunks of images, and over ranks of a training.

States are small (a few numbers per image), so they are sent whole and put together by their ``merge``.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

from partseg.errors import PartsegError


class Mergeable(Protocol):
    """A state of an evaluation."""

    def merge(self, other: Any) -> Any:
        """Both together; neither changes."""


CHUNK = 64
"""Images that a process takes at a time."""

State = TypeVar("State", bound=Mergeable)


def merged(states: Iterable[State]) -> State:
    """All states together.

    Raises:
        ValueError: there is none, or they do not belong together.
    """
    items = list(states)
    if not items:
        raise ValueError("there is no state to merge")
    whole: Any = items[0]
    for item in items[1:]:
        whole = whole.merge(item)
    return cast(State, whole)


def in_chunks(
    function: Callable[[Sequence[int]], State], indices: Sequence[int], *, workers: int = 0
) -> State:
    """The state over all ``indices``, of this process or of several.

    Args:
        function: gives the state over some of them; with workers, it and its state have to pickle.
        indices: of images.
        workers: further processes; 0 to use none.

    Raises:
        PartsegError: a process died; and what ``function`` raises.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    if workers <= 0 or len(chunks) < 2:
        return function(indices)
    with process_pool(min(workers, len(chunks))) as pool:
        return merged(pool.map(function, chunks))


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Further processes for an evaluation.

    Raises:
        PartsegError: one of them died.
    """
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise PartsegError(
                "a process of the evaluation was killed, or did not start",
                fix="lower the number of workers, or free memory; a script must call this under "
                "if __name__ == '__main__'",
            ) from error


def share(indices: Sequence[int], rank: int, world: int) -> Sequence[int]:
    """The images of one of ``world`` ranks: every one belongs to exactly one rank."""
    return indices[rank::world]


def gathered(state: State) -> State:
    """The states of all ranks of ``torch.distributed`` together, on every rank; alone, the state itself."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return state
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return cast(State, merged(states))
