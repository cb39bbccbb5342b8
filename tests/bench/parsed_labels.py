"""Do parsed labels help? The demo's ablation over several seeds, worlds and weights alike.

    python -m tests.bench.parsed_labels --seeds 0 1 2

For every seed a new world is made, and five models are trained: the base model, and four that go on from it
for equally long: without the photos, with their labels, with their parsed parts as VLPart learns from them,
and with these as if they were true boxes and masks. Prints mask AP50 in percent on the held-out images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace

MODELS = ("base", "without_parsed", "with_label", "with_parsed", "with_masks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    rows = []
    print(f"{'seed':6}{'group':7}" + "".join(f"{name:>16}" for name in MODELS) + f"{'parsed - without':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            measured = ablation(seed, Path(folder))
            rows.append(measured)
            for group in ("novel", "base"):
                show(str(seed), group, [measured[model, group] for model in MODELS])
    for group in ("novel", "base"):
        show("mean", group, [statistics.mean(row[model, group] for row in rows) for model in MODELS])


def ablation(seed: int, home: Path) -> dict[tuple[str, str], float]:
    """Mask AP50 of each model on base and on novel parts, percent."""
    overrides = {
        "raw_parts.synthetic.seed": seed,
        "raw_photos.synthetic.seed": seed,
        "descriptors.training.seed": seed,
        **{f"{stage}.seed": seed for stage in MODELS},
    }
    workspace = Workspace.open(home=home, store=str(home / "store"))
    plan = make_plan(load_recipe("demo_ablation", overrides=overrides), workspace, Selection())
    results = run_recipe(plan, workspace).results
    return {
        (model, group): 100 * results[f"eval_{model}"].metrics[f"segm/{group}/AP50"]
        for model in MODELS
        for group in ("novel", "base")
    }


def show(seed: str, group: str, values: list[float]) -> None:
    cells = "".join(f"{value:16.1f}" for value in values)
    print(f"{seed:6}{group:7}{cells}{values[3] - values[1]:+18.1f}", flush=True)


if __name__ == "__main__":
    main()
