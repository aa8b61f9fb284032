"""Speed as it is measured: records and the pages that show them, the batches that stand for an
epoch, probes' cost.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import performance
import pytest
from speed import probes, shapes, training

from helpers import tiny
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe, Step
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports" / "reference" / "performance"
NAMES = ("intel-xeon", "amd-epyc", "quick", "language")
RECORD, BEFORE, QUICK, LANGUAGE = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES
)


@pytest.mark.parametrize(("record", "quick"), [(RECORD, False), (BEFORE, False), (QUICK, True)])
def test_a_record_has_every_part_of_its_size(record: dict[str, Any], quick: bool) -> None:
    """All parts that are measured where none is named, and the time that they took; an earlier
    version had more.
    """
    parts = record["parts"]
    assert {*performance.parts(quick)} - {*performance.APART} | {"time"} <= set(parts)
    assert {part["quick"] for part in parts.values()} == {quick}


def marked(mark: str) -> list[str]:
    """Return the lines of a table between marks of docs/performance.md."""
    page = (ROOT / "docs" / "performance.md").read_text()
    lines = page[page.index(f"<!-- {mark} -->") : page.index(f"<!-- /{mark} -->")].splitlines()
    return [line for line in lines if line.startswith("|")]


def test_the_page_shows_the_records() -> None:
    """The ratios to the HF Trainer are the record's, each and no other; of other rows, those
    that are shown.
    """
    assert marked("speed") == performance.ratios_of(RECORD)
    for mark, record in (("language", LANGUAGE), ("table", RECORD)):
        assert marked(mark)[2:]
        assert set(marked(mark)[2:]) <= set(performance.rows_of(record))


def test_the_readme_names_the_range_of_the_ratios() -> None:
    """Its three ranges of samples/s are the smallest and the largest ratio of the record."""
    rows = [row.split(" | ") for row in performance.ratios_of(RECORD)[2:]]
    cells = [
        [float(cell.removesuffix(" x").removesuffix(" x |")) for cell in row[1:4]] for row in rows
    ]
    defaults, dynamic, grouped = zip(*cells, strict=True)
    readme = (ROOT / "README.md").read_text()
    as_many = " ".join(readme.split())
    assert f"{min(grouped):.1f} to {max(grouped):.1f} times as many samples a second as" in as_many
    assert f"{min(dynamic):.1f} to {max(dynamic):.1f} times as many as with dynamic" in as_many
    assert f"{min(defaults):.1f} to {max(defaults):.1f} times as many as with its" in as_many


@pytest.mark.parametrize("count", sorted({*training.BATCHES.values()}))
@pytest.mark.parametrize("contender", ["ours", "dynamic", "grouped"])
def test_few_batches_are_padded_as_the_epoch_is(contender: str, count: int) -> None:
    """To within 0.5 %: who is given shorter batches than his epoch has looks faster than he is."""
    lengths = shapes.lengths()

    def padded_to(batches: list[np.ndarray]) -> float:
        return float(np.mean([lengths[indices].max() for indices in batches]))

    epoch = shapes.epoch(contender, lengths)
    chosen = shapes.representative(epoch, lengths, count)
    assert len(chosen) == count
    assert len({indices.tobytes() for indices in chosen}) == count
    assert padded_to(chosen) == pytest.approx(padded_to(epoch), rel=0.005)


# The cost of probes


def blocks(n: int, seed: int, true: float, outliers: float) -> np.ndarray:
    """Return seconds [n, 2, 20] of noisy pieces without probes and with them; a share of pieces
    takes five times.
    """
    generator = np.random.default_rng(seed)
    noise = generator.lognormal(0, 0.1, (n, 2, 20)) * np.where(
        generator.random((n, 2, 20)) < outliers, 5, 1
    )
    return np.array([1.0, 1.0 + true])[:, None] * noise


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_the_bound_covers(outliers: float) -> None:
    """At least 95 % of the bounds lie at or above the true overhead, also where a tenth of the
    pieces is disturbed.
    """
    found = [probes.bound(blocks(20, seed, 0.01, outliers), resamples=400) for seed in range(400)]
    assert np.mean([upper >= 0.01 for _, upper in found]) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean([estimate for estimate, _ in found]) == pytest.approx(0.01, abs=0.002)


def test_a_cost_of_one_piece_counts_by_its_share() -> None:
    """Ten per cent more in one of twenty equal pieces is half a per cent of the whole."""
    quiet = np.ones((8, 2, 20))
    quiet[:, 1, 3] = 1.1
    assert probes.bound(quiet) == pytest.approx((0.005, 0.005))
    quiet[3:] = 1.0  # in three blocks of eight, more than the quarter that is cut off
    assert probes.bound(quiet)[0] == pytest.approx(0.005 / 4)


class Noting(Probe):
    """Notes the steps and validations it is told of; the probes are on at each."""

    def __init__(self, switched: probes.Switched) -> None:
        self.switched = switched
        self.seen: list[tuple[str, int]] = []

    def _note(self, verb: str, *indices: int) -> list:
        assert self.switched.on
        self.seen += [(verb, index) for index in indices]
        return []

    def before_step(self, index: int) -> None:
        self._note("before_step", index)

    def after_steps(self, window: list[Step]) -> list:
        return self._note("after_steps", *(step.index for step in window))

    def after_eval(self, evaluation: Evaluation) -> list:
        return self._note("after_eval", evaluation.step)


def test_a_block_has_the_probes_on_once_everywhere(group: Group, tmp_path: Path) -> None:
    """Of two trainings that begin the one with probes, the other without, each step and
    validation has them once.
    """
    prepared, spec = (
        tiny.prepared(tmp_path),
        tiny.spec(world_size=1, steps=7, eval_every=2, log_every=3),
    )
    seen, batches, with_probes = [], [], []
    for first in (True, False):
        switched = probes.Switched()
        switched.append(Noting(switched))
        block = probes.Alternating(assemble(spec, prepared, group), switched)
        batches.append([batch.tolist() for batch in Trainer.order(block)])
        pieces = block.take_turns(first)
        assert min(seconds for _, seconds in pieces) > 0
        with_probes.append([on for on, _ in pieces])
        seen += list.__getitem__(switched, 0).seen
    assert batches[0] == batches[1]
    assert with_probes == [
        [True, True, False, True, False, False, True],
        [False, False, True, False, True, True, False],
    ]
    steps = [(verb, index) for verb in ("before_step", "after_steps") for index in range(1, 8)]
    assert sorted(seen) == sorted([*steps, *(("after_eval", index) for index in (2, 4, 6, 7))])
