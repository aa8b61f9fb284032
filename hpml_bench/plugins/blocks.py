"""Blocks of a report: text, tables, pictures, folds; one Table feeds all pages, CSV, LaTeX,
terminal and trackers.
"""

from typing import Literal

from pydantic import Field

from hpml_bench.plugins.picture import Picture
from hpml_bench.suite.base import Frozen, Line

Question = Literal["best", "cost", "sure", "training", "methods", "setup", "wrong", "reading"]
"""Question that a section answers; the page has a part for each, in this order: see
`page/tables.py`.
"""
Mark = Literal["better", "worse", "open", "equal"]  # relation of a row's method to a column's


class Table(Frozen):
    """Rows of cells; numbers stay numbers next to the text that shows them."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: Line
    columns: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    values: tuple[tuple[float | Line | None, ...], ...] | None = None
    """Raw values behind `rows`, for CSV and wandb; the shown text where there are none."""
    notes: tuple[Line, ...] = ()
    marks: tuple[tuple[Mark | None, ...], ...] | None = None
    """How the row's method stands to the column's, by cell, for colours and, on a page, the sign
    that ends the cell's text elsewhere."""


class Text(Frozen):
    """A paragraph, or a list when there are several sentences."""

    sentences: tuple[Line, ...]


class Tabs(Frozen):
    """Tables of one form, of which a page shows one at a time, by radio buttons; other formats
    show all.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    labels: tuple[Line, ...]
    tables: tuple[Table, ...]


class Fold(Frozen):
    """Blocks behind a click. Its tables are of a page alone: CSV and LaTeX have their numbers in
    other tables.
    """

    title: Line
    about: Line = ""
    """A few words on what is in it."""
    blocks: tuple[Text | Table | Picture, ...]
    anchor: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    """Id for links; none if empty."""


class Section(Frozen):
    """A heading and the blocks under it."""

    slug: str = Field(pattern=r"^[a-z0-9-]+$")
    title: Line
    blocks: tuple[Text | Table | Picture | Tabs | Fold, ...]
    question: Question = "setup"
    """Part of the page; from the module's `question`, as the two below."""
    about: Line = ""
    """A few words on what is in it, beside the title."""
    folded: bool = True
    """Whether a page shows it only after a click."""

    @property
    def leaves(self) -> tuple[Text | Table | Picture, ...]:
        """The texts, tables and pictures, also those of tabs and folds."""
        found: list[Text | Table | Picture] = []
        for block in self.blocks:
            found += (
                block.tables
                if isinstance(block, Tabs)
                else block.blocks
                if isinstance(block, Fold)
                else (block,)
            )
        return tuple(found)
