"""Merging: a language model's loss and score before and after the method was folded into its weights."""

from __future__ import annotations

from hpml_bench.report.metric_groups import GroupSection

order = 82
question = "cost"
about = "scores before and after"
NOTE = "Of methods that can be folded into the model's weights; what they score unmerged stands beside."
section = GroupSection("merging", "Merging", notes=lambda _: [NOTE])
