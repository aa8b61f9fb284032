"""Generation: every prompt answered as transformers' own greedy search answers it alone,
whatever stands beside it.
"""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MambaConfig,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from helpers import language_models, tiny
from helpers.loops import over_ranks
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import Rows, write_rows
from hpml_bench.plugins.task import make_task
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.evaluation import losses_of_rows
from hpml_bench.training.generation import (
    NEAR,
    GeneratedText,
    answer_all,
    choice_rows,
    chosen,
    generate,
    rehearse_answers,
    text_of,
)

CPU = torch.device("cpu")
KINDS = ("GPT-2", "Gemma 2")
PROMPTS, TOKENS = 19, 10
TEXTS = language_models.prompts(PROMPTS)
METHODS = ("none", "lora", "prompt_tuning", "PREFIX_TUNING")
PAIRS = [*(("GPT-2", method) for method in METHODS), ("Gemma 2", "lora"), ("Gemma 2", "P_TUNING")]
"""Models and methods: each way to a cache on one model; a weight and virtual tokens beside a
sliding window.
"""
BY_TWO = [("GPT-2", "none"), ("GPT-2", "PREFIX_TUNING"), ("Gemma 2", "lora")]
"""Those that two ranks answer too: how rows are shared out depends on no method."""


def letters(tokens: list[int]) -> str:
    return "".join(chr(65 + token) for token in tokens)


GENERATOR = Generator(Decoding(TOKENS), (), letters, language_models.PAD, batch=16, seed=0)


@pytest.fixture(scope="module")
def prompts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and rows of prompts with choices, and something after a prompt that is no part
    of it.
    """
    folder = tmp_path_factory.mktemp("generation")
    language_models.save_models(folder)
    for name, some in (("rows", TEXTS), ("one", TEXTS[:1])):
        columns: dict[str, list[Any]] = {
            name: [[*row, 7, 8] for row in some] for name in ("input_ids", "label")
        }
        ids = [
            [[4 + row, 9, 30 + place][place % 2 :] for place in range(2 + row % 3)]
            for row in range(len(some))
        ]
        columns |= {
            "prompt": [*map(len, some)],
            "choice_ids": ids,
            "choices": [[*map(letters, row)] for row in ids],
        }
        ints = pa.list_(pa.int32())
        extra = {
            "prompt": pa.int32(),
            "choice_ids": pa.list_(ints),
            "choices": pa.list_(pa.string()),
        }
        write_rows(folder / name, [columns], ints, extra)
    return folder


@cache
def model_of(folder: Path, kind: str, method: str) -> LanguageModel:
    return language_models.trained(folder / kind, *language_models.METHODS[method])[0]


def model_and_rows(folder: Path, kind: str, method: str = "none") -> tuple[LanguageModel, Rows]:
    return model_of(folder, kind, method), Rows(folder / "rows", 1)


def theirs(
    encoder: Any, prompt: list[int], most: int = TOKENS, ends: list[int] | None = None
) -> list[int]:
    """Return the tokens that transformers' greedy search answers a prompt with.

    PEFT 0.21 puts a prompt before every token where transformers 5.24 keeps a cache, and loses a
    prefix's positions: prompts are searched without a cache, and of a prefix PEFT's forward pass is
    asked token by token.
    """
    of_peft: Any = getattr(encoder, "active_peft_config", None)
    learns_prompt = of_peft is not None and of_peft.is_prompt_learning
    ids = torch.tensor([prompt])
    if learns_prompt and of_peft.peft_type == "PREFIX_TUNING":
        for _ in range(most):
            with torch.no_grad():
                last = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1:]
            ids = torch.cat([ids, last.argmax(-1)], dim=1)
        return list(ids[0, len(prompt) :].tolist())
    found = encoder.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=ends or -1,
        pad_token_id=language_models.PAD,
        use_cache=not learns_prompt,
    )
    return list(found[0, len(prompt) :].tolist())


def ties(
    model: LanguageModel,
    prompts: list[list[int]],
    found: list[list[int]],
    expected: list[list[int]],
) -> int:
    """Count the answers that differ, each of which must do so where two tokens are equally
    likely to 1e-4.
    """
    differing = [row for row in range(len(prompts)) if found[row] != expected[row]]
    for row in differing:
        pairs = zip(found[row], expected[row], strict=False)
        same = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
        assert same is not None, (found[row], expected[row])
        text = torch.tensor([prompts[row] + expected[row][:same]])
        with torch.no_grad():
            first, second = model(text, torch.ones_like(text))[0].topk(2).values.tolist()
        assert first - second < NEAR, (row, found[row], expected[row])
    return len(differing)


def run_of(model: LanguageModel, generator: Generator, group: Group) -> Any:
    return SimpleNamespace(model=model, generator=generator, group=group)


def answered(
    model: LanguageModel, rows: Rows, generator: Generator, group: Group
) -> list[list[int]]:
    found, _ = answer_all(run_of(model, generator, group), rows, "t")
    return [[ord(character) - 65 for character in text] for text in found["answer"]]


def compared(folder: Path, name: str, group: Group) -> dict[str, Any]:
    settings = tiny.settings(
        task={"name": "causal_lm", "options": {"scorer": "choice"}}, eval_batch=5
    )
    rows = Rows(folder / name, 1)
    run = {
        "model": model_of(folder, "GPT-2", "none"),
        "task": make_task(settings.task),
        "group": group,
    }
    losses = losses_of_rows(SimpleNamespace(**run, settings=settings), choice_rows(rows))  # type: ignore[arg-type]
    return chosen(rows.column("choices"), losses)


def answer_as_rank(group: Group, folder: Path) -> None:
    """Answer the rows by each method, and on rank 0 save the answers."""
    found: dict[tuple[str, str], Any] = {}
    for kind, method in BY_TWO:
        found[kind, method] = answered(
            model_of(folder, kind, method), Rows(folder / "rows", 1), GENERATOR, group
        )
    found["one", ""] = answered(
        model_of(folder, "GPT-2", "none"), Rows(folder / "one", 1), GENERATOR, group
    )
    for name in ("rows", "one"):
        found["choices", name] = compared(folder, name, group)
    if group.main:
        torch.save(found, folder / "two.pt")


@pytest.fixture(scope="module")
def by_two(prompts_folder: Path) -> dict[tuple[str, str], Any]:
    """The answers of two ranks, by model and method, and their choices."""
    over_ranks(2, answer_as_rank, prompts_folder)
    found: dict[tuple[str, str], Any] = torch.load(prompts_folder / "two.pt", weights_only=False)
    return found


@pytest.mark.parametrize(("kind", "method"), PAIRS)
def test_answers_are_those_of_greedy_search_on_each_prompt_alone(
    kind: str, method: str, prompts_folder: Path, group: Group, by_two: dict[tuple[str, str], Any]
) -> None:
    """At batch 16, some also at batch 1 and on two ranks; of all answers at most one row
    differs, and that at a tie.
    """
    model, rows = model_and_rows(prompts_folder, kind, method)
    expected = [theirs(model.encoder, prompt) for prompt in TEXTS]
    assert len({tuple(answer) for answer in expected}) > PROMPTS // 2
    ways = [answered(model, rows, GENERATOR, group)]
    if (kind, method) in BY_TWO:
        ways += [answered(model, rows, replace(GENERATOR, batch=1), group), by_two[kind, method]]
    for found in ways:
        assert ties(model, TEXTS, found, expected) <= 1
    assert model.caches, "nothing is wrong with this model's cache"


def test_ranks_answer_as_one_does(
    prompts_folder: Path, group: Group, by_two: dict[tuple[str, str], Any]
) -> None:
    """Rows of two to four choices, and one row alone, for which a rank without one waits for the
    other.
    """
    alone = answered(
        model_of(prompts_folder, "GPT-2", "none"), Rows(prompts_folder / "one", 1), GENERATOR, group
    )
    assert by_two["one", ""] == alone
    for name in ("rows", "one"):
        found = compared(prompts_folder, name, group)
        assert len(found["answer"]) == len(Rows(prompts_folder / name, 1))
        assert str(by_two["choices", name]) == str(found)


@pytest.fixture
def mamba() -> LanguageModel:
    """A small random Mamba, whose layers multiply their states by the mask."""
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=language_models.VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        time_step_rank=4,
        pad_token_id=language_models.PAD,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=language_models.SPREAD,
    )
    return LanguageModel(AutoModelForCausalLM.from_config(config)).eval()


def test_a_state_space_model_answers_as_transformers(
    mamba: LanguageModel, prompts_folder: Path, group: Group
) -> None:
    """Prompts of all lengths side by side, with the cache: after them a layer gets the mask of
    the new token alone.
    """
    found = answered(mamba, Rows(prompts_folder / "rows", 1), GENERATOR, group)
    assert ties(mamba, TEXTS, found, [theirs(mamba.encoder, prompt) for prompt in TEXTS]) <= 1
    assert mamba.caches


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_wrong_cache_is_unused(
    temperature: float, mamba: LanguageModel, prompts_folder: Path, group: Group
) -> None:
    """Found on the first rows before any is answered, once; from then on answers are those of
    reading whole texts.
    """
    rows = Rows(prompts_folder / "rows", 1)
    generator = replace(GENERATOR, decoding=Decoding(TOKENS, temperature=temperature))
    right = answered(mamba, rows, generator, group)
    wrong = LanguageModel(mamba.encoder).eval()
    wrong._attends = (
        True  # the mask of all tokens, which such a layer can't take with the last one alone
    )
    with_cache = generate(wrong, TEXTS, generator, CPU, [*range(PROMPTS)])
    assert sum(a.tokens != b for a, b in zip(with_cache, right, strict=True)) > PROMPTS // 3
    assert answered(wrong, rows, generator, group) == right
    assert (wrong.caches, wrong.cache_checked) == (False, True)


def free(folder: Path, kind: str = "GPT-2") -> list[GeneratedText]:
    return generate(model_of(folder, kind, "none"), TEXTS, GENERATOR, CPU, [*range(PROMPTS)])


def until(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
    """Return tokens up to the first that ends them, that one included."""
    place = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: place + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_token_ends_an_answer(kind: str, prompts_folder: Path) -> None:
    """Any of several does, EOS or a turn's end; rows end one after another, and the others go on
    as before.
    """
    model, whole = model_of(prompts_folder, kind, "none"), free(prompts_folder, kind)
    ends = tuple(
        token
        for token, _ in Counter(t for answer in whole for t in set(answer.tokens)).most_common(5)
    )
    found = generate(model, TEXTS, replace(GENERATOR, stop_ids=ends), CPU, [*range(PROMPTS)])
    assert len({len(answer.tokens) for answer in found}) > 3
    for prompt, answer, without in zip(TEXTS, found, whole, strict=True):
        assert answer.tokens == until(without.tokens, ends)
        assert answer.tokens == theirs(model.encoder, prompt, ends=list(ends))
        assert answer.cut == (answer.tokens[-1] not in ends)


def test_what_ended_an_answer_is_no_part_of_its_text() -> None:
    """Neither the end token, nor a stop text and what follows it; the first of several stop
    texts counts.
    """
    generator = replace(GENERATOR, stop_ids=(5,), decoding=Decoding(TOKENS, stop=("BC", "C")))
    ids: tuple[list[int], ...] = ([3, 4, 5], [3, 4], [5], [], [0, 1, 2, 3], [0, 2, 1, 2])
    assert [text_of(own, generator) for own in ids] == ["DE", "DE", "", "", "A", "A"]


def test_a_stop_text_may_reach_over_several_tokens(prompts_folder: Path) -> None:
    """An answer ends with the token that completes it, and is not cut, even where that is the
    last it may have.
    """
    model = model_of(prompts_folder, "GPT-2", "none")
    for row, whole in enumerate(free(prompts_folder)):
        for place in (2, TOKENS - 2):
            stop = letters(whole.tokens[place : place + 2])
            first = letters(whole.tokens).index(stop)
            generator = replace(GENERATOR, decoding=Decoding(TOKENS, stop=("no such", stop)))
            (answer,) = generate(model, [TEXTS[row]], generator, CPU, [row])
            assert answer.tokens == whole.tokens[: first + 2]
            assert not answer.cut
            assert text_of(answer.tokens, generator) == letters(whole.tokens[:first])


def test_an_answer_of_the_most_tokens_without_an_end_is_cut(
    prompts_folder: Path, group: Group
) -> None:
    """`max_new_tokens`, an end token not counted apart; what ends with its last token is not
    cut.
    """
    model, rows = model_and_rows(prompts_folder, "GPT-2")
    whole = free(prompts_folder)
    last = whole[0].tokens[TOKENS - 1]
    answers, _ = answer_all(
        run_of(model, replace(GENERATOR, stop_ids=(last,)), group), rows, "test"
    )
    ended = [last in answer.tokens for answer in whole]
    assert 0 < sum(ended) < PROMPTS
    assert answers["cut"].tolist() == [not one for one in ended]
    assert answers["tokens"].tolist() == [len(until(answer.tokens, (last,))) for answer in whole]


@pytest.mark.parametrize("method", ["none", "prompt_tuning", "PREFIX_TUNING"])
def test_an_answer_is_cut_at_the_models_last_position(
    method: str, prompts_folder: Path, tmp_path: Path
) -> None:
    """The prompts beside it go on, and the answer is what it would be with room, up to its last
    position.
    """
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=language_models.VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=48,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = language_models.trained(tmp_path, *language_models.METHODS[method])[0]
    virtual = 0 if method == "none" else 5
    prompts = [[5, 6, 7] * 13, [9, 8], [3, 4]]
    found = generate(model, prompts, replace(GENERATOR, decoding=Decoding(30)), CPU, [0, 1, 2])
    assert [len(answer.tokens) for answer in found] == [48 - virtual - 39 + 1, 30, 30]
    assert all(answer.cut for answer in found)
    for prompt, answer in zip(prompts, found, strict=True):
        for place, token in enumerate(answer.tokens):
            text = torch.tensor([prompt + answer.tokens[:place]])
            with torch.no_grad():
                assert int(model(text, torch.ones_like(text)).argmax()) == token


@pytest.mark.parametrize(
    ("dtype", "step"), [(torch.bfloat16, 0.125), (torch.float16, 2**-6), (torch.float32, 1e-4)]
)
def test_a_near_tie_is_a_step_of_the_type(
    dtype: torch.dtype, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 logits of 16 to 32 lie 1/8 apart: there 1e-4 would find equal ones alone."""

    class Fixed:
        encoder = SimpleNamespace(config=SimpleNamespace(get_text_config=SimpleNamespace))

        def __init__(self, distance: float) -> None:
            self.logits = torch.tensor([[20.0, 20.0 - distance, 0.0]]).to(dtype)

        def read(self, *_: Any) -> Any:
            return SimpleNamespace(logits=self.logits, positions=torch.tensor([1]))

    one = replace(GENERATOR, decoding=Decoding(1))
    for distance, near in (
        (0.0, True),
        (0.9 * step if dtype == torch.float32 else step, True),
        (3 * step, False),
    ):
        model: Any = Fixed(distance)
        (found,) = generate(model, [[5]], one, CPU, [0])
        assert found.near_tie is near, distance


@pytest.mark.parametrize("method", ["none", "PREFIX_TUNING"])
@pytest.mark.parametrize("new", [1, 2, 200])
def test_the_rehearsal_of_answers_fills_the_cache(
    method: str, new: int, prompts_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the largest batch does that is answered, at whose last token keys and values are most;
    by two passes.
    """
    model, rows = model_and_rows(prompts_folder, "GPT-2", method)
    model.cache_checked = (
        True  # that check, before the first answers, reads more tokens than so short ones
    )
    generator = replace(GENERATOR, decoding=Decoding(new), batch=4)
    read: list[torch.Size] = []
    go_on = LanguageModel._go_on
    monkeypatch.setattr(
        LanguageModel,
        "_go_on",
        lambda of, base, mask, *rest: read.append(mask.shape) or go_on(of, base, mask, *rest),
    )
    run = run_of(model, generator, group)
    answer_all(run, rows, "test")
    most, passes = max(read), len(read)
    read.clear()
    rehearse_answers(run, rows)
    assert max(read) == most
    assert len(read) == min(2, new) <= passes


def drawing(
    temperature: float = 1.0, top_p: float = 1.0, tokens: int = TOKENS, seed: int = 0
) -> Generator:
    decoding = Decoding(tokens, temperature=temperature, top_p=top_p)
    return replace(GENERATOR, decoding=decoding, seed=seed)


@pytest.mark.parametrize(("kind", "top_p"), [("GPT-2", 0.8), ("Gemma 2", 1.0)])
def test_a_rows_draws_are_its_own(
    kind: str, top_p: float, prompts_folder: Path, group: Group
) -> None:
    """Its number and the seed decide them: they are the same at any batch, and in any company;
    others have others.
    """
    model, rows = model_and_rows(prompts_folder, kind)
    together = answered(model, rows, drawing(top_p=top_p), group)
    assert answered(model, rows, replace(drawing(top_p=top_p), batch=1), group) == together
    backwards = generate(model, TEXTS[::-1], drawing(top_p=top_p), CPU, [*range(PROMPTS)][::-1])
    assert [answer.tokens for answer in backwards][::-1] == together
    assert answered(model, rows, drawing(top_p=top_p, seed=1), group) != together
    same = generate(model, [TEXTS[1]] * 5, drawing(top_p=top_p), CPU, [*range(5)])
    assert len({tuple(answer.tokens) for answer in same}) == 5


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.5, 0.7), (1.0, 0.02)]
)
def test_draws_follow_the_softmax(temperature: float, top_p: float, prompts_folder: Path) -> None:
    """Frequencies of 2000 first tokens against what transformers' warpers leave of the model's
    own softmax.
    """
    model, prompt, rows = model_of(prompts_folder, "Gemma 2", "none"), TEXTS[1], 2000
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(ids, torch.ones_like(ids))
    warped = TopPLogitsWarper(top_p)(ids, TemperatureLogitsWarper(temperature)(ids, logits))
    chances = warped.softmax(-1)[0].double().numpy()
    answers = generate(
        model, [prompt] * rows, drawing(temperature, top_p, tokens=1), CPU, [*range(rows)]
    )
    counts = np.bincount(
        [answer.tokens[0] for answer in answers], minlength=language_models.VOCABULARY
    )
    assert not counts[chances == 0].any()
    spread = np.sqrt(rows * chances * (1 - chances)) + 1e-9
    assert (np.abs(counts - rows * chances) / spread)[chances > 0].max() < 5
