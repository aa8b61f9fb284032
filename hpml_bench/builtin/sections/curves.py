"""Training curves: losses, the score and the gradient norm against the optimizer step, and metrics of plug-ins."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Fold, Section
from hpml_bench.report.curves import validation_of
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity, section_of

order = 50
question = "training"
about = "mean over seeds, by step"
folded = False
Labels = tuple[str, str, float]
"""Title, unit with a space before it, and what values are multiplied by."""
LOSSES: dict[str, Labels] = {
    "train_loss": ("Training loss", "", 1.0),
    "validation_loss": ("Validation loss", "", 1.0),
}
NORM: dict[str, Labels] = {"grad_norm": ("Gradient norm before clipping", "", 1.0)}


def section(results: Results) -> Section | None:
    """Return a chart per metric that was recorded."""
    from hpml_bench.report.pictures.charts import line_chart

    figures = {metric: line_chart(results, metric, *labels) for metric, labels in _curves(results).items()}
    norm = figures.pop("grad_norm")
    fold = Fold(title="Gradient norm", about="before clipping", blocks=(norm,)) if norm else None
    return section_of("curves", "Training curves", *figures.values(), fold)


def _curves(results: Results) -> dict[str, Labels]:
    """Return the labels of each curve: of the harness's own, then of other metrics that have points."""
    score = {}
    if results.quality in results.definitions:
        quantity = Quantity.of(results, results.quality)
        score = {validation_of(results.quality): _labels(quantity, f"Validation {quantity.title}")}
    known = LOSSES | score | NORM
    others = [name for name in results.curves if name in results.definitions and name not in known]
    return known | {name: _labels(quantity := Quantity.of(results, name), quantity.heading) for name in others}


def _labels(quantity: Quantity, title: str) -> Labels:
    return title, f" {quantity.unit}" if quantity.unit else "", quantity.scale
