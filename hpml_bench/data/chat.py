"""Conversations as token ids: the chat template rendered, and which tokens are learnt.

A conversation is rendered once as a whole. Which characters are answers is told by the template's own marks
(`{% generation %}`), else by prefixes: the turns before an answer, rendered with the generation prompt, must be the
beginning of the whole. Special tokens that are written inside a turn stay text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hpml_bench.data.tokenizer import Encoder
from hpml_bench.errors import UserError
from hpml_bench.plugins.task import IGNORE_INDEX
from hpml_bench.system.text import first_line

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The turns one after the other and nothing else: for models without a chat template."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
FIRST_STAND_IN = 0xE000
"""First character of Unicode's private use area: they stand in for special tokens that a turn holds as text."""
LAST_STAND_IN = 0xF8FF


class Span(NamedTuple):
    """A part of a text, by its first character and the one after its last."""

    start: int
    end: int


class Rendered(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    answers: tuple[Span, ...]
    """What the assistant says, the turn's end included."""
    stand_ins: Mapping[str, str]
    """Character -> the special token that a turn holds as text, in whose place it stands."""


@dataclass(frozen=True)
class Example:
    """A conversation as a model sees it."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    """[tokens], the token's own id where it is learnt, else IGNORE_INDEX."""
    prompt: int
    """Tokens before the last answer: what a model is given to answer it."""
    question: str
    """Last turn before the last answer; empty where there is none."""
    expected: str
    """The last answer."""
    target_bytes: int
    """UTF-8 bytes of the text that is learnt, special tokens left out."""
    escaped: int = 0
    """Special tokens inside turns that were kept as text."""
    cut: int = 0
    """Tokens cut off the prompt."""


@dataclass(frozen=True)
class Conversations:
    """A tokenizer with a chat template and the rules of a suite."""

    encoder: Encoder
    template: str
    system: str | None = None
    loss_on: Literal["answers", "all"] = "answers"
    too_long: Literal["drop", "cut_prompt"] = "drop"
    counts: Counter[str] = field(default_factory=Counter)
    """What happened to rows, by name."""

    # Rendering

    def turns(self, roles: Sequence[str], contents: Sequence[str]) -> list[dict[str, str]]:
        """Return a row's turns, with the system prompt in front where the row has none."""
        found = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        if self.system and any(role != "assistant" for role in roles) and roles[0] != "system":
            found.insert(0, {"role": "system", "content": self.system})
        return found

    def render(self, turns: Sequence[Mapping[str, str]]) -> Rendered:
        """Return a conversation as text, and which parts of it are answers.

        Raises:
            UserError: the template refuses it, or doesn't let its answers be told.

        """
        safe, stand_ins = self._without_special_tokens(turns)
        if MARKS.search(self.template) and len(safe) > 1:
            text, marked = self._rendered(safe, marks=True)
            if not marked:
                raise UserError(f"{self._name} marks no part of an answer with {{% generation %}}")
            return Rendered(text, marked, stand_ins)
        text, _ = self._rendered(safe)
        answers: list[Span] = []
        for index, turn in enumerate(safe):
            if turn["role"] == "assistant":
                before = self._rendered(safe[:index], prompt=True)[0] if index else ""
                until = self._rendered(safe[: index + 1])[0]
                if not text.startswith(before) or not text.startswith(until) or len(before) >= len(until):
                    raise UserError(
                        f"{self._name} writes the turns before answer {len(answers) + 1} otherwise when more follows, "
                        "so that its answers can't be told; give a template with {% generation %} marks, or rows of "
                        "one answer"
                    )
                answers.append(Span(len(before), len(until)))
        return Rendered(text, tuple(answers), stand_ins)

    @property
    def _name(self) -> str:
        return f"the chat template of {self.encoder.backbone}"

    def _rendered(
        self, turns: Sequence[Mapping[str, str]], *, prompt: bool = False, marks: bool = False
    ) -> tuple[str, tuple[Span, ...]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, indices = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                # a text without a prompt is no chat
                chat_template=self.template if any(turn["role"] != "assistant" for turn in turns) else PLAIN,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self._special_names,
            )
        except MemoryError:
            raise
        except Exception as error:  # jinja's own, raise_exception's, or any a template runs into
            raise UserError(f"{self._name} refuses a conversation: {first_line(error)}") from None
        return texts[0], tuple(Span(*span) for span in indices[0]) if marks else ()

    @cached_property
    def _special_names(self) -> dict[str, str]:
        named = self.encoder.tokenizer.special_tokens_map
        return {name: str(token) for name, token in named.items() if isinstance(token, str)}

    def _without_special_tokens(
        self, turns: Sequence[Mapping[str, str]]
    ) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Return the turns with a character of private use for each special token in them, and what it stands for."""
        if self._special is None or not any(self._special.search(turn["content"]) for turn in turns):
            return [dict(turn) for turn in turns], {}
        used = {character for turn in turns for character in turn["content"]}
        free = (chr(code) for code in range(FIRST_STAND_IN, LAST_STAND_IN) if chr(code) not in used)
        stand_ins: dict[str, str] = {}

        def replaced(match: re.Match[str]) -> str:
            character = next(free)
            stand_ins[character] = match[0]
            return character

        safe = [dict(turn) | {"content": self._special.sub(replaced, turn["content"])} for turn in turns]
        return safe, stand_ins

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        known = [str(token) for token in self.encoder.tokenizer.added_tokens_decoder.values() if token.special]
        return re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True)))) if known else None

    # Tokens

    def example(self, roles: Sequence[str], contents: Sequence[str]) -> Example | None:
        """Return a conversation as the model sees it; None where it is too long and is dropped.

        Raises:
            UserError: as `render`, or tokenizer and model don't belong together.

        """
        turns = self.turns(roles, contents)
        rendered = self.render(turns)
        before = rendered.text[: rendered.answers[-1].start]
        ids, offsets = self._tokens(rendered.text, rendered.stand_ins)
        learnt = [_inside(offset, rendered.answers) for offset in offsets]
        prompt = _first_of(offsets, rendered.answers[-1])
        if self._tokens(before, rendered.stand_ins)[0] != ids[:prompt]:  # prompt and answer share a token
            ids, learnt, prompt = self._apart(rendered, before)
            self.counts["rows whose prompt and answer share a token, split there"] += 1
        ids, learnt = self._ended(ids, learnt)
        front = self._front(ids)
        ids, learnt, prompt = [*front, *ids], [*[False] * len(front), *learnt], prompt + len(front)
        if self.loss_on == "all":
            learnt = [position > 0 for position in range(len(ids))]
        learnt[0] = False  # nothing comes before it that could tell it
        self._check_ids(ids)
        return self._fitted(ids, learnt, prompt, len(front), turns, rendered)

    def answer_of(self, example: Example) -> list[int]:
        """Return the tokens of the last answer, without what ends it."""
        ids = list(example.ids[example.prompt :])
        while ids and ids[-1] in self._special_ids:
            ids.pop()
        return ids

    def prompt(self, roles: Sequence[str], contents: Sequence[str]) -> list[int]:
        """Return the token ids of turns that an answer is to follow."""
        safe, stand_ins = self._without_special_tokens(self.turns(roles, contents))
        ids = self._tokens(self._rendered(safe, prompt=True)[0], stand_ins)[0]
        return [*self._front(ids), *ids]

    def _tokens(self, text: str, stand_ins: Mapping[str, str]) -> tuple[list[int], list[Span]]:
        """Return token ids, and the characters of each; those that stand in for special tokens become their text."""
        pieces = re.split(f"([{re.escape(''.join(stand_ins))}])", text) if stand_ins else [text]
        ids: list[int] = []
        offsets: list[Span] = []
        place = 0
        for piece in pieces:
            if not piece:
                continue
            as_text = piece in stand_ins
            encoded = self.encoder.tokenizer(
                stand_ins.get(piece, piece),
                add_special_tokens=False,
                split_special_tokens=as_text,
                return_offsets_mapping=True,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            ids += encoded["input_ids"]
            within = [(0, 1)] * len(encoded["input_ids"]) if as_text else encoded["offset_mapping"]
            for start, end in within:  # some tokenizers leave the space before a word out of its token's characters
                reached = offsets[-1].end if offsets else 0
                offsets.append(Span(min(place + start, reached), place + end))
            place += len(piece)
        return ids, offsets

    def _apart(self, rendered: Rendered, before: str) -> tuple[list[int], list[bool], int]:
        """Return tokens of prompt and last answer read apart, so that the prompt alone gives the same."""
        ids, offsets = self._tokens(before, rendered.stand_ins)
        rest, rest_offsets = self._tokens(rendered.text[len(before) :], rendered.stand_ins)
        moved = [Span(len(before) + start, len(before) + end) for start, end in rest_offsets]
        learnt = [_inside(offset, rendered.answers) for offset in [*offsets, *moved]]
        return [*ids, *rest], learnt, len(ids)

    def _ended(self, ids: list[int], learnt: list[bool]) -> tuple[list[int], list[bool]]:
        """Return tokens whose answers end with the token that ends them: what follows in a turn is not learnt.

        Where the template ends the last answer with no special token, the tokenizer's end token is put behind it.
        """
        special, learnt = self._special_ids, list(learnt)
        for start, end in _runs(learnt):
            last = next((place for place in range(end - 1, start - 1, -1) if ids[place] in special), None)
            blank = last is not None and not self.encoder.tokenizer.decode(ids[last + 1 : end]).strip()
            if blank and last is not None:
                learnt[last + 1 : end] = [False] * (end - last - 1)
        final = [place for place, one in enumerate(learnt) if one]
        if (not final or ids[final[-1]] not in special) and self.encoder.tokenizer.eos_token_id is not None:
            end = final[-1] + 1 if final else len(ids)
            return [*ids[:end], self.encoder.tokenizer.eos_token_id], [*learnt[:end], True]
        return ids, learnt

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        tokenizer = self.encoder.tokenizer
        marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset((marked | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id})

    def _front(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens that the tokenizer puts before a text, unless the template wrote them: BOS, once."""
        front = self._own_front
        return [] if list(ids[: len(front)]) == front else front

    @cached_property
    def _own_front(self) -> list[int]:
        tokenizer = self.encoder.tokenizer
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        place = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return list(whole[:place])

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = self.encoder.vocabulary
        if size is not None and max(ids) >= size:
            raise UserError(
                f"{self.encoder.backbone}: the tokenizer gives token {max(ids)}, but the model has {size}; they don't "
                "belong together"
            )

    def _fitted(
        self,
        ids: list[int],
        learnt: list[bool],
        prompt: int,
        front: int,
        turns: Sequence[Mapping[str, str]],
        rendered: Rendered,
    ) -> Example | None:
        """Return the example, its prompt cut at the front where it is too long and may be cut; None to drop it."""
        cut = max(0, len(ids) - self.encoder.max_length)
        self.counts["rows"] += 1
        first = learnt.index(True) if self.loss_on == "answers" else prompt
        if cut and (self.too_long == "drop" or cut > first - front - 1):
            self.counts["dropped rows"] += 1
            self.counts["dropped tokens"] += len(ids)
            return None
        if cut:
            self.counts["cut rows"] += 1
            self.counts["cut tokens"] += cut
            ids, learnt, prompt = ids[:front] + ids[front + cut :], learnt[:front] + learnt[front + cut :], prompt - cut
        if rendered.stand_ins:
            self.counts["special tokens in turns, kept as text"] += len(rendered.stand_ins)
        asked = turns[-2] if len(turns) > 1 else None
        return Example(
            ids=tuple(ids),
            labels=tuple(token if one else IGNORE_INDEX for token, one in zip(ids, learnt, strict=True)),
            prompt=prompt,
            question=asked["content"] if asked and asked["role"] == "user" else "",
            expected=turns[-1]["content"],
            target_bytes=self._bytes(ids, learnt),
            escaped=len(rendered.stand_ins),
            cut=cut,
        )

    def _bytes(self, ids: Sequence[int], learnt: Sequence[bool]) -> int:
        told = [token for token, one in zip(ids, learnt, strict=True) if one and token not in self._special_ids]
        return len(self.encoder.tokenizer.decode(told, clean_up_tokenization_spaces=False).encode())

    # Ends

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the tokenizer's end token, and what the template ends an answer with."""
        end = self.encoder.tokenizer.eos_token_id
        found = {} if end is None else {end: None}
        roomy = replace(self.encoder, max_length=10**6)
        example = replace(self, encoder=roomy, counts=Counter()).example(("user", "assistant"), ("a", "b"))
        last = next((label for label in reversed(example.labels if example else ()) if label != IGNORE_INDEX), None)
        if last in self._special_ids:
            found[last] = None
        return tuple(token for token in found if token is not None)


def chat_template(encoder: Encoder, given: str | None) -> str:
    """Return the template to use: the given one, else the tokenizer's own, else the turns one after the other.

    Args:
        encoder: the tokenizer.
        given: `plain`, `path:FILE`, or the template itself; None for the tokenizer's own.

    Raises:
        UserError: the file can't be read, or a text is no template.

    """
    if given is None:
        own: Any = encoder.tokenizer.chat_template
        own = own.get("default") if isinstance(own, dict) else own
        return str(own) if own else PLAIN
    if given == "plain":
        return PLAIN
    if given.startswith("path:"):
        try:
            return Path(given.removeprefix("path:")).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"task.options.template: {given} can't be read: {first_line(error)}") from None
    if "{" not in given:
        raise UserError(
            f"task.options.template is {given[:60]!r}: give plain, path:FILE or a jinja template, which has "
            "{{ ... }} in it"
        )
    return given


def _inside(offset: Span, spans: Sequence[Span]) -> bool:
    """Tell whether a token begins inside one of the spans."""
    return any(start <= offset.start < end for start, end in spans)


def _first_of(offsets: Sequence[Span], span: Span) -> int:
    """Return the first token that reaches into a span."""
    return next((place for place, offset in enumerate(offsets) if offset.end > span.start), len(offsets))


def _runs(flags: Sequence[bool]) -> list[Span]:
    """Return where the flags are set, as spans."""
    padded = [False, *flags, False]
    edges = [place for place in range(len(flags) + 1) if padded[place] != padded[place + 1]]
    return [Span(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]
