"""Mistakes of users, in command lines and in small files: each has a sentence and a status.

None begins a run, also in a version that takes what is a mistake today: sweeps are dry runs.
"""

import gzip
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from net_cases import Case
from net_cases.compared import DATE, of_lm_eval, of_metamath, of_peft, right_or_wrong, separated

DRY = "--on manual --dry-run --out planned"

OPTIONS = """
nothing
--nothing
list
list nothing
list runs
list runs nowhere
list suites --nothing
run-all nothing
run-all nothing.yaml
run-all quickstart --seeds 0
run-all quickstart --seeds many
run-all quickstart --until never
run-all quickstart --max-seeds 2
run-all quickstart --nproc 0
run-all quickstart --device tpu
run-all quickstart --wandb sometimes
run-all quickstart --detach
run-all quickstart --dry-run
run-all quickstart --ahead
run-all quickstart --stall -1
run-all quickstart --run-timeout 0
run-all quickstart --retries 101
run-all quickstart --max-hours -1
run-all quickstart --checkpoint-steps 0
run-all quickstart --parallel 0
run-all quickstart --looks 101
run-all quickstart chat
run-all quickstart DRY --methods nothing
run-all quickstart DRY --methods ''
run-all quickstart DRY --until decided --seeds 3
run-all quickstart DRY --max-seeds 5
run-all quickstart DRY --looks 3 --until costs
run-all quickstart DRY --until decided --methods lora
run-all quickstart DRY --until decided --detach
run-all quickstart DRY --max-hours 1
run-all quickstart DRY --fail-fast
run-all quickstart DRY --prior nowhere
run-all quickstart DRY --track nothing
run-all quickstart DRY --track wandb=
run-all quickstart DRY --track wandb=sometimes
run-all quickstart DRY --track mlflow=on
run-all quickstart DRY --track tensorboard=x
run-all quickstart DRY --wandb online
run-all quickstart DRY --nproc 3
run-all quickstart DRY --device cuda
run-all trainers DRY
run-all quickstart --on nothing --dry-run
run-all quickstart --on '' --dry-run
run-all quickstart --on slurm --dry-run --nproc 3 --out planned
run-all ../quickstart
run-all 'a b'
run
run nothing
run lora nothing
run lora --seed -1
run lora --save . --seed x
run nothing quickstart --out out
run lora quickstart --set steps=0 --out out
tune nothing
tune quickstart --trials 0
tune quickstart --sampler grid
tune quickstart --range 1
tune quickstart --methods nothing
tune quickstart --write 'a b.yaml'
tune quickstart --write x.txt
report nowhere
report
report . --format word
report . --format ''
report . --format html,,word
report . --wandb x
report . --track
report . --track nothing
verify nowhere
verify
verify .
status nowhere
status .
stop nowhere
stop .
work nowhere
work nowhere --unit 0
work nowhere --unit 0 --prepare
work . --prepare
work . --unit -1
plan quickstart
plan quickstart --detect accuracy=1pp
plan nothing --detect accuracy=1pp
plan quickstart --detect accuracy=1pp --power x
fit nothing
fit quickstart --memory much
fit quickstart --memory 0GB
fit quickstart --methods nothing
fit quickstart --ranks 0
fit quickstart --set steps=x
preview nothing
preview quickstart --rows 0
preview quickstart --split all
preview quickstart --set max_length=0
score
score quickstart
score quickstart --system theirs
score quickstart --system theirs=nowhere
score quickstart --system theirs=http://a:b@c/v1#m
score quickstart --system theirs=http://c/v1#m,colour=red
score quickstart --system theirs=.,key=KEY
score quickstart --system theirs=http://c/v1#m,key=NO_SUCH_KEY
score quickstart --system a=. --concurrency 0
score quickstart --system a=. --timeout 0
doctor quickstart
doctor --nothing
check
check nothing --self-test
check --against a --self-test
check --self-test --slowdown 0%
check --self-test --slowdown much
check --self-test --slowdown 0.5%
check --self-test --trials 0
check --self-test --strict
check --self-test --json x.json
check --self-test --methods nothing
check --self-test --set steps=0
check --self-test --max-minutes 0
check --baseline nowhere.json
check --against nothing
check --against-env nowhere
baseline
baseline nothing
baseline save
baseline save nowhere/x.json --methods nothing
init
init --model nowhere
init --data nowhere.csv
init --model path:nowhere --data nowhere.csv
init --model embedded:nothing --data nowhere.csv
init --from-peft nowhere
init --from-peft . --model x
compare
compare nowhere.csv
compare .
"""
"""Command lines that need no files, one a line; DRY stands for the options of a dry run."""

OVERRIDES = """
steps
steps=
=5
steps=0
steps=-1
steps=many
steps=1.5
steps=[1]
step=5
a.b.c.d.e.f.g=1
steps.more=1
train_samples=0
train_samples=x
test_samples=-5
global_batch=0
global_batch=3
micro_batch=0
micro_batch=17
micro_batch=some
eval_batch=0
eval_every=0
log_every=-1
warmup_steps=-1
warmup_steps=1000
latency_samples=-1
world_size=0
world_size=x
device=tpu
threads=0
precision=fp8
precision=bf16 extra
weights=float64
weights=float16
quantization=int1
max_length=0
max_length=100000000000
dropout=1.5
dropout=-0.1
optimizer=nothing
optimizer.name=nothing
optimizer.options.colour=red
betas=[1,2]
betas=0.9
eps=0
weight_decay=-1
schedule=zigzag
lr_warmup=2
lr_decay=-1
clip_norm=0
head_lr=0
head_lr=fast
epochs=0
epochs=2
data_seed=-1
data_seed=x
vary_data=maybe
select=latest
rank_by=nothing
rank_by=rouge_l
task=nothing
task.name=nothing
task.options.colour=red
dataset=nothing
dataset.name=nothing
dataset.options.p=2
dataset.options.colour=red
backbone=nothing
backbone=
backbone=embedded:nothing
backbone=path:nowhere
backbone=hub:x
backbone=wheel:x
backbone=5
methods.lora.lr=0
methods.lora.lr=-1
methods.lora.lr=fast
methods.lora.options.r=0
methods.lora.options.r=x
methods.lora.options.colour=red
methods.lora.options.alpha=x
methods.lora.options.dropout=2
methods.lora.method=nothing
methods.nothing.lr=1
methods.adapter.options.placement=roof
methods.prompt_tuning.options.tokens=0
methods.lora.optimizer=nothing
seeds=0
seeds=x
margin.quality=0
margin.cost=2
margin.largest_difference=1
until=never
until.rounds=[1,2]
until.rounds=[5,4]
looks=0
name='a b'
description=[1]
validation_samples=0
gradient_checkpointing=perhaps
{steps: 5}
steps=!!python/x 1
steps=&a 1
steps={
generation_tokens=0
"""
"""Settings as `--set` gives them to a dry run of quickstart, one a line."""

LONG_OVERRIDES = ("steps=" + "9" * 400, "x" * 100 + "=1")

SUITE = """name: mine
settings: {backbone: "embedded:newswire-gpt2", dataset: newswire, train_samples: 64,
  test_samples: 32, steps: 8, global_batch: 8, world_size: 1, device: cpu}
methods: {lora: {lr: 0.002}}
"""


def with_method(method: str) -> str:
    """Return a suite with this entry of its method."""
    return SUITE.replace("lr: 0.002", method)


def with_rows(options: str) -> str:
    """Return a suite of rows in files, with these options of its data set."""
    dataset = f"dataset: {{name: text_files, options: {{{options}}}}}"
    return SUITE.replace("dataset: newswire", dataset)


SUITES: dict[str, str] = {
    "empty": "",
    "a-list": "[1, 2]",
    "a-text": "hello",
    "torn": "settings: {steps: 5",
    "a-tab": "settings:\n\tsteps: 5\n",
    "a-key-twice": "name: a\nname: b\n",
    "an-alias": "name: &a x\ndescription: *a\n",
    "a-tag": "name: !!python/object:os.system x\n",
    "deep": "settings: " + "[" * 200 + "]" * 200,
    "no-methods": SUITE.replace("methods: {lora: {lr: 0.002}}", "methods: {}"),
    "no-method-key": SUITE.replace("methods: {lora: {lr: 0.002}}", ""),
    "methods-a-list": SUITE.replace("{lora: {lr: 0.002}}", "[lora]"),
    "method-a-number": SUITE.replace("{lr: 0.002}", "5"),
    "unknown-method": SUITE.replace("lora:", "lorra:"),
    "unknown-method-of-a-name": with_method("lr: 0.002, method: lorra"),
    "unknown-option": with_method("lr: 0.002, options: {rank: 3}"),
    "no-rate": SUITE.replace("{lr: 0.002}", "{}"),
    "unknown-setting": SUITE.replace("steps: 8", "step: 8"),
    "unknown-key": SUITE + "colour: red\n",
    "no-settings": "name: mine\nmethods: {lora: {lr: 0.002}}\n",
    "a-name-with-blanks": SUITE.replace("name: mine", "name: my suite"),
    "a-long-name": SUITE.replace("name: mine", f"name: {'x' * 80}"),
    "a-batch-of-no-ranks": SUITE.replace("world_size: 1", "world_size: 3"),
    "margin-of-nothing": SUITE + "margin: {quality: 0}\n",
    "largest-difference": SUITE + "margin: {largest_difference: 0.5}\n",
    "looks-and-until": SUITE + "looks: 3\nuntil: decided\n",
    "falling-rounds": SUITE + "until: {rounds: [5, 4]}\n",
    "a-number-as-text": SUITE.replace("steps: 8", "steps: eight"),
    "an-infinite-rate": SUITE.replace("0.002", ".inf"),
    "a-date": SUITE.replace("steps: 8", "steps: 2026-01-02"),
    "a-program": with_method("lr: 0.002, method: command, options: {run: [echo, hello]}"),
    "a-program-without-words": with_method("lr: 0.002, method: command"),
    "a-trained-folder": with_method("method: trained, options: {path: nowhere}"),
    "peft-of-no-type": with_method("lr: 0.002, method: peft"),
    "peft-of-unknown-type": with_method("lr: 0.002, method: peft, options: {type: MAGIC}"),
    "no-such-file": with_rows("train: 'path:no.csv'"),
}
"""Content of a suite's file, by what is wrong with it."""

PROFILES: dict[str, str] = {
    "empty": "",
    "a-list": "[]",
    "no-engine": "parallel: 2\n",
    "unknown-engine": "engine: nothing\n",
    "unknown-key": "engine: slurm\ncolour: red\n",
    "no-jobs-at-a-time": "engine: slurm\nparallel: 0\n",
    "a-wrong-time": "engine: slurm\ntime: soon\n",
    "nodes-of-this-machine": "engine: local\nnodes: 2\n",
    "memory-of-this-machine": "engine: local\nmemory_per_node: 1GB\n",
    "nodes-without-ranks": "engine: slurm\nnodes: 5\n",
    "too-many-at-a-time": "engine: local\nparallel: 4000\n",
    "torn": "engine: {\n",
}
"""Content of a profile of `--on`, by what is wrong with it."""

HEAD = "text,label\n"
GOOD_ROWS = "".join(f"text {n} of this file,{'yes' if n % 2 else 'no'}\n" for n in range(120))
DATA: dict[str, tuple[str, str, str]] = {
    "empty": ("rows.csv", "", ""),
    "a-header-alone": ("rows.csv", HEAD, ""),
    "few-rows": ("rows.csv", HEAD + "a,yes\nb,no\n", ""),
    "one-class": ("rows.csv", HEAD + "a text,yes\n" * 120, ""),
    "no-label": ("rows.csv", "text,other\n" + GOOD_ROWS, ""),
    "unknown-label-column": ("rows.csv", HEAD + GOOD_ROWS, "label: topic"),
    "unknown-text-column": ("rows.csv", HEAD + GOOD_ROWS, "text: words"),
    "unknown-group": ("rows.csv", HEAD + GOOD_ROWS, "group: author"),
    "a-column-twice": ("rows.csv", "text,text\n" + GOOD_ROWS, ""),
    "label-names-that-lack-one": ("rows.csv", HEAD + GOOD_ROWS, "label_names: [yes]"),
    "label-names-twice": ("rows.csv", HEAD + GOOD_ROWS, "label_names: ['yes', 'yes']"),
    "a-torn-line": ("rows.csv", HEAD + 'a "text,yes\n' + GOOD_ROWS + '"', ""),
    "too-many-cells": ("rows.csv", HEAD + "a,b,c,d\n" + GOOD_ROWS, ""),
    "an-empty-label": ("rows.csv", HEAD + "a text,\n" + GOOD_ROWS, ""),
    "an-empty-text": ("rows.csv", HEAD + ",yes\n" + GOOD_ROWS, ""),
    "torn-json": ("rows.json", '[{"text": "a"', ""),
    "torn-jsonl": ("rows.jsonl", '{"text": "a", "label": "x"}\n{"text"', ""),
    "a-number-for-a-line": ("rows.jsonl", "5\n6\n", ""),
    "no-parquet": ("rows.parquet", "hello", ""),
    "an-unknown-ending": ("rows.docx", "hello", ""),
    "an-unknown-encoding": ("rows.csv", HEAD + GOOD_ROWS, "encoding: klingon"),
    "a-long-separator": ("rows.csv", HEAD + GOOD_ROWS, "sep: '||||'"),
    "a-missing-test-file": ("rows.csv", HEAD + GOOD_ROWS, "test: 'path:nowhere.csv'"),
    "a-split-column": ("rows.csv", HEAD + GOOD_ROWS, "split: part"),
    "texts-of-numbers": ("rows.csv", "".join(f"{n},{n % 2}\n" for n in range(120)), ""),
}
"""File of rows and its content, and an option of the data set, by what is wrong with them."""

GOOD = separated(right_or_wrong(rows=40))
HEADER = "system,row,score\n"
TABLES: dict[str, tuple[str, str, str]] = {
    "empty": ("s.csv", "", ""),
    "a-header-alone": ("s.csv", HEADER, ""),
    "no-score": ("s.csv", "system,row\na,1\nb,1\n", ""),
    "no-system": ("s.csv", "row,score\n1,1\n", ""),
    "one-system": ("s.csv", HEADER + "a,1,1\na,2,0\n", ""),
    "no-number": ("s.csv", HEADER + "a,1,good\nb,1,1\n", ""),
    "an-empty-score": ("s.csv", HEADER + "a,1,\nb,1,1\n", ""),
    "a-row-twice": ("s.csv", HEADER + "a,1,1\na,1,0\nb,1,1\n", ""),
    "rows-that-lack": ("s.csv", HEADER + "a,1,1\na,2,0\nb,1,1\n", ""),
    "no-shared-row": ("s.csv", HEADER + "a,1,1\nb,2,1\n", "--shared"),
    "per-cent-beside-shares": ("s.csv", HEADER + "a,1,0.5\nb,1,50\na,2,0.7\nb,2,60\n", ""),
    "a-lone-minus-one": ("s.csv", HEADER + "a,1,0.5\nb,1,0.5\na,2,0.7\nb,2,-1\n", ""),
    "nine-hundred-ninety-nine": ("s.csv", HEADER + "a,1,0.5\nb,1,0.5\na,2,0.7\nb,2,999\n", ""),
    "infinite": ("s.csv", HEADER + "a,1,inf\nb,1,0.5\n", ""),
    "names-alike": ("s.csv", HEADER + "A,1,1\na,1,0\n", ""),
    "a-column-twice": ("s.csv", "system,row,score,score\na,1,1,1\nb,1,1,1\n", ""),
    "a-column-without-name": ("s.csv", ",system,row,score\n0,a,1,1\n1,b,1,1\n", ""),
    "too-many-cells": ("s.csv", HEADER + "a,1,1,1\nb,1,1\n", ""),
    "a-task-column": ("s.csv", "system,row,score,task\na,1,1,x\nb,1,0,x\n", ""),
    "a-trial-column": ("s.csv", "system,row,score,trial\na,1,1,0\nb,1,0,0\n", ""),
    "two-groups": ("s.csv", "system,row,score,group\na,1,1,x\nb,1,0,y\n", ""),
    "other-content": ("s.csv", "system,row,score,content\na,1,1,x\nb,1,0,y\n", ""),
    "a-cost-that-differs": (
        "s.csv",
        "system,row,score,seconds\na,1,1,2\na,2,1,3\nb,1,0,2\nb,2,0,2\n",
        "",
    ),
    "row-and-rows": ("s.csv", "system,row,rows,score\na,1,9,1\nb,1,9,1\n", ""),
    "a-large-number-for-a-row": ("s.json", '[{"system": "a", "row": 1e300, "score": 1}]', ""),
    "copied-seeds": ("s.csv", "system,row,score,seed\na,1,1,0\na,1,1,1\nb,1,0,0\nb,1,0,1\n", ""),
    "an-object": ("s.json", '{"a": 1}', ""),
    "torn-json": ("s.json", "[{", ""),
    "torn-jsonl": ("s.jsonl", '{"system": "a"}\n{', ""),
    "a-list-for-a-line": ("s.jsonl", "[1]\n", ""),
    "no-parquet": ("s.parquet", "hello", ""),
    "an-unknown-ending": ("s.docx", "hello", ""),
    "a-log": ("s.log", "hello", ""),
    "margin-zero": ("s.csv", GOOD, "--margin 0"),
    "margin-negative": ("s.csv", GOOD, "--margin -1"),
    "margin-text": ("s.csv", GOOD, "--margin much"),
    "margin-too-large": ("s.csv", GOOD, "--margin 5 --range 0,1"),
    "range-of-one": ("s.csv", GOOD, "--range 1"),
    "range-of-text": ("s.csv", GOOD, "--range low,high"),
    "range-reversed": ("s.csv", GOOD, "--range 1,0"),
    "range-too-small": ("s.csv", GOOD, "--range 0,0.5"),
    "largest-of-right-and-wrong": ("s.csv", GOOD, "--largest-difference 0.5"),
    "largest-zero": ("s.csv", GOOD, "--largest-difference 0"),
    "largest-above-range": (
        "s.csv",
        HEADER + "a,1,.5\nb,1,.4\n",
        "--range 0,1 --largest-difference 3",
    ),
    "largest-exceeded": (
        "s.csv",
        HEADER + "a,1,.5\nb,1,.1\na,2,.3\nb,2,.2\n",
        "--largest-difference 0.1",
    ),
    "look-zero": ("s.csv", GOOD, "--look 0"),
    "looks-too-many": ("s.csv", GOOD, "--looks 5000"),
    "unknown-metric": ("s.csv", GOOD, "--metric f1"),
    "columns-without-names": ("s.csv", GOOD, "--columns system"),
    "columns-of-ours-unknown": ("s.csv", GOOD, "--columns colour=system"),
    "columns-of-theirs-unknown": ("s.csv", GOOD, "--columns system=colour"),
    "group-of-a-table": ("s.csv", GOOD, "--group passage"),
    "unknown-format": ("s.csv", GOOD, "--format word"),
    "peft-of-a-table": ("s.csv", GOOD, "--format peft"),
    "independent-rows": ("s.csv", GOOD, "--independent --out s.csv"),
    "tiny-scores": ("s.csv", HEADER + "a,1,1e-320\nb,1,2e-320\n", ""),
    "too-many-rows-of-a-mean": ("s.csv", "system,rows,score\na,1e9,1\nb,9,1\n", ""),
    "no-whole-rows": ("s.csv", "system,rows,score\na,1.5,1\nb,9,1\n", ""),
}
"""File of scores and its content, and options of `compare`, by what is wrong with them."""


def of_lm_eval_edited(edit: str, by: str, kind: str) -> Mapping[str, str]:
    """Return files of lm-evaluation-harness; in those of a model and a kind a text is replaced."""
    files = of_lm_eval("m/a", 0.6, ["words"]) | of_lm_eval("m/b", 0.7, ["words"])
    for name, text in files.items():
        if name.startswith(f"m/a/{kind}"):
            files[name] = text.replace(edit, by, 3)
    return files


def of_other_tools() -> list[Case]:
    """Return mistakes in files of lm-evaluation-harness and of PEFT's method comparison."""
    results = f"m/a/results_{DATE}.json"
    whole = of_lm_eval_edited("", "", "")
    samples = of_lm_eval_edited('"doc_id": 3,', '"doc_no": 3,', "samples")
    unnamed = {name: text.replace('"metrics"', '"numbers"') for name, text in whole.items()}
    edited = {
        "no-doc-id": samples,
        "no-number": of_lm_eval_edited('"acc": 1.0', '"acc": "good"', "samples"),
        "other-document": of_lm_eval_edited("words-7", "other", "samples"),
        "torn-samples": of_lm_eval_edited("}\n", "\n", "samples"),
        "torn-results": of_lm_eval_edited("{", "", "results"),
        "no-direction": of_lm_eval_edited('"higher_is_better"', '"lower"', "results"),
        "no-results": {name: text for name, text in whole.items() if name != results},
        "no-samples": {name: text for name, text in whole.items() if "samples" not in name},
        "no-metrics": unnamed,
    }
    found = [Case(f"lm-eval/{name}", ("compare m",), dict(files)) for name, files in edited.items()]
    asked = (
        "--metric bleu",
        "--metric acc,other",
        "--group nothing",
        "--columns row=doc_id",
        "--lower",
    )
    for number, option in enumerate(asked):
        found.append(Case(f"lm-eval/asked-{number}", (f"compare m {option}",), whole))
    one = of_peft("lora", 0, 0.5)
    peft = {
        "a-run-twice": ({"r/a.json": one, "r/b.json": one}, ""),
        "torn": ({"r/a.json": one[:-40]}, ""),
        "no-status": ({"r/a.json": one.replace('"status"', '"state"')}, ""),
        "a-share-above-one": ({"r/a.json": of_peft("lora", 0, 1.5)}, ""),
        "negative-time": ({"r/a.json": one.replace('"train_time": 7', '"train_time": -7')}, ""),
        "a-text-for-a-score": ({"r/a.json": one.replace("0.5,", '"half",')}, ""),
        "unknown-metric": (of_metamath(), "--metric bleu"),
        "one-experiment": ({"r/a.json": one}, ""),
        "nothing-well": ({"r/a.json": of_peft("lora", 0, 0.5, "failed")}, ""),
        "two-scores": ({"r/a.json": one, "r/b.json": of_peft("oft", 0, 0.5, images=True)}, ""),
    }
    for name, (files, options) in peft.items():
        folder = next(iter(files)).partition("/")[0]
        found.append(Case(f"peft/{name}", (f"compare {folder} {options}",), files))
    return found


RECORDS = {
    "empty": "",
    "torn": "{",
    "a-list": "[]",
    "a-number": "5",
    "no-version": "{}",
    "of-version-1": '{"schema_version": 1}',
    "fields-missing": '{"schema_version": 2}',
    "deep": '{"schema_version": 2, "a": ' + "[" * 100 + "]" * 100 + "}",
    "a-large-integer": '{"schema_version": 2, "seconds": 99999999999999999999999}',
    "no-text": "\ud83d",
    "not-a-number": '{"schema_version": 2, "seconds": NaN}',
}
"""Content of the one record of a results folder."""
RECORD_EDITS = {
    "an-unknown-status": ('"status": "ok"', '"status": "fine"'),
    "an-unknown-field": ('"order": 1,', '"order": 1, "colour": "red",'),
    "an-id-that-climbs-out": ('"run_id": "', '"run_id": "../'),
    "a-metric-that-is-text": ('"train_loss": 0', '"train_loss": "low", "x": 0'),
    "other-files": ('"points.jsonl": "', '"points.jsonl": "00'),
    "files-elsewhere": ('"points.jsonl"', '"../points.jsonl"'),
    "a-format-that-python-lacks": ('"format": ".1%"', '"format": ".1z"'),
    "a-negative-seed": ('"seed": 0', '"seed": -1'),
    "an-unknown-task": ('"sequence_classification"', '"telepathy"'),
    "an-infinite-rate": ('"lr": 0.002', '"lr": Infinity'),
}
"""Text of a good record and what replaces it, by what is wrong then."""


def write_inputs(folder: Path, reference: Path) -> None:
    """Write results folders of one run with an altered record, and a good one of three seeds."""
    (good,) = (reference / "quickstart").glob("lora-s0-*")
    text = (good / "run.json").read_text(encoding="utf-8")
    for name, (edit, by) in RECORD_EDITS.items():
        if edit not in text:
            raise ValueError(f"{good}: there is no {edit} to replace for {name}")
        place = folder / name / good.name
        shutil.copytree(good, place)
        (place / "run.json").write_text(text.replace(edit, by), encoding="utf-8")
    for run in (reference / "quickstart").glob("*-s[012]-*"):
        shutil.copytree(run, folder / "results" / "quickstart" / run.name)
    shutil.copy(reference / "quickstart" / "suite.json", folder / "results" / "quickstart")
    trial = gzip.decompress((reference / "check" / "amd-epyc" / "b4628faa.jsonl.gz").read_bytes())
    (folder / "trial-0001.json").write_bytes(trial.splitlines()[0])


ASKED_OF_RESULTS = """
plan quickstart --out results --detect accuracy
plan quickstart --out results --detect accuracy=0pp
plan quickstart --out results --detect accuracy=1%
plan quickstart --out results --detect speed=3%
plan quickstart --out results --detect accuracy=100pp
plan quickstart --out results --detect train_seconds=1pp
plan quickstart --out results --detect trainable_parameters=5
plan quickstart --out results --detect accuracy=1pp --power 2
report results/quickstart results/quickstart --out out
report results/quickstart results/quickstart --wandb offline
report results/quickstart results/quickstart --format peft
report results/quickstart --format peft,word
report results/quickstart --track nothing
report results/quickstart --wandb online
compare results/quickstart --metric bleu
compare results/quickstart --lower
compare results/quickstart --looks 3
compare results/quickstart --range 0,1
compare results/quickstart --columns system=x
compare results/quickstart --group x
stop results/quickstart
work results/quickstart --unit 0
run-all quickstart DRY --prior results/quickstart
run-all chat DRY --prior results/quickstart
report results/quickstart --out results/quickstart/suite.json
report results/quickstart --track wandb=sometimes
report results/quickstart --track mlflow=on
report results/quickstart --track accelerate
check --self-test --out .
"""
"""Calls beside a folder `results/quickstart` of three seeds and a recorded trial of `check`."""


def words(call: str) -> str:
    """Return a call with the options of a dry run in place of its word DRY."""
    return call.replace(" DRY", f" {DRY}")


def of_records() -> list[Case]:
    """Return mistakes in results folders of one record."""
    found = []
    for name, text in RECORDS.items():
        content = text.encode(errors="replace")
        calls = ("report r", "verify r", "list runs r", "status r", "compare r")
        files = {"r/lora-s0-0123456789/run.json": content}
        found.append(Case(f"records/{name}", calls, files))
    for name in RECORD_EDITS:
        edited = (f"report {name} --out out", f"verify {name}", f"list runs {name}")
        found.append(Case(f"records/{name}", edited, copies=(name,)))
    return found


def of_results() -> list[Case]:
    """Return mistakes in what is asked of good results, and in files beside them."""
    copies = ("results", "trial-0001.json")
    found = [
        Case(f"results/{number:02d}", (words(call),), copies=copies)
        for number, call in enumerate(ASKED_OF_RESULTS.split("\n")[1:-1])
    ]
    looks = {"out/looks.json": "[{}]", "out/report.md": "x", "s.csv": GOOD}
    found.append(Case("results/torn-looks", ("compare s.csv --out out",), looks))
    for name, text in {"empty": "", "torn": "{", "no-plan": "{}", "a-list": "[]"}.items():
        calls = ("work p/plan.json --unit 0", "status p", "stop p", "work p --prepare")
        found.append(Case(f"plans/{name}", calls, {"p/plan.json": text}))
    baselines = {"empty": "", "torn": "{", "other": '{"schema_version": 1}', "a-list": "[]"}
    for name, text in baselines.items():
        found.append(Case(f"baselines/{name}", ("check --baseline b.json",), {"b.json": text}))
    return found


def of_command_lines() -> list[Case]:
    """Return mistakes in options and settings of the command line, and a call without a command."""
    found = [Case("options/none", ("",))]
    for number, call in enumerate(OPTIONS.split("\n")[1:-1]):
        found.append(Case(f"options/{number:03d}", (words(call),)))
    for number, override in enumerate([*OVERRIDES.split("\n")[1:-1], *LONG_OVERRIDES]):
        given = f"--set {shlex.quote(override)}"
        calls = [f"run-all quickstart {DRY} {given}"]
        if override.startswith(("task", "dataset", "backbone")):  # a dry run leaves these to jobs
            calls.append(f"preview quickstart --rows 1 {given}")
        found.append(Case(f"settings/{number:03d}", tuple(calls)))
    return found


def of_files() -> list[Case]:
    """Return mistakes in suites, profiles, files of rows and tables of scores."""
    found = []
    for name, text in SUITES.items():
        calls = (f"run-all mine.yaml {DRY}", "preview mine.yaml --rows 1")
        found.append(Case(f"suites/{name}", calls, {"mine.yaml": text}))
    for name, text in PROFILES.items():
        call = "run-all quickstart --on mine.yaml --dry-run --out planned"
        found.append(Case(f"profiles/{name}", (call,), {"mine.yaml": text}))
    for name, (file, text, option) in DATA.items():
        options = f"train: 'path:{file}'" + (f", {option}" if option else "")
        calls = ("preview mine.yaml", f"init --model embedded:newswire-gpt2 --data {file}")
        found.append(Case(f"data/{name}", calls, {"mine.yaml": with_rows(options), file: text}))
    for name, (file, text, options) in TABLES.items():
        found.append(Case(f"tables/{name}", (f"compare {file} {options}",), {file: text}))
    return found


def cases() -> list[Case]:
    return [*of_command_lines(), *of_files(), *of_other_tools(), *of_records(), *of_results()]
