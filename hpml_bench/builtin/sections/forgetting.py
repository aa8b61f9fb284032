"""Forgetting: the change of the loss on general text by the training, from the base model's."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Figure
from hpml_bench.report.metric_groups import HARNESS, OVER_SEEDS, SHOWN, GroupSection
from hpml_bench.report.results import Results

order = 58


def _notes(_: Results) -> list[str]:
    return [
        "Forgetting is the loss on general text after the training less the base model's; negative where the training "
        "made it better."
    ]


def _chart(results: Results) -> Figure | None:
    from hpml_bench.report.figures import bars

    caption = "Forgetting: loss on general text after less before, mean over seeds"
    return bars(results, {"forgetting": ""}, "forgetting", caption, "Forgetting (nats/token)")


section = GroupSection(
    slug="forgetting",
    title="Forgetting",
    caption=f"Forgetting, {OVER_SEEDS}",
    groups=SHOWN["forgetting"],
    metrics=HARNESS["forgetting"],
    notes=_notes,
    chart=_chart,
)
