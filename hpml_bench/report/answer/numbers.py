"""The answer of a results folder: its numbers, from the selected runs and the verdicts of the page's one family."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hpml_bench import statistics
from hpml_bench.records.run import FAILED
from hpml_bench.records.tuning import find
from hpml_bench.report.answer.model import Answer, Axis, Failure, Guess, Key, Method, Pair, Score, Setup, Values
from hpml_bench.report.answer.pairs import pair_of, plain
from hpml_bench.report.comparability import untrained
from hpml_bench.report.guessing import beside_guess
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.report.tables import Quantity
from hpml_bench.report.tuned import other_settings
from hpml_bench.report.under_trained import under_trained
from hpml_bench.system.text import sanitize

PEAK = "peak_memory_mb"
SAVED = "saved_bytes"
FURTHER = ("peak_memory_over_setup_mb",)
"""Metrics whose values stand beside those of the axes."""
LARGE = {"s": (600.0, 60.0, "min"), "MB": (10_000.0, 1000.0, "GB")}
"""Unit -> value from which the larger unit is shown, its size, its name."""
UNRANKED = {"neighbours": "runs had neighbours on their host", "hosts": "seeds were spread over hosts"}


def answer_of(results: Results) -> Answer:
    """Return the answer of the compared runs; sections share it, so it is built once."""
    return results.once(_answer)


def _answer(results: Results) -> Answer:
    quality = _quality(results)
    axes = tuple(axis for key, metric in _costs(results).items() if (axis := _axis(results, key, metric)))
    scales = {axis.id: _scale(results, axis.id) for axis in axes} | {name: _scale(results, name) for name in FURTHER}
    score = _score(results, quality)
    tested = {"score": (results.quality, quality.scale)}
    tested |= {axis.tested: (axis.tested, 1.0) for axis in axes if axis.tested}
    family = [c for pairs in results.family.values() for c in pairs]
    uneven = results.uneven(results.quality)
    shared = results.common_seeds(results.quality) if uneven else None
    return Answer(
        suite=results.suite,
        description=results.description,
        model=results.reference.spec.settings.backbone.partition("#")[0],
        data=results.reference.spec.settings.dataset.name,
        rows=results.test_rows,
        rows_text=results.test_rows_in_words,
        seeds=len(results.seeds),
        shared=(len(shared) if shared else 0) if uneven else None,
        runs=len(results.compared),
        planned=len(results.compared) + len(failures := _failures(results)),
        tested=sum(c.verdict != "untested" for c in family),
        judged=results.judged_for,
        chance=100 * statistics.ALPHA,
        setup=_setup(results),
        score=score,
        axes=axes,
        methods=_methods(results, score, quality.scale, scales),
        pairs={name: _pairs(results, *of) for name, of in tested.items() if of[0] in results.definitions},
        under={method: len(seeds) for method, seeds in under_trained(results).items()},
        guess=_guess(results, quality.scale),
        failures=failures,
        unranked=" and ".join(UNRANKED[why] for why in results.selection.unranked) or None,
        least=statistics.LEAST_SEEDS,
        untried=tuple(dict.fromkeys((*results.absent, *results.unrun))),
    )


def _quality(results: Results) -> Quantity:
    """Return the score; without a compared run, as its task defines it."""
    if results.quality in results.definitions:
        return Quantity.of(results, results.quality)
    return Quantity.alone(next(m for m in results.task.metrics if m.name == results.task.headline))


def _costs(results: Results) -> dict[Key, str]:
    """Return the measured costs by key; memory is the whole peak where that is measured."""
    memory = results.measured(PEAK, *MEMORY)[:1]
    return dict(zip(("time", "memory", "size"), (TIME, *memory, SAVED), strict=False)) if memory else {
        "time": TIME, "size": SAVED,
    }  # fmt: skip


def _axis(results: Results, key: Key, metric: str) -> Axis | None:
    """Return a cost; its verdicts are those on the metric of the page's family that stands for it."""
    if not results.measured(metric):
        return None
    tested = next((name for name in results.headline if name == metric or (key == "memory" and name in MEMORY)), None)
    if tested and not all(c.ratio for c in results.comparisons(tested)):  # a value at or below 0 has no factor
        tested = None
    exact = not results.definitions[metric].noisy
    title = {"time": "Training time", "memory": "Peak memory", "size": "Saved size"}[key]
    unit = _scale(results, metric)[1]
    return Axis(key=key, id=metric, title=title, unit=unit, tested=None if exact else tested, exact=exact)


def _scale(results: Results, metric: str) -> tuple[float, str]:
    """Return the factor and the unit in which all methods' values of a cost are shown."""
    definition = results.definitions.get(metric)
    if definition is None:
        return 1.0, ""
    if definition.unit == "bytes":
        return 1e-6, "MB"
    # memory over set-up goes with the whole peak, in one unit
    means = [mean for name in (PEAK, metric) if name in results.definitions for mean in results.means(name).values()]
    own = results.means(metric).values() if definition.unit != "MB" else means
    least, size, unit = LARGE.get(definition.unit, (math.inf, 1.0, definition.unit))
    return (1 / size, unit) if max(own, default=0.0) >= least else (1.0, definition.unit)


def _score(results: Results, quality: Quantity) -> Score:
    better = quality.metric.better
    return Score(
        id=results.quality,
        title=quality.title,
        unit=quality.unit,
        better="lower" if better == "lower" else "higher",
        digits=_digits(results, quality),
        difference_unit=quality.difference_unit,
        margin=results.quality_margin * quality.scale,
    )


def _digits(results: Results, quality: Quantity) -> int:
    """Return the decimals of a score: one of per cent, else those of three significant digits."""
    if quality.unit == "%":
        return 1
    largest = max((abs(mean) for mean in results.means(results.quality).values()), default=1.0) * quality.scale
    return max(0, min(6, 2 - math.floor(math.log10(largest)))) if largest > 0 else 2


def _methods(
    results: Results, score: Score, scale: float, scales: Mapping[str, tuple[float, str]]
) -> tuple[Method, ...]:
    """Return the methods, those with a score first, the best mean first; equal means in the suite's order."""
    decided = any(c.verdict != "untested" for pairs in results.family.values() for c in pairs)
    ranks = results.ranks(results.quality) if decided and results.quality in results.headline else {}
    front = results.front(results.headline) if decided and len(results.headline) > 1 else {}
    found = []
    for name in results.methods:
        runs = results.runs(name)
        base = all(map(untrained, runs))
        values = {"score": _values(results, name, results.quality, scale)}
        costs = {metric: by for metric, (by, _) in scales.items() if not (base and metric == SAVED)}
        values |= {metric: _values(results, name, metric, by) for metric, by in costs.items()}
        place = front.get(name)
        found.append(
            Method(
                name=name,
                kind=runs[0].spec.method.method,
                base=base,
                place=ranks.get(name),
                front=place.place if place else None,
                by=place.by if place else (),
                seeds=len(runs),
                v={key: value for key, value in values.items() if value is not None},
            )
        )
    sign = -1 if score.better == "higher" else 1
    return tuple(sorted(found, key=lambda m: sign * m.v["score"].m if "score" in m.v else math.inf))


def _values(results: Results, method: str, metric: str, scale: float) -> Values | None:
    interval = results.interval(method, metric)
    if interval is None:
        return None
    by_seed = results.shown(metric)[method]
    return Values(
        m=plain(scale * interval.mean),
        lo=None if interval.low is None else plain(scale * interval.low),
        hi=None if interval.high is None else plain(scale * interval.high),
        runs=tuple(plain(scale * by_seed[seed]) for seed in sorted(by_seed)),
    )


def _pairs(results: Results, metric: str, scale: float) -> tuple[Pair, ...]:
    better = results.definitions[metric].better
    return tuple(pair_of(c, better, scale) for c in results.comparisons(metric))


def _guess(results: Results, scale: float) -> Guess | None:
    found = results.guess
    if found is None:
        return None
    below = tuple(method for method, how in beside_guess(results).items() if how == "not")
    return Guess(text=found.sentence, value=scale * found.chance, below=below)


def _failures(results: Results) -> tuple[Failure, ...]:
    """Return the runs that count as failed: interrupted and unsupported ones say nothing about a method."""
    return tuple(
        Failure(method=record.spec.method.name, seed=record.spec.seed, status=record.status)
        for record in results.left_out.unfinished
        if record.status in FAILED
    )


def _setup(results: Results) -> Setup:
    settings = results.reference.spec.settings
    return Setup(
        budget=f"{settings.steps:,} steps" if settings.steps else f"{settings.epochs:g} epochs",
        device=_device(results),
        host=_hosts(results),
        rates=_rates(results),
        memory=_memory(results),
    )


def _device(results: Results) -> str:
    """Return number and kind of devices: `2 CPU processes on AMD EPYC`, `4 x NVIDIA H100`."""
    settings, hardware = results.reference.spec.settings, results.reference.environment.get("hardware", {})
    hardware = hardware if isinstance(hardware, dict) else {}
    ranks = settings.world_size or 1
    if str(settings.device).startswith("cuda"):
        cards = [sanitize(str(card.get("name", "GPU")), 40) for card in hardware.get("gpus", []) if card]
        name = cards[0] if cards else "GPU"
        return name if ranks == 1 else f"{ranks} x {name}"
    processor = sanitize(str(hardware.get("cpu", "")), 40)
    count = "1 CPU process" if ranks == 1 else f"{ranks} CPU processes"
    return f"{count} on {processor}" if processor else count


def _hosts(results: Results) -> str:
    """Return the hosts whose costs count: by name, by number where there are several; empty where none is known."""
    return results.hosts[0] if len(results.hosts) == 1 else f"{len(results.hosts)} hosts" if results.hosts else ""


def _rates(results: Results) -> str:
    """Return how the learning rates were chosen, in a few words."""
    record = find(results.folder, results.suite)
    if record is None:
        return "tuning of rates not recorded"
    rated = {tuned.name for tuned in record.methods if tuned.trials}
    counts = sorted({len(tuned.trials) for tuned in record.methods if tuned.trials})
    if not counts:
        return "rates not tuned"
    if lacking := [m for m in results.methods if m not in rated and not all(map(untrained, results.runs(m)))]:
        return (
            f"rates of {len(lacking)} methods not tuned"
            if len(lacking) > 1
            else f"rate of {sanitize(lacking[0])} not tuned"
        )
    others = " in other settings" if other_settings(results, record) else ""
    if len(counts) > 1:
        return f"rates tuned unequally{others}, {counts[0]} to {counts[-1]} trials"
    return f"rates tuned{others or ' alike'}, {counts[0]} trials each"


def _memory(results: Results) -> str:
    on_gpu = str(results.reference.spec.settings.device).startswith("cuda")
    return "memory: peak on one GPU" if on_gpu else "memory: peak of one process"
