"""Measurements without a test: tables of methods x metrics with bar charts, by what they measure.

A metric's `group` decides which table shows it. The harness's metrics have an order of their own; a
plug-in's metric joins the table of its group, with a bar chart, and groups that no table shows get
one each in "Other measurements".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from hpml_bench.judge.caveats import LONGEST_PAUSE, MOST_DRIFT, TELLING, Flag, unsteady
from hpml_bench.judge.results import Results
from hpml_bench.page.pictures.charts import bars, strip
from hpml_bench.page.tables import by_method, section_of
from hpml_bench.plugins.blocks import Question, Section, Table
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.numbers import capitalized, number
from hpml_bench.select.comparability import grouped

order = 56
Bars = tuple[
    Mapping[str, str], str, str, str
]  # labels of metrics, and name, caption and title of their bar chart


@dataclass(frozen=True)
class Group:
    """A table of the metrics of some groups, as a section."""

    slug: str  # anchor of the section, and name of its table
    title: str
    question: Question
    about: str
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    """The harness's own metrics in their order, also of other groups; other metrics of `groups`
    follow.
    """
    caption: str = ""  # by the title where there is none
    notes: Callable[[Results], list[str]] = lambda _: []
    charts: tuple[Bars, ...] = ()  # the first one whose metrics a run has is drawn


def sections(results: Results) -> Iterator[Section | None]:
    for group in GROUPS:
        # no table if only the columns borrowed from other groups have values
        metrics = (
            (*group.metrics, *added_to(results, group.groups)) if _of(results, group.groups) else ()
        )
        caption = f"{group.caption or group.title}, {_over(results)}"
        if made := by_method(results, group.slug, caption, metrics, group.notes(results)):
            speed = group.slug == "throughput"
            blocks = _speed(results, made) if speed else [made, *_bars(results, *group.charts)]
            more = _bar_charts(results, group.slug, added_to(results, group.groups))
            yield section_of(
                group.slug, group.title, *blocks, *more, question=group.question, about=group.about
            )
    others: list[Table | Picture] = []
    for slug in other_groups(results):
        name, metrics = slug.replace("-", " "), added_to(results, (slug,))
        caption = f"{name.capitalize()}, {_over(results)}"
        if made := by_method(results, f"group_{slug.replace('-', '_')}", caption, metrics):
            others += [made, *_bar_charts(results, name, metrics)]
    yield section_of(
        "others", "Other measurements", *others, question="best", about="metrics of other packages"
    )


def _over(results: Results) -> str:
    return "mean ± standard deviation over seeds" if len(results.seeds) > 1 else "one seed"


def _of(results: Results, groups: Iterable[str]) -> tuple[str, ...]:
    return results.measured(*(m.name for m in results.definitions.values() if m.group in groups))


def added_to(results: Results, groups: Iterable[str]) -> tuple[str, ...]:
    """Return the measured metrics of groups that are not the harness's own, in the order of
    definition.
    """
    return tuple(name for name in _of(results, groups) if name not in _OWN)


def other_groups(results: Results) -> tuple[str, ...]:
    known = {"quality"}.union(*(group.groups for group in GROUPS))
    return tuple(
        dict.fromkeys(m.group for m in results.definitions.values() if m.group not in known)
    )


# Charts


def _bars(results: Results, *charts: Bars) -> tuple[Picture, ...]:
    return tuple(drawn for chart in charts if (drawn := bars(results, *chart)))[:1]


def _bar_charts(results: Results, name: str, metrics: tuple[str, ...]) -> tuple[Picture, ...]:
    """Return a bar chart for the metrics of each unit."""
    found = [results.definitions[metric] for metric in metrics]
    figures: list[Picture] = []
    for of in grouped(
        found, lambda metric: "%" if metric.format.endswith("%") else metric.unit
    ).values():
        labels = {metric.name: metric.title if len(of) > 1 else "" for metric in of}
        title = capitalized(of[0].title) if len(of) == 1 else name.replace("_", " ").capitalize()
        figures += _bars(
            results, (labels, f"bars_{of[0].name}", f"{title}: mean over seeds", title)
        )
    return tuple(figures)


# Throughput


MARKS: dict[Flag, str] = {"drifts": "†", "too short to tell": "§", "paused": "¶"}
MEANING: dict[Flag, str] = {
    "drifts": (
        f"Not a steady state: the 95 % interval of the drift lies beyond {100 * MOST_DRIFT:.0f} %"
    ),
    "too short to tell": (
        "Too short to tell whether it was a steady state: the 95 % interval of the mean drift "
        f"over the runs reaches beyond {100 * TELLING:.0f} %"
    ),
    "paused": (
        f"One step took over {100 * LONGEST_PAUSE:.0f} % of the time (CV / √n > {LONGEST_PAUSE:g})"
    ),
}
MOST_NAMED = 5  # flagged runs of a method that the note names one by one
STEADY = (
    "timed_steps",
    "timed_seconds",
    "step_time_cv",
    "step_time_drift",
    "step_time_drift_low",
    "step_time_drift_high",
    "step_time_outliers",
    "slowest_rank_share",
)


def _speed(results: Results, speed: Table) -> list[Table | Picture | None]:
    """Return the table of training speed and that of the timed windows, with marks of what
    wasn't steady; a chart.
    """
    flagged = {flag: found for flag in MARKS if (found := unsteady(results, flag))}
    why = []
    for flag, found in flagged.items():
        more = {method: len(clauses) - MOST_NAMED for method, clauses in found.items()}
        named = [
            f"{method} ({'; '.join(clauses[:MOST_NAMED])}"
            f"{f'; and {more[method]} more' if more[method] > 0 else ''})"
            for method, clauses in found.items()
        ]
        why.append(f"{MARKS[flag]} {MEANING[flag]}: {'; '.join(named)}.")
    again = (
        [f"{', '.join(MARKS[flag] for flag in flagged)} As under the table of training speed."]
        if flagged
        else []
    )
    steady = by_method(results, "steady_state", f"The timed windows, {_over(results)}", STEADY)
    figure = (
        strip(results, "samples_per_second") if results.measured("samples_per_second") else None
    )
    return [
        _marked(speed, flagged, why),
        _marked(steady, flagged, again) if steady else None,
        figure,
    ]


def _marked(
    shown: Table, flagged: Mapping[Flag, Mapping[str, tuple[str, ...]]], notes: list[str]
) -> Table:
    marks = {
        row[0]: "".join(f" {MARKS[flag]}" for flag, of in flagged.items() if row[0] in of)
        for row in shown.rows
    }
    rows = tuple((row[0], f"{row[1]}{marks[row[0]]}", *row[2:]) for row in shown.rows)
    return shown.model_copy(update={"rows": rows, "notes": (*shown.notes, *notes)})


def _throughput_notes(results: Results) -> list[str]:
    notes = [
        "Throughput is what all ranks consumed in the timed steps, divided by the slowest rank's "
        "wall time between synchronised borders; warm-up steps, evaluation and the writing of "
        "records lie outside it. Virtual tokens a method adds are not counted as tokens."
    ]
    shares = {
        method: max(of.values()) for method, of in results.values("frozen_bf16_percent").items()
    }
    without = [method for method, share in shares.items() if not share]
    if without and len(without) < len(shares):
        notes.append(
            f"Frozen weights are kept in bf16, but those of {', '.join(without)} in float32, with "
            "which it computes outside the layers' own passes: they are cast at every step, and "
            "take twice the memory."
        )
    return notes


# The other groups


FEW = 200  # examples under which a 99th percentile lies among the two slowest
PHASES = {"setup": "set-up", "train": "training", "evaluation": "evaluation"}
KINDS = {
    "cuda_allocated": "CUDA allocated",
    "cuda_reserved": "CUDA reserved",
    "host": "Host memory",
}


def _language_notes(results: Results) -> list[str]:
    """Return a note on methods with answers cut before any scored part, as in reasoning, which
    score 0 for that.
    """
    cut = []
    for method in results.methods:
        answered = [results.stored[record.run_id].texts for record in results.runs(method)]
        shares = [
            np.mean(
                [
                    ended and not text.strip()
                    for ended, text in zip(one.cut, one.answer, strict=True)
                ]
            )
            for one in answered
            if one is not None and one.answer is not None and one.cut is not None
        ]
        if share := float(np.mean(shares)) if shares else 0.0:
            cut.append(f"{method} {number(100 * share, '.1f')} %")
    if not cut:
        return []
    return [
        "Share of the test rows whose answer was cut before anything that is scored, as in "
        f"reasoning that doesn't end within max_new_tokens, and counts as empty: {', '.join(cut)}. "
        "A larger max_new_tokens may score otherwise."
    ]


def _inference_notes(results: Results) -> list[str]:
    notes = [
        (
            "Merged: after the method's weights were folded into the backbone, where the method "
            "can do that."
        )
    ]
    samples = results.reference.spec.settings.latency_samples
    if samples and samples < FEW and results.measured("latency_ms_p99"):
        notes.append(f"p99 of {samples} examples is nearly the slowest of them.")
    return notes


GROUPS: Final = (
    Group(
        "language",
        "Language model",
        "best",
        "losses in other units, tokens right, answers cut",
        ("language",),
        (
            "test_perplexity",
            "test_bits_per_byte",
            "test_token_accuracy",
            "test_cut_answers",
            "test_near_ties",
            "answers_read_anew",
        ),
        notes=_language_notes,
    ),
    Group(
        "forgetting",
        "Forgetting",
        "best",
        "loss on general text, after less before",
        ("forgetting",),
        (
            "forgetting",
            "forgetting_error",
            "retention_loss",
            "base_retention_loss",
            "retention_texts",
        ),
        notes=lambda _: [
            "Forgetting is the loss on general text after the training less the base model's; "
            "negative where the training made it better."
        ],
        charts=(
            (
                {"forgetting": ""},
                "forgetting",
                "Forgetting: loss on general text after less before, mean over seeds",
                "Forgetting",
            ),
        ),
    ),
    Group(
        "throughput",
        "Throughput",
        "cost",
        "samples, tokens, step times, drift",
        ("throughput", "time", "energy"),
        (
            "samples_per_second",
            "tokens_per_second",
            "padded_tokens_per_second",
            "virtual_tokens",
            "step_ms_p50",
            "step_ms_p90",
            "step_ms_p99",
            "setup_seconds",
            "train_seconds",
            "selected_step",
            "selected_seconds",
            "total_seconds",
            "energy_joules",
            "slowed_by_heat",
            "slowed_by_power",
            "lowest_clock_mhz",
            "program_seconds",
            "program_tokens",
            "program_joules",
        ),
        "Training speed",
        _throughput_notes,
    ),
    Group(
        "memory",
        "Memory",
        "cost",
        "set-up, training, evaluation",
        ("memory",),
        (
            "peak_memory_over_setup_mb",
            "peak_memory_mb",
            "host_before_training_mb",
            *(f"{kind}_{phase}_mb" for kind in KINDS for phase in PHASES),
            "program_memory_mb",
            "program_gpu_mb",
        ),
        "Peak memory by phase",
        lambda _: [
            "Each phase has a peak of its own, of the rank with the largest. Host memory is the "
            "resident set of the whole process, libraries included; over set-up: the peak of "
            "training less what the process held right before the first step, after giving back "
            "what was free. CUDA memory is what torch's allocator gave out (allocated) or holds "
            "(reserved)."
        ],
        tuple(
            (
                {f"{kind}_{phase}_mb": label for phase, label in PHASES.items()},
                "memory",
                f"{title} by phase: peak of the largest rank, mean over seeds",
                title,
            )
            for kind, title in KINDS.items()
        ),
    ),
    Group(
        "inference",
        "Inference",
        "cost",
        "test pass, and latency of one example",
        ("inference",),
        (
            "inference_seconds",
            "inference_samples_per_second",
            "latency_ms_p50",
            "latency_ms_p99",
            "merged_latency_ms_p50",
            "merged_latency_ms_p99",
            "evaluation_seconds",
            "validation_answer_seconds",
            "test_answer_seconds",
            "answer_ms",
            "first_token_ms_p50",
            "generated_tokens_per_second",
            "prompt_tokens",
        ),
        notes=_inference_notes,
        charts=(
            (
                {
                    "latency_ms_p50": "median",
                    "latency_ms_p99": "p99",
                    "merged_latency_ms_p50": "median, merged",
                },
                "latency",
                "Latency of one example: mean over seeds of each run's percentile",
                "Latency of one example",
            ),
        ),
    ),
    Group(
        "merging",
        "Merging",
        "cost",
        "scores before and after",
        ("merging",),
        (
            "test_loss",
            "merged_test_loss",
            "test_score",
            "merged_test_score",
            "merged_answers_changed",
            "merged_logit_difference",
            "dequantized_test_loss",
            "dequantized_test_score",
            "dequantized_answers_changed",
            "dequantized_bytes",
            "converted_rank",
            "converted_test_loss",
            "converted_test_score",
            "converted_score_difference",
            "converted_answers_changed",
        ),
        notes=lambda _: [
            "Of methods that can be folded into the model's weights; what they score unmerged "
            "stands beside."
        ],
    ),
    Group(
        "parameters",
        "Parameters and gradients",
        "cost",
        "trained, saved, sent between processes",
        ("parameters", "communication", "gradient"),
        (
            "trainable_parameters",
            "head_parameters",
            "total_parameters",
            "trainable_percent",
            "adapted_percent",
            "quantized_percent",
            "frozen_bytes",
            "saved_bytes",
            "allreduced_bytes_per_step",
            "within_nodes_bytes_per_step",
            "between_nodes_bytes_per_step",
            "grad_norm",
            "grad_norm_per_sqrt_parameter",
            "skipped_steps",
        ),
        "Parameters and what they weigh",
        lambda _: [
            "The task's head is trained with every method and counted apart. Gradient norms of "
            "methods with different "
            "numbers of parameters do not compare; the one per √parameter does better."
        ],
    ),
)
"""Tables in their order; the metrics of `quality` are columns of the scores."""
ELSEWHERE = frozenset(
    {
        "first_step_seconds",  # the time budget
        "train_seconds_second_clock",  # a self-check
        "merged_evaluation_seconds",
        "dequantized_evaluation_seconds",
        "converted_evaluation_seconds",  # the time budget
        "frozen_bf16_percent",  # a note on the throughput
        "communication_ms",
        "communication_percent",  # scaling
        "nvml_used_setup_mb",
        "nvml_used_train_mb",
        "nvml_used_evaluation_mb",  # the glossary: of the whole device
    }
)
"""The harness's metrics that other tables show, or that serve as a check: no columns of their
groups' tables.
"""
_OWN = ELSEWHERE.union(STEADY, *(group.metrics for group in GROUPS))
