"""Page: whether the report in a folder is what its records give."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.report.render import load_libraries, page_of, write_page
from hpml_bench.report.results import Results
from hpml_bench.verify.evidence import Evidence, Found, failed

FORMATS = {"html": "report.html", "md": "report.md", "csv": "tables/*.csv", "tex": "tables/*.tex"}
"""Format -> files that show it was written."""
NUMBERS = frozenset({".json", ".html", ".md", ".csv", ".tex"})
"""Suffixes of the files that hold numbers and sentences."""
CHART = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
"""A chart, whose drawing differs between versions of matplotlib."""
NUMBER = re.compile(r"(-?\d+\.\d+(?:e[+-]?\d+)?)")
EXACT = 10
"""Significant digits from which a number is one behind those shown."""
AGAIN = "hpml-bench report writes it again; older versions wrote other pages"


def page(evidence: Evidence) -> Iterator[Found]:
    """The report is what the records give, charts aside."""
    folder = evidence.folder
    there = tuple(name for name, pattern in FORMATS.items() if any(folder.glob(pattern)))
    if evidence.selection is None:
        return
    if not there and not (folder / "report.json").exists():
        yield Found("not checked", "there is no report in the folder", "hpml-bench report writes one")
        return
    load_libraries()
    made = page_of(Results(evidence.selection))
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        try:
            write_page(made, fresh, there or ("md",))
        except UserError as error:
            yield Found("not checked", f"the report can't be written again: {error}")
            return
        given = {path.relative_to(fresh): _text(path) for path in fresh.rglob("*") if path.suffix in NUMBERS}
        for path, content in sorted(given.items()):
            if (folder / path).exists() and not same(_text(folder / path), content):
                yield failed(path.as_posix(), "is not what the records give", AGAIN)
        for path in sorted(path.relative_to(folder) for name in there for path in folder.glob(FORMATS[name])):
            if path not in given:
                yield failed(path.as_posix(), "is no part of the report that the records give", AGAIN)


def _text(path: Path) -> str:
    """Return a file's content without charts."""
    return CHART.sub("", path.read_text(encoding="utf-8", errors="replace"))


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
