"""What `init` writes on time and memory, against arithmetic by hand and `fit`; and what follows
from them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import starters
from helpers.commands import called
from hpml_bench.fit import predict
from hpml_bench.fit.limits import Limit
from hpml_bench.fit.predict import Prediction
from hpml_bench.starter import estimates
from hpml_bench.starter.entries import LINE, Entry, Rate, flow, written
from hpml_bench.starter.estimates import (
    Published,
    Work,
    encoder_recipe,
    in_words,
    language_recipe,
    seconds_of,
)
from hpml_bench.starter.model import Model, look_at_model, source_of
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.suite.yaml import parse
from hpml_bench.system import gpus
from hpml_bench.system.errors import UserError
from hpml_bench.training import products

MODEL = Model(
    source="path:/m",
    folder=Path("/m"),
    config={"hidden_size": 1000, "num_hidden_layers": 10, "vocab_size": 30_000},
    parameters=150_000_000,
    positions=None,
    width=1000,
    layers=10,
    vocabulary=30_000,
    dtypes=("F32",),
    reads_both_ways=True,
    pools_by=None,
)
FULL = Published("full", "all", settings={"lr": 1e-5}, work=6)


def init(bert: Path, folder: Path, *words: str) -> str:
    """Return what the command writes."""
    return called(
        "init", "--model", bert, "--data", starters.classes(folder / "a.csv", 60), *words
    ).stdout


def predicting(fits: bool, asked: list[Suite]) -> Callable[..., Prediction]:
    """Return a prediction in which each method needs 1 GB, which notes the suites."""

    def predicted(suite: Suite, advised: bool) -> Prediction:
        asked.append(suite)
        needs = tuple(predict.Need(method=name, fits=fits, peak=10**9) for name in suite.methods)
        return Prediction(
            settings=suite.settings, limit=Limit(80 * 10**9, 0, ""), made_up_rows="", needs=needs
        )

    return predicted


def test_memory_of_cards_is_for_one_sample_at_a_time(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least that `auto` takes; where it can't be predicted, the reason stands in its place."""
    asked: list[Suite] = []
    monkeypatch.setattr(predict, "predict", predicting(True, asked))
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ({"name": "Card", "memory_mb": 80_000},) * 2)
    said = " ".join(line.strip("# ") for line in init(bert, tmp_path).splitlines())
    assert asked[0].settings.micro_batch == 1
    assert "predicted for one sample at a time: " in said
    assert "full 1 GB" in said
    assert "Here: 80 GB for each rank" in said
    monkeypatch.setattr(predict, "predict", Mock(side_effect=UserError("config.json is strange")))
    memory = estimates.predict_memory(load_suite("quickstart").settings, (FULL,), "FILE")
    assert memory.sentence == "Memory: not predicted: config.json is strange."


def test_seconds_are_operations_over_the_rate() -> None:
    """6 per parameter and token of full training, 2 of evaluation; embeddings are looked up.

    A time is said in its largest unit, with two digits.
    """
    work = Work(train_tokens=6000, eval_tokens=2000, new_tokens=0)
    operations = (150e6 - 30_000 * 1000) * (6 * 6000 + 2 * 2000)
    assert seconds_of(MODEL, FULL, work, 1e10) == pytest.approx(
        estimates.STARTING + operations / 1e10
    )
    said = {20: "20 s", 89: "89 s", 120: "2 min", 7200: "2 h", 200_000: "2.3 days"}
    assert [*map(in_words, said)] == [*said.values()]


def test_a_thread_is_timed_by_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations over seconds of CPU, 2 per multiplication; the number of threads is what it
    was.
    """
    import torch

    clock = iter([0.0, *(0.1 * step for step in range(1, 100))])
    monkeypatch.setattr(products.time, "thread_time", lambda: next(clock))
    before = torch.get_num_threads()
    fp32, bf16 = products.thread_rates((8, 4, 2))
    assert torch.get_num_threads() == before
    assert (fp32, bf16) == pytest.approx(
        [2 * 8 * 4 * 2 / 0.1] * 2
    )  # each product takes a tenth of a second


def test_the_time_is_for_all_cores_of_a_free_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds follow from the faster type that the CPU has, all cores, and the share of the
    product's rate.

    No rate of a card is made up: the command that finds out is named.
    """
    monkeypatch.setattr(estimates.gpus, "visible_gpus", lambda: ())
    monkeypatch.setattr(estimates, "thread_rates", lambda _: (1e9, 4e9))
    monkeypatch.setattr(estimates.environment, "cores", lambda: 5)
    work = Work(train_tokens=1000, eval_tokens=0, new_tokens=0)
    for has_bf16, rate in ((True, 4e9), (False, 1e9)):
        monkeypatch.setattr(estimates.environment, "has_bf16", lambda _, has=has_bf16: has)
        seconds = seconds_of(MODEL, FULL, work, estimates.REACHED * 5 * rate)
        said = estimates.time_in_words(MODEL, (FULL,), work, 100, 3)
        assert (
            f"{in_words(3 * seconds)} for 1 methods x 3 seeds; one run: full {in_words(seconds)}."
            in said
        )

    monkeypatch.setattr(
        estimates.gpus, "visible_gpus", lambda: ({"name": "Card", "memory_mb": 80_000},)
    )
    said = estimates.time_in_words(MODEL, (FULL,), Work(1, 1, 0), 100, 3)
    assert "not estimated for a GPU" in said
    assert "hpml-bench run lora" in said


def test_a_method_that_does_not_fit_is_left_out(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`full` becomes a comment, with the reason; others are kept, with the command that finds
    what to change.
    """
    monkeypatch.setattr(predict, "predict", predicting(False, []))
    written = init(bert, tmp_path)
    assert "\n  # full: {lr: 5e-5}" in written
    assert "\n  lora: {lr: 5e-4" in written
    assert "full is left out for lack of memory" in written
    said = " ".join(line.strip("# ") for line in written.splitlines())
    assert "Memory is not enough for head, lora: " in said
    assert "hpml-bench fit FILE says what helps" in said


@pytest.mark.parametrize(
    ("recipe", "parameters", "rates"),
    [
        (encoder_recipe, 110e6, {"full": 5e-5}),
        (encoder_recipe, 340e6, {"full": 2e-5}),
        (language_recipe, 7e9, {"lora": 2e-4, "qlora": 2e-4}),
        (language_recipe, 33e9, {"lora": 1e-4}),
    ],
)
def test_rates_follow_the_size_as_published(
    recipe: Callable[..., Any], parameters: float, rates: Any
) -> None:
    """BERT's lowest for large encoders; QLoRA's two rates on both sides of 13B."""
    assert (
        rates.items()
        <= {method.name: method.settings.get("lr") for method in recipe(parameters).methods}.items()
    )


def test_facts_of_a_model_are_those_of_its_files(tmp_path: Path) -> None:
    """Parameters as torch counts them, from the file's header alone; an encoder reads both ways,
    a decoder doesn't.
    """
    from transformers import AutoModel

    for folder, both in (
        (starters.bert(tmp_path / "bert"), True),
        (starters.llama(tmp_path / "llama"), False),
    ):
        found = look_at_model(str(folder))
        assert found.reads_both_ways is both
        assert found.width == 32
        assert found.layers == 2
        real = sum(weight.numel() for weight in AutoModel.from_pretrained(folder).parameters())
        assert (
            real <= found.parameters <= real + 200 * 32
        )  # the language model's output layer, or BERT's pooler
    (tmp_path / "bert" / "1_Pooling").mkdir()
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert look_at_model(str(tmp_path / "bert")).pools_by == "first"
    (tmp_path / "linked").mkdir()
    for file in (tmp_path / "bert").iterdir():  # as the hub's cache has them
        (tmp_path / "linked" / file.name).symlink_to(file)
    assert (
        look_at_model(str(tmp_path / "linked")).parameters
        == look_at_model(str(tmp_path / "bert")).parameters
    )
    config = tmp_path / "bert" / "config.json"
    odd = {
        "hidden_size": [8, 16],
        "num_hidden_layers": "2",
        "vocab_size": {},
        "max_position_embeddings": [9],
    }
    config.write_text(json.dumps(json.loads(config.read_text()) | odd))
    found = look_at_model(str(tmp_path / "bert"))
    assert (found.width, found.layers, found.vocabulary, found.positions) == (1, 1, 0, None)
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(UserError, match="save the model anew"):
        look_at_model(str(tmp_path / "bert"))


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("FacebookAI/roberta-base", "hub:FacebookAI/roberta-base"),
        ("o/n@main", "hub:o/n@main"),
        ("hub:o/n", "hub:o/n"),
        ("embedded:newswire-gpt2", "embedded:newswire-gpt2"),
        ("path:/a/b", "path:/a/b"),
        ("/", "path:/"),
    ],
)
def test_sources_are_written_as_suites_write_them(given: str, source: str) -> None:
    """With their kind, and paths absolute."""
    assert source_of(given) == source


# Entries as YAML: read back as they were, each below or before its reason


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(
    st.recursive(
        TEXTS | st.booleans() | st.none() | st.integers(-9, 10**9),
        lambda v: st.lists(v, max_size=3),
    ),
    st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3),
)
def test_a_value_is_read_back_as_it_was(value: Any, mapping: dict[str, str]) -> None:
    """Whatever text it holds; of a mapping keys too. A rate is written as people write it."""
    assert parse(f"key: {flow(value)}", "") == {"key": value}
    assert parse(flow(mapping), "") == mapping
    rates = {5e-4: "5e-4", 1e-3: "1e-3", 3e-2: "3e-2", 1.5e-5: "1.5e-5", 2.0: "2e0"}
    assert [flow(Rate(rate)) for rate in rates] == [*rates.values()]
    assert [parse(shown, "") for shown in rates.values()] == [*rates]


@given(TEXTS, TEXTS)
def test_no_reason_becomes_part_of_the_suite(first: str, second: str) -> None:
    """Texts of the user's data in comments stay comments, whatever line breaks they hold."""
    entries = [
        Entry("a", 1, (first,)),
        Entry("b", (Entry("c", "x", (first, second)), Entry("d", 2, (second,), False))),
        Entry("e", 3, (f"  {first}", second)),
    ]
    assert parse("\n".join(written(entries)), "") == {"a": 1, "b": {"c": "x"}, "e": 3}


def test_a_short_reason_stands_beside_a_long_one_above() -> None:
    """Within the width; a command stays on its line, and alternatives are comments."""
    lines = [
        *written(
            [
                Entry("a", 1, ("short",)),
                Entry("b", 2, ("long " * 40,)),
                Entry("c", 3, ("  run this " * 20,)),
                Entry("d", 4, ("other",), chosen=False),
            ]
        )
    ]
    assert lines[0] == "a: 1  # short"
    assert lines[1].startswith("# long long")
    assert lines[-1] == "# d: 4  # other"
    assert sum(len(line) > LINE for line in lines) == 1
