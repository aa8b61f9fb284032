"""A report as JUnit XML."""

from __future__ import annotations

from pathlib import Path

from junitparser import Failure, JUnitXml, Skipped, TestCase
from lxml import etree

from helpers import made_checks
from hpml_bench.gate.records import CheckReport, Verdict
from hpml_bench.gate.render import outputs

SCHEMA = Path(__file__).parent.parent / "files" / "junit-10.xsd"
"""Of Jenkins' xUnit plugin, by Gregory Boissinot, under the MIT licence."""


def cases(report: CheckReport) -> list[TestCase]:
    """Return the test cases that a CI system reads."""
    suite = next(iter(JUnitXml.fromstring(outputs.junit(report).encode())))
    return list(suite)


def mixed() -> CheckReport:
    """Return a report with every status."""
    verdicts = tuple(
        Verdict(method=f"m{i}", metric="step_time", status=status, detail=f"why {status}")
        for i, status in enumerate(("PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE"))
    )
    return made_checks.report(verdicts=verdicts)


def test_statuses_are_what_ci_systems_know() -> None:
    """FAIL is a failure, the two undecided ones are skipped, and the reason is the message."""
    passed, failed, undecided, other = (case.result for case in cases(mixed()))
    assert passed == []
    assert isinstance(failed[0], Failure)
    assert failed[0].message == "why FAIL"
    assert isinstance(undecided[0], Skipped)
    assert isinstance(other[0], Skipped)
    assert undecided[0].message == "INCONCLUSIVE: why INCONCLUSIVE"
    assert other[0].message == "INCOMPARABLE: why INCOMPARABLE"


def test_totals_count_them() -> None:
    """The numbers that dashboards show: of the suite and of the file."""
    whole = JUnitXml.fromstring(outputs.junit(mixed()).encode())
    suite = next(iter(whole))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 0, 2)
    assert (whole.tests, whole.failures, whole.errors) == (4, 1, 0)
    assert suite.time == 321.0


def test_a_case_is_a_method_and_what_was_judged() -> None:
    """Class name and name, so that a CI system follows one over time."""
    found = [(case.classname, case.name) for case in cases(made_checks.report({"lora": 0.0}))]
    assert found == [
        ("hpml-bench.lora", "step time"),
        ("hpml-bench.lora", "host synchronisations"),
        ("hpml-bench.lora", "FLOPs"),
    ]


def test_it_is_valid_against_the_schema() -> None:
    """With every status, with hostile names, and with nothing measured."""
    schema = etree.XMLSchema(etree.parse(SCHEMA))
    hostile = made_checks.report({made_checks.HOSTILE + "\x00\ud800": 0.05}, grown=2, label=made_checks.HOSTILE)
    for report in (mixed(), hostile, made_checks.report(verdicts=())):
        assert schema.validate(etree.fromstring(outputs.junit(report).encode())), schema.error_log


def test_the_schema_refuses_what_is_no_junit_file() -> None:
    """The test above could fail: a root attribute nobody knows."""
    schema = etree.XMLSchema(etree.parse(SCHEMA))
    assert not schema.validate(etree.fromstring(outputs.junit(mixed()).replace("errors=", "wrongs=", 1).encode()))


def test_it_is_unicode_and_says_so() -> None:
    """With its declaration."""
    text = outputs.junit(made_checks.report(label="größer"))
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>')
    assert "größer" in text
