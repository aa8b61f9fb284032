"""Generated rows: the news world with its exact posterior and embedded backbone, questions about
it, word problems.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpml_bench
from hpml_bench.builtin.newswire import documents as nw
from hpml_bench.builtin.newswire.documents import balanced_beats, beat_chain
from hpml_bench.builtin.newswire.world import BEAT_NAMES, ENTITIES, World, make_world
from hpml_bench.data.numbers import read_last
from hpml_bench.plugins.dataset import LoadedData, make_loader
from hpml_bench.suite.settings import DatasetSpec, Settings
from hpml_bench.suite.suite import load_suite

ASSET = Path(hpml_bench.__path__[0]) / "assets/newswire-gpt2"


def settings(**changes: int) -> Settings:
    sizes = {
        "train_samples": 64,
        "validation_samples": 32,
        "test_samples": 48,
        "global_batch": 16,
    } | changes
    return Settings.model_validate(
        {"backbone": "embedded:newswire-gpt2", "dataset": "newswire", "steps": 1} | sizes
    )


def tiny_world() -> World:
    """Return a world of three beats in two topics (beats 0 and 2 are topic 0) whose kinds have
    two or three words.
    """
    person = np.array([[0.7, 0.1, 0.2], [0.2, 0.8, 0.1], [0.1, 0.1, 0.7]])
    half = np.full((2, 3), 0.5)
    words = dict.fromkeys(
        ("organisation", "place", "noun", "verb", "adjective", "time"), ("x", "y")
    )
    noun = np.array([[0.9, 0.4, 0.5], [0.1, 0.6, 0.5]])
    chance = {"person": person, **dict.fromkeys(words, half), "noun": noun}
    return World({"person": ("p", "q", "r"), **words}, chance, np.array([0, 1, 0]))


def test_the_posterior_equals_bayes_by_hand() -> None:
    """A document with persons p, q and noun x: topic 0 gets 0.7*0.2*0.9 + 0.2*0.1*0.5, topic 1
    gets 0.1*0.8*0.4.
    """
    kinds = np.array([[0, 0, 3, -1]])  # person, person, noun, no slot
    words, frames = np.array([[0, 1, 0, -1]]), np.zeros((1, 2), int)
    document = nw.Documents(frames=frames, words=words, kinds=kinds, topic=np.array([0]))
    topic0, topic1 = 0.7 * 0.2 * 0.9 + 0.2 * 0.1 * 0.5, 0.1 * 0.8 * 0.4
    expected = [topic0 / (topic0 + topic1), topic1 / (topic0 + topic1)]
    np.testing.assert_allclose(nw.posterior(tiny_world(), document)[0], expected, rtol=1e-12)


def test_sampled_words_are_as_frequent_as_the_world_says() -> None:
    """What is sampled is what the posterior computes with: each beat's word frequencies equal
    its column.
    """
    world = tiny_world()
    documents = nw.sample(world, np.full(60_000, 2), np.random.default_rng(1))
    for kind, name in enumerate(world.words):
        drawn = documents.words[documents.kinds == kind]
        frequency = np.bincount(drawn, minlength=len(world.words[name])) / len(drawn)
        np.testing.assert_allclose(frequency, world.chance[name][:, 2], atol=0.01)


def test_best_accuracy_is_below_certainty_and_agrees_with_its_expectation() -> None:
    """Classes overlap: the best possible accuracy lies between 90 and 96 %, and more own names
    raise it.
    """
    best = {}
    for share in (0.5, 0.6, 0.7):
        world = make_world(share)
        here, expected = nw.best_accuracy(world, nw.generate(world, 10_000, 0, "check"))
        assert here == pytest.approx(expected, abs=0.012)  # four standard errors
        best[share] = expected
    assert 0.90 < best[0.6] < 0.96
    assert best[0.5] < best[0.6] < best[0.7]


def test_rows_differ_by_seed_and_split_alone() -> None:
    """Same seed and split: the same rows. Another seed or split: not one text in common, in 3,000
    rows each.

    The rows of a seed never change: recorded results stay comparable over versions and machines.
    """
    world = make_world()
    texts = nw.render(world, nw.generate(world, 200, 0, "train"))
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "5ca84007efd2dbb1"
    keys = [(0, "train"), (0, "validation"), (0, "test"), (0, "stream"), (1, "train")]
    rows = [set(nw.render(world, nw.generate(world, 3000, *key))) for key in keys]
    assert rows[0] == set(nw.render(world, nw.generate(world, 3000, 0, "train")))
    assert len(set.union(*rows)) == sum(map(len, rows))
    assert all(len(texts) > 2990 for texts in rows)


def test_the_stream_ties_names_to_beats() -> None:
    """A background line names its beat, and all its people are of that beat; neighbours share it as
    often as asked.

    With `stay` 0.5, and 24 beats, 0.5 + 0.5 / 24 of them do.
    """
    people = {name: i // ENTITIES["person"] for i, name in enumerate(make_world().words["person"])}
    for text in nw.stream(make_world(), 300, nw.split_rng(0, "stream"), background=1.0):
        words = re.findall(r"\w+", text)
        beats = {beat for beat, name in enumerate(BEAT_NAMES) if name in text.lower().split()}
        assert {people[word] for word in words if word in people} == beats, text
        assert len(beats) == 1
    chain = beat_chain(40_000, np.random.default_rng(0), stay=0.5)
    assert (chain[1:] == chain[:-1]).mean() == pytest.approx(0.5 + 0.5 / 24, abs=0.01)


def test_the_asset_is_small_and_whole() -> None:
    """At most 8 MB: configuration, safetensors weights, tokenizer, and a model card with licence
    and figures.

    Text ends with EOS and padding is another token; decoding gives the text back, and the texts fit
    64 tokens.
    """
    from transformers import AutoTokenizer

    files = {path.name for path in ASSET.iterdir()}
    assert files == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }
    assert sum(path.stat().st_size for path in ASSET.iterdir()) <= 8_000_000
    assert "license: apache-2.0" in (ASSET / "README.md").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(ASSET)
    ids = tokenizer(["Plan", "Plan of a new record today"], padding=True)["input_ids"]
    assert ids[1][-1] == tokenizer.eos_token_id
    assert ids[0][-1] == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (
        tokenizer("word " * 50, truncation=True, max_length=8)["input_ids"][-1]
        == tokenizer.eos_token_id
    )
    world = make_world()
    for text in nw.render(world, nw.generate(world, 200, 0, "test")):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) <= 64
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


# Entities and scores


def load(name: str, target: str, asked: Settings | None = None, **options: Any) -> LoadedData:
    asked = (asked or settings()).model_copy(
        update={"dataset": DatasetSpec(name=name, options=options)}
    )
    return make_loader(asked).load(asked, target)


def test_the_best_rmse_is_the_posteriors() -> None:
    """On many rows what the posterior mean reaches is what is expected of it; without noise and
    doubt it is 0.
    """
    world = make_world()
    rng = nw.split_rng(0, "check")
    beats = balanced_beats(20_000, rng)
    documents, numbers = nw.sample(world, beats, rng), nw.noisy_levels(beats, 0, "check")
    here, expected = nw.best_rmse(world, documents, numbers)
    assert here == pytest.approx(expected, rel=0.03)
    assert nw.NOISE < expected < numbers.std() / 2
    plain = make_world(1.0)  # every name is of the document's own beat
    sure = nw.best_rmse(plain, nw.sample(plain, beats, rng), nw.LEVELS[beats], noise=0.0)
    assert sure == pytest.approx((0, 0), abs=0.01)


@pytest.mark.parametrize(
    ("name", "target"), [("newswire_entities", "tags"), ("newswire_score", "number")]
)
def test_generated_rows_are_the_same_everywhere(name: str, target: str) -> None:
    """The rows of a seed never change: recorded results stay comparable.

    Scores have the texts of newswire, and a note of the best possible RMSE.
    """
    data = load(name, target)
    content = repr([{key: row[key] for key in sorted(row)} for row in data.test])
    if name == "newswire_score":
        assert data.train["text"][:] == load("newswire", "class").train["text"][:]
        best = r"\d\.\d{3} \(posterior mean on these 48 test rows; \d\.\d{3} expected"
        assert re.match(best, data.notes["best possible RMSE"])
    digests = {"newswire_entities": "c3e1c617e50f5855", "newswire_score": "f629d05c1359880b"}
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == digests[name]


# Questions about the world


def loaded(**changes: Any) -> LoadedData:
    return load("newswire_chat", "answer", load_suite("chat", settings=changes).settings)


def desk_of(name: str) -> str:
    for kind, names in make_world().words.items():
        if kind in ENTITIES and name in names:
            return BEAT_NAMES[names.index(name) // ENTITIES[kind]].capitalize()
    raise AssertionError(name)


def test_questions_on_names_have_the_worlds_answer() -> None:
    """A third each: one name, three names of one desk, a text; the answer on names is the world's,
    with a capital.

    The best score is told: names can all be known, and of texts as many as the exact posterior gets
    right.
    """
    kinds, data = {"one": 0, "three": 0, "text": 0}, loaded()
    for question, answer in data.test["contents"]:
        if found := re.fullmatch(r"Which desk covers (\w+)\?", question):
            kinds["one"] += 1
            assert answer == f" {desk_of(found[1])}"
        elif found := re.fullmatch(r"(\w+) of (\w+), (\w+): which desk\?", question):
            kinds["three"] += 1
            assert {f" {desk_of(name)}" for name in found.groups()} == {answer}
        else:
            kinds["text"] += 1
            assert question.endswith(" Which desk?")
    assert kinds == {"one": 200, "three": 200, "text": 200}
    (note,) = data.notes.values()
    best = float(re.match(r"([\d.]+) %", note)[1])  # type: ignore[index]
    assert 200 / 3 < best < 100


def test_rows_are_the_same_each_time_and_splits_differ() -> None:
    """`data_seed` and the split determine them; test questions of one name are mostly of names
    not trained on.
    """
    first, again, other = loaded(), loaded(), loaded(data_seed=1)
    assert first.test[:] == again.test[:]
    assert first.test[:] != other.test[:]
    asked = [{contents[0] for contents in split["contents"]} for split in (first.train, first.test)]
    ones = {question for question in asked[1] if question.startswith("Which desk covers")}
    assert len(ones - asked[0]) > 0.6 * len(ones)
    # the retention text is the stream that the backbone was pretrained on, drawn anew; a turn each
    assert set(map(len, first.retention["contents"])) == {1}
    assert set(map(tuple, first.retention["roles"])) == {("assistant",)}


# Word problems

FIRST = re.compile(r"\w+ has (\d+) \w+\.")
CHANGES: tuple[tuple[str, Any], ...] = (
    (r"gives \w+ (\d+) more|buys (\d+)|finds (\d+)", lambda amount, n: amount + n),
    (r"gives (\d+) to|loses (\d+)|sells (\d+)", lambda amount, n: amount - n),
    (r"now (\d+) times as many", lambda amount, n: amount * n),
)


def problems(**options: Any) -> LoadedData:
    sizes = settings(train_samples=300, validation_samples=16, test_samples=200)
    return load("word_problems", "answer", sizes, **options)


def solved(question: str) -> int:
    """Return the answer, read sentence by sentence."""
    first, *told = re.findall(r"[^.?]+[.?]", question)
    amount = int(FIRST.match(first)[1])  # type: ignore[index]
    for sentence in told:
        for pattern, change in CHANGES:
            if found := re.search(pattern, sentence):
                amount = change(amount, int(next(number for number in found.groups() if number)))
                break
    return amount


@pytest.mark.parametrize("steps", [(1, 1), (2, 3)])
def test_answers_are_those_of_the_questions(steps: tuple[int, int]) -> None:
    """Read from the text, and equal to what every calculation and the end of the answer say.

    No question comes twice in any splits, and the rows are the same each time.
    """
    data = problems(steps=steps)
    splits = [data.train, data.validation, data.test]
    questions = [
        contents[0] for split in splits if split is not None for contents in split["contents"]
    ]
    assert len(set(questions)) == len(questions) == 516
    assert problems(steps=steps).test["contents"][:] == data.test["contents"][:]
    for question, answer in data.test["contents"]:
        calculated = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", answer)
        assert steps[0] <= len(calculated) <= steps[1]
        for left, sign, right, result in calculated:
            amounts = {
                "+": int(left) + int(right),
                "-": int(left) - int(right),
                "*": int(left) * int(right),
            }
            assert amounts[sign] == int(result)
            assert 0 < int(result) < 100
        assert (
            calculated[-1][3]
            == answer.rpartition("#### ")[2]
            == str(read_last(answer, "point").value)
            == str(solved(question))
        )
