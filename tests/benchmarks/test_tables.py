"""The reference pages of docs/, which benchmarks/generate_docs.py writes."""

import json

import generate_docs
from mutations import ROOT
from pydantic import BaseModel

from helpers import made_records
from hpml_bench.suite.settings import Settings


def test_the_reference_pages_are_up_to_date() -> None:
    """docs/ holds what benchmarks/generate_docs.py writes: run it after a change of settings,
    metrics or records.
    """
    for name, text in generate_docs.documents().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, (
            f"docs/{name} is out of date"
        )


def test_every_setting_and_suite_key_is_explained() -> None:
    """Each field of a suite file has a row with a meaning."""
    models: list[type[BaseModel]] = [
        Settings,
        generate_docs.Suite,
        generate_docs.MethodEntry,
        generate_docs.TaskSpec,
    ]
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
