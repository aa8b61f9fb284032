"""What each phase needs at its peak: set-up, training and evaluation apart."""

from __future__ import annotations

from hpml_bench.report.blocks import Section
from hpml_bench.report.results import MEMORY, Results
from hpml_bench.report.tables import by_method

order = 70
PHASES = {"setup": "set-up", "train": "training", "evaluation": "evaluation"}
KINDS = {"cuda_allocated": "CUDA allocated", "cuda_reserved": "CUDA reserved", "host": "Host memory"}


def section(results: Results) -> Section | None:
    """Return the memory table, and a chart by phase of the GPU's memory, else of the host's."""
    from hpml_bench.report.figures import bars

    metrics = [*MEMORY, "host_before_training_mb", *(f"{kind}_{phase}_mb" for kind in KINDS for phase in PHASES)]
    notes = [
        "Each phase has a peak of its own, of the rank with the largest. Host memory is the resident set of the whole "
        "process, libraries included; over set-up: the peak of training less what the process held right before the "
        "first step, after giving back what was free. CUDA memory is what torch's allocator gave out (allocated) or "
        "holds (reserved)."
    ]
    table = by_method(results, "memory", "Peak memory by phase, mean ± standard deviation over seeds", metrics, notes)
    if table is None:
        return None
    kind = next((kind for kind in KINDS if results.measured(f"{kind}_train_mb")), None)
    figure = None
    if kind:
        groups = {f"{kind}_{phase}_mb": label for phase, label in PHASES.items()}
        caption = f"{KINDS[kind]} by phase: peak of the largest rank, mean over seeds"
        figure = bars(results, groups, "memory", caption, f"{KINDS[kind]} (MB)")
    return Section(slug="memory", title="Memory", blocks=(table, *((figure,) if figure else ())))
