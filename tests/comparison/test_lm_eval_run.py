"""Samples of a real run of lm-evaluation-harness on the embedded model, read and compared with its
own figures.

`python tests/comparison/test_lm_eval_run.py` makes the samples of tests/files/lm_eval anew, where
lm_eval is installed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import skips
from hpml_bench.builtin.newswire.documents import generate, render
from hpml_bench.builtin.newswire.world import make_world
from hpml_bench.comparison.readers import lm_eval

ASSET = Path(__file__).parents[2] / "hpml_bench/assets/newswire-gpt2"
KEPT = Path(__file__).parents[1] / "files/lm_eval"
"""Samples of such a run with 12 rows, kept so that they are read where lm_eval isn't installed."""
MODELS = ("newswire-gpt2", "newswire-gpt2-noisy")
CLOZE = """\
task: news_cloze
tag: news
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
WORDS = """\
task: news_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{word}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 4, do_sample: false}}
filter_list:
  - {{name: whole, filter: [{{function: take_first}}]}}
  - name: word
    filter:
      - {{function: regex, regex_pattern: "([A-Za-z]+)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}
metadata: {{version: 1.0}}
"""


def write_tasks(folder: Path, rows: int) -> None:
    """Write two tasks on generated news, with their rows: the right end of a text of three, and
    a text's next word.
    """
    world = make_world()
    texts = [text.split() for text in render(world, generate(world, 3 * rows, 7, "check"))]
    rng, cloze, words = np.random.default_rng(7), [], []
    for at in range(rows):
        own, *others = texts[3 * at : 3 * at + 3]
        half, label = len(own) // 2, int(rng.integers(3))
        ends = [" ".join(text[len(text) // 2 :]) for text in others]
        ends.insert(label, " ".join(own[half:]))
        cloze.append({"text": " ".join(own[:half]), "choices": ends, "label": label})
        words.append({"text": " ".join(own[:-1]), "word": own[-1].strip(".,")})
    folder.mkdir(parents=True)
    for name, made, task in (("news_cloze", cloze, CLOZE), ("news_words", words, WORDS)):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in made))
        (folder / f"{name}.yaml").write_text(task.format(file=f"{folder.name}/{file.name}"))


def write_models(folder: Path) -> None:
    """Write the embedded model as it is, and with noise on its weights."""
    from safetensors.numpy import load_file, save_file

    for name in MODELS:
        shutil.copytree(ASSET, folder / name)
    weights = load_file(ASSET / "model.safetensors")
    rng = np.random.default_rng(7)
    noisy = {
        k: (v + 1.0 * v.std() * rng.standard_normal(v.shape)).astype(v.dtype)
        for k, v in weights.items()
    }
    save_file(noisy, folder / MODELS[1] / "model.safetensors", metadata={"format": "pt"})


def evaluate(folder: Path, rows: int) -> Path:
    """Run lm-evaluation-harness on both models and return the folder of its results."""
    write_tasks(folder / "tasks", rows)
    write_models(folder)
    env = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder.resolve() / "cache"),
    }
    for name in MODELS:
        model = f"pretrained={name},dtype=float32,add_bos_token=False"
        arguments = {
            "model": "hf",
            "model_args": model,
            "tasks": "news_cloze,news_words",
            "include_path": "tasks",
            "device": "cpu",
            "batch_size": "4",
            "output_path": "out",
        }
        given = [part for key, value in arguments.items() for part in (f"--{key}", value)]
        command = [sys.executable, "-m", "lm_eval", *given, "--log_samples"]
        subprocess.run(command, cwd=folder, env=os.environ | env, check=True, timeout=900)
    return folder / "out"


def figures(out: Path, task: str, key: str) -> dict[str, float]:
    """Return model -> figure of its results file."""
    files = [json.loads(file.read_text()) for file in out.glob("*/results_*.json")]
    return {one["model_name"]: one["results"][task][key] for one in files}


@pytest.mark.parametrize("source", ["kept", "run"])
def test_rows_of_a_real_run_give_its_own_figures(source: str, tmp_path: Path) -> None:
    """The mean of each model's rows is the figure in its results file, to the last digit; so of
    samples kept here.
    """
    if source == "run":
        pytest.importorskip("lm_eval", reason=skips.NO_LM_EVAL)
    out = KEPT if source == "kept" else evaluate(tmp_path / "run", rows=24)
    assert lm_eval.claims(out)
    for metric, keys in (
        ("acc", {"news_cloze": "acc,none"}),
        ("acc_norm", {"news_cloze": "acc_norm,none"}),
        ("exact_match,word", {"news_words": "exact_match,word"}),
        (None, {"news_cloze": "acc,none", "news_words": "exact_match,whole"}),
    ):
        found = {one.lines["dataset"].iat[0]: one for one in lm_eval.read(out, metric)}
        assert found.keys() == keys.keys()
        for dataset, key in keys.items():
            rows = found[dataset].lines.groupby("system")["score"]
            means = {system: sum(own) / len(own) for system, own in rows}
            assert means == figures(out, dataset, key)
            assert not any("no mean of these rows" in remark for remark in found[dataset].remarks)
    assert len(set(figures(out, "news_cloze", "acc,none").values())) == len(
        MODELS
    )  # the models differ


def keep(out: Path) -> None:
    """Copy the samples of a run to tests/files, and its results without the machine's
    description.
    """
    shutil.rmtree(KEPT, ignore_errors=True)
    for file in out.glob("*/*.json*"):
        target = KEPT / file.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".json":
            left = {
                key: value
                for key, value in json.loads(file.read_text()).items()
                if key != "pretty_env_info"
            }
            target.write_text(json.dumps(left, indent=1) + "\n")
        else:
            shutil.copy(file, target)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        keep(evaluate(Path(place) / "run", rows=12))
