"""What the parser's options do: precision and recall of parsed boxes in the demo's world.

    python -m tests.bench.parse_options --seeds 0 1 2

For every seed a new world is made, and its base model and descriptors are trained. Then the photos of novel
objects, which go to transfer, are parsed once per row of the table, from the published rules onwards, each
row changing one thing. A parsed box is right if it overlaps a true part of its name by at least half.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import Any

from partseg.cli.parse_inputs import ParseStage, truth_of
from partseg.evaluation.parse_audit import audit_parse
from partseg.evaluation.parse_quality import Tally
from pipelines.parse import Params
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace

PUBLISHED: dict[str, Any] = {"confirmed_by": "box", "nms_iou": 0.3, "match_iou": 0.3, "neighbours": 1}
DETECTION: dict[str, Any] = {"confirmed_by": "detection", "nms_iou": 0.3, "match_iou": 0.1, "neighbours": 1}
VOTED = {**DETECTION, "neighbours": 5}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "published": PUBLISHED,
    "confirmed_by: detection, match_iou: 0.1": DETECTION,
    "... neighbours: 5 (the demo)": VOTED,
    "... neighbours: 9": {**VOTED, "neighbours": 9},
    "... neighbours: 5, vote_share: 0.3": {**VOTED, "vote_share": 0.3},
    "... neighbours: 5, mutual_within: 3": {**VOTED, "mutual_within": 3},
    "... neighbours: 5, confirming_score: 0.4": {**VOTED, "confirming_score": 0.4},
    "... neighbours: 5, min_confidence: 0.2": {**VOTED, "min_confidence": 0.2},
    "... neighbours: 5, images_per_class: 20": {**VOTED, "images_per_class": 20},
    "... neighbours: 9, confirming_score: 0.1, match_iou: 0": {
        **VOTED,
        "neighbours": 9,
        "confirming_score": 0.1,
        "match_iou": 0.0,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base-iterations", type=int, help="train the base model for longer than the demo")
    parser.add_argument("--home", type=Path, help="folder to keep, so that a second call goes on from it")
    options = parser.parse_args()
    print(
        f"{'transferred parts':56}"
        + "".join(f"{f'seed {seed}':>16}" for seed in options.seeds)
        + f"{'mean':>16}"
    )
    with nullcontext(options.home) if options.home else tempfile.TemporaryDirectory() as folder:
        for name, changes in VARIANTS.items():
            tallies = [
                audited(seed, changes, options.base_iterations, Path(folder)) for seed in options.seeds
            ]
            shares = [(tally.precision or 0.0, tally.recall or 0.0) for tally in tallies]
            shares.append((mean(p for p, _ in shares), mean(r for _, r in shares)))
            cells = "".join(f"{f'P {100 * p:.1f} R {100 * r:.1f}':>16}" for p, r in shares)
            print(f"{name:56}{cells}", flush=True)


def audited(seed: int, changes: Mapping[str, Any], iterations: int | None, home: Path) -> Tally:
    """Parse a world's photos, and count the right ones among the parts that were transferred."""
    overrides = {
        "raw_parts.synthetic.seed": seed,
        "raw_photos.synthetic.seed": seed,
        "descriptors.training.seed": seed,
        "base.seed": seed,
        **{f"parsed.parser.{name}": value for name, value in changes.items()},
    }
    if iterations is not None:
        steps = [round(iterations * share) for share in (0.75, 0.92)]
        overrides |= {"base.schedule.iterations": iterations, "base.schedule.steps": steps}
    recipe = load_recipe("demo", overrides=overrides)
    workspace, until = Workspace.open(home=home, store=str(home / "store")), Selection(until=("parsed",))
    run_recipe(make_plan(recipe, workspace, until), workspace)
    params = recipe.stages["parsed"].params
    assert isinstance(params, Params)
    plan = make_plan(recipe, workspace, Selection(only=("parsed",)))
    stage = ParseStage(name="parsed", params=params, plan=plan, store=workspace.store)
    parsed = stage.parsed()
    with truth_of(stage, None, params.split) as truth:
        known = truth.dataset.split(truth.split)
        audit = audit_parse(parsed.split(params.split), parsed.categories, known, truth.dataset.categories)
    return audit.quality.paths["transfer"]


if __name__ == "__main__":
    main()
