"""Forgetting: the change of the loss on general text by the training, from the base model's."""

from __future__ import annotations

from hpml_bench.report.metric_groups import Bars, GroupSection

order = 58
question = "best"
about = "loss on general text, after less before"
NOTE = (
    "Forgetting is the loss on general text after the training less the base model's; negative where the training "
    "made it better."
)
CAPTION = "Forgetting: loss on general text after less before, mean over seeds"
CHART: Bars = ({"forgetting": ""}, "forgetting", CAPTION, "Forgetting (nats/token)")
section = GroupSection("forgetting", "Forgetting", notes=lambda _: [NOTE], chart=lambda _: CHART)
