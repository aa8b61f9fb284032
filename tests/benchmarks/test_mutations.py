"""The table of mutations fits the code, and a mutation's verdict is that of its tests.

The mutations themselves are tried by `benchmarks/mutations.py`.
"""

import ast
import subprocess
from dataclasses import replace
from pathlib import Path

import mutations
import pytest
from mutations import ROOT, Mutation

TABLE = mutations.read_table()
HELPER_FILES = (ROOT / "tests" / "helpers").glob("*.py")
HELPERS = "".join(path.read_text(encoding="utf-8") for path in HELPER_FILES)
"""Where rows of tables may stand that several tests share."""
SUMS = """\
class Sums:
    def three(self):
        total = (
            1 + 2
        )  # three
        return total
"""
IN_A_CLASS = Mutation(
    id="bug",
    area="claims",
    file="sums.py",
    function="Sums.three",
    old="1 + 2",
    new="1 - 2",
    tests=("test_sums.py::test_three",),
)
"""A bug in a method of SUMS."""

IDS = [mutation.id for mutation in TABLE]
for_each_mutation = pytest.mark.parametrize("mutation", TABLE, ids=IDS)


@for_each_mutation
def test_a_mutation_fits_the_code(mutation: Mutation) -> None:
    """Its text is in its function once, and its tests are there by name."""
    assert mutation.stale(ROOT) is None
    assert mutation.tests
    for test in mutation.tests:
        file, _, name_and_row = test.partition("::")
        name, _, row = name_and_row.rstrip("]").partition("[")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text or not name
        assert row in text + HELPERS


@for_each_mutation
def test_a_mutated_file_compiles(mutation: Mutation) -> None:
    """Its file compiles with the bug as without it, and is another program."""
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    mutated = mutation.mutated(source)
    compile(source, mutation.file, "exec")
    compile(mutated, mutation.file, "exec")
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))


def test_each_area_has_mutations_of_its_own() -> None:
    """Each has eight at least, 48 in all, and no two have one id."""
    assert len(set(IDS)) == len(TABLE) >= 48
    areas = [mutation.area for mutation in TABLE]
    assert set(areas) == set(mutations.AREAS)
    assert all(areas.count(area) >= 8 for area in mutations.AREAS)


def test_a_stale_mutation_says_why(tmp_path: Path) -> None:
    """It names what is not there: the file, the function, its text in the function, or a test."""
    (tmp_path / "sums.py").write_text(SUMS)
    (tmp_path / "test_sums.py").touch()
    assert IN_A_CLASS.stale(tmp_path) is None
    other_file = replace(IN_A_CLASS, file="more/sums.py")
    assert other_file.stale(tmp_path) == "there is no more/sums.py"
    moved_function = replace(IN_A_CLASS, function="three")
    assert moved_function.stale(tmp_path) == "there is no function three in sums.py"
    outside = replace(IN_A_CLASS, function="<module>")
    assert outside.stale(tmp_path) == "its text occurs 0 times in <module> of sums.py"
    twice = replace(IN_A_CLASS, old="total")
    assert twice.stale(tmp_path) == "its text occurs 2 times in Sums.three of sums.py"
    no_test = replace(IN_A_CLASS, tests=("test_lost.py::test_three",))
    assert no_test.stale(tmp_path) == "there is no test_lost.py"


def test_further_lines_of_a_mutation_are_indented_as_its_place() -> None:
    """Several lines of a bug stand as deep as the statement that they replace."""
    of_lines = replace(
        IN_A_CLASS,
        old="\ntotal = (1 + 2)\n",
        new="\nif self:\n    total = 2\n",
    )
    expected = """\
class Sums:
    def three(self):
        if self:
            total = 2  # three
        return total
"""
    assert of_lines.mutated(SUMS) == expected


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mutation:
    """Return a bug in the repository of one function and its test, on which mutations are tried."""
    (tmp_path / "sums.py").write_text("def three():\n    return 1 + 2\n")
    test = "import sums\n\ndef test_three():\n    assert sums.three() == 3\n"
    (tmp_path / "test_sums.py").write_text(test)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(mutations, "ROOT", tmp_path)
    monkeypatch.setattr(mutations, "SECONDS", 20.0)
    return replace(IN_A_CLASS, function="three")


def test_verdicts_are_those_of_the_tests(sums: Mutation) -> None:
    """A bug that a test notices is killed; one that none notices survives; others are stale."""
    same = replace(sums, id="same", new="2 + 1")
    lost = replace(sums, id="lost", old="1 + 3")
    results = mutations.try_all([sums, same, lost], 2)
    verdicts = {mutation: verdict for mutation, (verdict, _) in results.items()}
    assert verdicts == {"bug": "killed", "same": "SURVIVED", "lost": "stale"}
    assert (mutations.ROOT / "sums.py").read_text().endswith("1 + 2\n")


def test_a_bug_that_hangs_is_killed(sums: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tests are ended after SECONDS, and those of the code without it may take longer."""
    monkeypatch.setattr(mutations, "SECONDS", 3.0)
    endless = replace(sums, new="sum(iter(int, 1))")
    verdict, reason = mutations.try_all([endless], 1)["bug"]
    assert verdict == "killed"
    assert reason.endswith("as its tests hang")


def test_tests_that_fail_without_a_mutation_end_it(sums: Mutation) -> None:
    no_test = replace(sums, tests=("test_sums.py::test_four",))
    with pytest.raises(SystemExit, match="without a mutation these tests end with status 4"):
        mutations.try_all([no_test], 1)
