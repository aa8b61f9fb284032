"""Comparisons, costs, fronts and published figures: what is compared, with which intervals, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_sections import load, of, said, section, with_metrics, without

from helpers import made_records
from helpers.made_records import SETTINGS, sweep
from hpml_bench import statistics
from hpml_bench.plugins.blocks import Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.run import Point
from hpml_bench.report.results import Results
from hpml_bench.statistics.paired_tests import shaffer
from hpml_bench.suite import registry
from hpml_bench.suite.settings import DatasetSpec


def test_a_percentile_of_few_is_called_what_it_is(tmp_path: Path) -> None:
    """A p99 of fewer than 200 examples is said to be nearly the maximum, and one of many is not."""
    for samples in (50, 1000):
        settings = SETTINGS.model_copy(update={"latency_samples": samples})
        text = said("inference", load(tmp_path / str(samples), sweep(["lora"], 2, settings=settings)))
        assert ("nearly the slowest" in text) == (samples == 50)


def test_reaching_a_target_before_any_step_takes_nothing(tmp_path: Path) -> None:
    """A run that stands at the target in an evaluation at step 0 got there in 0 s with 0 samples."""
    course = [Point(metric="validation_accuracy", step=0, value=0.9), *made_records.points("lora", 0)]
    results = Results.load(made_records.write(tmp_path, sweep(["lora"], 1), lambda *_: course))
    reached = registry.get("sections", "time_to_quality").reached
    assert reached(results, results.compared[0], 0.85) == (0.0, 0.0)


def test_the_chart_says_that_no_difference_is_shown(tmp_path: Path) -> None:
    """Where no difference is shown the chart of cost and accuracy says so, and nothing is ringed."""
    for seeds, real in ((5, True),):
        made = section("cost_quality", load(tmp_path / str(seeds), sweep(["lora", "head"], seeds)))
        captions = [block.caption for block in made.blocks if isinstance(block, Picture)] if made else []
        assert len(captions) == 2
        assert all(("Ringed: shown to be on the Pareto front" in caption) == real for caption in captions)


def test_document_does_not_compare_unequal_budgets(tmp_path: Path) -> None:
    """Samples/s times runtime shows 150,000 against 120,000 samples, and the section says what follows."""
    text = said("published", load(tmp_path, sweep()))
    assert "150,000 samples for Prompt Tuning, 120,000 samples for LoRA and 120,000 samples for Adapter Tuning" in text
    assert "budgets were not equal" in text
    assert "Prompt Tuning | the HPML document | 93.88 | 0.2193 | 2,345 | 63.96 | 3,577 | 12.88 | ≈ 149,986" in text


def test_document_needs_a_shared_method(tmp_path: Path) -> None:
    """A suite with none of the document's methods has nothing beside it."""
    assert section("published", load(tmp_path, sweep(["full", "head"]))) is None


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ({"name": "newswire"}, True),
        ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news", "train": "train"}}, True),
        ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news@eb185aa"}}, True),
        ({"name": "hub", "options": {"dataset": "hub:stanfordnlp/imdb"}}, False),
        ({"name": "text_files", "options": {"train": "path:news.csv"}}, False),
    ],
)
def test_document_stands_beside_results_of_its_data(dataset: dict[str, Any], shown: bool, tmp_path: Path) -> None:
    """AG News from the hub, and quickstart's data; results of anybody's own data have nothing beside them."""
    settings = SETTINGS.model_copy(update={"dataset": DatasetSpec.model_validate(dataset)})
    found = section("published", load(tmp_path, sweep(settings=settings)))
    assert (found is not None) is shown


def test_dominated_methods_are_named(tmp_path: Path) -> None:
    """Of accuracy and a cost, who is on the front, who is off it and by whom, and who is undecided are named."""
    text = said("cost_quality", load(tmp_path, sweep()))
    assert (
        "Accuracy against training time: on the front adapter, head and lora; undecided full; off it prompt_tuning "
        "(dominated by adapter, full and lora)." in text
    )
    assert "Accuracy against peak memory: on the front adapter, head, lora and prompt_tuning; undecided full." in text
    assert "full | undecided | – | 87.5 ± 0.4" in text


def test_places_need_shared_seeds(tmp_path: Path) -> None:
    """A method that shares two seeds with the others neither takes a place on the front nor denies one."""
    few = load(tmp_path / "few", without("head", 0, 1, 2))
    places = {method: of.place for method, of in few.front(few.headline).items()}
    assert places == {"lora": "undecided", "full": "undecided", "adapter": "undecided", "head": "undecided",
                      "prompt_tuning": "undecided"}  # fmt: skip
    assert "places of all methods are undecided" in said("cost_quality", few)
    enough = load(tmp_path / "enough", without("head", 0))
    assert enough.front(enough.headline)["head"].place == "on"


def test_a_caption_denies_no_place_that_is_shown(tmp_path: Path) -> None:
    """Where a method is shown to be off the front and none on it, the chart doesn't say that no place is shown."""
    accuracy = {"lora": [0.87, 0.88, 0.86, 0.87, 0.88], "full": [0.88, 0.86, 0.87, 0.88, 0.87], "head": [0.6] * 5}
    seconds = {"lora": [1.9, 2.0, 2.1, 2.0, 1.9], "full": [2.0, 1.9, 2.0, 2.1, 1.9], "head": [4.0, 4.1, 3.9, 4.2, 4.1]}
    made = of({m: {"test_accuracy": accuracy[m], "train_seconds": seconds[m]} for m in accuracy})
    results = load(tmp_path, made)
    front = results.front(("test_accuracy", "train_seconds"))
    assert {method: of.place for method, of in front.items()} == {
        "lora": "undecided",
        "full": "undecided",
        "head": "off",
    }
    shown = section("cost_quality", results)
    assert shown
    captions = [block.caption for block in shown.blocks if isinstance(block, Picture) and "seconds" in block.name]
    assert captions
    assert "No method's place is shown" not in captions[0]


def test_one_method_has_no_front(tmp_path: Path) -> None:
    """With a single method no place on a front is told, and nothing is ringed as shown."""
    made = section("cost_quality", load(tmp_path, sweep(["lora"])))
    texts = [t for b in made.blocks for t in (b.sentences if isinstance(b, Text) else (b.caption,))] if made else []
    assert not [text for text in texts if "on the front" in text or "shown to be on" in text]


def test_all_claims_of_a_page_are_one_family(tmp_path: Path) -> None:
    """A pair that differs by its metric alone, and not by Holm over all pairs of all metrics, is undecided everywhere.

    Of the two methods' differences in time p is 0.03, below the 4 % of a single pair and above a third of them.
    """
    seconds = {"full": [2.02, 2.3, 2.15, 2.52, 2.18], "lora": [1.9, 1.9, 2.0, 2.1, 2.1]}
    others = {"full": [0.86, 0.87, 0.88, 0.85, 0.86], "lora": [0.87, 0.86, 0.87, 0.86, 0.88]}
    own = {
        m: {"train_seconds": seconds[m], "test_accuracy": others[m], "peak_memory_mb": [1000 * v for v in others[m]]}
        for m in seconds
    }
    results = load(tmp_path, of(own))
    (pair,) = results.comparisons("train_seconds")
    assert pair.p is not None
    assert 0.04 / 3 < pair.p < 0.04
    assert pair.verdict == "undecided"
    assert statistics.decide([pair])[0].verdict == "different"
    assert "full / lora | can't tell" in said("comparisons", results)
    takeaways = said("takeaways", results)
    assert (
        "lora trained fastest on average: 2.00 s; lora is not shown to be better than any other. "
        "Undecided against full" in takeaways
    )
    assert "family of 3 tested pairs" in takeaways
    assert results.ranks("train_seconds") == {"full": (1, 2), "lora": (1, 2)}
    assert {of.place for of in results.front(results.headline).values()} == {"undecided"}


def test_ranks_takeaways_and_front_follow_from_the_same_verdicts(tmp_path: Path) -> None:
    """What the table of pairs calls better is what ranks count and takeaways name."""
    results = load(tmp_path, sweep())
    for metric in results.headline:
        better = results.definitions[metric].better
        wins = [(c.winner(better), c.other(winner)) for c in results.family[metric] if (winner := c.winner(better))]
        assert results.ranks(metric) == {
            m: (1 + sum(loser == m for _, loser in wins), 5 - sum(winner == m for winner, _ in wins))
            for m in results.methods
        }
    for metric, share in zip(results.family, (0.6, 0.2, 0.2), strict=True):
        adjusted = np.array(shaffer([c.p for c in results.family[metric] if c.p is not None], 5, 2 / 3)) / (
            0.72 * share
        )
        assert [c.p_adjusted for c in results.family[metric]] == pytest.approx(list(np.minimum(1, adjusted)))


def test_pairs_say_what_their_intervals_and_metrics_are(tmp_path: Path) -> None:
    """Intervals of pairs are said to be at the level of their tests, and the metrics that are compared are named."""
    results = load(tmp_path, sweep(["lora", "full"]))
    text, made = said("comparisons", results), section("comparisons", results)
    assert "Each interval is at the level of its pair's test" in text
    assert "Compared by accuracy, training time and peak memory alone; the other metrics" in text
    assert [block.name for block in made.blocks if isinstance(block, Table)] == [  # type: ignore[union-attr]
        "intervals", "pairs_test_accuracy", "pairs_train_seconds", "pairs_peak_memory_mb", "pairs_on_these_rows",
        "crossed",
    ]  # fmt: skip


def test_memory_over_set_up_is_compared_where_it_is_measured(tmp_path: Path) -> None:
    """Net of set-up where that is measured, else the peak: one of the two memories is in the family."""
    net = made_records._metric("peak_memory_over_setup_mb", "memory over set-up", "MB", "lower", spec=",.0f")
    made = [
        with_metrics(r, peak_memory_over_setup_mb=50.0 + r.spec.seed).model_copy(
            update={"definitions": (*r.definitions, net)}
        )
        for r in sweep(["lora", "full"], 3)
    ]
    assert load(tmp_path / "net", made).headline == ("test_accuracy", "train_seconds", "peak_memory_over_setup_mb")
    assert load(tmp_path / "peak", sweep(["lora"], 3)).headline == ("test_accuracy", "train_seconds", "peak_memory_mb")


def test_the_table_on_these_rows_is_labelled(tmp_path: Path) -> None:
    """The paired t over seeds on these very rows stands apart, each p its pair's own, and claims nothing."""
    results = load(tmp_path, sweep())
    made = section("comparisons", results)
    assert made
    table = next(b for b in made.blocks if isinstance(b, Table) and b.name == "pairs_on_these_rows")
    assert "For other seeds on these 1,000 test rows alone" in table.notes[0]
    assert not any("better" in cell for row in table.rows for cell in row)
    assert table.values is not None
    p = [c.p for c in statistics.compare_pairs(results.values("test_accuracy"), grid=1 / 1000)]
    assert [row[3] for row in table.values] == pytest.approx(p)
    assert not any(
        "higher" in cell or "p (adjusted)" in cell for row in (table.columns, *table.rows) for cell in row[1:-2]
    )


def test_equal_costs_tell_no_spread(tmp_path: Path) -> None:
    """Five equal factors of memory on no known grid tell no spread: undecided, and no number of seeds is named."""
    memory = {"lora": [500.0] * 5, "full": [600.0] * 5}
    results = load(tmp_path, of({method: {"peak_memory_mb": values} for method, values in memory.items()}))
    row = next(line for line in said("comparisons", results).splitlines() if line.startswith("full / lora | c"))
    assert row.startswith("full / lora | can't tell | 1.200 | – | 0.062 |")
    assert "10,000" not in row
    text = said("takeaways", results)
    assert "Undecided against full (5 seeds don't tell its spread" in text
    assert "over 10,000 would decide" not in text


def test_a_known_grid_tells_equal_costs_apart(tmp_path: Path) -> None:
    """Where the memory's grid is known, five equal factors differ by no less than what the grid leaves open."""
    memory = {"lora": [500.0] * 5, "full": [600.0] * 5}
    definitions = tuple(
        m.model_copy(update={"grid": 0.004}) if m.name == "peak_memory_mb" else m for m in made_records.DEFINITIONS
    )
    made = of({method: {"peak_memory_mb": values} for method, values in memory.items()})
    results = load(tmp_path, [r.model_copy(update={"definitions": definitions}) for r in made])
    assert (
        "lora needed the least memory on average: 500 MB; full took 1.200 times [1.200, 1.200] as much as lora."
        in said("takeaways", results)
    )
