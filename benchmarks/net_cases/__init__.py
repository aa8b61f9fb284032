"""Calls that `net.py` makes and their inputs, which are made from plain files for both versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Calls of the harness, one after another, in a folder of their own."""

    name: str
    """Path of its folder below the part's."""
    calls: tuple[str, ...]
    """Commands as a shell would take them, without the program's name."""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """Content of small files by path in its folder."""
    copies: tuple[str, ...] = ()
    """Folders or files of the part's inputs that are copied into its folder beforehand."""
