"""Scoring of systems that a suite didn't train: their runs, in folders of their own, and what a
server's answers are.

In come a suite, systems as `score` names them, and the suite's recorded runs, if there are any. Out
go runs of the systems, one of each, and sentences on servers that claim to serve a recorded run.

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

from hpml_bench.judge.results import Results
from hpml_bench.launch import server
from hpml_bench.launch.server import Access
from hpml_bench.records.files import AGREEMENT, KEPT, RECORD, SUITE
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import Limits
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import differences, protocol_difference, settings_of, short
from hpml_bench.suite.devices import decided_as
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.sweep.local import SweepResult, run_sweep
from hpml_bench.sweep.request import SweepRequest
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
    access: Access  # keys of servers, and how they are asked
    limits: Limits
    fresh: bool = False  # whether earlier results of these systems are removed first

    @property
    def folder(self) -> Path:
        """The suite's own results folder."""
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
        """Return a sweep for each seed, under the recorded runs' settings.

        Systems of one name are its seeds, in the order in which they are given: the first system of
        a name is in the sweep of seed 0, the second in that of seed 1, and so on. Systems that were
        scored earlier stay in the suite of their seed's folder, but are not requested. Raises
        UserError if the suite's settings aren't those of the recorded runs, or a system has the
        name of a method.
        """
        suite = self.suite if recorded is None else self._under_settings_of(recorded)
        requests = []
        for seed, methods in enumerate(self._methods_by_seed(suite, recorded)):
            out = self.out / SCORED / f"seed{seed}"
            earlier: dict[str, MethodEntry] = {}
            with suppress(ValidationError):  # the first call finds no suite there
                earlier = dict(Suite.model_validate(read_json(out / suite.name / SUITE)).methods)
            suite_of_seed = suite.model_copy(
                update={
                    "methods": {**earlier, **methods},
                    # what is declared of runs of several seeds
                    "until": None,
                    "looks": None,
                    "prior": None,
                }
            )
            requests.append(
                SweepRequest(
                    suite_of_seed,
                    out,
                    methods=tuple(methods),
                    seeds=(seed,),
                    limits=self.limits,
                    fresh=self.fresh,
                )
            )
        return requests

    def _under_settings_of(self, recorded: Results) -> Suite:
        """Return the suite with the settings that it leaves to a machine taken from the recorded
        runs; UserError if another one differs.
        """
        recorded_settings = recorded.reference.spec.settings
        settings = decided_as(self.suite.settings, recorded_settings)
        differing = differences(settings_of(recorded_settings), settings_of(settings))
        if differing:
            how = ", ".join(
                f"{key} {short(value)} instead of {short(recorded_value)}"
                for key, recorded_value, value in differing[:3]
            )
            raise UserError(
                f"{self.folder}: its runs have another protocol: now {how}; give the --set of "
                f"the runs"
            )
        return self.suite.model_copy(update={"settings": settings})

    def _methods_by_seed(
        self, suite: Suite, recorded: Results | None
    ) -> list[dict[str, MethodEntry]]:
        """Return the systems of each seed as a suite's methods; UserError if one has the name of a
        method of the suite, or of its recorded runs.
        """
        taken = {*suite.methods, *(() if recorded is None else recorded.methods)}
        methods_by_seed: list[dict[str, MethodEntry]] = []
        for name, entry in self.systems:
            if name in taken:
                raise UserError(
                    f"--system {name}: the suite has a method of this name; give another"
                )
            seed = sum(name in methods for methods in methods_by_seed)
            if seed == len(methods_by_seed):
                methods_by_seed.append({})
            methods_by_seed[seed][name] = MethodEntry.model_validate(entry)
        return methods_by_seed

    def run(self, recorded: Results | None, console: Console) -> list[SweepResult]:
        """Do the missing runs, seed by seed, and return the result of each seed's sweep.

        A sweep that doesn't end with all runs done is the last. Raises UserError where runs come to
        have another protocol than the recorded ones.
        """
        results: list[SweepResult] = []
        for request in self.requests(recorded):
            self._set_aside_other_systems(request, console)
            ask_servers = partial(server.here_or_served, access=self.access)
            result = run_sweep(request, console, trackers=(), run_ranks=ask_servers)
            results.append(result)
            if recorded is not None:
                self._check_protocol(result, recorded.reference)
            if result.ending.how != "done":
                break
        return results

    def _set_aside_other_systems(self, request: SweepRequest, console: Console) -> None:
        """Set aside the recorded runs of a requested name on another folder, content or server: a
        name means one system.
        """
        requested = {spec.method.name: spec.method for spec in request.runs(request.suite)}
        others = []
        for record in load_records(request.folder).records:
            method = record.spec.method
            if method.name in requested and method.options != requested[method.name].options:
                others.append(record.spec)
        # the folder is made and locked only where there is something to set aside
        if others:
            with ResultsFolder.open(request.folder) as folder:
                folder.set_aside(others, partial(console.print, markup=False, highlight=False))

    def _check_protocol(self, result: SweepResult, reference: RunRecord) -> None:
        """Raise UserError if runs have another protocol than the recorded run `reference`.

        Their settings were compared before (`requests`). Digests of model and data, which are part
        of the protocol, are known only once they have run.
        """
        of_protocol = {
            record.protocol_id: record for record in result.records if record.protocol_id
        }
        if of_protocol.keys() <= {reference.protocol_id}:
            return
        why = protocol_difference(reference, next(iter(of_protocol.values())))
        raise UserError(f"{self.folder}: the systems were scored under {why} in the recorded runs")

    def _run_named(
        self, name: str, run: str, runs: Mapping[str, tuple[RunRecord, Path]]
    ) -> tuple[RunRecord, Path]:
        """Return record and folder of a run, METHOD-sSEED, that is claimed for the system `name`;
        UserError if `runs` have none.
        """
        if run not in runs:
            there = ", ".join(runs) or f"none in {self.folder}"
            raise UserError(
                f"--system {name}: there is no run {run} that ended well; there are {there}"
            )
        return runs[run]

    def check_claim(self, name: str, claimed: str, recorded: Results | None) -> None:
        """Raise UserError where a system claims to be a run, METHOD-sSEED, that can't be
        compared with it: none was recorded, or what it trained wasn't kept.
        """
        claimed_method, _, _ = claimed.rpartition("-s")
        if claimed_method in {system for system, _ in self.systems}:
            return  # of the systems themselves, whose runs come later: `agreement` looks for it
        record, folder = self._run_named(name, claimed, _runs_that_ended_well(recorded))
        if not _trained_parts(record, folder).exists():
            raise UserError(
                f"--system {name}: what {claimed} trained wasn't kept; do the run by run-all --keep"
            )

    def agreement(
        self, done: Sequence[SweepResult], name: str, claimed: str, recorded: Results | None
    ) -> str:
        """Write how a server's answers differ from those of a run, METHOD-sSEED, and why; return
        it as a sentence.

        `done` has the server's own run, of seed 0, in whose folder `AGREEMENT` is written. Raises
        UserError if either run didn't end well, or its predictions can't be read.
        """
        from hpml_bench.data.prepare import prepare
        from hpml_bench.training.served import Claim, examine

        runs = _runs_that_ended_well(recorded, done)
        claimed_record, claimed_folder = self._run_named(name, claimed, runs)
        served_record, served_folder = self._run_named(name, f"{name}-s0", runs)
        claimed_predictions = read_predictions(claimed_folder)
        served_predictions = read_predictions(served_folder)
        if claimed_predictions is None or served_predictions is None:
            raise UserError(
                f"--system {name}: the predictions of {claimed} or its own can't be read"
            )

        claimed_spec = claimed_record.spec
        prepared = prepare(claimed_spec.settings)
        rows = server.questions(claimed_spec.settings, prepared)
        client = server.client_of(served_record.spec, self.access)
        claim = Claim(
            spec=claimed_spec,
            prepared=prepared,
            parts=_trained_parts(claimed_record, claimed_folder),
            rows=[row for row, _ in rows],
            ask=partial(server.again, client, rows, prepared, claimed_spec),
        )
        agreement = examine(claim, ours=claimed_predictions, theirs=served_predictions)
        content = {"run": claimed, **asdict(agreement)}
        write_atomically(served_folder / AGREEMENT, json.dumps(content, indent=2) + "\n")
        return f"{name} as {claimed}: {agreement.sentence}."


def _trained_parts(record: RunRecord, folder: Path) -> Path:
    """Return the folder of what a run trained: that which a system was given, else the one that
    the run kept, which may not exist.
    """
    return Path(record.spec.method.options.get("path") or folder / KEPT)


def _runs_that_ended_well(
    recorded: Results | None, done: Sequence[SweepResult] = ()
) -> dict[str, tuple[RunRecord, Path]]:
    """Return METHOD-sSEED -> record and folder of the recorded runs that are compared, and of those
    of systems that ended well.
    """
    runs: dict[str, tuple[RunRecord, Path]] = {}

    def add(record: RunRecord, results_folder: Path) -> None:
        spec = record.spec
        runs[f"{spec.method.name}-s{spec.seed}"] = record, results_folder / record.run_id

    if recorded is not None:
        for record in recorded.compared:
            add(record, recorded.folder)
    for result in done:
        for record in result.records:
            if record.status == "ok":
                add(record, result.folder)
    return runs
