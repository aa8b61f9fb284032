"""`hpml-bench init`: from a model and rows of each kind to a suite that runs unchanged."""

import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from helpers import starters
from helpers.commands import called
from hpml_bench.fit.limits import gigabytes
from hpml_bench.records.load import load_records
from hpml_bench.suite.suite import load_suite
from hpml_bench.system import gpus

pytestmark = pytest.mark.usefixtures("without_estimates")
KINDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "sequence_classification": ("rows.csv", starters.classes),
    "regression": ("rows.csv", starters.numbers),
    "token_classification": ("rows.jsonl", starters.tags),
    "causal_lm": ("rows.jsonl", starters.messages),
}
"""Task -> the name of the file, and the function that writes its rows."""


@pytest.fixture(scope="module")
def made(bert: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task -> the suite that `init` writes for rows of its kind, beside them: with estimates for
    a language model.
    """
    found = {}
    for task, (name, write) in KINDS.items():
        folder = tmp_path_factory.mktemp(task)
        found[task] = folder / "made.yaml"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gpus, "visible_gpus", lambda: ())
            if task != "causal_lm":
                starters.leave_out_estimates(patch)
            init(llama if task == "causal_lm" else bert, write(folder / name), out=found[task])
    return found


def init(model: Path | str, *data: Path | str, out: Path | None = None, status: int = 0) -> Result:
    """Call the command."""
    return called(
        "init",
        "--model",
        model,
        "--data",
        *data,
        *([] if out is None else ["--out", out]),
        status=status,
    )


@pytest.mark.parametrize("task", KINDS)
def test_a_suite_runs_as_it_was_written(task: str, made: dict[str, Path], tmp_path: Path) -> None:
    """Of each kind of work: the task is found, paths are absolute, and `run-all` trains with it."""
    file = made[task]
    found = load_suite(str(file))
    assert found.settings.task.name == task
    assert found.settings.dataset.options["train"] == f"path:{file.parent / KINDS[task][0]}"
    budget = ["--methods", "lora", "--seeds", "1", "--nproc", "1", "--device", "cpu"]
    settings = [
        "steps=1",
        "latency_samples=0",
        "train_samples=32",
        "validation_samples=2",
        "test_samples=4",
    ]
    settings += ["task.options.max_new_tokens=1"] if task == "causal_lm" else []
    budget += [word for setting in settings for word in ("--set", setting)]
    called("run-all", file, "--out", tmp_path / "out", "--wandb", "off", *budget)
    assert [record.status for record in load_records(tmp_path / "out" / "made").records] == ["ok"]


def test_memory_is_what_fit_predicts(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each method's peak as `hpml-bench fit` gives it for the written suite."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ())
    file = made["causal_lm"]
    said = " ".join(line.strip("# ") for line in file.read_text().splitlines())
    predicted = called("fit", file, "--json")
    each = ", ".join(
        f"{need['method']} {gigabytes(need['peak'])}" for need in json.loads(predicted.stdout)
    )
    assert each.count(", ") == 2
    assert f"predicted for the longest batch: {each}. Here: " in said
    assert f"hpml-bench fit {file} shows its parts" in said


@pytest.mark.parametrize("task", KINDS)
def test_each_choice_has_a_reason(task: str, made: dict[str, Path]) -> None:
    """A comment stands beside or above every key that holds a value."""
    bare = [
        line.strip()
        for before, line in pairwise(made[task].read_text().splitlines())
        if re.search(r"^\s*[\w]+: .", line)
        and "  # " not in line
        and not before.lstrip().startswith("#")
    ]
    assert bare == ["name: text_files", f"train: path:{made[task].parent / KINDS[task][0]}"]


@pytest.mark.parametrize("task", ["sequence_classification", "causal_lm"])
def test_methods_that_are_comments_can_be_taken(
    task: str, made: dict[str, Path], tmp_path: Path
) -> None:
    """Without the # before them the suite has them all; every method with a rate says where it
    comes from.
    """
    text = made[task].read_text()
    assert len(re.findall(r"\bRate: ", text.partition("\nmethods:\n")[2])) == text.count(
        "{lr:"
    ) + text.count(", lr:")
    (tmp_path / "all.yaml").write_text(re.sub(r"^  # (\w+: \{)", r"  \1", text, flags=re.MULTILINE))
    found = load_suite(str(tmp_path / "all.yaml"))
    assert len(found.methods) == 6 + (task == "causal_lm")
    assert {spec.method.name: spec.method.lr for spec in found.runs(seeds=[0])}["ia3"] == 3e-3


def test_lengths_are_those_of_the_models_tokenizer(bert: Path, tmp_path: Path) -> None:
    """Median, 99th percentile and maximum by hand: words and the end token; `max_length` cuts
    one row in a hundred.
    """
    lengths = [10] * 197 + [20, 20, 90]
    rows = [
        f"{' '.join(['bank'] * (length - 1))},{('a', 'b')[row % 2]}"
        for row, length in enumerate(lengths)
    ]
    file = tmp_path / "a.csv"
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    test = tmp_path / "a_test.csv"
    test.write_text("text,label\nbank goal,a\nbank match,b\n")
    file = file.rename(tmp_path / "a_train.csv")
    text = " ".join(line.strip(" #") for line in init(bert, file, test).stdout.splitlines())
    assert (
        "200 training rows have 10 tokens in the median, 20 at the 99th percentile and 90 at most"
        in text
    )
    assert "1 (0.5 %) is longer than 24, and cut at the end." in text
    assert "max_length: 24" in text


def test_files_become_splits_by_their_names_else_by_their_places(
    bert: Path, tmp_path: Path
) -> None:
    """The reason says which; a name that none can read is asked for in a sentence."""
    files = {
        name: starters.classes(tmp_path / f"{name}.csv", 40)
        for name in ("my-dev", "my-test", "my-train", "x", "y")
    }
    text = init(bert, files["my-dev"], files["my-train"], files["my-test"]).stdout
    assert f"train: path:{files['my-train']}" in text
    assert text.count("# by the file's name") == 3
    assert f"test: path:{files['my-test']}" in text
    assert f"validation: path:{files['my-dev']}" in text
    text = init(bert, files["x"], files["y"]).stdout
    assert f"train: path:{files['x']}" in text
    assert f"test: path:{files['y']}" in text
    assert "by its place among the files given" in text
    text = init(bert, files["my-test"], files["x"]).stdout
    assert f"train: path:{files['x']}" in text
    assert f"test: path:{files['my-test']}" in text
    assert "by its place among the files whose names don't say it" in text
    for given, says in [
        (
            ("my-test", "my-dev"),
            "none of 'test', 'validation' is a file of training rows; name one",
        ),
        (("x", "x"), "is given twice"),
        (("x", "y", "my-dev", "my-test"), "4 files are given; join them"),
    ]:
        assert says in init(bert, *(files[name] for name in given), status=2).stderr


def test_without_its_package_a_scorer_is_only_named(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that is written runs here: long answers are then compared by f1."""
    monkeypatch.setattr("hpml_bench.starter.kinds.find_spec", lambda _: None)
    rows = [
        {"prompt": text, "completion": "the bank rose again and won"} for text in starters.texts(60)
    ]
    text = init(llama, starters.jsonl(tmp_path / "a.jsonl", rows)).stdout
    assert "scorer: f1" in text
    assert "pip install 'rouge-score" in text


def test_sources_of_models(bert: Path, tmp_path: Path) -> None:
    """A model that comes with the package runs too; one that nobody has is one sentence.

    Conversations with a model that reads both ways are refused, with what to give instead.
    """
    rows = starters.classes(tmp_path / "a.csv", 60)
    text = init("embedded:newswire-gpt2", rows).stdout
    assert "backbone: embedded:newswire-gpt2" in text
    assert "pooling: last" in text
    assert "there is no such file or folder" in init("nowhere", rows, status=2).stderr
    result = init(bert, starters.messages(tmp_path / "a.jsonl"), status=2)
    assert "reads both ways and can't answer; give a model that generates" in result.stderr


def test_a_repository_of_a_data_set_is_read_by_its_splits(bert: Path, tmp_path: Path) -> None:
    """A copy of one: splits by their names, a missing one is split off."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("train", "validation"):
        starters.classes(folder / f"{name}.csv", 60)
    init(bert, folder, out=tmp_path / "made.yaml")
    options = load_suite(str(tmp_path / "made.yaml")).settings.dataset.options
    assert options["dataset"] == f"path:{folder}"
    assert (options["train"], options["validation"], options["test"]) == (
        "train",
        "validation",
        None,
    )


def test_a_suite_is_not_overwritten(bert: Path, tmp_path: Path) -> None:
    """A file that is there, or can't be a suite's, is refused before the model is looked at."""
    rows = starters.classes(tmp_path / "a.csv", 40)
    (tmp_path / "there.yaml").write_text("mine")
    for name, says in [
        ("there.yaml", "there is such a file"),
        ("a b.txt", "the file's name becomes the suite's"),
    ]:
        result = init(bert, rows, out=tmp_path / name, status=2)
        assert result.stderr.startswith(f"hpml-bench: --out {tmp_path / name}")
        assert says in result.stderr
        assert ("--overwrite replaces it" in result.stderr) == (name == "there.yaml")
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_a_suite_is_overwritten_where_that_is_wanted(bert: Path, tmp_path: Path) -> None:
    """With --overwrite the file that is there becomes the suite."""
    rows = starters.classes(tmp_path / "a.csv", 40)
    (tmp_path / "there.yaml").write_text("mine")
    called("init", "--model", bert, "--data", rows, "--out", tmp_path / "there.yaml", "--overwrite")
    assert load_suite(str(tmp_path / "there.yaml")).settings.task.name == "sequence_classification"


TEXTS = starters.texts(60)
DROPPING = starters.CHAT.replace(
    "{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else 'share' }}"
)
THINKING = starters.CHAT.replace(
    "<|assistant|>{%", "<|assistant|>{{ 'won' if not enable_thinking else '' }}{%"
)


def asked(*answers: str, times: int = 1) -> list[dict[str, Any]]:
    return [
        {"prompt": " ".join([t] * times), "completion": answers[n % len(answers)]}
        for n, t in enumerate(TEXTS)
    ]


def chats(answer: Mapping[str, str], turns: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "b", **answer},
            ]
            * turns
        }
        for text in TEXTS
    ]


def labelled(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{"text": text, name: values[row % len(values)]} for row, text in enumerate(TEXTS)]


TOPICS = [row | {"topic": "ab"[n % 2]} for n, row in enumerate(asked("bank"))]
CLASSES = ("name: sequence_classification", "task: regression")
NUMBERS = ("name: regression", "task: sequence_classification")
WRITTEN: dict[str, tuple[str | None, list[dict[str, Any]], tuple[str, ...]]] = {
    "short answers, compared as a whole": (
        starters.CHAT,
        asked("bank", "goal"),
        ("scorer: exact", "max_new_tokens: 64", "none and few_shot may answer in a sentence"),
    ),
    "numbers": (
        starters.CHAT,
        asked("rates #### 7", "goal #### 1,000"),
        ("scorer: number", "decimal_mark: point", "max_new_tokens: 64"),
    ),
    "numbers with a decimal comma": (
        starters.CHAT,
        asked("1.234,50", "11,5", "3"),
        ("scorer: number", "decimal_mark: comma", "`point` can't read the answers"),
    ),
    "numbers that could have a decimal comma": (
        starters.CHAT,
        asked("1.234", "11"),
        ("scorer: number", "decimal_mark: point", "don't say whether 1.234 has a decimal point"),
    ),
    "versions of one dot, of which two have one value": (
        starters.CHAT,
        asked("3.1", "3.10"),
        ("scorer: exact", "row 1 '3.1' and", "row 2 '3.10' would be the same"),
    ),
    "fractions that may be dates, of which two have one value": (
        starters.CHAT,
        asked("1/2", "2/4"),
        ("scorer: exact", "row 1 '1/2' and", "row 2 '2/4' would be the same"),
    ),
    "one number in two currencies": (
        starters.CHAT,
        asked("$5", "€5"),
        ("scorer: exact", "row 1 '$5' and", "row 2 '€5' would be the same"),
    ),
    "numbers, two of which differ in notation only": (
        starters.CHAT,
        asked("1,000", "1000", "1000.0"),
        ("scorer: number", "decimal_mark: point"),
    ),
    "answers of several marks, which are no numbers": (
        starters.CHAT,
        asked("#### 5\n#### 6", "#### 5\n#### 7"),
        ("scorer: exact",),
    ),
    "numbers, with one answer that is none": (
        starters.CHAT,
        asked(*map(str, range(19)), "n/a"),
        ("scorer: exact", "answers are numbers;", "'n/a' isn't."),
    ),
    "versions, which are no numbers": (starters.CHAT, asked("3.10.2", "3.11"), ("scorer: exact",)),
    "long answers, compared by words": (
        starters.CHAT,
        asked(("the bank rose " * 25).strip(), ("the goal won " * 25).strip()),
        ("scorer: rouge_l", "max_new_tokens: 80"),
    ),
    "prompts of which more than a tenth would be left out": (
        starters.CHAT,
        asked("bank goal", times=60),
        (
            "too_long: cut_prompt",
            "(100 %) are longer than 224, and their prompts are cut at the front",
        ),
    ),
    "a template that changes earlier answers, which are then learnt each by itself": (
        DROPPING,
        chats({}, 2),
        ("loss_on: each", "writes earlier answers differently"),
    ),
    **{
        f"a model that can think, {what}": (
            THINKING,
            chats(answer),
            (f"template_options: {{enable_thinking: {thinks}}}", "needs a larger max_new_tokens"),
        )
        for what, answer, thinks in (
            ("of no reasoning", {}, "false"),
            ("of reasoning in a key", {"reasoning_content": "so"}, "true"),
            ("of reasoning in the answer", {"content": "so </think> b"}, "true"),
        )
    },
    "prompts beside a label, which a language model answers": (
        starters.CHAT,
        TOPICS,
        ("Column 'topic' could be learnt instead",),
    ),
    "prompts beside a label, which an encoder learns": (None, TOPICS, CLASSES[:1]),
    "few whole numbers": (None, labelled("label", 1, 2, 3), CLASSES),
    "few whole numbers of a scale": (None, labelled("stars", 1, 2, 3), NUMBERS),
    "numbers with decimals": (None, labelled("label", 0.5, 1.5, 2), NUMBERS),
    "many whole numbers": (None, labelled("label", *range(30)), NUMBERS),
    "texts": (None, labelled("kind", "x", "y"), CLASSES[:1]),
}
"""Chat template of a language model, or none for an encoder; rows; and what the suite then says."""


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def preferred(text: str, shape: str) -> dict[str, Any]:
    """Return a row with a chosen and a rejected answer, in one of the shapes that trainers read."""
    question, answer = {"role": "user", "content": text}, {"role": "assistant", "content": "goal"}
    other = answer | {"content": "bank"}
    if shape == "conversations":  # LLaMA-Factory's
        said = {
            "chosen": {"from": "gpt", "value": "goal"},
            "rejected": {"from": "gpt", "value": "no"},
        }
        return {"conversations": [{"from": "human", "value": text}], **said}
    if shape == "prompt in both":
        return {"prompt": text, "chosen": [question, answer], "rejected": [question, other]}
    if shape == "turns alone":
        return {"chosen": [question, answer], "rejected": [question, other]}
    if shape == "turns":
        return {"prompt": [question], "chosen": [answer], "rejected": [other]}
    if shape == "texts alone":
        return {"chosen": f"{text} goal", "rejected": f"{text} bank"}
    return {"prompt": text, "chosen": f"{text} goal", "rejected": "bank"}


@pytest.mark.parametrize(
    "shape",
    ["texts", "texts alone", "turns", "turns alone", "prompt in both", "conversations"],
)
def test_preferences_are_not_learnt(shape: str, llama: Path, tmp_path: Path) -> None:
    """In any shape, one sentence says so; the options that it names, as they are written, learn the
    chosen answers.
    """
    rows = [preferred(text, shape) for text in starters.texts(40)]
    file, made = starters.jsonl(tmp_path / "a.jsonl", rows), tmp_path / "made.yaml"
    said = init(llama, file, status=2).stderr
    assert "holds preferences (columns 'chosen' and 'rejected'), which no method here" in said
    advice = said.partition("to learn the chosen answers alone, set ")[2].partition(";")[0]
    options = dict(re.findall(r"(--[a-z]+) to (\w+)", advice))
    assert options["--task"] == "causal_lm"
    assert "chosen" in options.values()
    words = [word for option in options.items() for word in option]
    called("init", "--model", llama, "--data", file, *words, "--out", made)
    assert load_suite(str(made)).settings.task.name == "causal_lm"


@pytest.mark.parametrize(
    ("columns", "task"),
    [(("prompt", "response"), "causal_lm"), (("text", "label"), "sequence_classification")],
)
def test_what_is_learnt_beside_preferences(
    columns: tuple[str, str], task: str, llama: Path, tmp_path: Path
) -> None:
    """Columns that say what is learnt are read, as in a suite, and those of preferences are named
    as not read.
    """
    others = {"chosen": "goal", "rejected": "bank"}
    rows = [
        {columns[0]: text, columns[1]: ("goal", "bank")[row % 2], **others}
        for row, text in enumerate(starters.texts(40))
    ]
    file, made = starters.jsonl(tmp_path / "a.jsonl", rows), tmp_path / "made.yaml"
    said = init(llama, file, out=made).stderr
    assert load_suite(str(made)).settings.task.name == task
    assert "columns not read: chosen, rejected" in said


def flagged(key: str, value: object, of_completion: bool = False) -> list[dict[str, Any]]:
    """Return rows of turns whose answers have this key."""
    rows = []
    for text in starters.texts(40):
        answer = {"role": "assistant", "content": f"{text} goal", key: value}
        asked_turns = [{"role": "user", "content": text}]
        turns = {"messages": [*asked_turns, answer]}
        rows.append({"prompt": asked_turns, "completion": [answer]} if of_completion else turns)
    return rows


@pytest.mark.parametrize("of_completion", [False, True])
def test_keys_of_turns_that_are_not_read_are_named(
    of_completion: bool, llama: Path, tmp_path: Path
) -> None:
    """Beside the columns: a flag of another trainer, which would leave the turn out, is learnt."""
    rows = flagged("loss_mask", False, of_completion)
    said = init(llama, starters.jsonl(tmp_path / "a.jsonl", rows)).stderr
    assert "keys of turns left unread: loss_mask" in said


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
def test_flags_that_leave_nothing_to_learn_are_named(key: str, llama: Path, tmp_path: Path) -> None:
    """The refusal names the keys, not the texts, which are there."""
    file = starters.jsonl(tmp_path / "a.jsonl", flagged(key, 0))
    said = init(llama, file, status=2).stderr
    assert "no row has a token to learn: the key weight, loss or train leaves out all" in said


def test_a_few_test_rows_show_nothing(llama: Path, tmp_path: Path) -> None:
    """No difference above the score's range is named."""
    said = init(llama, starters.jsonl(tmp_path / "a.jsonl", asked("bank")[:30])).stderr
    assert "3 test rows are too few to show that two of 3 methods differ." in said
    assert "in four cases of five" not in said


@pytest.mark.parametrize("name", WRITTEN)
def test_what_rows_hold_decides_what_is_written(
    name: str, bert: Path, llama: Path, tmp_path: Path
) -> None:
    """The task, how answers are learnt and scored, and the choice that there would be instead."""
    template, rows, says = WRITTEN[name]
    model = bert if template is None else llama
    if template in {DROPPING, THINKING}:
        model = starters.llama(tmp_path / "model", template)
    text = " ".join(
        init(model, starters.jsonl(tmp_path / "a.jsonl", rows)).stdout.replace("#", "").split()
    )
    assert all(said in text for said in says), text
    assert ("template_options" in text) == (template == THINKING)
    assert "(1e+02 %)" not in text


def few_bad(path: Path, numbers: Callable[[int], str]) -> Path:
    """Write rows with a number each, of which two are none, and a column that counts them."""
    cells = [numbers(row) if row not in {36, 80} else "n/a" for row in range(100)]
    lines = [f"{row};the bank rose w{row};{cell}\n" for row, cell in enumerate(cells, 1)]
    path.write_text("".join(["nr;text;price\n", *lines]))
    return path


@pytest.mark.parametrize("given", [(), ("--label", "price")])
def test_a_few_cells_among_numbers_are_named(
    given: tuple[str, ...], bert: Path, tmp_path: Path
) -> None:
    """A column of numbers isn't left unread, or taken for texts, for a few slips: the first one is
    named with what can be done.
    """
    rows = few_bad(tmp_path / "rows.csv", lambda row: f"{7 * row % 100},5")
    result = called("init", "--model", bert, "--data", rows, *given, status=2)
    assert "row 37 of column 'price' has 'n/a', and 98 of 100 cells are numbers" in result.stderr
    advice = "--task regression --label price and --set task.options.bad_rows=drop"
    assert advice in result.stderr
    options = advice.replace(" and ", " ").split(" ")
    left = called("init", "--model", bert, "--data", rows, *options, status=0)
    assert "bad_rows: drop" in left.stdout
    assert "decimal_mark: comma" in left.stdout


def test_a_column_that_counts_rows_is_no_number_to_learn(bert: Path, tmp_path: Path) -> None:
    """The only other column of numbers is learnt; where there is none but for a few slips, the
    first of them is named.
    """
    rows = few_bad(tmp_path / "rows.csv", lambda row: f"{7 * row % 100}.5")
    result = called("init", "--model", bert, "--data", rows, "--task", "regression", status=2)
    assert "row 37 of column 'price' has 'n/a'" in result.stderr
    rows.write_text(rows.read_text().replace("n/a", "7.5"))
    result = called("init", "--model", bert, "--data", rows, "--task", "regression", status=0)
    assert "label from price" in result.stderr


def test_a_label_of_preferences_is_no_class(llama: Path, tmp_path: Path) -> None:
    """Answers that are preferred aren't taken for classes when named as the label alone."""
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "the bank", "chosen": "rose", "rejected": "won"}
    rows.write_text(f"{json.dumps(row)}\n" * 60)
    result = called("init", "--model", llama, "--data", rows, "--label", "chosen", status=2)
    assert "holds preferences (columns 'chosen' and 'rejected')" in result.stderr
