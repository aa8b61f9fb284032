"""Made folders whose pages are kept: jobs, hosts, failures, looks, a tuning, GPUs, several suites;
of few metrics.

`GOLDEN=write python -m pytest tests/report/test_golden.py` writes the pages anew, as
tests/files/golden/NAME.md.
"""

import re
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from helpers import made_records, rich_records
from helpers.made_records import METHODS, SETTINGS, failed, in_suite, record, sweep
from hpml_bench.page.render import load, page_over, write_page, write_report
from hpml_bench.plugins.dataset import FEWER
from hpml_bench.records.files import PREDICTIONS, RECORD
from hpml_bench.records.run import Consumed, Declared, Metric, Point, RunError, RunRecord
from hpml_bench.records.tuning import Trial, TunedMethod, TuningRecord
from hpml_bench.suite.settings import DatasetSpec, MethodSpec, OptimizerSpec
from hpml_bench.suite.suite import Margin

PAGES = Path(__file__).parents[1] / "files" / "golden"
SHOWN = (
    "test_accuracy",
    "test_macro_f1",
    "test_loss",
    "train_seconds",
    "samples_per_second",
    "peak_memory_mb",
    "saved_bytes",
    "trainable_percent",
)
"""Metrics of the made runs: those of the tables that are compared, and one or two of the others."""


def few(records: Iterable[RunRecord]) -> list[RunRecord]:
    definitions = tuple(metric for metric in made_records.DEFINITIONS if metric.name in SHOWN)
    return [
        run.model_copy(
            update={
                "definitions": definitions,
                "metrics": {name: of for name, of in run.metrics.items() if name in SHOWN},
            }
        )
        for run in records
    ]


def course(method: str, seed: int) -> list[Point]:
    """Return a course whose validation loss still falls at the end for lora alone."""
    ends = {"lora": (0.50, 0.45), "full": (0.50, 0.52)}.get(method, (0.5, 0.5))
    losses = zip((40, 70, 100), (1.0, *ends), strict=True)
    made = [Point(metric="validation_loss", step=step, value=value) for step, value in losses]
    return [
        *made,
        *(
            point
            for point in made_records.points(method, seed)
            if point.metric == "validation_accuracy"
        ),
    ]


def on_hosts(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs on hosts in turn by seed, but one elsewhere, one on other hardware and one
    with a neighbour.
    """
    found = []
    for run in records:
        name, seed = run.spec.method.name, run.spec.seed
        host = "n9" if (name, seed) == ("full", 2) else f"n{seed % 2}"
        where = {"engine": "slurm", "job": f"12_{seed}", "host": host, "restart": 0}
        environment: dict[str, Any] = run.environment | {"hosts": [host], "where": where}
        if (name, seed) == ("head", 1):
            cards = {"gpus": [{"name": "NVIDIA H100"}] * 2, "nodes": 2}
            hardware = environment["hardware"] | cards
            environment |= {"kernel": "6.9", "fingerprint": "ffff00001111", "hardware": hardware}
        beside = ("another",) if (name, seed) == ("lora", 3) else ()
        found.append(run.model_copy(update={"environment": environment, "neighbours": beside}))
    return found


def _hosts(folder: Path) -> Path:
    """Runs on one rank too, of which those of seed 1 alone share a host with those on two, and
    both had it alone.
    """
    one_rank = SETTINGS.model_copy(update={"world_size": 1})
    own = {0: {"neighbours": ("another",)}, 2: {"hosts": ["n7"]}, 3: {"neighbours": ()}}
    scaled = on_hosts(
        few([*sweep(("lora",), 4, settings=one_rank), record("head", 7, 30, settings=one_rank)])
    )
    for seed, update in own.items():
        environment = scaled[seed].environment | {
            key: of for key, of in update.items() if key == "hosts"
        }
        scaled[seed] = scaled[seed].model_copy(update=update | {"environment": environment})
    return made_records.write(
        folder, [*on_hosts(few(sweep(("lora", "full", "head"), 5))), *scaled], course
    )


TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 60, in start
    execute(spec)
    ^^^^^^^^^^^^^
%s  File "method.py", line 7, in after_step
    raise ArithmeticError("the raising line of %s")
ArithmeticError: %s
"""


def raising(name: str, message: str = "<b>told</b>", calls: int = 0, seed: int = 7) -> RunRecord:
    deep = "".join(
        f'  File "deep.py", line {number}, in call\n    call()\n' for number in range(calls)
    )
    error = RunError(
        kind="failed", message=message, rank=0, traceback=TRACEBACK % (deep, name, message)
    )
    return failed("lora", seed, "failed", message, error=error)


def _failures(folder: Path) -> Path:
    runs = few(sweep(("lora", "full", "head"), 4))
    lost = {("full", 1), ("full", 3), ("head", 2)}
    kept = [run for run in runs if (run.spec.method.name, run.spec.seed) not in lost]
    worse = {"head": {"test_accuracy": 0.27}}
    guess = [
        run.model_copy(update={"metrics": run.metrics | worse.get(run.spec.method.name, {})})
        for run in kept
    ]
    broken = [
        *(raising("some runs", seed=seed) for seed in (6, 7)),
        raising("deep", "a line of many\n" * 500 + "y" * 5_000, 100, seed=5),
        *(raising(f"run {n}", seed=80 + n) for n in range(6)),
        failed("full", 1, "diverged", "the loss is NaN"),
        failed("full", 3, "timeout", "took over 60 s"),
        failed("head", 2, "interrupted", "Ctrl-C"),
        failed("peft", 0, "unsupported", "needs convolutions"),
        record("adapter", 0, consumed=None),
        record("lora", 0, 20, settings=SETTINGS.model_copy(update={"train_samples": 512})),
    ]
    place = made_records.write(folder, [*guess, *few(broken)], course)
    (place / "torn").mkdir()
    (place / "torn" / "run.json").write_text("{")
    return place


def _looks(folder: Path) -> Path:
    margin = Margin(quality=0.02, cost=0.1)
    runs = [
        run.model_copy(
            update={"declared": Declared(seeds=4 if run.spec.seed < 4 else 6, margin=margin)}
        )
        for run in few(sweep(("lora", "full", "adapter"), 6))
    ]
    return made_records.write(folder, runs, course)


def _tuned(folder: Path) -> Path:
    accuracy: Metric = next(
        metric for metric in made_records.DEFINITIONS if metric.name == "test_accuracy"
    )

    def tuned(name: str, *scores: float | None) -> TunedMethod:
        trials = [
            Trial(
                number=at,
                lr=rate,
                seed=100 + at,
                status="diverged" if score is None else "ok",
                score=score,
                loss=None if score is None else 1 - score,
                seconds=2.0,
                samples=1600,
                parameters=9,
                run_id=f"{name}-{at}",
            )
            for at, (rate, score) in enumerate(zip((1e-3, 3e-3, 1e-2), scores, strict=True))
        ]
        return TunedMethod(
            spec=record(name).spec.method,
            low=3e-4,
            high=3e-2,
            trials=tuple(trials),
            better="higher",
        )

    place = made_records.write(folder, few(sweep(("lora", "full"), 2)), course)
    found = TuningRecord(
        suite="example",
        sampler="qmc",
        factor=10.0,
        settings=SETTINGS,
        validation_rows=500,
        headline=accuracy,
        digests={key: value for key, value in made_records.DIGESTS if value},
        methods=(tuned("lora", 0.7, 0.8, None), tuned("full", 0.6, 0.7, 0.75)),
    )
    (place / "tuning").mkdir()
    (place / "tuning" / "trials.json").write_text(found.model_dump_json())
    return place


def _cluster(folder: Path) -> Path:
    """Long runs on GPUs, of methods of one name with optimizers and options of their own; fewer
    rows, in groups.
    """
    cards = {"hardware": {"gpus": [{"name": "NVIDIA H100"}], "cpu": "Example"}, "hosts": ["n1"]}
    settings = SETTINGS.model_copy(
        update={"device": "cuda", "world_size": 4, "train_samples": 4000}
    )
    notes = {FEWER: "train_samples asks for 4,000 rows, there are 3,000, and all of them are taken"}
    frozen = made_records._metric(
        "frozen_bf16_percent", "frozen weights in bf16", "%", "higher", "setup", ".0f"
    )
    plus, ranks = (
        [OptimizerSpec(name="lora_plus", options={"ratio": of}) for of in (4.0, 16.0)],
        {"q_proj": 4},
    )
    own = {"type": "LORA", "options": {"r": 8}}
    specs = [
        record("full").spec.method,
        *(record("lora").spec.method.model_copy(update={"optimizer": of}) for of in (None, *plus)),
    ]
    specs += [
        MethodSpec(name="own", method="peft", options=of, lr=1e-3)
        for of in (own, own | {"options": {"r": 8, "rank_pattern": ranks}})
    ]
    runs = []
    for order, (seed, spec) in enumerate(product(range(3), specs)):
        fields = {
            "settings": settings,
            "notes": notes,
            "environment": made_records.ENVIRONMENT | cards,
        }
        (run,) = few([record(spec.name, seed, order, method_spec=spec, **fields)])
        longer = {
            name: factor * run.metrics[name]
            for name, factor in (("train_seconds", 400), ("peak_memory_mb", 40))
        }
        kept = {"frozen_bf16_percent": {"full": None, "lora": 0.0}.get(spec.name, 97.0)}
        update = {"metrics": run.metrics | longer | kept, "definitions": (*run.definitions, frozen)}
        runs.append(run.model_copy(update=update))
    for seed, steps in ((9, 50), (8, 200), (7, 100)):
        budget = Consumed(
            steps=steps, samples=16 * steps, real_tokens=1, padded_tokens=1, order=f"{steps}"
        )
        spec = runs[0].spec.model_copy(update={"seed": seed})
        runs.append(
            runs[0].model_copy(update={"spec": spec, "run_id": spec.run_id, "consumed": budget})
        )
    place = made_records.write(folder, runs, course)
    odd = next(place.glob("full-s7-*"))
    alone = {name: (odd / name).read_bytes() for name in (PREDICTIONS, RECORD)}
    made_records.grouped(place, np.repeat(np.arange(100), 10))
    for name, content in alone.items():
        (odd / name).write_bytes(content)
    return place


def _apart(folder: Path) -> Path:
    """Methods of which each has a host of its own, one 8 % slower."""
    runs = few(sweep(("lora", "full"), 5))
    for at, run in enumerate(runs):
        host, pace = {"lora": ("n1", 1.0), "full": ("n2", 1.08)}[run.spec.method.name]
        own = {"metrics": run.metrics | {"train_seconds": pace * run.metrics["train_seconds"]}}
        runs[at] = run.model_copy(update=own | {"environment": run.environment | {"hosts": [host]}})
    return made_records.write(folder, runs, course)


MADE: dict[str, Callable[[Path], Path]] = {
    "jobs": rich_records.write,
    "hosts": _hosts,
    "failures": _failures,
    "looks": _looks,
    "tuned": _tuned,
    "cluster": _cluster,
    "apart": _apart,
}

OVER = {"over_suites": range(9), "over_two": (0, 1, 1)}
"""Numbers of the data sets of made suites, of which a second suite of the same isn't ranked."""


def page(name: str, folder: Path) -> str:
    """Return the Markdown of a made folder, or of made suites, without its charts and its
    glossary.
    """
    out = folder / "out"
    if name in OVER:
        suites = []
        for number, of in enumerate(OVER[name]):
            data = DatasetSpec(name="newswire", options={"p": 0.6, "of": f"data {of}"})
            runs = [in_suite(run, f"suite-{number}", data) for run in few(sweep(METHODS[:3], 3))]
            suites.append(load(made_records.write(folder / f"suite-{number}", runs, lambda *_: [])))
        write_page(page_over(suites, out), out, ("md",))
    else:
        write_report(MADE[name](folder / "records"), out, ("md",))
    text = (out / "report.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[.*\n\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"<details><summary>Glossary.*?</details>\n", "", text, flags=re.DOTALL)
