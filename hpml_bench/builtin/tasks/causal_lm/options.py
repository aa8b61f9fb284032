"""Options of causal language modelling."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from hpml_bench.plugins.task import RowOptions

GIVEN = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
    }
)
"""Arguments of a chat template that a suite can't set."""


class CausalLMOptions(RowOptions):
    """Chat template, target tokens, generation and scoring."""

    template: str | None = None
    """Chat template: `plain` (the turns one after the other), `path:FILE` or a jinja template;
    empty for the tokenizer's chat template, or `plain` where it has none.
    """
    template_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the template, such as `{enable_thinking: false}`."""

    @field_validator("template_options")
    @classmethod
    def _named(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name in GIVEN or not name.isidentifier():
                raise ValueError(
                    f"{name} can't be given to a template; name arguments that it reads"
                )
        return options

    system: str | None = None
    """System prompt put before conversations that have none."""
    question: str | None = None
    """For data sets of texts with classes: the prompt, with `{text}` in the place of the text,
    such as "{text}\\nTopic: ". A class's name is the answer, begun by spaces at the question's
    end, and all names are choices. Empty: rows have answers.
    """

    @field_validator("question")
    @classmethod
    def _of_text(cls, question: str | None) -> str | None:
        if question is not None and "{text}" not in question:
            raise ValueError("has no {text}, in whose place each row's text is put")
        return question

    loss_on: Literal["answers", "each", "last", "all"] = "answers"
    """Target tokens: those of the assistant's turns; of `each` in an example of its own, with
    the turns before it as its prompt, for templates that write earlier answers differently; of
    the last of them alone; or all.
    """
    too_long: Literal["drop", "cut_prompt"] = "drop"
    """Treatment of a row of more than `max_length` tokens: left out, or its prompt cut at the
    front. An answer is never cut.
    """
    scorer: str | None = None
    """Scorer that compares answers with the expected ones (`hpml-bench list scorers`); empty for
    none: the loss is the headline metric.
    """
    decimal_mark: Literal["point", "comma"] = "point"
    """How the scorer `number` reads decimals: `point` as in 1,234.50, 1'234.50 and 1,00,000.50,
    `comma` as in 1.234,50 and 1 234,50. Spaces and apostrophes between thousands are read by both.
    """
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end an answer, beside the end token and the template's end of a turn."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the likeliest token each time. Above 0: tokens sampled from the softmax of logits /
    temperature, with random numbers of the run's seed and the row.
    """
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability; with a temperature
    above 0.
    """
    router_loss: float = Field(default=0.0, ge=0)
    """Weight of the load-balancing loss of a mixture of experts' routers (`router_aux_loss_coef`
    of its configuration), which training adds to the loss of tokens; recorded losses are without
    it.
    """
    retention: str | None = None
    """General text on which forgetting is measured: `path:`, `wheel:` or `hub:OWNER/NAME/FILE`
    of a file with one text per line (.txt) or row (csv, json, jsonl, parquet), or `dataset` for
    the data set's own; empty for none. Empty texts are left out where rows have no other column.
    """
    retention_samples: int = Field(default=200, ge=1)
    """Most rows of the retention text."""
