"""Several processes that train one model, each on its share of the batches of an iteration.

Gradients are averaged after the last batch of an iteration, in a few large pieces, instead of during the
backward pass as torch's DistributedDataParallel does. So any number of batches may lie behind one update, a
parameter counts as used when any batch of any process used it (the datasets of a training use different
heads), and the model stays the plain module whose tensors are saved. What is given up, the overlap of
communication and backward pass, is small: the gradients of an R50 are about 0.2 GB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partseg.errors import PartsegError

T = TypeVar("T")

PIECE = 16 * 2**20
"""Numbers that travel at once, 64 MB of float32: large enough for full bandwidth."""

# Others wait this long for a process that scores a validation or writes a checkpoint.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes of a training, seen from one of them. One alone talks to nobody.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        local_rank: number of this process on its machine: the GPU it uses.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def share_of(self, count: int) -> range:
        """The numbers below ``count`` that are this process's to do."""
        return range(self.rank, count, self.world)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag: has it any process set?"""
        if self.world == 1:
            return flags
        values = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values.tolist())

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """The value of process 0."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def together(self, work: Callable[[], T]) -> T:
        """Do ``work``; where it fails in one process, all of them fail with that error.

        Raises:
            PartsegError: what the first of the failing processes raised.
        """
        result: list[T] = []
        error: PartsegError | None = None
        try:
            result.append(work())
        except PartsegError as raised:
            error = raised
        if any(self.any(error is not None)):
            raise next(one for one in self.gather(error) if one is not None)
        return result[0]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes. All of one dtype and device."""
        if self.world > 1:
            self._in_pieces(tensors, lambda flat: dist.all_reduce(flat, async_op=True))

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of process 0."""
        if self.world == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            self._in_pieces(same, lambda flat: dist.broadcast(flat, src=0, async_op=True))

    def _in_pieces(self, tensors: Sequence[Tensor], send: Callable[[Tensor], Any]) -> None:
        pieces = [
            (piece, torch.cat([tensor.detach().reshape(-1) for tensor in piece]))
            for piece in _pieces(tensors, PIECE)
        ]
        for handle in [send(flat) for _, flat in pieces]:
            handle.wait()
        for piece, flat in pieces:
            sizes = [tensor.numel() for tensor in piece]
            for tensor, values in zip(piece, torch.split(flat, sizes), strict=True):
                tensor.detach().copy_(values.view(tensor.shape))


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes ``torchrun`` started, connected; this one alone where it started none.

    They talk by gloo, and about tensors on GPUs by nccl. Reads RANK, WORLD_SIZE and LOCAL_RANK.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if world > 1:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
    processes = Processes(rank=rank, world=world, local_rank=local)
    try:
        yield processes
    except PartsegError:  # all have it, see Processes.together; after anything else the others may hang
        _leave(world)
        raise
    _leave(world)


def average_gradients(parameters: Sequence[nn.Parameter], processes: Processes) -> None:
    """Add up the gradients of all processes; each has divided its losses by the number of all batches.

    A parameter that no batch used keeps no gradient, so that the optimiser leaves it alone, however many
    processes there are.
    """
    used = processes.any(*(parameter.grad is not None for parameter in parameters))
    chosen = [p for p, is_used in zip(parameters, used, strict=True) if is_used]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    processes.sum_([parameter.grad for parameter in chosen if parameter.grad is not None])


class RunningStatistics:
    """Means and variances of batch norms after an iteration: the mean of what its batches made of them.

    Every batch starts from the values before the iteration, so that the result does not depend on how many
    processes share the batches. Frozen batch norms have no statistics that run.

    Args:
        model: whose batch norms are looked after.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.buffers = [b for norm in norms for b in norm.buffers(recurse=False)]
        self.before: list[Tensor] = []
        self.sums: list[Tensor] = []

    def begin(self) -> None:
        """An iteration starts."""
        self.before = [buffer.clone() for buffer in self.buffers]
        self.sums = [torch.zeros_like(buffer) for buffer in self.buffers]

    def rewind(self) -> None:
        """The next batch starts, or the iteration will not be finished."""
        for buffer, before in zip(self.buffers, self.before, strict=True):
            buffer.copy_(before)

    def collect(self) -> None:
        """The batch went forward; its backward pass may do so again, to compute activations anew."""
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            total.add_(buffer)

    def end(self, batches: int, processes: Processes) -> None:
        """All batches went forward and backward."""
        for kind in dict.fromkeys(total.dtype for total in self.sums):
            processes.sum_([total for total in self.sums if total.dtype == kind])
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            buffer.copy_(total / batches)


def _leave(world: int) -> None:
    if world > 1:
        dist.destroy_process_group()


def _pieces(tensors: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    piece: list[Tensor] = []
    count = 0
    for tensor in tensors:
        if piece and count + tensor.numel() > size:
            yield piece
            piece, count = [], 0
        piece.append(tensor)
        count += tensor.numel()
    if piece:
        yield piece
