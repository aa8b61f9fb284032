"""The net (`benchmarks/net.py`) finds changed words, and nothing between equal versions."""

import re
import shutil
from pathlib import Path

import net
import pytest
from net_cases import Case, commands, compared, folders, mistakes, references

REFERENCE = net.REFERENCE


def part(*cases: Case) -> net.Inputs:
    """Return a part of a few cases, whose inputs are the committed chat."""

    def write_inputs(folder: Path, reference: Path) -> None:
        shutil.copytree(reference / "chat", folder / "chat")

    return net.Inputs(write_inputs, lambda: cases)


SMALL = part(
    Case("help", ("report --help",)),
    Case("mistake", ("report nowhere",)),
    Case("page", ("report chat --format html,md,csv --out out",), copies=("chat",)),
)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a copy of the package, with what it reads beside it."""
    copy = tmp_path / "copy"
    for name in (
        "hpml_bench",
        "templates",
        "benchmarks/suites",
        "benchmarks/reference",
        "benchmarks/tuning",
    ):
        shutil.copytree(net.ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def differing(older: Path, folder: Path) -> set[str]:
    """Return the names of the files that differ between another version and these files."""
    folder.mkdir()
    return set(net.Workshop(folder).compare("small", SMALL, older, None))


def changed(package: Path, file: str, text: str, by: str) -> None:
    path = package / file
    before = path.read_text(encoding="utf-8")
    assert text in before
    path.write_text(before.replace(text, by), encoding="utf-8")


def test_equal_versions_show_no_difference(copied: Path, tmp_path: Path) -> None:
    """Also though their files lie in different places."""
    assert differing(copied, tmp_path / "work") == set()


def test_a_changed_word_is_found(
    copied: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a help, a message and a page; the difference shows the lines before and after."""
    changed(copied, "hpml_bench/cli/commands/report.py", "Rebuild the", "Remake the")
    changed(copied, "hpml_bench/cli/reporting.py", "there is no such", "there's no such")
    changed(copied, "templates/report.html.j2", "<title>", "<title>The ")
    found = differing(copied, tmp_path / "work")
    assert found == {
        "small/help/terminal.txt",
        "small/mistake/terminal.txt",
        "small/page/out/report.html",
    }
    said = capsys.readouterr().out
    assert re.search(r"^-.*Remake the report of DIR", said, re.MULTILINE)
    assert re.search(r"^\+.*Rebuild the report of DIR", said, re.MULTILINE)


def test_only_what_the_table_names_is_made_alike() -> None:
    """Times of a dry run and those that `init` predicts; not the words around them."""
    sentence = "Time here, within a factor of three if nothing else runs: {} a run. For 2 cores."

    def alike(before: str, after: str) -> bool:
        return net.normalised(before.encode()) == net.normalised(after.encode())

    assert alike(sentence.format("59 s"), sentence.format("1.5 min"))
    assert not alike(sentence.format("59 s"), sentence.format("59 s").replace("three", "four"))
    queued = "export HPML_BENCH_QUEUED=2026-12-02T23:31:{}+00:00"
    assert alike(queued.format(44), queued.format(58))
    assert not alike("took 59 s", "took 58 s")
    assert all(volatile.reason for volatile in net.VOLATILE)


def test_differences_are_bounded_and_files_of_one_side_named() -> None:
    long = "\n".join(map(str, range(1000))).encode()
    assert len([*net.difference("x", long, long.replace(b"\n", b"!\n"))]) == net.MOST_LINES + 1
    assert [*net.difference("x", None, b"a")] == ["x: only after"]
    assert [*net.difference("x", b"a\n", b"a\r\n")] == ["x: ends of lines differ"]


def test_the_parts_have_many_cases_with_names_of_their_own() -> None:
    """At least 200 mistakes and ten kinds of files of scores; every command's help."""
    found = {
        "references": references.cases(),
        "compare": compared.cases(),
        "pages": folders.cases(),
        "commands": commands.cases(),
        "errors": mistakes.cases(),
        "help": commands.helps(),
    }
    assert found.keys() == net.PARTS.keys()
    for cases in found.values():
        assert len({case.name for case in cases}) == len(cases)
    assert len(found["errors"]) > 200
    assert len(found["compare"]) > 10
    modules = (net.ROOT / "hpml_bench" / "cli" / "commands").glob("[a-z]*.py")
    named = {path.stem.replace("_", "-") for path in modules}
    assert named <= {case.name for case in found["help"]}


def test_made_folders_have_the_ids_of_their_runs(tmp_path: Path) -> None:
    """So that pages show more than that the ids are wrong; one of a failure is wrong by intent."""
    from hpml_bench.records.load import load_records, wrong_id

    folders.write_inputs(tmp_path, REFERENCE)
    wrong = {}
    for suite in [*tmp_path.glob("*/suite.json"), *tmp_path.glob("suites/*/suite.json")]:
        loaded = load_records(suite.parent)
        found = [wrong_id(run, loaded.named[run.run_id]) for run in loaded.records]
        wrong[suite.parent.name] = sum(map(bool, found))
    assert len(wrong) > 25
    assert wrong.pop("failures") == 1
    assert not any(wrong.values())
