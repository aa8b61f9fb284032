"""`run-all` warns before a sweep that won't fit, as fast as before where there is no doubt; what `fit` advises fits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers import control_groups, tiny
from hpml_bench.cli import main
from hpml_bench.fit import limits
from hpml_bench.fit.limits import THRESHOLD
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


# Under a limit


LIMIT = 1_500_000_000
WORDS = 500  # words of a text: their activations are nearly all of a step's memory


def long_texts(folder: Path) -> Path:
    """Write a suite of LoRA on a GPT-2 of four layers, with a batch that takes more than twice the limit."""
    from transformers import GPT2Config, GPT2Model

    suite = tiny.local_suite(
        folder, world_size=1, global_batch=32, eval_batch=8, max_length=WORDS, steps=2, warmup_steps=0, dropout=0.1,
        latency_samples=0, validation_samples=8, test_samples=8,
    )  # fmt: skip
    shape = {"n_positions": 512, "n_embd": 128, "n_layer": 4, "n_head": 4}
    GPT2Model(GPT2Config(vocab_size=tiny.VOCABULARY, **shape)).save_pretrained(folder / "model")
    rows = [f"{tiny.COLOURS[row % 3]},w{row % 3} " + " ".join(["w7"] * (WORDS - 2)) for row in range(60)]
    (folder / "rows.csv").write_text("\n".join(["label,text", *rows]) + "\n")
    return suite


def under(group: Path | None, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the under line, in a control group or in none of its own."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    line = [sys.executable, "-m", "hpml_bench", *words]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=900, check=False, preexec_fn=enter, env=os.environ | variables
    )


@pytest.mark.disks
@pytest.mark.serial
def test_advice_ends_a_lack_of_memory(tmp_path: Path) -> None:
    """The under and its ranks share the limit; fit knows it from the control group, as from --memory."""
    suite = str(long_texts(tmp_path))
    out = tmp_path / "out"
    words = ["run-all", suite, "--methods", "lora", "--seeds", "1", "--out", str(out), "--wandb", "off"]
    with control_groups.limited(LIMIT) as group:
        done = under(group, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "oom_host", done.stdout
        assert "memory won't be enough for lora" in " ".join(done.stdout.split())
        advised = under(group, "fit", suite, "--methods", "lora", "--json")
        (need,) = json.loads(advised.stdout)
        assert json.loads(under(None, "fit", suite, "--methods", "lora", "--memory", str(LIMIT), "--json").stdout) == [
            need
        ]
        assert need["fits"] is False
        options = re.findall(r"--set (\S+)", need["advice"])
        assert any(option.startswith("micro_batch=") for option in options)
        changes = [word for option in options for word in ("--set", option)]
        assert f" and {THRESHOLD}=65536 in the environment" in need["advice"]
        done = under(group, *words, "--fresh", *changes, **{THRESHOLD: "65536"})
        assert done.returncode == 0, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "ok"
        assert "memory won't" not in done.stdout
