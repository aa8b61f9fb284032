"""Chat templates: a conversation rendered as text, and which parts of it are answers.

A conversation is rendered once as a whole. Which characters are answers is told by the template's own marks
(`{% generation %}`), else by prefixes: the turns before an answer, rendered with the generation prompt, must be the
beginning of the whole. Special tokens that are written inside a turn stay text, and a template that asks for the date
gets the same one every day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.data.tokenizer import Encoder
from hpml_bench.errors import UserError
from hpml_bench.system.text import first_line

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The turns one after the other and nothing else: for models without a chat template."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
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
    escaped: int
    """How many such special tokens the turns hold."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the tokenizer whose special tokens it writes."""

    encoder: Encoder
    template: str

    def render(self, turns: Sequence[Mapping[str, str]]) -> Rendered:
        """Return a conversation as text, and which parts of it are answers.

        Raises:
            UserError: the template refuses it, or doesn't let its answers be told.

        """
        safe, stand_ins, escaped = self._without_special_tokens(turns)
        # a text without a prompt is no chat
        template = self.template if any(turn["role"] != "assistant" for turn in turns) else PLAIN
        if MARKS.search(template):
            text, marked = self._rendered(template, safe, marks=True)
            if not marked:
                raise UserError(f"{self._name} marks no part of an answer with {{% generation %}}")
            if len(marked) < sum(turn["role"] == "assistant" for turn in safe):
                raise UserError(
                    f"{self._name} marks only some of the answers with {{% generation %}}; mark all of them"
                )
            return Rendered(text, marked, stand_ins, escaped)
        text, _ = self._rendered(template, safe)
        answers: list[Span] = []
        for index, turn in enumerate(safe):
            if turn["role"] == "assistant":
                before = self._before(template, safe[: index + 1])
                until, _ = self._rendered(template, safe[: index + 1])
                if not text.startswith(before) or not text.startswith(until) or len(before) >= len(until):
                    raise UserError(
                        f"{self._name} writes the turns before answer {len(answers) + 1} otherwise when more follows, "
                        "so that its answers can't be told; give a template with {% generation %} marks, or rows of "
                        "one answer"
                    )
                answers.append(Span(len(before), len(until)))
        return Rendered(text, tuple(answers), stand_ins, escaped)

    def _before(self, template: str, turns: Sequence[Mapping[str, str]]) -> str:
        """Return what comes before the last turn's answer: the other turns with the generation prompt."""
        if len(turns) > 1:
            return self._rendered(template, turns[:-1], prompt=True)[0]
        return self._rendered(template, [dict(turns[0]) | {"content": BARRIER}])[0].partition(BARRIER)[0]

    @property
    def _name(self) -> str:
        return f"the chat template of {self.encoder.backbone}"

    def _rendered(
        self, template: str, turns: Sequence[Mapping[str, str]], *, prompt: bool = False, marks: bool = False
    ) -> tuple[str, tuple[Span, ...]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, indices = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                chat_template=TODAY + template if "strftime_now" in template else template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self._special_names,
            )
        except MemoryError:
            raise
        except Exception as error:  # jinja's own, raise_exception's, or any a template runs into
            raise UserError(f"{self._name} refuses a conversation: {first_line(error)}") from None
        return texts[0], tuple(Span(*span) for span in indices[0] if span[0] < span[1]) if marks else ()

    @cached_property
    def _special_names(self) -> dict[str, str]:
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


def _any_of(tokens: Iterable[object]) -> re.Pattern[str]:
    """Return what finds any of some tokens, the longest first."""
    known = sorted(map(str, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known)) or r"(?!)")
