"""Parameters: numbers trained, bytes stored and sent, and the norms of gradients."""

from __future__ import annotations

from hpml_bench.report.metric_groups import GroupSection

order = 90
question = "cost"
about = "trained, saved, sent between processes"
NOTE = (
    "The task's head is trained with every method and counted apart. Gradient norms of methods with different numbers "
    "of parameters do not compare; the one per √parameter does better."
)
section = GroupSection(
    "parameters", "Parameters and gradients", "Parameters and what they weigh", notes=lambda _: [NOTE]
)
