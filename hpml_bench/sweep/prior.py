"""What earlier suites lend to a sweep: declared with its first run, and the same for all after
it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpml_bench.judge.earlier import prior_of
from hpml_bench.plugins.task import make_task
from hpml_bench.records.load import load_records
from hpml_bench.records.numbers import sentence_list
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError


def with_prior(request: SweepRequest, given: Sequence[Path]) -> SweepRequest:
    """Return a request with what the folders `given` lend to its suite, or what the first run in
    its own declares.

    Later edits of the given folders change nothing. A UserError where runs in the folder were begun
    without, or with other suites, or one given lends nothing.
    """
    folder, suite = request.folder, request.suite
    starts_anew = request.fresh and request.whole
    records = () if starts_anew else load_records(folder).records
    first = next((record.declared for record in records if record.declared), None)
    if first is not None:
        _check_same_suites(first.prior, given, folder)
        return _with(request, first.prior)
    if records and given:
        raise UserError(
            f"{folder} has runs that declare nothing, and --prior counts from the first run on; "
            "give another --out"
        )
    if suite.prior is not None:
        # it must come from earlier results, and be declared before the first run
        raise UserError(
            f"{suite.name}: prior is no setting: run-all --prior DIR reads it from an earlier "
            "suite's results; leave it out"
        )
    return _with(request, _read(suite, given)) if given else request


def _check_same_suites(declared: Prior | None, given: Sequence[Path], folder: Path) -> None:
    """Raise UserError if other suites are given than those that the folder's first run declares."""
    if not given:
        return
    names = {record.spec.suite for path in given for record in load_records(path).records}
    if declared is not None and set(declared.names) == names:
        return
    if declared is None:
        whose = "none of earlier suites"
    else:
        whose = f"that of {sentence_list(declared.names)}"
    raise UserError(
        f"{folder}: of the variance over seeds its first run declares {whose}, which counts for "
        "all runs; leave --prior out, or begin anew with --fresh"
    )


def _with(request: SweepRequest, prior: Prior | None) -> SweepRequest:
    return replace(request, suite=request.suite.model_copy(update={"prior": prior}))


def _read(suite: Suite, given: Sequence[Path]) -> Prior:
    settings = suite.settings
    kinds = {name: suite.method(name).method for name in suite.methods}
    return prior_of(
        given, suite.name, kinds, make_task(settings.task, rank_by=settings.rank_by).headline
    )
