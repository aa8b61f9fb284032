"""Support table: tries every PEFT type on a small GPT-2, Llama and BERT, and writes docs/methods-support.md.

    python benchmarks/support_table.py

A type runs with a model when it can be built, trains for three steps with a finite and falling loss, gives every
trained parameter a gradient and leaves all others alone, and when padding changes no prediction. It merges when the
merged model's logits are the same.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import torch
from torch.nn.functional import cross_entropy

from hpml_bench import registry
from hpml_bench.config.settings import MethodSpec, RunSpec, Settings
from hpml_bench.data.rows import Batch
from hpml_bench.errors import Unsupported
from hpml_bench.methods.peft import ALIASES, SINCE
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.training.model import TaskModel, build_model

TABLE = Path(__file__).parent.parent / "docs" / "methods-support.md"
BACKBONES = ("GPT-2", "Llama", "BERT")
VOCABULARY, WIDTH, LENGTH = 100, 64, 12
STEPS = 3
PADDING_TOLERANCE = 1e-5
MERGE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """What trying a method on a backbone showed; `reason` is empty where it runs."""

    reason: str
    parameters: int = 0
    merges: bool = False


def save_backbones(folder: Path) -> dict[str, Path]:
    """Save a GPT-2, a Llama and a BERT of 2 layers and width 64 with random weights, and return their folders."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

    common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    torch.manual_seed(0)
    models = {
        "GPT-2": GPT2Model(GPT2Config(n_embd=WIDTH, n_layer=2, n_head=4, n_positions=64, **common)),
        "Llama": LlamaModel(LlamaConfig(num_key_value_heads=2, max_position_embeddings=64, **shape, **common)),
        "BERT": BertModel(BertConfig(max_position_embeddings=64, **shape, **common)),
    }
    for name, model in models.items():
        for weight in model.parameters():
            if weight.dim() == 1:  # biases start at zero, and what multiplies them would get no gradient
                weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(folder / name)
    return {name: folder / name for name in models}


def attempt(backbone: Path, method: str, options: dict[str, object]) -> Finding:
    """Build, train, pad and merge; what doesn't hold is the reason."""
    settings = Settings.model_validate(
        {"backbone": "path:", "dataset": "newswire", "steps": STEPS, "max_length": LENGTH, "dropout": 0.0}
    )
    kind = registry.plugin("methods", method)
    spec = MethodSpec(name=method, method=method, options=kind.Options(**options).model_dump(), lr=kind.lr)
    made = make_method(spec)
    try:
        run = RunSpec(suite="support", settings=settings, method=spec, seed=0)
        model = build_model(backbone, run, made, make_task(settings.task, tuple("abcd")))
        ids, mask, labels = batch()
        made.before_train(model.encoder, iter([Batch(ids, mask, labels, int(mask.sum()))]), STEPS)
    except Unsupported as error:
        return Finding(str(error))
    count = sum(weight.numel() for weight in model.encoder.parameters() if weight.requires_grad)
    reason = train(model, made) or changed_by_padding(model)
    return Finding(reason, count, not reason and merges(model, made))


def train(model: TaskModel, method: Method) -> str:
    """Train a few steps on one batch, and return what went wrong."""
    ids, mask, labels = batch()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    reached: set[str] = set()
    losses = []
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    for step in range(1, STEPS + 1):
        model.train()
        loss = cross_entropy(model(ids, mask), labels)
        auxiliary = method.auxiliary_loss(model.encoder)
        torch.autograd.backward(loss if auxiliary is None else loss + auxiliary)
        reached |= {name for name, weight in trained.items() if weight.grad is not None and weight.grad.any()}
        optimizer.step()
        method.after_step(model.encoder, step)
        optimizer.zero_grad()
        losses.append(loss.item())
    moved = [n for n, weight in model.named_parameters() if n in frozen and not torch.equal(weight, frozen[n])]
    if missing := trained.keys() - reached:
        return f"no gradient reaches {min(missing)}"
    if moved:
        return f"changes the frozen {moved[0]}"
    return "" if losses[-1] < losses[0] else f"its loss doesn't fall: {losses[0]:.3f} to {losses[-1]:.3f}"


@torch.no_grad()
def changed_by_padding(model: TaskModel) -> str:
    """Compare predictions with those under more padding and alone, and return how far they differ, if they do."""
    ids, mask, _ = batch()
    more = [torch.nn.functional.pad(part, (0, 4), value=value) for part, value in ((ids, 1), (mask, 0))]
    model.eval()
    logits = model(ids, mask)
    alone = torch.cat([model(i[None, : m.sum()], m[None, : m.sum()]) for i, m in zip(ids, mask, strict=True)])
    change = max((logits - other).abs().max().item() for other in (model(*more), alone))
    return "" if change <= PADDING_TOLERANCE else f"padding changes its logits by {change:.0e}"


@torch.no_grad()
def merges(model: TaskModel, method: Method) -> bool:
    """Whether the method folds into the backbone without changing the logits."""
    ids, mask, _ = batch()
    model.eval()
    before = model(ids, mask)
    merged = method.merge(model.encoder)
    if merged is None:
        return False
    return bool((model.with_encoder(merged)(ids, mask) - before).abs().max() <= MERGE_TOLERANCE)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return four texts of different lengths [4, 8], their mask and labels, the same at every call."""
    ids = torch.randint(3, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor([8, 5, 7, 2])[:, None]).long()
    return ids.where(mask.bool(), 1), mask, torch.arange(4)


def render(found: dict[str, dict[str, Finding]]) -> str:
    """Return the table as Markdown."""
    import peft

    lines = [
        "# Which PEFT types run",
        "",
        f"Generated by `python benchmarks/support_table.py` with PEFT {peft.__version__}: every type tried with the",
        "options that `method: peft` gives it, on models of 2 layers and width 64. *Trained* counts the parameters on",
        "that GPT-2 (110,592 parameters), head apart. *Merges*: folds into the backbone without changing its logits.",
        f"The last {len(ALIASES)} are options of LORA that `type` takes as names. ADAMSS needs scikit-learn",
        "and CORDA attrs, packages that PEFT does not install; BOFT needs setuptools, which torch 2.9 and 2.10 do not",
        *wrap(f"install on Python 3.11. {_newer_types()}", 118),
        "",
        "| Type | GPT-2 | Llama | BERT | Trained | Merges | Reason |",
        "|---|---|---|---|--:|---|---|",
    ]
    for name, findings in found.items():
        reasons: dict[str, list[str]] = {}
        for backbone, finding in findings.items():
            if finding.reason:
                reasons.setdefault(finding.reason, []).append(backbone)
        text = "; ".join(
            reason if len(where) == len(findings) else f"{', '.join(where)}: {reason}"
            for reason, where in reasons.items()
        ).replace("|", "\\|")
        marks = ["no" if finding.reason else "yes" for finding in findings.values()]
        runs = {backbone: finding for backbone, finding in findings.items() if not finding.reason}
        count = f"{findings['GPT-2'].parameters:,}" if "GPT-2" in runs else ""
        merging = [backbone for backbone, finding in runs.items() if finding.merges]
        merged = "" if not runs else "no" if not merging else "yes" if len(merging) == len(runs) else ", ".join(merging)
        lines.append(f"| {' | '.join([name, *marks, count, merged, text])} |")
    return "\n".join(lines) + "\n"


def _newer_types() -> str:
    """Return a sentence about the types that older versions of PEFT lack."""
    versions = sorted(set(SINCE.values()))
    came = [f"with {version} {', '.join(kind for kind in SINCE if SINCE[kind] == version)}" for version in versions]
    return f"PEFT 0.18 lacks some types, which came {'; '.join(came)}."


def try_all() -> dict[str, dict[str, Finding]]:
    """Try every type and alias on every backbone."""
    from peft import PeftType
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        backbones = save_backbones(Path(folder))
        return {
            kind: {name: attempt(path, "peft", {"type": kind}) for name, path in backbones.items()}
            for kind in [*sorted(kind.value for kind in PeftType), *ALIASES]
        }


if __name__ == "__main__":
    TABLE.write_text(render(try_all()), encoding="utf-8")
