"""What the terminal shows after a tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_bench.records.tuning import TunedMethod, TuningRecord

if TYPE_CHECKING:
    from rich.console import Console


def show(record: TuningRecord, console: Console) -> None:
    """Print a row a method, then what the reader should do something about."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{record.suite}: learning rates chosen on the validation rows"), title_justify="left")
    columns = ("method", "chosen lr", "before", "validation accuracy", "tried", "trials", "seconds")
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if index == 0 else "right", no_wrap=index == 0)
    for tuned in record.methods:
        table.add_row(*(Text(cell) for cell in _cells(tuned)))
    console.print(table)
    for hint in hints(record):
        console.print(Text(hint))


def _cells(tuned: TunedMethod) -> tuple[str, ...]:
    tried = [trial.lr for trial in tuned.trials]
    accuracy = tuned.best.accuracy if tuned.best else None
    return (
        tuned.name,
        f"{tuned.chosen:.3g}" if tuned.rated else "has none",
        f"{tuned.spec.lr:.3g}",
        "none ended well" if accuracy is None else f"{accuracy:.1%}",
        f"{min(tried):.2g} to {max(tried):.2g}" if tried else "",
        str(len(tuned.trials)),
        f"{tuned.seconds:.0f}",
    )


def hints(record: TuningRecord) -> list[str]:
    """Return a sentence for each method whose choice should not be taken as it is."""
    found = []
    for tuned in record.methods:
        if tuned.best is None:
            found.append(f"{tuned.name}: no trial ended well; it keeps {tuned.spec.lr:.3g}, see its logs")
        elif tuned.at_edge:
            side = "below" if tuned.best.lr == min(trial.lr for trial in tuned.trials) else "above"
            found.append(
                f"{tuned.name}: the best rate is the last one tried; a better one may lie {side} {tuned.best.lr:.3g}: "
                f"tune again with --set methods.{tuned.name}.lr={tuned.best.lr:.3g}"
            )
    return found
