"""Published chat templates: gold answers, rendered, cut and decoded as a generator would, get the full score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from helpers import chat_families
from helpers.chat_families import FOLDER, ONE, PUBLISHED, SYSTEM, TABLE, TWO, Family, example, messages
from hpml_bench.data.chat import Conversations, Example
from hpml_bench.data.chat_template import TODAY
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.plugins.tokenizer import Decoding, Generator
from hpml_bench.system.errors import UserError
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
    """Return the text of the gold answer as if it were generated: up to the first token that ends one."""
    ids = list(found.ids[found.prompt :])
    end = next(place for place, token in enumerate(ids) if token in writer.stop_ids)
    assert found.labels[found.prompt + end] == ids[end]  # a model learns to end there
    return text_of(ids[: end + 1], generator(writer))


def test_the_table_names_every_file_and_at_least_thirty_families() -> None:
    """Each file is in the table, and its source and licence in the folder's README."""
    told = (FOLDER / "README.md").read_text()
    assert sorted(path.stem for path in FOLDER.glob("*.jinja")) == sorted(row["file"] for row in TABLE["published"])
    assert len({family.models for family in PUBLISHED}) >= 30
    assert all(f"`{row['file']}`" in told for row in TABLE["published"])


@families
@conversations
def test_a_gold_answer_gets_the_full_score(family: Family, case: str) -> None:
    """In first and later turns, with and without a system prompt, whether all answers are learnt or the last."""
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
    """Token by token what `apply_chat_template` gives a user of the model, and of the prompt nothing is learnt."""
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
    """With their ends, if a token ends them there; a family that writes them otherwise is refused in one sentence."""
    writer = writer_of(family)
    if not family.several:
        with pytest.raises(UserError, match=r"writes answer 1 differently .*loss_on to each") as raised:
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
    by_marks = family.models == "GPT-OSS of TRL's training"  # whose marks hold <|end|>, which ends no last answer
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
        "<|channel|>analysis<|message|>Four? It is 5.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
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
