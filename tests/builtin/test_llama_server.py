"""GGUF files served by llama.cpp: the answers are those of the run, but where rounding decides, or
a fault is named.

`tox -e llama` has xllamacpp, whose wheel is 40 MB.
"""

import re
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from helpers import llama, skips
from helpers.commands import called
from hpml_bench.data.sources import resolve_model
from hpml_bench.records.load import load_record

pytest.importorskip("xllamacpp", reason=skips.NO_LLAMA)

ROWS = 200
SETTINGS = [
    word
    for setting in ("steps=150", f"test_samples={ROWS}", "world_size=1", "latency_samples=0")
    for word in ("--set", setting)
]
OWN = "{% for m in messages %}{{ ' ' + (m['content'] | trim) }}{% endfor %}"
OTHER = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"


def call(*words: str) -> str:
    done = called(*words, *SETTINGS)
    return done.output


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of LoRA on the embedded chat, and the base model with its
    update 0, 1 and 2 times.
    """
    out = tmp_path_factory.mktemp("out")
    call(
        "run-all",
        "chat",
        "--methods",
        "lora",
        "--seeds",
        "1",
        "--keep",
        "--wandb",
        "off",
        "--out",
        str(out),
    )
    base = resolve_model("embedded:newswire-gpt2").folder_or_file
    (kept,) = (out / "chat").glob("lora-s0*/kept")
    model = AutoModelForCausalLM.from_pretrained(base)
    for times in range(3):
        folder = out / f"applied-{times}"
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
        model = PeftModel.from_pretrained(model, kept).merge_and_unload()
    return out


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_a_gguf_file_answers_as_its_run(kind: str, out: Path) -> None:
    """By chat and by completions; no answer leaves the run's beyond rounding."""
    llama.write_gguf(out / "applied-1", out / "model.gguf", kind, OWN)
    names = [f"chat{kind}", f"text{kind}"]
    with llama.serving(out / "model.gguf") as url:
        more = [f"{names[0]}={url},as=lora-s0", f"{names[1]}={url},api=completions,as=lora-s0"]
        said = call(
            "score",
            "chat",
            "--out",
            str(out),
            *(word for one in more for word in ("--system", one)),
        )
    files = [*out.glob("chat/*/run.json"), *out.glob("scored/seed0/chat/*/run.json")]
    scores = {
        record.spec.method.name: record.metrics["test_score"] for record in map(load_record, files)
    }
    for name in names:
        well = rf"{name} as lora-s0: (all {ROWS} answers are equal|\d+ of {ROWS} .* where rounding)"
        assert re.search(well, said), said
        assert scores[name] == pytest.approx(scores["lora"], abs=1.0)


@pytest.mark.parametrize(
    ("times", "template", "bos", "said"),
    [
        (1, OTHER, False, "its template differs"),
        (1, OWN, True, "a BOS that the run's prompts lack in front"),
        (0, OWN, False, "the base model without what was trained"),
        (2, OWN, False, "the adapter's update with twice its weight"),
    ],
    ids=["template", "BOS", "not applied", "applied twice"],
)
def test_a_fault_of_it_is_named(times: int, template: str, bos: bool, said: str, out: Path) -> None:
    """Another template, a BOS, and the adapter left out or applied twice."""
    llama.write_gguf(out / f"applied-{times}", out / "faulty.gguf", "F16", template, bos=bos)
    with llama.serving(out / "faulty.gguf") as url:
        told = call(
            "score", "chat", "--out", str(out), "--fresh", "--system", f"faulty={url},as=lora-s0"
        )
    assert said in told, told
