"""Files of scores of every kind that `compare` reads, always the same, and calls on them."""

import csv
import io
import json
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from net_cases import Case

Line = dict[str, Any]
ACCURACIES = {"mistral": 0.62, "gemma": 0.6, "qwen": 0.8}
FORMATS = "--format html,md,csv,tex"
MARGINS = "--margin 0.2 --range 0,1"
DATE = "2026-11-28T04-51-58.914743"
"""Date in the names of lm-evaluation-harness's files."""


def chance_of(name: str) -> float:
    """Return a number from 0 to 1 that looks random, and is always the same for a name."""
    return random.Random(name).random()  # noqa: S311 - made-up scores are no secret


def right_or_wrong(rows: int = 200, **more: Any) -> list[Line]:
    """Return a line for each system and row; a row is about as hard for all systems."""
    lines = []
    for row in range(rows):
        ease = chance_of(f"row {row}")
        for system, accuracy in ACCURACIES.items():
            chance = chance_of(f"{system} {row} {more}")
            right = 0.8 * ease + 0.2 * chance < accuracy
            lines.append({"system": system, "row": f"q{row}", "score": int(right)} | more)
    return lines


def real(rows: int = 200, **more: Any) -> list[Line]:
    """Return scores between 0 and 1 of each system and row."""
    lines = []
    for line in right_or_wrong(rows=rows, **more):
        noise = chance_of(f"{line} real")
        lines.append(line | {"score": round(0.4 * line["score"] + 0.6 * noise, 6)})
    return lines


def with_seeds(lines_of_seed: Any, seeds: Iterable[int]) -> list[Line]:
    """Return runs of several seeds, each with two costs that are the same in all its lines."""
    found = []
    for seed in seeds:
        for line in lines_of_seed(seed=seed):
            pace = chance_of(f"{line['system']} {seed}")
            weight = len(str(line["system"]))
            costs = {"seconds": round(10 * weight + pace, 3), "dollars": round(weight / 100, 2)}
            found.append(line | costs | {"host": "n1"})
    return found


def separated(lines: Sequence[Line], separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def json_lines(lines: Iterable[Line]) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def parquet(lines: Sequence[Line]) -> bytes:
    import pandas as pd

    content = io.BytesIO()
    pd.DataFrame(lines).to_parquet(content, index=False)
    return content.getvalue()


def renamed(lines: Iterable[Line], names: Mapping[str, str]) -> list[Line]:
    return [{names.get(key, key): value for key, value in line.items()} for line in lines]


def wide(lines: Iterable[Line]) -> list[Line]:
    """Return a line for each row with a column for each system."""
    rows: dict[str, Line] = {}
    for line in lines:
        rows.setdefault(line["row"], {"row": line["row"]})[line["system"]] = line["score"]
    return list(rows.values())


def with_name(lines: Iterable[Line], system: str, name: str) -> list[Line]:
    """Return the lines with another name of a system."""
    return [line | {"system": name} if line["system"] == system else line for line in lines]


def without(lines: Iterable[Line], system: str, rows: Iterable[int]) -> list[Line]:
    """Return the lines without some rows of a system."""
    missing = {f"q{row}" for row in rows}
    return [line for line in lines if line["system"] != system or line["row"] not in missing]


def means(with_rows: bool) -> list[Line]:
    counted = {"rows": 900} if with_rows else {}
    return [{"system": system, "score": score} | counted for system, score in ACCURACIES.items()]


def of_lm_eval(model: str, accuracy: float, tasks: Sequence[str], **config: Any) -> dict[str, str]:
    """Return files as lm-evaluation-harness writes them: a model's results, and samples."""
    files, results = dict[str, str](), dict[str, Any]()
    for task in tasks:
        lines = list[Line]()
        for number in range(60):
            ease = chance_of(f"{task} {number}")
            right = 0.8 * ease + 0.2 * chance_of(f"{model} {task} {number}") < accuracy
            document = {"question": f"question {number}", "passage": f"passage {number // 4}"}
            for answers in ("none", "strict-match"):
                scores = {"acc": float(right), "acc_norm": float(right or number % 9 == 0)}
                lines.append(
                    {
                        "doc_id": number,
                        "doc": document,
                        "target": "1",
                        "arguments": {},
                        "resps": [["1"]],
                        "filtered_resps": ["1"],
                        "filter": answers,
                        "metrics": ["acc", "acc_norm"],
                        "doc_hash": f"{task}-{number}",
                        **scores,
                    }
                )
        files[f"{model}/samples_{task}_{DATE}.jsonl"] = json_lines(lines)
        mean = sum(line["acc"] for line in lines) / len(lines)
        results[task] = {"alias": task, "acc,none": mean, "acc,strict-match": mean}
    counted = {task: {"original": 60, "effective": 60} for task in tasks}
    directions = {"acc": True, "acc_norm": True}
    whole = {
        "results": results,
        "model_name": model,
        "n-samples": counted,
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 2),
        "higher_is_better": dict.fromkeys(tasks, directions),
        "config": {"model": "hf", "model_args": f"pretrained={model}", "limit": None, **config},
        "group_subtasks": {"mmlu": [task for task in tasks if task.startswith("mmlu_")]},
    }
    return files | {f"{model}/results_{DATE}.json": json.dumps(whole)}


def of_peft(
    experiment: str,
    seed: int,
    accuracy: float,
    status: str = "success",
    images: bool = False,
) -> str:
    """Return a result file of PEFT's method comparison."""
    score = "test dino_similarity" if images else "test accuracy"
    pace = chance_of(f"{experiment} {seed}")
    windows: list[Line] = [
        {"step": step, "train samples": 4 * step, "train time": 2 + pace, "train loss": 1 / step}
        for step in (10, 20, 30)
    ]
    final = {"step": 30, score: accuracy, "train loss": 0.5, "forgetting": pace, "drift": pace / 2}
    sources = {"metamath": {"sha": "abc"}, "gsm8k": {"sha": "def"}}
    whole = {
        "run_info": {
            "created_at": "2026-01-02T03:04:05+00:00",
            "total_time": 90.5 + pace,
            "experiment_name": experiment,
            "error_msg": "" if status == "success" else "no memory",
            "train_config": {"model_id": "example/model-3B", "seed": seed, "max_steps": 30},
        },
        "train_info": {
            "accelerator_memory_reserved_avg": 1_500_000_000 + int(1e6 * pace),
            "accelerator_memory_max": 2_500_000_000 + int(1e7 * pace),
            "train_time": 70 + pace,
            "file_size": 4096 * len(experiment),
            "num_trainable_params": 1024 * len(experiment),
            "status": status,
            "metrics": [*windows, final] if status == "success" else windows,
        },
        "meta_info": {
            "dataset_info": {} if images else sources,
            "system_info": {"accelerator": "NVIDIA L40S"},
            "package_info": {"torch-version": "2.9.0"},
        },
    }
    return json.dumps(whole)


def of_metamath() -> dict[str, str]:
    files = {}
    for experiment, rate in (("lora/rank-8", 640), ("full/plain", 700), ("head/only", 300)):
        for seed in range(4):
            chance = int(20 * chance_of(f"{experiment} {seed}"))
            name = f"results/{experiment.replace('/', '-')}-{seed}.json"
            files[name] = of_peft(experiment, seed, (rate + chance) / 1319)
    failed = of_peft("lora/rank-999", 0, 0.0, "failed")
    return files | {"temporary_results/lora-rank-999.json": failed}


def file_formats() -> list[Case]:
    """Return the cases of tables in each format of file, with the columns that it names."""
    plain, scores = right_or_wrong(), real()
    names = {"system": "model_name", "row": "question_id", "score": "correct"}
    in_groups = [line | {"group": f"d{int(line['row'][1:]) // 5}"} for line in plain]
    several = [line | {"score": line["score"] / 2, "f1": line["score"]} for line in plain]
    return [
        Case(
            "csv",
            (f"compare scores.csv {FORMATS},pdf,png --out out",),
            {"scores.csv": separated(plain)},
        ),
        Case(
            "csv-by-default",
            ("compare scores.csv", "compare scores.csv"),
            {"scores.csv": separated(plain)},
        ),
        Case(
            "semicolons",
            (
                "compare s.csv --columns system=model_name,row=question_id,score=correct --out out",
                "compare s.csv --out guessed",
            ),
            {"s.csv": separated(renamed(plain, names), ";")},
        ),
        Case(
            "tsv-wide",
            (f"compare wide.tsv {MARGINS} {FORMATS} --out out",),
            {"wide.tsv": separated(wide(scores), "\t")},
        ),
        Case(
            "json",
            (f"compare scores.json --lower {FORMATS} --out out",),
            {"scores.json": json.dumps(scores)},
        ),
        Case(
            "jsonl-groups",
            (f"compare scores.jsonl {FORMATS} --out out",),
            {"scores.jsonl": json_lines(in_groups)},
        ),
        Case(
            "parquet-several-scores",
            (
                f"compare s.parquet --metric f1 {FORMATS} --out f1",
                "compare s.parquet --out score",
                "compare s.parquet --metric nothing",
            ),
            {"s.parquet": parquet(several)},
        ),
    ]


def scopes() -> list[Case]:
    """Return the cases of tables of each scope of verdicts: rows, seeds and rows, means."""
    scores = real()
    seeds = with_seeds(right_or_wrong, range(4))
    real_seeds = with_seeds(real, range(3))
    return [
        Case(
            "seeds-and-costs",
            (f"compare s.csv {FORMATS},pdf --out out",),
            {"s.csv": separated(seeds)},
        ),
        Case(
            "real-seeds",
            (f"compare s.csv {MARGINS} {FORMATS} --out out",),
            {"s.csv": separated(real_seeds)},
        ),
        Case(
            "one-seed-of-real-scores",
            (f"compare s.csv {FORMATS} --out out",),
            {"s.csv": separated(scores)},
        ),
        Case(
            "largest-difference",
            (
                f"compare s.csv --largest-difference 0.99 --range 0,1 {FORMATS} --out out",
                "compare s.csv --largest-difference 0.01 --range 0,1 --out small",
            ),
            {"s.csv": separated(scores)},
        ),
        Case(
            "means-independent",
            (
                f"compare means.csv --independent --range 0,1 {FORMATS} --out out",
                "compare means.csv --out untested",
            ),
            {"means.csv": separated(means(with_rows=True))},
        ),
        Case(
            "means-alone",
            (f"compare means.csv {FORMATS} --out out",),
            {"means.csv": separated(means(with_rows=False))},
        ),
    ]


def rows_apart() -> list[Case]:
    """Return the cases of tables whose rows are missing, of several data sets, or in two files."""
    plain, scores = right_or_wrong(), real()
    missing = without(without(plain, "gemma", range(10)), "qwen", range(5, 30))
    sets = list[Line]()
    for number in range(8):
        sets += right_or_wrong(rows=60, dataset=f"set {number}", seed=0)
    return [
        Case(
            "missing-rows",
            (
                "compare missing.csv --out refused",
                f"compare missing.csv --shared {FORMATS} --out out",
                f"compare missing.csv --shared --margin 0.3 {FORMATS} --out margin",
            ),
            {"missing.csv": separated(missing)},
        ),
        Case(
            "missing-real-rows",
            (
                f"compare missing.csv --shared {FORMATS} --out out",
                f"compare missing.csv --shared --range 0,1 --lower {FORMATS} --out lower",
            ),
            {"missing.csv": separated(without(scores, "gemma", range(3)))},
        ),
        Case(
            "data-sets",
            (f"compare sets.jsonl {FORMATS} --out out",),
            {"sets.jsonl": json_lines(sets)},
        ),
        Case(
            "two-files",
            (f"compare a.csv b.json {FORMATS} --out out",),
            {
                "a.csv": separated([line for line in plain if line["system"] != "qwen"]),
                "b.json": json.dumps([line for line in plain if line["system"] == "qwen"]),
            },
        ),
    ]


def other_tools() -> list[Case]:
    """Return the cases of tables as other tools write them, and of names that are code."""
    plain = right_or_wrong()
    trainer = [
        {
            "system": name,
            "seed": seed,
            "eval_accuracy": rate + seed / 1000 + len(name) / 2000,
            "train_runtime": 50.0 + len(name) + seed / 10,
            "train_samples_per_second": 9.0 + seed,
        }
        for name, rate in ACCURACIES.items()
        for seed in range(4)
    ]
    inspect = renamed(plain, {"system": "model", "row": "sample_id"})
    lighteval = [
        {
            "system": line["system"],
            "row": line["row"],
            "dataset": "leaderboard|arc:challenge|25",
            "acc": line["score"],
            "tokens": 7,
        }
        for line in plain
    ]
    hostile = with_name(plain, "qwen", "<script>alert(1)</script>|`x`\x1b[31m")
    return [
        Case(
            "trainer",
            (f"compare trainer.csv --metric eval_accuracy {FORMATS} --out out",),
            {"trainer.csv": separated(trainer)},
        ),
        Case(
            "inspect",
            (
                "compare inspect.jsonl --out asked",
                f"compare inspect.jsonl --columns system=model,row=sample_id {FORMATS} --out out",
            ),
            {"inspect.jsonl": json_lines(inspect)},
        ),
        Case(
            "lighteval",
            (f"compare lighteval.parquet --metric acc {FORMATS} --out out",),
            {"lighteval.parquet": parquet(lighteval)},
        ),
        Case(
            "hostile-names",
            (f"compare hostile.jsonl {FORMATS} --out out",),
            {"hostile.jsonl": json_lines(hostile)},
        ),
    ]


def repeated_looks() -> list[Case]:
    """Return the cases of tables that are looked at several times as they grow."""
    plain = right_or_wrong()
    sizes = {"a": 80, "b": 120, "c": 200}
    growing = {f"{name}.csv": separated(right_or_wrong(rows)) for name, rows in sizes.items()}
    return [
        Case(
            "looks-declared",
            (
                "compare a.csv --looks 3 --out out",
                "compare b.csv --looks 3 --out out",
                "compare c.csv --looks 4 --margin 0.02 --out out",
                "compare c.csv --look 5 --out out",
            ),
            growing,
        ),
        Case(
            "looks-counted",
            (
                "compare a.csv --out out",
                "compare b.csv --out out",
                "compare a.csv --out out",
                f"compare b.csv --metric score --range 0,1 {FORMATS} --out out",
            ),
            {f"{name}.csv": separated(real(rows)) for name, rows in (("a", 80), ("b", 120))},
        ),
        Case(
            "other-data-in-one-folder",
            ("compare a.csv --out out", "compare b.csv --out out"),
            {
                "a.csv": separated(plain),
                "b.csv": separated([line | {"row": f"other {line['row']}"} for line in plain]),
            },
        ),
    ]


def tables() -> list[Case]:
    """Return the cases of tables, in every format and of every scope of verdicts."""
    return [*file_formats(), *scopes(), *rows_apart(), *other_tools(), *repeated_looks()]


def cases() -> list[Case]:
    models = {"org/alpha": 0.6, "org/beta": 0.75}
    samples = dict[str, str]()
    for model, accuracy in models.items():
        tasks = ("drop", "mmlu_anatomy", "mmlu_law", "words")
        samples |= of_lm_eval(model, accuracy, tasks, fewshot_seed=1234)
    images = {
        f"results/{name}-{seed}.json": of_peft(name, seed, score + seed / 100, images=True)
        for name, score in (("lora", 0.5), ("oft", 0.6))
        for seed in range(3)
    }
    metamath = of_metamath()
    task_alone = " ".join(f"{model}/samples_words_{DATE}.jsonl" for model in models)
    return [
        *tables(),
        Case(
            "lm-eval",
            (
                f"compare org {FORMATS} --out out",
                "compare org --metric acc_norm,strict-match --out norm",
                f"compare {task_alone} --group passage --out grouped",
            ),
            samples,
        ),
        Case("lm-eval-kept", (f"compare lm_eval {FORMATS} --out out",), copies=("lm_eval",)),
        Case(
            "peft",
            (
                f"compare results temporary_results {FORMATS} --out out",
                "compare results --metric forgetting --out forgetting",
                f"compare results --independent {FORMATS} --out independent",
            ),
            metamath,
        ),
        Case("peft-images", (f"compare results {FORMATS} --out out",), images),
        Case(
            "results-of-ours",
            (
                f"compare quickstart {FORMATS} --out out",
                "compare quickstart --margin 0.1 --out margin",
                "report quickstart --format peft --out shaped",
                "compare shaped/peft --out peft",
            ),
            copies=("quickstart",),
        ),
        Case(
            "results-of-several-suites",
            (f"compare quickstart minilm {FORMATS} --out out",),
            copies=("quickstart", "minilm"),
        ),
        Case("results-of-texts", (f"compare faq {FORMATS} --out out",), copies=("faq",)),
        Case("results-of-programs", ("compare trainers --out out",), copies=("trainers",)),
    ]


def write_inputs(folder: Path, reference: Path) -> None:
    """Write what the cases copy: committed results, and real samples of lm-evaluation-harness."""
    for name in ("quickstart", "minilm", "faq", "trainers"):
        kept = shutil.ignore_patterns("report.*", "tables", "figures")
        shutil.copytree(reference / name, folder / name, ignore=kept)
    shutil.copytree(reference.parents[1] / "tests" / "files" / "lm_eval", folder / "lm_eval")
