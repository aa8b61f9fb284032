"""Check of a server against a run: its answers beside the run's, and the likely cause where they
differ.

A difference counts where the run's own model wasn't nearly undecided between two tokens: there
rounding decides. Causes are found by trial: the run's model answers under each, and the one that
gives the server's answers is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.decoding import Generator
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.task import Asked, make_task
from hpml_bench.plugins.tokenizer import Encoder, load_tokenizer
from hpml_bench.records.predictions import Predictions
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.generation import generate, make_generator, padded, text_of
from hpml_bench.training.kernels import autocast, set_float32_products
from hpml_bench.training.model import build_model

Prompt = Callable[[Asked], Sequence[int]]  # function from a row to the token ids of its prompt
UNDECIDED = 0.35
"""Distance of a token's logit from the largest, in deviations over the vocabulary, that rounding
may bridge.
"""
MOST, AGREEING = 48, 16
"""Rows on which causes are tried: of those that differ, and of the others."""
MOSTLY = 0.9  # share of these rows whose answers a cause must give
ASKED_AGAIN, TIMES = 16, 3
"""Rows that differ which the server is asked again, and how often."""
BATCH = 16
TEMPLATES = {
    "ChatML": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% "
        "endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "Llama 2": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% "
        "else %} {{ m['content'] }} {% endif %}{% endfor %}"
    ),
    "Alpaca": (
        "{% for m in messages %}### {{ 'Response' if m['role'] == 'assistant' else 'Instruction' "
        "}}:\n"
        "{{ m['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "with names of roles": (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "of bare turns": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
}
"""Templates that servers fall back to."""


@dataclass(frozen=True)
class Claim:
    """A run that a server is said to serve."""

    spec: RunSpec
    prepared: Prepared
    parts: Path  # folder of what was trained
    rows: Sequence[Asked]
    ask: Callable[[Sequence[int], str | None], list[str]]
    """Asks the server some rows once more, by the API of the run, or by another one."""


@dataclass(frozen=True)
class Agreement:
    """Differences of the server's answers from the run's."""

    rows: int
    differing: int
    beyond: int  # rows that differ beyond rounding
    cause: (
        str  # name of the cause; empty where nothing differs beyond rounding, or no cause was found
    )
    sentence: str


def examine(claim: Claim, ours: Predictions, theirs: Predictions) -> Agreement:
    """Compare a server's answers with those of the run, and name the cause of what differs
    beyond rounding.
    """
    pairs = list(zip(*(cast(Any, one.texts).answer for one in (ours, theirs)), strict=True))
    differing = [row for row, (own, told) in enumerate(pairs) if own.strip() != told.strip()]
    looked, trial = differing[:MOST], _Trial(claim) if differing else None
    again = trial.answers(looked) if trial else None
    beyond = [row for row in looked if again and not again.gives(row, pairs[row][1])]
    counts = len(pairs), len(differing), len(beyond)
    start = (
        f"{len(differing)} of {len(pairs)} answers differ"
        if differing
        else f"all {len(pairs)} answers are equal"
    )
    texts, limits = cast(Any, theirs.texts), make_task(claim.spec.settings.task).decoding
    if texts.cut is not None and texts.tokens is not None and limits is not None:
        early = texts.cut & (texts.tokens < limits.max_new_tokens)
        if (own_cut := cast(Any, ours.texts).cut) is not None:
            early &= ~own_cut
        if early.any():
            why = (
                f"the server ends {early.sum()} answers at a limit below max_new_tokens "
                f"{limits.max_new_tokens}"
            )
            return Agreement(*counts, "lengths cut", f"{start}: {why}")
    if not beyond or trial is None:
        return Agreement(*counts, "", start + ", where rounding decides" * bool(differing))
    agreeing = [row for row in range(len(pairs)) if row not in set(differing)][:AGREEING]
    cause, why = _cause(claim, trial, pairs, beyond, agreeing)
    tried = "" if len(looked) == len(differing) else f" of {len(looked)} tried"
    return Agreement(*counts, cause, f"{start}, {len(beyond)}{tried} beyond rounding: {why}")


def _cause(
    claim: Claim,
    trial: _Trial,
    pairs: Sequence[tuple[str, str]],
    beyond: list[int],
    agreeing: list[int],
) -> tuple[str, str]:
    """Return a cause's name, empty where none is found, and a clause on it."""
    asked = beyond[:ASKED_AGAIN]
    told = [claim.ask(asked, None) for _ in range(TIMES)]
    changed = sum(
        len({pairs[row][1], *texts}) > 1 for row, *texts in zip(asked, *told, strict=True)
    )
    if changed >= max(1, len(asked) * (1 - MOSTLY)):
        return (
            "sampling on",
            f"asked again, the server answers {changed} of {len(asked)} rows otherwise: it samples",
        )
    if named := _by_texts([pairs[row] for row in beyond]):
        return named
    rows = [*beyond, *agreeing]
    given: list[tuple[int, str, str]] = []
    for name, clause, answers in trial.hypotheses(rows):
        given.append((sum(answers.gives(row, pairs[row][1]) for row in rows), name, clause))
        if given[-1][0] == len(rows):
            break
    most, cause, why = max(given, key=lambda one: one[0])
    if most >= MOSTLY * len(rows):
        return cause, f"{why}, which gives {most} of {len(rows)} of its answers"
    with suppress(UserError):
        by_prompt = dict(zip(rows, claim.ask(rows, "completions"), strict=True))
        if sum(trial.answers(rows).gives(row, by_prompt[row]) for row in rows) >= MOSTLY * len(
            rows
        ):
            why = "it answers the suite's own prompts as the run does, so that its template differs"
            return "another template", why
    return (
        "",
        (
            f"no cause that was tried gives the server's answers; the closest, {cause}, gives "
            f"{most} of {len(rows)}"
        ),
    )


def _by_texts(pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the cause that the texts of answers that differ show by themselves."""
    stripped, least = [(own.strip(), told.strip()) for own, told in pairs], MOSTLY * len(pairs)
    if sum(told != "" and own.startswith(told) for own, told in stripped) >= least:
        return (
            "lengths cut",
            "the server's answers are the beginnings of the run's: it cuts them short",
        )
    if sum(own != "" and told.startswith(own) for own, told in stripped) >= least:
        why = "the server's answers run on where the run's end: it doesn't stop at the end token"
        return "a missing end token", why
    return None


class _Trial:
    """The run's model, which answers rows as in the run, and as it would under faults of a
    server.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim, prepared = claim, claim.prepared
        self.settings = settings = claim.spec.settings
        set_float32_products(settings)
        self._task = make_task(settings.task, prepared.label_names, prepared.facts)
        self.generator = cast(
            Generator, make_generator(self._task, prepared, settings, claim.spec.seed)
        )
        self._tokenizer = load_tokenizer(Path(prepared.backbone))
        encoder = Encoder(self._tokenizer, settings.max_length, None, settings.backbone)
        self._template = self._task.chat_template(encoder)
        self._trained = self._model("trained", {"path": str(claim.parts)})

    def _model(self, method: str, options: dict[str, Any]) -> LanguageModel:
        chosen = MethodSpec(name=method, method=method, options=options, lr=1.0)
        spec = self._claim.spec.model_copy(update={"method": chosen})
        device = torch.device("cuda" if spec.settings.device == "cuda" else "cpu")
        folder = Path(self._claim.prepared.backbone)
        built = build_model(folder, spec, make_method(chosen), self._task, device=device)
        return cast(LanguageModel, built.to(device).eval())

    def tokens_of(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def answers(
        self,
        rows: list[int],
        prompt: Prompt = lambda row: row.ids,
        model: LanguageModel | None = None,
    ) -> _Answers:
        """Return answers to rows, by prompts other than the run's, or of another model, where
        these are given.
        """
        prompts = {row: list(prompt(self._claim.rows[row])) for row in rows}
        model, made = model or self._trained, cast(dict[int, list[int]], {})
        device = next(model.parameters()).device
        with torch.no_grad(), autocast(self.settings):
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                told = generate(model, [prompts[row] for row in part], self.generator, device, part)
                made |= {row: one.tokens for row, one in zip(part, told, strict=True)}
        return _Answers(model, self, prompts, made)

    def hypotheses(self, rows: list[int]) -> Iterator[tuple[str, str, _Answers]]:
        """Yield name, clause and answers of each fault that can be tried."""
        untrained = self.answers(rows, model=self._model("none", {}))
        yield "adapter not applied", "the base model without what was trained", untrained
        of_parts = (getattr(part, "scaling", None) for part in self._trained.modules())
        scales = [scale for scale in of_parts if isinstance(scale, dict)]  # of LoRA layers
        for scale in scales:
            scale.update({name: 2 * value for name, value in scale.items()})
        if scales:
            yield (
                "adapter applied twice",
                "the adapter's update with twice its weight",
                self.answers(rows),
            )
        for scale in scales:
            scale.update({name: value / 2 for name, value in scale.items()})
        first = self._tokenizer.bos_token_id
        if first is not None:
            ids = [self._claim.rows[row].ids for row in rows]
            what = (
                "a second BOS"
                if all(row[:1] == (first,) for row in ids)
                else "a BOS that the run's prompts lack"
            )
            yield (
                "a second BOS",
                f"{what} in front",
                self.answers(rows, lambda row: [first, *row.ids]),
            )
        of_tokenizer = self._tokenizer.chat_template
        others = {"of the tokenizer": of_tokenizer if self._template else None} | TEMPLATES
        for name, template in {
            "that asks for no answer": self._template or of_tokenizer,
            **others,
        }.items():
            if not template:
                continue
            with suppress(Exception):  # a template may refuse the turns
                written = self.answers(rows, partial(self._written, template, name in others))
                if any(written.prompts[row] != list(self._claim.rows[row].ids) for row in rows):
                    yield "another template", f"prompts by a template {name}", written

    def _written(self, template: str, prompted: bool, row: Asked) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            row.turns,
            tools=row.tools,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompted,
        )
        return self.tokens_of(text)


@dataclass(frozen=True)
class _Answers:
    """A model's answers to rows, by number."""

    model: LanguageModel
    trial: _Trial
    prompts: dict[int, list[int]]
    tokens: dict[int, list[int]]

    def gives(self, row: int, told: str) -> bool:
        """Whether a row's answer is what was told, or was nearly so: each token told is almost
        the likeliest.
        """
        own, told = self.tokens[row], told.strip()
        if text_of(own, self.trial.generator).strip() == told:
            return True
        decode = self.trial.generator.decode
        heads = [decode(own[:count]).strip() for count in range(len(own) + 1)]
        same = max(count for count, head in enumerate(heads) if told.startswith(head))
        read = [*own[:same], *self.trial.tokens_of(told[len(heads[same]) :])]
        ways = (read, self.trial.tokens_of(told), self.trial.tokens_of(f" {told}"))
        return any(self._far(row, ids) <= UNDECIDED for ids in ways if decode(ids).strip() == told)

    def _far(self, row: int, ids: list[int]) -> float:
        """Return the largest distance, in deviations, from the top logit to that of a token of
        an answer.
        """
        generator, device = self.trial.generator, next(self.model.parameters()).device
        limits, ends = generator.decoding, list(generator.stop_ids)
        with torch.no_grad(), autocast(self.trial.settings):
            pair = (self.prompts[row], [*ids, *ends[:1]])
            logits = self.model(*padded([pair], generator.pad_id, device)).float()
        chosen = logits[
            torch.arange(len(ids), device=device),
            torch.tensor(ids, dtype=torch.long, device=device),
        ]
        if ends and not limits.stop and len(ids) < limits.max_new_tokens:  # the answer ended there
            chosen = torch.cat([chosen, logits[len(ids), ends].max()[None]])
        far = (logits.amax(dim=1)[: len(chosen)] - chosen) / logits.std(dim=1)[: len(chosen)]
        return float(far.max()) if len(far) else 0.0
