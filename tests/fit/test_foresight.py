"""`run-all` warns before a sweep that won't fit, and is as fast as before where there is no doubt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers import tiny
from hpml_bench.cli import main
from hpml_bench.fit import limits
from hpml_bench.fit.predict import predict_to
from hpml_bench.launch import preparation
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep import local
from hpml_bench.system.errors import UserError

ASSETS = Path(limits.__file__).parents[1] / "assets"


def lacking(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, local):
        monkeypatch.setattr(module, "machine", lambda _: memory)


@pytest.mark.parametrize("name", ["quickstart", "regression", "tagging", "chat"])
def test_embedded_suites_raise_no_doubt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of 4 GB nothing is predicted for them, which would delay their first run."""
    lacking(4 * 10**9, monkeypatch)
    suite = resolve_suite(load_suite(name, settings={"device": "cpu"}))
    folder = ASSETS / suite.settings.backbone.removeprefix("embedded:")
    assert not limits.in_doubt(suite.settings, folder)
    monkeypatch.setattr(preparation, "predicted_memory", lambda *_: pytest.fail("predicted"))
    assert local._memory_wanted(suite, suite.runs(), folder) is None


def test_a_sweep_that_will_not_fit_begins_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names methods, their peaks, the memory there is and a command that works, before the first run begins."""
    lacking(800_000_000, monkeypatch)
    suite = str(tiny.local_suite(tmp_path))
    words = ["run-all", suite, "--seeds", "1", "--nproc", "1", "--out", str(tmp_path / "out"), "--wandb", "off"]
    monkeypatch.setattr(local.Execution, "execute", lambda *_: (_ for _ in ()).throw(UserError("the first run")))
    done = CliRunner().invoke(main, words)
    assert done.output.rstrip().endswith("the first run")
    said = " ".join(done.output.split())
    warning = re.search(r"memory won't be enough for (.*): there are (.*) for each rank; ", said)
    process = 88 if limits._torch_has_cuda() else 50
    assert sorted(warning[1].split(", ")) == sorted(re.findall(rf"(?:lora|head) \({process}\d MB\)", warning[1]))
    assert warning[1].count("lora") == warning[1].count("head") == 1
    assert warning[2] == "490 MB", "what the command leaves, and what the rank shares with it"
    file = tmp_path / "out" / "colours" / "suite.json"
    assert f"hpml-bench fit {file}" in done.output.replace("\n", "")
    again = CliRunner().invoke(main, ["fit", str(file), "--memory", "800MB"])
    assert again.exit_code == 1
    assert re.search(rf"^lora +no +{process}\d MB", again.stdout, re.MULTILINE)


def test_memory_for_a_sweep_gives_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the quick estimate raises a doubt that the prediction doesn't share."""
    more = 2 * limits.WITH_CUDA - limits.WITH_CUDA_PRIVATE if limits._torch_has_cuda() else 0
    lacking(1_090_000_000 + more, monkeypatch)
    suite = resolve_suite(load_suite(str(tiny.local_suite(tmp_path)), settings={"global_batch": 512}))
    runs = suite.runs(seeds=[0])
    assert limits.in_doubt(suite.settings, tmp_path / "model")
    assert local._memory_wanted(suite, runs, tmp_path / "model") is None


def test_what_cannot_be_predicted_gives_no_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a strange model nor a prediction that fails ends a sweep, or prints anything."""
    suite = load_suite(str(tiny.local_suite(tmp_path)))
    assert local._memory_wanted(suite, suite.runs(), tmp_path / "none") is None
    predict_to("{}", ["lora"], 1, str(tmp_path / "result.json"))
    assert json.loads((tmp_path / "result.json").read_text()) == {"sentence": None}
    assert capfd.readouterr() == ("", "")
