"""``partseg data check``: every rule over one dataset or several."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from partseg.cli.bar import Bar
from partseg.cli.tables import print_table

SHOWN = 3
"""Cases printed per rule."""


class FailOn(StrEnum):
    """From which severity on a check fails."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


def check(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DATASET_DIR...", help="Folders with a dataset.json.")
    ],
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Folder with the raw files of the images, for --html.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Files, ids, links, labels and boxes only: decode no mask.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with the worst cases drawn.")
    ] = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", help="Also write every case to this parquet file.")
    ] = None,
    fail_on: Annotated[FailOn, typer.Option("--fail-on", help="What makes the exit code not 0.")] = (
        FailOn.ERROR
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check datasets against every rule of the layout, and for photos shared by training and evaluation.

    Exit code 2 where there are errors, 1 where there are warnings and --fail-on is warning, else 0.
    """
    from partseg.layout import Dataset
    from partseg.layout.checks import check as run
    from partseg.layout.checks import names

    datasets = [Dataset.open(folder, image_root=raw) for folder in folders]
    with Bar("annotations") as bar:
        cases = run(datasets, quick=quick, report=bar)
    if findings is not None:
        _write_parquet(cases, findings)
    if html is not None:
        from partseg.report.check_page import write_check_page

        write_check_page(dict(zip(names(datasets), datasets, strict=True)), cases, html)
    rules = _by_rule(cases)
    totals = {
        severity: sum(rule["cases"] for rule in rules.values() if rule["severity"] == severity)
        for severity in ("error", "warning", "note")
    }
    if as_json:
        print(json.dumps({f"{severity}s": number for severity, number in totals.items()} | {"rules": rules}))
    else:
        _print(rules, totals, folders)
    if totals["error"] and fail_on is not FailOn.NEVER:
        raise typer.Exit(2)
    if totals["warning"] and fail_on is FailOn.WARNING:
        raise typer.Exit(1)


def _by_rule(cases: Any) -> dict[str, dict[str, Any]]:
    """Severity, meaning, number of cases and the worst of them, by rule, errors first."""
    import pyarrow.compute as pc

    from partseg.layout.checks import RULES

    counts = {row["values"]: row["counts"] for row in pc.value_counts(cases["rule"]).to_pylist()}
    order = ("error", "warning", "note")
    found = {}
    for rule in sorted(RULES, key=lambda rule: order.index(rule.severity)):
        if rule.code in counts:
            mine = cases.filter(pc.equal(cases["rule"], rule.code))
            ranked = pc.sort_indices(mine, [("value", "descending", "at_end")]).slice(0, SHOWN)
            found[rule.code] = {
                "severity": rule.severity,
                "meaning": rule.meaning,
                "cases": counts[rule.code],
                "worst": mine.take(ranked).drop_columns(["rule", "severity"]).to_pylist(),
            }
    return found


def _print(rules: dict[str, dict[str, Any]], totals: dict[str, int], folders: list[Path]) -> None:
    from partseg.layout.checks import sentence

    if rules:
        print_table(
            ["rule", "severity", "cases", "meaning"],
            [[code, rule["severity"], f"{rule['cases']:,}", rule["meaning"]] for code, rule in rules.items()],
        )
    for code, rule in rules.items():
        print(code)
        for case in rule["worst"]:
            print(f"  {case['dataset'] + ', ' if len(folders) > 1 else ''}{sentence(case)}")
        if rule["cases"] > len(rule["worst"]):
            print(f"  and {rule['cases'] - len(rule['worst']):,} more")
    where = ", ".join(str(folder) for folder in folders)
    if not (totals["error"] or totals["warning"]):
        print(f"{where}: sound")
    else:
        numbers = [f"{n:,} {severity}{'s' * (n != 1)}" for severity, n in totals.items() if n]
        print(f"{where}: {', '.join(numbers)}")


def _write_parquet(cases: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    from partseg.files import replacing_file

    with replacing_file(path) as temporary:
        pq.write_table(cases, temporary, compression="zstd")
