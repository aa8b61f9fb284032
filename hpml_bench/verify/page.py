"""Page: whether the report in a folder is what its records give."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from hpml_bench.report.render import load_libraries, page_of, write_page
from hpml_bench.report.results import Results
from hpml_bench.system.errors import UserError
from hpml_bench.verify.folder import Evidence, Finding, failed

FORMATS = {"html": "report.html", "md": "report.md", "csv": "tables/*.csv", "tex": "tables/*.tex"}
"""Format -> files that show it was written."""
NUMBERS = frozenset({".json", ".html", ".md", ".csv", ".tex", ".svg"})
"""Suffixes of the files that hold numbers and sentences."""
PAGES = frozenset({".html", ".htm", ".xhtml", ".md", ".svg", ".pdf"})
"""Suffixes of files that a reader may take for pages or charts of the report."""
NUMBER = re.compile(r"(-?\d+\.\d+(?:e[+-]?\d+)?)")
EXACT = 10
"""Significant digits from which a number is one behind those shown."""
AGAIN = "hpml-bench report writes it again; older versions wrote other pages"


def page(evidence: Evidence) -> Iterator[Finding]:
    """The report is what the records give."""
    folder = evidence.folder
    there = tuple(name for name, pattern in FORMATS.items() if any(folder.glob(pattern)))
    if evidence.selection is None:
        return
    if not there and not (folder / "report.json").exists():
        yield Finding("not checked", "there is no report in the folder", "hpml-bench report writes one")
        yield from _other_pages(evidence, ())
        return
    load_libraries()
    made = page_of(Results(evidence.selection))
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        try:
            write_page(made, fresh, there or ("md",))
        except UserError as error:
            yield Finding("not checked", f"the report can't be written again: {error}")
            return
        given = {path.relative_to(fresh): _text(path) for path in fresh.rglob("*") if path.suffix in NUMBERS}
        for path, content in sorted(given.items()):
            if (folder / path).exists() and not same(_text(folder / path), content):
                yield failed(path.as_posix(), "is not what the records give", AGAIN)
        for path in sorted(path.relative_to(folder) for name in there for path in folder.glob(FORMATS[name])):
            if path not in given:
                yield failed(path.as_posix(), "is no part of the report that the records give", AGAIN)
        yield from _other_pages(evidence, given)


def _other_pages(evidence: Evidence, written: Container[Path]) -> Iterator[Finding]:
    """Yield the pages and charts that the report doesn't write."""
    for path in evidence.files:
        if path.suffix.lower() in PAGES and path.relative_to(evidence.folder) not in written:
            yield Finding(
                "not checked", f"{evidence.name(path)}: is no page of the report; nothing compares it with records"
            )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def same(one: str, other: str) -> bool:
    """Return whether two texts have the same words and the same numbers.

    numpy and scipy sum in another order from one version or processor to the next: a sixteenth digit may differ.
    """
    parts, others = NUMBER.split(one), NUMBER.split(other)
    return parts[::2] == others[::2] and all(
        a == b or (min(map(_digits, (a, b))) >= EXACT and math.isclose(float(a), float(b), rel_tol=1e-12))
        for a, b in zip(parts[1::2], others[1::2], strict=True)
    )


def _digits(number: str) -> int:
    """Return a number's significant digits as written."""
    return len(re.sub(r"e.*|[-.]", "", number).lstrip("0"))
