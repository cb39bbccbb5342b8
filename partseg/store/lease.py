"""One writer per key, on any file system that can create a file exclusively.

A claim is a chain of epochs. Whoever creates ``claims/<key>/<n+1>.json`` first holds the key; epochs
are never taken away, so nobody can win the same epoch twice. The holder moves a beat in its
record. A waiter takes over when the record says released, or when the beat has not moved for ``ttl``
seconds by the waiter's own monotonic clock (clocks of two machines are never compared), or at once
when the holder is a process of this machine that is gone.

Where a file cannot be created exclusively, several may write the same epoch at once. The last one wins: all
of them wait a moment, then read whose name it bears.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from partseg.errors import StoreError
from partseg.store.files import Files

SETTLE = 2.0
"""Seconds to wait before an epoch is read back where it cannot be created exclusively: longer than it takes
from listing the epochs to writing the next one."""
TTL = 60.0
"""Seconds without a beat after which a holder counts as dead; it beats four times in that."""


class Lease:
    """Holds a key while the ``with`` block runs; waits for whoever holds it now.

    Args:
        files: where the claims lie.
        key: the key to hold.
        ttl: seconds without a beat after which another holder counts as dead.
        waiting: called once with the owner's name when somebody else holds the key.
    """

    def __init__(
        self, files: Files, key: str, *, ttl: float = TTL, waiting: Callable[[str], None] | None = None
    ) -> None:
        self.files, self.key, self.ttl, self.waiting = files, key, ttl, waiting
        self.epoch = 0
        self.lost = False
        self._owner = {**this_process(), "token": uuid.uuid4().hex}
        self._beat = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        poll, since, told = min(1.0, self.ttl / 10), time.monotonic(), False
        seen: dict[str, Any] = {}
        while True:
            epoch = self._last_epoch()
            record = self._read(epoch)
            if record != seen:
                seen, since = record, time.monotonic()
            free = record["state"] == "released" or is_gone(record["owner"])
            if free or time.monotonic() - since > self.ttl:
                if self._create(epoch + 1):
                    break
                continue
            if not told and self.waiting is not None:
                self.waiting(f"{record['owner'].get('host', '?')}:{record['owner'].get('pid', '?')}")
                told = True
            time.sleep(poll)
        self._forget_older()
        self._thread = threading.Thread(target=self._keep_beating, name=f"lease {self.key[:12]}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if not self.lost:
            with suppress(StoreError, OSError):  # the beat stops anyway, which says the same, only later
                self.files.write(self._name(self.epoch), self._record("released"))

    def check(self) -> bool:
        """Whether the key is still ours; False when we were thought dead and somebody took over."""
        self.lost = self.lost or self._last_epoch() > self.epoch or not self._is_ours(self.epoch)
        return not self.lost

    def _create(self, epoch: int) -> bool:
        won = self.files.create(self._name(epoch), self._record("held"))
        if won and not self.files.exclusive():
            time.sleep(SETTLE)
            won = self._is_ours(epoch)
        # Whoever listed the epochs long ago may create one that came and was forgotten since.
        won = won and self._last_epoch() == epoch
        self.epoch = epoch if won else 0
        return won

    def _is_ours(self, epoch: int) -> bool:
        return bool(self._read(epoch)["owner"].get("token", self._owner["token"]) == self._owner["token"])

    def _keep_beating(self) -> None:
        while not self._done.wait(self.ttl / 4):
            with suppress(StoreError, OSError):  # one beat may fail; the next one tries again
                if not self.check():
                    return
                self._beat += 1
                self.files.write(self._name(self.epoch), self._record("held"))

    def _name(self, epoch: int) -> str:
        return f"claims/{self.key}/{epoch:08d}.json"

    def _record(self, state: str) -> bytes:
        return json.dumps({"owner": self._owner, "state": state, "beat": self._beat}).encode()

    def _last_epoch(self) -> int:
        names = [name for name in self.files.children(f"claims/{self.key}") if name.endswith(".json")]
        return max((int(name.removesuffix(".json")) for name in names), default=0)

    def _read(self, epoch: int) -> dict[str, Any]:
        """The record; one that is being written at this moment reads as held by nobody known."""
        if epoch == 0:
            return {"state": "released", "owner": {}}
        return _record(self.files, self._name(epoch))

    def _forget_older(self) -> None:
        """Drop epochs that no waiter can look at any more, so that a claim stays two files."""
        for epoch in range(max(1, self.epoch - 8), self.epoch - 1):
            with suppress(StoreError, OSError):
                self.files.remove(self._name(epoch))


def held_keys(files: Files, *, silent: float = 3600.0) -> set[str]:
    """The keys that somebody holds at this moment.

    Args:
        files: where the claims lie.
        silent: seconds without a beat after which nobody does. Times of files are compared with this
            machine's clock, so it is much longer than a lease needs.
    """
    held = set()
    for found in files.walk("claims"):
        _, _, name = found.name.partition("/")
        key, slash, file = name.partition("/")
        if slash and not file.startswith(".") and found.age < silent:
            record = _record(files, found.name)
            if record["state"] == "held" and not is_gone(record["owner"]):
                held.add(key)
    return held


def _record(files: Files, name: str) -> dict[str, Any]:
    try:
        record = json.loads(files.read(name))
        return {**record, "owner": dict(record["owner"]), "state": str(record["state"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {"state": "held", "owner": {}}


@cache
def _machine() -> str:
    """This boot of this machine and its process name space; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Fields 3 (state) and 22 (starttime) of proc(5); a zombie has ended already.
    return None if fields[0] in "ZX" else fields[19]


def this_process() -> dict[str, Any]:
    """Who we are, precisely enough to tell later whether we still run."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def is_gone(owner: dict[str, Any]) -> bool:
    """True only when the owner surely was a process of this machine that no longer runs."""
    if not owner.get("machine") or owner["machine"] != _machine():
        return False
    return bool(_started(int(owner["pid"])) != owner["started"])
