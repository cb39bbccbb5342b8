"""The command line with the small kinds added, as a program of its own."""

from __future__ import annotations

from partseg.cli import main
from pipelines.kinds import KINDS
from tests.pipelines import fakes

if __name__ == "__main__":
    KINDS.update(fakes.KINDS)
    main()
