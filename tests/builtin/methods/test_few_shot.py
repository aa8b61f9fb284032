"""Few-shot prompting: examples drawn by the seed, answers as transformers gives them to the same
tokens, its cost.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import tiny
from hpml_bench.data.draw import training_rows
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.task import make_task
from hpml_bench.select.comparability import is_base
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import make_trainer

K = 3


@pytest.fixture
def settings(task_folder: Path) -> Settings:
    return tiny.task_settings(task_folder, "causal_lm", world_size=1, max_length=60)


def spec_of(settings: Settings, k: int = K, seed: int = 0, method: str = "few_shot") -> RunSpec:
    chosen = MethodSpec(
        name=method, method=method, lr=1, options={"k": k} if method == "few_shot" else {}
    )
    return RunSpec(suite="tiny", settings=settings, method=chosen, seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_answers_are_those_of_transformers_to_the_same_texts(
    seed: int, settings: Settings, group: Group
) -> None:
    """Greedy, after the seed's examples, which are the same before every row; nothing is
    trained.
    """
    prepared = prepare(settings)
    run = assemble(spec_of(settings, seed=seed), prepared, group)
    trainer = make_trainer(run, (), lambda _: None)
    assert trainer.train().consumed.steps == 0
    evaluation = trainer.evaluate(run.test, "test", 0)
    folder = prepared.backbone
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    train = training_rows(prepared, settings, seed)
    known = [
        f"{q}{a}" for q, a in zip(train.column("question"), train.column("expected"), strict=True)
    ]
    texts, shown = evaluation.predictions.texts, set()
    for row, question in enumerate(texts.question):
        ids = run.test.tokens(row)[: run.test.column("prompt")[row]].tolist()
        before = tokenizer.decode(ids)[: -len(question)].strip()
        shown.add(before)
        found = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=4,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )
        assert texts.answer[row] == tokenizer.decode(
            found[0, len(ids) :].tolist(), skip_special_tokens=True
        )
    (before,) = (f"{text} " for text in shown)
    for _ in range(K):
        before = before.removeprefix(
            next(text for text in known if before.startswith(f"{text} "))
        ).lstrip()
    assert not before


def test_seeds_draw_other_examples_and_more_of_them_begin_alike(
    settings: Settings, group: Group
) -> None:
    """Two of a seed are the first two of its three; the rows' references are those of the base
    model.
    """
    prepared = prepare(settings)
    runs = {
        (k, seed): assemble(spec_of(settings, k, seed), prepared, group)
        for k in (2, 3)
        for seed in (0, 1)
    }
    turns = {key: run.test.tokens(0).tolist() for key, run in runs.items()}
    assert turns[3, 0] != turns[3, 1]
    base = assemble(spec_of(settings, method="none"), prepared, group).test
    own = base.tokens(0).tolist()
    shared = len(turns[2, 0]) - len(own)
    assert shared > 0
    assert turns[3, 0][:shared] == turns[2, 0][:shared]
    for run in runs.values():
        assert all(map(np.array_equal, run.test.references, base.references))


def test_it_is_refused_with_a_reason(settings: Settings, task_folder: Path, group: Group) -> None:
    """More examples than training rows, and a task with a head."""
    with pytest.raises(Unsupported, match="its 500 examples are more than the 119 training rows"):
        assemble(spec_of(settings, 500), prepare(settings), group)
    classes = tiny.task_settings(task_folder, "sequence_classification", world_size=1)
    with pytest.raises(Unsupported, match="the task puts a head on the model"):
        assemble(spec_of(classes), prepare(classes), group)
    assert make_task(classes.task, ("a", "b")).target == "class"


def test_each_seed_is_a_run_and_none_is_the_base_model(settings: Settings, tmp_path: Path) -> None:
    """The base model runs once for all seeds; the tokens of prompts and the time per answer are
    recorded.
    """
    prepared = prepare(settings)
    methods = ("few_shot", "none")
    records = {
        name: tiny.run(spec_of(settings, method=name), prepared, tmp_path / name)
        for name in methods
    }
    assert {name: is_base(record) for name, record in records.items()} == {
        "few_shot": False,
        "none": True,
    }
    tokens, base = (records[name].metrics for name in ("few_shot", "none"))
    assert tokens["prompt_tokens"] > 2 * base["prompt_tokens"] > 0
    assert tokens["answer_ms"] == pytest.approx(1000 * tokens["test_answer_seconds"] / 25)
    assert "train_seconds" not in tokens
    suite = load_suite("chat").model_copy(update={"seeds": 3})
    assert [len(suite.runs([name])) for name in ("none", "few_shot")] == [1, 3]
