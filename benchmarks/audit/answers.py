"""Language models: loss a token and what follows from it, and the score of answers, counted anew."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audit.rows import Guess, Scored, flat
from audit.values import Floats

LOSS, SCORE = "test_loss", "test_score"
RIGHT_OR_WRONG = ("exact", "contains", "number", "choice")


def language(rows: Mapping[str, Any], scorer: str | None) -> Scored:
    """Return the score of each row, else its linear loss, and all metrics of the test rows."""
    reference, said, losses = rows["reference"], rows["prediction"], rows["loss"]
    tokens = np.array([len(row) for row in reference], dtype=np.float64)
    loss = float(losses.sum() / tokens.sum())
    metrics = {
        LOSS: loss,
        "test_perplexity": math.exp(min(loss, 700)),
        "test_bits_per_byte": float(losses.sum() / math.log(2) / rows["said_bytes"].sum()),
        "test_token_accuracy": float((flat(reference) == flat(said)).mean()),
    }
    if scorer is None:
        return Scored(linear(losses, tokens), metrics)
    pairs = zip(rows["said_answer"], rows["said_expected"], strict=True)
    scores = np.array([SCORERS[scorer](answer, expected) for answer, expected in pairs], dtype=np.float64)
    metrics[SCORE] = float(scores.mean())
    for name, column in (("test_cut_answers", "said_cut"), ("test_near_ties", "said_near_tie")):
        if column in rows:
            metrics[name] = float(rows[column].mean())
    if "said_normalised" in rows:
        same = [a == b for a, b in zip(rows["said_normalised"], rows["said_expected"], strict=True)]
        metrics["test_score_normalised"] = float(np.mean(same))
    return Scored(scores, metrics)


def linear(losses: Floats, tokens: Floats) -> Floats:
    """Return the loss a token, linear in each row."""
    ratio = losses.sum() / tokens.sum()
    return np.asarray(ratio + (losses - ratio * tokens) / tokens.mean())


def guess(headline: str, rows: Mapping[str, Any]) -> Guess:
    """Return what an empty answer or a drawn choice scores; of the loss, guessing tokens by how often they occur."""
    reference: Sequence[Floats] = rows["reference"]
    if headline == SCORE:
        scores = 1 / rows["said_choices"] if "said_choices" in rows else np.zeros(len(reference))
        return Guess(scores, float(scores.mean()))
    counts = Counter(flat(list(reference)).tolist())
    total = sum(counts.values())
    losses = np.array([-sum(math.log(counts[token] / total) for token in row.tolist()) for row in reference])
    tokens = np.array([len(row) for row in reference], dtype=np.float64)
    return Guess(linear(losses, tokens), float(losses.sum() / tokens.sum()))


# Scorers


def plain(text: str) -> str:
    """Return a text in lower case, with single spaces."""
    return re.sub(r"\s+", " ", text.lower()).strip()


def exact(answer: str, expected: str) -> float:
    """Whether both are the same, but for a full stop at the end."""
    one, other = (re.sub(r"\s*\.$", "", plain(text)) for text in (answer, expected))
    return float(one == other)


def contains(answer: str, expected: str) -> float:
    """Whether one is in the other."""
    return float(plain(expected) in plain(answer))


def number(answer: str, expected: str) -> float:
    """Whether both give the same number: the first behind ####, else the last."""

    def every(text: str) -> list[float]:
        found = []
        for match in re.finditer(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+", text):
            before = text[: match.start()].removesuffix("$")
            # a minus that could subtract from something, as in 5-10, is no sign
            negative = before.endswith("-") and not re.search(r"[\w)]$", before[:-1])
            found.append((-1 if negative else 1) * float(match[0].replace(",", "")))
        return found

    def last(text: str) -> float | None:
        behind = every(text.rsplit("####", 1)[-1]) if "####" in text else []
        return behind[0] if behind else next(iter(reversed(every(text))), None)

    return float(last(answer) is not None and last(answer) == last(expected))


def f1(answer: str, expected: str) -> float:
    """SQuAD's F1 of words."""

    def words(text: str) -> list[str]:
        bare = text.lower().translate(str.maketrans("", "", string.punctuation))
        return [word for word in re.sub(r"\b(?:a|an|the)\b", " ", bare).split() if word]

    said, asked = words(answer), words(expected)
    if not said or not asked:
        return float(said == asked)
    left, same = list(asked), 0
    for word in said:
        if word in left:
            left.remove(word)
            same += 1
    return 2 * same / (len(said) + len(asked))


def rouge_l(answer: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words of letters and digits."""
    said, asked = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, expected))
    row = [0] * (len(asked) + 1)
    for word in said:
        before = 0
        for place, other in enumerate(asked, 1):
            kept = row[place]
            row[place] = before + 1 if word == other else max(row[place], row[place - 1])
            before = kept
    if not row[-1]:
        return 0.0
    precision, recall = row[-1] / len(said), row[-1] / len(asked)
    return 2 * precision * recall / (precision + recall)


def choice(answer: str, expected: str) -> float:
    """Whether the chosen text is the right one."""
    return float(answer == expected)


SCORERS: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "contains": contains,
    "number": number,
    "f1": f1,
    "rouge_l": rouge_l,
    "choice": choice,
}
