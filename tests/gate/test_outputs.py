"""What a check shows: terminal, Markdown, JUnit XML, page and GitHub's annotations, from the
same tables.
"""

import io
import re
from pathlib import Path

import pytest
from junitparser import Failure, JUnitXml, Skipped, TestCase
from lxml import etree, html
from rich.console import Console

from helpers import made_checks
from helpers.made_checks import HOSTILE
from hpml_bench.cli.commands.check import print_report
from hpml_bench.gate import outputs, page
from hpml_bench.gate.records import CheckReport, Verdict
from hpml_bench.page.pictures.drawn import svg

FILES = Path(__file__).parent.parent / "files"
CHARTS = "//figure[@class='chart']/@id"


def printed(report: CheckReport, width: int = 140) -> str:
    """Return what is printed on a console of this width, colours left out."""
    console = Console(width=width, file=io.StringIO())
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def mixed(*given: str) -> CheckReport:
    made = (
        Verdict(method=f"m{i}", metric="step_time", status=s, detail=f"why {s}", pairs=3)
        for i, s in enumerate(given or ("PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE"))
    )
    return made_checks.report(verdicts=tuple(made))


def shown_page(report: CheckReport) -> html.HtmlElement:
    return html.fromstring(page.html(report))


def test_the_markdown_is_the_committed_one() -> None:
    """Outcome, what is wrong, step times and changed counts in the open, all counts and
    circumstances folded.
    """
    made = made_checks.report({"lora": 0.05, "adapter": 0.0}, grown=3)
    assert outputs.markdown(made) == (FILES / "check.md").read_text(encoding="utf-8")


def test_the_terminal_begins_with_the_sides_and_ends_with_the_outcome() -> None:
    """Both sides and a dirty tree are named; the outcome begins with the status and names what is
    wrong.

    The minimum detectable effect is always shown, also on a narrow terminal, with the verdict.
    """
    lines = printed(made_checks.report({"lora": 0.05, "adapter": 0.0}, grown=12)).splitlines()
    assert (
        lines[0]
        == "working tree (fedcba9876, with changes that are in no commit) against main (0123456789)"
    )
    assert lines[-1] == "FAIL: slower or heavier: lora (step time) and lora (host synchronisations)"
    assert "3 of 4 counts without noise are unchanged." in lines
    assert any("from 2 (+600 %); what grew: aten.item x 12" in line for line in lines)
    assert "--strict" not in "".join(lines)
    passed = "PASS: nothing got slower or heavier in lora, prompt_tuning and adapter"
    assert printed(made_checks.report()).splitlines()[-1] == passed
    for text in (printed(made_checks.report(), width) for width in (80, 140)):
        assert {word for word in ("detectable", "PASS") if word in text} == {"detectable", "PASS"}
        assert f"+{100 * (made_checks.report().verdicts[0].mde or 0):.2f} %" in text


def test_undecided_outcomes_say_why() -> None:
    """The reason stands in a sentence before the outcome, and that the status is 0 all the same."""
    for status in ("INCONCLUSIVE", "INCOMPARABLE"):
        *lines, note, outcome = printed(mixed(status)).splitlines()
        assert f"{status} m0: why {status}" in lines
        assert note == "what is not decided leaves the exit status at 0; with --strict it is 3"
        assert outcome.startswith(f"{status}: ")


def test_headlines() -> None:
    """What was not measured is not ruled out; six failures are named, the rest counted."""
    made = made_checks.report({"lora": 0.0})
    heavier = made.model_copy(update={"verdicts": made.verdicts[1:], "blocks": (), "pairs": 0})
    assert page.headline(heavier) == "PASS: nothing got heavier in lora; step time was not measured"
    assert "Process pairs" not in page.facts(heavier)
    slower = made.model_copy(update={"verdicts": made.verdicts[:1], "counts": ()})
    assert page.headline(slower) == "PASS: nothing got slower in lora"
    assert page.headline(mixed(*["FAIL"] * 9)).endswith("m5 (step time) and 3 more")
    empty = made_checks.report(verdicts=(), blocks=(), counts=(), notes=())
    for text in (printed(empty), outputs.markdown(empty)):
        assert "nothing was measured" in text
    assert "| ---" not in outputs.markdown(empty)


def test_tables_and_facts() -> None:
    """Methods come in the order requested; packages whose versions differ are named."""
    made = made_checks.report()
    newer = made.candidate.model_copy(update={"versions": {"torch": "2.14.0", "numpy": "2.4.6"}})
    turned = made.model_copy(update={"verdicts": made.verdicts[::-1], "candidate": newer})
    assert [row[0] for row in page.step_times(turned).rows] == [*made_checks.METHODS]
    assert page.facts(turned)["Versions"] == "torch 2.13.0 → 2.14.0"
    assert "Versions" not in page.facts(made)
    assert "at most 1 % false alarms" in page.rule(made)


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    """No terminal escape, change of direction, workflow command, markup, HTML, code or link of
    theirs gets through.
    """
    made = made_checks.report(
        {HOSTILE: 0.05, "[red]x[/red]": 0.05}, grown=1, label=HOSTILE, suite=HOSTILE
    )
    seen, text, shown = shown_page(made), outputs.markdown(made), printed(made)
    assert not {"\x1b", "\u202e"} & {*page.html(made), *text, *shown}
    assert "::error" not in shown
    assert "[red]x[/red]" in shown
    assert not seen.xpath(
        "//script | //iframe | //object | //img | //@style | //@*[starts-with(name(), 'on')]"
    )
    assert seen.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0].startswith(
        "default-src 'none';"
    )
    used = seen.xpath("//@src | //@href | //@*[name() = 'xlink:href']")
    assert all(value.startswith(("#", "data:,")) for value in used)
    assert "<script>alert(1)</script>" in seen.text_content()
    ours = {outputs.MARK, "<details>", "</details>", "<summary>", "</summary>"}
    assert {*re.findall(r"<[^>]*>", text)} == ours
    assert {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")
    } <= {8, 9}
    assert not re.search(r"(?<!\\)[`$]", text)


def test_the_page_draws_every_methods_blocks() -> None:
    """A chart a method and one of bounds, each with a text alternative; ids are unique;
    disturbed ones set apart.
    """
    made = made_checks.report({"lora": 0.05, "adapter": 0.0}, grown=1)
    seen = shown_page(made)
    assert seen.xpath(CHARTS) == ["figure-bounds", "figure-blocks_0", "figure-blocks_1"]
    assert (
        "Scatter of 24 blocks of lora in 12 pairs" in seen.xpath("//*[@role='img']/@aria-label")[1]
    )
    assert len(seen.xpath("//@id")) == len(set(seen.xpath("//@id")))
    disturbed = made_checks.block(1.3, 3, disturbed="steal 9 %")
    figure = page.draw_blocks(made.model_copy(update={"blocks": (*made.blocks, disturbed)}))[0]
    assert "1 disturbed ones set apart" in figure.alt
    assert "disturbed" in svg(figure)
    assert "disturbed" not in svg(page.draw_blocks(made)[0])


def test_pages_of_counts_alone_of_times_alone_and_of_few_pairs() -> None:
    """Either may be missing; a bound that so few pairs don't give is open."""
    assert (
        "No step was timed."
        in shown_page(made_checks.report(blocks=(), verdicts=())).text_content()
    )
    assert "counts" not in shown_page(made_checks.report(counts=())).xpath("//@id")
    verdict = Verdict(
        method="lora",
        metric="step_time",
        status="INCONCLUSIVE",
        estimate=0.01,
        upper=0.02,
        detail="x",
    )
    figure = page.draw_bounds(made_checks.report(verdicts=(verdict,)))
    assert "[−∞, +2.00 %]" in figure.alt


def cases(report: CheckReport) -> list[TestCase]:
    return list(next(iter(JUnitXml.fromstring(outputs.junit(report).encode()))))


def test_junit_statuses_and_totals() -> None:
    """FAIL is a failure, the undecided ones are skipped with the reason; totals are of suite and
    file.
    """
    results = [case.result for case in cases(mixed())]
    assert results[0] == []
    assert [(type(found), found.message) for (found,) in results[1:]] == [
        (Failure, "why FAIL"),
        (Skipped, "INCONCLUSIVE: why INCONCLUSIVE"),
        (Skipped, "INCOMPARABLE: why INCOMPARABLE"),
    ]
    whole = JUnitXml.fromstring(outputs.junit(mixed()).encode())
    suite = next(iter(whole))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped, suite.time) == (
        4,
        1,
        0,
        2,
        321.0,
    )
    assert (whole.tests, whole.failures, whole.errors) == (4, 1, 0)
    named = [(case.classname, case.name) for case in cases(made_checks.report({"lora": 0.0}))]
    assert named == [
        ("hpml-bench.lora", name) for name in ("step time", "host synchronisations", "FLOPs")
    ]


def test_junit_is_valid_against_the_schema() -> None:
    """With every status, hostile names and nothing measured; the schema refuses what is no such
    file.
    """
    # Of Jenkins' xUnit plugin, by Gregory Boissinot, under the MIT licence.
    schema = etree.XMLSchema(etree.parse(FILES / "junit-10.xsd"))
    hostile = made_checks.report({HOSTILE + "\x00\ud800": 0.05}, grown=2, label=HOSTILE)
    for report in (mixed(), hostile, made_checks.report(verdicts=())):
        assert schema.validate(etree.fromstring(outputs.junit(report).encode())), schema.error_log
    text = outputs.junit(made_checks.report(label="größer"))
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>')
    assert "größer" in text
    assert not schema.validate(etree.fromstring(text.replace("errors=", "wrongs=", 1).encode()))


def test_github_gets_annotations_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is appended; an error is one escaped line without secrets; elsewhere nothing
    is printed.
    """
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outputs.annotate(made_checks.report({"lora": 0.05, "adapter": 0.0}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("::a step")[0] for line in lines] == [
        "::error title=FAIL lora%3A step time"
    ]
    assert summary.read_text().startswith("before\n<!-- hpml-bench check -->")
    outputs.annotate_error("a: 50 %,\r\n::warning::https://me:secret@host")
    assert (
        capsys.readouterr().out
        == "::error title=hpml-bench check::a: 50 %25, ::warning::https://host\n"
    )
    before = summary.read_text()
    monkeypatch.delenv("GITHUB_ACTIONS")
    outputs.annotate(made_checks.report({"lora": 0.05}))
    outputs.annotate_error("a")
    assert (capsys.readouterr().out, summary.read_text()) == ("", before)


def test_commands_of_github() -> None:
    """FAIL is an error, undecided a warning, a pass one notice; ten of a kind; nothing ends its
    line or property.
    """
    assert [line.split()[0] for line in outputs.commands(mixed())] == [
        "::error",
        "::warning",
        "::warning",
    ]
    assert [line.split()[0] for line in outputs.commands(made_checks.report())] == ["::notice"]
    assert len(list(outputs.commands(mixed(*["FAIL"] * 30)))) == 10
    (line,) = outputs.commands(made_checks.report({HOSTILE + "\r\n::error::a,b": 0.05}))
    found = re.fullmatch(r"::(error|warning|notice) title=([^:,\n\r]*)::([^\n\r]*)", line)
    assert "%250A" in found[2], "a name's own %0A stays text"
    assert (
        outputs._command("error", "a:b,c", "50 %\r\n::x")
        == "::error title=a%3Ab%2Cc::50 %25%0D%0A::x"
    )
