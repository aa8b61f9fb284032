"""Seeds: runs of one seed have the same data in the same order, runs of one method the same sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256

from hpml_bench.records.points import iterate_points
from hpml_bench.records.predictions import bytes_of, read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import grouped, method_of, untrained
from hpml_bench.system.hashing import digest
from hpml_bench.verify.evidence import Evidence, Found, failed


def consumption(evidence: Evidence) -> Iterator[Found]:
    """Runs of a seed consumed the same samples and tokens."""
    yield from evidence.excluded("consumption")


def batches(evidence: Evidence) -> Iterator[Found]:
    """Each step of a seed has the same tokens in all runs."""
    trained = [record for record in evidence.compared if not untrained(record)]
    for seed, records in grouped(trained, lambda record: record.spec.seed).items():
        tokens = {record.run_id: _tokens(evidence, record) for record in records}
        usual, size = Counter(tokens.values()).most_common(1)[0]
        for run, own in tokens.items():
            if own != usual and size > 1:
                yield failed(run, f"its steps have other numbers of tokens than most runs of seed {seed}")


def _tokens(evidence: Evidence, record: RunRecord) -> str:
    points = iterate_points(evidence.folder / record.run_id)
    return digest([[p.step, p.tokens, p.real_tokens] for p in points if p.metric == "step_seconds"])


def answers(evidence: Evidence) -> Iterator[Found]:
    """No seed of a method has the predictions of another."""
    trained = [record for record in evidence.compared if not untrained(record)]
    for records in grouped(trained, method_of).values():
        same = grouped(records, lambda record: _predicted(evidence, record))
        if len(same) == 1:  # a method that changes nothing
            continue
        for group in same.values():
            for record in group if len(group) > 1 else ():
                others = ", ".join(other.run_id for other in group if other is not record)
                yield failed(record.run_id, f"predicts as {others}, to the last digit of the losses")


def _predicted(evidence: Evidence, record: RunRecord) -> str:
    stored = read_predictions(evidence.folder / record.run_id)
    content = b"" if stored is None else bytes_of(stored.prediction) + stored.loss.tobytes()
    return sha256(content).hexdigest()


def sizes(evidence: Evidence) -> Iterator[Found]:
    """Counts and sizes of a method are equal over seeds."""
    for records in grouped(evidence.compared, method_of).values():
        for metric in records[0].definitions:
            if metric.noisy or metric.depends_on_machine:
                continue
            values = {r.run_id: r.metrics[metric.name] for r in records if metric.name in r.metrics}
            usual, size = Counter(values.values()).most_common(1)[0] if values else (None, 0)
            if 2 * size <= len(values):  # a method may choose its sizes by what it learns, such as AdaLoRA
                continue
            for run, own in values.items():
                if own != usual:
                    what = f"its {metric.name} is {_shown(own)}, and {_shown(usual)} in most runs of its method"
                    yield failed(run, what)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


def sample_order(evidence: Evidence) -> Iterator[Found]:
    """The order of samples is the one drawn from the seed."""
    if any(not untrained(record) for record in evidence.compared):
        yield Found("not checked", "the order of samples is drawn by the rows' lengths, which no record has")
