"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hpml_bench.verify import figures, files, page, plan, seeds
from hpml_bench.verify.evidence import Look, RunLook

OF_FILES: tuple[Look, ...] = (files.plain_files, files.hashes, files.secrets, files.private_paths)
OF_PLAN: tuple[Look, ...] = (
    plan.ids, plan.once_each, plan.planned, plan.suite, plan.places, plan.unfinished, plan.set_aside, plan.dates,
    plan.environment, plan.protocol, plan.labels,
)  # fmt: skip
SELECTED: tuple[Look, ...] = (figures.predictions, figures.passed, figures.definitions, figures.times, figures.copies)
OF_RUNS: tuple[RunLook, ...] = (
    figures.scores, figures.self_checks, figures.metrics, figures.wall_time, figures.steps, figures.figures,
    figures.ranks, figures.rates, figures.evaluations,
)  # fmt: skip
"""Checks of each run that ended well; all others are of the folder."""
OF_SEEDS: tuple[Look, ...] = (seeds.consumption, seeds.batches, seeds.answers, seeds.sizes, seeds.sample_order)
OF_FOLDER: tuple[Look, ...] = (*OF_FILES, *OF_PLAN, *SELECTED, *OF_SEEDS, page.page)
ALL: tuple[Callable[..., Iterable[object]], ...] = (*OF_FILES, *OF_PLAN, *SELECTED, *OF_RUNS, *OF_SEEDS, page.page)
