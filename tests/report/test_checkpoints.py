"""Verdicts on checkpoints where seeds are few, and the ends of races, against scipy and the
vectorised simulation.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from simulation import races
from simulation.worlds import MARGIN, MARGIN_COST, World

from hpml_bench.judge.scores import AlignedScores, CostDefinition, ScoreDefinition
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.summary import PageSummary
from hpml_bench.judge.verdicts import judge, race_end
from hpml_bench.page.answer.facts import facts
from hpml_bench.page.answer.sections import answer_table, deciding_section, pair_tables
from hpml_bench.select.race import Race
from hpml_bench.suite.suite import Until

ROUNDS = (3, 5, 20)


def aligned(
    right: np.ndarray, costs: tuple[np.ndarray, ...] = (), race: Race | None = None
) -> AlignedScores:
    """Return the scores of methods m0, m1, ... by seeds and rows, [methods, seeds, rows], and
    logarithms of costs.
    """
    names = [f"m{at}" for at in range(len(right))]
    rows = {
        name: dict(enumerate(by_seed.astype(float)))
        for name, by_seed in zip(names, right, strict=True)
    }
    return AlignedScores(
        dataset="data",
        title="data",
        score=ScoreDefinition("accuracy", margin=MARGIN),
        systems=tuple(names),
        seeds=tuple(map(str, range(right.shape[1]))),
        means={
            name: {seed: float(of.mean()) for seed, of in by_seed.items()}
            for name, by_seed in rows.items()
        },
        rows=rows,
        count=right.shape[2],
        groups=None,
        binary=True,
        trained_on="these",
        race=race,
        costs={
            CostDefinition(f"cost{at}", f"cost {at}", exact=False, margin=MARGIN_COST): {
                name: dict(enumerate(np.exp(logs).tolist()))
                for name, logs in zip(names, of, strict=True)
            }
            for at, of in enumerate(costs)
        },
    )


def drawn(seed: int, apart: float, spread: float, seeds: int = 3, rows: int = 400) -> np.ndarray:
    """Return answers of two methods whose shares of right rows differ, and vary over seeds by a
    standard deviation.
    """
    random = np.random.default_rng(seed)
    share = 0.7 + np.array([[0.0], [apart]]) + spread * random.standard_normal((2, seeds))
    return random.random((2, seeds, rows)) < share[..., None]


@pytest.mark.parametrize("seeds", [3, 4])
def test_checkpoints_are_tested_over_rows(seeds: int) -> None:
    """Their p is that of scipy's t test of the rows' mean differences, and never above the
    methods' own.
    """
    for seed in range(25):
        found = judge(aligned(drawn(seed, 0.03, 0.02, seeds)))
        (methods,), (checkpoints,) = found.score, found.checkpoints
        right = found.scores.rows
        assert right is not None
        differences = np.mean([right["m0"][run] - right["m1"][run] for run in range(seeds)], axis=0)
        assert (
            checkpoints.p >= stats.ttest_1samp(differences, 0).pvalue - 1e-12
        )  # rare rows may make it larger
        assert checkpoints.p <= methods.p + 1e-12
        assert checkpoints.difference.mean == pytest.approx(methods.difference.mean)
        # of the methods' 95 % they leave the equivalence its 15, as both claims may be false at
        # once
        assert checkpoints.first_levels[0] == pytest.approx(methods.first_levels[0] * 80 / 95)
        assert checkpoints.p_adjusted == pytest.approx(
            min(1.0, checkpoints.p * 0.05 / checkpoints.first_levels[0])
        )


def test_what_three_seeds_leave_open_their_checkpoints_may_show() -> None:
    """Seeds that vary leave methods open; the page says in words and in a column that these
    checkpoints differ.
    """
    found = judge(aligned(drawn(1, 0.12, 0.05)))
    answer = summarize(found)
    assert [pair.verdict for pair in answer.pairs["score"]] == ["undecided"]
    (pair,) = answer.checkpoints
    assert (pair.winner, pair.difference < 0, pair.high < 0) == ("m1", True, True)
    (fact,) = [fact for fact in facts(answer) if fact.label == "These checkpoints"]
    assert fact.text.startswith("Shown better on other test rows: m1 over m0.")
    assert "other seeds may order the methods otherwise" in fact.text
    table = answer_table(answer)
    place = table.columns.index("these checkpoints")
    assert [row[place] for row in table.rows] == ["–", "behind m1"]
    assert answer.model_dump(mode="json")["checkpoints"][0]["winner"] == "m1"


@pytest.mark.parametrize(
    ("apart", "spread", "seeds"), [(0.12, 0.05, 5), (0.0, 0.0, 3), (0.3, 0.001, 3)]
)
def test_pages_say_nothing_of_checkpoints_where_it_is_no_news(
    apart: float, spread: float, seeds: int
) -> None:
    """With five seeds, where no checkpoint is shown better, and where the methods' own verdict
    says it already.
    """
    answer = summarize(judge(aligned(drawn(3, apart, spread, seeds))))
    assert answer.checkpoints == ()
    assert "checkpoints" not in answer.model_dump(mode="json")
    assert "these checkpoints" not in answer_table(answer).columns


def test_each_pair_of_checkpoints_has_an_equal_share() -> None:
    """Also where other pairs are shown to differ: they pass nothing on to checkpoints that may
    be equal.
    """
    random = np.random.default_rng(5)
    share = np.array([0.5, 0.8, 0.8])[:, None] + 0.05 * random.standard_normal((3, 3))
    found = judge(aligned(random.random((3, 3, 400)) < share[..., None]))
    assert len(found.checkpoints) == 3
    assert any(c.differs for c in found.checkpoints)
    for c in found.checkpoints:
        assert c.first_levels[0] == pytest.approx(0.05 * 2 / 3 * 0.8 / 3)
        assert c.p_adjusted == pytest.approx(min(1.0, 0.05 * c.p / c.first_levels[0]))


def test_methods_with_other_seeds_have_no_checkpoints_compared() -> None:
    """A claim on methods of ten seeds isn't one on the three checkpoints that another method has
    too.
    """
    right = np.concatenate([drawn(1, 0.12, 0.05, 4), drawn(2, 0.12, 0.05, 4)])
    scores = aligned(right)
    assert judge(scores).checkpoints
    fewer = {
        name: dict(list(of.items())[:3]) if name == "m3" else of for name, of in scores.rows.items()
    }
    means = {
        name: {seed: float(rows.mean()) for seed, rows in of.items()} for name, of in fewer.items()
    }
    assert judge(replace(scores, rows=fewer, means=means)).checkpoints == ()


def test_checkpoints_of_a_score_without_a_range_are_for_rows_of_this_range() -> None:
    """The page says so, names the test, and marks a difference that few rows carry."""
    rows = np.where(drawn(1, 0.12, 0.05), 1.0, 0.2)
    score = ScoreDefinition("loss", better="lower", margin=0.01)
    random = np.random.default_rng(1)
    gains = 0.1 * random.exponential(size=400) ** 2.2 * np.array([[0.3], [1.0], [2.2]])
    few = np.abs(random.normal(size=400)) + np.stack([np.zeros_like(gains), gains])
    carried = summarize(judge(replace(aligned(few), binary=False, score=score)))
    assert [pair.uncertain for pair in carried.checkpoints] == [True]
    assert "‡" in str([*pair_tables(carried)][-1].rows)
    answer = summarize(judge(replace(aligned(rows), binary=False, score=score)))
    assert answer.checkpoints_judged == "other test rows of this range, these trained models"
    (fact,) = [fact for fact in facts(answer) if fact.label == "These checkpoints"]
    assert fact.text.startswith("Shown better on other test rows of this range: m0 over m1.")
    notes = str([*pair_tables(answer)][-1].notes)
    assert "McNemar's where rows are right or wrong in all runs, else Student's t" in notes
    assert not any(pair.uncertain for pair in answer.checkpoints)


def test_races_have_no_verdicts_on_checkpoints() -> None:
    """They go on while methods are open."""
    race = Race(Until(rounds=ROUNDS))
    assert judge(aligned(drawn(1, 0.12, 0.05), race=race)).checkpoints == ()


def test_races_end_without_hope_as_the_simulated_ones() -> None:
    """Of 60 races of two methods that have five seeds the same ones end, and the sentence says
    what was expected.
    """
    random = np.random.default_rng(8)
    world = World(spreads=(1.0, 1.0), score=(0.0, 0.02), cost=(0.0, 0.3))
    data = races.drawn(world, ROUNDS[-1], 60, random)
    simulated = races.race(data, ROUNDS, hope=races.plausible)
    ended = []
    for page in range(60):
        costs = tuple(logs[page, :, :5] for logs in data.costs)
        end = race_end(judge(aligned(data.right[page, :, :5], costs, Race(Until(rounds=ROUNDS)))))
        ended.append("aren't expected to be told apart with 20 seeds each" in end)
    assert ended == simulated.hopeless.tolist()
    assert 10 < sum(ended) < 50


def test_a_worse_mean_that_may_be_best_is_explained() -> None:
    """Where one with a better mean is behind, since it has more rows and a narrower interval:
    the page says why.
    """
    answer = summarize(judge(aligned(drawn(3, 0.3, 0.001))))
    best, other = (method.name for method in answer.methods)
    assert "although" not in str(deciding_section(answer))
    fields = {name: getattr(answer, name) for name in PageSummary.model_fields}
    turned = PageSummary(**fields | {"methods": answer.methods[::-1]})
    said = str(deciding_section(turned))
    assert f"{best} may be best although {other}, with a better mean, is behind" in said


def test_a_small_p_that_is_not_enough_is_explained() -> None:
    """An open pair with a p under 5 % says below which level its p would have to be."""
    for seed in range(200):
        answer = summarize(judge(aligned(drawn(seed, 0.08, 0.02), (np.log(np.full((2, 3), 2.0)),))))
        (pair,) = answer.pairs["score"]
        if pair.verdict == "undecided" and pair.p < 0.05 and pair.p_adjusted < 1:
            break
    needed = 0.05 * pair.p / pair.p_adjusted
    assert f"Its p, {pair.p:.2g}, isn't enough" in str(deciding_section(answer))
    assert f"it would have to be below {needed:.2g}." in str(deciding_section(answer))
    assert needed == pytest.approx(
        judge(replace(aligned(drawn(seed, 0.08, 0.02)))).score[0].first_levels[0], rel=0.5
    )
    # where an earlier step's p is this pair's adjusted one, its own level isn't known
    earlier = pair.model_copy(update={"p": pair.p / 2})
    fields = {name: getattr(answer, name) for name in PageSummary.model_fields}
    tied = str(
        deciding_section(PageSummary(**fields | {"pairs": answer.pairs | {"cost0": (earlier,)}}))
    )
    assert f"Its p, {pair.p:.2g}, isn't enough as one of" in tied
    assert "it would have to be below" not in tied
