"""Language models: loss a token, and the score of answers, counted anew."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from audit.rows import Guess, flat
from audit.values import Floats

LOSS, SCORE = "test_loss", "test_score"
RIGHT_OR_WRONG = ("exact", "contains", "number", "choice", "peft_metamath", "gsm8k_strict", "gsm8k_flexible")
NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Characters of Thai, Lao, Burmese, Khmer, Chinese and Japanese, of which each is a word."""


def answer_scores(rows: Mapping[str, Any], scorer: str | None) -> Floats:
    """Return the score of each row, without a scorer its linear loss."""
    if scorer is None:
        return linear(rows["loss"], np.array([len(row) for row in rows["reference"]], dtype=np.float64))
    pairs = zip(rows["said_answer"], rows["said_expected"], strict=True)
    return np.array([SCORERS[scorer](answer, expected) for answer, expected in pairs], dtype=np.float64)


def linear(losses: Floats, tokens: Floats) -> Floats:
    """Return the loss a token, linear in each row."""
    ratio = losses.sum() / tokens.sum()
    return np.asarray(ratio + (losses - ratio * tokens) / tokens.mean())


def guess(headline: str, rows: Mapping[str, Any], *, classes: bool = False) -> Guess:
    """Return what an empty answer, the most frequent class or a drawn choice scores; of the loss, frequent tokens."""
    reference: Sequence[Floats] = rows["reference"]
    if headline == SCORE:
        scores = 1 / rows["said_choices"] if "said_choices" in rows else np.zeros(len(reference))
        chance = float(scores.mean())
        if classes and chance:
            most = Counter(rows["said_expected"]).most_common(1)[0][0]
            scores = np.array([float(expected == most) for expected in rows["said_expected"]])
        return Guess(scores, chance)
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
    """Whether both give the same number: the first behind ####, else the last; what a colon or a slash joins is one."""
    one = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\w))?"

    def every(text: str) -> list[list[float]]:
        found = []
        for match in re.finditer(f"{one}(?:[:/]{one})*", text):
            before = text[: match.start()].removesuffix("$")
            # a minus that could subtract from something, as in 5-10, is no sign
            negative = before.endswith("-") and not re.search(r"[\w)]$", before[:-1])
            parts = [float(part.replace(",", "")) for part in re.split("[:/]", match[0])]
            parts[0] *= -1 if negative else 1
            fraction = "/" in match[0] and len(parts) == 2 and parts[1] != 0
            found.append([parts[0] / parts[1]] if fraction else parts)
        return found

    def last(text: str) -> list[float] | None:
        text = re.sub(r"(?<=\d)\s*(?=\\[dt]?frac)", " ", text.replace("\N{MINUS SIGN}", "-"))
        text = re.sub(r"\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}", r"\1/\2", text)
        for mixed in reversed(
            [*re.finditer(r"(?<![\w.,^/:])(\d+(?:,\d{3})*)[ \xa0](\d+)/(\d+)(?![\w/:]|[.,]\d)", text)]
        ):
            whole, over, under = (float(part.replace(",", "")) for part in mixed.groups())
            if over < under:
                text = f"{text[: mixed.start()]}{whole * under + over:.0f}/{under:.0f}{text[mixed.end() :]}"
        behind = every(text.rsplit("####", 1)[-1]) if "####" in text else []
        return behind[0] if behind else next(iter(reversed(every(text))), None)

    return float(last(answer) is not None and last(answer) == last(expected))


def peft_metamath(answer: str, expected: str) -> float:
    """Whether both end as PEFT reads it: what stands behind a phrase, to the end of the line, as number or text."""

    def last(text: str) -> str | None:
        text = re.sub(r"[.!?]+$", "", text.strip())
        for phrase in ("The answer is: ", "The answer is ", "The final answer is: ", "The final answer is ", "#### "):
            if phrase in text:
                return text.split(phrase)[-1].strip().partition("\n")[0].strip(" .!?$%")
        return None

    def value(text: str | None) -> float | str | None:
        if text is None:
            return None
        over = re.fullmatch(r"([^/]+)/([^/]+)", text)
        try:
            return float(Decimal(over[1].strip()) / Decimal(over[2].strip()) if over else Decimal(text))
        except (ArithmeticError, ValueError):
            return text

    said, asked = value(last(answer)), value(last(expected))
    return float(said is not None and said == asked)


def gsm8k_strict(answer: str, expected: str) -> float:
    """Whether the first number behind #### is written as the one asked for, as lm-evaluation-harness compares them."""
    return _as_lm_eval(re.findall(r"#### (-?[0-9.,]+)", answer)[:1], expected)


def gsm8k_flexible(answer: str, expected: str) -> float:
    """Whether the last number is written as the one asked for, as lm-evaluation-harness compares them."""
    return _as_lm_eval(re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", answer)[-1:], expected)


def _as_lm_eval(found: list[str], expected: str) -> float:
    bare = [re.sub(r"[,$]", "", text).split("#### ")[-1].removesuffix(".") for text in (*found, expected)]
    return float(len(bare) == 2 and bare[0] == bare[1])


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
    """F-measure of the longest common subsequence of words: letters, digits and marks, or one character."""

    def words(text: str) -> list[str]:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        clusters: list[str] = []  # a character with its marks
        for character in text:
            if unicodedata.category(character).startswith("M") and clusters:
                clusters[-1] += character
            elif unicodedata.category(character) != "Cf":
                clusters.append(character)
        parts = (c if not c[0].isalnum() else f" {c} " if NO_SPACES.match(c) else c for c in clusters)
        spaced = "".join(part if part.strip()[:1].isalnum() else " " for part in parts)
        return spaced.split()

    return _longest(words(answer), words(expected))


def _longest(said: list[str], asked: list[str]) -> float:
    """Return the F-measure of the longest common subsequence."""
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


SCORERS: dict[str, Callable[[str, str], float]] = {
    "exact": exact, "contains": contains, "number": number, "peft_metamath": peft_metamath,
    "gsm8k_strict": gsm8k_strict, "gsm8k_flexible": gsm8k_flexible, "f1": f1, "rouge_l": rouge_l,
    "rouge_l of a to z": lambda *texts: _longest(*(re.findall(r"[a-z0-9]+", text.lower()) for text in texts)),
    "choice": lambda answer, expected: float(answer == expected),
}  # fmt: skip
"""Name -> score of an answer beside what is expected; ROUGE-L also of words as it was counted at first."""
