"""Behaviour: the input chooses the test, the page says what its verdicts hold for, and Python
gives the same.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hpml_bench
from helpers.commands import called
from helpers.made_tables import Row, right_and_wrong, write_csv
from hpml_bench import statistics
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import InputScores
from hpml_bench.comparison.page import page_of, write
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.scores import FailedRun
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.summary import PageSummary
from hpml_bench.judge.verdicts import Verdicts, judge
from hpml_bench.page.answer import words
from hpml_bench.page.answer.facts import facts
from hpml_bench.page.render import Page, all_tables
from hpml_bench.system.errors import UserError

SYSTEMS = {"alpha": 0.5, "beta": 0.51, "gamma": 0.8}


def compared(
    lines: list[Row] | pd.DataFrame, margin: float | None = None, **options: Any
) -> Verdicts:
    (found,) = assemble([of_frame(pd.DataFrame(lines))], **options)
    return judge(found, margin)


def answer(lines: list[Row], margin: float | None = None, **options: Any) -> PageSummary:
    return summarize(compared(lines, margin, **options))


def means(rows: int | None = 1000, **scores: float) -> list[Row]:
    """Return lines of systems of which only the mean is known."""
    more = {} if rows is None else {"rows": rows}
    return [{"system": name, "score": score} | more for name, score in scores.items()]


# What is tested


REAL = [line | {"score": 0.3 + line["score"] / 3} for line in right_and_wrong(SYSTEMS)]
CHOSEN: dict[str, tuple[list[Row], dict[str, Any], str, str]] = {
    "one run each": (right_and_wrong(SYSTEMS), {}, "row", "other rows, these trained systems"),
    "two seeds": (
        right_and_wrong(SYSTEMS, seeds=(0, 1)),
        {},
        "row",
        "other rows, these trained systems",
    ),
    "seeds that aren't shared": (
        [
            line | {"seed": f"{line['system']}{line['seed']}"}
            for line in right_and_wrong(SYSTEMS, seeds=(0, 1, 2))
        ],
        {},
        "row",
        "other rows, these trained systems",
    ),
    "three shared seeds": (
        right_and_wrong(SYSTEMS, seeds=(0, 1, 2)),
        {},
        "seed",
        "other seeds and other rows",
    ),
    "a range as seen": (REAL, {}, "row", "other rows of this range, these trained systems"),
    "a declared range": (REAL, {"bounds": (0.0, 1.0)}, "row", "other rows, these trained systems"),
    "means": (
        means(alpha=0.5, beta=0.52, gamma=0.9),
        {"bounds": (0.0, 1.0), "independent": True},
        "row",
        "other rows, these trained systems, if their errors are independent",
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_input_chooses_what_verdicts_hold_for(name: str) -> None:
    """Rows, or seeds and rows where all share three seeds; the last system differs from both
    others, which don't.
    """
    lines, options, over, judged = CHOSEN[name]
    found = answer(lines, **options)
    assert (found.over, found.judged) == (over, judged)
    assert (
        found.pair("score", "alpha", "gamma").verdict
        == found.pair("score", "beta", "gamma").verdict
        == "different"
    )
    assert found.pair("score", "alpha", "beta").verdict == "undecided"


@pytest.mark.parametrize(("ends", "seeds", "parts"), [
    ((0, 100), 1, 1), ((-1, 1), 1, 1), ((0, 1), 2, 1), ((0, 1), 3, 1), ((0, 1), 1, 3),
], ids=["0 and 100", "-1 and 1", "two seeds", "three seeds", "groups"])  # fmt: skip
def test_two_values_are_right_and_wrong_however_coded(
    ends: tuple[int, int], seeds: int, parts: int
) -> None:
    """McNemar's exact p too for other ends, for runs that repeat each other, and for groups
    whose rows agree.
    """
    right = {"a": [1] * 5 + [1, 0] * 8, "b": [0] * 5 + [1, 0] * 8}
    lines: list[Row] = [
        {"system": name, "row": f"{at}-{part}", "score": ends[one], "seed": seed, "group": at}
        for name, of in right.items()
        for at, one in enumerate(of)
        for part in range(parts)
        for seed in range(seeds)
    ]
    (pair,) = answer(lines, bounds=ends).pairs["score"]
    assert pair.p == pytest.approx(stats.binomtest(5, 5).pvalue)
    most = 100 if ends == (0, 1) else ends[1] - ends[0]  # per cent
    assert -most <= pair.ci_low <= 0 < pair.ci_high <= most


def test_groups_are_what_another_sample_replaces() -> None:
    """Rows of a group that repeat each other count once: the p of 40 groups, whatever number of
    rows they have.
    """
    once = right_and_wrong({"a": 0.5, "b": 0.7}, 40)
    copies = [
        line | {"row": f"{line['row']}-{n}", "group": line["row"]}
        for line in once
        for n in range(5)
    ]
    alone, grouped, taken_apart = (
        compared(lines).score[0].p
        for lines in (
            once,
            copies,
            [{k: v for k, v in line.items() if k != "group"} for line in copies],
        )
    )
    assert taken_apart < alone / 10 < grouped
    found = answer(copies)
    assert found.rows_text == "200 rows in 40 groups"
    assert found.pairs["score"][0].shared == 200


@pytest.mark.parametrize(
    ("lines", "options", "why"),
    [
        (means(a=0.5, b=0.9), {}, "the score's range isn't known"),
        (means(None, a=0.5, b=0.9), {"bounds": (0.0, 1.0)}, "the number of rows isn't known"),
        (
            means(a=0.5, b=0.9),
            {"bounds": (0.0, 1.0)},
            "may err together or apart: give rows, or --independent",
        ),
        (
            means(2, a=0.5, b=0.9),
            {"bounds": (0.0, 1.0)},
            "rows under 3 show nothing of others: there are 2",
        ),
        (right_and_wrong(SYSTEMS, 2), {}, "rows under 3 show nothing of others: there are 2"),
    ],
)
def test_what_can_t_be_tested_says_why(lines: list[Row], options: dict[str, Any], why: str) -> None:
    """Nothing is guessed: no verdict, and what would make one possible."""
    found = answer(lines, **options)
    assert {pair.verdict for pair in found.pairs["score"]} == {"untested"}
    assert why in (found.untested or "")
    assert why in words.headline(found)
    assert {method.rank_range for method in found.methods} == {None}


def test_seeds_without_rows_are_tested_over_seeds() -> None:
    """Three means each: the paired t test over seeds, as scipy has it."""
    random = np.random.default_rng(0)
    lines = [
        {"system": name, "seed": seed, "score": of + 0.01 * random.standard_normal()}
        for name, of in {"a": 0.5, "b": 0.9}.items()
        for seed in range(4)
    ]
    found = compared(lines)
    frame = pd.DataFrame(lines).pivot_table(index="seed", columns="system", values="score")
    assert found.scope == "seeds"
    assert words.setup_line(summarize(found))[0] == "number of rows not known"
    assert found.score[0].p == pytest.approx(stats.ttest_rel(frame["a"], frame["b"]).pvalue)


def test_lower_scores_can_be_better() -> None:
    """--lower turns who is better, nothing else."""
    tops = [set(answer(right_and_wrong(SYSTEMS), lower=lower).top) for lower in (True, False)]
    assert tops == [{"alpha", "beta"}, {"gamma"}]


def test_few_large_groups_have_few_degrees_of_freedom() -> None:
    """Student's t by scipy, of a mean whose weights are the groups' sizes: with as many as the
    largest ones decide.
    """
    sizes = np.array([20] * 30 + [1] * 100)
    groups = np.repeat(np.arange(130), sizes)
    scores = (np.random.default_rng(1).random((2, 130)) < [[0.75], [0.4]]).astype(float)[:, groups]
    lines = [
        {"system": name, "row": at, "group": int(groups[at]), "score": float(score)}
        for name, of in zip("ab", scores, strict=True)
        for at, score in enumerate(of)
    ]
    (pair,) = compared(lines, bounds=(0.0, 1.0)).score
    weights, means = sizes / sizes.sum(), (scores[0] - scores[1])[np.cumsum(sizes) - 1]
    many = (weights**2).sum() ** 2 / (weights**4).sum()
    error = math.sqrt((weights**2 * (means - weights @ means) ** 2).sum() * many / (many - 1))
    assert pair.p == pytest.approx(2 * stats.t.sf(abs(weights @ means) / error, many - 1))
    assert pair.p > 1.5 * 2 * stats.t.sf(abs(weights @ means) / error, 129)


# Costs


def test_costs_are_ranked_over_three_shared_seeds_alone() -> None:
    """With seeds costs are in the family of the page; with one run each they are shown."""
    costs = {"alpha": 1.0, "beta": 1.1, "gamma": 3.0}
    found = answer(
        [line | {"GPU hours": costs[line["system"]]} for line in right_and_wrong(SYSTEMS)]
    )
    assert [(axis.title, axis.tested, axis.key) for axis in found.axes] == [
        ("GPU hours", None, "cost-gpu-hours")
    ]
    assert found.best("cost-gpu-hours") == ()
    assert (
        facts(found)[2].text
        == "Costs are shown, not ranked: ranks take three seeds that all systems share."
    )
    ranked = _costly(
        lambda name, seed: costs[name] * math.exp(0.01 * math.sin(7 * seed + ord(name[0])))
    ).answer
    assert ranked.tested == 6
    assert ranked.winner("cost-dollars") == "alpha"


def _costly(dollars: Callable[[str, int], float | None], **more: float) -> Page:
    """Return the page of systems with five shared seeds and a cost of each run, and costs with
    noise beside it.
    """
    random = np.random.default_rng(1)
    noise = {(name, seed): 1 + 0.01 * random.random() for name in SYSTEMS for seed in range(5)}
    lines = [
        line
        | {"dollars": dollars(line["system"], line["seed"])}
        | {name: value * noise[line["system"], line["seed"]] for name, value in more.items()}
        for line in right_and_wrong(SYSTEMS, 50, seeds=range(5))
    ]
    return page_of(compared(lines))


def test_where_runs_are_lacking_all_means_are_over_the_shared_ones() -> None:
    """The table of costs has the first screen's; no interval of few rows' differences is beyond
    the score's range.
    """
    fewer = [
        line
        for line in right_and_wrong(SYSTEMS, 4, seeds=range(6))
        if line["system"] != "beta" or line["seed"] < 3
    ]
    lines = [
        line | {"dollars": 1.0 + line["seed"], "score": 0.1 + 0.8 * line["score"]} for line in fewer
    ]
    page = page_of(compared(lines, bounds=(0.0, 1.0)))
    (costs,) = (of for of in all_tables(page) if of.name == "costs")
    of_screen = {m.name: m.values["cost_1"].mean for m in page.answer.methods}
    assert {row[0]: row[1] for row in costs.values or ()} == pytest.approx(of_screen)
    ends = [
        abs(end or 0.0)
        for pair in page.answer.pairs["score"]
        for end in (pair.decided_low, pair.decided_high)
    ]
    assert max(ends) == 100.0


UNRANKED: dict[str, Callable[[str, int], float | None]] = {
    "ranks compare factors, and dollars is 0 in some runs": lambda name, seed: (
        seed * (name != "alpha") + seed / 8
    ),
    "under two systems have dollars": lambda name, seed: None if name != "alpha" else seed + 1,
    "ranks take three seeds that all systems share": lambda name, seed: (
        None if name != "alpha" and seed > 1 else seed + 1
    ),
}


@pytest.mark.parametrize("why", UNRANKED)
def test_a_cost_that_isn_t_ranked_has_its_own_reason(why: str) -> None:
    """Of systems with five shared seeds none is said to lack them; beside a cost that ranks, the
    note says it alone.
    """
    alone, beside = _costly(UNRANKED[why]), _costly(UNRANKED[why], hours=2.0)
    assert (
        next(f.text for f in facts(alone.answer) if f.label == "Cheaper")
        == f"Costs are shown, not ranked: {why}."
    )
    assert beside.answer.unranked is None
    for page in (alone, beside):
        notes = next(table.notes for table in all_tables(page) if table.name == "costs")
        assert f"dollars isn't ranked: {why}." in notes


def test_a_cost_that_one_system_lacks_ranks_the_others() -> None:
    """The pairs that have it in three shared seeds are tested, and the winner is the best of
    those.
    """
    answer = _costly(
        lambda name, seed: None if name == "alpha" else {"beta": 1, "gamma": 9}[name] + seed / 8
    ).answer
    (axis,) = answer.axes
    assert [(pair.a, pair.b) for pair in answer.pairs[axis.tested or ""]] == [("beta", "gamma")]
    assert answer.winner(axis.key) == "beta"


def test_a_count_without_noise_takes_no_share_of_the_error() -> None:
    """A column that is equal in all runs of each system is exact: it joins no family, and any
    difference is real.
    """
    rows = right_and_wrong(SYSTEMS, 100, seeds=(0, 1, 2))
    alone, beside = (
        answer(rows),
        answer([one | {"parameters": len(str(one["system"])) * 1_000_001} for one in rows]),
    )
    assert [pair.p_adjusted for pair in alone.pairs["score"]] == [
        pair.p_adjusted for pair in beside.pairs["score"]
    ]
    (axis,) = beside.axes
    assert axis.exact
    assert beside.relation(axis.key, "beta", "alpha") == "better"


@pytest.mark.parametrize("fraction", [0.0, 0.123456])
def test_two_equal_runs_make_no_count(fraction: float) -> None:
    """Two runs may agree by chance, in whole seconds above all: they rank nothing, as any cost
    of two seeds.
    """
    seconds = {"alpha": 10 + fraction, "beta": 11 + fraction, "gamma": 12 + fraction}
    rows = right_and_wrong(SYSTEMS, 100, seeds=(0, 1))
    found = answer([line | {"seconds": seconds[str(line["system"])]} for line in rows])
    (axis,) = found.axes
    assert not axis.exact
    assert found.best(axis.key) == ()


# The page


def test_the_page_of_one_run_each_speaks_of_no_training(tmp_path: Path) -> None:
    """Systems, rows and costs of the reader's own; no methods, seeds, training or fine-tuning."""
    lines = [
        line | {"dollars": {"alpha": 1, "beta": 2, "gamma": 9}[line["system"]]}
        for line in right_and_wrong(SYSTEMS)
    ]
    page = page_of(compared(lines, title="mine"))
    _, files, _ = write(
        assemble([of_frame(pd.DataFrame(lines))], title="mine"),
        tmp_path,
        ("html", "md", "csv", "tex"),
    )
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in files}
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    said = text.replace("these trained systems", "")
    said = said.replace("Three seeds of each system: verdicts for other seeds too", "")
    said = said.replace("ranks take three seeds that all systems share", "")
    assert re.findall(r"(?i)\b(?:methods?|seeds?|train\w*|fine-tun\w*|budget|rates?)\b", said) == []
    assert text.startswith("# mine: systems compared")
    assert (
        PageSummary.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8"))
        == page.answer
    )
    names = {table.name for table in all_tables(page)}
    assert {"answer", "places", "costs", "matrix_score", "pairs_score", "sources"} <= names


def test_failed_runs_are_on_the_page() -> None:
    """A run without a score is counted and named, also of a system that has no other."""
    made = of_frame(pd.DataFrame(right_and_wrong({"a": 0.5, "b": 0.9})))
    failed = (
        FailedRun("a", "3", "oom_cuda", "runs/a-3.json"),
        FailedRun("c", "", "cancelled", "runs/c.json"),
    )
    (found,) = assemble([InputScores(made.lines, made.score, failed=failed)])
    page = page_of(judge(found))
    assert words.banner(page.answer) == "2 of 4 runs failed (out of GPU memory, cancelled)."
    assert page.answer.untried == ("c",)
    assert page.problems == 2
    table = next(table for table in all_tables(page) if table.name == "failed")
    assert [row[0] for row in table.rows] == ["a", "c"]


HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m`{{7*7}}`|x"


def test_hostile_names_are_shown_and_obeyed_by_nothing(tmp_path: Path) -> None:
    """HTML, escapes and templates in names of systems, costs, data sets and metrics."""
    lines = [
        {
            "system": f"{HOSTILE}{line['system']}",
            "row": HOSTILE + line["row"],
            HOSTILE: line["score"],
            f"c{HOSTILE}": ord(line["system"]),
            "dataset": f"../../{HOSTILE}",
        }
        for line in right_and_wrong({"a": 0.5, "b": 0.9})
    ]
    write(
        assemble([of_frame(pd.DataFrame(lines), HOSTILE)]), tmp_path, ("html", "md", "csv", "tex")
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "{{7*7}}" in html
    written = {"report.html", "report.md", "report.json", "looks.json", "figures", "tables"}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_several_data_sets_get_a_page_each_and_one_over_them(tmp_path: Path) -> None:
    """Mean ranks over the data sets, as over suites; folders have names that are safe."""
    lines = [
        line | {"dataset": f"set/{at}"}
        for at in range(9)
        for line in right_and_wrong(SYSTEMS | ({"delta": 0.5, "zeta": 0.5} if at else {}), seed=at)
    ]
    (page,), _, apart = write(assemble([of_frame(pd.DataFrame(lines))]), tmp_path)
    assert apart == ("Not ranked over the data sets, since set/0 has no score of it: delta, zeta.",)
    assert page.answer.over == "data set"
    assert page.answer.relation("score", "gamma", "alpha") == "better"
    assert words.setup_line(page.answer)[0].startswith("9 data sets: set/0, ")
    assert {path.parent.name for path in tmp_path.glob("*/report.html")} == {
        f"set-{at}" for at in range(9)
    }
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (
        re.findall(
            r"(?i)\b(?:methods?|suites?|train\w*)\b", text.replace("these trained systems", "")
        )
        == []
    )


def test_folders_of_data_sets_are_their_own(tmp_path: Path) -> None:
    """None is a file or folder of the page over them, and none is another's where case is
    ignored: they are counted.
    """
    names = ("figures", "Tables", "report.html", "squad", "SQuAD", "squad-2", "s/quad", "s quad")
    lines = [
        line for name in names for line in right_and_wrong({"a": 0.5, "b": 0.6}, 5, dataset=name)
    ]
    (page,), *_ = write(assemble([of_frame(pd.DataFrame(lines))]), tmp_path, ("html", "csv"))
    folders = {path.parent.name for path in tmp_path.glob("*/report.html")}
    assert folders == {
        "figures-2",
        "Tables-2",
        "report.html-2",
        "squad",
        "SQuAD-2",
        "squad-2-2",
        "s-quad",
        "s-quad-2",
    }
    linked = [row[-1] for table in all_tables(page) if table.name == "suites" for row in table.rows]
    assert {str(link).partition("/")[0] for link in linked} == folders


def test_the_command_takes_data_sets_of_different_scores(tmp_path: Path) -> None:
    """Each is compared by its own score, without --metric; the page over them ranks within each."""
    reference = Path(__file__).parents[2] / "reports/reference"
    called("compare", reference / "quickstart", reference / "regression", "--out", tmp_path)
    answers = [
        PageSummary.model_validate_json(path.read_bytes())
        for path in tmp_path.glob("*/report.json")
    ]
    assert {(one.suite, one.score.title) for one in answers} == {
        ("quickstart", "accuracy"),
        ("regression", "RMSE"),
    }
    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*/report.md"))
    assert all(re.search(rf"{one} \(\d+ files\)", text) for one in ("quickstart", "regression"))
    over = PageSummary.model_validate_json((tmp_path / "report.json").read_bytes())
    assert over.over == "data set"
    assert {method.name for method in over.methods} == set.intersection(
        *(set(one.by_name) for one in answers)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "doc"), "choose from html, md, csv, tex"),
        (("--range", "0"), "give the least and the largest score"),
        (("--margin", "nan"), "give a difference above 0"),
        (
            ("--margin", "1"),
            "the margin 1 is no less than the range of score, 0 to 1; give a smaller difference",
        ),
        (("--margin", "5", "--range", "0,1"), "the margin 5 is no less than the range of score"),
        (("--metric", "f1"), "there is no column 'f1'"),
        (("--columns", "system=who"), "there is no column 'who'; it has system, row, score"),
        (
            ("--columns", "name=system"),
            "give OURS=THEIRS, with commas between; OURS is one of system, row, score, seed",
        ),
        (("--columns", "system"), "give OURS=THEIRS"),
    ],
)
def test_options_that_can_t_be_met_are_user_errors(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Status 2, one sentence, nothing written."""
    path = write_csv(tmp_path / "scores.csv", right_and_wrong(SYSTEMS, 10))
    output = called("compare", path, "--out", tmp_path / "out", *options, status=2).output
    assert said in " ".join(output.split())
    assert not (tmp_path / "out").exists()


# Looks


NEAR = {"a": 0.5, "b": 0.52}


def look(lines: list[Row], folder: Path, *options: str) -> dict[str, Any]:
    """Return what report.json has after the command compared some lines."""
    table = write_csv(folder / "scores.csv", lines)
    out = folder / "page"
    result = called("compare", table, "--out", out, *options)
    answer: dict[str, Any] = json.loads((out / "report.json").read_text())
    page = (out / "report.md").read_text()
    said = (
        f"look {answer['look']}, which has {100 * statistics.spent_at(answer['look']):.2g} % of "
        f"the 5 %"
    )
    assert {said in result.output, said in page} == {answer["look"] > 1}
    return answer


def test_more_rows_of_the_same_systems_are_the_next_look(tmp_path: Path) -> None:
    """The same lines in another order are the same look, other systems a first one, and `--look`
    says it is another.
    """
    fewer, more = (right_and_wrong(NEAR, rows) for rows in (100, 200))
    first = look(fewer, tmp_path)
    assert [first["look"], look(more, tmp_path)["look"], look(more[::-1], tmp_path)["look"]] == [
        1,
        2,
        2,
    ]
    assert look(fewer, tmp_path)["look"] == 1
    assert look(right_and_wrong({"c": 0.5, "d": 0.6}), tmp_path)["look"] == 1
    added = right_and_wrong(NEAR | {"c": 0.7}, 300)  # a and b once more
    assert [look(added, tmp_path, "--look", "7")["look"], look(added, tmp_path)["look"]] == [7, 7]
    later = look(right_and_wrong(NEAR, 250), tmp_path)
    (pair,) = later["pairs"]["score"]
    assert later["look"] == 8
    assert pair["ph"] == pytest.approx(min(1.0, pair["p"] / statistics.spent_at(8)))


def test_a_data_set_has_looks_of_its_own(tmp_path: Path) -> None:
    """Two data sets in one folder don't count as looks at each other; Python is given the number of
    the look.

    A single pair has the whole 3.3 % of its first look, with a margin too.
    """
    sets = right_and_wrong(NEAR, 60, dataset="x") + right_and_wrong(NEAR, 60, seed=2, dataset="y")
    for rows, expected in ((60, 1), (61, 2)):
        lines = sets + [
            {"system": s, "row": "new", "score": 1, "dataset": "y"} for s in NEAR if rows > 60
        ]
        write(assemble([of_frame(pd.DataFrame(lines))]), tmp_path)
        found = [json.loads((tmp_path / name / "report.json").read_text())["look"] for name in "xy"]
        assert found == [1, expected]
    frame = pd.DataFrame(right_and_wrong(NEAR))
    first, second = (hpml_bench.compare(frame, look=look) for look in (1, 2))
    assert second["p_adjusted"][0] == pytest.approx(min(1, first["p"][0] / statistics.spent_at(2)))
    assert first["p_adjusted"][0] == pytest.approx(first["p"][0] / statistics.spent_at(1))
    assert hpml_bench.compare(frame, margin=0.01)["p_adjusted"][0] == pytest.approx(
        first["p"][0] / statistics.spent_at(1)
    )


def seen(
    folder: Path, name: str, lines: list[Row], *options: str
) -> tuple[int, str, dict[str, Any]]:
    """Return the look, the output and report.json of the command on a file in a working
    directory of its own.
    """
    write_csv(folder / f"{name}.csv", lines)
    output = " ".join(called("compare", f"{name}.csv", *options).output.split())
    out = (
        Path(options[options.index("--out") + 1])
        if "--out" in options
        else Path("reports/compare", name)
    )
    answer: dict[str, Any] = json.loads((folder / out / "report.json").read_text())
    return answer["look"], output, answer


def renamed(lines: list[Row], row: Callable[[int], object]) -> list[Row]:
    """Return lines whose rows have other ids, by their number."""
    return [line | {"row": row(int(line["row"][1:]))} for line in lines]


def test_files_without_a_common_row_are_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a first look and a page, named by its file; a page of other data in --out is not
    replaced.

    More rows, fewer and doubled ones are the same data under any name of the file.
    """
    monkeypatch.chdir(tmp_path)
    lines = right_and_wrong(NEAR, 100)
    other = renamed(right_and_wrong(NEAR, 100, seed=1), "other {}".format)
    assert seen(tmp_path, "a", lines)[0] == 1
    look, output, _ = seen(tmp_path, "b", other)
    assert (look, "reports/compare/b/report.html" in output) == (1, True)
    assert Path("reports/compare/a/report.html").exists()
    doubled = lines + renamed(lines, "again {}".format)
    sets = {
        "more": right_and_wrong(NEAR, 2000),
        "fewer": lines[:30] + lines[100:130],
        "doubled": doubled,
    }
    assert [seen(tmp_path, name, of)[0] for name, of in sets.items()] == [2, 3, 4]
    seen(tmp_path, "a", lines, "--out", "page")
    before = Path("page/report.html").read_bytes()
    refused = " ".join(called("compare", "b.csv", "--out", "page", status=2).output.split())
    assert (
        "page has a page of other data, a, which this one would replace; give another --out"
        in refused
    )
    assert Path("page/report.html").read_bytes() == before
    assert seen(tmp_path, "more", sets["more"], "--out", "page")[0] == 2


def test_places_of_rows_are_ids_of_their_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 0, 1, 2, ... of another file are other rows, unless its first rows have the same scores.

    Then some were appended. A file of the same name has the same data, whatever its scores.
    """
    monkeypatch.chdir(tmp_path)
    lines, more = (renamed(right_and_wrong(NEAR, rows), int) for rows in (100, 120))
    appended = lines + [line for line in more if line["row"] >= 100]
    other = renamed(right_and_wrong(NEAR, 100, seed=1), int)
    assert seen(tmp_path, "a", lines)[0] == 1
    assert seen(tmp_path, "b", other)[0] == 1
    assert seen(tmp_path, "a-with-more", appended)[0] == 2
    third = renamed(right_and_wrong(NEAR, 100, seed=2), int)
    assert seen(tmp_path, "a", third)[0] == 3


def test_what_is_declared_after_a_look_is_marked_and_a_further_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same scores under another declaration: terminal, HTML and Markdown name what was first
    and what is now.
    """
    monkeypatch.chdir(tmp_path)
    lines = [line | {"score": 0.5 + 0.01 * line["score"]} for line in right_and_wrong(NEAR, 100)]
    look, output, answer = seen(
        tmp_path, "a", lines, "--largest-difference", "0.5", "--margin", "0.1"
    )
    assert (look, "changed" in answer) == (1, False)
    changes = {
        ("--largest-difference", "0.2", "--margin", "0.1"): (
            "declared a largest difference of 0.5, this page a largest difference of 0.2"
        ),
        ("--largest-difference", "0.5", "--margin", "0.1", "--range", "0,1"): (
            "declared no range, this page a range of 0 to 1"
        ),
        (): (
            "declared a largest difference of 0.5 and a margin of 0.1, this page no largest "
            "difference and no margin"
        ),
    }
    for number, (options, said) in enumerate(changes.items(), 2):
        for _ in range(2):  # once more is the same look
            look, output, answer = seen(tmp_path, "a", lines, *options)
            assert look == number
            assert f"The first look at these data {said}: a claim that rests on" in output
            assert said in answer["changed"]
            for page in ("report.html", "report.md"):
                assert said in " ".join(
                    Path("reports/compare/a", page).read_text(encoding="utf-8").split()
                )
    look, output, answer = seen(
        tmp_path, "a", lines, "--largest-difference", "0.5", "--margin", "0.1"
    )
    assert (look, "changed" in answer, "The first look" in output) == (1, False, False)


def test_declared_looks_have_equal_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--looks 3` at the first look counts at the later ones, which are named by it, and another
    number doesn't.
    """
    monkeypatch.chdir(tmp_path)
    for number, rows in enumerate((100, 200, 300, 400), 1):
        options = ("--looks", "3") if number == 1 else ("--looks", "5") if number == 2 else ()
        look, output, answer = seen(tmp_path, "a", right_and_wrong(NEAR, rows), *options)
        spent = statistics.spent_at(number, 3)
        named = f"look {number} of 3 declared" if number < 4 else "look 4, after the 3 declared"
        assert (look, answer["declared_looks"]) == (number, 3)
        assert f"{named}, which has {100 * spent:.2g} % of the 5 %" in output
        assert f"{named} at these results" in Path("reports/compare/a/report.md").read_text(
            encoding="utf-8"
        )
        assert ("declared 3 looks, this page 5: the first number counts" in output) == (number == 2)
        (pair,) = answer["pairs"]["score"]
        assert pair["ph"] == pytest.approx(min(1.0, pair["p"] / spent))
    sets = [
        line | {"dataset": f"set {at}"}
        for at in range(9)
        for line in right_and_wrong(NEAR, 100, seed=at)
    ]
    _, output, over = seen(tmp_path, "sets", sets, "--looks", "3")
    assert over["over"] == "data set"
    page = " ".join(Path("reports/compare/sets/report.md").read_text(encoding="utf-8").split())
    share = f"{95 / 3:.2g} % of the 5 %"
    assert f"This is look 1, of 3 declared, at results in this folder: it has {share}" in page
    frame = pd.DataFrame(right_and_wrong(NEAR))
    alone, of_four = hpml_bench.compare(frame), hpml_bench.compare(frame, look=2, looks=4)
    ratio = statistics.spent_at(1) / statistics.spent_at(2, 4)
    assert of_four["p_adjusted"][0] == pytest.approx(min(1.0, alone["p_adjusted"][0] * ratio))
    with pytest.raises(UserError, match="looks is 0; give a whole number from 1"):
        hpml_bench.compare(frame, looks=0)


def test_looks_of_a_suite_are_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--looks` beside the runs of one suite is refused; another margin than the suite's is
    marked.
    """
    reference = Path(__file__).parents[2] / "reports/reference/quickstart"
    monkeypatch.chdir(tmp_path)
    for margin in ("0.01", "0.05"):
        text = " ".join(called("compare", reference, "--margin", margin).output.split())
        said = (
            "The first look at these data declared a margin of 0.01, this page a margin of 0.05: "
            "a claim"
        )
        assert (said in text) == (margin == "0.05")
    output = called(
        "compare", reference, "--out", tmp_path / "page", "--looks", "2", status=2
    ).output
    assert "leave --looks out" in " ".join(output.split())
    assert not (tmp_path / "page").exists()


# The largest difference of a row


def bounded(
    rows: int, gap: float = 0.02, sd: float = 0.05, groups: int | None = None
) -> pd.DataFrame:
    """Return two systems whose rows differ by about `gap`, by 0.15 at most."""
    random = np.random.default_rng(1)
    base = 0.3 + 0.4 * random.random(rows)
    other = base + np.clip(gap + sd * random.standard_normal(rows), -0.15, 0.15)
    frame = pd.concat(
        pd.DataFrame({"system": name, "row": range(rows), "score": of})
        for name, of in (("a", base), ("b", other))
    )
    return frame if groups is None else frame.assign(group=np.minimum(frame["row"], groups - 1))


def test_the_declared_difference_decides_what_the_range_leaves_open(tmp_path: Path) -> None:
    """Eighty rows: undecided by the range, a verdict by the declared difference, of command and
    Python; above 0 alone.

    The page says who declared it.
    """
    wide, narrow = (
        compared(bounded(80), bounds=(0.0, 1.0), largest=largest) for largest in (None, 0.2)
    )
    assert wide.score[0].verdict == "undecided"
    assert (
        page_of(narrow).facts["Largest difference of a row"] == "20 points, by --largest-difference"
    )
    assert "Largest difference of a row" not in page_of(wide).facts
    path = write_csv(tmp_path / "scores.csv", bounded(80).to_dict("records"))
    words = ("compare", path, "--range", "0,1", "--out", tmp_path / "out", "--largest-difference")
    called(*words, "0.2")
    assert (
        json.loads((tmp_path / "out" / "report.json").read_text())["pairs"]["score"][0]["v"]
        == "different"
    )
    assert (
        "--largest-difference 0: give a difference above 0" in called(*words, "0", status=2).output
    )
    found = hpml_bench.compare(bounded(80), bounds=(0, 1), largest_difference=0.2)
    assert found["verdict"].tolist() == ["different"]
    assert found["low"][0] < found["high"][0] < 0


def test_groups_weigh_it_as_they_weigh_the_range() -> None:
    """With a group of many rows both spans are multiplied by its weight; a mean's own interval
    keeps the range.
    """
    frame = bounded(60, groups=40)
    grouped, alone = (
        compared(frame, bounds=(0.0, 1.0), largest=largest) for largest in (0.2, None)
    )
    heaviest = 21 * 40 / 60
    assert grouped.scores.difference_span == pytest.approx(0.2 * heaviest)
    assert (
        grouped.scores.span
        == alone.scores.span
        == alone.scores.difference_span
        == pytest.approx(heaviest)
    )


@pytest.mark.parametrize(
    ("frame", "largest", "said"),
    [
        (bounded(80), 0.1, r"exceeded in scores: two systems differ by 0\.1[0-9]* in a row"),
        (bounded(80), 1.5, "above the score's range of 1"),
        (
            pd.DataFrame(right_and_wrong({"a": 0.5, "b": 0.6})),
            0.5,
            "rows of scores are right or wrong",
        ),
        (
            pd.DataFrame([{"system": s, "score": 0.5, "rows": 90} for s in "ab"]),
            0.5,
            "takes scores row by row",
        ),
    ],
)
def test_one_that_can_t_be_is_refused(frame: pd.DataFrame, largest: float, said: str) -> None:
    """A row that differs by more, above the range, right-and-wrong scores, no rows: one sentence
    each.
    """
    with pytest.raises(UserError, match=said):
        compared(frame, bounds=(0.0, 1.0), largest=largest)


# From Python


def test_a_shown_difference_is_never_shown_as_none() -> None:
    """AlignedScores have the decimals of the smallest difference that is shown, however large
    they are.
    """
    random = np.random.default_rng(0)
    score = 12345 + 0.05 * random.standard_normal(500)
    other = score + 0.02 + 0.02 * random.standard_normal(500)
    lines = [
        {"system": name, "row": at, "score": x}
        for name, of in (("a", score), ("b", other))
        for at, x in enumerate(of)
    ]
    found = answer(lines)
    assert found.pairs["score"][0].verdict == "different"
    assert re.fullmatch(
        r"b scores best: 12,345\.0\d\d score; a follows with 12,34\d\.\d\d\d\.",
        words.headline(found),
    )
    assert re.fullmatch(
        r"b − a: 0\.0[12]\d+, 0\.0[12]\d+ to 0\.02\d+ at the level of its test\.",
        facts(found)[0].text,
    )
    assert (
        answer([*lines, *({**line, "system": "c"} for line in lines[:500])]).score.digits
        == found.score.digits
    )
    alike = [line | {"score": line["score"] + (line["system"] == "b") * 1000} for line in lines]
    assert answer(alike).score.digits == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": -1.0}, "margin is -1.0"),
        ({"margin": math.nan}, "margin is nan"),
        ({"margin": math.inf}, "is inf"),
        ({"margin": "x"}, "margin is 'x'"),
        ({"margin": True}, "margin is True; give"),
        ({"margin": np.bool_(True)}, "margin is .*True"),
        ({"margin": 10**400}, "margin is 1"),
        ({"margin": [0.1]}, r"margin is \[0.1\]"),
        ({"bounds": (0, 1, 2)}, "bounds are"),
        ({"bounds": ("0", "1")}, r"bounds are \('0', '1'\); give two numbers"),
        ({"bounds": (0, None)}, r"bounds are \(0, None\); give"),
        ({"bounds": 5}, "bounds are 5; give"),
        ({"bounds": np.array(1.0)}, r"bounds are array\(1\.\); give two numbers"),
        ({"bounds": "01"}, "bounds are '01'; give"),
        ({"bounds": (False, True)}, "bounds are .*; give"),
        ({"bounds": (0, 10**400)}, "the range 0 to inf is none"),
        ({"look": 0}, "look is 0; give a whole number from 1"),
        ({"look": 5000}, "look is 5000; give a whole number from 1 to 1,000"),
        ({"better": "best"}, "choose higher or lower"),
        ({"largest_difference": math.nan}, "largest_difference is nan"),
    ],
)
def test_python_refuses_what_is_no_option(options: dict[str, Any], said: str) -> None:
    """A sentence, as of the command."""
    with pytest.raises(UserError, match=said):
        hpml_bench.compare(pd.DataFrame(right_and_wrong(SYSTEMS)), **options)
    with pytest.raises(UserError, match="takes a pandas DataFrame and got a dict"):
        hpml_bench.compare({"system": []})


def test_a_margin_within_which_everything_lies_is_none() -> None:
    """One as large as the known range is refused; without a range any finite one is taken."""
    rows = pd.DataFrame(REAL)
    with pytest.raises(UserError, match="the margin 2 is no less than the range of score, -1 to 1"):
        hpml_bench.compare(rows, margin=2, bounds=(-1, 1))
    assert (
        len(hpml_bench.compare(rows, margin=1.9, bounds=(-1, 1)))
        == len(hpml_bench.compare(rows, margin=2))
        == 3
    )
    with pytest.raises(UserError, match="the margin 1 is no less"):
        hpml_bench.compare(pd.DataFrame(means(a=0.5, b=0.9)), margin=1, bounds=(0, 1))


def test_python_gives_a_row_per_pair() -> None:
    """The page's verdicts as a frame, in the score's own unit; a margin and bounds may be
    numbers of numpy.
    """
    frame = pd.DataFrame(right_and_wrong(SYSTEMS))
    found = hpml_bench.compare(frame, margin=0.05)
    of = answer(right_and_wrong(SYSTEMS), 0.05)
    named = (
        "dataset a b difference low high p p_adjusted verdict better scope need rows seeds skewed"
    )
    assert found.columns.tolist() == named.split()
    for number in (np.float32(0.5), np.int64(10)):
        plain = hpml_bench.compare(frame, margin=float(number), bounds=(-50.0, 50.0))
        pd.testing.assert_frame_equal(
            hpml_bench.compare(frame, margin=number, bounds=np.array([-50, 50])), plain
        )
    for row, pair in zip(found.itertuples(), of.pairs["score"], strict=True):
        assert (row.a, row.b, row.verdict) == (pair.a, pair.b, pair.verdict)
        assert 100 * row.difference == pytest.approx(pair.difference)
        assert (row.p, row.p_adjusted) == pytest.approx((pair.p, pair.p_adjusted))
        assert row.rows == 200
        assert (row.better if isinstance(row.better, str) else None) == pair.winner
    assert frame.columns.tolist() == ["system", "row", "score"]
