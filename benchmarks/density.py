"""Density of the code: lengths of statements, comments, and what is packed into expressions.

    python benchmarks/density.py [FOLDER ...] [--rooms] [--files N]

Prints a table with a row for each folder; `--rooms` adds one for each folder in it, `--files` the N
files whose statements are longest. It is a report, not a check: a file that can't be read or parsed
is named and left out, and the status is 0.

A statement is a logical line, however many lines it is wrapped into, so that only the last two
columns depend on how lines are broken:

tokens/stmt, p95    mean and 95th percentile of a statement's tokens: names, operators, numbers, and
                    strings, of which docstrings are some; an f-string is one token
comments/k          comments per 1,000 tokens
compr/k             comprehensions and generator expressions per 1,000 tokens
if-else/k           conditional expressions per 1,000 tokens
:=/k                assignment expressions per 1,000 tokens
tokens/line         tokens per line that isn't blank
100+ cols           share of lines that have 100 columns or more, among those that aren't blank
"""

import argparse
import ast
import io
import math
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDERS = [Path("hpml_bench"), Path("benchmarks"), Path("tests")]
COUNTED_TOKENS = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DIRECTIVE = re.compile(r"#\s*(noqa\b|(fmt|mypy|pragma|ruff|type):)")
"""Comments that are for tools, and are not counted."""
WIDE = 100
"""Columns from which a line is wide."""
HEADER = [
    "",
    "files",
    "tokens",
    "tokens/stmt",
    "p95",
    "comments/k",
    "compr/k",
    "if-else/k",
    ":=/k",
    "tokens/line",
    f"{WIDE}+ cols",
]


@dataclass(frozen=True)
class Density:
    """Counts over some files, and the number of tokens in each of their statements."""

    files: int
    lines: int
    wide_lines: int
    comments: int
    comprehensions: int
    conditionals: int
    walruses: int
    statements: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(self.statements)

    def mean_statement(self) -> float:
        return self.tokens / max(1, len(self.statements))

    def long_statement(self) -> int:
        """Return the 95th percentile of the statements' tokens, by the nearest rank."""
        if not self.statements:
            return 0
        rank = math.ceil(0.95 * len(self.statements))
        return sorted(self.statements)[rank - 1]

    def per_thousand(self, count: int) -> float:
        """Return a count per 1,000 tokens."""
        return 1000 * count / max(1, self.tokens)

    def tokens_per_line(self) -> float:
        return self.tokens / max(1, self.lines)

    def wide_share(self) -> float:
        return self.wide_lines / max(1, self.lines)


def measure(source: str) -> Density:
    """Return the density of one file's source; an error where it can't be parsed."""
    nodes = list(ast.walk(ast.parse(source)))
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    lines = [line for line in source.split("\n") if line.strip()]
    return Density(
        files=1,
        lines=len(lines),
        wide_lines=sum(len(line) >= WIDE for line in lines),
        comments=sum(not DIRECTIVE.match(comment) for comment in comments),
        comprehensions=sum(isinstance(node, COMPREHENSIONS) for node in nodes),
        conditionals=sum(isinstance(node, ast.IfExp) for node in nodes),
        walruses=sum(isinstance(node, ast.NamedExpr) for node in nodes),
        statements=tuple(statement_lengths(tokens)),
    )


def statement_lengths(tokens: Iterable[tokenize.TokenInfo]) -> Iterator[int]:
    """Yield the number of tokens in each logical line.

    Python 3.12 and later give an f-string as several tokens. They count as one here, as they do in
    Python 3.11, so that all versions measure the same.
    """
    length = 0
    open_f_strings = 0
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            length += open_f_strings == 0
            open_f_strings += 1
        elif kind == "FSTRING_END":
            open_f_strings -= 1
        elif open_f_strings:
            continue
        elif token.type in COUNTED_TOKENS:
            length += 1
        elif token.type == tokenize.NEWLINE:
            yield length
            length = 0


def combined(parts: Sequence[Density]) -> Density:
    """Return the density of several files as a whole."""
    return Density(
        files=sum(part.files for part in parts),
        lines=sum(part.lines for part in parts),
        wide_lines=sum(part.wide_lines for part in parts),
        comments=sum(part.comments for part in parts),
        comprehensions=sum(part.comprehensions for part in parts),
        conditionals=sum(part.conditionals for part in parts),
        walruses=sum(part.walruses for part in parts),
        statements=tuple(length for part in parts for length in part.statements),
    )


def measure_folder(folder: Path) -> dict[Path, Density]:
    """Return the density of each Python file below a folder; print which ones have none."""
    densities = {}
    for file in sorted(folder.rglob("*.py")):
        try:
            densities[file] = measure(file.read_text(encoding="utf-8", errors="replace"))
        except (OSError, SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
            print(f"{file} is left out: {error}")
    return densities


def row(name: object, density: Density) -> list[str]:
    """Return the cells of a row, in the order of HEADER."""
    return [
        str(name),
        f"{density.files:,}",
        f"{density.tokens:,}",
        f"{density.mean_statement():.1f}",
        f"{density.long_statement()}",
        f"{density.per_thousand(density.comments):.1f}",
        f"{density.per_thousand(density.comprehensions):.1f}",
        f"{density.per_thousand(density.conditionals):.1f}",
        f"{density.per_thousand(density.walruses):.1f}",
        f"{density.tokens_per_line():.1f}",
        f"{density.wide_share():.1%}",
    ]


def rows_of_folder(folder: Path, rooms: bool, files: int) -> list[list[str]]:
    """Return a folder's row, those of its subfolders where `rooms`, and of so many files."""
    densities = measure_folder(folder)
    rows = [row(folder, combined(list(densities.values())))]
    if rooms and folder.is_dir():
        for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
            inside = [density for file, density in densities.items() if subfolder in file.parents]
            if inside:
                rows.append(row(subfolder, combined(inside)))
    densest = sorted(densities, key=lambda file: densities[file].mean_statement(), reverse=True)
    rows += [row(file, densities[file]) for file in densest[: max(0, files)]]
    return rows


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table whose columns are aligned: names left, numbers right."""
    widths = [max(len(cell) for cell in column) for column in zip(HEADER, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for name, *numbers in (HEADER, rule, *rows):
        cells = [name.ljust(widths[0])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS, metavar="FOLDER")
    parser.add_argument("--rooms", action="store_true", help="also the folders in each")
    parser.add_argument("--files", type=int, default=0, metavar="N", help="also N densest files")
    options = parser.parse_args(argv)
    rows = []
    for folder in options.folders:
        rows += rows_of_folder(folder, options.rooms, options.files)
    print(as_table(rows))


if __name__ == "__main__":
    main()
