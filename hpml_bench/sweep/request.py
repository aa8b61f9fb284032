"""Request of a call of `run-all`, `run` or `tune`: which runs of a suite, where, and under which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpml_bench.plugins.method import check_methods
from hpml_bench.records.plan import UNLIMITED, Limits
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.order import shuffled
from hpml_bench.system.errors import UserError


@dataclass(frozen=True)
class SweepRequest:
    """Runs of a suite that a call requests."""

    suite: Suite
    """Suite as requested: settings may be left open."""
    out: Path
    """Parent of the suite's results folder."""
    methods: tuple[str, ...] | None = None
    """Names of methods; None for the suite's own."""
    seeds: tuple[int, ...] | None = None
    """Seeds; None for the suite's own."""
    limits: Limits = UNLIMITED
    fresh: bool = False
    """Whether earlier results are removed first."""
    verbose: bool = False
    """Whether the log of rank 0 is shown."""
    save: Path | None = None
    """Folder in which a single run saves its model."""

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self.out / self.suite.name

    @property
    def whole(self) -> bool:
        """Whether all methods and seeds of the suite are requested."""
        return self.methods is None and self.seeds is None

    def runs(self, suite: Suite) -> tuple[RunSpec, ...]:
        """Return the runs of the resolved suite, in the order of execution."""
        return tuple(shuffled(suite.runs(self.methods, self.seeds), suite))

    def check(self, settings: Settings) -> None:
        """Refuse methods that can't be run, before anything is written; a node may have to resolve `settings` yet."""
        specs = self.suite.runs(self.methods, [0])
        if not specs:
            raise UserError(
                f"suite {self.suite.name}: there is no method to run; name some under methods, or by --methods a,b"
            )
        check_methods((spec.method for spec in specs), settings)
