"""Trials of `score ... as=`: a small server with each of seven faults, and without, and whether the
fault is named.

    PYTHONPATH=$PWD python benchmarks/served.py --trials 20

trains the embedded chat model twice on pairs of questions, serves it by transformers' own
`generate`, with weights as they are or rounded, and counts how often the fault is named. A trial is
a run, 40 of its test rows, and a variant.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import web  # type: ignore[import-not-found]
from hpml_bench.data.prepare import prepare
from hpml_bench.launch import server
from hpml_bench.plugins.dataset import make_loader
from hpml_bench.records.files import KEPT
from hpml_bench.records.predictions import Predictions, TextAnswers, read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.sweep.local import run_sweep
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.training.served import Agreement, Claim, examine

FAULTS = (
    "another template",
    "a second BOS",
    "a missing end token",
    "adapter not applied",
    "adapter applied twice",
    "sampling on",
    "lengths cut",
)
HONEST = ("float32", "bfloat16", "int8")
"""Weights of a server without fault; int8 has a scale for each row of 32 weights, as llama.cpp's
Q8_0.
"""
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}{% "
    "else %} A:{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt "
    "%} A:{% endif %}"
)
OTHERS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{{ bos_token }}{% for m in messages %}Q: {{ m['content'] }}{% endfor %}",
    "{{ bos_token }}Question: {{ messages[-1]['content'] }}\nAnswer: ",
)
"""Templates that a server has instead: a usual one, the suite's without asking for an answer,
one that nobody knows.
"""
ROWS = 40


@dataclass(frozen=True)
class Serving:
    """Content of a server."""

    base: Path
    adapter: Path
    fault: str = ""
    weights: str = "float32"
    variant: int = 0


class Model:
    """The model of a server, with its fault."""

    def __init__(self, of: Serving) -> None:
        self.of, self.lock = of, threading.Lock()
        self.seen: Counter[str] = Counter()
        self.tokenizer = AutoTokenizer.from_pretrained(of.adapter)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(of.base), of.adapter)
        model = model.unload() if of.fault == "adapter not applied" else model.merge_and_unload()
        if of.fault == "adapter applied twice":
            model = PeftModel.from_pretrained(model, of.adapter)
        self.model = model.eval()
        for weight in self.model.parameters():
            weight.data = rounded(weight.data, of.weights)

    def chat(self, turns: list[dict[str, Any]], limits: dict[str, Any]) -> dict[str, Any]:
        other = OTHERS[self.of.variant % len(OTHERS)]
        own = {"chat_template": other} if self.of.fault == "another template" else {}
        text = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **own
        )
        found = self.complete(text, limits)
        return {"message": {"role": "assistant", "content": found.pop("text")}, **found}

    @torch.no_grad()
    def complete(self, text: str, limits: dict[str, Any]) -> dict[str, Any]:
        """Return text, finish_reason and the number of tokens."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        fault, end = self.of.fault, self.tokenizer.eos_token_id
        if fault == "a second BOS":
            ids = torch.cat([torch.tensor([[self.tokenizer.bos_token_id]]), ids], dim=1)
        most = int(limits["max_tokens"]) if fault != "lengths cut" else 2 + self.of.variant % 2
        heat = limits.get("temperature") or (
            0.5 + 0.25 * (self.of.variant % 3) if fault == "sampling on" else 0
        )
        how = {"do_sample": True, "temperature": heat, "top_k": 0} if heat else {"do_sample": False}
        with self.lock:
            self.seen[text] += 1  # in whatever order requests come, a trial samples the same
            torch.manual_seed(zlib.crc32(f"{self.of.variant} {self.seen[text]} {text}".encode()))
            made = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                pad_token_id=end,
                eos_token_id=None if fault == "a missing end token" else end,
                **how,
            )[0, ids.shape[1] :].tolist()
        ended = end in made and fault != "a missing end token"
        text = self.tokenizer.decode(made, skip_special_tokens=True)
        return {"text": text, "finish_reason": "stop" if ended else "length", "count": len(made)}


def rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """Return weights rounded as a format keeps them."""
    if kind == "bfloat16":
        return weight.bfloat16().float()
    if kind != "int8" or weight.dim() < 2 or weight.shape[-1] % 32:
        return weight
    blocks = weight.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return ((blocks / scale).round() * scale).reshape(weight.shape)


@contextmanager
def serving(of: Serving) -> Iterator[str]:
    """Serve a model on the loopback while the body runs; yield the address."""
    model = Model(of)

    class Handler(web.Handler):  # type: ignore[misc]
        def do_GET(self) -> None:  # noqa: N802
            listed = {
                "object": "list",
                "data": [{"id": "small", "object": "model", "owned_by": "benchmarks"}],
            }
            self.reply(json.dumps(listed).encode())

        def do_POST(self) -> None:  # noqa: N802
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat = self.path.endswith("/chat/completions")
            choice = (
                model.chat(asked["messages"], asked)
                if chat
                else model.complete(asked["prompt"], asked)
            )
            usage = {"completion_tokens": choice.pop("count")}
            self.reply(json.dumps({"model": "small", "choices": [choice], "usage": usage}).encode())

    with web.Server(Handler) as server:
        yield f"{server.address}/v1"


def suite_of_pairs(folder: Path, steps: int = 200) -> Suite:
    """Write rows of two questions and their answers, of several tokens, and return their suite."""
    chat = load_suite("chat", train_samples=1536, test_samples=400)
    loaded = make_loader(chat.settings).load(chat.settings, "answer")
    files = {}
    for split in ("train", "test"):
        rows = getattr(loaded, split)["contents"]
        pairs = [
            {"prompt": f"{one[0].strip()} {two[0].strip()}", "completion": f"{one[1]} and{two[1]}."}
            for one, two in zip(rows[::2], rows[1::2], strict=True)
        ]
        files[split] = folder / f"{split}.jsonl"
        files[split].write_text("".join(json.dumps(row) + "\n" for row in pairs))
    task = {
        "name": "causal_lm",
        "options": {"scorer": "exact", "max_new_tokens": 12, "template": TEMPLATE},
    }
    dataset = {
        "name": "text_files",
        "options": {split: f"path:{file}" for split, file in files.items()},
    }
    settings: dict[str, Any] = {
        "task": task,
        "dataset": dataset,
        "steps": steps,
        "eval_every": None,
        "max_length": 160,
        "world_size": 1,
        "train_samples": None,
        "test_samples": None,
        "validation_samples": 32,
    }
    return load_suite("chat", settings=settings, seeds=2)


def trained(suite: Suite, out: Path) -> list[tuple[RunRecord, Path]]:
    """Train LoRA with both seeds and return the records, and folders of what was kept."""
    found = run_sweep(SweepRequest(suite, out, ("lora",), keep=True), Console(file=sys.stderr))
    return [(record, found.folder / record.run_id) for record in found.records]


def examined(record: RunRecord, folder: Path, of: Serving, rows: Sequence[int]) -> Agreement:
    """Ask a server some rows of a run, and return how its answers differ from the run's."""
    prepared = prepare(record.spec.settings)
    every = server.questions(record.spec.settings, prepared)
    asked = [every[row] for row in rows]
    with serving(of) as url:
        client = server.Client({"url": url, "model": "small", "api": "chat"}, None, 60)
        ask = partial(server.again, client, asked, prepared, record.spec)
        told = ask(range(len(asked)), None)
        ours = cast(Predictions, read_predictions(folder))
        texts = cast(TextAnswers, ours.texts)
        own = tuple(cast(tuple[str, ...], texts.answer)[row] for row in rows)
        chosen = replace(ours, texts=replace(texts, answer=own, near_tie=None))
        theirs = replace(ours, texts=replace(texts, answer=tuple(told), near_tie=None, cut=None))
        kept = folder / KEPT
        return examine(
            Claim(record.spec, prepared, kept, [row for row, _ in asked], ask), chosen, theirs
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    asked, wrong = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as name:
        runs = trained(suite_of_pairs(Path(name)), Path(name) / "runs")
        base = Path(prepare(runs[0][0].spec.settings).backbone)
        for fault in ("", *FAULTS):
            named: Counter[str] = Counter()
            for number in range(asked.trials):
                record, folder = runs[number % len(runs)]
                rows = sorted(random.Random(number).sample(range(200), ROWS))  # noqa: S311 - no secret
                weights = HONEST[number // 2 % len(HONEST)]
                found = examined(
                    record, folder, Serving(base, folder / KEPT, fault, weights, number), rows
                )
                named[found.cause] += 1
                if found.cause != fault or (not fault and found.beyond):
                    wrong += 1
                    print(
                        f"  {fault or 'no fault'}, trial {number}, {weights}: {found.sentence}",
                        flush=True,
                    )
            print(f"{fault or 'no fault'}: {dict(named)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
