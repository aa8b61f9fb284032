"""Behaviour: what a user may give by mistake is refused with what to do, or read as it is meant."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulation import cases

import hpml_bench
from helpers.commands import called
from helpers.made_tables import Row, right_and_wrong, write_csv
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.verdicts import is_exact, judge
from hpml_bench.system.errors import UserError


def rows(systems: dict[str, float] | None = None, **options: Any) -> list[Row]:
    """Return lines of two systems that differ."""
    return right_and_wrong(systems or {"a": 0.5, "b": 0.9}, 40, **options)


def real(
    seeds: int, costs: Callable[[int, str], Row] = lambda _seed, _system: {}, size: int = 40
) -> list[Row]:
    """Return lines of real scores over seeds, with costs by seed and system."""
    random = np.random.default_rng(5)
    table = random.random((seeds, 2, size)).round(3)
    return [
        {"system": name, "row": at, "seed": seed, "score": float(table[seed, n, at])}
        | costs(seed, name)
        for seed in range(seeds)
        for n, name in enumerate("ab")
        for at in range(size)
    ]


def first(lines: list[Row], **cells: Any) -> list[Row]:
    return [lines[0] | cells, *lines[1:]]


def copied(lines: list[Row], times: int) -> list[Row]:
    return [one | {"seed": one["seed"] + 3 * n} for n in range(times) for one in lines]


def renamed(lines: list[Row], **names: str) -> list[Row]:
    return [{names.get(name, name): cell for name, cell in one.items()} for one in lines]


def noisy(seed: int, system: str) -> Row:
    """Return seconds that differ between seeds."""
    return {"seconds": round(10 + (system == "b") + np.random.default_rng(seed).random(), 4)}


MEANS: list[Row] = [
    {"system": name, "seed": seed, "score": score + 0.1 * seed}
    for name, score in (("a", 1.3), ("b", 1.7))
    for seed in range(3)
]
REFUSED: dict[str, tuple[list[Row], dict[str, Any], str]] = {
    "per cent and shares, by row": (
        [one | {"score": one["score"] * (100 if one["system"] == "a" else 1)} for one in rows()],
        {},
        "'a' scores 40 and 'b' 0.95, as per cent and shares",
    ),
    "per cent and shares, by mean": (
        [{"system": "a", "score": 66.5, "rows": 50}, {"system": "b", "score": 0.8, "rows": 50}],
        {},
        "--range LOW,HIGH",
    ),
    "-1 for a missing score": (
        first(rows(), score=-1),
        {},
        "the score -1 is far from all others, .* leave such rows",
    ),
    "999 for a missing score": (
        first(real(1), score=999),
        {},
        "the score 999 is far from all others",
    ),
    "Dataset": (
        renamed(rows(dataset="x"), dataset="Dataset"),
        {},
        "the column 'Dataset' may be 'dataset'; rename it",
    ),
    "task": (
        rows(task="x") + [one | {"row": f"t{one['row']}", "task": "y"} for one in rows()],
        {},
        (
            "the column 'task' may be 'dataset'; rename it, or give --columns dataset=task, or "
            "take it out"
        ),
    ),
    "trial": (renamed(real(3), seed="trial"), {}, "the column 'trial' may be 'seed'"),
    "3 runs copied to 12": (
        copied(real(3), 4),
        {},
        "seeds 0 and 3 have the same scores and costs in all systems",
    ),
    "3 means copied to 12": (
        copied(MEANS, 4),
        {},
        "seeds 0 and 3 have the same scores and costs in all systems",
    ),
    "metrics of one system": (
        [{"row": at, "f1": 0.5, "em": at % 2} for at in range(9)],
        {},
        "no column 'system'",
    ),
    "names of others' columns": (
        renamed(rows(), system="model", row="question_id", score="correct"),
        {},
        (
            "the column 'model' may be 'system'; .*--columns "
            "system=model,score=correct,row=question_id"
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_t_be_meant_is_refused(name: str) -> None:
    """Each would give a page with verdicts on something else than the systems."""
    lines, options, said = REFUSED[name]
    with pytest.raises(UserError, match=said) as raised:
        assemble([of_frame(pd.DataFrame(lines))], **options)
    assert "\n" not in str(raised.value)


TAKEN: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "-1 declared as a score": (first(rows(), score=-1), {"bounds": (-1.0, 1.0)}),
    "scores of a judge": ([one | {"score": 10 * one["score"]} for one in rows()], {}),
    "a system without a right answer": (rows({"a": 0.0, "b": 0.9}), {}),
    "few rows that repeat by chance": (
        right_and_wrong({"a": 0.95, "b": 0.99}, 6, seeds=range(4)),
        {},
    ),
    "runs without any noise": ([one | {"seed": seed} for seed in range(4) for one in rows()], {}),
    "two seeds of equal times": (real(3, lambda *_: {"seconds": 10}), {}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_may_be_meant_is_taken(name: str) -> None:
    """The checks refuse no table that can be right."""
    lines, options = TAKEN[name]
    (found,) = assemble([of_frame(pd.DataFrame(lines))], **options)
    assert set(found.systems) == {"a", "b"}


@pytest.mark.parametrize(
    ("value", "exact"), [(12, False), (0.25, False), (1200, False), (4_718_592, True)]
)
def test_rounded_times_that_agree_in_three_runs_are_no_counts(value: float, exact: bool) -> None:
    """Whole seconds hide noise of half a second; a number of so many digits that is the same
    three times has none.
    """
    costs = {"a": value, "b": value * 2}
    (scores,) = assemble(
        [of_frame(pd.DataFrame(real(3, lambda _, system: {"cost": costs[system]})))]
    )
    found = judge(scores)
    assert bool(found.costs) is not exact
    if not exact:
        (pair,) = found.costs["cost cost"]
        assert 0 < pair.p < 0.05


@pytest.mark.parametrize(
    ("costs", "exact"),
    [
        ((12_000, 12_001), False),
        ((12_000, 12_002), True),
        ((12_000, 12_500, 12_501), False),
        ((1234.56, 1234.57), False),
        ((1234.56, 1234.58), True),
        ((1.2345678, 1.2345679), True),
    ],
)
def test_counts_a_unit_apart_may_be_one_cost_rounded_to_both(
    costs: tuple[float, ...], exact: bool
) -> None:
    """A unit of the last digit is tested as any cost is, two units are real; of more decimals
    nothing was rounded.
    """
    lines = [
        {"system": f"s{place}", "seed": seed, "score": 0.1 * (seed + place), "cost": cost}
        for place, cost in enumerate(costs)
        for seed in range(3)
    ]
    (scores,) = assemble([of_frame(pd.DataFrame(lines))])
    (cost,) = scores.costs
    assert is_exact(cost, scores.costs[cost]) is exact


def test_rounding_hardly_ever_makes_a_count_differ() -> None:
    """Of 2,000 pages with one true cost 3 % differ in all of three seeds, and next to none is
    taken for real.
    """
    random = np.random.default_rng(0)
    pages = [cases.counted_page(0.2, random, halfway=True) for _ in range(2000)]
    differing, taken = np.mean(pages, axis=0)
    assert 0.02 < differing < 0.045
    assert taken < 0.001


@pytest.mark.parametrize("spread", [True, False])
def test_costs_of_a_seed_on_several_hosts_rank_nothing(spread: bool) -> None:
    """A seed's runs must share a host, else a host's speed is taken for a system's; seeds may be
    on different ones.
    """

    def cost(seed: int, system: str) -> Row:
        return noisy(seed, system) | {
            "host": f"node{seed + (system == 'b' and spread and seed == 1)}"
        }

    (scores,) = assemble([of_frame(pd.DataFrame(real(3, cost)))])
    found = judge(scores)
    assert bool(found.costs) is not spread
    assert found.unranked == ({"cost seconds": "seeds were spread over hosts"} if spread else {})
    assert "host" not in " ".join(scores.remarks)


def test_a_direction_that_the_input_states_isn_t_reversed(tmp_path: Path) -> None:
    """A file of PEFT's says that higher is better, and a score of ours too; one that says lower
    takes the option.
    """
    metamath = Path(__file__).parents[1] / "files" / "peft_result.json"
    data = json.loads(metamath.read_text())
    for name in "ab":
        data["run_info"]["experiment_name"] = name
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    words = ("compare", tmp_path, "--out", tmp_path / "page", "--lower")
    said = "says that a higher test accuracy is better; leave --lower out"
    assert said in called(*words, status=2).output
    called(*words, "--metric", "train loss")


# Tables of other shapes


@pytest.mark.parametrize("shape", ["columns", "semicolons", "tabs", "wide", "wide with columns"])
def test_tables_of_others_are_read_as_ours(shape: str, tmp_path: Path) -> None:
    """Other names of columns by --columns, other separators and a column per system by
    themselves, give our page.
    """
    lines, options = rows(), list[str]()
    made, separator = lines, {"semicolons": ";", "tabs": "\t"}.get(shape, ",")
    if shape == "columns":
        made = renamed(lines, system="model", row="question_id", score="correct")
        options = ["--columns", "system=model,row=question_id,score=correct"]
    elif shape.startswith("wide"):
        wide = (
            pd.DataFrame(lines).pivot(index="row", columns="system", values="score").reset_index()
        )
        made = [dict(one) | {"question": "why"} for one in wide.to_dict("records")]
        if shape == "wide with columns":
            made, options = renamed(made, row="id"), ["--columns", "row=id"]
    table = write_csv(tmp_path / "t.csv", made)
    table.write_text(table.read_text().replace(",", separator))
    called("compare", table, "--out", tmp_path, *options)
    answer = json.loads((tmp_path / "report.json").read_text())
    ours = judge(*assemble([of_frame(pd.DataFrame(lines))]))
    assert answer["pairs"]["score"][0]["p"] == pytest.approx(ours.score[0].p, rel=1e-9)
    assert {method["name"] for method in answer["methods"]} == {"a", "b"}


def test_a_frame_with_a_column_per_system_may_lack_cells() -> None:
    """As `pivot` gives one, with rows as its index: an empty cell is a row that the system lacks.

    Two levels of columns, as `pivot` gives them of systems and seeds, are refused.
    """
    wide = pd.DataFrame(rows()).pivot(index="row", columns="system", values="score").astype(float)
    assert hpml_bench.compare(wide)["rows"].tolist() == [40]
    wide.iloc[3, 1] = np.nan
    with pytest.raises(UserError, match="'b' has 39 of 40 rows"):
        hpml_bench.compare(wide)
    assert hpml_bench.compare(wide, shared=True)["rows"].tolist() == [39]
    with pytest.raises(UserError, match="there is no column 'system'; it has row, a, b, label"):
        hpml_bench.compare(wide.assign(label=1))
    wide = (
        pd.DataFrame(rows())
        .assign(seed=1)
        .pivot(index="row", columns=["system", "seed"], values="score")
    )
    with pytest.raises(
        UserError, match=r"^frame: the column '\('row', ''\)' may be 'row'; rename it"
    ):
        hpml_bench.compare(wide)
