"""Conversations as token ids, with labels that mark the target tokens."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from hpml_bench.data.chat_template import (
    BARRIER,
    REASONING,
    ChatTemplate,
    Rendered,
    TextSpan,
    Turns,
)
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.decoding import Decode, Scaffold, decoder
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.errors import UserError


@dataclass(frozen=True)
class Example:
    """A conversation as a model sees it."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]  # [tokens], the token's own id for target tokens, else IGNORE_INDEX
    prompt: int  # tokens before the last answer
    # tokens before the content of the last answer: prompt, and the text that begins every answer
    content: int
    question: str  # last turn before the last answer; empty where there is none
    expected: str  # the last answer, without reasoning; tool calls as the template writes them
    target_bytes: (
        int  # UTF-8 bytes of the target text as the template wrote it, without special tokens
    )
    cut: int = 0  # tokens cut off the prompt


class _KnownTokens(NamedTuple):
    """Token ids that have a meaning of their own."""

    front: list[int]  # tokens that the tokenizer puts before a text (BOS)
    ends: frozenset[int]  # end tokens of tokenizer and model
    marked: frozenset[int]  # special tokens of the vocabulary
    special: frozenset[int]  # both
    controls: frozenset[int]  # special tokens and other added ones that the template writes
    # whether the tokenizer adds a space before every text, as many do that write spaces as ▁
    puts_space: bool


@dataclass(frozen=True)
class Conversations:
    """Conversion of conversations to token ids, by a tokenizer, a chat template and a suite's
    options.
    """

    encoder: Encoder
    template: str
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the template
    loss_on: Literal["answers", "last", "all"] = "answers"
    too_long: Literal["drop", "cut_prompt"] = "drop"
    counts: Counter[str] = field(
        default_factory=Counter
    )  # numbers of rows and tokens, by what happened to them
    _texts: dict[tuple[str, bool], list[int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Special token's text, and whether it is inside another -> its token ids as text."""

    def turns(
        self,
        roles: Sequence[str],
        contents: Sequence[str],
        fields: Sequence[Mapping[str, Any]] = (),
    ) -> list[dict[str, Any]]:
        """Return a row's turns with their further keys, and the system prompt in front where the
        row has none.
        """
        turns = [
            {"role": role, "content": text} for role, text in zip(roles, contents, strict=True)
        ]
        turns = [
            turn | dict(more) for turn, more in zip(turns, fields or [{}] * len(turns), strict=True)
        ]
        if self.system and any(role != "assistant" for role in roles) and roles[0] != "system":
            turns.insert(0, {"role": "system", "content": self.system})
        return turns

    def example(
        self,
        roles: Sequence[str],
        contents: Sequence[str],
        least: int = 0,
        weights: Sequence[float] = (),
        tools: Sequence[Any] | None = None,
        fields: Sequence[Mapping[str, Any]] = (),
    ) -> Example | None:
        """Return a conversation as the model sees it; None where it is dropped for its length, or
        has no target token.

        Of each turn are `roles`, `contents`, `weights` (0 for one that is not learnt, else 1; empty
        for all 1) and `fields` (further keys that templates read; empty for none). `least`: least
        tokens that the row needs room for, where choices are longer than the right answer; `tools`:
        definitions that the template writes.
        """
        turns = self.turns(roles, contents, fields)
        rendered = self._chat.render(turns, self._turns_to_learn(turns, weights), tools)
        ids, targets, sizes, prompt, content, counts = self._tokenised(rendered, turns)
        first = (
            targets.index(True) if True in targets else prompt
        )  # before it the prompt may be cut
        if self.loss_on == "all":
            targets = [True] * len(ids)
        targets[:1] = [False] * len(targets[:1])  # no token before it predicts it
        if not any(targets):
            self.counts["rows whose text has no token to learn, left out"] += 1
            return None
        size = self.encoder.vocabulary
        if size is not None and max(ids) >= size:
            raise UserError(
                f"{self.encoder.backbone}: the tokenizer gives token {max(ids)}, but the model has "
                f"{size}; they don't belong together"
            )
        # tokens at the front that are never cut: those up to BOS, or that the tokenizer puts there
        front, bos = self._known.front, self.encoder.tokenizer.bos_token_id
        of_front = len(front) if ids[: len(front)] == front else 0
        begin = next((number for number, token in enumerate(ids[:2], 1) if token == bos), of_front)
        cut = max(0, max(len(ids), least) - self.encoder.max_length)
        dropped = bool(cut) and (self.too_long == "drop" or cut >= first - begin)
        self.counts["rows"] += 1
        if cut:
            what, lost = ("dropped", len(ids)) if dropped else ("cut", cut)
            self.counts.update({f"{what} rows": 1, f"{what} tokens": lost})
        if dropped:
            return None
        kept = [*range(begin), *range(begin + cut, len(ids))]
        self.counts.update(counts)
        return Example(
            ids=tuple(ids[place] for place in kept),
            labels=(
                IGNORE_INDEX,
                *(ids[place] if targets[place] else IGNORE_INDEX for place in kept[1:]),
            ),
            prompt=prompt - cut,
            content=content - cut,
            question=next(
                (turn["content"] for turn in reversed(turns[:-1]) if turn["role"] == "user"), ""
            ),
            expected=self._expected(turns, ids[prompt:]),
            target_bytes=sum(
                sizes[at] for at in kept[1:] if targets[at] and ids[at] not in self._known.special
            ),
            cut=cut,
        )

    def _expected(self, turns: Turns, ids: list[int]) -> str:
        """Return the last of the turns without reasoning, from its text or, with tool calls,
        from its tokens.
        """
        content: str = turns[-1]["content"]
        if "tool_calls" not in turns[-1]:
            return self.scaffold.content(content) if len(turns) > 1 else content
        said = ids[: self._tail(ids, 0, len(ids))]
        return self._decode(said) or str(
            self.encoder.tokenizer.decode(said, skip_special_tokens=True)
        )

    def reads(self, example: Example) -> bool:
        """Return whether an example's answer, were it generated, would be read as the one that
        is asked for.
        """
        ids = list(example.ids[example.prompt :])
        end = next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self._decode(ids[:end]).strip() == example.expected.strip()

    @cached_property
    def _decode(self) -> Decode:
        return decoder(self.encoder.tokenizer, self.scaffold)

    def _tokenised(
        self, rendered: Rendered, turns: Turns
    ) -> tuple[list[int], list[bool], list[int], int, int, dict[str, int]]:
        """Return token ids, whether they are targets, and their UTF-8 bytes, all [tokens], with
        each answer's end.

        Beside them `prompt` and `content` as of `Example`, and the counts that the row adds where
        it is kept.
        """
        ids, offsets, prompt = self._encoded(rendered)
        if sum(token in self._known.marked for token in ids) > len(
            self._chat.special.findall(rendered.text)
        ):
            raise UserError(
                f"{self.encoder.backbone}: the tokenizer makes a special token of a turn's text; "
                f"remove that text"
            )
        text = self.encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        counts = {
            "special tokens in turns, kept as text": rendered.escaped,
            "rows whose text the template or the tokenizer changes": any(
                t["content"] not in text for t in turns
            ),
            "rows whose reasoning the template leaves out": any(
                turns[-1][key].strip() not in text for key in REASONING if key in turns[-1]
            ),
        }
        targets = [
            any(start <= offset.start < end for start, end in rendered.answers)
            for offset in offsets
        ]
        opening = rendered.text[rendered.prompt : rendered.content]
        # a space is part of the content's first token
        content = _first_of(offsets, rendered.content) if opening.strip() else prompt
        ids, targets, unended = self._ended(ids, targets, prompt, marked=rendered.marked)
        counts[
            (
                "answers before the last whose end is not learnt, as the template writes no end "
                "token there"
            )
        ] = unended
        front = [] if rendered.chat else self._known.front
        added, reached = len(front), 0
        sizes = [0] * added
        for _, end in offsets:  # of its characters a token has those that no earlier one has
            own = rendered.text[reached:end]
            if rendered.stand_ins:
                own = "".join(rendered.stand_ins.get(character, character) for character in own)
            sizes.append(len(own.encode()))
            reached = max(reached, end)
        counts = {what: int(count) for what, count in counts.items() if count}
        return (
            [*front, *ids],
            [False] * added + targets,
            [*sizes, 0],
            prompt + added,
            content + added,
            counts,
        )

    def _turns_to_learn(self, turns: Turns, weights: Sequence[float]) -> list[int]:
        if self.loss_on == "all" and 0 in weights:
            raise UserError(
                f"turn {list(weights).index(0) + 1} has weight 0, so that it isn't learnt, and "
                f"loss_on: all learns "
                "every token; set task.options.loss_on to answers, or leave the weights out"
            )
        whole = [
            *[1.0] * (len(turns) - len(weights)),
            *weights,
        ]  # a system prompt may have been added in front
        answers = [
            place
            for place, turn in enumerate(turns)
            if turn["role"] == "assistant" and whole[place]
        ]
        return [place for place in answers if self.loss_on != "last" or place == len(turns) - 1]

    def answer_of(self, example: Example) -> list[int]:
        """Return the tokens of the last answer's content, without its end tokens."""
        ids = list(example.ids[example.content :])
        return ids[: self._tail(ids, 0, len(ids))]

    def _encoded(self, rendered: Rendered) -> tuple[list[int], list[TextSpan], int]:
        """Return token ids, the characters of each, and the prompt's tokens: those of the prompt
        tokenised alone.
        """
        text, last = rendered.text, rendered.prompt
        ids, offsets = self._tokens(text, rendered.stand_ins)
        uncut = ids
        borders = {last, *(place for span in rendered.answers for place in span)}
        starts = [offset.start for offset in offsets]
        before = {place: bisect_left(starts, place) - 1 for place in borders}
        cuts = {
            place for place, token in before.items() if token >= 0 and offsets[token].end > place
        }  # within a token
        if cuts:
            ids, offsets = self._tokens(text, rendered.stand_ins, cuts)
        prompt = _first_of(offsets, last)
        if self._tokens(text[:last], rendered.stand_ins, cuts)[0] != ids[:prompt]:
            cuts.add(last)
            ids, offsets = self._tokens(text, rendered.stand_ins, cuts)
            prompt = _first_of(offsets, last)
        if ids != uncut:
            self.counts["rows whose prompt and answer share a token, split there"] += 1
        return ids, offsets, prompt

    def _tokens(
        self, text: str, stand_ins: Mapping[str, str], cuts: Collection[int] = ()
    ) -> tuple[list[int], list[TextSpan]]:
        """Return token ids and the characters of each; placeholders become the tokens of their
        special token's text.
        """
        placeholders = (
            {place for place, character in enumerate(text) if character in stand_ins}
            if stand_ins
            else set()
        )
        borders = {0, len(text), *placeholders, *(place + 1 for place in placeholders)}
        borders.update(cut for cut in cuts if cut < len(text))
        ids: list[int] = []
        offsets: list[TextSpan] = []
        for start, end in pairwise(sorted(borders)):
            if start in placeholders:
                part = self._as_text(stand_ins[text[start]], inside=start > 0)
                within = [TextSpan(0, 1)] * len(part)
            else:
                part, within = self._piece(text[start:end], inside=start > 0)
            ids += part
            offsets += [TextSpan(start + first, start + after) for first, after in within]
        return ids, offsets

    def _as_text(self, text: str, *, inside: bool) -> list[int]:
        """Return token ids of a special token's text, none of which is the special token."""
        if (text, inside) not in self._texts:
            ids = self._piece(text, inside=inside, as_text=True)[0]
            if len(text) > 1 and self._known.controls.intersection(
                ids
            ):  # some tokenizers have its text as one token
                ids = [
                    *self._as_text(text[0], inside=inside),
                    *self._as_text(text[1:], inside=True),
                ]
            self._texts[text, inside] = ids
        return self._texts[text, inside]

    def _piece(
        self, text: str, *, inside: bool, as_text: bool = False
    ) -> tuple[list[int], list[TextSpan]]:
        """Return token ids and the characters of each; no space is added before a text inside
        another one.
        """
        barrier = BARRIER if inside and self._known.puts_space else ""
        encoded = self._call(barrier + text, as_text=as_text)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        if barrier:
            if any(start < 1 < end for start, end in offsets):
                return self._piece(text, inside=False, as_text=as_text)
            skipped = sum(end <= 1 for _, end in offsets)
            ids, offsets = ids[skipped:], [(start - 1, end - 1) for start, end in offsets[skipped:]]
        spans: list[TextSpan] = []
        for (
            start,
            end,
        ) in offsets:  # some tokenizers leave the space before a word out of its token's characters
            spans.append(TextSpan(min(start, spans[-1].end if spans else 0), end))
        return ids, spans

    def _call(self, text: str, *, as_text: bool = False) -> Any:
        left_out = dict.fromkeys(
            ("add_special_tokens", "return_attention_mask", "return_token_type_ids"), False
        )
        return self.encoder.tokenizer(
            text, split_special_tokens=as_text, return_offsets_mapping=True, **left_out
        )

    def _ended(
        self, ids: list[int], targets: list[bool], prompt: int, *, marked: bool
    ) -> tuple[list[int], list[bool], int]:
        """Return token ids, target flags up to each answer's end token, and how many earlier
        answers learn none.

        Tokens behind an end token are targets where the template's own marks include them. Where
        the template ends the last answer without a special token, the tokenizer's end token is
        appended.
        """
        targets, eos, ends = (
            list(targets),
            self.encoder.tokenizer.eos_token_id,
            set(self._known.ends),
        )
        unended = []
        edges = [
            place
            for place, pair in enumerate(pairwise([False, *targets, False]))
            if pair[0] != pair[1]
        ]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            last = self._end(ids, start, end)
            if last is None:
                unended.append(end)
            else:
                targets[last + 1 : end] = [marked] * (end - last - 1)
                ends.add(ids[last])
        if unended and (final := unended[-1]) > prompt:
            unended.pop()
            if (
                final < len(ids) and ids[final] in self._known.special
            ):  # an end token that the template's marks omit
                targets[final] = True
                ends.add(ids[final])
            elif eos is not None:
                ids, targets = [*ids[:final], eos], [*targets[:final], True]
            else:
                self.counts["rows whose answer has no end token, as the tokenizer has none"] += 1
        for (
            end
        ) in unended:  # an end token that marks leave out, or the first token of the next turn
            targets[end] = ids[end] in ends
        return ids, targets, sum(not targets[end] for end in unended)

    def _end(self, ids: Sequence[int], start: int, end: int) -> int | None:
        """Return the place of the special token that ends an answer: the first to end a
        generation, else the last.
        """
        place = self._tail(ids, start, end)
        if place is None:
            return None
        while (
            ids[place] not in self._known.ends
            and place + 1 < end
            and ids[place + 1] in self._known.special
        ):
            place += 1
        return place

    def _tail(self, ids: Sequence[int], start: int, end: int) -> int | None:
        """Return the place of the first special token at the end of an answer, with only white
        space between them.
        """
        first = None
        for place in range(end - 1, start - 1, -1):
            if ids[place] in self._known.special:
                first = place
            elif self.encoder.tokenizer.decode(ids[place]).strip():
                break
        return first

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.encoder, self.template, self.options)

    @cached_property
    def _known(self) -> _KnownTokens:
        tokenizer = self.encoder.tokenizer
        bare, whole = (
            tokenizer("a", add_special_tokens=False)["input_ids"],
            tokenizer("a")["input_ids"],
        )
        begin = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        unknown = tokenizer.unk_token or getattr(
            tokenizer.backend_tokenizer.model, "unk_token", None
        )
        added = [
            (number, str(t))
            for number, t in tokenizer.added_tokens_decoder.items()
            if str(t) != unknown
        ]
        marked, controls = (
            frozenset(number for number, text in added if pattern.fullmatch(text))
            for pattern in (self._chat.special, self._chat.controls)
        )
        after = self._call(f"{BARRIER}a")
        inside = [
            token
            for token, (_, end) in zip(after["input_ids"], after["offset_mapping"], strict=True)
            if end > 1
        ]
        ends = frozenset({tokenizer.eos_token_id, *self.encoder.ends} - {None})
        puts_space = bool(self._call("a")["input_ids"] != inside)
        return _KnownTokens(list(whole[:begin]), ends, marked, marked | ends, controls, puts_space)

    @cached_property
    def _sample(self) -> Example | None:
        unlimited = replace(self.encoder, max_length=10**6)
        alone = replace(self, encoder=unlimited, counts=Counter(), loss_on="answers")
        return alone.example(("user", "assistant"), ("a", "b"))

    @property
    def left_to_template(self) -> str:
        """Tokens that the tokenizer puts before a text, where chats don't begin with them; empty
        where they do.
        """
        front, example = self._known.front, self._sample
        missing = front and example is not None and list(example.ids[: len(front)]) != front
        return str(self.encoder.tokenizer.decode(front)) if missing else ""

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of tokenizer and model, and the one that the template
        writes there.
        """
        last, example = None, self._sample
        if example is not None:
            learnt = max(
                place for place, label in enumerate(example.labels) if label != IGNORE_INDEX
            )
            place = self._end(example.ids, example.content, learnt + 1)
            last = None if place is None else example.ids[place]
        ends = (self.encoder.tokenizer.eos_token_id, last, *self.encoder.ends)
        return tuple(dict.fromkeys(token for token in ends if token is not None))

    @cached_property
    def scaffold(self) -> Scaffold:
        """Text that the template writes around an answer, whatever the question."""
        scaffold, other = (
            self._chat.scaffold(self.turns(("user", "assistant"), (question, "")))
            for question in "ab"
        )
        if scaffold != other:
            raise UserError(
                f"{self._chat.name} writes different text around an answer for different "
                "questions; give another with task.options.template"
            )
        return scaffold


def _first_of(offsets: Sequence[TextSpan], start: int) -> int:
    return next((place for place, offset in enumerate(offsets) if offset.end > start), len(offsets))
