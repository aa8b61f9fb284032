"""Blocks of a report: text, tables, figures. The same Table feeds HTML, Markdown, CSV, LaTeX, terminal and trackers."""

from __future__ import annotations

from pydantic import Field

from hpml_bench.config.base import Frozen


class Table(Frozen):
    """Rows of cells; numbers stay numbers next to the text that shows them."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[float | str | None, ...], ...] | None = None
    """Raw values behind `rows`, for CSV and wandb; the shown text where there are none."""
    notes: tuple[str, ...] = ()


class Figure(Frozen):
    """An inline SVG with its text alternative."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: str
    svg: str
    alt: str


class Text(Frozen):
    """A paragraph, or a list when there are several sentences."""

    sentences: tuple[str, ...]


class Section(Frozen):
    """A heading and what stands under it."""

    slug: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    blocks: tuple[Text | Table | Figure, ...]
