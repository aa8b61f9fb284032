"""Blocks of a report: text, tables, figures. The same Table feeds HTML, Markdown, CSV, LaTeX, terminal and trackers."""

from __future__ import annotations

from pydantic import Field

from hpml_bench.suite.base import Frozen, Line


class Table(Frozen):
    """Rows of cells; numbers stay numbers next to the text that shows them."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: Line
    columns: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]
    values: tuple[tuple[float | Line | None, ...], ...] | None = None
    """Raw values behind `rows`, for CSV and wandb; the shown text where there are none."""
    notes: tuple[Line, ...] = ()


class Figure(Frozen):
    """An inline SVG with its text alternative."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: Line
    svg: str
    alt: Line


class Text(Frozen):
    """A paragraph, or a list when there are several sentences."""

    sentences: tuple[Line, ...]


class Section(Frozen):
    """A heading and the blocks under it."""

    slug: str = Field(pattern=r"^[a-z0-9-]+$")
    title: Line
    blocks: tuple[Text | Table | Figure, ...]
