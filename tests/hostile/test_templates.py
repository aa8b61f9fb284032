"""Chat templates come with models of others: they are rendered in a sandbox, and what it refuses is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.data.prepare import prepare
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch escaped') }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('no system prompt') }}",
    "{% for message in messages %}",
    "{{ messages[9].content }}",
    "{{ 1 // 0 }}",
)


def settings(folder: Path, template: str) -> Settings:
    """Return settings of a run whose template is this one."""
    found = tiny.task_settings(folder, "causal_lm")
    task = found.task.model_copy(update={"options": {"template": template}})
    return found.model_copy(update={"task": task})


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_reaches_nothing(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's internals, files and changes of the rows are out of its reach; the preparation ends in one sentence."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        prepare(settings(tmp_path, template))
    assert "\n" not in str(raised.value)
    assert "chat template" in str(raised.value)
    assert not (tmp_path / "escaped").exists()
