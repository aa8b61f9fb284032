"""The report's pages from recorded runs: HTML, Markdown with its figures, tables as CSV and
LaTeX.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hpml_bench.judge.from_results import answer_of, facts
from hpml_bench.judge.looks import Data, look_at, sketch
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import PageSummary
from hpml_bench.page import export
from hpml_bench.page.answer import screen
from hpml_bench.page.answer.sections import answer_table
from hpml_bench.page.over_suites import Suites, answer_over, sections_over
from hpml_bench.page.pictures.charts import styles
from hpml_bench.page.pictures.drawn import paper, standalone, svg
from hpml_bench.page.tables import Part, parts, placed
from hpml_bench.plugins.blocks import Fold, Section, Table, Tabs, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.select.comparability import versions
from hpml_bench.suite import registry
from hpml_bench.suite.suite import packaged
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import write_atomically
from hpml_bench.system.text import sanitize

FORMATS = ("html", "md", "csv", "tex", "pdf", "png", "peft")
LONGEST = 300  # rows of a table that stands on a page itself; a longer one stands beside it, as CSV
load = Results.load


def write_report(
    source: Path | Results, out: Path | None = None, formats: Sequence[str] = ("html", "md")
) -> list[Path]:
    """Write the report of a suite's results folder and return the files, pages first.

    Args:
        source: results folder that run-all wrote, or its results.
        out: folder of the report; the results folder itself by default.
        formats: of `html` (report.html), `md` (report.md and figures/), `csv` and `tex` (tables/),
            `pdf` and `png` (the pictures for a paper, in figures/), `peft` (the compared runs as
            files of PEFT's method comparison, in peft/); report.json stands beside a page.

    Raises:
        UserError: no record can be read, a format isn't known, or the report can't be written
            there.

    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise UserError(
            f"there is no report format '{', '.join(unknown)}'; choose from {', '.join(FORMATS)}"
        )
    results = source if isinstance(source, Results) else load(source)
    return write_page(page_of(results), results.folder if out is None else out, formats)


@dataclass(frozen=True)
class Page:
    """Content of a page: of one suite, or of several."""

    answer: PageSummary  # the first screen, also in report.json
    sections: tuple[Section, ...]
    facts: Mapping[str, str]  # circumstances by title, for the part on what was run
    problems: int  # number of runs and records that are in no number
    newest: str  # date of the newest run
    version: str  # version of the package that made the runs
    results: Results | None = (
        None  # results of the suite, for formats of runs; None over several suites
    )
    apart: int = 0  # runs of the suite that ended well and are not compared


def page_of(results: Results) -> Page:
    return Page(
        answer=answer_of(results),
        sections=all_sections(results),
        facts=facts(results),
        problems=len(results.left_out.unfinished) + len(results.left_out.problems),
        newest=sanitize(results.reference.started[:10]),
        version=sanitize(versions(results.reference).get("hpml-bench", ""), 40),
        results=results,
        apart=results.left_out.excluded_runs,
    )


def page_over(results: Sequence[Results], out: Path) -> Page:
    return page_of_suites(Suites.of(results), out)


def page_of_suites(
    suites: Suites, out: Path, look: int | None = None, place: str = "", looks: int | None = None
) -> Page:
    """Return the page over several suites, or data sets, as the look stated, or the next of `out`
    if they are new.

    The page is in the folder `place` of `out`; `looks` is the number of looks that are declared. A
    UserError where a page over other suites alone is there.
    """
    names = tuple(suite.name for suite in suites.ranked)
    data = Data(rows=sketch(json.dumps(suite.source) for suite in suites.ranked), parts=names)
    taken = look_at(
        out,
        suites.digest,
        data,
        suites.methods,
        look,
        looks=looks,
        page=place,
        tested=suites.tested,
    )
    suites = replace(suites, look=taken.look, declared_looks=taken.declared)
    newest = max(suites.ranked, key=lambda suite: suite.started)
    answer = answer_over(suites)
    known = {"Model": answer.model or "several models"} if answer.noun == "method" else {}
    return Page(
        answer=answer,
        sections=sections_over(suites),
        problems=len(suites.apart),
        facts={
            **known,
            "Data": answer.data,
            f"{suites.noun.capitalize()}s": str(len(suites.ranked)),
            f"{answer.noun.capitalize()}s": str(len(suites.methods)),
        },
        newest=sanitize(newest.started[:10]),
        version=newest.version,
    )


def write_page(page: Page, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write a page in formats of `FORMATS` and return the files, pages first; UserError where it
    can't be written.
    """
    if "peft" in formats and page.results is None:
        raise UserError(
            "the format peft holds the runs of one suite; name one folder, or leave the format away"
        )
    kinds = [kind for kind in FORMATS if kind in formats]
    pages = bool({"html", "md"} & {*kinds})
    try:
        tables = [
            block
            for section in page.sections
            for block in section.leaves
            if isinstance(block, Table)
        ]
        beside = filter(_long, tables) if pages else ()  # to which pages link
        long = [
            _write(out / f"tables/{table.name}.csv", export.csv_text(table)) for table in beside
        ]
        written = [
            _write(out / name, content) for kind in kinds for name, content in _files(page, kind)
        ]
        answer = out / "report.json"
        if pages and page.answer.methods:
            written.append(_write(answer, page.answer.model_dump_json(indent=1) + "\n"))
        elif pages:  # the one of a folder that had a compared run
            answer.unlink(missing_ok=True)
        return [*dict.fromkeys([*written, *long])]
    except OSError as error:
        raise UserError(
            f"the report can't be written to {out}: {error.strerror or error}"
        ) from None


def _files(page: Page, kind: str) -> Iterator[tuple[str, str | bytes]]:
    if kind == "html":
        folder = packaged("templates", "templates")
        sheets, scripts = (  # of the frame, of its first screen and of the chooser in that
            [
                path.read_text(encoding="utf-8")
                for name in ("report", "answer", "chooser")
                if (path := folder / f"{name}.{kind}").is_file()
            ]
            for kind in ("css", "js")
        )
        sheets += screen.sheets(page.answer)
        marked = styles(page.results.methods) if page.results else {}
        yield "report.html", _html(_context(page) | {"styles": marked}, sheets, scripts)
    elif kind == "md":
        yield (
            "report.md",
            _environment(html=False).get_template("report.md.j2").render(_context(page)),
        )
        yield from ((f"figures/{of.name}.svg", standalone(of)) for of in pictures_of(page))
    elif kind in {"csv", "tex"}:
        render = export.csv_text if kind == "csv" else export.latex_table
        yield from ((f"tables/{table.name}.{kind}", render(table)) for table in all_tables(page))
    elif kind in {"pdf", "png"}:
        for of in pictures_of(page):
            yield f"figures/{of.name}.{kind}", paper(of, "pdf" if kind == "pdf" else "png")
    elif page.results is not None:
        from hpml_bench.page.peft import files_of

        yield from files_of(page.results)


def load_libraries() -> None:
    """Import the libraries of a report, which takes about a second, while there is nothing else
    to do.
    """
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # threads that wait for products this small take a core
    for name in ("pyarrow.parquet", "scipy.special"):
        import_module(name)
    with suppress(UserError):
        for name in registry.names("sections"):
            registry.get("sections", name)


def all_sections(results: Results) -> tuple[Section, ...]:
    """Return every registered section that isn't empty, by question, then by the sections'
    `order`.
    """
    modules = {name: registry.get("sections", name) for name in registry.names("sections")}
    ordered = sorted(modules.items(), key=lambda item: (item[1].order, item[1].__name__))
    found = []
    for name, module in ordered:
        made = (
            module.sections(results) if hasattr(module, "sections") else [module.section(results)]
        )
        found += [placed(module, name, section) for section in made if section is not None]
    return tuple(section for part in parts(found) for section in (*part.shown, *part.folded))


def tables_of(sections: Sequence[Section]) -> tuple[Table, ...]:
    blocks = [block for section in sections for block in section.blocks]
    found = [block for block in blocks if isinstance(block, Table | Tabs)]
    return tuple(
        table for one in found for table in ((one,) if isinstance(one, Table) else one.tables)
    )


def all_tables(page: Page) -> tuple[Table, ...]:
    return tuple(
        table for table in (answer_table(page.answer), *tables_of(page.sections)) if table.rows
    )


def pictures_of(page: Page) -> list[Picture]:
    blocks = [
        block for section in page.sections for block in section.leaves if isinstance(block, Picture)
    ]
    return [*screen.pictures(page.answer), *blocks]


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(packaged("templates", "templates")),
        undefined=StrictUndefined,
        autoescape=html,  # noqa: S701 - Markdown escapes by its own filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    kinds: dict[str, type] = {
        "text": Text,
        "table": Table,
        "figure": Picture,
        "tabs": Tabs,
        "fold": Fold,
    }
    tests: dict[str, Any] = {
        kind: lambda block, of=of: isinstance(block, of) for kind, of in kinds.items()
    }
    # `folded`: tables that a page shows only after a click, those of pairs but the score's
    tests["folded"] = lambda of, shown: (
        isinstance(of, Table) and of.name.startswith("pairs_") and of.name != shown
    )
    environment.tests |= tests | {"long": _long}
    environment.filters |= {
        "md": export.markdown_text,
        "md_table": export.markdown_table,
        "numeric": export.numeric_columns,
        "exact": "{:.10g}".format,
        "sanitize": sanitize,
        "svg": svg,
        "emphasise": _emphasise,
    }
    return environment


def _long(block: object) -> bool:
    return isinstance(block, Table) and len(block.rows) > LONGEST


def _emphasise(sentence: str, names: Sequence[str], opening: str, closing: str) -> str:
    """Mark the methods' names in an (escaped) sentence, since readers look for them first."""
    if not names:
        return sentence
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    pattern = rf"(?<![\w/.&#-])({'|'.join(longest)})(?![\w/-])"
    marked = re.sub(
        pattern, rf"{opening}\1{closing}", str(sentence)
    )  # of a Markup, re.sub would escape what it joins
    return type(sentence)(marked)


def _context(page: Page) -> dict[str, object]:
    answer = page.answer
    every = parts(page.sections, answer.noun)
    there = [part for part in every if part.shown or part.folded or part.key in {"best", "setup"}]
    suite, number, rules = answer.suite[:80], len(answer.methods), version("hpml-bench")
    compared = "fine-tuning methods" if answer.noun == "method" else f"{answer.noun}s"
    what = f"{number} {answer.noun}{'s' if number != 1 else ''}"
    on = f"{page.facts['Model']} on " if "Model" in page.facts else ""
    newest = f"recorded runs alone; the newest began on {page.newest}"
    inputs = newest if page.newest else "the inputs that it names alone"
    return screen.context(answer) | {
        "title": f"{suite}: {compared} compared",
        "suite": suite,
        "about": f"{on}{page.facts.get('Rows', page.facts['Data'])} · {what}",
        "closing": (
            f"Made by hpml-bench {page.version} from {inputs}; judged by the rules of version "
            f"{rules}."
        ),
        "description": answer.description,
        "facts": page.facts,
        "answer_table": answer_table(answer),
        "problems": page.problems,
        "open_pairs": f"pairs_{answer.score.id}",
        "parts": (shown := every if answer.over == "seed" and answer.noun == "method" else there),
        "places": {part.key for part in shown},
    }


def _html(context: Mapping[str, object], sheets: list[str], scripts: list[str]) -> str:
    template = _environment(html=True).get_template("report.html.j2")
    return template.render(context, sheets=sheets, scripts=scripts, policy=policy(sheets, scripts))


def plain_page(
    name: str,
    about: str,
    headline: str,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    closing: str,
) -> str:
    """Return a page without a first screen or scripts: a headline, and sections of which each is a
    part of its own.

    The bar at its top has `name` and `about`; a section whose slug is `setup` begins with the
    facts, by title.
    """
    context = {
        "title": headline,
        "suite": name,
        "about": about,
        "headline": headline,
        "facts": facts,
        "closing": closing,
        "parts": [
            Part(section.slug, section.title, section.title, (section,), ()) for section in sections
        ],
        "answer": {"noun": "method", "number": {}},
        "names": (),
        "styles": {},
        "description": "",
        "problems": 0,
        "open_pairs": "",
    }
    return _html(
        context,
        [(packaged("templates", "templates") / "report.css").read_text(encoding="utf-8")],
        [],
    )


def policy(sheets: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the Content-Security-Policy of a page: its own style sheets and scripts by hash,
    and nothing else.
    """
    kinds = {"style-src": sheets, "script-src": scripts}
    hashed = {
        kind: [base64.b64encode(sha256(text.encode()).digest()).decode() for text in texts]
        for kind, texts in kinds.items()
    }
    own = "; ".join(
        " ".join([kind, *(f"'sha256-{one}'" for one in of)]) for kind, of in hashed.items() if of
    )
    return f"default-src 'none'; {own}; img-src data:; base-uri 'none'; form-action 'none'"


def _write(path: Path, content: str | bytes) -> Path:
    if path.parent.name in {"figures", "tables", "peft"} and path.parent.is_symlink():
        raise UserError(
            f"{path.parent} is a link; no report is written through one: remove it, or give "
            f"another --out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
