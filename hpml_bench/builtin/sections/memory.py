"""Memory: separate peaks of set-up, training and evaluation."""

from __future__ import annotations

from hpml_bench.report.metric_groups import OVER_SEEDS, Bars, GroupSection
from hpml_bench.report.results import Results

order = 70
question = "cost"
about = "set-up, training, evaluation"
PHASES = {"setup": "set-up", "train": "training", "evaluation": "evaluation"}
KINDS = {"cuda_allocated": "CUDA allocated", "cuda_reserved": "CUDA reserved", "host": "Host memory"}
NOTE = (
    "Each phase has a peak of its own, of the rank with the largest. Host memory is the resident set of the whole "
    "process, libraries included; over set-up: the peak of training less what the process held right before the first "
    "step, after giving back what was free. CUDA memory is what torch's allocator gave out (allocated) or holds "
    "(reserved)."
)


def _chart(results: Results) -> Bars | None:
    """Return the phases of the GPU's memory, else of the host's."""
    kind = next((kind for kind in KINDS if results.measured(f"{kind}_train_mb")), None)
    if kind is None:
        return None
    groups = {f"{kind}_{phase}_mb": label for phase, label in PHASES.items()}
    caption = f"{KINDS[kind]} by phase: peak of the largest rank, mean over seeds"
    return groups, "memory", caption, f"{KINDS[kind]} (MB)"


section = GroupSection("memory", "Memory", f"Peak memory by phase, {OVER_SEEDS}", notes=lambda _: [NOTE], chart=_chart)
