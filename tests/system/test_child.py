"""Jobs that are children: what is done before their command, and where their modules come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpml_bench.system import child

STARTED = [sys.executable, "-c", "print('began')"]


@pytest.mark.parametrize(
    ("setup", "began"), [([], True), (["true"], True), (["no-such-module load cuda", "true"], False)]
)
def test_a_setup_line_that_fails_ends_the_job(setup: list[str], began: bool, tmp_path: Path) -> None:
    """Else its runs would be recorded as good in an environment that nobody asked for; the log says at what."""
    log = tmp_path / "logs" / "job.log"
    status = child.start(STARTED, {}, log, setup).wait(60)
    assert (status == 0) is began
    assert ("began" in log.read_text()) is began
    assert began or "no-such-module" in log.read_text()


def test_the_setup_is_no_argument(tmp_path: Path) -> None:
    """All users of a machine can read those while its lines run; neither they nor the job get it as a variable."""
    setup = ["export MY_TOKEN=0123456789", "cat /proc/$$/cmdline; echo; env"]
    words = [sys.executable, "-c", "import os; print(os.environ['MY_TOKEN'], 'HPML_BENCH_SETUP' in os.environ)"]
    log = tmp_path / "logs" / "job.log"
    assert child.start(words, {}, log, setup).wait(60) == 0
    arguments, _, rest = log.read_text().partition("\n")
    assert "0123456789" not in arguments
    assert "HPML_BENCH_SETUP" not in rest
    assert rest.endswith("0123456789 False\n")


@pytest.mark.parametrize("seen", [False, True])
def test_a_module_is_looked_for_where_this_process_looks(
    seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in the working folder stands in for a library only if it does so here."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").touch()
    (tmp_path / "json" / "tool.py").write_text("print('of the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)] if seen else ["/usr/lib"])
    words = child.module("json.tool", "--help")
    done = subprocess.run([sys.executable, "-E", *words], capture_output=True, text=True, check=True)
    assert ("of the working folder" in done.stdout) is seen
