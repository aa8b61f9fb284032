"""Chat templates: a conversation rendered as text, and the spans of its answers.

The prompt of an answer is the rendering of the turns before it with the generation prompt, as at
generation; the target text follows it. The last answer is joined to its own prompt where a template
renders a finished answer differently (an opened thought, a system prompt in the last question).
Earlier answers must follow their prompts in the whole rendering. The template's own marks (`{%
generation %}`) set the end of an answer's target text; they don't set its start, since the model
has to generate the text before them too. Special tokens inside a turn stay text, and a template
that asks for the date gets the same one every day.
"""

import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from hpml_bench.plugins.decoding import Scaffold
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes
from hpml_bench.system.text import first_line, shortened

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Template of the bare turns, one after the other: for models without a chat template."""
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# argument by which many templates open or close a thought in the generation prompt
THINKING = "enable_thinking"
OPENED = re.compile(
    r"\s*<(\w+)>\s*"
)  # tag that opens a thought at the end of a generation prompt, such as <think>
CUT_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")  # the beginning of a tag at the end of a text
REASONING = (
    "reasoning_content",
    "reasoning",
    "thinking",
)  # keys of a turn under which templates look for reasoning
GENERATED = frozenset(
    {"tool_calls", "tool_plan", *REASONING}
)  # keys of what the assistant writes beside its content
STAND_INS = range(0xF0000, 0xFFFFE)
"""Unicode's private use plane: its characters are placeholders of special tokens that a turn
contains as text.
"""
LONGEST_TOKEN = 256  # most characters of a special token
SAMPLE = "a_sample"  # name of a function whose call is tried
BARRIER = "\ue000"  # a character that no tokenizer joins with its neighbours
TODAY = """\
{%- macro strftime_now(form) -%}
{{ form.replace("%d", "26").replace("%m", "07").replace("%Y", "2024").replace("%b", "Jul").replace("%B", "July") }}
{%- endmacro %}
"""  # noqa: E501
"""Fixed date for templates that ask for one (the fallback of Llama's), so that rows are the same
every day.
"""


Turns = Sequence[Mapping[str, Any]]
"""Role and content of each turn of a conversation, both texts, and the further keys that
templates read.
"""


class RefusedError(UserError):
    """A conversation that a chat template refuses."""


class TextSpan(NamedTuple):
    """A part of a text, by its first character and the one after its last."""

    start: int
    end: int


_Marks = (
    tuple[TextSpan, ...] | None
)  # a template's own in a text; None where it has none, or those of another text
_Writer = Callable[..., tuple[str, _Marks]]  # renderer of turns with a template


class Rendered(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    prompt: int  # characters before the last answer: its prompt
    # characters before the content of the last turn: its prompt, and the text that begins every
    # answer
    content: int
    answers: tuple[TextSpan, ...]
    """Target text, one span per answer: all that the assistant writes, the end of the turn
    included.
    """
    stand_ins: Mapping[
        str, str
    ]  # placeholder character -> the special token that a turn contains as text
    escaped: int  # number of special tokens that the turns contain as text
    marked: bool  # whether the template's own marks end the answers
    # whether the chat template wrote it, which writes BOS too; else the turns are bare text
    chat: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the tokenizer whose special tokens it writes."""

    encoder: Encoder
    template: str
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # further arguments, such as `enable_thinking`

    @property
    def name(self) -> str:
        return f"the chat template of {self.encoder.backbone}"

    def render(
        self, turns: Turns, learnt: Sequence[int] | None = None, tools: Sequence[Any] | None = None
    ) -> Rendered:
        """Return a conversation that ends with an answer as text, with the spans of its target
        text.

        `learnt`: indices of the turns to learn, None for all answers. Raises UserError where the
        template refuses it, or its answers can't be located in the text.
        """
        lost = ["tools"] * (bool(tools) and "tools" not in self.template)
        if any("tool_calls" in turn for turn in turns) and not self._writes_calls:
            lost.append("tool calls")
        if lost:
            raise UserError(
                f"{self.name} writes no {lost[0]}, and a row has some; remove them, or give "
                "another template with task.options.template"
            )
        of_tools = {"role": "system", "content": "", "tools": list(tools or ())}
        safe, stand_ins, escaped = self._without_special_tokens([*turns, of_tools])
        tools = safe.pop()["tools"]
        chosen = (
            [place for place, turn in enumerate(safe) if turn["role"] == "assistant"]
            if learnt is None
            else learnt
        )
        writer = self._writer(safe, tools)
        whole, marks = writer(safe, marks=True)
        before = self._before_content(writer, safe)
        prompt = writer(safe[:-1], prompt=True)[0] if len(safe) > 1 else before
        text = (
            whole if whole.startswith(prompt) else self._joined(writer, safe, prompt, before, whole)
        )
        content = len(before) + len(text) - len(whole) if whole.startswith(before) else len(prompt)
        marks = marks if text == whole else None
        spans = [
            self._narrowed(self._earlier(writer, safe, place, text, prompt), marks, place)
            for place in chosen
            if place < len(safe) - 1
        ]
        last = self._narrowed(TextSpan(len(prompt), len(text)), marks, len(safe) - 1)
        if len(safe) - 1 in chosen:
            spans.append(last)
        by = {"marked": marks is not None, "chat": writer.args[0] != PLAIN}
        return Rendered(
            text, last.start, max(last.start, content), tuple(spans), stand_ins, escaped, **by
        )

    def scaffold(self, turns: Turns) -> Scaffold:
        """Return the text that the template writes around the content of the last turn, whatever
        that content.
        """
        with_barrier, thought = (
            [*turns[:-1], {**turns[-1], "content": BARRIER}],
            chr(ord(BARRIER) + 1),
        )
        text, prompt, content, answers, *_ = self.render(with_barrier)
        after = self.special.sub("", text[content : answers[-1].end].partition(BARRIER)[2])
        tags = {"opening": "[THINK]", "closing": "[/THINK]"} if "[/THINK]" in self.template else {}
        plain = Scaffold(before=text[prompt:content], after=after.strip(), **tags)
        reasoning = [*turns[:-1], {**with_barrier[-1], **dict.fromkeys(REASONING, thought)}]
        try:
            reasoned = self._writer(with_barrier, None)(reasoning)[0]
        except RefusedError:
            return plain
        opening, shown, rest = reasoned[prompt:].partition(thought)
        closing, answered, _ = rest.partition(BARRIER)
        if not (reasoned.startswith(text[:prompt]) and shown and answered and closing.strip()):
            return plain
        return plain.model_copy(update={"opening": opening, "closing": closing})

    def _writer(self, turns: Turns, tools: Sequence[Any] | None) -> partial[tuple[str, _Marks]]:
        # a text without a prompt is no chat
        template = self.template if any(turn["role"] != "assistant" for turn in turns) else PLAIN
        return partial(self._write, template, list(tools) if tools else None)

    def _write(
        self,
        template: str,
        tools: list[Any] | None,
        turns: Turns,
        *,
        prompt: bool = False,
        marks: bool = False,
    ) -> tuple[str, _Marks]:
        """Return turns as text, with the generation prompt where `prompt` is set, and the
        template's marks if asked.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        marked = marks and MARKS.search(template) is not None
        named = self.encoder.tokenizer.special_tokens_map  # as bos_token
        special = {name: str(token) for name, token in named.items() if isinstance(token, str)}
        try:
            texts, indices = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                chat_template=TODAY + template if "strftime_now" in template else template,
                tools=tools,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marked,
                **{**special, **self.options},
            )
        except MemoryError:
            raise
        except Exception as error:  # jinja's own, raise_exception's, or any a template runs into
            raise RefusedError(f"{self.name} refuses a conversation: {first_line(error)}") from None
        return texts[0], tuple(
            TextSpan(*span) for span in indices[0] if span[0] < span[1]
        ) if marked else None

    def _joined(self, writer: _Writer, turns: Turns, prompt: str, before: str, whole: str) -> str:
        """Return a generation prompt and `whole` from the same place on; `before` is `whole` up
        to the last content.
        """
        in_prompt, in_whole = self._parting(writer, turns, prompt, before)
        rest, begun = prompt[in_prompt:], before[in_whole:]
        opened, written = OPENED.fullmatch(rest), whole[in_whole:]
        thinks = any(turns[-1][key].strip() in written for key in REASONING if key in turns[-1])
        closed = (
            thinks and bool(rest.strip()) and not opened
        )  # a thought in the prompt, and the answer has one
        if not in_whole or not whole.startswith(before[:in_whole]) or closed:
            raise UserError(
                f"{self.name} doesn't continue its generation prompt (which ends with "
                f"{prompt[-40:]!r}), so that a model would get another prompt than in training; "
                + (
                    "set task.options.template_options to {enable_thinking: true}, or "
                    * (THINKING in self.template)
                )
                + "give another template with task.options.template"
            )
        if begun.strip() and rest.rstrip().endswith(begun.strip()) and whole.startswith(before):
            return prompt + whole[len(before) :]
        if opened and not begun.strip():  # a thought, which the finished conversation leaves out
            tag, turn = opened[1], turns[-1]
            if f"</{tag}>" in written:
                return prompt + re.sub(rf"\A\s*<{tag}>\s*", "", written)
            own, has_own, _ = turn["content"].rpartition(f"</{tag}>")
            thought = own.rpartition(f"<{tag}>")[2].strip("\n") if has_own else ""
            thought = next((turn[key] for key in REASONING if key in turn), thought)
            return prompt + f"{thought}\n</{tag}>\n\n" + written.lstrip("\n")
        return prompt + written

    def _parting(self, writer: _Writer, turns: Turns, prompt: str, before: str) -> tuple[int, int]:
        """Return where a prompt and a finished conversation part after the answer's header, in
        each; else 0, 0.
        """
        same = CUT_TAG.sub("", prompt[: _common_prefix(prompt, before)])
        earlier = writer(turns[:-1])[0]
        if prompt.startswith(earlier) and same[len(earlier) :].strip():
            return len(same), len(same)
        header = list(self.special.finditer(prompt))[
            -1:
        ]  # the earlier turns are rendered differently
        _, _, behind = self._around(writer, turns[:-1], prompt=True)
        for start, least in (
            (m.start(), m.end()) for m in header if m.start() >= len(prompt) - len(behind)
        ):
            named = prompt[least:].lstrip()[:1]
            for end in range(len(prompt), least - (not named), -1):
                place = before.rfind(prompt[start:end])
                if (
                    place >= 0
                    and prompt[least:end].lstrip()[:1] == named
                    and not CUT_TAG.search(prompt[:end])
                ):
                    return end, place + end - start
        return 0, 0

    def _earlier(
        self, writer: _Writer, turns: Turns, place: int, whole: str, prompt: str
    ) -> TextSpan:
        """Return the span of an earlier answer in the whole, including its end where both
        renderings agree on it.
        """
        before = (
            writer(turns[:place], prompt=True)[0]
            if place
            else self._before_content(writer, turns[:1])
        )
        until = writer(turns[: place + 1])[0]
        answered = before + re.sub(rf"(?:\s|{self.special.pattern})*\Z", "", until[len(before) :])
        if not (
            until.startswith(before)
            and whole[: len(prompt)].startswith(answered)
            and len(answered) > len(before)
        ):
            answer = sum(turn["role"] == "assistant" for turn in turns[: place + 1])
            raise UserError(
                f"{self.name} writes answer {answer} differently when turns follow it, so that a "
                "model would be trained on another text than it generates; set "
                "task.options.loss_on to each, which makes an example of each answer, or to last, "
                "which learns the last of each row, or give another template"
            )
        end = _common_prefix(until, whole)
        end = next(
            (m.start() for m in self.special.finditer(whole) if m.start() < end < m.end()), end
        )
        return TextSpan(len(before), end)

    def _before_content(self, writer: _Writer, turns: Turns) -> str:
        before, written, _ = self._around(writer, turns)
        if not written:
            raise UserError(
                f"{self.name} leaves out an answer's content; give another with "
                f"task.options.template"
            )
        return before

    def _around(
        self, writer: _Writer, turns: Turns, *, prompt: bool = False
    ) -> tuple[str, str, str]:
        """Return the text before the content of the last turn, a placeholder of the content, and
        the text after it.
        """
        used = json.dumps(list(turns), ensure_ascii=False)
        barrier = next(chr(code) for code in reversed(STAND_INS) if chr(code) not in used)
        bare = {key: value for key, value in turns[-1].items() if key not in GENERATED}
        return writer([*turns[:-1], {**bare, "content": barrier}], prompt=prompt)[0].partition(
            barrier
        )

    def _narrowed(self, span: TextSpan, marks: _Marks, place: int) -> TextSpan:
        """Return an answer's span up to the end of the template's last mark in it; unchanged
        without marks.

        It begins at the mark only where the template has no generation prompt: else that text has
        to be generated too.
        """
        if marks is None:
            return span
        inside = [mark for mark in marks if mark.start < span.end and mark.end > span.start]
        if not inside:
            raise UserError(
                f"{self.name} marks no part of an answer with {{% generation %}} (turn "
                f"{place + 1}); mark all of them"
            )
        start = (
            span.start
            if "add_generation_prompt" in self.template
            else max(span.start, inside[0].start)
        )
        return TextSpan(start, inside[-1].end)

    def _without_special_tokens(
        self, turns: Turns
    ) -> tuple[list[dict[str, Any]], dict[str, str], int]:
        """Return the turns with placeholders of their special tokens, the tokens by placeholder,
        and their number.
        """
        escaped, tail, used = 0, "", set(json.dumps(list(turns), ensure_ascii=False))
        free = (chr(code) for code in STAND_INS if chr(code) not in used)
        characters: defaultdict[str, str] = defaultdict(free.__next__)
        safe: list[dict[str, Any]] = []

        def replaced(match: re.Match[str]) -> str:
            nonlocal escaped
            escaped += 1
            return characters[match[0]]

        for turn in turns:
            special = self.special if turn["role"] == "assistant" else self.controls
            content = special.sub(replaced, turn["content"])
            if any(
                match.end() > len(tail) for match in special.finditer(tail + content)
            ):  # of two turns together
                content = re.sub(r"(?s)\A.", replaced, content)
            tail = (tail + content)[-LONGEST_TOKEN:]
            more = {key: value for key, value in turn.items() if key not in {"role", "content"}}
            change = partial(special.sub, replaced)
            safe.append({"role": turn["role"], "content": content} | _with_texts(more, change))
        return safe, {character: token for token, character in characters.items()}, escaped

    @cached_property
    def _writes_calls(self) -> bool:
        """Whether the template writes tool calls; one that refuses this example may write those
        of its own rules.
        """
        call = {
            "type": "function",
            "id": "a1b2c3d4e",
            "function": {"name": SAMPLE, "arguments": {}},
        }
        turns: Turns = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        with suppress(RefusedError):
            return (
                SAMPLE in self._write(self.template, None, turns)[0]
                and "tool_calls" in self.template
            )
        return "tool_calls" in self.template

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Pattern of the special tokens; one of a single character, such as a `!` that pads, is
        text.
        """
        return self._any_added(lambda token: token.special)

    @cached_property
    def controls(self) -> re.Pattern[str]:
        """Pattern of special tokens and of other added tokens that the template writes; answers
        may have <think>.
        """
        return self._any_added(
            lambda t: t.special or (str(t) in self.template and not str(t).isspace())
        )

    def _any_added(self, chosen: Callable[[Any], bool]) -> re.Pattern[str]:
        added = self.encoder.tokenizer.added_tokens_decoder.values()
        known = sorted(
            (str(token) for token in added if len(str(token)) > 1 and chosen(token)),
            key=len,
            reverse=True,
        )
        return re.compile("|".join(map(re.escape, known)) or r"(?!)")


def chat_template(encoder: Encoder, given: str | None) -> str:
    """Return the template given as `plain`, `path:FILE` or itself, else the tokenizer's own,
    else the bare turns.
    """
    if given is None:
        own: Any = encoder.tokenizer.chat_template
        own = own.get("default") if isinstance(own, dict) else own
        return str(own) if own else PLAIN
    if given == "plain":
        return PLAIN
    if given.startswith("path:"):
        try:
            return read_bytes(Path(given.removeprefix("path:")), follow=True).decode()
        except (OSError, ValueError) as error:
            raise UserError(
                f"task.options.template: {given} can't be read: {first_line(error)}"
            ) from None
    if "{" not in given:
        shown = shortened(given, 60)
        raise UserError(
            f"task.options.template is {shown!r}: give plain, path:FILE or a jinja template, which "
            "has {{ ... }} in it"
        )
    return given


def standing_template(template: str, options: Mapping[str, Any], system: str | None) -> str:
    """Return a template with options, a system prompt and our date as its defaults, which a call
    can still replace.
    """
    parts = [TODAY] if "strftime_now" in template else []
    for name, value in options.items():
        parts.append(
            f"{{% if {name} is not defined %}}{{% set {name} = {value!r} %}}{{% endif %}}\n"
        )
    if system:
        turn = {"role": "system", "content": system}
        parts.append(
            f"{{% if messages[0]['role'] != 'system' %}}{{% set messages = [{turn!r}] + messages "
            f"%}}{{% endif %}}\n"
        )
    return "".join([*parts, template])


def _common_prefix(one: str, other: str) -> int:
    shorter = range(min(len(one), len(other)))
    return bisect_left(shorter, True, key=lambda place: one[: place + 1] != other[: place + 1])


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of JSON with every text in it changed, names of keys included."""
    if isinstance(value, dict):
        return {change(key): _with_texts(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_texts(part, change) for part in value]
    return change(value) if isinstance(value, str) else value
