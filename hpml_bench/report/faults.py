"""Faults of runs that ended well: their kind, and the evidence in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "ids", "copies", "definitions", "times", "self-checks", "predictions", "duplicates", "consumption", "protocol"
]


class Fault(NamedTuple):
    """Evidence that a run may not be compared."""

    kind: Kind
    why: str
