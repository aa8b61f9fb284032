"""Table of a tuning for the terminal, and hints on choices to reconsider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_bench.records.tuning import TunedMethod, TuningRecord
from hpml_bench.report.numbers import Cell, Quantity
from hpml_bench.report.tables import table
from hpml_bench.report.terminal import print_table
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console


def show(record: TuningRecord, console: Console) -> None:
    """Print one row per method, then hints on choices to reconsider."""
    from rich.text import Text

    score = Quantity.of(record.headline)
    columns = ("method", "chosen lr", "before", f"validation {score.title}", "tried", "trials", "seconds")
    rows = [_cells(tuned, score) for tuned in record.methods]
    caption = f"{record.suite}: learning rates chosen on the validation rows"
    print_table(table("tuning", caption, columns, rows), console)
    for hint in hints(record):
        console.print(Text(for_terminal(hint)))


def _cells(tuned: TunedMethod, score: Quantity) -> list[Cell]:
    tried, best = [trial.lr for trial in tuned.trials], tuned.best_score
    return [
        tuned.name,
        f"{tuned.chosen:.3g}" if tuned.rated else "has none",
        f"{tuned.spec.lr:.3g}",
        "none ended well" if best is None else score.text(best, unit=True),
        f"{min(tried):.2g} to {max(tried):.2g}" if tried else "",
        str(len(tuned.trials)),
        f"{tuned.seconds:.0f}",
    ]


def hints(record: TuningRecord) -> list[str]:
    """Return a sentence for each method whose choice should be reconsidered."""
    sentences = []
    for tuned in record.methods:
        if tuned.best is None:
            sentences.append(f"{tuned.name}: no trial ended well; it keeps {tuned.spec.lr:.3g}, see its logs")
        elif tuned.at_edge:
            side = "below" if tuned.best.lr == min(trial.lr for trial in tuned.trials) else "above"
            sentences.append(
                f"{tuned.name}: the best rate is the last one tried; a better one may lie {side} {tuned.best.lr:.3g}: "
                f"tune again with --set methods.{tuned.name}.lr={tuned.best.lr:.3g}"
            )
    return sentences
