"""Outputs of a check: JSON, JUnit XML, Markdown and a page as files, and annotations on GitHub."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from xml.etree.ElementTree import Element, SubElement, tostring

from hpml_bench.gate import page
from hpml_bench.gate.records import CheckReport
from hpml_bench.page.export import markdown_table, markdown_text
from hpml_bench.select.comparability import grouped
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import write_atomically
from hpml_bench.system.redaction import redacted
from hpml_bench.system.text import sanitize

# beginning of the Markdown, by which a bot finds and updates its own comment
MARK = "<!-- hpml-bench check -->"
MOST = 10  # most annotations of one kind that GitHub shows for a step


def check_writable(**files: Path | None) -> None:
    """Check, before anything is measured, that all requested files can be written."""
    for kind, path in files.items():
        if path is not None:
            with (
                _place(kind, path),
                NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent),
            ):
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
        raise UserError(
            f"--{kind} {path}: can't be written ({error.strerror or error}); name another"
        ) from None


def junit(report: CheckReport) -> str:
    """Return JUnit XML, which most CI systems show, with one test case per verdict."""
    # It is valid against the schema of Jenkins' xUnit plugin (junit-10.xsd). FAIL is a failure;
    # INCONCLUSIVE and INCOMPARABLE are skipped, with the reason as message.
    failed = sum(verdict.status == "FAIL" for verdict in report.verdicts)
    skipped = sum(verdict.status not in {"PASS", "FAIL"} for verdict in report.verdicts)
    totals = {
        "tests": str(len(report.verdicts)),
        "failures": str(failed),
        "errors": "0",
        "time": str(report.seconds),
    }
    whole = Element("testsuites", {"name": "hpml-bench check"} | totals)
    named = {
        "name": f"hpml-bench check {sanitize(report.suite, 80)}",
        "timestamp": sanitize(report.started[:19]),
    }
    suite = SubElement(whole, "testsuite", named | totals | {"skipped": str(skipped)})
    properties = SubElement(suite, "properties")
    for key, value in page.facts(report).items():
        SubElement(properties, "property", name=key.lower().replace(" ", "_"), value=value)
    for verdict in report.verdicts:
        method, detail = sanitize(verdict.method, 80), sanitize(verdict.detail, 600)
        case = SubElement(
            suite, "testcase", name=page.metric(report, verdict), classname=f"hpml-bench.{method}"
        )
        if verdict.status == "FAIL":
            SubElement(case, "failure", message=detail, type="regression")
        elif verdict.status != "PASS":
            SubElement(
                case, "skipped", message=f"{verdict.status}: {detail}", type=verdict.status.lower()
            )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(whole, encoding="unicode")}\n'


def markdown(report: CheckReport) -> str:
    """Return Markdown: outcome, what is wrong, step times; the counts and the circumstances
    folded.
    """
    times, counts = page.step_times(report), page.counted(report)
    changed = page.counted(report, changed_only=True)
    facts = _list(f"{key}: {value}" for key, value in page.facts(report).items())
    explained = [facts, *map(markdown_text, times.notes if times.rows else ())]
    parts = [
        MARK,
        f"### hpml-bench check: {markdown_text(page.headline(report))}",
        _list(page.remarks(report)),
        *(markdown_table(shown) for shown in (times, changed) if shown.rows),
        markdown_text(page.unchanged(report)),
        _folded("All counts without noise", markdown_table(counts)) if counts.rows else "",
        _folded("How it was measured", "\n\n".join(explained)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"


FORMATS: dict[str, Callable[[CheckReport], str]] = {
    "json": lambda report: report.model_dump_json(indent=1) + "\n",
    "junit": junit,
    "markdown": markdown,
    "html": page.html,
}


def on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(report: CheckReport) -> None:
    """Print annotations and append the summary, where the check runs in a GitHub workflow; else
    do nothing.
    """
    if not on_github():
        return
    for line in commands(report):
        print(line, flush=True)
    if not (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        return
    try:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(report))
    except OSError as error:
        raise UserError(
            f"GITHUB_STEP_SUMMARY: {Path(summary)} can't be written ({error.strerror})"
        ) from None


def annotate_error(sentence: str) -> None:
    if on_github():
        print(_command("error", "hpml-bench check", sanitize(redacted(sentence), 2000)), flush=True)


def commands(report: CheckReport) -> Iterator[str]:
    """Return a workflow command for each verdict that isn't PASS, and one for the outcome where
    all are.
    """
    wrong = [verdict for verdict in report.verdicts if verdict.status != "PASS"]
    for kind, of in grouped(
        wrong, lambda verdict: "error" if verdict.status == "FAIL" else "warning"
    ).items():
        for verdict in of[:MOST]:
            title = (
                f"{verdict.status} {sanitize(verdict.method, 60)}: {page.metric(report, verdict)}"
            )
            yield _command(kind, title, sanitize(verdict.detail, 600))
    if not wrong:
        yield _command("notice", "hpml-bench check", page.headline(report))


def _command(kind: str, title: str, text: str) -> str:
    """Return a workflow command of one line: neither property nor text can end before its end."""
    title, text = (
        part.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A") for part in (title, text)
    )
    return f"::{kind} title={title.replace(':', '%3A').replace(',', '%2C')}::{text}"
