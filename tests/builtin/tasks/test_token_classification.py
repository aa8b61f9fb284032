"""Token classification: entities as conlleval and seqeval count them, and each word's tag on its
first token.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import hpml_bench
from helpers.chat_families import gemma, gpt2, llama_2, llama_3, mistral
from hpml_bench.builtin.tasks.token_classification import TokenClassification
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.tokenizer import Encoder, load_tokenizer
from hpml_bench.records.predictions import Predictions
from hpml_bench.system.errors import UserError

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TAG = st.integers(0, len(NAMES) - 1)
ROW = st.lists(st.tuples(TAG, TAG), max_size=9)


def task(names: tuple[str, ...] = NAMES) -> TokenClassification:
    return TokenClassification(TokenClassification.Options(), names)


def predictions(rows: list[list[tuple[int, int]]]) -> Predictions:
    sides = (
        tuple(np.array([pair[side] for pair in row], dtype=np.int32) for row in rows)
        for side in (0, 1)
    )
    return Predictions(np.arange(len(rows)), *sides, np.ones(len(rows)))


def tags(text: str) -> list[int]:
    return [NAMES.index(tag) for tag in text.split()]


@given(st.lists(ROW, min_size=1, max_size=6))
def test_f1_is_seqevals(rows: list[list[tuple[int, int]]]) -> None:
    """Of any tags, I- after O and other types among them, in seqeval's default mode,
    conlleval's; the scores' mean.
    """
    found = task().evaluate(predictions(rows))
    reference, answered = ([[NAMES[pair[side]] for pair in row] for row in rows] for side in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of divisions by zero
        assert found["f1"] == pytest.approx(f1_score(reference, answered))
        assert found["precision"] == pytest.approx(precision_score(reference, answered))
        assert found["recall"] == pytest.approx(recall_score(reference, answered))
    assert task().scores(predictions(rows)).mean() == pytest.approx(found["f1"], abs=1e-12)


def test_the_loss_is_a_mean_over_words() -> None:
    """Rows of one and of three words with losses that sum to 1 each: 2 / 4; of the words two are
    right.

    Logits that tell nothing cost log 5 a tag; tokens without one cost nothing.
    """
    import torch

    found = task().evaluate(predictions([[(1, 1)], [(0, 1), (0, 0), (2, 0)]]))
    assert (found["loss"], found["word_accuracy"]) == (0.5, 0.5)
    labels = torch.tensor([[1, IGNORE_INDEX, 2], [IGNORE_INDEX, 0, IGNORE_INDEX]])
    losses = task().row_losses(torch.zeros(2, 3, len(NAMES)), labels)
    assert losses.tolist() == pytest.approx([2 * np.log(5), np.log(5)])


def test_rows_weigh_by_their_entities() -> None:
    """F1 counts entities: a row of three weighs three times one of one; where no row has any, all
    weigh the same.

    The guess tags nothing: half of the words are outside; F1 and chance are 0.
    """
    guess = task().guess((np.array(tags("O B-PER")), np.array(tags("O I-LOC"))))
    assert guess.sentence.startswith("Tagging nothing gets 50.0 % of the words")
    assert (guess.chance, guess.scores.tolist()) == (0, [0, 0])
    rows = (
        np.array(tags("B-PER O B-LOC B-PER")),
        np.array(tags("O B-PER I-PER")),
        np.array(tags("O")),
    )
    assert task().weights(rows).tolist() == [3, 1, 0]
    assert task().weights((np.array(tags("O O")), np.array(tags("O")))).tolist() == [1, 1]


# Rows that can't be learnt from


@pytest.mark.parametrize(
    ("names", "label", "says"),
    [
        (("O", "NOUN"), [0, 1], "the tag 'NOUN' is none of O, B-TYPE and I-TYPE"),
        (
            NAMES,
            [0, 5],
            (
                "a test row doesn't have one tag per word, each an index into the 5 names .*: "
                "'two words'"
            ),
        ),
        (NAMES, [-1, 0], "doesn't have one tag per word"),
        (NAMES, [0], "doesn't have one tag per word"),
        (NAMES, None, "doesn't have one tag per word"),
    ],
)
def test_a_wrong_row_is_told(names: tuple[str, ...], label: Any, says: str) -> None:
    """With its words."""
    rows = pa.table(
        {
            "tags": pa.array([[0], label], pa.list_(pa.int64())),
            "words": [["fine"], ["two", "words"]],
        }
    )
    with pytest.raises(UserError, match=says):
        task(names).check("test", rows.column("tags").combine_chunks(), rows)


def test_a_wrong_row_of_many_words_is_cut_behind_one() -> None:
    """And an ellipsis says so."""
    words = [["representatives"] * 9]
    rows = pa.table({"tags": pa.array([[9]], pa.list_(pa.int64())), "words": words})
    shown = "representatives representatives representatives…"
    with pytest.raises(UserError, match=f": '{shown}'$"):
        task().check("test", rows.column("tags").combine_chunks(), rows)


def test_rows_without_an_entity_are_refused() -> None:
    """Where all is O there is nothing to learn."""
    rows = Dataset.from_dict({"words": [["a", "b"], ["c"]], "tags": [[0, 0], [0]]})
    with pytest.raises(UserError, match="none of the 2 training rows holds an entity"):
        task().facts(rows)
    assert (
        task().facts(Dataset.from_dict({"words": [["a", "b"], ["c"]], "tags": [[0, 0], [3]]})) == {}
    )


# Words and tokens

WORDS = ["Don't", "U.S.", "(naïve)", "Zufalm,", "1999", "日本", "end"]
TEXTS = [" ".join(WORDS), "an end of 1999", "Zufal Zufal"]


def wordpiece() -> PreTrainedTokenizerFast:
    """Return a WordPiece as BERT has: lower case, accents stripped, [CLS] and [SEP] around."""
    letters = sorted({*"".join(TEXTS).lower().replace("ï", "i")} - {" "})
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *letters,
        *(f"##{letter}" for letter in letters),
        "zufal",
        "##on",
    ]
    return BertTokenizerFast(vocab={piece: place for place, piece in enumerate(pieces)})


def metaspace() -> PreTrainedTokenizerFast:
    """Return a tokenizer of T5's kind: Unigram over ▁, which stands alone before a whole word that
    is known without it.
    """
    whole = [(word, -2.0) for word in ("Don", "U.S.", "Zufal", "1999", "日本", "end")]
    letters = sorted({*"▁", *"".join(WORDS)})
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *whole, *((letter, -4.0) for letter in letters)]
    backend = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    backend.decoder = decoders.Metaspace("▁", "always")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": gpt2,
    "tokens that have the space before them": llama_3,
    "wordpiece": wordpiece,
    "llama_2": llama_2,
    "the space as a token of its own": mistral,
    "no space before a text": gemma,
    "the space before a whole word as a token of its own": metaspace,
}


@pytest.fixture(scope="module", params=[*KINDS, "embedded"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerFast:
    if request.param == "embedded":
        return load_tokenizer(Path(hpml_bench.__path__[0]) / "assets/newswire-gpt2")
    folder = tmp_path_factory.mktemp("tokenizer")
    KINDS[request.param]().save_pretrained(folder)
    return load_tokenizer(folder)


def encode(
    tokenizer: PreTrainedTokenizerFast, words: list[str], most: int = 200
) -> tuple[list[int], list[int]]:
    """Return the token ids of words tagged 0, 1, 2, ..., and the labels."""
    rows = {"words": [words], "tags": [list(range(len(words)))]}
    encoded = task().encode(rows, Encoder(tokenizer, most, None, "tiny"))
    return encoded["input_ids"][0], encoded["label"][0]


@pytest.mark.parametrize("first", WORDS)
def test_the_first_token_of_a_word_carries_its_tag(
    tokenizer: PreTrainedTokenizerFast, first: str
) -> None:
    """Every word once and in order; from there to the next one its tokens spell the word; special
    tokens have none.

    Whichever word is the first: the sign of a space that some tokenizers put before a text may be a
    token of its own.
    """
    words = WORDS[WORDS.index(first) :] + WORDS[: WORDS.index(first)]
    ids, labels = encode(tokenizer, words)
    places = [place for place, label in enumerate(labels) if label != IGNORE_INDEX]
    assert [labels[place] for place in places] == list(range(len(words)))
    assert len(ids) == len(labels)
    for place, after, word in zip(places, [*places[1:], len(ids)], words, strict=True):
        spelt = tokenizer.decode(
            [i for i in ids[place:after] if i not in tokenizer.all_special_ids]
        )
        if tokenizer.unk_token_id in ids[place:after]:
            continue
        assert plain(spelt) == plain(word)
        assert plain(tokenizer.decode([ids[place]])), (
            "a token of nothing but the space before it is none of a word's"
        )
    for token, label in zip(ids, labels, strict=True):
        assert label == IGNORE_INDEX or token not in {
            tokenizer.eos_token_id,
            tokenizer.cls_token_id,
        }


def plain(text: str) -> str:
    """Return a text without spaces, case, accents and the signs of continued words."""
    return re.sub(r"\s|##|▁", "", text).lower().replace("ï", "i")


def test_words_that_are_cut_off_have_no_tag(tokenizer: PreTrainedTokenizerFast) -> None:
    """Whatever the length, the words before the cut keep their tags, and the ids are those of the
    text cut alike.

    An empty word among others takes no token from its neighbours.
    """
    whole_ids, whole = encode(tokenizer, WORDS)
    encoder = Encoder(tokenizer, len(whole_ids) - 3, None, "tiny")
    for most in range(4, len(whole_ids)):
        ids, labels = encode(tokenizer, WORDS, most)
        assert len(ids) == most
        assert labels[:-1] == whole[: most - 1], "the last one is the end token"
        assert labels[-1] == IGNORE_INDEX
    assert encode(tokenizer, WORDS, encoder.max_length)[0] == encoder.texts([" ".join(WORDS)])[0]
    _, labels = encode(tokenizer, ["end", "", "1999"])
    assert [label for label in labels if label != IGNORE_INDEX] == [0, 2]


def test_white_space_in_front_of_a_word_carries_no_tag() -> None:
    """Where a word's own text begins with white space, its tag is on its first letter's token."""
    for kind in (llama_2, mistral, gemma, metaspace):
        tokenizer = kind()
        ids, labels = encode(tokenizer, [" end", "end", "  end"])
        tagged = [token for token, label in zip(ids, labels, strict=True) if label != IGNORE_INDEX]
        assert len(tagged) == 3
        assert all(plain(tokenizer.decode([token])) for token in tagged)
