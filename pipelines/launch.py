"""How many processes train or parse, on how many machines, and the commands that start them."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from partseg.errors import RecipeError, TrainingError

Processes = int | Literal["auto"]

PROCESSES, NODES, RENDEZVOUS = "PARTSEG_PROCESSES", "PARTSEG_NODES", "PARTSEG_RENDEZVOUS"
TRAINING = "partseg.training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Where trainings and parses run. It changes a training by no more than rounding, and a parse not at all.

    Attributes:
        processes: on this machine; ``auto`` is one per GPU, fewer where the schedule's batches do not divide
            evenly, and one without a GPU; 0 trains in the process of the run itself, which saves some seconds
            of starting and cannot be stopped as cleanly. With 1, a parse stays in that process, too.
        nodes: machines that train. Each runs as many processes, and sees the home folder and the raw data
            under the same paths. A parse runs on this one.
        rendezvous: ``host:port`` of this machine, where the others find it.

    Raises:
        RecipeError: the numbers make no sense together.
    """

    processes: Processes = 1
    nodes: int = 1
    rendezvous: str | None = None

    def __post_init__(self) -> None:
        if self.processes != "auto" and self.processes < 0:
            raise RecipeError(f"{self.processes} processes cannot train", fix="give 0, 1, more, or auto")
        if self.nodes < 1:
            raise RecipeError(f"{self.nodes} nodes cannot train", fix="give 1 or more")
        if self.rendezvous is not None and not re.fullmatch(r"[^\s:/]+:\d{1,5}", self.rendezvous):
            raise RecipeError(f"the rendezvous {self.rendezvous!r} is not understood", fix="write HOST:PORT")
        if self.nodes > 1 and self.rendezvous is None:
            raise RecipeError(
                "several nodes need a place to meet", fix="give --rendezvous HOST:PORT, of this machine"
            )
        if self.nodes > 1 and self.processes == 0:
            raise RecipeError("several nodes need processes of their own", fix="give --processes 1 or more")

    @classmethod
    def choose(
        cls,
        processes: Processes | None = None,
        nodes: int | None = None,
        rendezvous: str | None = None,
    ) -> Launch:
        """What is given, before ``$PARTSEG_PROCESSES``, ``_NODES`` and ``_RENDEZVOUS``, before the defaults.

        Raises:
            RecipeError: a variable is not a number, or the numbers make no sense together.
        """
        if processes is None:
            processes = parse_processes(os.environ.get(PROCESSES) or "1", where=PROCESSES)
        if nodes is None:
            nodes = _number(os.environ.get(NODES) or "1", where=NODES)
        rendezvous = rendezvous or os.environ.get(RENDEZVOUS) or None
        return cls(processes=processes, nodes=nodes, rendezvous=rendezvous)

    def here(self, batches: int) -> int:
        """How many processes of this machine share the ``batches`` of an update.

        Raises:
            TrainingError: they cannot be shared evenly.
        """
        tried = range(max(1, gpus()), 0, -1) if self.processes == "auto" else [self.processes]
        for processes in tried:
            if processes == 0 or batches % (processes * self.nodes) == 0:
                return processes
        number = f"{tried[-1]} processes on {self.nodes} machine(s)"
        raise TrainingError(
            f"{batches} batches of an update cannot be shared by {number}",
            fix=f"give --processes and --nodes whose product divides {batches}, or change schedule.batches",
        )

    def sharing(self) -> int:
        """How many processes share work of which each does its part alone; 0 leaves it to this one.

        A single one beside this one would only take some seconds to start.
        """
        processes = gpus() if self.processes == "auto" else self.processes
        return processes if processes > 1 else 0


def parse_processes(text: str, *, where: str) -> Processes:
    """A number or ``auto``.

    Raises:
        RecipeError: it is neither; ``where`` is who said so.
    """
    return "auto" if text == "auto" else _number(text, where=where, also=" or auto")


def training_command(job: Path, processes: int, launch: Launch, *, node: int | str = 0) -> list[str]:
    """What starts a training on one machine.

    Args:
        job: the job file.
        processes: how many on this machine.
        launch: for the other machines.
        node: which of the machines this is, counted from 0.
    """
    training = ["-m", TRAINING, str(job)]
    if launch.nodes == 1 and processes == 1:
        return [sys.executable, *training]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    if launch.nodes == 1:
        # The address, so that nobody asks for this machine's name where no name server answers.
        return [*torchrun, "--standalone", "--local-addr", "127.0.0.1", *training]
    host, _, port = str(launch.rendezvous).rpartition(":")
    place = ["--node-rank", str(node), "--master-addr", host, "--master-port", port]
    return [*torchrun, "--nnodes", str(launch.nodes), *place, *training]


def gpus() -> int:
    """How many NVIDIA GPUs this process may use. Looks at device files: torch would take seconds to load.

    Windows' Linux has one file for all of them, which counts as one.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # As the driver reads the list: it ends at the first name that is none.
        return next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    found = sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))
    return found or int(Path("/dev/dxg").exists())


def _number(text: str, *, where: str, also: str = "") -> int:
    if not text.isdecimal():
        raise RecipeError(f"{text!r} is not understood", where=where, fix=f"give a number{also}")
    return int(text)
