"""`hpml-bench preview`: rows as the model sees them, for every kind of task, and nothing that a
terminal would obey.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from helpers import tiny
from helpers.commands import called
from helpers.language_models import TURNS as TEMPLATE
from helpers.language_models import save_letters
from hpml_bench.page import terminal

pytestmark = pytest.mark.usefixtures("offline_cache")

TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "One?\nTwo?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "No,\nnot so."},
]


def shown(*words: str) -> str:
    return called("preview", *words).output


def expected(out: str) -> str:
    """Return what the first row asks for."""
    return next(line for line in out.splitlines() if line.startswith("expected: ")).removeprefix(
        "expected: "
    )


def suite(
    folder: Path, rows: list[dict[str, Any]], *, like_llama: bool = False, **options: Any
) -> str:
    save_letters(folder / "model", "<|stop|>", like_llama=like_llama)
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    settings = {
        "backbone": "path:model",
        "task": {"name": "causal_lm", "options": {"template": TEMPLATE} | options},
        "dataset": {
            "name": "text_files",
            "options": {"train": "path:train.jsonl", "test": "path:test.jsonl"},
        },
        "steps": 2,
        "global_batch": 2,
        "validation_samples": 1,
        "test_samples": len(rows),
        "max_length": 400,
        "device": "cpu",
        "world_size": 1,
    }
    content = {
        "description": "Answers.",
        "seeds": 2,
        "settings": settings,
        "methods": {"lora": {"lr": 1e-2}},
    }
    (folder / "answers.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "answers.yaml")


def test_a_conversation_is_shown_with_what_is_learnt(tmp_path: Path) -> None:
    """The template's text, special tokens too, in the row's own lines; learnt parts in brackets;
    what it asks for.
    """
    facts, _, row = shown(suite(tmp_path, [{"messages": TURNS}] * 5), "--rows", "1").partition(
        "\n\n"
    )
    tokens = sum(len(turn["content"]) + 3 for turn in TURNS)
    learnt = sum(len(turn["content"]) + 1 for turn in TURNS if turn["role"] == "assistant")
    assert row.splitlines() == [
        f"train row 1: {tokens} tokens, {learnt} target tokens",
        "<|system|>Be short.<|end|>",
        "<|user|>One?",
        "Two?<|end|>",
        "<|assistant|>⟦Yes.<|end|>⟧",
        "<|user|>Three?<|end|>",
        "<|assistant|>⟦No,⟧",
        "⟦not so.<|end|>⟧",
        "",
        (
            f"prompt: {tokens - 13} tokens, which end with "
            f"'nd|>\\n<|user|>Three?<|end|>\\n<|assistant|>'"
        ),
        "expected: No, not so.",
    ]
    assert "template: {% for m in messages %}" in facts
    assert "columns: turns from messages" in facts
    assert "rows longer than max_length: none" in facts


def test_spaces_are_shown_where_they_are(tmp_path: Path) -> None:
    """Also by a tokenizer that decodes no space at the beginning of a text."""
    path = suite(
        tmp_path, [{"prompt": "a b", "completion": " c d"}] * 5, like_llama=True, template="plain"
    )
    assert "\na b⟦ c d<|stop|>⟧\n" in shown(path, "--rows", "1")


def test_so_many_rows_of_a_split_are_shown(tmp_path: Path) -> None:
    """Three of the training rows, or as asked; never more than there are."""
    path = suite(tmp_path, [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(6)])
    assert [shown(path).count(f"train row {n}: ") for n in range(1, 5)] == [1, 1, 1, 0]
    out = shown(path, "--rows", "9", "--split", "test")
    assert out.count("test row ") == 6
    assert {f"expected: a{n}" for n in range(6)} <= set(out.splitlines())
    assert shown(path, "--split", "validation").count("validation row ") == 1


def test_what_was_cut_off_a_prompt_and_what_ends_an_answer_is_told(tmp_path: Path) -> None:
    """With `cut_prompt`, at the row's head; the answer stays whole."""
    rows = [{"prompt": "q" * 450, "completion": "a"}] * 5
    path = suite(
        tmp_path, rows, too_long="cut_prompt", template="plain", scorer="exact", stop=["###"]
    )
    facts, _, row = shown(path, "--rows", "1").partition("\n\n")
    assert row.startswith("train row 1: 400 tokens, 2 target tokens, 52 cut off the prompt")
    assert "⟦a<|stop|>⟧" in row
    assert "an answer ends with '<|stop|>' or '###'" in facts


def test_ids_are_shown_on_demand_and_settings_overridden(tmp_path: Path) -> None:
    """As many as the row has tokens; by dotted path, as everywhere: a mistake is one sentence
    and status 2.
    """
    path = suite(tmp_path, [{"prompt": "a", "completion": "b"}] * 5)
    out = shown(path, "--ids", "--rows", "1")
    (ids,) = [
        json.loads(line.removeprefix("ids: "))
        for line in out.splitlines()
        if line.startswith("ids: ")
    ]
    assert f"train row 1: {len(ids)} tokens, 2 target tokens" in out
    assert len(ids) == 8
    out = shown(
        path,
        "--rows",
        "1",
        "--set",
        "task.options.template=plain",
        "--set",
        "task.options.loss_on=all",
    )
    assert "ids: [" not in out
    assert "\na⟦b<|stop|>⟧\n" in out
    said = called("preview", path, "--set", "task.options.template=none", status=2).stderr
    assert said.startswith(
        "hpml-bench: task.options.template is 'none': give plain, path:FILE or a jinja template"
    )
    assert len(said.splitlines()) == 1


def test_what_does_not_show_is_shown_by_its_escape(tmp_path: Path) -> None:
    """NUL, escapes, tabs, marks of direction; no command is obeyed; a long line of the row is
    one of the output.
    """
    long = "word  " * 40 + "."
    text = "a\x00b\x1b[31mc\td\u202ee \u05e9\u05dc\n::error::x ##[group]"
    out = shown(
        suite(tmp_path, [{"prompt": f"{long}\n{text}", "completion": text}] * 5), "--rows", "1"
    )
    assert f"<|user|>{long}" in out.splitlines()
    assert r"a\x00b\x1b[31mc\td\u202ee" in out
    assert "\u05e9\u05dc" in out
    assert not {"\x00", "\x1b", "\t", "\u202e"} & set(out)
    assert "::error" not in out
    assert "##[" not in out


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_shows_what_is_learnt_in_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    """Without the brackets, unless it has no colours."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=100, no_color=not colours, color_system="standard"
    )
    monkeypatch.setattr(terminal, "terminal", lambda: console)
    shown(suite(tmp_path, [{"prompt": "a", "completion": "b"}] * 5), "--rows", "1")
    assert ("\x1b[32mb<|end|>\x1b[0m" in file.getvalue()) == colours
    assert ("⟦b<|end|>⟧" in file.getvalue()) == (not colours)


def test_a_text_with_its_class_is_shown(tmp_path: Path) -> None:
    """Tokens and label; nothing is bracketed, and a text that fills max_length is told."""
    path = str(tiny.local_suite(tmp_path))
    out = shown(path, "--rows", "2")
    assert "train row 1: 8 tokens\n" in out
    assert "⟦" not in out
    text = out.splitlines()[out.splitlines().index("train row 1: 8 tokens") + 1]
    assert re.fullmatch(rf"w{tiny.COLOURS.index(expected(out))} w.* <end>", text)
    cut = shown(path, "--rows", "1", "--set", "max_length=5")
    assert "train row 1: 5 tokens, as many as max_length: it may have been cut" in cut


@pytest.mark.parametrize("task", ["regression", "token_classification"])
def test_numbers_and_tags_are_shown(tmp_path: Path, task: str) -> None:
    """What a row asks for: a number, or a tag a word, whose first tokens are marked."""
    settings = tiny.task_settings(tmp_path, task)
    values = settings.model_dump(mode="json", exclude_unset=True)
    content = {
        "description": "Rows.",
        "seeds": 2,
        "settings": values,
        "methods": {"lora": {"lr": 1e-2}},
    }
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(content))
    out = shown(str(tmp_path / "rows.yaml"), "--rows", "1")
    if task == "regression":
        assert 9 < float(expected(out)) < 14
        return
    (marked,) = [line for line in out.splitlines() if "⟦" in line]
    words = marked.replace("⟦", "").replace("⟧", "").removesuffix(" <end>").split()
    assert expected(out).split() == [tiny.TAGS[int(word[1:]) % len(tiny.TAGS)] for word in words]
    assert f", {len(words)} target tokens" in out
