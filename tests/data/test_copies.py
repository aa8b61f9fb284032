"""Copies and near-copies among rows: found as an exact comparison of all pairs finds them,
counted, and warned of.
"""

import numpy as np
import pytest
from datasets import Dataset

from hpml_bench.data import copies as module
from hpml_bench.data.copies import Copies, CopyCount, Texts, find_copies
from hpml_bench.plugins.dataset import Target

WORDS = np.array([f"word{number}" for number in range(3000)])


def random_texts(number: int, seed: int, words: int = 40) -> list[str]:
    return [" ".join(row) for row in np.random.default_rng(seed).choice(WORDS, (number, words))]


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = f"other{place}"
    return " ".join(words)


def found(test: list[str], train: list[str], **groups: list[int]) -> Copies:
    """Return the copies among test and training rows, and a validation row that is like none;
    groups by split.
    """
    of = {"test": test, "validation": random_texts(1, 99), "train": train}
    columns = {name.removesuffix("_groups"): {"group": own} for name, own in groups.items()}
    rows = {
        split: Dataset.from_dict({"text": texts} | columns.get(split, {}))
        for split, texts in of.items()
    }
    return find_copies(rows, "class")


def test_copies_within_and_between_splits_are_counted() -> None:
    """Equal but for case and white space, or a word of forty changed: each row that has one, in its
    split and in train.

    With seven words changed, of the 36 sequences some 30 others: no copy any more.
    """
    texts = random_texts(20, 2)
    equal, near, far = (
        f"  {texts[0].upper()}\n",
        changed(texts[1], 20),
        changed(texts[2], 3, 9, 15, 20, 25, 30, 36),
    )
    learnt = [texts[5].replace(" ", "  "), changed(texts[6], 8), *random_texts(30, 3)]
    counted = found([*texts, equal, near, far], learnt)
    assert counted.within["test"] == CopyCount(near=4, equal=2)
    assert counted.within["train"] == counted.within["validation"] == CopyCount()
    assert counted.in_train == {"test": CopyCount(near=2, equal=1), "validation": CopyCount()}
    assert counted.note == "test 4 of 23 (2 equal); test in train 2 of 23 (1 equal)"
    assert counted.warning == (
        "of 23 test rows 4 have a copy or near-copy among the others (2 equal) and 2 have a copy "
        "or near-copy among "
        "the training rows (1 equal), so that scores look better and more certain than they are"
    )


def test_copies_of_one_group_are_none() -> None:
    """Where rows have groups only copies of other groups count, and test rows of a training row's
    group are told.

    Of groups of test rows alone none is in training rows; of training rows alone there is nothing
    to count.
    """
    texts = random_texts(10, 4)
    test = [*texts[:4], changed(texts[0], 20), texts[1], texts[2]]
    apart = found(test, texts[5:], test_groups=[0, 1, 2, 3, 0, 1, 2], train_groups=[5, 6, 7, 8, 9])
    assert (apart.within["test"], apart.groups, apart.warning) == (CopyCount(), 0, None)
    across = found(test, texts[5:], test_groups=[0, 1, 2, 3, 0, 9, 4], train_groups=[3, 6, 7, 8, 9])
    assert across.within["test"] == CopyCount(near=4, equal=4)
    assert across.groups == 2
    told = (
        "4 have a copy or near-copy among those of other groups (4 equal) and 2 belong to a group "
        "that"
    )
    assert told in across.warning
    assert found(["a", "b"], ["a", "b"], test_groups=[0, 1]).groups == 0
    assert found(["a", "b"], ["a", "b"], train_groups=[0, 1]).groups is None


@pytest.mark.parametrize("framed", [False, True])
def test_near_copies_are_those_of_an_exact_comparison(framed: bool) -> None:
    """Of pairs with up to six of forty words changed those are found that share half of their
    sequences, and no others.

    By the Jaccard index of sequences of five words; of those near a half some are missed, of those
    above none. With an instruction before every text as without.
    """
    random = np.random.default_rng(5)
    texts = random_texts(300, 6)
    texts += [
        changed(text, *random.choice(40, int(random.integers(0, 7)), replace=False))
        for text in texts
    ]
    instruction = " ".join(random_texts(1, 7)) if framed else ""
    every = Texts()
    kinds = [every.add(f"{instruction} {text}") for text in texts]
    alike = every.near_copies()[kinds]
    sets = [
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in map(str.split, texts)
    ]
    index = np.array(
        [len(sets[n] & sets[n + 300]) / len(sets[n] | sets[n + 300]) for n in range(300)]
    )
    here = alike[:300] == alike[300:]
    assert (index >= 0.5).sum() > 100
    assert (index < 0.45).sum() > 50
    assert here[index >= 0.5].mean() > 0.95
    assert here[index >= 0.65].all()
    assert not here[index < 0.45].any()
    assert len(set(alike[:300].tolist())) == 300


def test_rows_that_differ_are_no_copies() -> None:
    """Of random texts none is counted, and nothing is warned of; a frame makes no copies.

    An instruction of fifty words around texts of eight doesn't make them near-copies, in small data
    neither.
    """
    none = found(random_texts(200, 0), random_texts(300, 1))
    assert (none.note, none.warning) == ("none", None)
    assert none.rows == {"test": 200, "validation": 1, "train": 300}
    frame = random_texts(1, 8, 50)[0]
    for number in (40, 400):
        texts = [f"{frame} {text}" for text in random_texts(2 * number, 9, 8)]
        assert found(texts[:number], texts[number:]).note == "none"


def test_short_texts_are_copies_where_they_are_equal() -> None:
    """Under five words the whole text counts, one without any too; without spaces each letter is a
    word.

    Two long texts of such a script that differ in a letter are near-copies, two others not.
    """
    assert found(["", " "], [""]).in_train["test"] == CopyCount(near=2, equal=2)
    counted = found(["good", "Good", "bad", "not bad"], ["not good", "fine"])
    assert counted.within["test"] == CopyCount(near=2, equal=2)
    assert counted.in_train["test"] == CopyCount()
    letters = [chr(0x4E00 + n) for n in range(2000)]
    random = np.random.default_rng(10)
    one, other = ("".join(random.choice(letters, 80)) for _ in range(2))
    counted = found([one, f"{one[:40]}。{one[41:]}", other], ["x"])
    assert counted.within["test"] == CopyCount(near=2, equal=0)


@pytest.mark.parametrize(
    ("target", "one", "other"),
    [
        ("tags", {"words": ["a", "b"], "tags": [0, 1]}, {"words": ["a", "c"], "tags": [0, 1]}),
        (
            "answer",
            {
                "roles": ["system", "user", "assistant"],
                "contents": ["s", "a b", "x"],
                "choices": ["x", "y"],
            },
            {
                "roles": ["system", "user", "assistant"],
                "contents": ["s", "a b", "x"],
                "choices": ["x", "z"],
            },
        ),
    ],
)
def test_every_target_has_texts(
    target: Target, one: dict[str, object], other: dict[str, object]
) -> None:
    """Words; and what is asked with its choices, whatever the answer and the system prompt."""
    rows = {"train": [other], "validation": [other], "test": [one, one, other]}
    counted = find_copies({split: Dataset.from_list(of) for split, of in rows.items()}, target)
    assert counted.within["test"] == CopyCount(near=2, equal=2)
    assert counted.in_train["test"] == CopyCount(near=1, equal=1)


def test_what_is_looked_at_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test rows come first, then the first of the others; the note says how many of how
    many.
    """
    monkeypatch.setattr(module, "MOST_ROWS", 12)
    texts = random_texts(40, 11)
    counted = found([*texts[:9], texts[0]], [*texts[20:], texts[0]])
    assert counted.looked_at == {"test": 10, "validation": 1, "train": 1}
    assert counted.note == "test 2 of 10 (2 equal) (12 of 32 rows looked at)"
