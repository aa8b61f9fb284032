"""A suite that ran out of memory under a limit runs with the settings that `fit` advises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import control_groups, tiny
from hpml_bench.fit.limits import THRESHOLD

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


def command(group: Path | None, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, in a control group or in none of its own."""

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
    """The command and its ranks share the limit; fit knows it from the control group, as from --memory."""
    suite = str(long_texts(tmp_path))
    out = tmp_path / "out"
    words = ["run-all", suite, "--methods", "lora", "--seeds", "1", "--out", str(out), "--wandb", "off"]
    with control_groups.limited(LIMIT) as group:
        done = command(group, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "oom_host", done.stdout
        assert "memory won't be enough for lora" in " ".join(done.stdout.split())
        advised = command(group, "fit", suite, "--methods", "lora", "--json")
        (need,) = json.loads(advised.stdout)
        assert json.loads(
            command(None, "fit", suite, "--methods", "lora", "--memory", str(LIMIT), "--json").stdout
        ) == [need]
        assert need["fits"] is False
        options = re.findall(r"--set (\S+)", need["advice"])
        assert any(option.startswith("micro_batch=") for option in options)
        changes = [word for option in options for word in ("--set", option)]
        assert f" and {THRESHOLD}=65536 in the environment" in need["advice"]
        done = command(group, *words, "--fresh", *changes, **{THRESHOLD: "65536"})
        assert done.returncode == 0, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "ok"
        assert "memory won't" not in done.stdout
