"""Earlier suites' results folders, as what they lend to another suite: `run-all --prior`."""

import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.numbers import sentence_list
from hpml_bench.statistics import OverSeedsAndRows
from hpml_bench.suite.prior import Lender, LentPair, Prior
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest

Pair = tuple[str, str]


def prior_of(folders: Iterable[Path], suite: str, methods: dict[str, str], score: str) -> Prior:
    """Return what results folders of earlier suites lend to a suite, of methods name -> kind
    compared by a score.

    A UserError where one has no pair of these methods with three seeds, is compared by another
    score, is of this suite or given twice.
    """
    lenders: dict[str, Lender] = {}
    found: dict[Pair, dict[str, OverSeedsAndRows]] = {}
    for folder in folders:
        results = Results.load(folder)
        name = results.suite
        if name == suite or name in lenders:
            whose = "this suite itself" if name == suite else "a suite that is given already"
            raise UserError(
                f"--prior {folder}: these are results of {name}, {whose}; give other, earlier "
                f"suites"
            )
        if results.compared and results.quality != score:
            raise UserError(
                f"--prior {folder}: its methods are compared by {results.quality}, and those of "
                f"{suite} by {score}; give suites of the same score"
            )
        own = dict(_evidence(results, methods)) if results.compared else {}
        if not own:
            raise UserError(
                f"--prior {folder}: no two methods of {suite} ({sentence_list(list(methods))}) "
                "have three seeds in it; leave it out"
            )
        for pair, evidence in own.items():
            found.setdefault(pair, {})[name] = evidence
        runs = sorted(
            (record.run_id, record.files.get(PREDICTIONS, "")) for record in results.compared
        )
        lenders[name] = Lender(suite=name, digest=digest(runs, 12))
    pairs = [_lent(pair, by_suite) for pair, by_suite in found.items()]
    return Prior(score=score, suites=tuple(lenders.values()), pairs=tuple(pairs))


def _lent(pair: Pair, by_suite: dict[str, OverSeedsAndRows]) -> LentPair:
    variance, freedom = statistics.lend(list(by_suite.values()))
    return LentPair(methods=pair, suites=tuple(by_suite), variance=variance, freedom=freedom)


def _evidence(results: Results, methods: dict[str, str]) -> Iterator[tuple[Pair, OverSeedsAndRows]]:
    """Yield the evidence of each pair of the methods that have three seeds in common there, and
    any spread.
    """
    scores = results.aligned
    # a race ends where noise happens to look small: only the seeds of its first round were fixed
    # before
    most = results.race.until.rounds[0] if results.race else sys.maxsize
    kinds = {
        name: {run.spec.method.method for run in results.runs(name)} for name in results.methods
    }
    alike = [name for name, kind in methods.items() if kinds.get(name) == {kind}]
    for a, b in combinations(alike, 2):
        runs = [
            run
            for run in scores.units[a]
            if run in scores.units[b] and int(scores.seeds[run]) < most
        ]
        if (
            len(runs) < statistics.LEAST_SEEDS
            or (scores.group_count or scores.count or 0) < statistics.LEAST_ROWS
        ):
            continue
        table = np.array(
            [scores.units[a][run].astype(float) - scores.units[b][run] for run in runs]
        )
        evidence = OverSeedsAndRows.of(table, scores.difference_span, scores.effective)
        if any(evidence.squares):  # methods that answer alike in every row tell nothing
            yield (a, b), evidence
