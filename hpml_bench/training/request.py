"""Request of a run, with everything that its processes need."""

from pathlib import Path
from typing import NamedTuple

from hpml_bench.data.prepared import Prepared
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import Declared
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import RunSpec


class Place(NamedTuple):
    """Position of a run among others, from 1; None where it is alone."""

    in_sweep: int | None = None
    in_seed: int | None = None
    declared: Declared | None = None


class RunRequest(Frozen):
    """Request of one run, complete when made."""

    spec: RunSpec
    prepared: Prepared
    folder: Path
    """Folder of the run, which is emptied first."""
    limits: Limits = Limits(stall=0)
    place: Place = Place()
    earlier_attempts: tuple[str, ...] = ()
    """How earlier attempts at the run ended, a sentence each."""
    save_to: Path | None = None
    """Folder to which rank 0 saves the trained weights; None to save nothing."""
    try_out: bool = False
    """Whether the run only tests that it fits in memory: two steps on its largest batch, without
    measurement.
    """
