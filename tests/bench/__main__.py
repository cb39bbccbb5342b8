"""``make bench``: every quick measurement, one after the other."""

from __future__ import annotations

import sys

from tests.bench import average_precision, lvis_import, open_dataset, run_lengths, train_step

if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    for module in (open_dataset, lvis_import, run_lengths, average_precision, train_step):
        print(f"\n== {(module.__doc__ or '').splitlines()[0]}")
        module.main()
