"""Language model: losses in other units, tokens that are right, and answers that were cut or nearly tied."""

from __future__ import annotations

from hpml_bench.report.metric_groups import HARNESS, OVER_SEEDS, SHOWN, GroupSection

order = 56

section = GroupSection(
    slug="language",
    title="Language model",
    caption=f"Language model, {OVER_SEEDS}",
    groups=SHOWN["language"],
    metrics=HARNESS["language"],
)
