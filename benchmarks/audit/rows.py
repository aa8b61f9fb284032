"""Test rows: what their predictions score, and what a constant answer does, by the metric that
leads.

A row's score is what the metric's mean is made of. Of a metric that is no mean of rows it is linear
in the row: for the RMSE rmse + (se - mse) / (2 rmse), for an F1 of entities F1 + (2tp - F1 d) /
mean(d) with d = 2tp + fp + fn.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from audit.statistics import Floats

Answers = Any  # [rows], or where rows are tags a list of arrays
ACCURACY, LOSS, SCORE = "test_accuracy", "test_loss", "test_score"
RIGHT_OR_WRONG = (
    "exact",
    "contains",
    "number",
    "choice",
    "peft_metamath",
    "gsm8k_strict",
    "gsm8k_flexible",
)
NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Characters of Thai, Lao, Burmese, Khmer, Chinese and Japanese, of which each is a word."""


class Guess(NamedTuple):
    """What a constant answer gives."""

    scores: Floats
    chance: float


def flat(answers: Answers) -> Floats:
    return (
        np.concatenate(answers).astype(np.float64)
        if isinstance(answers, list)
        else np.asarray(answers)
    )


def as_bytes(answers: Answers) -> bytes:
    """Return answers as bytes: equal where they are."""
    lengths = np.array([len(row) for row in answers]) if isinstance(answers, list) else np.array([])
    return lengths.tobytes() + flat(answers).tobytes()


def linear_rmse(squares: Floats) -> Floats:
    """Return the RMSE of squared errors, linear in each row."""
    rmse = math.sqrt(squares.mean())
    return rmse + (squares - squares.mean()) / (2 * rmse) if rmse else np.zeros(len(squares))


def linear_loss(losses: Floats, tokens: Floats) -> Floats:
    """Return the loss a token, linear in each row."""
    ratio = losses.sum() / tokens.sum()
    return np.asarray(ratio + (losses - ratio * tokens) / tokens.mean())


def linear_f1(reference: Answers, said: Answers, names: Sequence[str]) -> Floats:
    """Return the F1 of entities, linear in each row."""
    pairs = [(entities(a, names), entities(b, names)) for a, b in zip(reference, said, strict=True)]
    right = np.array([len(a & b) for a, b in pairs], dtype=np.float64)
    both = np.array([len(a) + len(b) for a, b in pairs], dtype=np.float64)
    if not both.sum():
        return np.zeros(len(both))
    f1 = 2 * right.sum() / both.sum()
    return np.asarray(f1 + (2 * right - f1 * both) / both.mean())


def entities(row: Floats, names: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return the entities of a row as conlleval counts them: first word, last word, type.

    One begins at B-, and at I- after O or another type; it ends before the next one or before O.
    """
    found: set[tuple[int, int, str]] = set()
    begun, kind = -1, ""
    for place, tag in enumerate([*(names[int(index)] for index in row), "O"]):
        form, _, own = tag.partition("-")
        goes_on = form == "I" and begun >= 0 and own == kind
        if begun >= 0 and not goes_on:
            found.add((begun, place - 1, kind))
            begun = -1
        if form != "O" and not goes_on:
            begun, kind = place, own
    return found


def scores_of(
    headline: str, rows: Mapping[str, Any], names: Sequence[str], scorer: str | None
) -> Floats:
    """Return the score of each row; of a language model's answers by their scorer, without one
    its linear loss.
    """
    reference = rows["reference"]
    if headline in {LOSS, SCORE} and scorer is None:
        return linear_loss(
            rows["loss"], np.array([len(row) for row in reference], dtype=np.float64)
        )
    if headline in {LOSS, SCORE}:
        pairs = zip(rows["said_answer"], rows["said_expected"], strict=True)
        return np.array(
            [SCORERS[str(scorer)](answer, expected) for answer, expected in pairs], dtype=np.float64
        )
    said = rows["prediction"]
    if headline == ACCURACY:
        return np.where(reference == said, 1.0, 0.0)
    if headline == "test_f1":
        return linear_f1(reference, said, names)
    if headline != "test_rmse":
        raise KeyError(headline)
    return linear_rmse((said - reference) ** 2)


def weigh(headline: str, reference: Answers, names: Sequence[str]) -> Floats:
    """Return how much each row counts in a score: by its entities in F1, else equally."""
    counts = [len(entities(row, names)) for row in reference] if headline == "test_f1" else []
    return np.array(counts, dtype=np.float64) if any(counts) else np.ones(len(reference))


def guess(headline: str, rows: Mapping[str, Any], names: Sequence[str], *, classes: bool) -> Guess:
    """Return the scores of a constant answer, and from what value learning is counted.

    The most frequent class, by which chance is one in the number of classes; the rows' mean, whose
    RMSE is chance; no entity at all; of texts an empty one, the most frequent where `classes` are
    asked for, or a drawn choice; of the loss, frequent tokens.
    """
    reference = rows["reference"]
    if headline == ACCURACY:
        most_frequent = np.bincount(reference.astype(int)).argmax()
        return Guess(np.where(reference == most_frequent, 1.0, 0.0), 1 / len(names))
    if headline == "test_rmse":
        squares = (reference - reference.mean()) ** 2
        return Guess(linear_rmse(squares), math.sqrt(squares.mean()))
    if headline == LOSS:
        counts = Counter(flat(list(reference)).tolist())
        total = sum(counts.values())
        losses = np.array(
            [-sum(math.log(counts[token] / total) for token in row.tolist()) for row in reference]
        )
        tokens = np.array([len(row) for row in reference], dtype=np.float64)
        return Guess(linear_loss(losses, tokens), float(losses.sum() / tokens.sum()))
    scores = 1 / rows["said_choices"] if "said_choices" in rows else np.zeros(len(reference))
    chance = float(scores.mean())
    if classes and chance:
        most = Counter(rows["said_expected"]).most_common(1)[0][0]
        scores = np.array([float(expected == most) for expected in rows["said_expected"]])
    return Guess(scores, chance)


# Answers of language models


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower()).strip()


def exact(answer: str, expected: str) -> float:
    """Whether both are the same, but for a full stop at the end."""
    one, other = (re.sub(r"\s*\.$", "", plain(text)) for text in (answer, expected))
    return float(one == other)


def number(answer: str, expected: str, point: str = ".") -> float:
    """Whether both give the same number: that behind the first ####, else the last; what digits
    and signs join is one, and is read whole or not at all.
    """
    given, wanted = last_number(answer, point), last_number(expected, point)
    if given is None or wanted is None or given[0] != wanted[0]:
        return 0.0
    _, said_front, said_back = given
    _, front, back = wanted
    if not front and not back:
        may_be_ignored = not said_back.startswith(("%", "\u2030"))
        return float(
            may_be_ignored
            and (not said_front or said_front[0] not in "<>~\u00b1\u2248\u2264\u2265")
        )
    follows = [
        said_back.startswith(unit) and not said_back[len(unit) :][:1].isalnum()
        for unit in (front, back)
    ]
    if front and back:
        return float(front == said_front and follows[1])
    return float((front or back) == said_front or follows[0 if front else 1])


def last_number(text: str, point: str) -> tuple[tuple[Any, ...], str, str] | None:
    """Return the number that counts, as its joining signs and parts, with the sign in front of it
    and what stands behind it; None where there is none.
    """
    text = as_typed(text)
    for behind in text.split("####")[1:]:
        line = behind.split("\n")[0]
        if places := places_of(line):
            is_result = len(places) == 1 or "=" in line
            return number_at(line, *places[-1], point) if is_result else None
    places = places_of(text)
    if not places:
        return None
    words = len(re.findall(r"[^\W\d]+", text))
    if len(places) > 1 and words < 4 and not re.search("[=+*\u00d7\u00b7]", text):
        alone = not text[: places[0][0]].strip(" \t\n([{*\"'-+$")
        if alone or not words:
            return None
    return number_at(text, *places[-1], point)


def as_typed(text: str) -> str:
    """Return a text with minus signs, powers and fractions in ASCII."""
    text = re.sub(
        "([0-9]?)([\u00bc-\u00be\u2150-\u215e])",
        lambda m: f"{m[1]}{' ' * bool(m[1])}{unicodedata.normalize('NFKC', m[2])}",
        text,
    )
    text = re.sub("[\u2212\u2013\ufe63\uff0d\u2010\u2011]", "-", text).replace("\u2044", "/")
    text = text.replace("{,}", ",").replace(r"\%", "%").replace(r"\$", "$")
    raised = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
    for run in set(re.findall(rf"\d([{raised}]+)", text)):
        plain_run = run.translate(str.maketrans(raised, "0123456789+-"))
        text = re.sub(rf"(?<=\d){run}(?![{raised}])", f"^{plain_run}", text)
    ten = r"10(?:\^|\*\*)\{?([-+]?\d{1,3})\}?(?![.,^]?\d)"
    text = re.sub(rf"(?<=\d)\s*(?:[x*\u00d7\u00b7\u22c5]|\\times|\\cdot)\s*{ten}", r"e\1", text)
    text = re.sub(rf"(?<![\w.,^/:'\u2019-]){ten}", r"1e\1", text)
    text = re.sub(r"(?<=\d)\s*(?=\\[dt]?frac)", " ", text)
    text = re.sub(r"\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}", r"\1/\2", text)
    mixes = re.finditer(r"(?<![\w.,^/:])(\d+(?:,\d{3})*)[ \xa0](\d+)/(\d+)(?![\w/:]|[.,]\d)", text)
    for mixed in reversed([*mixes]):
        whole, over, under = (int(part.replace(",", "")) for part in mixed.groups())
        if over < under:
            fraction = f"{whole * under + over}/{under}"
            text = f"{text[: mixed.start()]}{fraction}{text[mixed.end() :]}"
    return re.sub(r"(\A|(?<=[=(:]))\s*-\s+(?=[.,]?\d|[$\xa2-\xa5\u20a0-\u20bf])", "-", text)


BLANK = "[ \u00a0\u2009\u202f]"
LETTERS = "[A-Za-z_\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u024f\u0370-\u04ff]"
MONEY = "[$\u00a2-\u00a5\u20a0-\u20bf]"


def places_of(text: str) -> list[tuple[int, int]]:
    """Return where joined digits begin and end; those behind a letter are part of a word."""
    part = rf"(?:\d{{1,3}}(?:{BLANK}\d{{3}})+(?!\d)|\d+)(?:[eE][-+]?\d{{1,3}}(?!\w))?"
    joined = rf"(?:(?<!\d)[.,])?{part}(?:[-.,:/^'\u2019\u02bc]{part})*"
    word = rf"{LETTERS}\d+(?:[-.,:/^'\u2019\u02bc]\d+)*"
    matches = re.finditer(f"({word})|({joined})", text)
    return [match.span(2) for match in matches if match[2]]


def number_at(
    text: str, start: int, end: int, point: str
) -> tuple[tuple[Any, ...], str, str] | None:
    """Return the number in a place, as `last_number` does."""
    behind, before = text[end:], text[:start]
    if re.match(r"[eE][-+]?\d|\.\.", behind):
        return None
    joined_word = re.match(rf"{LETTERS}+\d", behind)
    if joined_word and not re.match(rf"{LETTERS}{{1,3}}[23](?!\w)", behind):
        return None
    parts = parts_of(text[start:end], point)
    if parts is None:
        return None
    signed = re.search(rf"(?<![\w)])([-+])(?:{MONEY}{BLANK}?)?\Z", before)
    signed = signed or re.match(rf"\s*([-+]){BLANK}+\Z", before)  # a sign that begins the text
    if signed and signed[1] == "-":
        parts = (-parts[0],) if len(parts) == 1 else ("-", *parts)
    marks = rf"({MONEY}|[<>~\u00b1\u2248\u2264\u2265]=?|(?<!{LETTERS})(?:[A-Z]{{3}}|Rs|Fr)\.?)"
    mark = re.search(rf"{marks}{BLANK}*-?\Z", before if signed else before.rstrip("-+ "))
    if mark is None and signed:
        mark = re.search(rf"{marks}{BLANK}*-?\Z", before[: signed.start()])
    front, back = mark[1] if mark else "", ""
    unit = rf"{BLANK}*((?:[%\u2030\xb0\u2032\u2033]|{LETTERS}|{MONEY}|[^\x00-\u024f\W\d]).*)"
    if following := re.match(unit, behind, re.DOTALL):
        back = following[1]
    if front == "$" and back.startswith("$"):
        front = back = ""
    return parts, unit_of(front), unit_of(back)


def unit_of(text: str) -> str:
    spaced = " ".join(unicodedata.normalize("NFKC", text).split())
    bare = spaced.rstrip(" .,;:!?)]}*\"'\u2019\u201d")
    bare = re.sub("(?i)per ?cent|prozent|pour ?cent", "%", bare)
    return re.sub(
        r"\A(?:dollars?|euros?|EUR)\b", lambda m: "$" if m[0][0] == "d" else "\u20ac", bare
    )


def parts_of(run: str, point: str) -> tuple[Any, ...] | None:
    """Return one number, or the signs and parts of several that are joined; None for neither."""
    if (one := decimal_of(run, point)) is not None:
        return (one,)
    for sign in "-./":
        pieces = run.split(sign)
        if len(pieces) == 3 and all(piece.isdecimal() for piece in pieces):
            sizes = [len(piece) for piece in pieces]
            if sizes[0] == 4 and max(sizes[1:]) <= 2:
                return ("date", *map(int, pieces))
            if sizes[2] == 4 and max(sizes[:2]) <= 2:
                return (sign, *map(int, pieces))
    signs, pieces = re.findall("[-:/^]", run), re.split("[-:/^]", run)
    values = [decimal_of(piece, point) for piece in pieces]
    if signs == ["/"] and values[0] is not None and values[1]:
        return (values[0] / values[1],)
    found: list[Any] = [*signs]
    for piece, value in zip(pieces, values, strict=True):
        if value is None and not re.fullmatch(r"\d+(\.\d+){2,}", piece):
            return None
        found.append(piece if value is None else value)
    return tuple(found)


def decimal_of(text: str, point: str) -> Fraction | None:
    """Return a number with this decimal sign and groups by the other, blanks or apostrophes."""
    body, _, power = text.lower().partition("e")
    whole, has_point, decimals = body.partition(point)
    if (has_point and not decimals.isdecimal()) or not (whole or has_point):
        return None
    groups = re.split(r"[^\d]", whole)
    if len(groups) > 1:
        between = set(re.findall(r"[^\d]", whole))
        kind = "".join(between)
        thousands = all(len(group) == 3 for group in groups[1:]) and len(groups[0]) <= 3
        lakhs = len(groups[-1]) == 3 and {len(group) for group in groups[1:-1]} <= {2}
        lakhs &= len(groups[0]) <= 2 and kind == "," and point == "."
        other = "," if point == "." else "."
        known = kind == other or all(re.fullmatch(BLANK, sign) for sign in between)
        known |= between <= set("'\u2019\u02bc")
        starts = groups[0][:1] not in {"", "0"} and groups[0].isdecimal()
        if not (known and starts and (thousands or lakhs)):
            return None
    digits = "".join(groups)
    if digits and not digits.isdecimal():
        return None
    value = Fraction(Decimal(f"{digits or 0}.{decimals or 0}"))
    return value * Fraction(10) ** int(power or 0)


def peft_metamath(answer: str, expected: str) -> float:
    """Whether both end as PEFT reads it: what stands behind a phrase, to the end of the line, as
    number or text.
    """

    def last(text: str) -> str | None:
        text = re.sub(r"[.!?]+$", "", text.strip())
        for phrase in (
            "The answer is: ",
            "The answer is ",
            "The final answer is: ",
            "The final answer is ",
            "#### ",
        ):
            if phrase in text:
                return text.split(phrase)[-1].strip().partition("\n")[0].strip(" .!?$%")
        return None

    def value(text: str | None) -> float | str | None:
        if text is None:
            return None
        over = re.fullmatch(r"([^/]+)/([^/]+)", text)
        try:
            return float(
                Decimal(over[1].strip()) / Decimal(over[2].strip()) if over else Decimal(text)
            )
        except (ArithmeticError, ValueError):
            return text

    said, asked = value(last(answer)), value(last(expected))
    return float(said is not None and said == asked)


def gsm8k(found: list[str], expected: str) -> float:
    """Return whether the found number is written as the expected one: lm-evaluation-harness
    compares texts.
    """
    bare = [
        re.sub(r"[,$]", "", text).split("#### ")[-1].removesuffix(".")
        for text in (*found, expected)
    ]
    return float(len(bare) == 2 and bare[0] == bare[1])


def f1(answer: str, expected: str) -> float:
    """SQuAD's F1 of words."""

    def words(text: str) -> list[str]:
        bare = text.lower().translate(str.maketrans("", "", string.punctuation))
        return [word for word in re.sub(r"\b(?:a|an|the)\b", " ", bare).split() if word]

    said, asked = words(answer), words(expected)
    if not said or not asked:
        return float(said == asked)
    return 2 * (Counter(said) & Counter(asked)).total() / (len(said) + len(asked))


def rouge_l(answer: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words: letters, digits and marks, or one
    character.
    """

    def words(text: str) -> list[str]:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        clusters: list[str] = []  # a character with its marks
        for character in text:
            if unicodedata.category(character).startswith("M") and clusters:
                clusters[-1] += character
            elif unicodedata.category(character) != "Cf":
                clusters.append(character)
        parts = (
            " " if not c[0].isalnum() else f" {c} " if NO_SPACES.match(c) else c for c in clusters
        )
        return "".join(parts).split()

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
    "exact": exact,
    "number": number,
    "number with a decimal comma": partial(number, point=","),
    "peft_metamath": peft_metamath,
    "gsm8k_strict": lambda answer, expected: gsm8k(
        re.findall(r"#### (-?[0-9.,]+)", answer)[:1], expected
    ),
    "gsm8k_flexible": lambda answer, expected: gsm8k(
        re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", answer)[-1:], expected
    ),
    "f1": f1,
    "rouge_l": rouge_l,
    "rouge_l of a to z": lambda *texts: _longest(
        *(re.findall(r"[a-z0-9]+", text.lower()) for text in texts)
    ),
    "contains": lambda answer, expected: float(plain(expected) in plain(answer)),
    "choice": lambda answer, expected: float(answer == expected),
}
"""Name -> score of an answer beside what is expected; ROUGE-L also of words as it was counted at
first.

Of GSM8K the first number behind #### counts, or the last one.
"""
