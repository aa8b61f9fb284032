"""Preparation: subsets, token ids, digests and batches are what the settings say, and the cache
never changes them.
"""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from helpers import tiny
from helpers.commands import called
from helpers.tiny import gpt2, prepared, settings
from hpml_bench.data import prepare as module
from hpml_bench.data.draw import draw, training_rows
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import MemoryNeed, Prepared, global_batches, largest
from hpml_bench.plugins.dataset import FEWER, LoadedData
from hpml_bench.plugins.rows import read_rows
from hpml_bench.plugins.tokenizer import end_id, generation_ends, load_tokenizer
from hpml_bench.select.selection import Selection
from hpml_bench.system.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<end>", "row", "good", "bad", *map(str, range(60))]
END = WORDS.index("<end>")


def save_tokenizer(folder: Path, *, like_bert: bool = False, **special: str) -> None:
    """Save a tokenizer of whole words, which ends texts with [SEP] or adds nothing."""
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if like_bert:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))],
        )
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    backend.enable_truncation(3)  # a file may say so; the settings decide
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special).save_pretrained(
        folder
    )


def csv(rows: int, label: Callable[[int], str] = lambda i: "ab"[i % 2]) -> str:
    return "label,text\n" + "".join(
        f"{label(i)},row {i} {'good' if i % 2 else 'bad'}\n" for i in range(rows)
    )


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that gives settings of a tiny model and 40 training and 20 test rows."""
    monkeypatch.setenv("HPML_BENCH_CACHE", str(tmp_path / "cache"))
    save_tokenizer(gpt2(tmp_path / "model"), eos_token="<end>")
    (tmp_path / "train.csv").write_text(csv(40))
    (tmp_path / "test.csv").write_text(csv(20))

    def of(**changes: Any) -> Any:
        files = {
            name: f"path:{tmp_path / f'{name}.csv'}" for name in ("train", "test")
        } | changes.pop("files", {})
        dataset = {"name": "text_files", "options": files}
        values = {
            "backbone": f"path:{tmp_path / 'model'}",
            "validation_samples": 8,
            "dataset": dataset,
        }
        return settings(**values | changes)

    return of


def rows(prepared: Prepared, split: str) -> list[list[int]]:
    return read_rows(Path(prepared.data) / split).column("input_ids").to_pylist()


def texts(prepared: Prepared, split: str) -> list[str]:
    return [" ".join(WORDS[i] for i in ids) for ids in rows(prepared, split)]


# Tokens


def test_rows_are_tokenised_with_their_labels_and_an_end(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """A tokenizer that adds nothing gets the end token appended, within max_length too; the report
    counts cut texts.

    Ids are int32, half the size of the default. BERT's ends its texts itself, once; where there is
    no end token none is invented.
    """
    done = prepare(make())
    assert [len(rows(done, split)) for split in ("train", "validation", "test")] == [32, 8, 20]
    assert all(ids[-1] == END and len(ids) == 4 for ids in rows(done, "train"))
    table = read_rows(Path(done.data) / "train")
    types = {
        name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    }
    assert types == {"input_ids": "list<item: int32>", "label": "int64"}
    first = table.column("label")[0].as_py()
    assert done.label_names[first] == ("b" if "good" in texts(done, "train")[0] else "a")
    assert done.pad_id == END
    done = prepare(make(max_length=3))
    assert all(len(ids) == 3 and ids[-1] == END for ids in rows(done, "test"))
    assert done.notes["texts that fill max_length"].startswith("100%")
    save_tokenizer(tmp_path / "model", like_bert=True, pad_token="[PAD]")
    done = prepare(make())
    assert all(
        text.startswith("[CLS] row") and text.endswith("d [SEP]") for text in texts(done, "train")
    )
    assert done.pad_id == 0
    save_tokenizer(tmp_path)
    assert end_id(load_tokenizer(tmp_path)) is None


# Subsets


def numbers(prepared: Prepared, split: str) -> list[int]:
    return [int(text.split()[1]) for text in texts(prepared, split)]


def test_rows_are_drawn_by_the_data_seed(make: Callable[..., Any], tmp_path: Path) -> None:
    """Validation rows are never trained on; more training rows only add to fewer; a validation
    set's own are no part.

    Together they are the training file, each row once; a learning curve over train_samples changes
    nothing else.
    """
    done = prepare(make())
    assert sorted(numbers(done, "train") + numbers(done, "validation")) == list(range(40))
    one, same, other = (prepare(make(train_samples=12, data_seed=seed)) for seed in (0, 0, 1))
    assert numbers(one, "train") == numbers(same, "train") != numbers(other, "train")
    many = prepare(make(train_samples=24))
    assert numbers(many, "train")[:12] == numbers(one, "train")
    assert numbers(many, "validation") == numbers(one, "validation")
    own = prepare(make(files={"validation": f"path:{tmp_path / 'test.csv'}"}))
    assert (len(rows(own, "train")), len(rows(own, "validation"))) == (40, 8)


def test_of_fewer_rows_than_asked_for_all_are_taken(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """Of each split, and the terminal and the page say so; nothing is said where there are
    enough.
    """
    assert (FEWER in prepare(make(train_samples=32, test_samples=20)).notes) is False
    files = {"validation": f"path:{tmp_path / 'test.csv'}"}
    done = prepare(make(files=files, train_samples=4000, validation_samples=50, test_samples=21))
    assert done.rows == {"train": 40, "validation": 20, "test": 20}
    assert done.notes[FEWER] == "; ".join(done.warnings[:3])
    assert done.warnings[:3] == (
        "train_samples asks for 4,000 rows, there are 40, and all of them are taken",
        "validation_samples asks for 50 rows, there are 20, and all of them are taken",
        "test_samples asks for 21 rows, there are 20, and all of them are taken",
    )


@pytest.mark.parametrize(
    ("rows", "own", "found"), [(9000, 0, 500), (70, 0, 7), (9000, 800, 500), (70, 30, 30)]
)
def test_validation_rows_are_bounded(rows: int, own: int, found: int) -> None:
    """By 500, and of a data set's own validation set by its size; a number that is asked for
    stands.
    """
    train, validation = (
        Dataset.from_dict({"text": ["x"] * n, "label": [0] * n}) for n in (rows, own)
    )
    data = LoadedData(train, validation if own else None, train, ("a", "b"))
    assert len(draw(data, settings(validation_samples=None))["validation"]) == found
    assert len(draw(data, settings(validation_samples=20))["validation"]) == 20
    assert len(draw(data, settings(validation_samples=None), most=6)["validation"]) == 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"validation_samples": 30},
            "40 training rows are too few for 30 validation_samples split off.* of 12",
        ),
        ({"max_length": 65}, "reads at most 64 tokens"),
        ({"dataset": "nothing"}, "there is no data set 'nothing'"),
        (
            {"dataset": {"name": "text_files", "options": {"train": "path:x", "labl": ""}}},
            "did you mean label",
        ),
        ({"backbone": "path:/no/such"}, "no such file or folder"),
    ],
)
def test_settings_beyond_the_data_are_refused(
    make: Callable[..., Any], changes: dict[str, Any], says: str
) -> None:
    """One sentence with the number there is."""
    with pytest.raises(UserError, match=says) as raised:
        prepare(make(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "learnt", "says"),
    [
        ([0, 2], [0, 1], "label 2, outside the 2 names"),
        ([], [0, 1], "there are no test rows"),
        ([0, 1], [0, 0], "all 32 training rows are of the class 'a'"),
    ],
)
def test_a_data_sets_own_mistake_is_caught(
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    labels: list[int],
    learnt: list[int],
    says: str,
) -> None:
    """Another package's data set can't hand out labels without a name, nothing, or training rows
    of one class.
    """
    train = Dataset.from_dict({"text": ["x"] * 40, "label": learnt * 20})
    test = Dataset.from_dict({"text": ["x"] * len(labels), "label": labels})
    fake = SimpleNamespace(
        targets=("class",), load=lambda *_: LoadedData(train, None, test, ("a", "b"))
    )
    monkeypatch.setattr(module, "make_loader", lambda _: fake)
    with pytest.raises(UserError, match=says):
        prepare(make())


# Digests and the cache


def test_the_digests_follow_contents_and_not_places(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """The same files in another folder have the same digests; a changed letter changes the data's
    alone.

    The weights' covers configuration and tensors, the tokenizer's the end token, which changes the
    ids.
    """
    first = prepare(make())
    before = first.digests
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "train.csv").rename(tmp_path / "elsewhere" / "t.csv")
    files = {"train": f"path:{moved}"}
    assert prepare(make(files=files)).digests == before
    moved.write_text(csv(40).replace("row 7 good", "row 7 bad"))
    after = prepare(make(files=files)).digests
    assert after.data != before.data
    assert (after.weights, after.tokenizer) == (before.weights, before.tokenizer)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"n_head": 2', '"n_head": 4'))
    save_tokenizer(tmp_path / "model", eos_token="[SEP]")
    other = prepare(make(files=files))
    assert other.digests.weights != before.weights
    assert other.digests.tokenizer != before.tokenizer
    assert rows(other, "test")[0][-1] != rows(first, "test")[0][-1]


def test_the_second_call_finds_its_rows(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tokenises nothing, and gives the same; a damaged entry is built again."""
    first = prepare(make())
    with monkeypatch.context() as patch:
        patch.setattr(module, "_tokenise", None)
        assert prepare(make()) == first
    expected = rows(first, "train")
    file = next(Path(first.data, "train").glob("*.arrow"))
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-40] + bytes(40), None):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        assert rows(prepare(make()), "train") == expected


def test_a_folder_without_a_tokenizer_says_so(make: Callable[..., Any], tmp_path: Path) -> None:
    """The file that is missing is named."""
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=r"holds no tokenizer.*tokenizer\.json"):
        prepare(make())


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("key", ["vocab_size", "n_positions"])
def test_limits_of_a_model_are_seen(
    within: bool, key: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    """Also where a configuration of several media has those of texts in a part of its own,
    `text_config`.
    """
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    part = {name: config.pop(name) for name in ("vocab_size", "n_positions")} | {key: 6}
    file.write_text(json.dumps(config | ({"text_config": part} if within else part)))
    with pytest.raises(
        UserError,
        match="they don't belong together" if key == "vocab_size" else "reads at most 6 tok",
    ):
        prepare(make())


def test_several_processes_may_prepare_at_once(make: Callable[..., Any]) -> None:
    """One builds, the other waits, both get the same."""
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        one, other = pool.map(prepare, [make(), make()])
    assert one == other == prepare(make())


def test_end_tokens_of_generation_config_are_among_the_stop_tokens(tmp_path: Path) -> None:
    """One or a list; ids that are no added tokens of the tokenizer are defaults of a class, and
    left out.
    """
    of_words = tiny.task_settings(tmp_path, "causal_lm")
    folder = tmp_path / "model"
    tokenizer = load_tokenizer(folder)
    (end, other), word = (
        list(tokenizer.added_tokens_decoder)[:2],
        tokenizer.convert_tokens_to_ids("w3"),
    )
    for given, expected in (
        (other, {other}),
        ([other, word, end], {other, end}),
        (word, set()),
        (None, set()),
    ):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": given}))
        assert set(generation_ends(folder, tokenizer)) == expected
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [other]}))
    assert other in prepare(of_words).stop_ids
    (folder / "generation_config.json").unlink()
    assert generation_ends(folder, tokenizer) == ()


# Batches


LENGTHS = np.random.default_rng(0).integers(3, 60, 200)


def test_an_epoch_holds_every_row_at_most_once() -> None:
    """No row twice within an epoch; what doesn't fill a last batch is left out, another part each
    epoch.

    The same seed gives the same batches, another seed others. Bucketing by length saves most of the
    padding that shuffled batches have.
    """
    batches = list(global_batches(LENGTHS, 16, steps=24, seed=3))
    first, second = np.concatenate(batches[:12]), np.concatenate(batches[12:])
    assert len(set(first.tolist())) == 192
    assert set(first.tolist()) != set(second.tolist())
    one, again, other = (
        [b.tolist() for b in global_batches(LENGTHS, 16, 12, seed)] for seed in (1, 1, 2)
    )
    assert one == again != other
    bucketed = sum(LENGTHS[b].max() * len(b) for b in global_batches(LENGTHS, 8, 25, 0))
    shuffled = sum(
        LENGTHS[b].max() * len(b) for b in np.random.default_rng(0).permutation(200).reshape(25, 8)
    )
    assert bucketed - LENGTHS.sum() < 0.25 * (shuffled - LENGTHS.sum())


def test_the_largest_passes_are_those_that_no_other_exceeds() -> None:
    """The longest, the one with most targets, and those between; none that has less of both, and
    one of equal ones.
    """
    needs = [(50, 10), (100, 1), (60, 5), (40, 20), (60, 5), (100, 1), (45, 12), (50, 9)]
    found = largest((MemoryNeed(*need), number) for number, need in enumerate(needs))
    assert sorted(found) == [0, 1, 2, 3, 6]


# Rows of each seed's own: drawn from one pool, the same for all methods of a seed, and compared in
# one report


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """Two methods x two seeds, run and read again."""
    out, sizes = (
        tmp_path_factory.mktemp("varied"),
        {"train": 32, "validation": 16, "test": 24, "latency": 2},
    )
    settings: dict[str, Any] = {f"{of}_samples": count for of, count in sizes.items()}
    settings |= {
        "vary_data": "true",
        "steps": 4,
        "epochs": "null",
        "global_batch": 8,
        "precision": "fp32",
    }
    settings |= {"device": "cpu", "world_size": 1, "threads": 1}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    called(
        "run-all",
        "quickstart",
        "--methods",
        "lora,head",
        "--seeds",
        "2",
        "--out",
        out,
        "--wandb",
        "off",
        *words,
    )
    return Selection.load(out / "quickstart")


def test_all_runs_are_compared(selection: Selection) -> None:
    """All four are ok, of one protocol and one digest of the data, and none is set apart.

    A seed has rows of its own, which its methods share: the digest of the rows in their order, and
    the tokens.
    """
    assert len(selection.compared) == 4
    assert selection.left_out.excluded == ()
    assert len({record.protocol_id for record in selection.compared}) == 1
    assert len({record.digests for record in selection.compared}) == 1
    assert (
        "256 train, 16 validation, 24 test (each seed draws 32" in selection.reference.notes["rows"]
    )
    consumed = [
        {record.consumed for record in selection.compared if record.spec.seed == seed}
        for seed in (0, 1)
    ]
    assert [len(found) for found in consumed] == [1, 1]
    assert consumed[0] != consumed[1]


def test_the_order_tells_which_rows_were_drawn(tmp_path: Path) -> None:
    """Two seeds draw different rows of the pool, again the same ones; numbers and tokens are
    those on disk.
    """
    there = prepared(tmp_path, rows=96)
    varied = settings(vary_data=True, train_samples=36)
    whole = training_rows(there, settings(), 0)
    drawn = {seed: training_rows(there, varied, seed) for seed in (0, 1)}
    numbers = {seed: rows.numbers.tolist() for seed, rows in drawn.items()}
    assert [len(set(of)) for of in numbers.values()] == [36, 36]
    assert set(numbers[0]) != set(numbers[1])
    assert training_rows(there, varied, 0).numbers.tolist() == numbers[0]
    for index, number in enumerate(numbers[1]):
        assert drawn[1].tokens(index).tolist() == whole.tokens(number).tolist()
        assert drawn[1].labels[index] == whole.labels[number]
        assert drawn[1].lengths[index] == whole.lengths[number]
    batch = drawn[1].batch(np.array([3, 0]))
    assert batch.labels.tolist() == whole.labels[[numbers[1][3], numbers[1][0]]].tolist()
    assert whole.numbers.tolist() == list(range(96))  # without it under their own indices, as ever


def data(rows: int) -> LoadedData:
    train, test = (
        Dataset.from_dict(
            {"text": [f"{name} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}
        )
        for name, n in (("train", rows), ("test", 10))
    )
    return LoadedData(train, None, test, ("a", "b"))


def test_the_pool_is_all_rows_less_the_validation_rows() -> None:
    """Validation and test rows are those that all seeds have without it, and the usual training
    rows come first.
    """
    plain = draw(data(60), settings(train_samples=20, validation_samples=8))
    pool = draw(data(60), settings(train_samples=20, validation_samples=8, vary_data=True))
    assert pool["validation"]["text"][:] == plain["validation"]["text"][:]
    assert pool["test"]["text"][:] == plain["test"]["text"][:]
    assert pool["train"]["text"][:20] == plain["train"]["text"][:]
    assert len(pool["train"]) == 52
    assert not set(pool["train"]["text"]) & set(pool["validation"]["text"])


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (None, "vary_data needs train_samples"),
        (27, "of 52 rows all would draw nearly the same"),
        (53, "draws 53 .* but of 52"),
    ],
)
def test_where_nothing_can_vary_it_is_refused(samples: int | None, says: str) -> None:
    """Without a number of rows, or with more than half of those there are."""
    with pytest.raises(UserError, match=says) as raised:
        draw(data(60), settings(train_samples=samples, validation_samples=8, vary_data=True))
    assert "\n" not in str(raised.value)


def test_classes_without_a_test_row_are_named(make: Callable[..., Any], tmp_path: Path) -> None:
    """The record and the terminal name classes that no test row can tell anything about."""
    (tmp_path / "train.csv").write_text(csv(40, lambda row: "abc"[row % 3]))
    done = prepare(make())
    assert done.notes["classes without a test row"] == "1 of 3: c"
    assert "classes without a test row: 1 of 3: c" in done.warnings
    (tmp_path / "test.csv").write_text(csv(20, lambda row: "abc"[row % 3]))
    assert "classes without a test row" not in prepare(make()).notes


def test_average_precision_needs_both_classes(make: Callable[..., Any], tmp_path: Path) -> None:
    """Without a test row of the rarer class there is no precision to average."""
    assert "classes without a test row" not in prepare(make(rank_by="average_precision")).notes
    (tmp_path / "test.csv").write_text(csv(20, lambda _: "b"))
    with pytest.raises(UserError, match=r"all 20 test rows are of one class, and average_prec"):
        prepare(make(rank_by="average_precision"))
