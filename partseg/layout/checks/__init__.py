"""Checks datasets against every rule of the layout, and against each other; see :func:`check`."""

from partseg.layout.checks.found import FOUND, Rule
from partseg.layout.checks.run import RULES, audit, check, names, sentence

__all__ = ["FOUND", "RULES", "Rule", "audit", "check", "names", "sentence"]
