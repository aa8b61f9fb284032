"""Scoring of systems that a suite didn't train: their runs, in folders of their own, and what a
server's answers are.

Systems of one name are its seeds. Each seed has a results folder, `scored/seedN/SUITE`, in which a
method's name means one folder or server; the suite's own folder stays as it is.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from hpml_bench.launch import server
from hpml_bench.launch.server import Access
from hpml_bench.records.files import AGREEMENT, KEPT, RECORD, SUITE
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import Limits
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import differences, protocol_difference, settings_of, short
from hpml_bench.report.results import Results
from hpml_bench.suite.devices import decided_as
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.sweep.local import SweepResult, run_sweep
from hpml_bench.sweep.plan import SweepRequest
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json, write_atomically

SCORED = "scored"


@dataclass(frozen=True)
class Scoring:
    """Systems to score on a suite."""

    suite: Suite
    systems: Sequence[tuple[str, Mapping[str, Any]]]
    """Name and the method, as a suite writes it, of each; of one name the seeds 0, 1, ..."""
    out: Path  # folder of the suite's results folder
    access: Access
    limits: Limits
    fresh: bool = False

    @property
    def folder(self) -> Path:
        return self.out / self.suite.name

    @property
    def page(self) -> Path:
        """Folder of the page on which the systems stand beside the suite's runs."""
        return self.out / SCORED / self.suite.name

    @property
    def folders(self) -> list[Path]:
        """Folders of all runs: the suite's own, and those of systems that were scored."""
        scored = sorted((self.out / SCORED).glob(f"seed*/{self.suite.name}"))
        return [folder for folder in (self.folder, *scored) if any(folder.glob(f"*/{RECORD}"))]

    def recorded(self) -> Results | None:
        """Return the suite's recorded runs; None where there are none."""
        return Results.load(self.folder) if any(self.folder.glob(f"*/{RECORD}")) else None

    def requests(self, recorded: Results | None) -> list[SweepRequest]:
        """Return a sweep for each seed, under the recorded runs' settings; UserError if those or
        a name don't fit.
        """
        suite = self.suite
        if recorded is not None:
            of_runs = recorded.reference.spec.settings
            suite = suite.model_copy(update={"settings": decided_as(suite.settings, of_runs)})
            if other := differences(settings_of(of_runs), settings_of(suite.settings)):
                how = ", ".join(
                    f"{key} {short(now)} instead of {short(then)}" for key, then, now in other[:3]
                )
                raise UserError(
                    f"{self.folder}: its runs have another protocol: now {how}; give the --set of "
                    f"the runs"
                )
        by_seed: list[dict[str, MethodEntry]] = []
        for name, entry in self.systems:
            if name in {*suite.methods, *(recorded.methods if recorded else ())}:
                raise UserError(
                    f"--system {name}: the suite has a method of this name; give another"
                )
            seed = sum(other == name for methods in by_seed for other in methods)
            by_seed += [{}] * (seed == len(by_seed))
            by_seed[seed][name] = MethodEntry.model_validate(entry)
        made = []
        for seed, methods in enumerate(by_seed):
            out = self.out / SCORED / f"seed{seed}"
            earlier: dict[str, MethodEntry] = {}
            with suppress(ValidationError):  # none yet; systems that were scored earlier stay in it
                earlier = dict(Suite.model_validate(read_json(out / suite.name / SUITE)).methods)
            once = {
                "until": None,
                "looks": None,
                "prior": None,
            }  # what is declared of runs of several seeds
            whole = suite.model_copy(update={"methods": {**earlier, **methods}, **once})
            made.append(
                SweepRequest(
                    whole, out, tuple(methods), (seed,), limits=self.limits, fresh=self.fresh
                )
            )
        return made

    def run(self, recorded: Results | None, console: Console) -> list[SweepResult]:
        """Do the missing runs; a UserError where they come to have another protocol than the
        recorded ones.
        """
        done: list[SweepResult] = []
        for request in self.requests(recorded):
            # a name means one system: its runs on another folder, content or server are set aside
            wanted = {spec.method.name: spec.method.options for spec in request.runs(request.suite)}
            made = (record.spec for record in load_records(request.folder).records)
            others = [
                spec
                for spec in made
                if spec.method.options != wanted.get(spec.method.name, spec.method.options)
            ]
            if others:
                with ResultsFolder.open(request.folder) as results:
                    results.set_aside(others, partial(console.print, markup=False, highlight=False))
            done.append(
                run_sweep(request, console, (), partial(server.here_or_served, access=self.access))
            )
            ours = {r.protocol_id: r for r in done[-1].records if r.protocol_id}
            if recorded is not None and ours.keys() - {recorded.reference.protocol_id}:
                why = protocol_difference(recorded.reference, next(iter(ours.values())))
                raise UserError(
                    f"{self.folder}: the systems were scored under {why} in the recorded runs"
                )
            if done[-1].ending.how != "done":
                break
        return done

    def _run(
        self, name: str, run: str, runs: Mapping[str, tuple[RunRecord, Path]]
    ) -> tuple[RunRecord, Path]:
        if run not in runs:
            there = ", ".join(runs) or f"none in {self.folder}"
            raise UserError(
                f"--system {name}: there is no run {run} that ended well; there are {there}"
            )
        return runs[run]

    def check_claim(self, name: str, claimed: str, recorded: Results | None) -> None:
        """Raise UserError where a system claims to be a run, METHOD-sSEED, that can't be
        compared with it.
        """
        if claimed.rpartition("-s")[0] not in {system for system, _ in self.systems}:
            own, folder = self._run(name, claimed, _runs(recorded))
            if not Path(own.spec.method.options.get("path") or folder / KEPT).exists():
                raise UserError(
                    f"--system {name}: what {claimed} trained wasn't kept; do the run by run-all "
                    f"--keep"
                )

    def agreement(
        self, done: Sequence[SweepResult], name: str, claimed: str, recorded: Results | None
    ) -> str:
        """Write how a server's answers differ from those of a run, METHOD-sSEED, and why; return
        it as a sentence.
        """
        from hpml_bench.data.prepare import prepare
        from hpml_bench.training.served import Claim, examine

        runs = _runs(recorded, done)
        (own, folder), (record, answered) = (
            self._run(name, claimed, runs),
            self._run(name, f"{name}-s0", runs),
        )
        ours, theirs = read_predictions(folder), read_predictions(answered)
        if ours is None or theirs is None:
            raise UserError(
                f"--system {name}: the predictions of {claimed} or its own can't be read"
            )
        parts = Path(own.spec.method.options.get("path") or folder / KEPT)
        prepared = prepare(own.spec.settings)
        rows = server.questions(own.spec.settings, prepared)
        ask = partial(
            server.again, server.client_of(record.spec, self.access), rows, prepared, own.spec
        )
        claim = Claim(own.spec, prepared, parts, [row for row, _ in rows], ask)
        found = examine(claim, ours, theirs)
        write_atomically(
            answered / AGREEMENT, json.dumps({"run": claimed, **asdict(found)}, indent=2) + "\n"
        )
        return f"{name} as {claimed}: {found.sentence}."


def _runs(
    recorded: Results | None, done: Sequence[SweepResult] = ()
) -> dict[str, tuple[RunRecord, Path]]:
    """Return METHOD-sSEED -> record and folder of the runs that ended well."""
    made = [(recorded.folder, record) for record in recorded.compared] if recorded else []
    made += [
        (one.folder, record) for one in done for record in one.records if record.status == "ok"
    ]
    return {
        f"{one.spec.method.name}-s{one.spec.seed}": (one, folder / one.run_id)
        for folder, one in made
    }
