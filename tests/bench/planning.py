"""Planning VLPart's graphs, process start included: with an empty store and with 10,000 artifacts in it.

    python -m tests.bench.planning --artifacts 10000

Makes the store in a temporary folder: every stage of both recipes has a last artifact, whose parameters
differ in part, and the rest belongs to other recipes. Each plan is a fresh process; medians of wall and CPU
time, which on a busy machine lie far apart.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from partseg.store import Action, Store
from pipelines.keys import key_parts
from pipelines.recipe import load_recipe

RECIPES = ("vlpart_swinb", "vlpart")
PLAN = "from partseg.cli import main; main()"
STAGES = 50
"""Of each of the other recipes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        start = time.perf_counter()
        fill(full, options.artifacts)
        print(f"a store of {options.artifacts} artifacts, made in {time.perf_counter() - start:.0f} s")
        plan("demo", empty)  # compiles what has not been compiled yet
        print(f"median of {options.runs} fresh processes; load of the machine {os.getloadavg()[0]:.1f}")
        for recipe in RECIPES:
            for name, home in (("empty store", empty), (f"{options.artifacts} artifacts", full)):
                runs = [plan(recipe, home) for _ in range(options.runs)]
                wall, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
                print(f"{recipe:13} {name:16} wall {wall:6.2f} s   CPU {cpu:6.2f} s")


def fill(home: Path, artifacts: int) -> None:
    """A store with that many artifacts, small ones."""
    store = Store(home / "store", cache=home / "cache")
    content = home / "content"
    content.mkdir(parents=True)
    (content / "metrics.json").write_text("{}")
    first = store.publish(_key("first"), content, parts={}, facts={"stage": "first", "size": 2})
    made = 1
    for recipe in RECIPES:
        for name, stage in load_recipe(recipe).stages.items():
            digests = dict.fromkeys(stage.needs, first.tree)
            parts = key_parts(stage.kind, stage.params, digests, _key("listing"))
            facts = {"stage": name, "kind": stage.kind.name, "size": 10**8, "seconds": 1.0}
            key = _key(f"{recipe}/{name}")
            store.commit(Action(key=key, tree=first.tree, parts=parts, facts=facts))
            store.set_ref(recipe, name, key)
            made += 1

    def add(number: int) -> None:
        key, stage = _key(str(number)), f"stage_{number % STAGES}"
        facts = {"stage": stage, "kind": "train", "size": 2, "seconds": 1.0}
        store.commit(Action(key=key, tree=first.tree, parts={"params": {"number": number}}, facts=facts))
        store.set_ref(f"recipe_{number // STAGES}", stage, key)

    with ThreadPoolExecutor(16) as pool:  # each waits for the disk
        list(pool.map(add, range(made, artifacts)))


def plan(recipe: str, home: Path) -> tuple[float, float]:
    """Wall and CPU seconds of ``partseg plan`` as a process of its own."""
    before, start = _cpu(), time.perf_counter()
    environment = {**os.environ, "PARTSEG_HOME": str(home), "PARTSEG_STORE": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAN, "plan", recipe], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
