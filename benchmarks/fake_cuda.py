"""CUDA without a card: every method, type of PEFT and task on tensors that say they are on cuda:0.

    python benchmarks/fake_cuda.py [--only A,B] [--markdown FILE]

For each combination the harness's own code assembles a run, rehearses it, takes two steps,
evaluates, generates answers, merges, and evaluates the merged model. It needs torch's build for
CUDA, and neither a card nor a driver: values are computed on the CPU, and the devices of each
operator's arguments are checked by torch's rules (`fake_card`). Parameters and buffers must be on
the card, trained parameters float32 with a gradient, and losses finite. What can't run like that,
`CANNOT`, runs on the CPU, with steps in which a tensor that is made without a device is on another
one.

A line per combination says

- ok: it ran;
- ok on the CPU: it ran there, and why not on the card;
- reads values: it ran, and its steps wait for the card at the lines named;
- unsupported: the harness refuses the method there, and on the CPU in the same words;
- FAIL: where and why.

Exit status 1 if a combination failed, 2 without torch's build for CUDA. Not shown: kernels and
which of them torch takes, NCCL and DDP's reducer, streams, memory, loading straight to a card.
"""

import argparse
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from fake_card.machine import card, leave_group
from fake_card.tensors import Card

from helpers import tiny  # type: ignore[import-not-found]
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe, Run
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import assemble
from hpml_bench.training.evaluation import evaluate
from hpml_bench.training.kernels import WEIGHTS
from hpml_bench.training.trainer import Trainer, make_trainer

CANNOT = {
    "qlora": (
        "bitsandbytes keeps 4-bit weights in a class of tensors of its own, which is none of the "
        "card's"
    )
}
"""Method that can't run on the card here -> why."""
OF_OTHERS = {
    "trained",
    "command",
}  # methods that another program trains, which need a folder or a command
STATUSES = ("ok", "ok on the CPU", "reads values", "unsupported", "FAIL")
VARIATIONS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": True},
    {"precision": "fp16"},
    {"precision": "fp32"},
    {"micro_batch": 2},
    {"weights": "bfloat16"},
    {"trained_weights": "bfloat16"},
    *({"optimizer": name} for name in registry.names("optimizers") if name != "adamw"),
)
SETTINGS: dict[str, Any] = {
    "device": "cuda",
    "world_size": 1,
    "steps": 2,
    "log_every": 1,
    "global_batch": 4,
    "eval_batch": 8,
    "validation_samples": 8,
    "test_samples": 8,
    "max_length": 32,
    "precision": "bf16",
    "dropout": 0.1,
}
Step = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Combination:
    """A method on a model and a task, with changes of the settings."""

    model: str
    task: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        changes = " ".join(f"{key}={value}" for key, value in self.changes.items())
        return " ".join(
            filter(None, (self.model, self.task, self.options.get("type", self.method), changes))
        )


@dataclass
class Finding:
    """End of a combination."""

    status: str
    why: str = ""
    waits: list[str] = field(
        default_factory=list
    )  # lines where the host waits for the card in a step
    kernels: int = 0  # kernels of the last step, a fused one of many tensors counted once
    casts: int = 0  # those that cast a tensor


class Wrong(Exception):  # noqa: N818 - a finding
    """Something is not where, or of the type, that it should be."""


def combinations() -> list[Combination]:
    """Return all methods and types of PEFT on a classifier and a language model, each task, and
    the variations.
    """
    from peft import PeftType

    from hpml_bench.builtin.methods.peft import ALIASES

    own = [name for name in registry.names("methods") if name not in {"peft", *OF_OTHERS}]
    methods: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in own]
    methods += [("peft", {"type": kind}) for kind in (*(kind.value for kind in PeftType), *ALIASES)]
    kinds = (("gpt2", "sequence_classification"), ("llama", "causal_lm"))
    found = [Combination(*kind, *method) for kind in kinds for method in methods]
    found += [
        Combination("gpt2", task, name)
        for task in ("regression", "token_classification")
        for name in own
    ]
    trained = ("lora", "full", "prompt_tuning")
    return found + [
        Combination(*kinds[1], name, changes=changes) for changes in VARIATIONS for name in trained
    ]


class Looks(Probe):
    """Refuses in each step trained parameters of another type, or without a gradient of their
    device, type, shape.
    """

    def start(self, run: Run) -> None:
        self.model, self.device, self.matrices = (
            run.model,
            run.group.device,
            WEIGHTS[run.settings.trained_weights],
        )
        check_placed(self.model, self.device)

    def after_backward(self, index: int) -> None:  # noqa: ARG002 - an event
        check_placed(self.model, self.device)
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad:
                continue
            if weight.dtype not in {torch.float32, self.matrices}:
                raise Wrong(f"{name} is trained in {weight.dtype}")
            if weight.grad is None:
                raise Wrong(f"no gradient reaches {name}")
            own, other = ((each.device, each.dtype, each.shape) for each in (weight, weight.grad))
            if own != other:
                raise Wrong(f"the gradient of {name} is {other}, and the parameter {own}")


def check_placed(model: torch.nn.Module, device: torch.device) -> None:
    """Refuse parameters and buffers that are not on the device."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device != device:
            raise Wrong(f"{name} is on {tensor.device}")


def save_models(folder: Path) -> dict[str, Path]:
    """Save a GPT-2 and a Llama of two layers, width 64, with the tests' tokenizer; return their
    folders.
    """
    from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    common = {
        "vocab_size": tiny.VOCABULARY,
        "bos_token_id": None,
        "eos_token_id": tiny.VOCABULARY - 1,
    }
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    models = {
        "gpt2": GPT2Model(GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=64, **common)),
        "llama": LlamaForCausalLM(
            LlamaConfig(intermediate_size=128, max_position_embeddings=64, **shape, **common)
        ),
    }
    for name, model in models.items():
        for old in ("config.json", "model.safetensors"):
            (tiny.model(folder / name) / old).unlink()
        model.save_pretrained(folder / name)
    return {name: folder / name for name in models}


class Bench:
    """Models and prepared rows in a folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models = folder, save_models(folder)
        self.rows: dict[str, Prepared] = {}

    def spec(self, combination: Combination) -> RunSpec:
        """Return the run of a combination: two steps of four rows."""
        method = combination.method
        options = (
            registry.plugin("methods", method)
            .Options.model_validate(combination.options)
            .model_dump()
        )
        chosen = MethodSpec(name=method, method=method, lr=1e-3, options=options)
        settings = tiny.task_settings(
            self.folder, combination.task, rows=64, **SETTINGS | combination.changes
        )
        return RunSpec(suite="fake", settings=settings, method=chosen, seed=0)

    def prepared(self, combination: Combination, spec: RunSpec) -> Prepared:
        """Return the model of a combination, and the rows of its task."""
        if combination.task not in self.rows:
            self.rows[combination.task] = prepare(spec.settings)
        backbone = str(self.models[combination.model])
        return self.rows[combination.task].model_copy(update={"backbone": backbone})


def run(bench: Bench, combination: Combination) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (on_cpu if combination.method in CANNOT else on_card)(bench, combination)
    except Unsupported as error:
        return Finding(
            "unsupported" if str(error) == refusal(bench, combination) else "FAIL", str(error)
        )
    except Exception as error:
        return Finding("FAIL", reason(error))
    finally:
        leave_group()  # which an error leaves open


def on_card(bench: Bench, combination: Combination) -> Finding:
    """Do a run on the card that isn't there."""
    spec, waited, kernels = bench.spec(combination), Counter[str](), Counter[str]()
    prepared = bench.prepared(combination, spec)

    def counted(mode: Card, step: Step) -> Step:
        def taken(index: int, indices: np.ndarray) -> None:
            mode.waits.clear()
            mode.kernels.clear()
            step(index, indices)
            waited.update(mode.waits)
            kernels.clear()
            kernels.update(mode.kernels)

        return taken

    with card() as (mode, group):
        do_run(spec, prepared, group, partial(counted, mode))
    return Finding(
        "reads values" if waited else "ok", "", sorted(waited), kernels.total(), kernels["_to_copy"]
    )


def on_cpu(bench: Bench, combination: Combination) -> Finding:
    """Do a run on the CPU; in its steps the default device is another, so that a tensor made
    without one is refused.
    """
    spec = bench.spec(replace(combination, changes=combination.changes | {"device": "cpu"}))
    prepared = bench.prepared(combination, spec)

    def elsewhere(step: Step) -> Step:
        def taken(index: int, indices: np.ndarray) -> None:
            with torch.device("meta"):
                step(index, indices)

        return taken

    with tiny.alone() as group:
        do_run(spec, prepared, group, elsewhere)
    return Finding("ok on the CPU", CANNOT[combination.method])


def refusal(bench: Bench, combination: Combination) -> str:
    """Return why the harness refuses a combination on the CPU; nothing where it doesn't, or
    where something fails.
    """
    spec = bench.spec(replace(combination, changes=combination.changes | {"device": "cpu"}))
    with suppress(Exception), tiny.alone() as group:
        try:
            make_trainer(
                assemble(spec, bench.prepared(combination, spec), group), [], lambda _: None
            )
        except Unsupported as error:
            return str(error)
    return ""


def do_run(spec: RunSpec, prepared: Prepared, group: Group, around: Callable[[Step], Step]) -> None:
    """Assemble a run, train with something around each step, evaluate, merge, and evaluate what
    is merged.
    """
    assembly, probe = assemble(spec, prepared, group), Looks()
    probe.start(replace(assembly, folder=Path(prepared.data), began=time.monotonic()))
    trainer = make_trainer(assembly, [probe], lambda _: None)
    if isinstance(trainer, Trainer):
        trainer.step = around(trainer.step)  # type: ignore[method-assign, assignment]
    trainer.train()
    merged = assembly.method.merge(assembly.model.encoder)
    if merged is not None:
        again = assembly.model.with_encoder(merged)
        check_placed(again, group.device)
        evaluate(
            replace(assembly, model=again, generator=None), assembly.test, "test", assembly.steps
        )


def reason(error: BaseException) -> str:
    """Return an error's kind, first line, and the innermost lines of ours and of the libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [
        f"{Path(each.filename).parent.name}/{Path(each.filename).stem}:{each.lineno}"
        for each in frames
    ]
    inner = [
        line
        for line in lines
        if not line.startswith(("fake_card/", "benchmarks/", "utils/_python_dispatch"))
    ]
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]} [{' < '.join(reversed(inner[-4:]))}]"


def markdown(found: dict[str, Finding]) -> str:
    """Return the page of docs/: versions, counts, and what each combination is that did not just
    run.
    """
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes")
    )
    lines = [
        "# CUDA without a card",
        "",
        (
            "Written by `python benchmarks/fake_cuda.py --markdown docs/fake-cuda.md` (`tox -e "
            "cuda`), whose first lines"
        ),
        "say what a combination is and what is checked.",
        "",
        f"Python {platform.python_version()}, {versions}, CUDA {torch.version.cuda}: {len(found)} "
        f"combinations, {counted(found)}.",
    ]
    for status in STATUSES[1:]:
        rows = [(name, of) for name, of in found.items() if of.status == status]
        if rows:
            lines += [
                "",
                f"## {status[0].upper()}{status[1:]}",
                "",
                "| combination | where or why |",
                "|---|---|",
            ]
            for name, of in rows:
                where = (", ".join(of.waits) or of.why).replace("|", "\\|").replace("\n", " ")
                lines.append(f"| {name} | {where} |")
    return "\n".join(lines) + "\n"


def counted(found: dict[str, Finding]) -> str:
    counts = Counter(finding.status for finding in found.values())
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", help="combinations with one of these words in their name", metavar="A,B"
    )
    parser.add_argument(
        "--markdown", type=Path, help="write a page of the findings here", metavar="FILE"
    )
    options = parser.parse_args()
    if torch.version.cuda is None:
        lacking = f"torch {torch.__version__} is built without CUDA; tox -e cuda installs one"
        print(f"fake_cuda.py: {lacking}", file=sys.stderr)
        return 2
    words = set(filter(None, (options.only or "").split(",")))
    chosen = [each for each in combinations() if not words or words & set(each.name.split())]
    found: dict[str, Finding] = {}
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for combination in chosen:
            finding = found[combination.name] = run(bench, combination)
            count = f"{finding.kernels} kernels, {finding.casts} casts" if finding.kernels else ""
            said = finding.why or " ".join([count, *finding.waits])
            print(f"{finding.status:14}{combination.name}  {said}", flush=True)
    if options.markdown:
        options.markdown.write_text(markdown(found))
    print(f"{len(found)} combinations: {counted(found)}")
    return int(any(finding.status == "FAIL" for finding in found.values()))


if __name__ == "__main__":
    sys.exit(main())
