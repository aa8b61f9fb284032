"""Forgeries of a results folder, each of which one check names: what is wrong, and where."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.forging import REFERENCE, Forged, edit_points, edit_predictions, of_quickstart, record_of
from hpml_bench.records.load import load_record
from hpml_bench.verify import figures
from hpml_bench.verify.folder import RunFiles
from hpml_bench.verify.verify import ALL, verify

HOME = "/home/" + "alice"
TOKEN = "hf_" + "Ab3" * 12
AWS = "AKIA" + "Q7" * 8
WANDB = "wandb: api key = " + "0a" * 20

Forge = Callable[[Forged], Path | str]
"""Edits a folder, and returns where it shows: a run's folder, or the beginning of a line."""
UNSEALED: list[tuple[Forge, str, str]] = []
"""Forgeries that leave hashes as they were, each with the check that names it and words of the finding."""
SEALED: list[tuple[Forge, str, str]] = []
"""Those whose hashes, ids and self-checks are made to fit."""


def added(cases: list[tuple[Forge, str, str]], name: str, words: str) -> Callable[[Forge], Forge]:
    """Add a forgery to cases, with the check that names it and words of the finding."""

    def add(forge: Forge) -> Forge:
        cases.append((forge, name, words))
        return forge

    return add


unsealed, sealed = partial(added, UNSEALED), partial(added, SEALED)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three methods and three seeds, and no page."""
    return of_quickstart(tmp_path_factory.mktemp("honest") / "quickstart").folder


@pytest.fixture
def forged(honest: Path, tmp_path: Path) -> Forged:
    """Return a copy of it to edit."""
    return Forged(Path(shutil.copytree(honest, tmp_path / "quickstart")))


def scaled(factor: float) -> Callable[[Any], Any]:
    """Return a function that multiplies a number, or each of a list."""
    return lambda old: [factor * value for value in old] if isinstance(old, list) else factor * old


@unsealed("predictions", "accuracy is recorded as")
def edited_accuracy(made: Forged) -> Path:
    """The score of a run is 1 % higher than its predictions give."""
    made.edit(run := made.run("lora", 1), metrics__test_accuracy=scaled(1.01))
    return run


@unsealed("hashes", "points.jsonl is not the file that was recorded")
def cut_points(made: Forged) -> Path:
    """The last points of a run are missing."""
    edit_points(run := made.run("full", 0), lambda points: points[:-3])
    return run


@unsealed("hashes", "predictions.parquet is not the file that was recorded")
def cut_predictions(made: Forged) -> Path:
    """The last rows of a run's predictions are missing."""
    edit_predictions(run := made.run("full", 0), lambda rows: rows[:900])
    return run


@unsealed("hashes", "run.json is not readable as JSON")
def torn_record(made: Forged) -> Path:
    """A record ends in the middle."""
    path = (run := made.run("head", 2)) / "run.json"
    path.write_text(path.read_text()[:2000])
    return run


@unsealed("ids", "copied or renamed")
def copied_folder(made: Forged) -> Path:
    """A run's folder lies there twice, the second under another name."""
    return made.copy(made.run("lora", 0), "lora-s9-0123456789")


@unsealed("planned", "no readable record")
def deleted_failure(made: Forged) -> str:
    """A run that failed is deleted."""
    made.edit(run := made.run("head", 1), status="failed", metrics={}, error={"kind": "E", "message": "no"})
    shutil.rmtree(run)
    return "suite.json: declares head with seed 1"


@unsealed("hashes", "and no run.json")
def deleted_record(made: Forged) -> Path:
    """The record of a run is deleted, and its points are left."""
    ((run := made.run("head", 1)) / "run.json").unlink()
    return run


@unsealed("plain files", "is a link")
def linked_file(made: Forged) -> str:
    """A file is a link to another one."""
    run, other = made.run("lora", 0), made.run("lora", 1)
    (run / "points.jsonl").rename(made.folder / "kept.jsonl")
    (run / "points.jsonl").symlink_to(os.path.relpath(made.folder / "kept.jsonl", other))
    return f"{run.name}/points.jsonl"


@unsealed("private paths", HOME)
def home_in_a_note(made: Forged) -> str:
    """A note of a run names somebody's home folder."""
    made.edit(run := made.run("lora", 0), notes__data=f"from {HOME}/data.csv")
    return f"{run.name}/run.json:"


@unsealed("private paths", HOME)
def home_in_a_log(made: Forged) -> str:
    """A log names somebody's home folder."""
    ((run := made.run("lora", 0)) / "rank0.log").write_text(f"one line\nWarning: {HOME}/.venv/lib/x.py\n")
    return f"{run.name}/rank0.log:2"


@unsealed("secrets", "a Hugging Face token")
def token_in_a_note(made: Forged) -> str:
    """A note of a run holds a token."""
    made.edit(run := made.run("lora", 0), notes__data=f"token {TOKEN}")
    return f"{run.name}/run.json:"


@unsealed("secrets", "an AWS key id")
def aws_key_in_a_log(made: Forged) -> str:
    """A log holds a key id."""
    (made.folder / "sweep.log").write_text(f"key {AWS}\n")
    return "sweep.log:1"


@unsealed("secrets", "a Weights & Biases key")
def wandb_key_in_a_log(made: Forged) -> str:
    """A log holds a key of Weights & Biases."""
    (made.folder / "sweep.log").write_text(f"{WANDB}\n")
    return "sweep.log:1"


@unsealed("dates", "is to come")
def to_come(made: Forged) -> Path:
    """A run began in three days."""
    began = datetime.now(UTC) + timedelta(days=3)
    made.edit(run := made.run("lora", 0), started=began.isoformat(timespec="seconds"))
    return run


@unsealed("dates", "while")
def side_by_side(made: Forged) -> Path:
    """Two runs of one sweep began at one time on one host."""
    first, second = sorted(made.runs, key=lambda run: record_of(run)["started"])[:2]
    made.edit(second, started=record_of(first)["started"], seconds=record_of(first)["seconds"])
    return max(first, second)


@unsealed("suite", "margins")
def renamed_margin(made: Forged) -> str:
    """The margin was widened once the results were known."""
    made.suite(margin={"quality": 0.05, "cost": 0.05})
    return "suite.json declares quality 0.05"


@unsealed("suite", "suite.json none")
def other_suite_file(made: Forged) -> str:
    """A suite file beside the runs declares another margin."""
    text = json.loads((made.folder / "suite.json").read_text())
    for entry in text["methods"].values():
        entry.pop("optimizer"), entry.pop("method")
    (made.folder / "suite.yaml").write_text(json.dumps(text | {"margin": {"quality": 0.03, "cost": 0.05}}))
    return "suite.yaml: has margin.quality 0.03"


@unsealed("set aside", "was whole")
def repeated_until_it_pleased(made: Forged) -> str:
    """A whole run is set aside, and another result of it stands in its place."""
    run = made.run("lora", 0)
    aside = Path(shutil.copytree(run, made.folder / "set-aside" / f"{run.name}.1"))
    (aside / "run.json").rename(aside / "run.json.damaged")
    return f"set-aside/{run.name}.1"


@unsealed("set aside", "no run took its place")
def set_aside_for_good(made: Forged) -> str:
    """A run is set aside and was not done again."""
    run = made.run("lora", 0)
    (made.folder / "set-aside").mkdir()
    run.rename(made.folder / "set-aside" / f"{run.name}.1")
    return f"set-aside/{run.name}.1"


@unsealed("ids", "is not that of its settings, method and seed")
def other_rate_same_id(made: Forged) -> Path:
    """A run's learning rate is edited, and its id is left."""
    made.edit(run := made.run("lora", 0), spec__method__lr=0.001)
    return run


@unsealed("passed", "self-check failed")
def self_checks_failed(made: Forged) -> Path:
    """The self-checks of a run failed."""
    made.edit(run := made.run("lora", 0), checks=lambda checks: [c | {"passed": False} for c in checks])
    return run


@sealed("predictions", "macro-f1 is recorded as")
def edited_metric(made: Forged) -> Path:
    """Another score of a run is 1 % higher than its predictions give."""
    made.edit(run := made.run("lora", 1), metrics__test_macro_f1=scaled(1.01))
    return made.seal(run)[0]


@sealed("copies", "all but one are copies")
def copied_to_another_seed(made: Forged) -> Path:
    """A run is copied in place of another seed's."""
    shutil.rmtree(made.run("lora", 2))
    made.edit(copy := made.copy(made.run("lora", 1), "copy"), spec__seed=2)
    return made.seal(copy)[0]


@sealed("copies", "its points.jsonl is that of")
def copied_to_another_method(made: Forged) -> Path:
    """A run is copied in place of another method's."""
    other = record_of(made.run("head", 1))["spec"]["method"]
    shutil.rmtree(made.run("head", 1))
    made.edit(copy := made.copy(made.run("lora", 1), "copy"), spec__method=other)
    return made.seal(copy)[0]


@sealed("consumption", "order")
def shifted_seeds(made: Forged) -> Path:
    """The runs of a method stand under each other's seeds."""
    runs = [made.run("full", seed) for seed in range(3)]
    for seed, run in enumerate(runs):
        made.edit(run, spec__seed=(seed + 1) % 3)
    return made.seal(*runs)[0]


@sealed("predictions", "its predictions give")
def swapped_predictions(made: Forged) -> Path:
    """Two methods' predictions are swapped."""
    one, other = made.run("full", 0) / "predictions.parquet", made.run("head", 0) / "predictions.parquet"
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return made.seal(one.parent, other.parent)[0]


@sealed("predictions", "the labels beside its predictions")
def other_labels(made: Forged) -> Path:
    """The labels beside a run's predictions are those that it predicts."""
    edit_predictions(run := made.run("lora", 0), lambda rows: rows.assign(reference=rows.prediction))
    made.edit(run, metrics__test_accuracy=1.0, metrics__test_macro_f1=1.0)
    return made.seal(run)[0]


@sealed("protocol", "other data")
def other_data(made: Forged) -> Path:
    """A run is of other data."""
    made.edit(run := made.run("lora", 0), digests__data="d" * 64)
    return made.seal(run)[0]


@sealed("suite", "method ours, which suite.json doesn't have")
def renamed_method(made: Forged) -> Path:
    """A method has another name than in the suite."""
    runs = [made.run("lora", seed) for seed in range(3)]
    made.edit(*runs, spec__method__name="ours")
    return made.seal(*runs)[0]


@sealed("self checks", "99 training losses written for 100 steps")
def steps_left_out(made: Forged) -> Path:
    """The last step has no training loss."""

    def shorter(points: list[Any]) -> list[Any]:
        return [point for point in points if point["step"] != 100 or point["metric"] == "step_seconds"]

    edit_points(run := made.run("full", 0), shorter)
    return made.seal(run)[0]


@sealed("predictions", "of 1,000 test rows")
def hard_rows_left_out(made: Forged) -> Path:
    """Some rows that a run gets wrong are left out."""

    def easier(rows: Any) -> Any:
        return rows[(rows.reference == rows.prediction) | (rows.index >= 100)]

    edit_predictions(run := made.run("lora", 0), easier)
    return made.seal(run)[0]


@sealed("times", "its train_seconds is recorded as")
def shorter_time(made: Forged) -> Path:
    """A run's training time is 10 % less than its points give."""
    made.edit(run := made.run("lora", 0), metrics__train_seconds=scaled(0.9))
    return made.seal(run)[0]


@sealed("steps", "times that their ranks' don't give")
def shorter_steps(made: Forged) -> Path:
    """Every step of a run is 10 % quicker, and so are its times and rates."""

    def quicker(points: list[Any]) -> list[Any]:
        return [p | {"value": 0.9 * p["value"]} if p["metric"] == "step_seconds" else p for p in points]

    edit_points(run := made.run("lora", 0), quicker)
    rates = dict.fromkeys(("samples_per_second", "tokens_per_second", "padded_tokens_per_second"), 1 / 0.9)
    times = dict.fromkeys(("train_seconds", "train_seconds_second_clock", "timed_seconds"), 0.9)
    made.edit(run, **{f"metrics__{name}": scaled(factor) for name, factor in (rates | times).items()})
    return made.seal(run)[0]


@sealed("times", "its samples_per_second is recorded as")
def higher_throughput(made: Forged) -> Path:
    """A run's throughput is 10 % more than its points give."""
    made.edit(run := made.run("lora", 0), metrics__samples_per_second=scaled(1.1))
    return made.seal(run)[0]


@sealed("figures", "its tokens_per_second is recorded as")
def higher_token_rate(made: Forged) -> Path:
    """A run's tokens/s are 10 % more than its points give."""
    made.edit(run := made.run("lora", 0), metrics__tokens_per_second=scaled(1.1))
    return made.seal(run)[0]


@sealed("ranks", "its peak_memory_mb is recorded as")
def less_memory(made: Forged) -> Path:
    """A run's peak memory is 10 % less than that of its largest rank."""
    made.edit(run := made.run("lora", 0), metrics__peak_memory_mb=scaled(0.9))
    return made.seal(run)[0]


@sealed("figures", "its peak_memory_over_setup_mb is recorded as")
def less_memory_of_ranks(made: Forged) -> Path:
    """Each rank needs half the memory, but for what it held before and at its peak."""
    run = made.run("lora", 0)
    made.edit(run, metrics__peak_memory_over_setup_mb=scaled(0.5), per_rank__peak_memory_over_setup_mb=scaled(0.5))
    return made.seal(run)[0]


@sealed("ranks", "lacks the ranks' own values")
def memory_without_ranks(made: Forged) -> Path:
    """The ranks' own values are left out."""
    made.edit(run := made.run("lora", 0), per_rank={})
    return made.seal(run)[0]


@sealed("rates", "its method and schedule give")
def other_rate(made: Forged) -> Path:
    """A method has another learning rate, in the suite too."""
    runs = [made.run("lora", seed) for seed in range(3)]
    made.edit(*runs, spec__method__lr=0.001)
    methods = json.loads((made.folder / "suite.json").read_text())["methods"]
    made.suite(methods=methods | {"lora": methods["lora"] | {"lr": 0.001}})
    return made.seal(*runs)[0]


@sealed("protocol", "weight_decay 0.1 instead of 0.0")
def other_setting(made: Forged) -> Path:
    """A run has another setting than the others."""
    made.edit(run := made.run("lora", 0), spec__settings__weight_decay=0.1)
    return made.seal(run)[0]


@sealed("rates", "its method and schedule give")
def other_setting_everywhere(made: Forged) -> Path:
    """All runs and the suite have another schedule."""
    made.edit(*made.runs, spec__settings__schedule="cosine")
    settings = json.loads((made.folder / "suite.json").read_text())["settings"]
    made.suite(settings=settings | {"schedule": "cosine"})
    return made.seal()[0]


@sealed("environment", "packages.torch 2.12.0 instead of")
def other_versions(made: Forged) -> Path:
    """A run was made with another torch."""
    made.edit(run := made.run("lora", 0), environment__packages__torch="2.12.0")
    return made.seal(run)[0]


@sealed("environment", "not that of its hardware")
def other_hardware(made: Forged) -> Path:
    """A run names another processor."""
    made.edit(run := made.run("lora", 0), environment__hardware__cpu="Example CPU")
    return made.seal(run)[0]


@sealed("environment", "lacks hardware")
def no_environment(made: Forged) -> Path:
    """A run doesn't say on what it ran."""
    made.edit(run := made.run("lora", 0), environment={})
    return made.seal(run)[0]


@sealed("consumption", "steps 99 instead of 100")
def smaller_budget(made: Forged) -> Path:
    """A run took a step less."""
    made.edit(run := made.run("lora", 0), consumed__steps=99, consumed__samples=1584)
    return made.seal(run)[0]


@sealed("consumption", "order")
def other_order(made: Forged) -> Path:
    """A run read its samples in another order than the others of its seed."""
    made.edit(run := made.run("lora", 0), consumed__order="0" * 16)
    return made.seal(run)[0]


@sealed("once each", "2 records of lora with seed 0")
def second_record(made: Forged) -> Path:
    """A method and seed has two records, with other options."""
    made.edit(copy := made.copy(made.run("lora", 0), "copy"), spec__method__options__r=4)
    return made.seal(copy)[0]


@sealed("self checks", "fails the self-check training loss")
def lower_losses(made: Forged) -> Path:
    """A run's training losses are half of what they were."""

    def lower(points: list[Any]) -> list[Any]:
        return [p | {"value": 0.5 * p["value"]} if p["metric"] == "train_loss" else p for p in points]

    edit_points(run := made.run("lora", 0), lower)
    return made.seal(run)[0]


@sealed("figures", "its grad_norm is recorded as")
def lower_norms(made: Forged) -> Path:
    """A run's gradient norm is half of what its points give."""
    made.edit(run := made.run("lora", 0), metrics__grad_norm=scaled(0.5))
    return made.seal(run)[0]


@sealed("steps", "consumed 33,000 real tokens")
def fewer_tokens(made: Forged) -> Path:
    """All runs of a seed consumed fewer tokens than their points have."""
    made.edit(*(runs := [path for path in made.runs if "-s0-" in path.name]), consumed__real_tokens=33_000)
    return made.seal(*runs)[0]


@sealed("batches", "other numbers of tokens than most runs of seed 0")
def moved_tokens(made: Forged) -> Path:
    """Tokens of some steps are counted in others, to the same sum."""

    def moved(points: list[Any]) -> list[Any]:
        steps = [p for p in points if p["metric"] == "step_seconds"]
        steps[0]["real_tokens"] -= 8
        steps[2]["real_tokens"] += 6
        steps[3]["real_tokens"] += 2
        steps[3]["tokens"] += 8
        steps[0]["tokens"] -= 8
        return points

    edit_points(run := made.run("lora", 0), moved)
    return made.seal(run)[0]


@sealed("sizes", "its saved_bytes is")
def smaller_size(made: Forged) -> Path:
    """A run's saved size is half of its method's other ones."""
    made.edit(run := made.run("lora", 0), metrics__saved_bytes=scaled(0.5))
    return made.seal(run)[0]


@sealed("metrics", "its score is test_macro_f1")
def other_headline(made: Forged) -> Path:
    """All runs are ranked by another metric."""
    made.edit(*made.runs, headline="test_macro_f1")
    return made.seal()[0]


@sealed("definitions", "the score is test_macro_f1")
def other_headline_of_one(made: Forged) -> Path:
    """One run is ranked by another metric."""
    made.edit(run := made.run("lora", 0), headline="test_macro_f1")
    return made.seal(run)[0]


@sealed("definitions", "saved_bytes has better higher instead of lower")
def turned_definition(made: Forged) -> Path:
    """One run calls the larger size better."""

    def turned(definitions: list[Any]) -> list[Any]:
        return [d | {"better": "higher"} if d["name"] == "saved_bytes" else d for d in definitions]

    made.edit(run := made.run("lora", 0), definitions=turned)
    return made.seal(run)[0]


def redefined(made: Forged, name: str, **fields: Any) -> Path:
    """Give a metric other fields in all records."""

    def changed(definitions: list[Any]) -> list[Any]:
        return [d | fields if d["name"] == name else d for d in definitions]

    made.edit(*made.runs, definitions=changed)
    return made.seal()[0]


@sealed("definitions", "test_accuracy has better lower instead of higher")
def turned_score(made: Forged) -> Path:
    """All runs call the lower score better."""
    return redefined(made, "test_accuracy", better="lower")


@sealed("definitions", "test_accuracy has better lower instead of higher")
def turned_score_in_other_words(made: Forged) -> Path:
    """All runs call the lower score better, and define it in other words."""
    return redefined(made, "test_accuracy", better="lower", definition="Share of rows that are right.")


@sealed("definitions", "train_seconds has better higher instead of lower")
def turned_cost(made: Forged) -> Path:
    """All runs call the longer training better."""
    return redefined(made, "train_seconds", better="higher")


@sealed("definitions", "test_accuracy has title")
def renamed_score(made: Forged) -> Path:
    """The score has another title in all runs."""
    return redefined(made, "test_accuracy", title="accuracy on unseen domains")


@sealed("definitions", "test_accuracy has bounds")
def wider_bounds(made: Forged) -> Path:
    """The score has no bounds in any run, which margins and intervals follow from."""
    return redefined(made, "test_accuracy", bounds=[None, None])


@sealed("definitions", "peak_memory_mb has over_ranks mean instead of max")
def other_reduction(made: Forged) -> Path:
    """A peak over the ranks is said to be their mean."""
    return redefined(made, "peak_memory_mb", over_ranks="mean")


@sealed("scores", "have a score that their answers don't give")
def scores_of_another_run(made: Forged) -> Path:
    """The rows' scores are those of another run."""
    import pandas as pd

    other = pd.read_parquet(made.run("full", 0) / "predictions.parquet")
    edit_predictions(run := made.run("lora", 0), lambda rows: rows.assign(score=other.score))
    return made.seal(run)[0]


@sealed("self checks", "lacks the self-check second clock")
def self_check_removed(made: Forged) -> Path:
    """A self-check is left out."""
    made.edit(run := made.run("lora", 0), checks=lambda checks: [c for c in checks if c["name"] != "second clock"])
    return made.seal(run)[0]


@sealed("evaluations", "3 validation losses")
def evaluation_left_out(made: Forged) -> Path:
    """A validation is left out."""

    def shorter(points: list[Any]) -> list[Any]:
        return [p for p in points if not (p["metric"].startswith("validation") and p["step"] == 75)]

    edit_points(run := made.run("lora", 0), shorter)
    return made.seal(run)[0]


@sealed("suite", "the runs were made for 3")
def seed_left_out(made: Forged) -> str:
    """A seed is deleted, and the suite declares one less."""
    for run in [run for run in made.runs if "-s2-" in run.name]:
        shutil.rmtree(run)
    made.suite(seeds=2)
    return "suite.json: declares 2 seeds"


@sealed("answers", "predicts as")
def answers_of_the_best_seed(made: Forged) -> Path:
    """A seed has the predictions of a better one, with scores and self-checks."""
    best, run = made.run("lora", 1), made.run("lora", 0)
    shutil.copy(best / "predictions.parquet", run)
    scores = {name: value for name, value in record_of(best)["metrics"].items() if name.startswith("test_")}
    made.edit(run, **{f"metrics__{name}": value for name, value in scores.items()})
    return made.seal(run)[0]


@sealed("passed", "is called invalid for budget, which it passes")
def called_invalid(made: Forged) -> Path:
    """A run that ended well is called invalid, so that it isn't compared."""

    def without(checks: list[Any]) -> list[Any]:
        return [check | {"passed": check["name"] != "budget"} for check in checks]

    made.edit(run := made.run("lora", 0), status="invalid", checks=without)
    return made.seal(run)[0]


@sealed("unfinished", "ended as failed and yet has")
def called_failed(made: Forged) -> Path:
    """A run that ended well is called failed, so that it isn't compared."""
    error = {"kind": "RuntimeError", "message": "out of luck"}
    made.edit(run := made.run("lora", 0), status="failed", error=error)
    return made.seal(run)[0]


def without_score(made: Forged, status: str) -> Path:
    """Call a run that ended well otherwise, without metrics and self-checks; its files are left."""
    error = {"kind": "RuntimeError", "message": "out of luck"}
    made.edit(run := made.run("lora", 1), status=status, metrics={}, per_rank={}, checks=[], consumed=None, error=error)
    return made.seal(run)[0]


@sealed("unfinished", "ended as unsupported, which a run does earlier, and has predictions.parquet")
def called_unsupported(made: Forged) -> Path:
    """A run that ended well is called one that the method refused."""
    return without_score(made, "unsupported")


@sealed("unfinished", "ended as diverged, which a run does earlier, and has points of all its steps")
def called_diverged(made: Forged) -> Path:
    """A run that ended well is called one that diverged, and its predictions are deleted."""
    (made.run("lora", 1) / "predictions.parquet").unlink()
    return without_score(made, "diverged")


@sealed("wall time", "took 2 s")
def shorter_run(made: Forged) -> Path:
    """A run took less time than its phases."""
    made.edit(run := made.run("lora", 0), seconds=2.0)
    return made.seal(run)[0]


@sealed("places", "ran in the order")
def other_places(made: Forged) -> str:
    """Two runs of a seed are said to have changed places."""
    one, other = made.run("lora", 0), made.run("full", 0)
    first, second = record_of(one)["place"], record_of(other)["place"]
    made.edit(one, place=second)
    made.edit(other, place=first)
    made.seal(one, other)
    return "seed 0"


@sealed("labels", "has the labels World, Business")
def other_names_of_labels(made: Forged) -> Path:
    """A run has its labels in another order."""
    made.edit(run := made.run("lora", 0), label_names=["World", "Business", "Sports", "Sci/Tech"])
    return made.seal(run)[0]


@sealed("self checks", "trained parameters, and its self-check counted")
def smaller_method(made: Forged) -> Path:
    """A method is said to train fewer parameters."""
    runs = [made.run("lora", seed) for seed in range(3)]
    made.edit(*runs, metrics__trainable_parameters=1000.0)
    return made.seal(*runs)[0]


def test_an_honest_folder_is_accepted(forged: Forged) -> None:
    """Of what a folder without a page can't show, a line says that it isn't checked."""
    made = verify(forged.folder)
    assert [check for check in made.checks if check.state == "failed"] == []
    assert [check.name for check in made.checks if check.state == "not checked"] == ["sample order", "page"]


@pytest.mark.parametrize(
    ("forge", "name", "words"), [*UNSEALED, *SEALED], ids=lambda case: getattr(case, "__name__", "")
)
def test_a_forgery_is_named(forge: Callable[[Forged], Path | str], name: str, words: str, forged: Forged) -> None:
    """A line of the check says what is wrong and where; the folder is not consistent."""
    where = forge(forged)
    made = verify(forged.folder)
    assert not made.consistent
    lines = [check.finding for check in made.checks if check.state == "failed" and check.name == name]
    place = where.name if isinstance(where, Path) else where
    assert [line for line in lines if words in line and place in line], made.checks


def test_a_metric_in_other_words_is_not_compared(forged: Forged) -> None:
    """Another version may define it otherwise: a line names it, the score first, and refuses nothing."""
    redefined(forged, "test_accuracy", definition="Share of rows that are right.", title="share right")
    found = [check for check in verify(forged.folder).checks if check.name == "definitions"]
    assert [(check.state, check.finding.partition(":")[0]) for check in found] == [("not checked", "test_accuracy")]


@pytest.mark.parametrize("lacking", [None, "predictions.parquet", "points.jsonl"])
def test_a_failed_run_that_was_trained_is_named(lacking: str | None, forged: Forged) -> None:
    """A probe may fail once the test rows are predicted: a line says that only the error tells why it has no score."""
    if lacking:
        (forged.run("lora", 1) / lacking).unlink()
    run = without_score(forged, "failed")
    found = [check for check in verify(forged.folder).checks if check.name == "unfinished"]
    assert [check.state for check in found] == ["not checked"]
    assert found[0].finding.startswith(f"{run.name}: ended as failed once it was trained, and has ")


def test_a_run_that_failed_on_the_way_is_a_failure(forged: Forged) -> None:
    """It has points of some steps, and no predictions."""
    (forged.run("lora", 1) / "predictions.parquet").unlink()
    edit_points(forged.run("lora", 1), lambda points: [point for point in points if point["step"] < 60])
    for status in ("failed", "diverged"):
        without_score(forged, status)
        assert [check.state for check in verify(forged.folder).checks if check.name == "unfinished"] == ["ok"]


def test_an_invalid_run_has_a_place(forged: Forged) -> None:
    """It fails a self-check again, and is in no number."""
    run = forged.run("lora", 0)
    forged.edit(run, status="invalid", metrics__train_loss=scaled(2.0))
    forged.edit(run, checks=lambda checks: [c | {"passed": c["name"] != "training loss"} for c in checks])
    assert [check for check in verify(forged.folder).checks if check.state == "failed"] == []


def test_a_single_rank_has_no_values_of_its_own(forged: Forged) -> None:
    """The run's values are its own; what it needed for training follows from them."""
    forged.edit(run := forged.run("lora", 0), spec__settings__world_size=1, per_rank={})
    alone = RunFiles.read(forged.folder, load_record(run / "run.json"))
    assert list(figures.ranks(alone)) == []
    forged.edit(run, metrics__peak_memory_over_setup_mb=scaled(0.5))
    alone = RunFiles.read(forged.folder, load_record(run / "run.json"))
    assert "its peak_memory_over_setup_mb is recorded as" in " ".join(figures.figures(alone))


def test_every_check_has_a_forgery() -> None:
    """Thirty and more, twenty of them with all hashes recomputed; the page's are in tests/cli."""
    assert len(SEALED) >= 20
    assert len(SEALED) + len(UNSEALED) >= 30
    named = {name.replace(" ", "_") for _, name, _ in (*SEALED, *UNSEALED)}
    assert named == {check.__name__ for check in ALL} - {"sample_order", "page"}


def test_no_line_shows_a_secret(forged: Forged) -> None:
    """It says which kind and where, in the terminal and in verified.json."""
    token_in_a_note(forged)
    made = verify(forged.folder)
    text = made.write().read_text()
    assert "Hugging Face" in text
    assert TOKEN[4:] not in text


def test_reference_answers_are_compared(tmp_path: Path) -> None:
    """Texts are scored against the expected ones beside them: one run's can't differ."""
    made = Forged(Path(shutil.copytree(REFERENCE / "chat", tmp_path / "chat")))
    for path in made.folder.glob("report.*"):
        path.unlink()
    shutil.rmtree(made.folder / "tables")
    run = made.run("lora", 0)
    edit_predictions(run, lambda rows: rows.assign(said_expected=rows.said_answer, score=1.0))
    made.edit(run, metrics__test_score=1.0)
    made.seal(run)
    lines = [check.finding for check in verify(made.folder).checks if check.name == "predictions"]
    assert lines == [f"{run.name}: not believed: the texts beside its predictions are not those of the other runs"]
