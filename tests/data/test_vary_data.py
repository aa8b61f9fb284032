"""Rows of each seed's own: drawn from one pool, the same for all methods of a seed, and compared in one report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from datasets import Dataset

from helpers.tiny import prepared, settings
from hpml_bench.cli import main
from hpml_bench.data.prepared import draw, training_rows
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.report.selection import Selection
from hpml_bench.system.errors import UserError

SUITE = {
    "description": "Newswire with rows of each seed's own, for tests.",
    "seeds": 2,
    "settings": {
        "backbone": "embedded:newswire-gpt2", "dataset": {"name": "newswire"}, "vary_data": True, "train_samples": 32,
        "validation_samples": 16, "test_samples": 24, "steps": 4, "global_batch": 8, "latency_samples": 2,
        "device": "cpu", "world_size": 1, "threads": 1, "precision": "fp32",
    },
    "methods": {"lora": {"lr": 1e-2}, "head": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """Two methods x two seeds, run and read again."""
    folder = tmp_path_factory.mktemp("varied")
    (folder / "varied.yaml").write_text(yaml.safe_dump(SUITE))
    command = ["run-all", str(folder / "varied.yaml"), "--out", str(folder / "out"), "--wandb", "off"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return Selection.load(folder / "out/varied")


def test_all_runs_are_compared(selection: Selection) -> None:
    """All four are ok, of one protocol and one digest of the data, and none is set apart.

    A seed has rows of its own, which its methods share: the digest of the rows in their order, and the tokens.
    """
    assert len(selection.compared) == 4
    assert selection.left_out.excluded == ()
    assert len({record.protocol_id for record in selection.compared}) == 1
    assert len({record.digests for record in selection.compared}) == 1
    assert "256 train, 16 validation, 24 test (each seed draws 32" in selection.reference.notes["rows"]
    consumed = [{record.consumed for record in selection.compared if record.spec.seed == seed} for seed in (0, 1)]
    assert [len(found) for found in consumed] == [1, 1]
    assert consumed[0] != consumed[1]


def test_the_order_tells_which_rows_were_drawn(tmp_path: Path) -> None:
    """Two seeds draw different rows of the pool, again the same ones; numbers and tokens are those on disk."""
    there = prepared(tmp_path, rows=96)
    varied = settings(vary_data=True, train_samples=36)
    whole = training_rows(there, settings(), 0)
    drawn = {seed: training_rows(there, varied, seed) for seed in (0, 1)}
    numbers = {seed: rows.numbers.tolist() for seed, rows in drawn.items()}
    assert [len(set(of)) for of in numbers.values()] == [36, 36]
    assert set(numbers[0]) != set(numbers[1])
    assert training_rows(there, varied, 0).numbers.tolist() == numbers[0]
    for index, number in enumerate(numbers[1]):
        assert drawn[1].tokens(index).tolist() == whole.tokens(number).tolist()
        assert drawn[1].labels[index] == whole.labels[number]
        assert drawn[1].lengths[index] == whole.lengths[number]
    batch = drawn[1].batch(np.array([3, 0]))
    assert batch.labels.tolist() == whole.labels[[numbers[1][3], numbers[1][0]]].tolist()
    assert whole.numbers.tolist() == list(range(96))  # without it under their own indices, as ever


def data(rows: int) -> LoadedData:
    train, test = (
        Dataset.from_dict({"text": [f"{name} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]})
        for name, n in (("train", rows), ("test", 10))
    )
    return LoadedData(train, None, test, ("a", "b"))


def test_the_pool_is_all_rows_less_the_validation_rows() -> None:
    """Validation and test rows are those that all seeds have without it, and the usual training rows come first."""
    plain = draw(data(60), settings(train_samples=20, validation_samples=8))
    pool = draw(data(60), settings(train_samples=20, validation_samples=8, vary_data=True))
    assert pool["validation"]["text"][:] == plain["validation"]["text"][:]
    assert pool["test"]["text"][:] == plain["test"]["text"][:]
    assert pool["train"]["text"][:20] == plain["train"]["text"][:]
    assert len(pool["train"]) == 52
    assert not set(pool["train"]["text"]) & set(pool["validation"]["text"])


@pytest.mark.parametrize(("samples", "says"), [
    (None, "vary_data needs train_samples"),
    (27, "of 52 rows all would draw nearly the same"),
    (53, "draws 53 .* but of 52"),
])  # fmt: skip
def test_where_nothing_can_vary_it_is_refused(samples: int | None, says: str) -> None:
    """Without a number of rows, or with more than half of those there are."""
    with pytest.raises(UserError, match=says) as raised:
        draw(data(60), settings(train_samples=samples, validation_samples=8, vary_data=True))
    assert "\n" not in str(raised.value)
