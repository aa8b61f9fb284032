"""What benchmarks/ makes or reads as a whole: the reference pages of docs/, and the table of mutations.

The mutations themselves are tried by `benchmarks/mutations.py`.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import generate_docs
import mutations
import pytest
from mutations import ROOT, Mutation
from pydantic import BaseModel

from helpers import made_records
from hpml_bench.suite.settings import Settings

TABLE = mutations.read_table()
HELPERS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "helpers").glob("*.py"))
"""Where rows of tables may stand that several tests share."""


# Reference pages


def test_the_reference_pages_are_up_to_date() -> None:
    """docs/ holds what benchmarks/generate_docs.py writes: run it after a change of settings, metrics or records."""
    for name, text in generate_docs.documents().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"docs/{name} is out of date"


def test_every_setting_and_suite_key_is_explained() -> None:
    """Each field of a suite file has a row with a meaning."""
    models: list[type[BaseModel]] = [Settings, generate_docs.Suite, generate_docs.MethodEntry, generate_docs.TaskSpec]
    page = generate_docs.settings_page()
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            assert f"| `{name}` |" in page


def test_the_schema_describes_a_record() -> None:
    """A record has the fields the schema names, all that it requires, and no other."""
    schema = json.loads(generate_docs.documents()["record.schema.json"])
    content = made_records.record().model_dump(mode="json")
    assert set(schema["required"]) <= set(content) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


# Mutations


@pytest.mark.parametrize("mutation", TABLE, ids=[one.id for one in TABLE])
def test_a_mutation_fits_the_code(mutation: Mutation) -> None:
    """Its text is in its file once, it changes that, and its tests are there by name."""
    assert mutation.stale(ROOT) is None
    assert mutation.old != mutation.new
    assert mutation.tests
    for test in mutation.tests:
        file, _, whole = test.partition("::")
        name, _, row = whole.rstrip("]").partition("[")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text or not name
        assert row in text + HELPERS


def test_each_area_has_mutations_of_its_own() -> None:
    """Each has eight at least, 48 in all, and no two have one id."""
    assert len({one.id for one in TABLE}) == len(TABLE) >= 48
    areas = [one.area for one in TABLE]
    assert set(areas) == set(mutations.AREAS)
    assert all(areas.count(area) >= 8 for area in mutations.AREAS)


def test_verdicts_are_those_of_the_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that a test notices is killed, one that hangs too; one that none notices has survived; others are stale."""
    (tmp_path / "sums.py").write_text("def three():\n    return 1 + 2\n")
    (tmp_path / "test_sums.py").write_text("import sums\n\ndef test_three():\n    assert sums.three() == 3\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(mutations, "ROOT", tmp_path)
    monkeypatch.setattr(mutations, "SECONDS", 20.0)
    bug = Mutation("bug", "claims", "sums.py", "1 + 2", "1 - 2", ("test_sums.py::test_three",))
    table = (
        bug,
        replace(bug, id="same", new="2 + 1"),
        replace(bug, id="lost", old="1 + 3"),
        replace(bug, id="no test", tests=("test_sums.py::test_four",)),
    )
    found = mutations.try_all(table[:3], 2)
    assert {name: how for name, (how, _) in found.items()} == {"bug": "killed", "same": "SURVIVED", "lost": "stale"}
    with pytest.raises(SystemExit, match="without a mutation these tests end with status 4"):
        mutations.try_all(table[3:], 1)
    assert (tmp_path / "sums.py").read_text().endswith("1 + 2\n")
