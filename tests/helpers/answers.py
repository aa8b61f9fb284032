"""Makes answers by hand, for tests of what is said and drawn of them."""

import itertools
from collections.abc import Mapping
from typing import Any

from hpml_bench.judge.summary import Axis, Method, PageSummary, Pair, Score, Setup, Values

TIME = Axis(key="time", id="train_seconds", title="Training time", unit="s", tested="train_seconds")
MEMORY = Axis(
    key="memory",
    id="peak_memory_mb",
    title="Peak memory",
    unit="MB",
    tested="peak_memory_over_setup_mb",
)
SIZE = Axis(key="size", id="saved_bytes", title="Saved size", unit="MB", tested=None, exact=True)
SETUP = Setup(
    budget="100 steps",
    device="2 CPU processes",
    host="n1",
    rates="rates tuned alike, 9 trials each",
    memory="memory: peak of one process",
)
ACCURACY = Score(
    id="test_accuracy",
    title="accuracy",
    unit="%",
    better="higher",
    digits=1,
    difference_unit="points",
    margin=1.0,
)
RMSE = Score(
    id="test_rmse", title="RMSE", unit="", better="lower", digits=3, difference_unit="", margin=0.01
)
ADDED = 100.0  # memory of the process before training, in MB


def an_answer(
    scores: Mapping[str, float],
    *,
    open_: tuple[tuple[str, str], ...] = (),
    equal: tuple[tuple[str, str], ...] = (),
    untested: tuple[tuple[str, str], ...] = (),
    costs: Mapping[str, tuple[float, float, float]] | None = None,
    bases: tuple[str, ...] = (),
    score: Score = ACCURACY,
    **fields: Any,
) -> PageSummary:
    """Return an answer in which the better score wins every pair but those listed as undecided,
    equal or not tested.
    """
    # `costs` is method -> (seconds, MB, saved MB), by default more for a better score; `fields`
    # replace fields
    better_first = sorted(
        scores, key=lambda name: scores[name] * (-1 if score.better == "higher" else 1)
    )
    costs = costs or {
        name: (10 * 0.9**i, ADDED + 400 * 0.9**i, 5 * 0.5**i) for i, name in enumerate(better_first)
    }
    verdicts = {
        frozenset(p): v
        for v, of in (("undecided", open_), ("equivalent", equal), ("untested", untested))
        for p in of
    }
    pairs: dict[str, list[Pair]] = {
        "score": [],
        "train_seconds": [],
        "peak_memory_over_setup_mb": [],
    }
    for a, b in itertools.combinations(better_first, 2):
        pairs["score"].append(
            _score(a, b, scores[a] - scores[b], verdicts.get(frozenset((a, b)), "different"))
        )
        if a in costs and b in costs:
            pairs["train_seconds"].append(_factor(a, b, costs[a][0] / costs[b][0]))
            added = [costs[name][1] - ADDED for name in (a, b)]
            pairs["peak_memory_over_setup_mb"].append(_factor(a, b, added[0] / added[1]))
    lost = {
        name: sum(c.winner not in {None, name} for c in pairs["score"] if name in {c.a, c.b})
        for name in scores
    }
    won = {name: sum(c.winner == name for c in pairs["score"]) for name in scores}
    methods = tuple(
        _method(
            name,
            scores[name],
            costs.get(name),
            name in bases,
            (1 + lost[name], len(scores) - won[name]),
        )
        for name in better_first
    )
    made: dict[str, Any] = {
        "suite": "made",
        "description": "",
        "model": "a model",
        "data": "rows",
        "rows": 1000,
        "rows_text": "1,000 test rows",
        "seeds": 5,
        "shared": None,
        "runs": 5 * len(methods),
        "planned": 5 * len(methods),
        "tested": 30,
        "judged": "other seeds and other test rows",
        "chance": 5.0,
        "setup": SETUP,
        "score": score,
        "axes": (TIME, MEMORY, SIZE),
        "methods": methods,
        "pairs": pairs,
        "under": {},
        "guess": None,
        "failures": (),
        "unranked": None,
    }
    return PageSummary.model_validate(made | fields)


def _method(
    name: str, score: float, costs: tuple[float, float, float] | None, base: bool, place: Any
) -> Method:
    v = {"score": Values(mean=score, low=score - 0.5, high=score + 0.5, runs=(score,) * 5)}
    if costs is not None:
        seconds, memory, saved = costs
        v |= {
            "train_seconds": Values(mean=seconds),
            "peak_memory_mb": Values(mean=memory, runs=(memory,) * 5),
        }
        v |= {"peak_memory_over_setup_mb": Values(mean=memory - ADDED)}
        v |= {} if base else {"saved_bytes": Values(mean=saved)}
    return Method(name=name, kind="full", base=base, rank_range=place, seeds=5, values=v)


def _score(a: str, b: str, d: float, v: Any) -> Pair:
    half = {"different": abs(d) / 2, "untested": None}.get(v, abs(d) + 1)
    low, high = (None, None) if half is None else (d - half, d + half)
    own = (
        (None, None) if half is None else (d - half / 9, d + half / 9)
    )  # of 95 %, narrower than the one that decides
    w = a if v == "different" else None
    return Pair(
        a=a,
        b=b,
        verdict=v,
        winner=w,
        difference=d,
        ci_low=own[0],
        ci_high=own[1],
        decided_low=low,
        decided_high=high,
        p=0.01,
        p_adjusted=0.02,
        need=78,
        shared=5,
    )


def _factor(a: str, b: str, d: float) -> Pair:
    w = None if d == 1 else a if d < 1 else b
    v: Any = "different" if w else "undecided"
    return Pair(
        a=a,
        b=b,
        verdict=v,
        winner=w,
        difference=d,
        ci_low=0.99 * d,
        ci_high=1.01 * d,
        decided_low=0.98 * d,
        decided_high=1.02 * d,
        p=0.01,
        p_adjusted=0.02,
        need=5,
        shared=5,
    )
