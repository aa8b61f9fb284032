"""Forgeries of a results folder, each of which one check names: what is wrong, and where."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forging import (
    REFERENCE,
    Edit,
    Forged,
    Json,
    edit_points,
    edit_predictions,
    of_quickstart,
    points,
    record,
    record_of,
    reorder,
    runs,
    sealed,
)
from hpml_bench.records.load import load_record
from hpml_bench.records.predictions import read_predictions
from hpml_bench.select.predictions import task_of
from hpml_bench.verify import figures
from hpml_bench.verify.folder import RunFiles
from hpml_bench.verify.verify import ALL, Verified, verify

HOME = "/home/" + "alice"
TOKEN = "hf_" + "Ab3" * 12
AWS = "AKIA" + "Q7" * 8
WANDB = "wandb: api key = " + "0a" * 20
OUT_OF_LUCK = {"kind": "RuntimeError", "message": "out of luck"}
WIDER = {"quality": 0.05, "cost": 0.05}
LENT = {
    "score": "accuracy",
    "suites": [{"suite": "minilm", "digest": "a" * 12}],
    "pairs": [
        {"methods": ["lora", "full"], "suites": ["minilm"], "variance": 1e-4, "freedom": 1.0}
    ],
}
OTHER_WORDS = "Share of rows that are right."


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three methods and three seeds, and no page."""
    return of_quickstart(tmp_path_factory.mktemp("honest") / "quickstart").folder


@pytest.fixture
def forged(honest: Path, tmp_path: Path) -> Forged:
    return Forged(Path(shutil.copytree(honest, tmp_path / "quickstart")))


# Edits


def on(which: str, change: Callable[[Path], object]) -> Edit:
    """Change the folders of runs."""

    def edit(made: Forged) -> list[Path]:
        for run in (found := runs(made, which)):
            change(run)
        return found

    return edit


def rows(which: str, change: Callable[[Any], Any], rescore: bool = False, **changes: Any) -> Edit:
    """Change the predictions of runs, and scores to fit, or fields of records."""

    def edit(made: Forged) -> list[Path]:
        for run in runs(made, which):
            edit_predictions(run, change)
            if rescore:
                rescored(run)
        return list(record(which, **changes)(made))

    return edit


def metric(which: str, name: str, **fields: Any) -> Edit:
    return record(
        which,
        definitions=lambda old: [item | fields if item["name"] == name else item for item in old],
    )


def checks(which: str, change: Callable[[Json], Json | None]) -> Edit:
    return record(
        which, checks=lambda old: [new for check in old if (new := change(check)) is not None]
    )


def written(name: str, text: str) -> Edit:
    """Write a file, `*` standing for a run's folder, and return where it shows."""

    def edit(made: Forged) -> str:
        path = made.folder / name.replace("*", made.run("lora", 0).name)
        path.write_text(text)
        return path.relative_to(made.folder).as_posix()

    return edit


def with_suite(edit: Edit, change: Callable[[Json], Json]) -> Edit:
    """Change the suite beside the runs too."""

    def both(made: Forged) -> Sequence[Path] | str:
        made.suite(**change(json.loads((made.folder / "suite.json").read_text())))
        return edit(made)

    return both


def scaled(factor: float) -> Callable[[Any], Any]:
    return lambda old: [factor * value for value in old] if isinstance(old, list) else factor * old


def times(name: str, factor: float) -> Callable[[list[Json]], list[Json]]:
    return lambda old: [
        of | {"value": factor * of["value"]} if of["metric"] == name else of for of in old
    ]


def without(drop: Callable[[Json], bool]) -> Callable[[list[Json]], list[Json]]:
    return lambda old: [point for point in old if not drop(point)]


def moved_tokens(old: list[Json]) -> list[Json]:
    """Count tokens of some steps in others, to the same sum."""
    steps = [point for point in old if point["metric"] == "step_seconds"]
    for step, real, padded in ((0, -8, -8), (2, 6, 0), (3, 2, 8)):
        steps[step]["real_tokens"] += real
        steps[step]["tokens"] += padded
    return old


def linked_file(made: Forged) -> str:
    run = made.run("lora", 0)
    (run / "points.jsonl").rename(made.folder / "kept.jsonl")
    (run / "points.jsonl").symlink_to(os.path.relpath(made.folder / "kept.jsonl", run))
    return f"{run.name}/points.jsonl"


def side_by_side(made: Forged) -> list[Path]:
    """Let two runs of one sweep begin at one time on one host."""
    first, second = sorted(made.runs, key=lambda run: record_of(run)["started"])[:2]
    made.edit(second, started=record_of(first)["started"], seconds=record_of(first)["seconds"])
    return [max(first, second)]


def set_aside(repeated: bool) -> Edit:
    """Set a whole run aside, with another result of it in its place, or for good."""

    def edit(made: Forged) -> str:
        run = made.run("lora", 0)
        aside = Path(shutil.copytree(run, made.folder / "set-aside" / f"{run.name}.1"))
        if repeated:
            (aside / "run.json").rename(aside / "run.json.damaged")
        else:
            shutil.rmtree(run)
        return f"set-aside/{run.name}.1"

    return edit


def copied_as(method: str, seed: int) -> Edit:
    """Copy a run in place of another."""

    def edit(made: Forged) -> list[Path]:
        other = record_of(made.run(method, seed))["spec"]
        shutil.rmtree(made.run(method, seed))
        made.edit(
            copy := made.copy(made.run("lora", 1), "copy"),
            spec__method=other["method"],
            spec__seed=seed,
        )
        return [copy]

    return edit


def second_record(made: Forged) -> list[Path]:
    made.edit(copy := made.copy(made.run("lora", 0), "copy"), spec__method__options__r=4)
    return [copy]


def scores_of_another_run(made: Forged) -> list[Path]:
    other = pd.read_parquet(made.run("full", 0) / "predictions.parquet")
    edit_predictions(run := made.run("lora", 0), lambda of: of.assign(score=other.score))
    return [run]


def answers_of_the_best_seed(made: Forged) -> list[Path]:
    """Give a seed the predictions of a better one, with scores and self-checks."""
    best, run = made.run("lora", 1), made.run("lora", 0)
    shutil.copy(best / "predictions.parquet", run)
    scores = {
        f"metrics__{name}": value
        for name, value in record_of(best)["metrics"].items()
        if "test_" in name
    }
    made.edit(run, **scores)
    return [run]


def other_places(made: Forged) -> str:
    """Say that two runs of a seed changed places."""
    one, other = made.run("lora", 0), made.run("full", 0)
    first, second = record_of(one)["place"], record_of(other)["place"]
    made.edit(one, place=second)
    made.edit(other, place=first)
    made.seal(one, other)
    return "seed 0"


def seed_left_out(made: Forged) -> str:
    """Delete a seed, and let the suite declare one less."""
    for run in runs(made, "2"):
        shutil.rmtree(run)
    made.suite(seeds=2)
    return "suite.json: declares 2 seeds"


def without_score(which: str, status: str, lacking: str = "") -> Edit:
    """Call a run that ended well otherwise, without metrics and self-checks; its files are left,
    but one that lacks.
    """

    def edit(made: Forged) -> list[Path]:
        for run in runs(made, which) if lacking else ():
            (run / lacking).unlink()
        fields = {
            "metrics": {},
            "per_rank": {},
            "checks": [],
            "consumed": None,
            "error": OUT_OF_LUCK,
        }
        return list(record(which, status=status, **fields)(made))

    return edit


def rescored(run: Path) -> None:
    """Make a record's test metrics and row scores those of its predictions."""
    record = load_record(run / "run.json")
    task, stored = task_of(record), read_predictions(run)
    given = {f"metrics__test_{name}": value for name, value in task.evaluate(stored).items()}
    edit_predictions(run, lambda of: of.assign(score=task.scores(stored).astype(float)))
    Forged(run.parent).edit(
        run,
        **given,
        metrics__inference_samples_per_second=(len(stored) / record.metrics["inference_seconds"]),
    )


def rows_left_out(made: Forged) -> list[Path]:
    """Leave test rows that a method gets wrong out of all runs."""
    answers = pd.read_parquet(made.run("lora", 0) / "predictions.parquet")
    dropped = answers.index[answers.reference != answers.prediction][:150]
    for run in made.runs:
        edit_predictions(
            run, lambda of: of.drop(dropped).assign(index=range(len(of) - len(dropped)))
        )
        rescored(run)
    return made.runs


def called_right(of: Any) -> Any:
    """Call rows right whose right class has a probability below 1/4, which none has that is the
    likeliest of four.
    """
    wrong = of.index[(of.reference != of.prediction) & (of.loss > 1.4)][:40]
    of.loc[wrong, "prediction"] = of.loc[wrong, "reference"]
    return of


def method_deleted(made: Forged) -> list[Path]:
    for run in runs(made, "head"):
        shutil.rmtree(run)
    suite = json.loads((made.folder / "suite.json").read_text())
    made.suite(methods={name: entry for name, entry in suite["methods"].items() if name != "head"})
    return [run for run in made.runs if record_of(run)["place"] > 2]


def best_seeds(renumbered: bool) -> Edit:
    """Keep two of three seeds as 0 and 1, with their places in the sweep or with those that it
    would give them.
    """

    def edit(made: Forged) -> list[Path]:
        for run in runs(made, "0"):
            shutil.rmtree(run)
        for run in made.runs:
            seed = 2 - record_of(run)["spec"]["seed"]
            made.edit(run, spec__seed=seed, declared__seeds=2)
        made.suite(seeds=2)
        sealed = made.seal()
        began = {run: record_of(run)["started"] for run in sealed}
        if renumbered:
            reorder(made)
        for run in sealed:
            made.edit(run, started=began[run])
        return runs(made, "0")

    return edit


def seed_of_another(made: Forged) -> str:
    """Make a seed of another one, with other losses and another order of samples."""
    for method in ("lora", "full", "head"):
        run, source = made.run(method, 2), made.run(method, 1)
        for name in ("points.jsonl", "predictions.parquet"):
            shutil.copy(source / name, run)
        edit_points(run, times("train_loss", 1.001))
        edit_predictions(run, lambda of: of.assign(loss=of.loss * 1.001))
        taken = {name: record_of(source)[name] for name in ("metrics", "per_rank", "consumed")}
        made.edit(run, **taken)
        made.edit(run, consumed__order="f" * 16, metrics__train_loss=scaled(1.001))
        rescored(run)
    made.seal(*runs(made, "2"))
    return "seed 2"


def answers_of_another_method(made: Forged) -> list[Path]:
    """Give a method the answers and losses of a better one in every seed."""
    for run in (found := runs(made, "head")):
        shutil.copy(made.run("full", record_of(run)["spec"]["seed"]) / "predictions.parquet", run)
        rescored(run)
    return found


def learnt_as(run: Path, source: Path) -> None:
    """Give a run all that another one learnt: losses, norms, validation and answers; its times,
    tokens, rates stay.
    """
    learnt = {"train_loss", "grad_norm"}
    taken = [json.loads(line) for line in (source / "points.jsonl").read_text().splitlines()]
    values = {
        (point["metric"], point["step"]): point["value"]
        for point in taken
        if point["metric"] in learnt or point["metric"].startswith("validation_")
    }
    edit_points(
        run,
        lambda old: [
            point | {"value": values.get((point["metric"], point["step"]), point["value"])}
            for point in old
        ],
    )
    shutil.copy(source / "predictions.parquet", run)
    metrics, before = record_of(source)["metrics"], record_of(run)["metrics"]
    norm = scaled(metrics["grad_norm"] / before["grad_norm"])
    Forged(run.parent).edit(
        run,
        metrics__grad_norm_per_sqrt_parameter=norm,
        **{f"metrics__{name}": metrics[name] for name in learnt},
    )
    rescored(run)


def noisy(share: float, seed: int = 0) -> Callable[[Any], Any]:
    """Change each row's loss by a random share of it."""
    noise = np.random.default_rng(seed)
    return lambda of: of.assign(
        loss=(of.loss * (1 + share * noise.standard_normal(len(of)))).astype("float32")
    )


def seed_nearly_of_another(made: Forged) -> list[Path]:
    """Make a method's seed of another one, with the tokens and times of its own, and losses
    changed a little.
    """
    learnt_as(run := made.run("lora", 2), made.run("lora", 1))
    edit_predictions(run, noisy(1e-5))
    rescored(run)
    return [run]


def training_of_another_method(made: Forged) -> list[Path]:
    """Give a method all that a better one learnt, in every seed."""
    for run in (found := runs(made, "head")):
        learnt_as(run, made.run("full", record_of(run)["spec"]["seed"]))
    return found


def answers_exchanged(made: Forged) -> str:
    """Exchange the answers of two methods within a seed."""
    one, other = made.run("head", 1), made.run("lora", 1)
    kept = (one / "predictions.parquet").read_bytes()
    shutil.copy(other / "predictions.parquet", one)
    (other / "predictions.parquet").write_bytes(kept)
    for run in (one, other):
        rescored(run)
    first, second = sorted(run.name for run in made.seal(one, other))
    return f"{first} and {second}"


def called_right_alike(of: Any) -> Any:
    """Call rows right that are wrong, with one loss that a right answer may have."""
    wrong = of.index[of.reference != of.prediction][:40]
    of.loc[wrong, "prediction"] = of.loc[wrong, "reference"]
    of.loc[wrong, "loss"] = np.float32(0.4)
    return of


def looked_before(made: Forged) -> str:
    """Begin the last seed a day later, as if it had been declared with the others."""
    for run in runs(made, "2"):
        began = datetime.fromisoformat(record_of(run)["started"]) + timedelta(days=1)
        made.edit(run, started=began.isoformat(timespec="seconds"))
    return "seed 1"


Forgery = tuple[Edit, str, str] | tuple[Edit, str, str, str]
"""An edit of a folder, the check that names it, words of its finding, and the finding's state if
it isn't `failed`.
"""
UNSEALED: dict[str, Forgery] = {
    "a higher score": (
        record("lora 1", metrics__test_accuracy=scaled(1.01)),
        "predictions",
        "accuracy is recorded as",
    ),
    "points cut": (
        points("full 0", lambda old: old[:-3]),
        "hashes",
        "points.jsonl is not the file that was recorded",
    ),
    "a torn record": (
        on("head 2", lambda run: os.truncate(run / "run.json", 2000)),
        "hashes",
        "run.json is not readable as JSON",
    ),
    "a copied folder": (
        lambda made: [made.copy(made.run("lora", 0), "lora-s9-0123456789")],
        "ids",
        "copied or renamed",
    ),
    "a deleted failure": (
        lambda made: shutil.rmtree(made.run("head", 1)) or "suite.json: declares head with seed 1",
        "planned",
        "no readable record",
    ),
    "a deleted record": (
        on("head 1", lambda run: (run / "run.json").unlink()),
        "hashes",
        "and no run.json",
    ),
    "a link": (linked_file, "plain files", "is a link"),
    "a home in a log": (
        written("*/rank0.log", f"one line\nWarning: {HOME}/.venv/lib/x.py\n"),
        "private paths",
        f":2: names a home folder, {HOME}",
    ),
    "a token in a note": (
        record("lora 0", notes__data=f"token {TOKEN}"),
        "secrets",
        "a Hugging Face token",
    ),
    "a key of AWS": (written("sweep.log", f"key {AWS}\n"), "secrets", ":1: holds an AWS key id"),
    "a key of wandb": (
        written("sweep.log", f"{WANDB}\n"),
        "secrets",
        ":1: holds a Weights & Biases key",
    ),
    "a run to come": (
        record(
            "lora 0", started=(datetime.now(UTC) + timedelta(days=3)).isoformat(timespec="seconds")
        ),
        "dates",
        "is to come",
    ),
    "runs at one time": (side_by_side, "dates", "while"),
    "a margin of afterwards": (
        with_suite(
            lambda made: made.edit(*made.runs, declared__margin=WIDER) or "suite.json",
            lambda _: {"margin": WIDER},
        ),
        "suite",
        "the packaged suite quickstart",
        "not checked",
    ),
    "no suite": (
        lambda made: (made.folder / "suite.json").unlink() or "suite.json",
        "planned",
        "is missing or no suite",
    ),
    "no places": (
        lambda made: made.edit(*made.runs, place=None, order=None) or "",
        "places",
        "no record says at which place",
        "not checked",
    ),
    "a wider margin": (
        with_suite(lambda _: "suite.json declares quality 0.05", lambda _: {"margin": WIDER}),
        "suite",
        "margins",
    ),
    "looks that were declared afterwards": (
        with_suite(lambda _: "suite.json declares 1 look", lambda _: {"looks": 1}),
        "suite",
        "no number of looks",
    ),
    "variance lent by hand": (
        with_suite(lambda _: "with another variance", lambda _: {"prior": LENT}),
        "suite",
        "of earlier suites",
    ),
    "variance whose lender isn't here": (
        with_suite(
            lambda made: made.edit(*made.runs, declared__prior=LENT) or "suite.json",
            lambda _: {"prior": LENT},
        ),
        "suite",
        "the variance that earlier suites lend, minilm",
        "not checked",
    ),
    "repeated until it pleased": (set_aside(repeated=True), "set aside", "was whole"),
    "set aside for good": (set_aside(repeated=False), "set aside", "no run took its place"),
    "another rate under the same id": (
        record("lora 0", spec__method__lr=0.001),
        "ids",
        "is not that of its settings, method and seed",
    ),
    "other data under the same id": (
        record("", digests__data="d" * 64),
        "ids",
        "is not that of its settings and digests",
    ),
    "failed self-checks": (
        checks("lora 0", lambda check: check | {"passed": False}),
        "passed",
        "self-check failed",
    ),
}
"""Forgeries that leave hashes as they were."""
RATES = dict.fromkeys(
    ("samples_per_second", "tokens_per_second", "padded_tokens_per_second"), 1 / 0.9
)
SHORTER = dict.fromkeys(("train_seconds", "train_seconds_second_clock", "timed_seconds"), 0.9)
SEALED: dict[str, Forgery] = {
    "copied to another seed": (copied_as("lora", 2), "copies", "all but one are copies"),
    "labels as predicted": (
        rows(
            "lora 0",
            lambda of: of.assign(reference=of.prediction),
            metrics__test_accuracy=1.0,
            metrics__test_macro_f1=1.0,
        ),
        "predictions",
        "the labels beside its predictions",
    ),
    "rows left out of all runs": (rows_left_out, "predictions", "its notes count 1,000 test rows"),
    "rows left out of runs and notes": (
        lambda made: (
            rows_left_out(made)
            and record("", notes__rows="512 train, 256 validation, 850 test")(made)
        ),
        "predictions",
        "its suite asks for 1,000 test rows",
    ),
    "wrong rows called right": (
        rows("lora 0", called_right, rescore=True),
        "predictions",
        "40 rows have a loss",
    ),
    "right rows called wrong": (
        rows(
            "head 0",
            lambda of: of.assign(
                prediction=of.prediction.where(of.index >= 60, (of.reference + 1) % 4)
            ),
            rescore=True,
        ),
        "predictions",
        "rows have a loss",
    ),
    "a deleted method": (method_deleted, "places", "suite.json has 2 methods"),
    "the best seeds": (best_seeds(renumbered=False), "places", "of its sweep"),
    "the best seeds, renumbered": (best_seeds(renumbered=True), "dates", "began at once after"),
    "a seed made of another": (
        seed_of_another,
        "batches",
        "has the steps of seed 1 in their order",
    ),
    "a seed nearly another": (seed_nearly_of_another, "near copies", "one is a copy"),
    "training of another method": (
        training_of_another_method,
        "answers",
        "another number of parameters",
    ),
    "answers exchanged": (
        answers_exchanged,
        "exchanged",
        "as if the answers had been exchanged",
        "not checked",
    ),
    "wrong rows called right alike": (
        rows("lora 0", called_right_alike, rescore=True),
        "repeated losses",
        "40 of its test rows have one loss, 0.4,",
    ),
    "seeds added after a look": (
        looked_before,
        "breaks",
        "no run began in the 24.0 hours",
        "not checked",
    ),
    "answers of another method": (
        answers_of_another_method,
        "answers",
        "and trained with other losses",
    ),
    "hard rows left out": (
        rows("lora 0", lambda of: of[(of.reference == of.prediction) | (of.index >= 100)]),
        "predictions",
        "of 1,000 test rows",
    ),
    "rows twice": (
        rows("lora 0", lambda of: pd.concat([of, of.head(3)])),
        "predictions",
        "hold 3 test row(s) more than once",
    ),
    "rows of another set": (
        rows("lora 0", lambda of: pd.concat([of, of.tail(1).assign(index=1000)])),
        "predictions",
        "hold 1 row(s) that are no test rows",
    ),
    "scores of another run": (
        scores_of_another_run,
        "scores",
        "have a score that their answers don't give",
    ),
    "answers of the best seed": (answers_of_the_best_seed, "answers", "predicts as"),
    "other data": (record("lora 0", digests__data="d" * 64), "protocol", "other data"),
    "another setting": (
        record("lora 0", spec__settings__weight_decay=0.1),
        "protocol",
        "weight_decay 0.1 instead of 0.0",
    ),
    "a renamed method": (
        record("lora", spec__method__name="ours"),
        "suite",
        "method ours, which suite.json doesn't have",
    ),
    "a seed left out": (seed_left_out, "suite", "the runs were made for 3"),
    "the last step left out": (
        points(
            "full 0",
            without(lambda point: point["step"] == 100 and point["metric"] != "step_seconds"),
        ),
        "self checks",
        "99 training losses written for 100 steps",
    ),
    "lower losses": (
        points("lora 0", times("train_loss", 0.5)),
        "self checks",
        "fails the self-check training loss",
    ),
    "a self-check left out": (
        checks("lora 0", lambda check: None if check["name"] == "second clock" else check),
        "self checks",
        "lacks the self-check second clock",
    ),
    "a smaller method": (
        record("lora", metrics__trainable_parameters=1000.0),
        "self checks",
        "trained parameters, and its self-check counted",
    ),
    "called invalid": (
        lambda made: [
            record("lora 0", status="invalid")(made),
            checks("lora 0", lambda check: check | {"passed": check["name"] != "budget"})(made),
        ][1],
        "passed",
        "is called invalid for budget, which it passes",
    ),
    "a shorter time": (
        record("lora 0", metrics__train_seconds=scaled(0.9)),
        "times",
        "its train_seconds is recorded as",
    ),
    "no points": (
        on("full 2", lambda run: (run / "points.jsonl").unlink()),
        "times",
        "names no points.jsonl, so that its times can't be checked",
    ),
    "the order of another seed": (
        lambda made: record(
            "lora 0", consumed__order=record_of(made.run("lora", 1))["consumed"]["order"]
        )(made),
        "copies",
        "its order of samples is that of lora-s1",
    ),
    "shorter steps": (
        points(
            "lora 0",
            times("step_seconds", 0.9),
            **{f"metrics__{name}": scaled(factor) for name, factor in (RATES | SHORTER).items()},
        ),
        "steps",
        "times that their ranks' don't give",
    ),
    "fewer tokens": (
        record("0", consumed__real_tokens=33_000),
        "steps",
        "consumed 33,000 real tokens",
    ),
    "moved tokens": (
        points("lora 0", moved_tokens),
        "batches",
        "other numbers of tokens than most runs of seed 0",
    ),
    "a higher token rate": (
        record("lora 0", metrics__tokens_per_second=scaled(1.1)),
        "figures",
        "its tokens_per_second is recorded as",
    ),
    "a lower norm": (
        record("lora 0", metrics__grad_norm=scaled(0.5)),
        "figures",
        "its grad_norm is recorded as",
    ),
    "less memory of each rank": (
        record(
            "lora 0",
            **{f"{of}__peak_memory_over_setup_mb": scaled(0.5) for of in ("metrics", "per_rank")},
        ),
        "figures",
        "its peak_memory_over_setup_mb is recorded as",
    ),
    "less memory than the ranks'": (
        record("lora 0", metrics__peak_memory_mb=scaled(0.9)),
        "ranks",
        "its peak_memory_mb is recorded as",
    ),
    "memory without ranks": (record("lora 0", per_rank={}), "ranks", "lacks the ranks' own values"),
    "a smaller size": (
        record("lora 0", metrics__saved_bytes=scaled(0.5)),
        "sizes",
        "its saved_bytes is",
    ),
    "another rate, in the suite too": (
        with_suite(
            record("lora", spec__method__lr=0.001),
            lambda suite: {
                "methods": suite["methods"] | {"lora": suite["methods"]["lora"] | {"lr": 0.001}}
            },
        ),
        "rates",
        "its method and schedule give",
    ),
    "other versions": (
        record("lora 0", environment__packages__torch="2.12.0"),
        "environment",
        "packages.torch 2.12.0 instead of",
    ),
    "other hardware": (
        record("lora 0", environment__hardware__cpu="Example CPU"),
        "environment",
        "not that of its hardware",
    ),
    "no environment": (record("lora 0", environment={}), "environment", "lacks hardware"),
    "another order": (record("lora 0", consumed__order="0" * 16), "consumption", "order"),
    "a second record": (second_record, "once each", "2 records of lora with seed 0"),
    "another headline": (
        record("", headline="test_macro_f1"),
        "metrics",
        "its score is test_macro_f1",
    ),
    "a latency below its median": (
        record("lora 0", metrics__latency_ms_p99=0.1),
        "metrics",
        "its latency_ms_p99 of 0.1 is below the median",
    ),
    "the score turned round": (
        metric("", "test_accuracy", better="lower"),
        "definitions",
        "test_accuracy has better lower instead of higher",
    ),
    "the score turned round in other words": (
        metric("", "test_accuracy", better="lower", definition=OTHER_WORDS),
        "definitions",
        "test_accuracy has better lower instead of higher",
    ),
    "a renamed score": (
        metric("", "test_accuracy", title="accuracy on unseen domains"),
        "definitions",
        "test_accuracy has title",
    ),
    "wider bounds": (
        metric("", "test_accuracy", bounds=[None, None]),
        "definitions",
        "test_accuracy has bounds",
    ),
    "a validation left out": (
        points(
            "lora 0",
            without(lambda point: point["metric"].startswith("validation") and point["step"] == 75),
        ),
        "evaluations",
        "3 validation losses",
    ),
    "called failed": (
        record("lora 0", status="failed", error=OUT_OF_LUCK),
        "unfinished",
        "ended as failed and yet has",
    ),
    # a probe may fail once the test rows are predicted: only the error tells why it has no score
    "called failed once it was trained": (
        without_score("lora 1", "failed"),
        "unfinished",
        "ended as failed once it was trained, and has ",
        "not checked",
    ),
    "called diverged": (
        without_score("lora 1", "diverged"),
        "unfinished",
        "ended as diverged, which a run does earlier, and has predictions.parquet",
    ),
    "a shorter run": (record("lora 0", seconds=2.0), "wall time", "took 2 s"),
    "other places": (other_places, "places", "ran in the order"),
    "other names of labels": (
        record("lora 0", label_names=["World", "Business", "Sports", "Sci/Tech"]),
        "labels",
        "has the labels World, Business",
    ),
}
"""Those whose hashes, ids and self-checks are made to fit."""


def findings(made: Verified, name: str) -> list[tuple[str, str]]:
    return [(check.state, check.finding) for check in made.checks if check.name == name]


@pytest.mark.parametrize("name", [*UNSEALED, *SEALED])
def test_a_forgery_is_named(name: str, forged: Forged) -> None:
    """A line of the check says what is wrong and where; the folder is not consistent; no line
    shows a secret.
    """
    edit, check, words, *state = (UNSEALED | SEALED)[name]
    where = sealed(forged, edit) if name in SEALED else edit(forged)
    place = where if isinstance(where, str) else where[0].name
    made = verify(forged.folder)
    assert made.consistent == bool(state), made.checks
    lines = [text for found, text in findings(made, check) if found == (state or ["failed"])[0]]
    assert [text for text in lines if words in text and place in text], made.checks
    assert TOKEN[4:] not in made.write().read_text()


def test_every_check_has_a_forgery() -> None:
    """The page's are in test_verify_checks.py."""
    named = {check.replace(" ", "_") for _, check, *_ in (UNSEALED | SEALED).values()}
    assert named == {check.__name__ for check in ALL} - {"sample_order", "page"}


def with_faults(made: Forged) -> None:
    """Let one run fail on the way, and do another again in a later call, after it had failed
    too.
    """
    edit_points(run := made.run("head", 1), without(lambda point: point["step"] >= 60))
    without_score("head 1", "failed", "predictions.parquet")(made)
    made.seal(run)
    made.edit(
        made.run("full", 0),
        started="2026-01-02T05:00:00+00:00",
        earlier_attempts=["oom_host: killed"],
    )


def seeds_added(made: Forged) -> None:
    """Add seeds twice, each time as the suite declared."""
    shutil.rmtree(made.folder)
    of_quickstart(made.folder, ("lora", "head"), 5)
    for run in made.runs:
        seed, order = (record_of(run)["spec"]["seed"], record_of(run)["order"])
        later = {"started": f"2026-01-0{seed}T03:{order:02d}:00+00:00"} if seed > 2 else {}
        made.edit(run, declared__seeds=max(3, seed + 1), **later)


def method_added(made: Forged) -> None:
    """Add a method once the others' runs were done."""
    whole = json.loads((made.folder / "suite.json").read_text())
    reorder(made)
    at = {run: record_of(run) for run in runs(made, "head")}
    made.suite(methods={name: entry for name, entry in whole["methods"].items() if name != "head"})
    reorder(made)
    made.suite(**whole)
    for run, before in at.items():
        began = f"2026-01-03T03:0{before['spec']['seed']}:00+00:00"
        made.edit(run, order=before["order"], place=before["place"], started=began)


def by_jobs(made: Forged) -> None:
    """Do each seed in a job on a host of its own, and two further runs beside each other, the
    later one first.
    """
    for run in made.runs:
        seed, where = record_of(run)["spec"]["seed"], {"engine": "local", "call": 1}
        made.edit(
            run,
            started=f"2026-01-02T0{3 + record_of(run)['place']}:00:00+00:00",
            environment__where=where,
            environment__hosts=[f"node{seed}"],
            neighbours=[],
        )
    first, second = sorted(runs(made, "0"), key=lambda run: record_of(run)["order"])[:2]
    made.edit(first, neighbours=[second.name], started="2026-01-02T04:00:02+00:00")
    made.edit(second, neighbours=[first.name], started="2026-01-02T04:00:00+00:00")


def predicting_alike(made: Forged) -> None:
    """Let a method's training change no prediction, in a folder without a run that isn't
    trained.
    """
    for run in (found := runs(made, "head")):
        if run != made.run("head", 0):
            shutil.copy(made.run("head", 0) / "predictions.parquet", run)
            rescored(run)
    made.seal(*found)


def under_two_names(made: Forged) -> None:
    """Run a method under a second name: the same losses and answers, in other times."""
    suite = json.loads((made.folder / "suite.json").read_text())
    made.suite(methods=suite["methods"] | {"again": suite["methods"]["full"] | {"method": "full"}})
    for seed in range(3):
        copy = made.copy(made.run("full", seed), f"again-s{seed}-0123456789")
        edit_points(copy, times("step_seconds", 1 + 1e-12))
        made.edit(copy, spec__method__name="again")
        made.seal(copy)
    reorder(made)


def hardly_trained(made: Forged) -> None:
    """Let a method's seeds answer nearly alike, as at a tiny rate."""
    found = runs(made, "lora")
    for run in found[1:]:
        shutil.copy(found[0] / "predictions.parquet", run)
        edit_predictions(run, noisy(1e-4, seed=record_of(run)["spec"]["seed"]))
        rescored(run)
    made.seal(*found)


def one_answer_to_all(made: Forged) -> None:
    """Let a run have ended with a model that gives every text the same probabilities."""
    run, losses = made.run("lora", 2), np.array([1.3, 1.35, 1.4, 1.5], dtype="float32")
    edit_predictions(run, lambda of: of.assign(prediction=0, loss=losses[of.reference]))
    rescored(run)
    made.seal(run)


@pytest.mark.parametrize(
    "happened",
    [
        pytest.param(lambda _: None, id="nothing"),
        with_faults,
        seeds_added,
        method_added,
        by_jobs,
        predicting_alike,
        under_two_names,
        hardly_trained,
        one_answer_to_all,
    ],
    ids=lambda of: of.__name__,
)
def test_an_honest_folder_is_accepted(happened: Callable[[Forged], object], forged: Forged) -> None:
    """Of what a folder without a page can't show, a line says that it isn't checked."""
    happened(forged)
    made = verify(forged.folder)
    assert [check for check in made.checks if check.state == "failed"] == []
    unchecked = {check.name for check in made.checks if check.state == "not checked"}
    assert unchecked - {"definitions"} == {
        "sample order",
        "page",
    }  # the reference may be of older words


def test_a_method_in_other_words_is_not_accused(forged: Forged) -> None:
    """Two methods that name an optimizer or leave it to the suite train alike: a line names
    them, and refuses none.
    """
    under_two_names(forged)
    chosen = {
        "name": "adamw",
        "options": record_of(forged.run("full", 0))["spec"]["settings"]["optimizer"]["options"],
    }
    suite = json.loads((forged.folder / "suite.json").read_text())
    forged.suite(
        methods=suite["methods"] | {"again": suite["methods"]["again"] | {"optimizer": chosen}}
    )
    forged.edit(*runs(forged, "again"), spec__method__optimizer=chosen)
    forged.seal(*runs(forged, "again"))
    reorder(forged)
    made = verify(forged.folder)
    assert [check for check in made.checks if check.state == "failed"] == []
    assert [
        state for state, text in findings(made, "answers") if "one method in other words" in text
    ] == ["not checked"] * 3


def test_a_training_without_effect_is_not_compared(forged: Forged) -> None:
    """Two of three seeds whose validation loss never moved may answer alike in nearly every row."""
    sealed(forged, seed_nearly_of_another)
    assert [state for state, _ in findings(verify(forged.folder), "near copies")] == ["failed"]
    sealed(forged, points("lora", times("validation_loss", 0.0)))
    assert [state for state, _ in findings(verify(forged.folder), "near copies")] == ["ok"]


def test_a_metric_in_other_words_is_not_compared(forged: Forged) -> None:
    """Another version may define it otherwise: a line names it, the score first, and refuses
    nothing.
    """
    sealed(forged, metric("", "test_accuracy", definition=OTHER_WORDS, title="share right"))
    ((state, text),) = findings(verify(forged.folder), "definitions")
    assert state == "not checked"
    assert text.partition(":")[0].partition(",")[0] == "test_accuracy"


def test_an_invalid_run_has_a_place(forged: Forged) -> None:
    """It fails a self-check again, and is in no number."""
    record("lora 0", status="invalid", metrics__train_loss=scaled(2.0))(forged)
    checks("lora 0", lambda check: check | {"passed": check["name"] != "training loss"})(forged)
    assert [check for check in verify(forged.folder).checks if check.state == "failed"] == []


def test_a_single_rank_has_no_values_of_its_own(forged: Forged) -> None:
    """The run's values are its own; what it needed for training follows from them."""
    forged.edit(
        run := forged.run("lora", 0),
        spec__settings__world_size=1,
        per_rank={},
        metrics__peak_memory_over_setup_mb=scaled(0.5),
    )
    alone = RunFiles.read(forged.folder, load_record(run / "run.json"))
    assert list(figures.ranks(alone)) == []
    assert "its peak_memory_over_setup_mb is recorded as" in " ".join(figures.figures(alone))


def test_reference_answers_are_compared(tmp_path: Path) -> None:
    """Texts are scored against the expected ones beside them: one run's can't differ."""
    left_out = shutil.ignore_patterns("report.*", "tables", "figures")
    made = Forged(Path(shutil.copytree(REFERENCE / "chat", tmp_path / "chat", ignore=left_out)))
    change = rows(
        "lora 0",
        lambda of: of.assign(said_expected=of.said_answer, score=1.0),
        metrics__test_score=1.0,
    )
    run = sealed(made, change)
    lines = [text for _, text in findings(verify(made.folder), "predictions")]
    assert lines == [
        f"{run}: not believed: the texts beside its predictions are not those of the other runs"
    ]
