"""A receipt on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_bench.gate.decide.verdicts import overall
from hpml_bench.gate.records import Receipt
from hpml_bench.gate.render import tables
from hpml_bench.report.terminal import print_table
from hpml_bench.system.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

COLORS = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow", "INCOMPARABLE": "bold yellow"}


def print_receipt(receipt: Receipt, console: Console) -> None:
    """Print sides, tables, what is wrong in a sentence each, and the outcome as the last line."""
    from rich.text import Text

    console.print(Text(for_terminal(f"{tables.side(receipt.candidate)} against {tables.side(receipt.reference)}")))
    if tables.of_step_time(receipt):
        print_table(tables.step_times(receipt), console)
    changed = tables.counted(receipt, changed_only=True)
    if changed.rows:
        print_table(changed, console)
    sentences = [tables.unchanged(receipt), *tables.notes(receipt), *tables.details(receipt)]
    for sentence in filter(None, sentences):
        console.print(Text(for_terminal(sentence)))
    console.print(Text(for_terminal(tables.headline(receipt)), style=COLORS[overall(receipt.verdicts)]))
