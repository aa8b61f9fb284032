"""What earlier suites lend to a sweep: declared with its first run, and the same for all after
it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpml_bench.plugins.task import make_task
from hpml_bench.records.load import load_records
from hpml_bench.report.earlier import prior_of
from hpml_bench.report.numbers import sentence_list
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.plan import SweepRequest
from hpml_bench.system.errors import UserError


def with_prior(request: SweepRequest, given: Sequence[Path]) -> SweepRequest:
    """Return a request with what the folders `given` lend to its suite, or what the first run in
    its own declares.

    Later edits of the given folders change nothing. A UserError where runs in the folder were begun
    without, or with other suites, or one given lends nothing.
    """
    folder, suite = request.folder, request.suite
    records = () if request.fresh and request.whole else load_records(folder).records
    first = next((record.declared for record in records if record.declared), None)
    if first is None and records and given:
        raise UserError(
            f"{folder} has runs that declare nothing, and --prior counts from the first run on; "
            f"give another --out"
        )
    if (
        first is None and suite.prior is not None
    ):  # it must come from results, and be declared before the first run
        raise UserError(
            f"{suite.name}: prior is no setting: run-all --prior DIR reads it from an earlier "
            "suite's results; leave it out"
        )
    if first is None:
        return _with(request, _read(suite, given)) if given else request
    names = {record.spec.suite for path in given for record in load_records(path).records}
    if given and (first.prior is None or set(first.prior.names) != names):
        declared = (
            f"that of {sentence_list(first.prior.names)}"
            if first.prior
            else "none of earlier suites"
        )
        raise UserError(
            f"{folder}: of the variance over seeds its first run declares {declared}, which counts "
            "for all runs; leave --prior out, or begin anew with --fresh"
        )
    return _with(request, first.prior)


def _with(request: SweepRequest, prior: Prior | None) -> SweepRequest:
    return replace(request, suite=request.suite.model_copy(update={"prior": prior}))


def _read(suite: Suite, given: Sequence[Path]) -> Prior:
    settings = suite.settings
    kinds = {name: suite.method(name).method for name in suite.methods}
    return prior_of(
        given, suite.name, kinds, make_task(settings.task, rank_by=settings.rank_by).headline
    )
