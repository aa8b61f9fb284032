"""Results folders of this project: scores of test rows by seed, groups and costs of the runs
that may be compared.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import (
    DATASET,
    GROUP,
    HOST,
    LONGEST,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    InputScores,
)
from hpml_bench.judge.from_results import facts_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.scores import FailedRun
from hpml_bench.records.files import AGREEMENT, PREDICTIONS, RECORD
from hpml_bench.records.jobs import folders_with
from hpml_bench.select.comparability import hosts_of
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json
from hpml_bench.system.text import sanitize

ORDER = 0
SOURCE = "results of hpml-bench"


def claims(path: Path) -> bool:
    return path.is_dir() and bool(folders_with(path, f"*/{RECORD}"))


def read(path: Path, metric: str | None = None) -> tuple[InputScores, ...]:
    """Return the compared runs of a results folder, or of each below a folder.

    A data set is a suite and its protocol: runs of one suite on other rows, or by another budget,
    are never ranked together. `metric`: a suite's headline metric, by whose row scores its methods
    are compared; None for that. A UserError where no record can be read, or `metric` is no suite's
    headline.
    """
    every = [Results.load(folder) for folder in folders_with(path, f"*/{RECORD}")]
    known = (
        (one, {one.quality, one.quality.removeprefix("test_"), one.score_title}) for one in every
    )
    found = [one for one, names in known if metric is None or metric in names]
    if not found:
        there = ", ".join(sorted({results.quality for results in every}))
        raise UserError(
            f"{path} has row scores of {there} alone; leave --metric {metric} away, or give one "
            f"of these"
        )
    return tuple(map(_measured, found))


def _measured(results: Results) -> InputScores:
    import pandas as pd

    aligned, rows = results.aligned, results.test_set
    name = sanitize(f"{results.suite}, protocol {results.reference.protocol_id or 'unknown'}")
    frames = []
    for method, by_run in (aligned.rows or {}).items():
        own = {record.spec.seed: record for record in results.runs(method)}
        for run, scores in by_run.items():
            record = results.of_all_seeds(method) or own[int(aligned.seeds[run])]
            file, index = (
                results.folder / record.run_id / PREDICTIONS,
                results.stored[record.run_id].index,
            )
            frame = pd.DataFrame({ROW: [str(n) for n in index], SCORE: scores.astype(float)})
            frame = frame.assign(
                **{SYSTEM: sanitize(method), SEED: aligned.seeds[run], DATASET: name}
            )
            frame[WHERE] = [f"{file}, row {n}" for n in index]
            frame[HOST] = " ".join(hosts_of(record) or ()) or None
            if rows is not None and rows.group is not None:
                frame[GROUP] = [str(group) for group in rows.group]
            for cost, values in aligned.costs.items():
                frame[cost.column] = values.get(method, {}).get(run, math.nan)
            frames.append(frame)
    failed = []
    for record in results.left_out.unfinished:
        status = (
            f"{record.status}{f': {sanitize(record.error.message, 200)}' if record.error else ''}"
        )
        where = str(results.folder / record.run_id / RECORD)
        failed.append(
            FailedRun(record.spec.method.name, str(record.spec.seed), status, where, name)
        )
    facts = facts_of(
        results
    )  # what the runs say beside scores, here by the names that a comparison shows
    below = facts.guess and tuple(sanitize(name, LONGEST) for name in facts.guess.below)
    facts = replace(
        facts,
        methods={sanitize(name, LONGEST): of for name, of in facts.methods.items()},
        under={sanitize(name, LONGEST): runs for name, runs in facts.under.items()},
        guess=facts.guess and facts.guess.model_copy(update={"below": below}),
    )
    empty = pd.DataFrame({column: [] for column in (SYSTEM, ROW, SCORE, SEED, DATASET, WHERE)})
    return InputScores(
        pd.concat(frames, ignore_index=True) if frames else empty,
        aligned.score,
        tuple(aligned.costs),
        tuple(failed),
        tuple(_remarks(results)),
        inputs.source_of(SOURCE, results.folder, len(frames)),
        look=aligned.look,
        race=aligned.race,
        unranked=aligned.unranked,
        trained_on=aligned.trained_on,
        facts=facts,
    )


def _remarks(results: Results) -> Iterator[str]:
    left = results.left_out
    for group in left.excluded:
        runs = f"{len(group.records)} run{'s' if group.records[1:] else ''}"
        yield f"{results.suite}: {runs} set apart, {sanitize(group.reason, 400)}."
    yield from (f"{results.suite}: {sanitize(problem, 400)}." for problem in left.problems)
    if results.unchecked:
        yield (
            f"{results.suite}: scores of rows are as recorded, not computed anew: "
            f"{results.unchecked}."
        )
    if results.not_largest:
        yield (
            f"{results.suite}: the largest difference of a row that it declares isn't used: "
            f"{results.not_largest}."
        )
    for record in results.compared:
        agreement = read_json(results.folder / record.run_id / AGREEMENT) or {}
        claimed, sentence = agreement.get("run"), agreement.get("sentence")
        if isinstance(claimed, str) and isinstance(sentence, str):
            yield sanitize(f"{record.spec.method.name} as {claimed}: {sentence}.", 1000)
    if results.never_run:
        yield f"{results.suite}: {results.never_run} runs of the suite have no record."
