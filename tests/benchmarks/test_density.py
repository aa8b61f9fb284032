"""The measures of density: exact on a small source, and no error where nothing can be measured."""

from pathlib import Path

import density
import pytest
from density import Density, measure

SOURCE = '''\
"""A docstring."""

# a comment
import sys  # noqa: F401


def doubled(values):  # another comment
    result = [
        2 * value  # a third
        for value in values
    ]
    if (count := len(result)) > 1:
        return f"{count} of {values[0]!r:>{count}}" if values else {value for value in result}
    return f"""{count}
    # in a string
    """
'''
LONG_LINE = "long_name = " + " + ".join(["1"] * 23) + "\n"
"""A line of 101 columns, and 47 tokens."""


def test_a_small_source_is_measured_exactly() -> None:
    """A statement is a logical line, an f-string one token, and a comment for a tool none."""
    assert measure(SOURCE) == Density(
        files=1,
        lines=13,
        wide_lines=0,
        comments=3,
        comprehensions=2,
        conditionals=1,
        walruses=1,
        statements=(1, 2, 6, 11, 12, 12, 2),
    )


def test_figures_follow_from_the_counts() -> None:
    """Means and shares are those of all files; the long statement is that of the nearest rank."""
    whole = density.combined([measure(SOURCE), measure(LONG_LINE)])
    assert whole.files == 2
    assert whole.tokens == 46 + 47
    assert whole.mean_statement() == 93 / 8
    assert whole.long_statement() == 47
    assert whole.per_thousand(whole.comments) == pytest.approx(1000 * 3 / 93)
    assert whole.tokens_per_line() == 93 / 14
    assert whole.wide_share() == 1 / 14
    many = density.combined([measure("one\n" * 95), measure(LONG_LINE * 5)])
    assert many.long_statement() == 1
    assert density.combined([many, measure(LONG_LINE)]).long_statement() == 47


@pytest.mark.parametrize(("columns", "wide"), [(99, 0), (100, 1), (101, 1)])
def test_a_line_of_100_columns_is_wide(columns: int, wide: int) -> None:
    assert measure("#" * columns + "\n").wide_lines == wide


def test_the_table_has_folders_subfolders_and_the_densest_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that can't be parsed is named, and a folder that isn't there has a row of zeros."""
    for name, source in {
        "package/inside/small.py": SOURCE,
        "package/long.py": LONG_LINE,
        "package/broken.py": "def (:\n",
        "package/null.py": "\0",
        "package/other/notes.txt": "no code",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.chdir(tmp_path)
    density.main(["package", "nowhere", "--rooms", "--files", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" is left out")[0] for line in lines[:2]] == [
        "package/broken.py",
        "package/null.py",
    ]
    table = lines[2:]
    assert len({len(line) for line in table}) == 1
    names = [line.strip("|").partition("|")[0].strip() for line in table[2:]]
    assert names == ["package", "package/inside", "package/long.py", "nowhere"]
    whole = "package | 2 | 93 | 11.6 | 47 | 32.3 | 21.5 | 10.8 | 10.8 | 6.6 | 7.1%"
    cells = table[2].strip("| ").split("|")
    assert [cell.strip() for cell in cells] == whole.split(" | ")


def test_an_empty_file_has_a_row() -> None:
    """It has no statements to divide by."""
    assert density.row("empty", measure(""))[1:5] == ["1", "0", "0.0", "0"]
