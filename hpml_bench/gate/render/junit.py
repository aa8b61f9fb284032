"""A receipt as JUnit XML, which most CI systems show: a test case a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_bench.gate.records import Receipt, Verdict
from hpml_bench.gate.render import tables
from hpml_bench.system.text import clean

if TYPE_CHECKING:
    from junitparser import TestCase


def render(receipt: Receipt) -> str:
    """Return the file's text, valid against the schema of Jenkins' xUnit plugin (junit-10.xsd).

    FAIL is a failure; INCONCLUSIVE and INCOMPARABLE are skipped, with the reason as message.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite(f"hpml-bench check {clean(receipt.suite, 80)}")
    suite.timestamp = clean(receipt.started[:19])
    for key, value in tables.facts(receipt).items():
        suite.add_property(key.lower().replace(" ", "_"), value)
    suite.add_testcases([_case(receipt, verdict) for verdict in receipt.verdicts])
    suite.time = round(receipt.seconds, 3)
    whole = JUnitXml("hpml-bench check")
    whole.add_testsuite(suite)
    whole.tests, whole.failures, whole.errors, whole.time = suite.tests, suite.failures, 0, suite.time
    text: str = whole.tostring().decode()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text[text.index("<testsuites") :]}\n'  # one of two parsers has it


def _case(receipt: Receipt, verdict: Verdict) -> TestCase:
    from junitparser import Failure, Skipped, TestCase

    case = TestCase(tables.metric(receipt, verdict), f"hpml-bench.{clean(verdict.method, 80)}")
    detail = clean(verdict.detail, 600)
    if verdict.status == "FAIL":
        case.result = [Failure(detail, "regression")]
    elif verdict.status != "PASS":
        case.result = [Skipped(f"{verdict.status}: {detail}", verdict.status.lower())]
    return case
