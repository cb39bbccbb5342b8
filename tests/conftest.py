"""Settings that must be made before any test loads torch."""

from __future__ import annotations

import os

# As in a run: see pipelines.run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
