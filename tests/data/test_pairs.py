"""Pairs of texts: what the model gets is what transformers' Trainer gives it for `tokenizer(a,
b)`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

import hpml_bench
from helpers import tiny
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.fit.predict import predict
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.settings import Settings, TaskSpec
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.system.errors import UserError
from hpml_bench.training.model import build_model
from hpml_bench.training.saving import save_trained

pytestmark = pytest.mark.usefixtures("empty_cache", "no_rank")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
RANDOM = np.random.default_rng(0)
PAIRS = [
    tuple(
        " ".join(f"w{word}" for word in RANDOM.integers(0, 60, length))
        for length in RANDOM.integers(2, 15, 2)
    )
    for _ in range(40)
]
LENGTH = 20


@pytest.fixture
def no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of a rank, by which the Trainer would make a process group that outlives it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def bert(folder: Path, segments: int = 2) -> Path:
    """Save a random BERT whose tokenizer knows pairs."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, type_vocab_size=segments, **shape
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab={word: place for place, word in enumerate(WORDS)})
    tokenizer.save_pretrained(folder)
    return folder


def pairs(folder: Path, model: Path) -> Settings:
    """Write rows and return settings that read them without naming a column."""
    rows = [f"{a},{b},{'xy'[row % 2]},g\n" for row, (a, b) in enumerate(PAIRS)]
    (folder / "rows.csv").write_text("premise,hypothesis,label,genre\n" + "".join(rows))
    files = dict.fromkeys(("train", "validation", "test"), f"path:{folder / 'rows.csv'}")
    return tiny.settings(
        backbone=f"path:{model}",
        dataset={"name": "text_files", "options": files},
        max_length=LENGTH,
        world_size=1,
        task={"name": "sequence_classification", "options": {"pooling": "first"}},
        validation_samples=None,
    )


def batch_of(done: Prepared) -> Any:
    """Return all test rows as one batch."""
    rows = Rows(Path(done.data) / "test", done.pad_id)
    return rows.batch(np.arange(len(rows)))


def test_inputs_and_states_are_those_of_a_trainer(tmp_path: Path) -> None:
    """Token ids, mask and the numbers that tell the texts apart are equal, long pairs included,
    and so is the state.
    """
    model = bert(tmp_path / "bert")
    asked = pairs(tmp_path, model)
    done = prepare(asked)
    assert (
        done.notes["columns"] == "text from premise; second text from hypothesis; label from label"
    )
    assert done.notes["columns not read"] == "genre"
    batch = batch_of(done)
    tokenizer = BertTokenizerFast.from_pretrained(model)
    rows = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    features = [
        {**tokenizer(one, other, truncation=True, max_length=LENGTH), "label": 0}
        for one, other in PAIRS
    ]
    features.sort(key=lambda row: rows.index(tokenizer.decode(row["input_ids"])))
    arguments = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=len(PAIRS), report_to=[], use_cpu=True
    )
    theirs = BertForSequenceClassification.from_pretrained(model)
    (expected,) = Trainer(theirs, arguments, processing_class=tokenizer).get_eval_dataloader(
        features
    )
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.more}
    assert set(given) == set(expected) - {"labels"}
    for name, values in given.items():
        assert torch.equal(values, expected[name]), name
    assert batch.more["token_type_ids"].any()
    assert (batch.real_tokens, batch.padded_tokens) == (
        int(batch.attention_mask.sum()),
        batch.input_ids.numel(),
    )

    spec = tiny.spec("full").model_copy(update={"settings": asked})
    task = make_task(asked.task, done.label_names)
    built = build_model(model, spec, make_method(spec.method), task).eval()
    with torch.no_grad():
        states = AutoModel.from_pretrained(model)(**given).last_hidden_state[:, 0]
        ours = built(
            batch.input_ids, batch.attention_mask, batch.labels, batch.learnt, **batch.more
        )
        without = built(batch.input_ids, batch.attention_mask)
    assert torch.allclose(ours, built.head(states), atol=1e-6)
    assert not torch.allclose(ours, without, rtol=0, atol=1e-5)


def gpt2(folder: Path) -> Path:
    """A model whose tokenizer puts nothing between two texts."""
    words = {word: place for place, word in enumerate([*WORDS, "\n"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    splits = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(
        tiny.gpt2(folder)
    )
    return folder


@pytest.mark.parametrize("make", [gpt2, partial(bert, segments=1)], ids=["gpt2", "one segment"])
def test_models_without_segments_get_none(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Texts that the tokenizer doesn't separate are joined by a line break; other pairs have its
    own separator.

    As of a model like RoBERTa, which has one kind of text.
    """
    model = make(tmp_path / "model")
    asked = pairs(tmp_path, model)
    done = prepare(asked)
    batch = batch_of(done)
    assert batch.more == {}
    if make is gpt2:
        assert (batch.input_ids == len(WORDS)).sum(1).tolist() == [1] * len(PAIRS)  # a line break
    else:
        assert (batch.input_ids == WORDS.index("[SEP]")).sum(1).tolist() == [2] * len(PAIRS)


def test_a_second_text_is_part_of_the_digest_and_of_copies(tmp_path: Path) -> None:
    """Rows with the same premise are no copies; another hypothesis is other data."""
    model = bert(tmp_path / "bert")
    asked = pairs(tmp_path, model)
    before = prepare(asked)
    file = tmp_path / "rows.csv"
    same = [f"{PAIRS[0][0]},{second},{'xy'[row % 2]},g\n" for row, (_, second) in enumerate(PAIRS)]
    file.write_text("premise,hypothesis,label,genre\n" + "".join(same))
    options = asked.dataset.model_copy(
        update={"options": {"train": f"path:{file}", "text": "premise", "text_pair": "hypothesis"}}
    )
    after = prepare(asked.model_copy(update={"dataset": options}))
    assert after.digests.data != before.digests.data
    assert after.notes["copies and near-copies"] == "none"


def test_methods_train_on_pairs(tmp_path: Path) -> None:
    """On two ranks, with the memory predicted beforehand."""
    asked = pairs(tmp_path, bert(tmp_path / "bert")).model_copy(
        update={"world_size": 2, "steps": 2}
    )
    spec = tiny.spec("prompt_tuning").model_copy(update={"settings": asked})
    entry = MethodEntry(lr=1e-3)
    (need,) = predict(
        Suite(name="tiny", settings=asked, methods={"prompt_tuning": entry}), advised=False
    ).needs
    assert need.peak, need.advice
    record = tiny.run(spec, prepare(asked), tmp_path / "run")
    assert record.status == "ok", record.message


@pytest.mark.parametrize("make", [bert, gpt2])
def test_a_saved_model_answers_pairs(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """`predict` and transformers' pipeline give the model's own answers; texts alone and pairs
    aren't mixed.
    """
    model = make(tmp_path / "model")
    mean = TaskSpec(
        options={"pooling": "mean"}
    )  # of all tokens: a decoder's first one has read nothing else
    changes = {"task": mean, "max_length": 40}  # pipelines cut nothing by themselves
    asked = pairs(tmp_path, model).model_copy(update=changes)
    done, spec = prepare(asked), tiny.spec("full").model_copy(update={"settings": asked})
    made, task = make_method(spec.method), make_task(asked.task, done.label_names)
    built = build_model(model, spec, made, task).eval()
    with torch.no_grad():
        built.head.weight.mul_(20)
    batch = batch_of(done)
    saved = tmp_path / "saved"
    save_trained(built, made, spec, done, saved)
    words = [*WORDS, "\n"]
    rows = zip(batch.input_ids, batch.attention_mask, strict=True)
    decoded = [" ".join(words[token] for token in ids[mask.bool()]) for ids, mask in rows]
    between = "[SEP]" if make is bert else "\n"
    asked_pairs = [
        tuple(part.removeprefix("[CLS] ").strip() for part in row.split(between)[:2])
        for row in decoded
    ]
    with torch.no_grad():
        logits = built(batch.input_ids, batch.attention_mask, **batch.more)
    assert hpml_bench.predict(saved, asked_pairs) == [
        done.label_names[int(row)] for row in logits.argmax(1)
    ]
    found = pipeline("text-classification", model=str(saved), trust_remote_code=True)
    scores = [found({"text": one, "text_pair": other})["score"] for one, other in asked_pairs]
    assert scores == pytest.approx(logits.softmax(1).max(1).values.tolist(), abs=1e-4)
    with pytest.raises(UserError, match="give texts, or pairs of texts, not both"):
        hpml_bench.predict(saved, ["w1", ("w1", "w2")])
