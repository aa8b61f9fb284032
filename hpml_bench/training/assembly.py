"""Assembly of a run inside a rank: model, method, task and rows; and the selection of its step.
Names no plug-in.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hpml_bench.data.draw import EXAMPLES, training_rows
from hpml_bench.data.prepare import encoder_of
from hpml_bench.data.prepared import Prepared, global_batches
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.probe import Evaluation, Run
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import RETENTION, Task, make_task
from hpml_bench.suite.schedule import total_steps
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import kernels
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.distributed import release
from hpml_bench.training.evaluation import losses_of_rows
from hpml_bench.training.generation import make_generator
from hpml_bench.training.model import Load, build_model, is_large, linear_as_bf16


@dataclass(frozen=True, kw_only=True)
class Assembly(Run):
    """A run before its model is wrapped, with all its rows; the worker adds the folder, which
    benchmarks leave out.
    """

    spec: RunSpec
    train_rows: Rows
    validation: Rows
    folder: Path = Path()
    began: float = 0.0

    @property
    def steps(self) -> int:
        return total_steps(self.settings, len(self.train_rows))

    def order(self) -> Iterator[np.ndarray]:
        return global_batches(
            self.train_rows.lengths, self.settings.global_batch, self.steps, self.spec.seed
        )


def open_rows(spec: RunSpec, prepared: Prepared, task: Task, method: Method) -> dict[str, Rows]:
    """Return a run's splits by name; Unsupported where the method's examples can't come before
    the prompts.
    """
    rows = {"train": training_rows(prepared, spec.settings, spec.seed)}
    for split in ("validation", "test", *([RETENTION] if task.retention else [])):
        rows[split] = Rows(Path(prepared.data) / split, prepared.pad_id)
    random = np.random.default_rng([spec.settings.data_seed, EXAMPLES, spec.seed])
    if chosen := method.examples(len(rows["train"]), random):
        encoder = encoder_of(spec.settings, Path(prepared.backbone))
        examples = Rows(
            Path(prepared.data) / "train", prepared.pad_id, rows["train"].numbers[[*chosen]]
        )
        for split in ("validation", "test"):
            rows[split] = rows[split].replaced(task.with_examples(rows[split], examples, encoder))
    return rows


def initialise(run: Assembly) -> None:
    """Start the method from data, and give weights the types that they have in training."""
    if run.method.trains:
        batches = (run.train_rows.batch(indices).to(run.group.device) for indices in run.order())
        with kernels.autocast(run.settings):
            run.method.before_train(run.model.encoder, batches, run.steps)
        kernels.keep_trained_as_float32(run.model)  # weights that were made anew from the data
        if run.settings.trained_weights == "bfloat16":
            # matrices: vectors take little, and norms' meet float32 inputs on a CPU, whose autocast
            # leaves them alone
            for weight in run.model.encoder.parameters():
                if weight.requires_grad and weight.dtype == torch.float32 and weight.ndim > 1:
                    weight.data = weight.data.to(torch.bfloat16)
        if run.settings.precision == "bf16" and not run.method.reads_frozen_weights:
            kernels.store_frozen_as_bf16(run.model.encoder)
            release(run.group.device)  # the weights' memory in float32


def assemble(
    spec: RunSpec,
    prepared: Prepared,
    group: Group,
    method: Method | None = None,
    load: Load | None = None,
) -> Assembly:
    """Build a run; by `load` of tensors that have no values, so that neither base model nor
    tokenizer is asked.
    """
    settings = spec.settings
    method = method or make_method(spec.method)
    task = make_task(settings.task, prepared.label_names, prepared.facts, settings.rank_by)
    rows = open_rows(spec, prepared, task, method)
    run = partial(
        Assembly,
        spec=spec,
        settings=settings,
        group=group,
        method=method,
        task=task,
        train_rows=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        retention=rows.get(RETENTION),
    )
    losses: list[np.ndarray] = []

    def measure_base(base: PreTrainedModel) -> None:
        if task.retention and load is None:
            kernels.speed_up(
                base, settings.device
            )  # as for the trained model, so that kernels make no difference
            model = LanguageModel(base).eval()  # as it was loaded
            losses.append(losses_of_rows(run(model=model), rows[RETENTION]))
            model.release()

    kernels.set_float32_products(settings)
    kernels.leave_out_cudnn_attention()
    folder = Path(prepared.backbone)
    half = linear_as_bf16(folder, settings, method)
    loading = (
        group.in_turn() if load is None and is_large(folder, settings, half=half) else nullcontext()
    )
    model = build_model(
        folder, spec, method, task, measure_base, group.device, loading, load, half=half
    )
    model = model.to(group.device)
    torch.manual_seed(spec.seed * 1000 + group.rank)  # dropout differs between ranks, as it must
    generator = make_generator(
        task, prepared, settings, spec.seed, None if load is None else lambda _: ""
    )
    assembly = run(model=model, base_losses=losses[0] if losses else None, generator=generator)
    initialise(assembly)
    return assembly


class Selection:
    """Selection of a run's step: weights of the best so far and the method's state; none where
    the last counts.
    """

    def __init__(self, run: Assembly) -> None:
        self._run, self._model, self._task, self._wanted = (
            run,
            run.model,
            run.task,
            run.settings.select != "last",
        )
        self._scores: dict[int, float] = {}
        self._kept: dict[str, Tensor] = {}
        self._method: dict[str, Any] = {}
        if self._wanted and run.method.state(run.model.encoder) is None:
            raise Unsupported(
                f"select {run.settings.select} needs the method's state, and no hook `state` "
                f"gives it"
            )
        self.ended = (
            False  # whether the training ends here, before its last step; the same on all ranks
        )

    def see(self, evaluation: Evaluation) -> None:
        """Keep the weights after an evaluation of the validation rows that is better than all
        before it.
        """
        if self._wanted:
            score = torch.tensor(
                [self._task.validation_score(evaluation.metrics)], dtype=torch.float64
            )
            # rank 0's, which is recorded: hosts of another kind may round the last digit otherwise
            self._scores[evaluation.step] = self._run.group.gather(score)[0].item()
            if self._task.best_step(self._scores) == evaluation.step:
                self._kept = {
                    name: value.detach().to("cpu", copy=True)
                    for name, value in self._changing().items()
                }
                self._method = deepcopy(self._run.method.state(self._model.encoder) or {})
            self._end()

    def restore(self) -> None:
        """Give model and method what they were at the step that was selected, where one was."""
        changing = self._changing()
        with torch.no_grad():
            for name, value in self._kept.items():
                changing[name].copy_(value)
        if self._kept:
            self._run.method.load(self._model.encoder, self._method)

    def state_dict(self) -> dict[str, Any]:
        scores = [[step, score] for step, score in self._scores.items()]
        return {"scores": scores, "kept": self._kept, "method": self._method}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scores = {int(step): score for step, score in state["scores"]}
        self._kept, self._method = state["kept"], state["method"]
        self._end()

    def _end(self) -> None:
        self.ended = self._task.early_end(self._scores, self._run.settings.patience) is not None

    def _changing(self) -> dict[str, Tensor]:
        """Return what training changes: trained weights, and buffers."""
        trained = {
            name: weight for name, weight in self._model.named_parameters() if weight.requires_grad
        }
        return cast(dict[str, Tensor], trained) | dict(self._model.named_buffers())
