"""Merging: a language model's loss and score before and after the method was folded into its weights."""

from __future__ import annotations

from hpml_bench.report.metric_groups import HARNESS, OVER_SEEDS, SHOWN, GroupSection

order = 82

section = GroupSection(
    slug="merging",
    title="Merging",
    caption=f"Merging, {OVER_SEEDS}",
    groups=SHOWN["merging"],
    metrics=HARNESS["merging"],
    notes=lambda _: ["Of methods that can be folded into the model's weights; what they score unmerged stands beside."],
)
