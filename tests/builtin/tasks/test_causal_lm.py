"""Causal language modelling from rows to scores: figures of a run against a plain model's, and
the base model's run.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import tiny
from helpers.language_models import save_letters
from helpers.loops import Counts, run_of, trainer_of
from hpml_bench.builtin.probes.quality import QualityProbe
from hpml_bench.builtin.tasks.causal_lm import CausalLM
from hpml_bench.builtin.tasks.causal_lm.rows import encode_texts, linearised_loss
from hpml_bench.data.conversations import ask_for_classes
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.dataset import LoadedData, make_loader
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import make_task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import (
    Predictions,
    TextAnswers,
    read_predictions,
    same_answers,
    write_predictions,
)
from hpml_bench.records.run import Point
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import UserError
from hpml_bench.training.assembly import assemble
from hpml_bench.training.generation import chosen
from hpml_bench.training.trainer import Trainer


def spec_of(folder: Path, options: dict[str, Any], method: str = "full", **changes: Any) -> RunSpec:
    task = {"name": "causal_lm", "options": options}
    return run_of(folder, "causal_lm", method, lr=5e-3, **{"task": task, "steps": 4} | changes)


def run(spec: RunSpec, group: Group) -> tuple[Trainer, Rows, Evaluation]:
    """Train, and evaluate the test rows."""
    trainer = trainer_of(spec, group)
    trainer.train()
    test = trainer.assembly.test
    return trainer, test, trainer.evaluate(test, "test", trainer.steps)


def plain(folder: Path, trainer: Trainer) -> Any:
    """Return a model of transformers with the weights that were trained."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    model.load_state_dict(trainer.model.encoder.state_dict())
    return model.eval()


@torch.no_grad()
def log_likelihoods(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the log-likelihoods of the token after each, [tokens, vocabulary]."""
    return torch.as_tensor(model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1))


# Metrics


@pytest.mark.parametrize("loss_on", ["answers", "all"])
def test_metrics_are_those_of_a_plain_model(loss_on: str, task_folder: Path, group: Group) -> None:
    """Nats a token, perplexity, bits a byte and token accuracy, worked out from transformers'
    log-softmax.
    """
    trainer, test, evaluation = run(spec_of(task_folder, {"loss_on": loss_on}), group)
    model, tokenizer = (
        plain(task_folder, trainer),
        AutoTokenizer.from_pretrained(task_folder / "model"),
    )
    nats, right, targets, size = 0.0, 0, 0, 0
    for row in range(len(test)):
        question, expected = test.column("question")[row], test.column("expected")[row]
        ids = tokenizer(question + expected)["input_ids"] + [tokenizer.eos_token_id]
        assert ids == test.tokens(row).tolist()
        likely = log_likelihoods(model, ids)
        first = len(tokenizer(question)["input_ids"]) if loss_on == "answers" else 1
        own = -sum(float(likely[place - 1, ids[place]]) for place in range(first, len(ids)))
        assert evaluation.predictions.loss[row] == pytest.approx(own, rel=1e-5)
        nats, targets = nats + own, targets + len(ids) - first
        right += sum(
            int(likely[place - 1].argmax()) == ids[place] for place in range(first, len(ids))
        )
        learnt = (
            expected if loss_on == "answers" else question[len(question.split()[0]) :] + expected
        )
        size += len(learnt.encode())
    metrics = evaluation.metrics
    assert metrics["loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert metrics["token_accuracy"] == right / targets
    assert evaluation.predictions.texts.answer is None
    assert evaluation.generation_seconds is None


def test_linearised_scores_have_mean_and_spread_of_the_ratio() -> None:
    """The mean is the loss a token, also of rows of unlike length; its standard error the
    jackknife's, to 1 %.
    """
    generator, n = np.random.default_rng(1), 400
    tokens = generator.integers(1, 31, n)
    reference = tuple(np.zeros(length, dtype=np.int64) for length in tokens)
    losses = tokens * generator.gamma(2, 1, n)
    found = linearised_loss(reference, losses)
    assert found.mean() == pytest.approx(losses.sum() / tokens.sum(), rel=1e-12)
    assert abs((losses / tokens).mean() - found.mean()) > 1e-3
    without = (losses.sum() - losses) / (tokens.sum() - tokens)
    jackknife = math.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
    assert found.std(ddof=1) / math.sqrt(n) == pytest.approx(jackknife, rel=0.01)
    assert linearised_loss((np.zeros(0), np.zeros(0)), np.zeros(2)).tolist() == [0, 0]


def test_a_guess_is_the_entropy_of_the_tokens() -> None:
    """Of tokens 1, 1, 2, 3: 1.5 bits a token; with a scorer an empty answer scores 0."""
    reference = (np.array([1, 2]), np.array([1, 3]))
    guess = make_task(TaskSpec(name="causal_lm")).guess(reference)
    assert guess.chance == pytest.approx(1.5 * math.log(2))
    assert guess.scores.mean() == pytest.approx(guess.chance)
    scored = make_task(TaskSpec(name="causal_lm", options={"scorer": "exact"})).guess(reference)
    assert (scored.chance, scored.scores.tolist()) == (0, [0, 0])
    texts = TextAnswers(
        ("", ""), ("a", "b"), np.array([1, 1]), ("a", "a"), choices=np.array([2, 4])
    )
    drawn = make_task(TaskSpec(name="causal_lm", options={"scorer": "choice"})).guess(
        reference, texts
    )
    assert (drawn.chance, drawn.scores.tolist()) == (0.375, [0.5, 0.25])
    assert drawn.sentence == "Choosing at random is right in 37.5% of the test rows on average."


def test_a_scorer_without_its_package_is_refused_at_once(
    task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the preparation, with what to install."""
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UserError, match=r"pip install 'rouge-score"):
        prepare(spec_of(task_folder, {"scorer": "rouge_l"}).settings)


# Answers


def test_texts_lose_the_end_token_that_a_tokenizer_sets(tmp_path: Path) -> None:
    """As T5's and Qwen's embedding models' do, also behind a text that is cut; one of an end
    alone is no text.
    """
    fast = AutoTokenizer.from_pretrained(save_letters(tmp_path))
    plain = fast(["abc", "abcdefgh"])["input_ids"]
    ending = TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", fast.eos_token_id)]
    )
    fast.backend_tokenizer.post_processor = ending
    assert fast("abc")["input_ids"] == [*plain[0], fast.eos_token_id]
    found = encode_texts(["abc", "a", "abcdefgh"], Encoder(fast, 6, len(fast), "letters"))
    assert found["input_ids"] == [plain[0], plain[1][:5]]


@pytest.mark.parametrize("scorer", ["exact", "f1"])
def test_answers_are_scored(scorer: str, task_folder: Path, group: Group) -> None:
    """Score, cut answers and tokens are counted of each row's text."""
    trainer, _, evaluation = run(
        spec_of(task_folder, {"scorer": scorer, "max_new_tokens": 3}, steps=60), group
    )
    texts = evaluation.predictions.texts
    right = [
        answer.strip() == expected.strip()
        for answer, expected in zip(texts.answer, texts.expected, strict=True)
    ]
    assert any(right)
    assert evaluation.metrics["score"] == np.mean(right)
    assert evaluation.metrics["cut_answers"] == texts.cut.mean()
    scores = trainer.task.scores(evaluation.predictions)
    assert (scores.dtype == bool) == trainer.task.binary == (scorer == "exact")
    assert scores.mean() == evaluation.metrics["score"]
    assert evaluation.generation_seconds > 0


def by_value(name: str, values: Sequence[Any]) -> bool:
    """Whether an operator's result depends on values in shape, or is a number: on a GPU the host
    waits there.
    """
    indices = values[1] if isinstance(values[1], list | tuple) else ()
    masked = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
    return masked or name in {"aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select"}


def test_no_batch_waits_for_the_device(task_folder: Path, group: Group) -> None:
    """Neither a training step nor the batches of an evaluation ask it which places are learnt,
    or for padding.
    """
    trainer = trainer_of(spec_of(task_folder, {}, "lora"), group)
    batch = trainer.train_rows.batch(np.arange(8))
    assert not trainer.model.masked
    outputs = {}
    for learnt in (batch.learnt, None):
        with Counts(by_value) as seen:
            outputs[learnt] = trainer.model(
                batch.input_ids, batch.attention_mask, batch.labels, learnt
            )
            trainer.task.loss(outputs[learnt], batch.labels).backward()
            trainer.task.row_losses(outputs[learnt], batch.labels)
            trainer.task.predict(outputs[learnt], batch.labels)
        assert seen.count.total() == (learnt is None), seen.count
    assert outputs[batch.learnt].equal(outputs[None])
    assert len(outputs[None]) == batch.learnt == int((batch.labels[:, 1:] >= 0).sum())


def test_a_scorer_may_read_the_question_and_needs_answers() -> None:
    """Each row's own question. A scorer without answers is a mistake in the program, and says so.

    A perplexity beyond any float is cut.
    """
    task, tokens = (
        make_task(TaskSpec(name="causal_lm", options={"scorer": "exact"})),
        (np.array([1]),) * 2,
    )
    task.scorer = SimpleNamespace(
        score_row=lambda question, answer, expected: float(len(answer) > len(question))
    )
    texts = TextAnswers(("a", "abc"), ("x", "x"), np.array([1, 1]), ("ab", "ab"))
    given = Predictions(np.arange(2), tokens, tokens, np.full(2, 1000.0), texts)
    assert task.scores(given).tolist() == [True, False]
    for without in (None, dataclasses.replace(texts, answer=None)):
        given = dataclasses.replace(given, texts=without)
        with pytest.raises(ValueError, match="no answers"):
            task.scores(given)
    metrics = task.evaluate(given)
    assert metrics["loss"] == 1000
    assert math.isfinite(metrics["perplexity"])


def check(
    options: dict[str, Any], split: str, contents: list[list[str]], choices: list[list[str]]
) -> None:
    task = CausalLM(CausalLM.Options(**options))
    table = pa.table({"contents": contents, "choices": choices})
    task.check(split, table.column("contents").combine_chunks(), table)


def test_rows_that_a_scorer_cannot_score_are_refused() -> None:
    """A text without a prompt where answers are scored, and a row without choices where choices
    are.
    """
    check({}, "train", [["a text"]], [[]])
    check({"scorer": "exact"}, "retention", [["a text"]], [[]])
    with pytest.raises(UserError, match=r"train row 2 .*without a prompt"):
        check({"scorer": "exact"}, "train", [["a", "b"], ["a text"]], [[], []])
    with pytest.raises(
        UserError, match="test row 1 has no choices, which the scorer choice compares"
    ):
        check({"scorer": "choice"}, "test", [["a", "b"]], [["b"]])


# Choices


def test_choices_are_compared_by_their_log_likelihood(task_folder: Path, group: Group) -> None:
    """Summed, and divided by characters, over a plain model's log-softmax; nothing is generated."""
    generator, lines = np.random.default_rng(0), []
    for _ in range(
        120
    ):  # rows of two to four choices of one to three words, the right one among them
        words = [
            " ".join(f"w{w}" for w in generator.integers(0, 150, size))
            for size in generator.integers(1, 4, 4)
        ]
        choices = [f" {text}" for text in words[: generator.integers(2, 5)]]
        prompt = " ".join(
            f"w{word}" for word in generator.integers(0, 150, generator.integers(2, 8))
        )
        lines.append(
            {"prompt": prompt, "completion": str(generator.choice(choices)), "choices": choices}
        )
    (task_folder / "choices.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    data = {"name": "text_files", "options": {"train": f"path:{task_folder / 'choices.jsonl'}"}}
    trainer, test, evaluation = run(spec_of(task_folder, {"scorer": "choice"}, dataset=data), group)
    model, tokenizer = (
        plain(task_folder, trainer),
        AutoTokenizer.from_pretrained(task_folder / "model"),
    )
    likeliest, normalised = [], []
    for question, choices in zip(test.column("question"), test.column("choices"), strict=True):
        prompt = tokenizer(question)["input_ids"]
        sums = []
        for choice in choices:
            ids = tokenizer(question + choice)["input_ids"]
            likely = log_likelihoods(model, ids)
            sums.append(
                sum(float(likely[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))
            )
        likeliest.append(choices[int(np.argmax(sums))])
        per_character = [
            total / len(choice.strip()) for total, choice in zip(sums, choices, strict=True)
        ]
        normalised.append(choices[int(np.argmax(per_character))])
    texts = evaluation.predictions.texts
    assert texts.answer == tuple(likeliest)
    assert texts.normalised == tuple(normalised)
    assert likeliest != normalised
    assert evaluation.metrics["score"] == np.mean(
        [a == b for a, b in zip(likeliest, texts.expected, strict=True)]
    )
    right = [a == b for a, b in zip(normalised, texts.expected, strict=True)]
    assert evaluation.metrics["score_normalised"] == np.mean(right)
    assert trainer.assembly.generator is None
    assert evaluation.generation_seconds is None
    assert texts.tokens is None
    assert texts.choices.tolist() == [len(choices) for choices in test.column("choices")]


def test_of_equally_likely_choices_the_first_counts() -> None:
    """By hand: losses 4, 2, 2 of 1, 2 and 4 characters; a row of fewer choices looks at its own
    only.
    """
    found = chosen([["a", " bb", " cccc"], ["ab", "abcd"]], np.array([4.0, 2.0, 2.0, 3.0, 6.0]))
    assert found.pop("choices").tolist() == [3, 2]
    assert found == {"answer": (" bb", "ab"), "normalised": (" cccc", "ab")}


# On disk


TEXTS = ("", " a\n", "\x00", "é 😀 \u2028", "null")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "answer": TEXTS,
            "tokens": np.arange(5),
            "cut": np.arange(5) > 2,
            "near_tie": np.arange(5) > 3,
        },
        {"answer": TEXTS, "normalised": TEXTS[::-1]},
    ],
)
def test_answers_come_back_from_disk(more: dict[str, Any], tmp_path: Path) -> None:
    """Every field in the rows' order, those that aren't there too; without the text of a row the
    file is unreadable.
    """
    texts = TextAnswers(question=TEXTS, expected=TEXTS[::-1], bytes=np.arange(5), **more)
    tokens, order = (
        tuple(np.arange(length) for length in (1, 0, 3, 2, 1)),
        np.array([4, 2, 0, 1, 3]),
    )
    written = Predictions(
        order, tokens, tokens[::-1], np.linspace(0, 1, 5, dtype=np.float32), texts
    )
    write_predictions(tmp_path, written, np.ones(5))
    found = read_predictions(tmp_path)
    assert same_answers([found.reference[row] for row in order], tokens)
    assert found.loss[order].tolist() == written.loss.tolist()
    for field in dataclasses.fields(TextAnswers):
        value, expected = getattr(found.texts, field.name), getattr(texts, field.name)
        assert value is None if expected is None else [value[row] for row in order] == [*expected]
        assert getattr(value, "dtype", None) == getattr(expected, "dtype", None)
    table = pq.read_table(tmp_path / PREDICTIONS)
    place = table.column_names.index("said_question")
    pq.write_table(
        table.set_column(place, "said_question", pa.array(["x", None, "z", "", ""])),
        tmp_path / PREDICTIONS,
    )
    assert read_predictions(tmp_path) is None


@pytest.mark.parametrize(
    ("every", "scored"), [(None, {1: False, 2: False, 3: False, 4: True}), (2, {2: True, 4: True})]
)
def test_answers_are_generated_at_the_last_validation_and_where_a_suite_says_when(
    every: int | None, scored: dict[int, bool], task_folder: Path, group: Group
) -> None:
    """The validations along the way are of the loss alone, unless `eval_every` asks for them;
    their points say so.
    """
    spec = spec_of(task_folder, {"scorer": "exact", "max_new_tokens": 4}, "lora", eval_every=every)
    quality, points = QualityProbe(), list[Point]()
    run = assemble(spec, prepare(spec.settings), group)
    quality.start(run)
    Trainer(run, [quality], points.extend).train()
    losses = {point.step for point in points if point.metric == "validation_loss"}
    scores = {point.step for point in points if point.metric == "validation_score"}
    assert (losses, scores) == (set(scored), {step for step, has in scored.items() if has})


# The base model


def test_the_base_model_takes_no_step_costs_no_training_and_forgets_nothing(
    task_folder: Path,
) -> None:
    """All checks pass, every test row is answered, and validation counts as after a last step.

    No time, memory, energy or throughput of steps, which would be the least of all; nothing is
    trained or merged.
    """
    (task_folder / "general.txt").write_text(
        "\n".join(f"w{i} w{i + 7} w{3 * i}" for i in range(20)) + "\n"
    )
    options = {
        "scorer": "exact",
        "max_new_tokens": 4,
        "retention": f"path:{task_folder / 'general.txt'}",
    }
    spec, folder = spec_of(task_folder, options, "none", world_size=2), task_folder / "none"
    settings = spec.settings
    record = tiny.run(spec, prepare(settings), folder)
    assert record.status == "ok", record.error
    assert (record.consumed.steps, record.consumed.samples, record.consumed.real_tokens) == (
        0,
        0,
        0,
    )
    assert all(check.passed for check in record.checks), record.checks
    predictions = read_predictions(folder)
    assert predictions.index.tolist() == list(range(settings.test_samples or 0))
    points = {(point.metric, point.step) for point in read_points(folder)}
    assert points == {(f"validation_{name}", settings.steps) for name in ("score", "loss")}
    definitions = {metric.name: metric for metric in record.definitions}
    times = {"inference_seconds", "validation_answer_seconds", "test_answer_seconds"}
    assert {"test_score", "test_loss", "generated_tokens_per_second"} | times <= set(record.metrics)
    assert record.metrics["trainable_parameters"] == 0
    assert record.metrics["forgetting"] == pytest.approx(0, abs=1e-6)
    assert record.metrics["base_retention_loss"] == pytest.approx(record.metrics["retention_loss"])
    for name in record.metrics:
        assert definitions[name].phase != "train", name
        assert definitions[name].group not in {"memory", "throughput", "energy", "merging"}, name


def test_the_base_model_of_a_task_with_a_head_is_unsupported(tmp_path: Path) -> None:
    """A head that is drawn at random answers nothing: the record says so."""
    record = tiny.run(tiny.spec("none"), tiny.prepared(tmp_path / "prepared"), tmp_path / "run")
    assert record.status == "unsupported"
    assert "head" in record.error.message


# Classes


def test_classes_are_answers_to_a_question(task_folder: Path, group: Group) -> None:
    """Their names are the choices of every row of a data set with texts and classes, a pair's
    second text in a line.
    """
    made = tiny.task_settings(task_folder, "sequence_classification", world_size=1)
    data = {"name": "text_files", "options": {"train": f"path:{task_folder / 'class.jsonl'}"}}
    asked = {"scorer": "choice", "question": "{text}\nw9"}
    spec = spec_of(task_folder, asked, "lora", dataset=data, max_length=30)
    _, test, evaluation = run(spec, group)
    assert {tuple(choices) for choices in test.column("choices")} == {tuple(sorted(tiny.COLOURS))}
    plain_rows = make_loader(made).load(made, "class")
    texts = {f"{row['text']}\nw9": sorted(tiny.COLOURS)[row["label"]] for row in plain_rows.test}
    questions, expected = test.column("question"), test.column("expected")
    assert all(
        texts[question] == answer for question, answer in zip(questions, expected, strict=True)
    )
    most = max(map(expected.count, tiny.COLOURS)) / len(test)
    found = make_task(spec.settings.task).guess(test.references, evaluation.predictions.texts)
    assert found.scores.mean() == pytest.approx(most)
    assert (found.chance, found.sentence[:8]) == (pytest.approx(1 / 3), "Guessing")


def test_a_pair_is_asked_for_in_two_lines() -> None:
    """A space at the question's end begins the names; a question without the place of the text
    is refused.
    """
    rows = Dataset.from_dict({"text": ["a {text}"], "text_pair": ["b"], "label": [1], "group": [3]})
    found = ask_for_classes(LoadedData(rows, None, rows, ("no", "yes")), "{text}\nSame? ")
    assert found.test[0] == {
        "group": 3,
        "contents": ["a {text}\nb\nSame?", " yes"],
        "roles": ["user", "assistant"],
        "choices": [" no", " yes"],
    }
    assert (found.validation, found.label_names) == (None, ())
    with pytest.raises(UserError, match=r"question.*has no \{text\}"):
        make_task(TaskSpec(name="causal_lm", options={"question": "Which topic?"}))
