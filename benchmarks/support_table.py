"""Support table: tries every PEFT type on small models with random weights, and writes
docs/methods-support.md.

    python benchmarks/support_table.py

The models are a bare GPT-2, Llama and BERT, and whole language models. A method runs with a bare
model when it can be built, trains for three steps with a finite and falling loss, gives every
trained parameter a gradient and leaves all others alone, and when padding changes no prediction.
With a whole language model also reading token by token must give the logits of a forward pass over
the whole text, and prompts answered side by side must get the answers that they get alone. It
merges when the merged model's logits are the same.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence

from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.rows import Batch
from hpml_bench.plugins.task import make_task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import CLASSIFICATION, MethodSpec, RunSpec, Settings
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.generation import NEAR, generate
from hpml_bench.training.model import build_model

TABLE = Path(__file__).parent.parent / "docs" / "methods-support.md"
VOCABULARY, WIDTH, LENGTH = 100, 64, 12
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
OF_GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
STEPS = 3
PADDING_TOLERANCE, MERGE_TOLERANCE = 1e-5, 1e-4
BACKBONES, MODELS = ("GPT-2", "Llama", "BERT"), ("GPT-2", "Llama", "Qwen2", "Gemma 2")
SPREAD = 0.1
"""Of the language models' weights: with 0.02 attention is so even that a wrong position changes
hardly a logit.
"""
LENGTHS, NEW_TOKENS = (
    (8, 5, 7, 2),
    5,
)  # numbers of tokens: of the prompts, and of the answers after them
WINDOW = 8  # tokens that every other layer of Gemma 2 looks back: less than the texts have
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Finding:
    """Result of trying a method on a model; `reason` is empty where it runs."""

    reason: str
    parameters: int = 0
    merges: bool = False


def save_backbones(folder: Path) -> dict[str, Path]:
    """Save a GPT-2, a Llama and a BERT of 2 layers and width 64 with random weights, and return
    their folders.
    """
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    models = (
        GPT2Model(GPT2Config(**OF_GPT2, **COMMON)),
        LlamaModel(
            LlamaConfig(num_key_value_heads=2, max_position_embeddings=64, **SHAPE, **COMMON)
        ),
        BertModel(BertConfig(max_position_embeddings=64, **SHAPE, **COMMON)),
    )
    return {
        name: _saved(model, folder / name) for name, model in zip(BACKBONES, models, strict=True)
    }


def save_language_models(folder: Path) -> dict[str, Path]:
    """Save the whole models, of 2 layers and width 64 with random weights, and return their
    folders.
    """
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        GPT2Config,
        LlamaConfig,
        Qwen2Config,
    )

    grouped = {
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": SPREAD,
        **SHAPE,
        **COMMON,
    }
    configs = (
        GPT2Config(**OF_GPT2, initializer_range=SPREAD, **COMMON),
        LlamaConfig(**grouped),
        Qwen2Config(**grouped, tie_word_embeddings=True),
        Gemma2Config(**grouped, head_dim=32, query_pre_attn_scalar=32, sliding_window=WINDOW),
    )
    torch.manual_seed(0)
    from_config = AutoModelForCausalLM.from_config
    return {
        name: _saved(from_config(config), folder / name)
        for name, config in zip(MODELS, configs, strict=True)
    }


def _saved(model: Any, folder: Path) -> Path:
    """Save a model; weights of one dimension are moved: biases start at zero, and would get no
    gradient.
    """
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def attempt(backbone: Path, method: str, options: dict[str, object]) -> Finding:
    """Build a classifier on a bare model, train, pad and merge; what doesn't hold is the reason."""
    set_up, (*inputs, labels) = _set_up(CLASSIFICATION, method, options, LENGTH), batch()
    return _tried(backbone, *set_up, inputs, labels, lambda logits: cross_entropy(logits, labels))


def attempt_whole(folder: Path, method: str, options: dict[str, object]) -> Finding:
    """Build on a whole language model, train, pad, generate and merge; what doesn't hold is the
    reason.
    """
    run, made = _set_up("causal_lm", method, options, max(LENGTHS) + NEW_TOKENS)
    task, inputs = make_task(run.settings.task), texts()
    _, mask, labels = inputs
    learnt = int(mask[:, 1:].sum())
    return _tried(
        folder,
        run,
        made,
        inputs,
        labels,
        lambda logits: task.loss(logits, labels) / learnt,
        whole=True,
    )


def _tried(
    path: Path,
    run: RunSpec,
    made: Method,
    inputs: Sequence[Tensor],
    labels: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    whole: bool = False,
) -> Finding:
    ids, mask, *_ = inputs
    try:
        model: Any = build_model(path, run, made, make_task(run.settings.task, tuple("abcd")))
        made.before_train(model.encoder, iter([Batch(ids, mask, labels, int(mask.sum()))]), STEPS)
    except Unsupported as error:
        return Finding(str(error))
    count = sum(weight.numel() for weight in model.encoder.parameters() if weight.requires_grad)
    if not (reason := train(model, made, lambda: loss(model(*inputs)))):
        model.eval()
        with torch.no_grad():
            own, padding = model(*inputs), zip(inputs, (1, 0, IGNORE_INDEX), strict=False)
            longer = model(*(pad(part, (0, 4), value=by) for part, by in padding))
            rows = zip(*inputs, mask.sum(1), strict=True)
            alone = torch.cat(
                [model(*(part[None, :length] for part in row)) for *row, length in rows]
            )
        change, most = _largest(own - longer, own - alone), NEAR if whole else PADDING_TOLERANCE
        reason = "" if change <= most else f"padding changes its logits by {change:.0e}"
    if whole:
        reason = reason or _changed_by_caching(model) or _changed_by_neighbours(model)
    return Finding(reason, count, not reason and _merges(model, made, lambda of: of(*inputs)))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return four texts of different lengths [4, 8], their mask and labels, the same at every
    call.
    """
    ids = torch.randint(3, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor([8, 5, 7, 2])[:, None]).long()
    return ids.where(mask.bool(), 1), mask, torch.arange(4)


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Return four prompts of different lengths with what follows [4, 13], their mask and labels,
    always the same.
    """
    length = max(LENGTHS) + NEW_TOKENS
    ids = torch.randint(
        3, VOCABULARY, (len(LENGTHS), length), generator=torch.Generator().manual_seed(0)
    )
    real = torch.arange(length) < torch.tensor(LENGTHS)[:, None] + NEW_TOKENS
    return ids.where(real, 1), real.long(), ids.where(real, IGNORE_INDEX)


def _set_up(
    task: str, method: str, options: dict[str, object], length: int
) -> tuple[RunSpec, Method]:
    """Return a run of a few steps without dropout, and its method."""
    settings = Settings.model_validate(
        {
            "backbone": "path:",
            "dataset": "newswire",
            "task": task,
            "steps": STEPS,
            "max_length": length,
            "dropout": 0.0,
        }
    )
    kind = registry.plugin("methods", method)
    spec = MethodSpec(
        name=method, method=method, options=kind.Options(**options).model_dump(), lr=kind.lr
    )
    return RunSpec(suite="support", settings=settings, method=spec, seed=0), make_method(spec)


def train(model: TaskModel | LanguageModel, method: Method, loss_of: Callable[[], Tensor]) -> str:
    """Train a few steps on one batch, whose loss `loss_of` computes, and return what went wrong.

    The losses that must fall are those of an evaluation before each step: some types draw random
    numbers in training.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = {
        name: weight.clone()
        for name, weight in model.named_parameters()
        if not weight.requires_grad
    }
    reached, losses = set[str](), []
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    for step in range(1, STEPS + 1):
        model.eval()
        with torch.no_grad():
            losses.append(loss_of().item())
        model.train()
        loss = loss_of()
        auxiliary = method.auxiliary_loss(model.encoder)
        torch.autograd.backward(loss if auxiliary is None else loss + auxiliary)
        reached |= {
            name
            for name, weight in trained.items()
            if weight.grad is not None and weight.grad.any()
        }
        optimizer.step()
        method.after_step(model.encoder, step)
        optimizer.zero_grad()
    if missing := trained.keys() - reached:
        return f"no gradient reaches {min(missing)}"
    if moved := [
        n
        for n, weight in model.named_parameters()
        if n in frozen and not torch.equal(weight, frozen[n])
    ]:
        return f"changes the frozen {moved[0]}"
    return (
        ""
        if losses[-1] < losses[0]
        else f"its loss doesn't fall: {losses[0]:.3f} to {losses[-1]:.3f}"
    )


@torch.no_grad()
def _changed_by_caching(model: LanguageModel) -> str:
    """Read texts token by token, two of the four to the end, and compare with a forward pass
    over the whole texts.
    """
    ids, mask, labels = texts()
    before = torch.tensor(LENGTHS)
    answers = labels.where(torch.arange(labels.shape[1]) >= before[:, None], IGNORE_INDEX)
    whole = model(ids, mask, answers).unflatten(0, (len(ids), NEW_TOKENS))
    rows = torch.arange(len(ids))
    starts = [torch.tensor(prompt) for prompt in _prompts()]
    state = model.read(
        *(
            pad_sequence(part, batch_first=True, padding_value=value, padding_side="left")
            for part, value in ((starts, 1), ([torch.ones_like(start) for start in starts], 0))
        )
    )
    differences = []
    for step in range(NEW_TOKENS):
        differences.append(state.logits - whole[rows, step])
        if step == NEW_TOKENS // 2:
            state, rows = model.keep(state, torch.tensor([1, 3])), rows[[1, 3]]
        if step < NEW_TOKENS - 1:
            state = model.next(state, ids[rows, before[rows] + step])
    change = _largest(*differences)
    return "" if change <= NEAR else f"reading token by token changes its logits by {change:.0e}"


def _changed_by_neighbours(model: LanguageModel) -> str:
    """Answer prompts alone and side by side, where some end before others, and return what
    differs, if it does.
    """

    def greedy(*stop_ids: int) -> Generator:
        return Generator(Decoding(NEW_TOKENS), stop_ids, str, pad_id=1, batch=len(LENGTHS), seed=0)

    alone = [generate(model, [prompt], greedy(), CPU, [0])[0] for prompt in _prompts()]
    stop = alone[0].tokens[1]
    together = generate(model, _prompts(), greedy(stop), CPU, list(range(len(alone))))
    for own, answer in zip(alone, together, strict=True):
        tokens = own.tokens[: own.tokens.index(stop) + 1] if stop in own.tokens else own.tokens
        if answer.tokens != tokens and not own.near_tie:
            return f"answers {answer.tokens} side by side and {tokens} alone"
    return ""


def _prompts() -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(texts()[0], LENGTHS, strict=True)]


@torch.no_grad()
def _merges(model: Any, method: Method, logits: Callable[[Any], Tensor]) -> bool:
    """Whether the method folds into the model without changing the logits."""
    model.eval()
    before = logits(model)
    merged = method.merge(model.encoder)
    return (
        merged is not None
        and _largest(logits(model.with_encoder(merged)) - before) <= MERGE_TOLERANCE
    )


def _largest(*differences: Tensor) -> float:
    """Return the largest distance from zero, NaN where there is one."""
    return torch.stack([difference.abs().max() for difference in differences]).max().item()


def render(
    found: Mapping[str, Mapping[str, Finding]], language_models: Mapping[str, Mapping[str, Finding]]
) -> str:
    """Return the table as Markdown, given what was found of each type on the backbones and the
    language models.
    """
    import peft

    from hpml_bench.builtin.methods.peft import ALIASES, SINCE

    # types that older versions of PEFT lack
    came = [
        f"with {of} {', '.join(kind for kind in SINCE if SINCE[kind] == of)}"
        for of in sorted(set(SINCE.values()))
    ]
    newer = f"PEFT 0.18 lacks some types, which came {'; '.join(came)}."
    lines = [
        "# Which PEFT types run",
        "",
        (
            f"Generated by `python benchmarks/support_table.py` with PEFT {peft.__version__}: "
            f"every type tried with the"
        ),
        (
            "options that `method: peft` gives it, on models of 2 layers and width 64. *Trained* "
            "counts the parameters on"
        ),
        (
            "that GPT-2 (110,592 parameters), head apart. *Merges*: folds into the model without "
            "changing its logits."
        ),
        (
            f"The last {len(ALIASES)} are options of LORA that `type` takes as names. ADAMSS "
            f"needs scikit-learn"
        ),
        *wrap(f"and CORDA attrs, packages that PEFT does not install. {newer}", 118),
        "",
        *wrap(
            f"*Causal LM* is a whole language model, of the shapes of {', '.join(MODELS[:-1])} and "
            f"{MODELS[-1]}. A type runs with it when it trains; when its logits depend neither on "
            "padding nor on the texts beside it; when those of generation, token by token from "
            "left-padded prompts, are those of a forward pass over the whole text; and when "
            "prompts get the same answers alone and side by side. SHADOW reads the whole text "
            "anew for every token, which takes longer; so do CARTRIDGE and PREFIX_TUNING with a "
            "model whose tokens see a window of places only, as Gemma 2.",
            118,
        ),
        "",
        "| Type | GPT-2 | Llama | BERT | Causal LM | Trained | Merges | Reason |",
        "|---|---|---|---|---|--:|---|---|",
    ]
    for kind, findings in found.items():
        whole = language_models[kind]
        marks = ["no" if finding.reason else "yes" for finding in findings.values()]
        count = "" if findings["GPT-2"].reason else f"{findings['GPT-2'].parameters:,}"
        merged, other = _merging(findings), _merging(whole)
        why, further = _reasons(findings), _reasons(whole)
        merges = merged if merged == other or not other else f"{merged}; causal LM: {other}"
        parts = [why] if why == further else [why, f"causal LM: {further}" if further else ""]
        reasons = "; ".join(filter(None, parts)).replace("|", "\\|")
        lines.append(
            f"| {' | '.join([kind, *marks, causal_lm_cell(whole), count, merges, reasons])} |"
        )
    return "\n".join(lines) + "\n"


def causal_lm_cell(findings: Mapping[str, Finding]) -> str:
    """Return what the table says of language models: yes, no, or those with which a type runs."""
    running = [name for name, finding in findings.items() if not finding.reason]
    return "yes" if len(running) == len(findings) else ", ".join(running) or "no"


def _merging(findings: Mapping[str, Finding]) -> str:
    """Return with which models a type merges, of those with which it runs."""
    runs = {name: finding.merges for name, finding in findings.items() if not finding.reason}
    return (
        "yes"
        if runs and all(runs.values())
        else ", ".join(filter(runs.get, runs)) or "no" * bool(runs)
    )


def _reasons(findings: Mapping[str, Finding]) -> str:
    """Return why a type doesn't run; a reason that holds everywhere once."""
    of = {
        finding.reason: [n for n, other in findings.items() if other.reason == finding.reason]
        for finding in findings.values()
        if finding.reason
    }
    return "; ".join(
        why if len(at) == len(findings) else f"{', '.join(at)}: {why}" for why, at in of.items()
    )


def main() -> None:
    from peft import PeftType
    from transformers.utils import logging

    from hpml_bench.builtin.methods.peft import ALIASES

    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    kinds = [*sorted(kind.value for kind in PeftType), *ALIASES]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        backbones, models = save_backbones(Path(first)), save_language_models(Path(second))
        found, whole = (
            {
                kind: {name: tried(path, "peft", {"type": kind}) for name, path in of.items()}
                for kind in kinds
            }
            for tried, of in ((attempt, backbones), (attempt_whole, models))
        )
        TABLE.write_text(render(found, whole), encoding="utf-8")


if __name__ == "__main__":
    main()
