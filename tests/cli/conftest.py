from __future__ import annotations

import sys
from pathlib import Path

import pytest

RECIPE = """
stages:
  one: {kind: numbers, value: 1, schedule: {max_iter: 100}}
  two: {kind: add, of: [one]}
  page: {kind: page, of: two}
"""


@pytest.fixture
def partseg(tmp_path, monkeypatch, capsys):
    """The command line in this process, with the engine's small kinds: (exit code, stdout, stderr)."""
    from partseg.cli import main
    from pipelines.kinds import KINDS
    from tests.pipelines import fakes

    for name, module in fakes.KINDS.items():
        monkeypatch.setitem(KINDS, name, module)
    for name in ("PREFECT_API_URL", "PARTSEG_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("w.yaml").write_text(RECIPE)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["partseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run
