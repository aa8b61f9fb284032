"""Chat templates: a conversation rendered as text, and which parts of it are answers.

The prompt of an answer is the rendering of the turns before it with the generation prompt, as a model is given it; what
is learnt goes on from there. The last answer is joined to its own prompt where a template writes a finished one
otherwise (an opened thought, a system prompt in the last question). Answers before it must follow their prompts in the
whole. The template's own marks (`{% generation %}`) say where what is learnt of a turn ends; they don't move the
prompt, behind which a model has to write what stands before them. Special tokens that are written inside a turn stay
text, and a template that asks for the date gets the same one every day.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.errors import UserError
from hpml_bench.plugins.task import Scaffold
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.text import first_line

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The turns one after the other and nothing else: for models without a chat template."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
OPENED = re.compile(r"\s*<(\w+)>\s*")
"""A thought that a generation prompt begins, as <think>."""
CUT_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")
"""The beginning of a tag at the end of a text."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn under which templates look for reasoning."""
STAND_INS = range(0xF0000, 0xFFFFE)
"""Unicode's private use plane: a character of it stands in for a special token that a turn holds as text."""
LONGEST_TOKEN = 256
"""Characters of a special token, at most."""
BARRIER = "\ue000"
"""A character that no tokenizer joins with its neighbours."""
TODAY = """\
{%- macro strftime_now(form) -%}
{{ form.replace("%d", "26").replace("%m", "07").replace("%Y", "2024").replace("%b", "Jul").replace("%B", "July") }}
{%- endmacro %}
"""
"""The date for templates that ask for it: the one that Llama's fall back on, so that rows are the same every day."""


class RefusedError(UserError):
    """A conversation that a chat template refuses."""


class TextSpan(NamedTuple):
    """A part of a text, by its first character and the one after its last."""

    start: int
    end: int


class Rendered(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    prompt: int
    """Characters before the last answer: what a model is given to answer it."""
    content: int
    """Characters before what the last turn says; between them stands what the template begins an answer with."""
    answers: tuple[TextSpan, ...]
    """What is learnt of the text, answer by answer: what the assistant writes, the turn's end included."""
    stand_ins: Mapping[str, str]
    """Character -> the special token that a turn holds as text, in whose place it stands."""
    escaped: int
    """How many such special tokens the turns hold."""


class _Whole(NamedTuple):
    """A conversation up to the end of its last answer, joined to the prompt of that."""

    text: str
    prompt: int
    content: int
    marks: tuple[TextSpan, ...] | None
    """The template's own marks; None where it has none, or they are of another text."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the tokenizer whose special tokens it writes."""

    encoder: Encoder
    template: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the template, as `enable_thinking`."""

    def render(
        self,
        turns: Sequence[Mapping[str, str]],
        learnt: Sequence[int] | None = None,
        tools: Sequence[Any] | None = None,
    ) -> Rendered:
        """Return a conversation as text, and which parts of it are learnt.

        Args:
            turns: role and content of each; the last is an answer.
            learnt: numbers of the turns that are learnt; None for all answers.
            tools: definitions of tools that the template writes.

        Raises:
            UserError: the template refuses it, or doesn't let its answers be told.

        """
        if tools and "tools" not in self.template:
            raise UserError(f"{self.name} writes no tools, which a row has; leave their column out, or give another")
        safe, stand_ins, escaped = self._without_special_tokens(turns)
        asked = [place for place, turn in enumerate(safe) if turn["role"] == "assistant"] if learnt is None else learnt
        writer = self._writer(safe, tools)
        whole = self._whole(writer, safe)
        spans = [self._earlier(writer, safe, place, whole) for place in asked if place < len(safe) - 1]
        last = self._narrowed(TextSpan(whole.prompt, len(whole.text)), whole, len(safe) - 1)
        if len(safe) - 1 in asked:
            spans.append(last)
        return Rendered(whole.text, last.start, max(last.start, whole.content), tuple(spans), stand_ins, escaped)

    def scaffold(self, turns: Sequence[Mapping[str, str]]) -> Scaffold:
        """Return what the template writes around the content of an answer: of the last of some turns, whatever it says.

        Raises:
            UserError: as `render`.

        """
        asked = [*turns[:-1], {**turns[-1], "content": BARRIER}]
        text, prompt, content, answers, *_ = self.render(asked)
        begun = text[:prompt]
        after = self.special.sub("", text[content : answers[-1].end].partition(BARRIER)[2])
        thought = chr(ord(BARRIER) + 1)
        tags = {"opening": "[THINK]", "closing": "[/THINK]"} if "[/THINK]" in self.template else {}
        found = Scaffold(before=text[prompt:content], after=after.strip(), **tags)
        try:
            reasoned = self._writer(asked, None)([*turns[:-1], {**asked[-1], **dict.fromkeys(REASONING, thought)}])[0]
        except RefusedError:
            return found
        opening, shown, rest = reasoned.removeprefix(begun).partition(thought)
        closing, said, _ = rest.partition(BARRIER)
        if not (reasoned.startswith(begun) and shown and said and closing.strip()):
            return found
        return found.model_copy(update={"opening": opening, "closing": closing})

    def _writer(self, turns: Sequence[Mapping[str, str]], tools: Sequence[Any] | None) -> _Writer:
        # a text without a prompt is no chat
        template = self.template if any(turn["role"] != "assistant" for turn in turns) else PLAIN
        return _Writer(self, template, tools)

    def _whole(self, writer: _Writer, turns: Sequence[Mapping[str, str]]) -> _Whole:
        whole, marks = writer(turns, marks=bool(MARKS.search(writer.template)))
        before = self._unsaid(writer, turns)
        prompt = writer(turns[:-1], prompt=True)[0] if len(turns) > 1 else before
        text = whole if whole.startswith(prompt) else self._joined(writer, turns, prompt, before, whole)
        content = len(before) + len(text) - len(whole) if whole.startswith(before) else len(prompt)
        same = text == whole and MARKS.search(writer.template)
        return _Whole(text, len(prompt), content, marks if same else None)

    def _joined(self, writer: _Writer, turns: Sequence[Mapping[str, str]], prompt: str, before: str, whole: str) -> str:
        """Return a generation prompt, and behind it what a finished conversation has behind the same place.

        Args:
            writer: what renders turns.
            turns: the conversation.
            prompt: the turns before its last answer, with the generation prompt.
            before: the finished conversation up to what the last answer says.
            whole: all of it.

        """
        in_prompt, in_whole = self._parting(writer, turns, prompt, before)
        rest, begun = prompt[in_prompt:], before[in_whole:]
        if not in_whole or not whole.startswith(before[:in_whole]):
            raise UserError(
                f"{self.name} doesn't go on from its generation prompt (which ends with {prompt[-40:]!r}), so that a "
                "model would be asked otherwise than it was trained; give another with task.options.template"
            )
        if begun.strip() and rest.rstrip().endswith(begun.strip()) and whole.startswith(before):
            return prompt + whole[len(before) :]
        opened = OPENED.fullmatch(rest)
        if opened and not begun.strip():  # a thought, which the finished conversation leaves out
            return prompt + _thought(opened[1], whole[in_whole:], turns[-1]["content"])
        return prompt + whole[in_whole:]

    def _parting(
        self, writer: _Writer, turns: Sequence[Mapping[str, str]], prompt: str, before: str
    ) -> tuple[int, int]:
        """Return where a prompt and a finished conversation part behind the answer's header, in both; else 0."""
        same = CUT_TAG.sub("", prompt[: _same(prompt, before)])
        asked = writer(turns[:-1])[0]
        if prompt.startswith(asked) and same[len(asked) :].strip():
            return len(same), len(same)
        header = list(self.special.finditer(prompt))[-1:]  # the turns before it are written otherwise
        _, _, behind = self._around(writer, turns[:-1], prompt=True)
        for start, least in ((m.start(), m.end()) for m in header if m.start() >= len(prompt) - len(behind)):
            named = prompt[least:].lstrip()[:1]
            for end in range(len(prompt), least - (not named), -1):
                place = before.rfind(prompt[start:end])
                if place >= 0 and prompt[least:end].lstrip()[:1] == named and not CUT_TAG.search(prompt[:end]):
                    return end, place + end - start
        return 0, 0

    def _earlier(self, writer: _Writer, turns: Sequence[Mapping[str, str]], place: int, whole: _Whole) -> TextSpan:
        """Return where an answer before the last one stands in the whole, its end included where that is the same."""
        before = writer(turns[:place], prompt=True)[0] if place else self._unsaid(writer, turns[:1])
        until = writer(turns[: place + 1])[0]
        said = before + self._ends.sub("", until[len(before) :])
        if not (until.startswith(before) and whole.text[: whole.prompt].startswith(said) and len(said) > len(before)):
            answer = sum(turn["role"] == "assistant" for turn in turns[: place + 1])
            raise UserError(
                f"{self.name} writes answer {answer} otherwise when more follows, so that a model would learn it "
                "otherwise than it is asked for it; set task.options.loss_on to last, which learns the last answer of "
                "each row, or give another template"
            )
        end = _same(until, whole.text)
        end = next((m.start() for m in self.special.finditer(whole.text) if m.start() < end < m.end()), end)
        return self._narrowed(TextSpan(len(before), end), whole, place)

    def _unsaid(self, writer: _Writer, turns: Sequence[Mapping[str, str]]) -> str:
        """Return what comes before the content of the last turn, which is an answer."""
        before, written, _ = self._around(writer, turns)
        if not written:
            raise UserError(f"{self.name} doesn't write what an answer says; give another with task.options.template")
        return before

    def _around(
        self, writer: _Writer, turns: Sequence[Mapping[str, str]], *, prompt: bool = False
    ) -> tuple[str, str, str]:
        """Return what comes before the content of the last turn, a stand-in for that, and what comes behind it."""
        used = {character for turn in turns for character in turn["content"]}
        barrier = next(chr(code) for code in reversed(STAND_INS) if chr(code) not in used)
        return writer([*turns[:-1], {**turns[-1], "content": barrier}], prompt=prompt)[0].partition(barrier)

    def _narrowed(self, span: TextSpan, whole: _Whole, place: int) -> TextSpan:
        """Return an answer up to the end of what the template marks of it, where it marks any.

        It begins at its prompt, since a model has to write what stands before the mark; where the template knows no
        generation prompt, the mark is where the prompt ends.
        """
        if whole.marks is None:
            return span
        inside = [mark for mark in whole.marks if mark.start < span.end and mark.end > span.start]
        if not inside:
            raise UserError(
                f"{self.name} marks no part of an answer with {{% generation %}} (turn {place + 1}); mark all of them"
            )
        start = span.start if "add_generation_prompt" in self.template else max(span.start, inside[0].start)
        return TextSpan(start, min(span.end, inside[-1].end))

    @cached_property
    def _ends(self) -> re.Pattern[str]:
        """Find what a text ends with, of special tokens and white space."""
        return re.compile(rf"(?:\s|{self.special.pattern})*\Z")

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"the chat template of {self.encoder.backbone}"

    @cached_property
    def special_names(self) -> dict[str, str]:
        """The tokenizer's special tokens by the names that templates know, such as `bos_token`."""
        named = self.encoder.tokenizer.special_tokens_map
        return {name: str(token) for name, token in named.items() if isinstance(token, str)}

    def _without_special_tokens(
        self, turns: Sequence[Mapping[str, str]]
    ) -> tuple[list[dict[str, str]], dict[str, str], int]:
        """Return the turns with a stand-in for each special token in them, what these stand for, and how many.

        Of one that two turns make together, it stands for the later turn's first character.
        """
        used = {character for turn in turns for character in turn["content"]}
        free = (chr(code) for code in STAND_INS if chr(code) not in used)
        characters: dict[str, str] = {}
        safe: list[dict[str, str]] = []
        escaped, tail = 0, ""

        def replaced(match: re.Match[str]) -> str:
            if match[0] not in characters:
                characters[match[0]] = next(free)
            return characters[match[0]]

        for turn in turns:
            special = self.special if turn["role"] == "assistant" else self.controls
            content, count = special.subn(replaced, turn["content"])
            if any(match.end() > len(tail) for match in special.finditer(tail + content)):
                content, count = re.sub(r"(?s)\A.", replaced, content), count + 1
            tail = (tail + content)[-LONGEST_TOKEN:]
            escaped += count
            safe.append(dict(turn) | {"content": content})
        return safe, {character: token for token, character in characters.items()}, escaped

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Find special tokens."""
        return _any_of(token for token in self._added if token.special)

    @cached_property
    def controls(self) -> re.Pattern[str]:
        """Find special tokens, and other added ones that the template writes, as <think>: an answer may have those."""
        return _any_of(t for t in self._added if t.special or (str(t) in self.template and not str(t).isspace()))

    @property
    def _added(self) -> list[Any]:
        """Tokens added to the vocabulary; one of a single character, such as a `!` that pads, is text."""
        return [token for token in self.encoder.tokenizer.added_tokens_decoder.values() if len(str(token)) > 1]


@dataclass(frozen=True)
class _Writer:
    """What renders turns with a template."""

    chat: ChatTemplate
    template: str
    tools: Sequence[Any] | None

    def __call__(
        self, turns: Sequence[Mapping[str, str]], *, prompt: bool = False, marks: bool = False
    ) -> tuple[str, tuple[TextSpan, ...]]:
        """Return turns as text, with the generation prompt if asked for, and the template's marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        template = TODAY + self.template if "strftime_now" in self.template else self.template
        try:
            texts, indices = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                chat_template=template,
                tools=list(self.tools) if self.tools else None,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **{**self.chat.special_names, **self.chat.options},
            )
        except MemoryError:
            raise
        except Exception as error:  # jinja's own, raise_exception's, or any a template runs into
            raise RefusedError(f"{self.chat.name} refuses a conversation: {first_line(error)}") from None
        return texts[0], tuple(TextSpan(*span) for span in indices[0] if span[0] < span[1]) if marks else ()


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


def standing_template(template: str, options: Mapping[str, Any], system: str | None) -> str:
    """Return a template that writes by itself what another does with options, a system prompt and our date.

    Whoever renders it may still give other options and another system prompt.
    """
    parts = [TODAY] if "strftime_now" in template else []
    for name, value in options.items():
        parts.append(f"{{% if {name} is not defined %}}{{% set {name} = {value!r} %}}{{% endif %}}\n")
    if system:
        turn = {"role": "system", "content": system}
        parts.append(
            f"{{% if messages[0]['role'] != 'system' %}}{{% set messages = [{turn!r}] + messages %}}{{% endif %}}\n"
        )
    return "".join([*parts, template])


def _any_of(tokens: Iterable[object]) -> re.Pattern[str]:
    """Return what finds any of some tokens, the longest first."""
    known = sorted(map(str, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known)) or r"(?!)")


def _same(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    shorter = range(min(len(one), len(other)))
    return bisect_left(shorter, True, key=lambda place: one[: place + 1] != other[: place + 1])


def _thought(tag: str, rest: str, content: str) -> str:
    """Return what goes on from an opened thought: the answer's own one or none, its end, and the answer."""
    if f"</{tag}>" in rest:
        return re.sub(rf"\A\s*<{tag}>\s*", "", rest)
    own, closed, _ = content.rpartition(f"</{tag}>")
    said = own.rpartition(f"<{tag}>")[2].strip("\n") if closed else ""
    return f"{said}\n</{tag}>\n\n" + rest.lstrip("\n")
