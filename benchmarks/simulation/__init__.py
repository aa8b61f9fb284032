"""Simulated pages whose truth is known: the tables of questions that `calibration.py` answers."""

from collections.abc import Iterable, Iterator, Sequence


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def table_lines(
    head: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]], *, left: int = 1
) -> Iterator[str]:
    """Yield the lines of a table in Markdown, each row as soon as it is known; `left`: columns
    of text.
    """
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * left}{' ---: |' * (len(head) - left)}"
    for name, cells in rows:
        yield f"| {name} | {' | '.join(cells)} |"


def print_table(title: str, head: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]]) -> None:
    print(f"\n{title}\n")
    for line in table_lines(head, rows):
        print(line, flush=True)
