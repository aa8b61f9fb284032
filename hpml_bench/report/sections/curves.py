"""How training went: losses, accuracy and gradient norm against the optimizer step."""

from __future__ import annotations

from hpml_bench.report.blocks import Section
from hpml_bench.report.results import Results

order = 50
CURVES = {
    "train_loss": ("Training loss", "", 1.0),
    "validation_loss": ("Validation loss", "", 1.0),
    "validation_accuracy": ("Validation accuracy", " %", 100.0),
    "grad_norm": ("Gradient norm before clipping", "", 1.0),
}


def section(results: Results) -> Section | None:
    """Return a chart per metric that was recorded."""
    from hpml_bench.report.figures import course

    figures = [course(results, metric, *look) for metric, look in CURVES.items()]
    drawn = tuple(figure for figure in figures if figure is not None)
    return Section(slug="curves", title="Training curves", blocks=drawn) if drawn else None
