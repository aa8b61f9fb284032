"""Answers in words, of a language model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from hpml_bench.plugins.task import Task, make_task
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.lengths import MOST_TOKENS, Lengths, choose_limit, measure
from hpml_bench.starter.view import Kind, View, nothing
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import UserError

TASK = "causal_lm"
MOST_ANSWERS = 1000
"""Answers by which a scorer is chosen."""
NUMBER = re.compile(r"\s*[-+]?[\d.,/]+\s*%?\s*")
SHORT_WORDS = 4
"""Most words of an answer that has to match exactly."""
NINE_TENTHS = 0.9
MANY = 0.1
"""Share of rows too long from which on their prompts are cut."""
MOST_NEW, STEP = 256, 8
"""Most tokens generated for an answer, and the step to which they are rounded up."""
END = 50
"""Characters shown of a prompt's end."""


def _options(view: View) -> tuple[Entry, ...]:
    loss_on = _loss_on(view)
    task = make_task(TaskSpec(name=TASK, options={entry.key: entry.value for entry in loss_on if entry.chosen}))
    lengths = measure(view.loaded.train, task, view.encoder)
    scorer = _scorer(view)
    entries = (_template(view, task), *loss_on, scorer, _too_long(view, lengths))
    return (*entries, _new_tokens(lengths)) if scorer.value not in {None, "choice"} else entries


def _loss_on(view: View) -> tuple[Entry, ...]:
    """Return whose turns are learnt: all answers, or the last where the template writes earlier ones differently."""
    several = any(roles.count("assistant") > 1 for roles in view.loaded.train["roles"][:MOST_ANSWERS])
    if not several:
        return (Entry("loss_on", "answers", ("the answer with its end; `all` would learn the prompts too",)),)
    try:
        measure(view.loaded.train, make_task(TaskSpec(name=TASK)), view.encoder)
    except UserError as error:
        last = make_task(TaskSpec(name=TASK, options={"loss_on": "last"}))
        try:
            measure(view.loaded.train, last, view.encoder)
        except UserError:
            raise error from None
        why = (
            "The last answer of each row alone: the template writes earlier answers differently once turns follow them."
        )
        return (Entry("loss_on", "last", (why,)),)
    why = "every turn of the assistant is learnt; `last` learns the last of each row alone, `all` the prompts too"
    return (Entry("loss_on", "answers", (why,)),)


def _template(view: View, task: Task) -> Entry:
    """Return the chat template, with the text where the prompt of the first row ends."""
    own = view.encoder.tokenizer.chat_template
    first = view.loaded.train.select([0])
    encoded = task.encode(first[:], view.encoder)
    end = ""
    if encoded["input_ids"] and encoded["prompt"][0] > 1:
        ids = encoded["input_ids"][0]
        prompt, answer = ids[: encoded["prompt"][0]], ids[encoded["prompt"][0] :]
        before, after = _shown(view, prompt)[-END:], _shown(view, answer)
        end = f"In the first row the prompt ends with {before!r}, and what is learnt begins with {after[:END]!r}."
    if own:
        why = "null: the tokenizer's own chat template. Others: plain, path:FILE or a jinja template."
    else:
        why = (
            "null: the tokenizer has no chat template, so that turns stand one after the other. A prompt that doesn't "
            "end as the model should begin to answer needs a template: path:FILE or jinja."
        )
    return Entry("template", None, (why, *([end] if end else [])))


def _shown(view: View, ids: list[int]) -> str:
    return str(view.encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _scorer(view: View) -> Entry:
    """Return the scorer that suits the expected answers."""
    answers = list(_answers(view))
    if any(view.loaded.train["choices"][:1]):
        return Entry("scorer", "choice", ("rows have choices, whose likelihoods are compared; nothing is generated",))
    if not answers:
        return Entry("scorer", None, ("texts without prompts have no answers to score: the loss is compared",))
    longest = float(np.quantile([len(answer.split()) for answer in answers], NINE_TENTHS))
    numbers = sum(bool(NUMBER.fullmatch(a)) or "####" in a for a in answers) / len(answers)
    if numbers >= NINE_TENTHS:
        return Entry(
            "scorer", "number", (f"{100 * numbers:.0f} % of the answers are numbers, or end with #### and one",)
        )
    if longest <= SHORT_WORDS:
        why = f"nine in ten answers have at most {longest:.0f} words, so that they can match; contains is milder"
        return Entry("scorer", "exact", (why,))
    what = f"Nine in ten answers have up to {longest:.0f} words: too long to match as a whole."
    if find_spec("rouge_score"):
        return Entry(
            "scorer", "rouge_l", (f"{what} rouge_l compares their longest common subsequence; f1 their words.",)
        )
    more = "rouge_l, which respects their order, needs pip install 'hpml-bench[rouge]'"
    return Entry("scorer", "f1", (f"{what} f1 compares their words; {more}.",))


def _answers(view: View) -> Iterator[str]:
    rows: dict[str, Any] = view.loaded.train[:MOST_ANSWERS]
    for roles, contents in zip(rows["roles"], rows["contents"], strict=True):
        if len(roles) > 1:
            yield contents[-1]


def _too_long(view: View, lengths: Lengths) -> Entry:
    """Return whether rows that are too long are left out, or where many are, cut."""
    limit = choose_limit(lengths, view.model.positions, MOST_TOKENS["language_model"], cuts=False)
    if float((lengths.tokens > limit).mean()) > MANY and bool((lengths.prompts > 0).all()):
        why = f"more than a tenth of the rows is longer than {limit} tokens, and `drop` would leave them out"
        return Entry("too_long", "cut_prompt", (why,))
    return Entry("too_long", "drop", ("rows above max_length are left out and counted; cut_prompt cuts their prompts",))


def _new_tokens(lengths: Lengths) -> Entry:
    high = float(np.percentile(lengths.answers, 99))
    count = min(MOST_NEW, STEP * math.ceil(max(high, 1) / STEP))
    capped = f"; cut to {MOST_NEW}, as answers cost most of an evaluation" if high > MOST_NEW else ""
    return Entry(
        "max_new_tokens",
        count,
        (f"the 99th percentile of expected answers is {high:.0f} tokens, end included{capped}",),
    )


KIND = Kind(TASK, _options, nothing, nothing)
