"""Preparation of model and data for the ranks: resolved, drawn, tokenised, hashed and cached;
and their preview.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import transformers
from datasets import Dataset
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from hpml_bench.data.copies import Copies, find_copies
from hpml_bench.data.draw import draw, retention_rows
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import (
    POSITIONS,
    Resolved,
    first_value,
    read_config,
    resolve_model,
    weight_files,
)
from hpml_bench.plugins.dataset import (
    FEWER,
    GROUP,
    IGNORE_INDEX,
    IN_WORDS,
    PAIR,
    SEGMENTS,
    LoadedData,
    make_loader,
)
from hpml_bench.plugins.decoding import Scaffold
from hpml_bench.plugins.rows import Rows, read_rows, write_rows
from hpml_bench.plugins.task import KEPT, NOTHING, RETENTION, Task, make_task
from hpml_bench.plugins.tokenizer import (
    Encoder,
    generation_ends,
    has_segments,
    load_tokenizer,
    pad_id,
    tokenizer_digest,
)
from hpml_bench.suite.registry import options_class
from hpml_bench.suite.settings import Digests, Settings, identity
from hpml_bench.system.cache import cache_folder, disk_error, file_sha256, locked, new_entry
from hpml_bench.system.child import in_order
from hpml_bench.system.disk import explained
from hpml_bench.system.environment import cores
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes, read_json
from hpml_bench.system.parquet import MOST_DECODED
from hpml_bench.system.text import digest

FORMAT = 9  # version of cache entries, raised when the same rows are tokenised or saved differently
SPLITS = ("train", "validation", "test")
MANIFEST = "manifest.json"
TEXTS = ("question", "expected")  # columns of texts that a run's predictions repeat
MOST_TEXT = MOST_DECODED // 2  # bytes of these; the rest is for answers and numbers
BATCH = 1000
END = 40  # characters that a preview shows of a prompt's end


@explained(disk_error)
def prepare(settings: Settings) -> Prepared:
    """Return the backbone's folder and the tokenised splits, from the cache where it holds them.

    Several processes may call at once: one does the work, the others wait for it.
    """
    silence()
    model = resolve_model(settings.backbone)
    prepared = prepare_rows(settings, model)
    digests = prepared.digests.model_copy(update={"weights": weights_digest(model.folder_or_file)})
    return prepared.model_copy(update={"digests": digests})


@explained(disk_error)
def prepare_rows(settings: Settings, model: Resolved) -> Prepared:
    """Return what `prepare` does, without reading the weights of a model, whose digest is left
    empty.
    """
    silence()
    encoder = encoder_of(settings, model.folder_or_file)
    where = f"data set {settings.dataset.name}"
    loaded, task = _load(settings, where)
    rows = draw(loaded, settings, task.most_validation_rows)
    fewer = [
        (
            f"{split}_samples asks for {count:,} rows, there are {len(rows[split]):,}, and all of "
            f"them are taken"
        )
        for split in SPLITS
        if (count := getattr(settings, f"{split}_samples")) is not None and count > len(rows[split])
    ]
    if task.retention is not None:
        rows[RETENTION] = retention_rows(*task.retention, loaded, settings)
    encoder = replace(encoder, segments=encoder.segments and PAIR in rows["train"].column_names)
    tokenizer = encoder.tokenizer
    data, facts = _check_and_digest(rows, loaded.label_names, task, where, task.sources(encoder))
    digests = Digests(
        weights="", tokenizer=tokenizer_digest(tokenizer), data=data, revision=model.revision
    )
    folder, manifest = _cached(rows, task, encoder, settings, digests)
    left = {split: read_rows(folder / split).num_rows for split in rows}
    _check_rows_left(left, settings, where)
    lengths = task.length_notes(
        manifest["full"], {split: Counter(of) for split, of in manifest["counts"].items()}
    )
    copies = Copies.model_validate(manifest["copies"])
    test, groups = read_rows(folder / "test"), {}
    _check_texts(test, where)
    try:
        tested = task.test_notes(test)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if GROUP in test.column_names:
        groups["groups"] = (
            f"{test.num_rows:,} test rows in {pc.count_distinct(test.column(GROUP)).as_py():,} "
            f"groups"
        )
    counted = ", ".join(f"{left[split]} {split}" for split in SPLITS)
    drawn = f" (each seed draws {settings.train_samples} to train on)" if settings.vary_data else ""
    return Prepared(
        backbone=str(model.folder_or_file),
        data=str(folder),
        label_names=loaded.label_names,
        facts=facts,
        digests=digests,
        rows=left,
        notes={
            **loaded.notes,
            **({FEWER: "; ".join(fewer)} if fewer else {}),
            **loaded.warnings,
            "rows": counted + drawn,
            **lengths,
            **task.notes(facts),
            **tested,
            **groups,
            "copies and near-copies": copies.note,
        },
        warnings=(
            *fewer,
            *_warnings(
                {**loaded.warnings, **({} if task.cuts_texts else lengths), **tested},
                copies,
                settings,
            ),
        ),
        pad_id=pad_id(tokenizer, encoder.vocabulary),
        stop_ids=task.stop_ids(encoder) if task.decoding is not None else (),
        scaffold=task.scaffold(encoder) if task.decoding is not None else Scaffold(),
    )


def encoder_of(settings: Settings, folder: Path) -> Encoder:
    """Return the encoder of a model's texts; a UserError where they may be longer than it reads."""
    tokenizer = load_tokenizer(folder)
    config = read_config(folder / "config.json")
    longest = first_value(config, POSITIONS)
    if isinstance(longest, int) and settings.max_length > longest:
        raise UserError(
            f"max_length is {settings.max_length}, but {settings.backbone} reads at most "
            f"{longest} tokens; lower it"
        )
    ends, segments = generation_ends(folder, tokenizer), has_segments(tokenizer, config)
    vocabulary = int(config.get("vocab_size") or 0) or None  # rows of the token embeddings
    return Encoder(
        tokenizer, settings.max_length, vocabulary, settings.backbone, ends=ends, segments=segments
    )


def _cached(
    rows: Mapping[str, Dataset], task: Task, encoder: Encoder, settings: Settings, digests: Digests
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the tokenised rows, made now unless the cache has it undamaged, and
    its manifest.
    """
    # The data's digest covers the drawn rows in their order, and thereby the settings that drew
    # them.
    facts = [
        digests.data,
        digests.tokenizer,
        settings.max_length,
        encoder.ends,
        *[SEGMENTS] * encoder.segments,
    ]
    folder = cache_folder() / "prepared" / digest([FORMAT, identity(settings)["tasks"], *facts], 32)
    with locked(folder):
        whole = False
        with suppress(OSError):  # a file that can't be read
            manifest = read_json(folder / MANIFEST) or {}
            whole = manifest.get("files") == _file_digests(folder)
        if not whole:
            with new_entry(folder, replace=True) as fresh:
                _tokenise(rows, task, encoder, fresh)
            manifest = json.loads(read_bytes(folder / MANIFEST))
        return folder, manifest


def _warnings(notes: Mapping[str, str], copies: Copies, settings: Settings) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in notes.items() if value != NOTHING)
    if copies.warning:
        own = GROUP in options_class("datasets", settings.dataset.name).model_fields
        advice = (
            "; name the column of groups, if there is one, with dataset.options.group, or "
            "remove the copies"
            if own
            else ""
        )
        yield f"copies: {copies.warning}{advice}"


def _check_rows_left(left: Mapping[str, int], settings: Settings, where: str) -> None:
    needed = 2 * (settings.train_samples or 1) if settings.vary_data else settings.global_batch
    for split, count in left.items():
        if count < (least := needed if split == "train" else 1):
            raise UserError(
                f"{where}: of the {split} rows only {count} are left that have at most max_length "
                f"{settings.max_length} tokens and something to learn, and {least} are needed; "
                f"raise max_length"
            )


def silence() -> None:
    constants.HF_HUB_DISABLE_TELEMETRY = True
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # it logs each attempt at a download
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = (
        False  # a request to the hub for each load, also of local files
    )
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # it logs what it raises
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()


# The rows


def _load(settings: Settings, where: str) -> tuple[LoadedData, Task]:
    loader, task = make_loader(settings), make_task(settings.task)
    target = task.loads
    if target not in loader.targets:
        raise UserError(
            f"{where}: its rows have {' or '.join(IN_WORDS[kind] for kind in loader.targets)} to "
            f"learn, and the task {settings.task.name} learns {IN_WORDS[target]}; choose another "
            "task or data set"
        )
    wanted = (
        settings.validation_samples or task.most_validation_rows
    )  # data sets always get a number
    loaded = task.converted(
        loader.load(settings.model_copy(update={"validation_samples": wanted}), target)
    )
    for split, dataset in (
        ("train", loaded.train),
        ("validation", loaded.validation),
        ("test", loaded.test),
    ):
        if dataset is not None and not len(dataset):
            raise UserError(f"{where}: there are no {split} rows; give a data set that has some")
    return loaded, make_task(settings.task, loaded.label_names, rank_by=settings.rank_by)


def _check_and_digest(
    rows: Mapping[str, Dataset],
    label_names: tuple[str, ...],
    task: Task,
    where: str,
    sources: Mapping[str, str],
) -> tuple[str, dict[str, float]]:
    """Return the SHA-256 of label names, all columns of all splits, in order, and sources; and
    the task's facts.
    """
    state = hashlib.sha256(json.dumps(label_names).encode())
    if sources:  # texts that decide what the model sees, such as a chat template
        state.update(json.dumps(dict(sources), sort_keys=True).encode())
    try:
        for split in rows:
            state.update(f"\n{split} {len(rows[split])}\n".encode())
            for batch in rows[split].with_format("arrow").iter(BATCH):
                optional = [
                    name for name in (*task.optional_columns, GROUP) if name in batch.column_names
                ]
                labels, *others = (
                    batch.column(name).combine_chunks() for name in (*task.columns, *optional)
                )
                task.check(split, labels, batch)
                for column in (labels, *others):
                    for part in _bytes_to_hash(column):
                        state.update(part)
        return state.hexdigest(), task.facts(rows["train"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _bytes_to_hash(column: pa.Array) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a column of numbers, texts or lists (their lengths first) for the
    digest of the data.
    """
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield np.asarray(pc.list_value_length(column)).astype("<i8").tobytes()
        yield from _bytes_to_hash(column.flatten())
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = column.cast(pa.large_binary())
        offsets = np.frombuffer(encoded.buffers()[1], "<i8")[
            encoded.offset : encoded.offset + len(encoded) + 1
        ]
        yield np.diff(offsets).tobytes()
        yield encoded.buffers()[2][int(offsets[0]) : int(offsets[-1])]
    else:
        numbers = column.to_numpy(zero_copy_only=False)
        yield numbers.astype("<f8" if pa.types.is_floating(column.type) else "<i8").tobytes()


# On disk


def _check_texts(test: pa.Table, where: str) -> None:
    """Raise UserError where a run's predictions, which hold the texts of all test rows, would be
    larger than what is read of them.
    """
    columns = [test.column(name) for name in TEXTS if name in test.column_names]
    size = sum(pc.sum(pc.binary_length(column)).as_py() or 0 for column in columns)
    if size > MOST_TEXT:
        raise UserError(
            f"{where}: questions and expected answers of the {test.num_rows:,} test rows take "
            f"{size:,} bytes, and a run's predictions hold at most {MOST_TEXT:,}; lower "
            f"test_samples"
        )


def _tokenise(rows: Mapping[str, Dataset], task: Task, encoder: Encoder, folder: Path) -> None:
    """Write the token ids and labels of all splits, batch by batch, and a manifest by which
    damage is detected.
    """
    counts = {split: Counter[str]() for split in rows}

    def counted(split: str, done: Iterable[_Encoded]) -> Iterator[dict[str, list[Any]]]:
        for columns, count in done:
            counts[split].update(count)
            yield columns

    for split in rows:
        grouped = GROUP in rows[split].column_names or (task.splits_rows and split != RETENTION)
        extra = task.extra_types() | ({GROUP: pa.int32()} if grouped else {})
        extra |= {SEGMENTS: pa.list_(pa.int8())} if encoder.segments else {}
        batches = zip(range(0, len(rows[split]), BATCH), rows[split].iter(BATCH), strict=True)
        processes = min(cores(), len(rows[split]) // BATCH) if task.encodes_in_python else 1
        encoded = in_order(partial(_encode, task, encoder, split), batches, processes)
        write_rows(folder / split, counted(split, encoded), task.label_type(), extra)
    lengths = [
        pc.list_value_length(read_rows(folder / split).column("input_ids")).to_numpy()
        for split in rows
    ]
    share = int((np.concatenate(lengths) == encoder.max_length).sum()) / sum(
        len(rows[split]) for split in SPLITS
    )
    copies = find_copies(rows, task.target).model_dump()
    manifest = {"files": _file_digests(folder), "full": share, "counts": counts, "copies": copies}
    (folder / MANIFEST).write_text(json.dumps(manifest))


_Encoded = tuple[
    dict[str, list[Any]], Counter[str]
]  # columns of a batch, and the task's counts of its rows


def _encode(
    task: Task, encoder: Encoder, split: str, numbered: tuple[int, dict[str, list[Any]]]
) -> _Encoded:
    """Return a batch, given with its first row's number, as it is written."""
    first, batch = numbered
    encoder.counts.clear()
    columns = (task.encode_general if split == RETENTION else task.encode)(batch, encoder)
    kept = columns.pop(KEPT, None)
    if GROUP in batch:
        columns[GROUP] = batch[GROUP] if kept is None else [batch[GROUP][place] for place in kept]
    elif task.splits_rows and kept is not None:
        columns[GROUP] = [first + place for place in kept]
    return columns, Counter(encoder.counts)


def _file_digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def weights_digest(folder: Path) -> str:
    files = sorted([*weight_files(folder), folder / "config.json"])
    return digest([[file.name, file_sha256(file)] for file in files], 64)


# Preview


class SeenRow(NamedTuple):
    """A prepared row as the model sees it."""

    head: str  # tokens, targets and what was cut, in words
    pieces: tuple[tuple[str, bool], ...]  # text in parts, each with whether its tokens are targets
    ids: list[int]
    # its prompt's length and end, in words; empty where it is no more than the token that begins a
    # text
    prompt: str
    label: str  # label or expected answer, as text


def preview(
    settings: Settings, count: int, split: str = "train"
) -> tuple[list[str], list[SeenRow]]:
    """Prepare model and data, and return sentences on model, template and rows, and the first
    rows of a split.
    """
    prepared = prepare(settings)
    tokenizer = load_tokenizer(Path(prepared.backbone))
    task = make_task(settings.task, prepared.label_names, prepared.facts)
    encoder = Encoder(tokenizer, settings.max_length, None, settings.backbone)
    rows = Rows(Path(prepared.data) / split, prepared.pad_id)
    facts = [
        f"{name}: {text}"
        for name, text in (*task.sources(encoder).items(), *prepared.notes.items())
    ]
    if task.decoding is not None:
        ends = [
            *map(repr, (*tokenizer.convert_ids_to_tokens(prepared.stop_ids), *task.decoding.stop))
        ]
        facts.append(f"an answer ends with {' or '.join(ends) or 'max_new_tokens'}")
    cuts, prompts = (
        rows.column(name) if rows.has(name) else [0] * len(rows) for name in ("cut", "prompt")
    )
    seen = []
    for number in range(min(count, len(rows))):
        ids = rows.tokens(number).tolist()
        labels = (
            [IGNORE_INDEX] * len(ids) if rows.token_labels is None else rows.token_labels[number]
        )
        targets = [bool(label != IGNORE_INDEX) for label in labels]
        head = f"{len(ids)} tokens" + (f", {sum(targets)} target tokens" if any(targets) else "")
        if len(ids) == settings.max_length and task.cuts_texts:
            head += ", as many as max_length: it may have been cut"
        head += f", {cuts[number]} cut off the prompt" if cuts[number] else ""
        end = str(tokenizer.decode(ids[: prompts[number]], clean_up_tokenization_spaces=False))[
            -END:
        ]
        prompt = (
            f"prompt: {prompts[number]} tokens, which end with {end!r}"
            if prompts[number] > 1
            else ""
        )
        if rows.has("expected"):
            shown = str(rows.column("expected")[number])
        elif rows.token_labels is not None:
            shown = " ".join(
                prepared.label_names[label] for label in labels if label != IGNORE_INDEX
            )
        else:
            label = rows.labels[number]
            shown = prepared.label_names[int(label)] if prepared.label_names else f"{label:g}"
        seen.append(SeenRow(head, tuple(_pieces(ids, targets, tokenizer)), ids, prompt, shown))
    return facts, seen


def _pieces(
    ids: list[int], targets: list[bool], tokenizer: transformers.PreTrainedTokenizerFast
) -> Iterator[tuple[str, bool]]:
    """Yield each stretch of target tokens or of other tokens: the text that it adds to the text
    before, and which.
    """
    end, before = 0, ""
    for learnt, stretch in groupby(targets):
        end += len(list(stretch))
        text = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        yield text[len(before) :], learnt
        before = text
