"""The files that a check leaves: its report as JSON, JUnit XML, Markdown and an HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from hpml_bench.gate.decide.verdicts import overall
from hpml_bench.gate.records import CheckReport
from hpml_bench.gate.render import drawings, github, tables
from hpml_bench.records.files import write_atomically
from hpml_bench.report.export import numeric_columns
from hpml_bench.report.pictures.svg import svg
from hpml_bench.report.policy import policy
from hpml_bench.suite.suite import packaged
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize


def try_out(**files: Path | None) -> None:
    """Check, before anything is measured, that all requested files can be written."""
    for kind, path in files.items():
        if path is not None:
            with _place(kind, path), NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
                pass  # a folder's mode shows neither a read-only file system nor root's rights


def write(report: CheckReport, **files: Path | None) -> None:
    """Write the report in each of `FORMATS` that a file is given for."""
    for kind, path in files.items():
        if path is not None:
            text = FORMATS[kind](report)
            with _place(kind, path):
                write_atomically(path, text)


@contextmanager
def _place(kind: str, path: Path) -> Iterator[None]:
    """Make the file's folder; turn an error of writing, here or in the body, into one sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"--{kind} {path}: can't be written ({error.strerror or error}); name another") from None


def junit(report: CheckReport) -> str:
    """Return JUnit XML, which most CI systems show, with one test case per verdict.

    It is valid against the schema of Jenkins' xUnit plugin (junit-10.xsd). FAIL is a failure; INCONCLUSIVE and
    INCOMPARABLE are skipped, with the reason as message.
    """
    from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

    suite = TestSuite(f"hpml-bench check {sanitize(report.suite, 80)}")
    suite.timestamp = sanitize(report.started[:19])
    for key, value in tables.facts(report).items():
        suite.add_property(key.lower().replace(" ", "_"), value)
    cases = []
    for verdict in report.verdicts:
        case = TestCase(tables.metric(report, verdict), f"hpml-bench.{sanitize(verdict.method, 80)}")
        detail = sanitize(verdict.detail, 600)
        if verdict.status == "FAIL":
            case.result = [Failure(detail, "regression")]
        elif verdict.status != "PASS":
            case.result = [Skipped(f"{verdict.status}: {detail}", verdict.status.lower())]
        cases.append(case)
    suite.add_testcases(cases)
    suite.time = round(report.seconds, 3)
    whole = JUnitXml("hpml-bench check")
    whole.add_testsuite(suite)
    whole.tests, whole.failures, whole.errors, whole.time = suite.tests, suite.failures, 0, suite.time
    text: str = whole.tostring().decode()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text[text.index("<testsuites") :]}\n'  # one of two parsers has it


def html(report: CheckReport) -> str:
    """Return the page, its blocks drawn, in one file; it loads nothing and runs nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = packaged("templates", "templates")
    loader = FileSystemLoader(folder)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"numeric": numeric_columns, "svg": svg}
    page: str = environment.get_template("check.html.j2").render(
        style=(style := (folder / "check.css").read_text(encoding="utf-8")),
        policy=policy([style]),
        suite=sanitize(report.suite, 80),
        status=overall(report.verdicts),
        headline=tables.headline(report),
        facts=tables.facts(report),
        sentences=[*tables.details(report), *tables.notes(report)],
        times=tables.step_times(report),
        changed=tables.counted(report, changed_only=True),
        counts=tables.counted(report),
        unchanged=tables.unchanged(report),
        bounds=drawings.bounds(report),
        blocks=drawings.blocks(report),
        runs=drawings.runs(report),
        measured=tables.measured(report),
        environment=tables.environment(report),
    )
    return page


FORMATS: dict[str, Callable[[CheckReport], str]] = {
    "json": lambda report: report.model_dump_json(indent=1) + "\n",
    "junit": junit,
    "markdown": github.markdown,
    "html": html,
}
