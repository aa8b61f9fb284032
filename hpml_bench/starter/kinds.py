"""Kinds of work, each with a task's options, label names and facts and their reasons; lengths of
rows in tokens.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.chat_template import REASONING, THINKING, chat_template
from hpml_bench.data.columns import short, some
from hpml_bench.data.numbers import Notation, notation_of
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.tables import SPELLINGS, normalized
from hpml_bench.plugins.dataset import LoadedData, Target
from hpml_bench.plugins.rows import read_rows
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.plugins.task import KEPT, Task, make_task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.starter.entries import Entry, as_values
from hpml_bench.starter.model import Model
from hpml_bench.starter.number_answers import Answer, confusable, strays
from hpml_bench.starter.rows import Data, Learnt
from hpml_bench.suite.registry import options_class
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.packages import install_extras

if TYPE_CHECKING:
    from datasets import Dataset

MOST_ROWS = 2000  # rows whose lengths are taken, drawn from the training rows
BATCH = 500
UNLIMITED = 10**6  # `max_length` that cuts nothing
MOST_TOKENS = {"encoder": 512, "language_model": 1024}
"""Largest `max_length` that is chosen, by kind of model: BERT's positions, and the task's own
default.
"""
STEP = 8  # lengths are multiples of this
VIRTUAL = 32  # positions left for the virtual tokens of prompt methods
TASK, CLASSES = "causal_lm", "sequence_classification"
MOST_ANSWERS = 1000  # answers by which a scorer is chosen
SHORT_WORDS = 4  # most words of an answer that has to match exactly
NINE_TENTHS = 0.9
MANY = 0.1  # share of rows too long from which on their prompts are cut
LOSS_ON = ("answers", "each")
MOST_NEW = 256  # most tokens generated for an answer
SENTENCE = 64  # tokens in which a base model can answer in a sentence
FREQUENT, FEW_OF_CLASS = 0.8, 10
"""Share of rows from which on a class is so frequent that accuracy hides the others; rows below
which one is rare.
"""
SEPARATORS = "|;,"  # what may join several labels of a row
MOST_NAMES = 60  # most names that are written out


class Lengths(NamedTuple):
    """Tokens of some rows, [rows], and of their prompts, [rows] or none."""

    tokens: NDArray[np.int64]
    prompts: NDArray[np.int64]


def measure(train: Dataset, task: Task, encoder: Encoder) -> Lengths:
    """Return the lengths of rows drawn from the training rows; a UserError where none has
    anything to learn.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST_ROWS])
    tokens: list[int] = []
    prompts: list[int] = []
    for batch in train.select(chosen).iter(BATCH):
        encoded: Mapping[str, list[Any]] = task.encode(batch, encoder)
        tokens += map(len, encoded["input_ids"])
        prompts += encoded["prompt"] if KEPT in encoded else [0] * len(encoded["input_ids"])
    if not tokens and "weights" in train.column_names:
        raise UserError(
            "no row has a token to learn: the key weight, loss or train leaves out all answers; "
            "set it to true in turns to learn, or remove it"
        )
    if not tokens:
        raise UserError("no row has a token to learn; give rows with texts")
    return Lengths(np.array(tokens), np.array(prompts))


def choose_limit(lengths: Lengths, positions: int | None, task: Task) -> int:
    """Return `max_length`: the 99th percentile where the task cuts longer texts, else the
    maximum, both capped.
    """
    wanted = float(np.percentile(lengths.tokens, 99 if task.cuts_texts else 100))
    limit = min(STEP * math.ceil(max(wanted, 2) / STEP), MOST_TOKENS[task.model_kind])
    return (
        limit if positions is None else max(2, min(limit, positions - min(VIRTUAL, positions // 4)))
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


class View(NamedTuple):
    """A model and the rows that it is to learn from."""

    model: Model
    data: Data
    learnt: Learnt
    loaded: LoadedData  # the rows as the data set gives them
    encoder: Encoder  # the model's tokenizer, which cuts nothing
    given: Mapping[str, Any]  # options of the task that were given


class Kind(NamedTuple):
    """A kind of work, and what a suite says of it."""

    task: str
    options: Callable[[View], tuple[Entry, ...]] = lambda _: ()  # returns the task's options
    names: Callable[[View], tuple[Entry, ...]] = (
        lambda _: ()
    )  # returns the data set's options on names of labels
    facts: Callable[[View], tuple[str, ...]] = lambda _: ()  # returns sentences on what is learnt
    cautions: Callable[[View, Prepared], tuple[str, ...]] = (
        lambda *_: ()
    )  # returns sentences on what makes scores hard to read


def _head_options(view: View) -> tuple[Entry, ...]:
    """Return which hidden state the head reads."""
    pooling, why = "last", "the only token that has read the whole text; others: first, mean"
    if view.model.pools_by:
        pooling = view.model.pools_by
        others = ", ".join(way for way in ("last", "first", "mean") if way != pooling)
        why = (
            f"how sentence-transformers trained this model (1_Pooling/config.json); others: "
            f"{others}"
        )
    elif view.model.reads_both_ways:
        pooling = "mean"
        why = (
            "The mean over tokens: without further training it holds more of a text than the first "
            "token (Reimers and Gurevych 2019, arXiv:1908.10084, table 1), which matters to the "
            "method head. BERT's paper takes `first`."
        )
    return (Entry("pooling", pooling, (why,)),)


def _regression_options(view: View) -> tuple[Entry, ...]:
    return (*_head_options(view), *decimal_mark(view.learnt))


def spells_labels_apart(loaded: LoadedData, data: Data) -> bool:
    """Return whether labels have several spellings that are to be joined, as nothing was given
    that says otherwise and two labels or more are left.
    """
    given = {"normalize_labels", "label_names"} & data.read.model_fields_set
    left = {normalized(name) for name in loaded.label_names}
    return SPELLINGS in loaded.warnings and not given and len(left) > 1


def _names(view: View) -> tuple[Entry, ...]:
    """Return the names of classes or tags, unless the data set has its own."""
    names, train, classes = (
        list(view.loaded.label_names),
        view.loaded.train,
        view.learnt.target == "class",
    )
    counts = Counter(train["label"] if classes else chain.from_iterable(train["tags"]))
    if classes and len(counts) == 1:
        only = short(names[next(iter(counts))])
        raise UserError(
            f"{view.data.where}: all training rows have the class '{only}'; give rows of two "
            f"classes or more"
        )
    most = ", ".join(f"{short(names[label])}: {count:,}" for label, count in counts.most_common(12))
    reasons = [f"{len(names)} of them; training {'rows' if classes else 'words'} of each: {most}."]
    if all(name.removeprefix("-").isdecimal() for name in names):
        reasons.append(
            "The file has numbers alone: write their names here in the same order, for the report."
        )
    if view.data.dataset == "hub" or len(names) > MOST_NAMES:
        return (
            Entry(
                "label_names",
                names[:MOST_NAMES],
                (*reasons, "Not set: the data's own."),
                chosen=False,
            ),
        )
    return (Entry("label_names", names, tuple(reasons)),)


def _rare_classes(view: View, prepared: Prepared) -> tuple[str, ...]:
    """Return cautions where one class is nearly all rows, and where classes have too few rows to
    be learnt or none to be tested.
    """
    names = [*map(short, view.loaded.label_names)]
    train, test = (_rows_of_classes(prepared, split) for split in ("train", "test"))
    most = int(train.argmax())
    share = train[most] / train.sum()
    found = []
    if share > FREQUENT:
        found.append(
            f"{percent(share)} % of the training rows are of the class {names[most]}: always "
            "answering it has about that accuracy; rank_by: macro_f1 ranks the methods by all "
            "classes alike."
        )
        if len(names) == 2:
            found.append(_positives(names[1 - most], int(train[1 - most]), int(test[1 - most])))
    by_rows = np.argsort(-train, kind="stable")
    rare = [
        f"{names[label]} ({train[label]:,})" for label in by_rows if train[label] < FEW_OF_CLASS
    ]
    found.extend(_joined_labels(view.loaded.label_names))
    if rare:
        found.append(
            f"Classes with fewer than {FEW_OF_CLASS} training rows, too few to learn or test: "
            f"{some(rare, 12)}."
        )
    untested = [names[label] for label in by_rows if not test[label]]
    if untested:
        found.append(f"Classes without a test row: {some(untested, 12)}.")
    return tuple(found)


def _joined_labels(names: Sequence[str]) -> Iterator[str]:
    """Yield the sentence on names that are several labels of a row, as their parts return in other
    names.
    """
    for separator in SEPARATORS:
        joined = [name for name in names if separator in name]
        parts = {part.strip() for name in names for part in name.split(separator)}
        if joined and len(parts) < len(names):
            yield (
                f"Labels such as '{short(joined[0])}' look like several that are joined by "
                f"'{separator}': each combination is a class of its own, as no task learns several "
                f"labels of a row."
            )


def _rows_of_classes(prepared: Prepared, split: str) -> NDArray[np.int64]:
    """Return the number of rows of each class in a prepared split, [classes]."""
    labels = read_rows(Path(prepared.data) / split).column("label").to_numpy()
    return np.bincount(labels, minlength=len(prepared.label_names))


def _positives(name: str, train: int, test: int) -> str:
    """Return the sentence on the rows of the rarer of two classes, and what suits it."""
    few = ", too few to tell methods apart by them" if test < FEW_OF_CLASS else ""
    sentence = (
        f"Of the class {name} there are {train:,} training rows and {test:,} test rows{few}; "
        f"rank_by: average_precision ranks the methods by how well they find it"
    )
    if "class_weights" in options_class("tasks", CLASSES).model_fields:
        sentence += (
            "; task.options.class_weights: balanced lets both classes weigh the same in training"
        )
    return f"{sentence}."


def _spread(view: View) -> tuple[str, ...]:
    """Return the range of the numbers in words, with the RMSE of guessing their mean."""
    values = np.asarray(view.loaded.train["label"][:], dtype=np.float64)
    return (
        f"The numbers of the training rows are from {values.min():g} to {values.max():g}, with a "
        f"mean of {values.mean():.4g}; guessing the mean has an RMSE of {values.std():.4g}.",
    )


def _answer_options(view: View) -> tuple[Entry, ...]:
    why = "null: the tokenizer's own chat template. Others: plain, path:FILE or a jinja template."
    if not view.encoder.tokenizer.chat_template:
        why = (
            "null: the tokenizer has no chat template, so that turns stand one after the other. A "
            "prompt that doesn't "
            "end as the model should begin to answer needs a template: path:FILE or jinja."
        )
    template, thinking = (f"{why} hpml-bench preview shows where prompts end.",), _thinking(view)
    loss_on, lengths = _loss_on(view, as_values(thinking))
    scorers = _scorer(view)
    scorer = scorers[0]
    limit = choose_limit(lengths, view.model.positions, make_task(TaskSpec(name=TASK)))
    action, why = (
        "drop",
        "rows above max_length are left out and counted; cut_prompt cuts their prompts",
    )
    if float((lengths.tokens > limit).mean()) > MANY and bool((lengths.prompts > 0).all()):
        action = "cut_prompt"
        why = (
            f"more than a tenth of the rows is longer than {limit} tokens, and `drop` would leave "
            f"them out"
        )
    entries = (
        Entry("template", None, template),
        *thinking,
        loss_on,
        *scorers,
        Entry("too_long", action, (why,)),
    )
    if scorer.value in {None, "choice"}:
        return entries
    high = float(
        np.percentile(lengths.tokens - lengths.prompts, 99)
    )  # of the last answers with their end
    capped = (
        f"; cut to {MOST_NEW}, as answers cost most of an evaluation" if high > MOST_NEW else ""
    )
    why = f"the 99th percentile of expected answers is {high:.0f} tokens, end included{capped}"
    most = min(MOST_NEW, STEP * math.ceil(max(high, 1) / STEP))
    if most < SENTENCE:
        most = SENTENCE
        why += "; the methods none and few_shot may answer in a sentence, which must not be cut"
    return (*entries, Entry("max_new_tokens", most, (why,)))


def _thinking(view: View) -> tuple[Entry, ...]:
    """Return whether a model that can think does: where rows have reasoning."""
    if THINKING not in chat_template(view.encoder, view.given.get("template")):
        return ()
    rows: dict[str, Any] = view.loaded.train[:MOST_ANSWERS]
    keys = {
        key
        for fields in rows.get("fields", [])
        for text in fields
        if text
        for key in json.loads(text)
    }
    reasons = not keys.isdisjoint(REASONING) or any(
        "</think>" in contents[-1] for contents in rows["contents"]
    )
    found = (
        "Rows have reasoning, which is learnt"
        if reasons
        else "No row has reasoning: prompts close the thought"
    )
    why = (
        f"{found}. A model that thinks needs a larger max_new_tokens: reasoning that doesn't end "
        f"is an empty answer."
    )
    return (Entry("template_options", {THINKING: reasons}, (why,)),)


def _loss_on(view: View, options: dict[str, Any]) -> tuple[Entry, Lengths]:
    """Return how answers are learnt, together, or each by itself where the template rewrites
    them; and the lengths.
    """
    several = any(
        roles.count("assistant") > 1 for roles in view.loaded.train["roles"][:MOST_ANSWERS]
    )
    why = "the answer with its end; `all` would learn the prompts too"
    if several:
        why = (
            "every turn of the assistant is learnt; `last` learns the last of each row alone, "
            "`all` the prompts too"
        )
    tasks = [
        make_task(TaskSpec(name=TASK, options={**options, "loss_on": how, **view.given}))
        for how in LOSS_ON
    ]
    try:
        return Entry("loss_on", "answers", (why,)), measure(
            view.loaded.train, tasks[0], view.encoder
        )
    except UserError as error:
        try:
            lengths = measure(view.loaded.train, tasks[1], view.encoder)
        except UserError:
            raise error from None
    why = (
        "An example of each answer, with the turns before it: the template writes earlier answers "
        "differently once turns follow them. `last` takes the last answer of each row alone: fewer "
        "examples, and faster."
    )
    return Entry("loss_on", "each", (why,)), lengths


def _scorer(view: View) -> tuple[Entry, ...]:
    """Return the scorer that suits the expected answers, with how it reads their numbers."""
    rows: dict[str, Any] = view.loaded.train[:MOST_ANSWERS]
    answers = [
        contents[-1]
        for roles, contents in zip(rows["roles"], rows["contents"], strict=True)
        if len(roles) > 1
    ]
    if any(view.loaded.train["choices"][:1]):
        return (
            Entry(
                "scorer",
                "choice",
                ("rows have choices, whose likelihoods are compared; nothing is generated",),
            ),
        )
    if not answers:
        return (
            Entry(
                "scorer",
                None,
                ("texts without prompts have no answers to score: the loss is compared",),
            ),
        )
    notation = notation_of(answer.text for answer in _all_answers(view))
    if notation is None:
        scorer = _scorer_of_texts(answers)
        notes = (strays(_all_answers(view)), _not_right(view, str(scorer.value)))
        reasons = [f"{note}." for note in notes if note]
        return (replace(scorer, why=(*scorer.why, *reasons)),)
    if doubt := confusable(_all_answers(view), notation.decimal_mark):
        return (Entry("scorer", "exact", (f"{doubt}.",)),)
    return _number_options(answers, notation)


def _not_right(view: View, name: str) -> str | None:
    """Return the sentence on the first expected answer that isn't right by its own scorer."""
    scorer = make_scorer(name)
    for answer in _all_answers(view):
        if refusal := scorer.refusal(answer.text):
            return f"{answer.place} '{short(answer.text)}' {refusal}".lstrip()
    return None


def _all_answers(view: View) -> Iterator[Answer]:
    """Yield the last answer of every training row that has a prompt."""
    number = 0
    for batch in view.loaded.train.iter(BATCH):
        rows: Mapping[str, Any] = batch
        places = rows.get("place", [""] * len(rows["roles"]))
        for roles, contents, place in zip(rows["roles"], rows["contents"], places, strict=True):
            number += 1
            if len(roles) > 1:
                yield Answer(contents[-1], place or f"row {number:,}")


def decimal_mark(learnt: Learnt) -> tuple[Entry, ...]:
    """Return how numbers to learn are written; nothing where Python alone reads them."""
    notation = learnt.notation
    if notation is None:
        return ()
    if sentence := ambiguous(notation, "numbers"):
        return (Entry("decimal_mark", notation.decimal_mark, (sentence,)),)
    example = "1,234.5 and 1 234.5" if notation.decimal_mark == "point" else "71,5 and 1.234,5"
    why = f"as in {example}; every number of the column can be read so"
    return (Entry("decimal_mark", notation.decimal_mark, (why,)),)


def _number_options(answers: list[str], notation: Notation) -> tuple[Entry, ...]:
    """Return the scorer of answers that are all numbers, and how they write decimals."""
    marked = sum("####" in answer for answer in answers)
    why = "every answer is a number and nothing else"
    if marked:
        why = "every answer is a number alone, or ends with #### and a number"
    scorer = Entry("scorer", "number", (why,))
    example = "point: 1,234.5, 1 234.5, 1'234.5 and 1,00,000.5"
    if notation.decimal_mark == "comma":
        example = "comma: 1.234,5, 1 234,5 and 1'234,5; `point` can't read the answers"
    reasons = [example]
    if sentence := ambiguous(notation, "answers"):
        reasons.append(sentence)
    return scorer, Entry("decimal_mark", notation.decimal_mark, tuple(reasons))


def ambiguous(notation: Notation, what: str) -> str | None:
    """Return the sentence on a column whose numbers, `what`, can be read in two ways; None for
    others.
    """
    if notation.ambiguous is None:
        return None
    number = short(notation.ambiguous.rpartition("####")[2].strip())
    return (
        f"The {what} don't say whether {number} has a decimal point or comma, or groups of "
        f"thousands: they are read with a decimal point; if that is wrong, set decimal_mark: comma."
    )


def _number_facts(view: View, _: Prepared) -> tuple[str, ...]:
    """Return the sentences on how numbers in answers are read, for the terminal."""
    if view.given.get("scorer", "number") != "number" or "decimal_mark" in view.given:
        return ()
    if any(view.loaded.train["choices"][:1]):
        return ()
    if next(_all_answers(view), None) is None:
        return ()
    notation = notation_of(answer.text for answer in _all_answers(view))
    doubt = (
        strays(_all_answers(view))
        if notation is None
        else confusable(_all_answers(view), notation.decimal_mark)
    )
    if doubt:
        return (f"{doubt}.",)
    if notation is None:
        return ()
    sentence = (
        f"The answers are numbers, which are read with a decimal {notation.decimal_mark} "
        f"(decimal_mark: {notation.decimal_mark})."
    )
    doubt = ambiguous(notation, "answers")
    return (sentence, doubt) if doubt else (sentence,)


def _mark_facts(view: View, _: Prepared) -> tuple[str, ...]:
    """Return the sentence on how numbers to learn are read, for the terminal."""
    notation = view.learnt.notation
    if notation is None:
        return ()
    if doubt := ambiguous(notation, "numbers"):
        return (doubt,)
    return (
        f"The numbers are read with a decimal {notation.decimal_mark} "
        f"(decimal_mark: {notation.decimal_mark}).",
    )


def _scorer_of_texts(answers: list[str]) -> Entry:
    longest = float(np.quantile([len(answer.split()) for answer in answers], NINE_TENTHS))
    what = f"Nine in ten answers have up to {longest:.0f} words: too long to match as a whole."
    if longest <= SHORT_WORDS:
        up_to = "one word" if longest <= 1 else f"at most {longest:.0f} words"
        scorer = "exact"
        why = (
            f"nine in ten answers have {up_to}, short enough to be matched as a whole; "
            f"contains is milder"
        )
    elif find_spec("rouge_score"):
        scorer, why = (
            "rouge_l",
            f"{what} rouge_l compares their longest common subsequence; f1 their words.",
        )
    else:
        more = f"rouge_l, which respects their order, needs {install_extras('rouge')}"
        scorer, why = "f1", f"{what} f1 compares their words; {more}."
    return Entry("scorer", scorer, (why,))


KINDS: Mapping[Target, Kind] = {
    "class": Kind(CLASSES, _head_options, names=_names, cautions=_rare_classes),
    "number": Kind("regression", _regression_options, facts=_spread, cautions=_mark_facts),
    "tags": Kind("token_classification", names=_names),
    "answer": Kind(TASK, _answer_options, cautions=_number_facts),
}
"""Kinds of work by the target that is learnt."""
