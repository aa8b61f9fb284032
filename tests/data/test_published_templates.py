"""Published chat templates: gold answers, rendered, cut and decoded as a generator would, get
the full score.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import chat_families
from helpers.chat_families import (
    FAMILIES,
    FOLDER,
    ONE,
    PUBLISHED,
    SYSTEM,
    TABLE,
    TWO,
    Family,
    chatml,
    example,
    llama_3,
    messages,
    mistral,
)
from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import TODAY
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.rows import Rows, write_rows
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.plugins.task import KEPT, Task, make_task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training.generation import decoder, text_of

families = pytest.mark.parametrize("family", PUBLISHED, ids=lambda family: family.models)
CASES = {"one": ONE, "one system": (SYSTEM[0], *ONE), "two": TWO, "two system": SYSTEM}
conversations = pytest.mark.parametrize("case", CASES)


def writer_of(family: Family, **rules: Any) -> Conversations:
    """Return the conversations of a family, as the preparation makes them."""
    ends = tuple(family.tokenizer().convert_tokens_to_ids([family.end, *family.ends]))
    return chat_families.conversations(family.tokenizer(), family.template, ends=ends, **rules)


def first(case: str) -> str:
    return "system" if "system" in case else "user"


def generator(writer: Conversations) -> Generator:
    decode = decoder(writer.encoder.tokenizer, writer.scaffold)
    return Generator(Decoding(10_000), writer.stop_ids, decode, pad_id=0, batch=1, seed=0)


def answered(writer: Conversations, found: Example) -> str:
    """Return the text of the gold answer as if it were generated: up to the first token that
    ends one.
    """
    ids = list(found.ids[found.prompt :])
    end = next(place for place, token in enumerate(ids) if token in writer.stop_ids)
    assert found.labels[found.prompt + end] == ids[end]  # a model learns to end there
    return text_of(ids[: end + 1], generator(writer))


def test_the_table_names_every_file_and_at_least_thirty_families() -> None:
    """Each file is in the table, and its source and licence in the folder's README."""
    told = (FOLDER / "README.md").read_text()
    assert sorted(path.stem for path in FOLDER.glob("*.jinja")) == sorted(
        row["file"] for row in TABLE["published"]
    )
    assert len({family.models for family in PUBLISHED}) >= 30
    assert all(f"`{row['file']}`" in told for row in TABLE["published"])


@families
@conversations
def test_a_gold_answer_gets_the_full_score(family: Family, case: str) -> None:
    """In first and later turns, with and without a system prompt, whether all answers are learnt
    or the last.
    """
    several = family.several and not (family.system_last and "system" in case)
    for loss_on in ("last", *(["answers"] if several or "one" in case else [])):
        writer = writer_of(family, loss_on=loss_on)
        if "system" in case and not family.system:
            with pytest.raises(UserError, match=r"refuses a conversation: .*[Ss]ystem"):
                example(writer, *CASES[case], first=first(case))
            return
        found = example(writer, *CASES[case], first=first(case))
        answer = answered(writer, found)
        assert answer.strip() == found.expected == CASES[case][-1]
        assert all(make_scorer(name).score(answer, found.expected) == 1 for name in ("exact", "f1"))


@families
@conversations
def test_the_prompt_is_the_rendering_with_the_generation_prompt(family: Family, case: str) -> None:
    """Token by token what `apply_chat_template` gives a user of the model, and of the prompt
    nothing is learnt.
    """
    if "system" in case and not family.system:
        return
    found = example(writer_of(family, loss_on="last"), *CASES[case], first=first(case))
    turns = messages(*CASES[case], first=first(case))[:-1]
    dated = TODAY if "strftime_now" in family.template else ""
    asked = family.tokenizer().apply_chat_template(
        turns, chat_template=dated + family.template, add_generation_prompt=True, tokenize=False
    )
    ids = family.tokenizer()(asked, add_special_tokens=False)["input_ids"]
    assert list(found.ids[: found.prompt]) == ids
    assert set(found.labels[: found.prompt]) == {IGNORE_INDEX}


@families
def test_earlier_answers_are_learnt_where_they_follow_their_prompts(family: Family) -> None:
    """With their ends, if a token ends them there; a family that writes them otherwise is
    refused in one sentence.
    """
    writer = writer_of(family)
    if not family.several:
        with pytest.raises(
            UserError, match=r"writes answer 1 differently .*loss_on to each"
        ) as raised:
            example(writer, *TWO)
        assert "\n" not in str(raised.value)
        return
    found = example(writer, *TWO)
    learnt = [token for token in found.labels if token != IGNORE_INDEX]
    text = writer.encoder.tokenizer.decode(learnt, clean_up_tokenization_spaces=False)
    assert TWO[1] in text
    assert TWO[3] in text
    assert TWO[0] not in text
    assert TWO[2].strip() not in text
    behind = family.models == "Phi-3 of TRL's training"  # whose marks hold the end of the text too
    ends = sum(token in writer.stop_ids for token in learnt) - behind
    unended = sum(count for name, count in writer.counts.items() if "end is not learnt" in name)
    by_marks = (
        family.models == "GPT-OSS of TRL's training"
    )  # whose marks hold <|end|>, which ends no last answer
    assert ends + unended + by_marks == 2
    assert not by_marks or text.count("<|end|>") == 1
    assert unended == (family.models in {"GPT-OSS", "Falcon-11B"})


# What a model may write besides

REASONED = {
    "Qwen3": "<think>\nFour? It is 5.\n</think>\n\n{}<|im_end|>",
    "Qwen3.5, thinking": "Four? It is 5.\n</think>\n\n{}<|im_end|>",
    "GLM-4.5": "\n<think>Four? It is 5.</think>\n{}<|user|>",
    "DeepSeek-R1 distils": "Four? It is 5.\n</think>\n\n{}<｜end▁of▁sentence｜>",
    "Nemotron-3-Nano": "Four? It is 5.\n</think>\n{}<|im_end|>",
    "GPT-OSS": (
        "<|channel|>analysis<|message|>Four? It is "
        "5.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
    ),
    "Seed-OSS": "<seed:think>Four? It is 5.</seed:think>{}<seed:eos>",
    "Ministral 3, reasoning": "[THINK]Four? It is 5.[/THINK]{}</s>",
    "SmolLM2": "<think>Four? It is 5.</think>{}<|im_end|>",
}


@pytest.mark.parametrize("models", REASONED)
def test_reasoning_of_a_model_is_not_scored(models: str) -> None:
    """What stands behind it is the answer; reasoning that doesn't end is none."""
    family = next(family for family in PUBLISHED if family.models == models)
    writer = writer_of(family)
    text, how = REASONED[models].format("It is 4."), generator(writer)
    ids = family.tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert text_of(ids, how) == "It is 4."
    unfinished = family.tokenizer()(text[: text.index("5.")], add_special_tokens=False)["input_ids"]
    assert text_of(unfinished, how) == ""


@pytest.mark.parametrize("models", ["Qwen3", "GPT-OSS"])
def test_a_stop_text_ends_the_answer_and_not_its_reasoning(models: str) -> None:
    """Nor what the template begins an answer with."""
    family = next(family for family in PUBLISHED if family.models == models)
    writer = writer_of(family, loss_on="last")
    found = example(writer, *TWO)
    how = replace(generator(writer), decoding=Decoding(100, stop=("\n", "final")))
    assert text_of(list(found.ids[found.prompt :]), how) == "Paris is"


# Examples before a prompt: the tokens of one conversation, as its template writes it for a user of
# the model


SHOWN = [("What is 1+1?", "It is 2."), ("And 1+3?", "It is 4."), ("And 3+3?", "It is 6.")]
ASKED = [("What is 2+2?", "It is 4."), ("And 2+5, is it an odd number?", "Yes, it is 7.")]


def shown_before(
    tokenizer: Any,
    folder: Path,
    max_length: int = 10_000,
    system: str | None = None,
    **options: Any,
) -> tuple[Rows, dict[str, list[Any]], Task]:
    """Return the asked rows as they were prepared, and their columns with the shown ones before
    each.
    """
    task = make_task(TaskSpec(name="causal_lm", options={"scorer": "exact", **options}))
    encoder, found = Encoder(tokenizer, max_length, None, "path:model"), []
    for name, pairs in (("shown", SHOWN), ("asked", ASKED)):
        turns = [
            messages(system, *pair, first="system") if system else messages(*pair) for pair in pairs
        ]
        rows: dict[str, list[Any]] = {
            "roles": [[turn["role"] for turn in row] for row in turns],
            "contents": [[turn["content"] for turn in row] for row in turns],
            "choices": [[f"It is {number}." for number in (3, 4, 7)] for _ in turns],
        }
        rows["choices"][-1].append(pairs[-1][1])
        columns = task.encode(rows, encoder)
        columns.pop(KEPT)
        write_rows(folder / name, [columns], task.label_type(), task.extra_types())
        found.append(Rows(folder / name, 0))
    return found[1], task.with_examples(found[1], found[0], encoder), task


@pytest.mark.parametrize(
    "family", [of for of in PUBLISHED if of.several and of.system], ids=lambda of: of.models
)
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_examples_are_earlier_turns_of_the_conversation(
    family: Family, system: str | None, tmp_path: Path
) -> None:
    """Token by token what `apply_chat_template` gives for them: one system prompt, one BOS;
    examples aren't learnt.
    """
    tokenizer = family.tokenizer()
    rows, columns, _ = shown_before(tokenizer, tmp_path, system=system, template=family.template)
    front = [{"role": "system", "content": system}] if system else []
    dated = TODAY if "strftime_now" in family.template else ""
    for row, (question, _) in enumerate(ASKED):
        turns = [*front, *(turn for pair in SHOWN for turn in messages(*pair)), *messages(question)]
        text = tokenizer.apply_chat_template(
            turns, chat_template=dated + family.template, add_generation_prompt=True, tokenize=False
        )
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert columns["input_ids"][row][: columns["prompt"][row]] == expected
        learnt = [token for token in columns["label"][row] if token != IGNORE_INDEX]
        assert learnt == rows.references[row].tolist()
        assert all(label == IGNORE_INDEX for label in columns["label"][row][: len(expected)])


@pytest.mark.parametrize("loss_on", ["answers", "all"])
def test_without_a_chat_template_an_empty_line_ends_each_example(
    loss_on: str, tmp_path: Path
) -> None:
    """The texts follow each other after one BOS; what the row learns is what it learns alone."""
    tokenizer = llama_3()
    rows, columns, _ = shown_before(tokenizer, tmp_path, template="plain", loss_on=loss_on)
    text = "".join(f"{question}{answer}\n\n" for question, answer in SHOWN)
    for row, (question, answer) in enumerate(ASKED):
        ids, prompt = columns["input_ids"][row], columns["prompt"][row]
        assert ids[:prompt] == tokenizer(text + question)["input_ids"]
        assert ids[prompt:] == [
            *tokenizer(answer, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        assert [
            token for token in columns["label"][row] if token != IGNORE_INDEX
        ] == rows.references[row].tolist()


def test_choices_follow_the_same_prompt(tmp_path: Path) -> None:
    """Each row's own choices, with the tokens that they have after its prompt alone."""
    rows, columns, _ = shown_before(
        chatml(), tmp_path, template=FAMILIES["chatml"].template, scorer="choice"
    )
    assert columns["choice_ids"] == rows.column("choice_ids")
    assert [len(ids) for ids in columns["choice_ids"]] == [3, 4]


def test_rows_without_room_for_the_examples_are_named(tmp_path: Path) -> None:
    """As many tokens as fit are kept, not one more; no prompt is cut, even where the task may
    cut prompts.
    """
    _, columns, _ = shown_before(chatml(), tmp_path / "all", template=FAMILIES["chatml"].template)
    longest = max(map(len, columns["input_ids"]))
    assert (
        shown_before(chatml(), tmp_path / "fit", longest, template=FAMILIES["chatml"].template)[1]
        == columns
    )
    for too_long in ("drop", "cut_prompt"):
        with pytest.raises(
            Unsupported,
            match=f"with 3 examples 1 of 2 asked rows have more than max_length {longest - 1} .*: "
            r"row 2 \('And 2\+5, is it an odd number\?'\); take fewer",
        ):
            shown_before(
                chatml(),
                tmp_path / too_long,
                longest - 1,
                template=FAMILIES["chatml"].template,
                too_long=too_long,
            )
    with pytest.raises(Unsupported, match=r"2 of 2 .*: row 1 \('What is 2\+2\?'\), row 2 \('And"):
        shown_before(chatml(), tmp_path / "none", 60, template=FAMILIES["chatml"].template)


def test_templates_of_one_turn_are_refused(tmp_path: Path) -> None:
    """One that writes the last question alone shows no example; without a scorer nothing is
    answered.
    """
    asked = "{% if messages[-1].role == 'user' %}{{ messages[-1].content }}{% else %}"
    last = asked + "{{ messages[-2].content }}{{ messages[-1].content }}{% endif %}"
    one = "{% if messages|length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + last
    with pytest.raises(Unsupported, match="leaves earlier turns out"):
        shown_before(mistral(), tmp_path / "last", template=last)
    with pytest.raises(Unsupported, match=r"^with examples, the chat template .* one turn"):
        shown_before(mistral(), tmp_path / "one", template=one)
    with pytest.raises(Unsupported, match="no scorer"):
        shown_before(chatml(), tmp_path / "loss", template=FAMILIES["chatml"].template, scorer=None)
