"""TRL's trainer with our own order of rows and our own checkpoints.

Imported in a training process only, after Unsloth, which patches what is imported here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from trl import SFTConfig, SFTTrainer

from pipeline.errors import PipeError
from pipeline.run.files import explained_writes
from pipeline.train import checkpoint
from pipeline.train.job import Job
from pipeline.train.loss import mean_loss
from pipeline.train.rows import Batches, labelled
from pipeline.train.watch import Watch

WEIGHTS = "weights.safetensors"
STATE = "trainer_state.json"
TRACE = "trace.json"


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that goes on from a checkpoint with the same bytes as if it had never stopped.

    The order of the rows is known beforehand, and every step begins with a seed of its own: what
    is left to keep are weights, optimizer, schedule, loss scale and what was measured so far.
    """

    control: Any
    """What its callbacks ask of the loop: to evaluate, to save, to stop."""

    def __init__(self, job: Job, batches: Batches, watch: Watch, **arguments: Any) -> None:
        self._batches, self._watch = batches, watch
        self._folder = Path(job.folder) / "checkpoints"
        super().__init__(train_dataset=batches.dataset, callbacks=[watch], **arguments)
        watch.trainer = self

    def _get_train_sampler(self, *_: Any) -> list[int]:
        return self._batches.order.flat()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss on rows that are not learned; whoever watches is told."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics = {f"{metric_key_prefix}_loss": mean_loss(self, rows)}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:
            step = self.state.global_step
            with _explained(f"The checkpoint of step {step}"):
                made = checkpoint.publish(self._folder, step, self._write, self._watch.kept_best)
                checkpoint.drop_old(self._folder, made)

    def _run_epoch(self, **arguments: Any) -> None:
        """Not a step more where the checkpoint is of a training that had stopped early."""
        if not self.control.should_training_stop:
            super()._run_epoch(**arguments)

    def _write(self, folder: Path) -> None:
        trained = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        save_file(trained, folder / WEIGHTS)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self.state.log_history.clear()  # it holds times; `trace` is ours
        self.state.save_to_json(str(folder / STATE))
        (folder / TRACE).write_text(json.dumps(self._watch.trace), encoding="utf-8")

    def _load_from_checkpoint(self, folder: str, model: Any = None) -> None:
        """Weights and what was measured; Trainer loads the rest, by torch's weights-only reader."""
        self.load_weights(Path(folder))
        self._watch.take_up(json.loads((Path(folder) / TRACE).read_text(encoding="utf-8")))

    def load_weights(self, folder: Path) -> None:
        """Make the trained weights those of a checkpoint, bit by bit."""
        saved = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(saved.pop(name))
        assert not saved, f"the checkpoint has weights that the model lacks: {list(saved)[:3]}"

    def load_best(self, step: int) -> None:
        """Make the weights those of an earlier step. Raises PipeError where they are not whole."""
        folder = checkpoint.path_of(self._folder, step)
        try:
            self.load_weights(checkpoint.opened(folder).folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise PipeError(
                f"The best weights, those of {folder}, cannot be used: {error}.",
                "They are learned again from the checkpoint before them: pipe train",
            ) from None

    def _load_rng_state(self, _: Any) -> None:
        """Nothing: each step begins with a seed of its own."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns a refusal to write into a PipeError; torch and safetensors raise no OSError for it."""
    try:
        with explained_writes(what):
            yield
    except (RuntimeError, SafetensorError) as error:
        raise PipeError(
            f"{what} could not be written: {str(error).splitlines()[0]}",
            "Make room, then go on from the checkpoint before it: pipe train",
        ) from error


def trainer_of(model: Any, tokenizer: Any, job: Job, batches: Batches, watch: Watch) -> Trainer:
    """The trainer of a job, ready for `train(resume_from_checkpoint=job.resume)`."""
    evaluated = labelled(job.encoded["eval"])
    for rows in (batches.dataset, evaluated):
        # `pipe prepare` saw to it; Unsloth gives up batches without padding for rows of unknown
        # lengths, and takes this word for them (unsloth/models/rl.py)
        rows._unsloth_truncated_to = job.max_seq_length
    return Trainer(
        job,
        batches,
        watch,
        model=model,
        processing_class=tokenizer,
        eval_dataset=evaluated if len(evaluated) else None,
        args=_arguments(job, watch.processes),
    )


def _arguments(job: Job, processes: int) -> SFTConfig:
    train = job.train
    return SFTConfig(
        output_dir=str(Path(job.folder) / "trl"),
        per_device_train_batch_size=job.batch_size,
        per_device_eval_batch_size=job.batch_size,
        gradient_accumulation_steps=job.global_batch // (job.batch_size * processes),
        # all steps of all epochs are one pass over the order
        num_train_epochs=1,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optimizer,
        neftune_noise_alpha=train.neftune_noise_alpha,
        bf16=train.precision == "bf16",
        fp16=train.precision == "fp16",
        max_length=job.max_seq_length,
        packing=train.batching == "packed",
        gradient_checkpointing=train.gradient_checkpointing,
        logging_nan_inf_filter=False,
        logging_steps=1,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        seed=job.seed,
        data_seed=job.seed,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        ddp_find_unused_parameters=False,
        **({"ddp_backend": "gloo"} if processes > 1 and train.device == "cpu" else {}),
    )
