"""Importing pandas where Ctrl-C can stop it."""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress


@functools.cache
def import_pandas() -> None:
    """Import pandas, if it is installed, before pyarrow does.

    pyarrow imports it inside the first array it makes, for most of a second, and loses a KeyboardInterrupt
    that comes in that time, or turns it into a TypeError.
    """
    with suppress(ImportError):
        importlib.import_module("pandas")
