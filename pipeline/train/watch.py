"""What is watched at every step: figures, losses on other rows, and when to save or to stop.

Imported in a training process only, after Unsloth, which patches what is imported here.
"""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from pipeline.child import Message, Send
from pipeline.errors import PipeError
from pipeline.train.job import Job
from pipeline.train.meter import StepMeter
from pipeline.train.rows import Batches, labelled, row_names

GENERAL = "general"


class Watch(TrainerCallback):  # type: ignore[misc]
    """Sends {"measured"} for every step and evaluation, and {"sample"} for every answer."""

    def __init__(self, job: Job, batches: Batches, meter: StepMeter, send: Send) -> None:
        self.trace: dict[str, list[Message]] = {"metrics": [], "samples": []}
        """Lines of metrics.jsonl and samples.jsonl so far."""
        self.eval_losses: dict[int, float] = {}
        self.stop_asked = False
        """Set by a signal: the training ends after this step, with a checkpoint."""
        self.stopped = False
        self.trainer: Any = None
        self._job, self._batches, self._meter, self._send = job, batches, meter, send
        self._tokens = batches.order.tokens(batches.lengths)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.processes = torch.distributed.get_world_size() if distributed else 1
        self._rank = torch.distributed.get_rank() if distributed else 0

    @property
    def best_step(self) -> int | None:
        """The step of the lowest loss on the eval rows, the earliest of equals."""
        return min(self.eval_losses, key=lambda s: (self.eval_losses[s], s), default=None)

    @property
    def kept_best(self) -> int | None:
        """The best step, where its weights are what is kept in the end."""
        return self.best_step if self._job.train.keep == "best" else None

    @property
    def _waited_enough(self) -> bool:
        """Whether the loss on the eval rows has not become better for as long as was asked."""
        patience = self._job.train.early_stopping
        since = [step for step in self.eval_losses if step > (self.best_step or 0)]
        return patience is not None and len(since) >= patience

    def take_up(self, trace: dict[str, list[Message]]) -> None:
        """Go on from what was measured up to a checkpoint."""
        self.trace = trace
        self.eval_losses = {
            line["step"]: line["eval_loss"] for line in trace["metrics"] if "eval_loss" in line
        }

    def measure_general(self) -> None:
        """The loss on a few general rows, as a line of metrics; nothing where there are none."""
        if path := self._job.encoded.get(GENERAL):
            self.trainer.evaluate(eval_dataset=labelled(path), metric_key_prefix=GENERAL)

    def on_train_begin(self, _: Any, __: Any, control: Any, **___: Any) -> None:
        if not self.trace["metrics"]:
            self.measure_general()
        control.should_training_stop = self._waited_enough
        self._meter.begin()

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        # dropout and noise depend on the step alone, so nothing random needs to be kept
        place = state.global_step * self.processes + self._rank
        torch.manual_seed((self._job.seed * 1_000_003 + place) % 2**63)

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        train, step = self._job.train, state.global_step
        last = step >= state.max_steps
        control.should_save = last or step % train.save_every == 0
        if self.trainer.eval_dataset is not None:
            every = train.eval_every
            control.should_evaluate = last or (every is not None and step % every == 0)
        if self._stop_agreed() and not last:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = state.global_step
        loss, norm = float(logs["loss"]), float(logs["grad_norm"])
        self._check_finite(step, loss, norm)
        line = {
            "step": step,
            "steps": state.max_steps,
            "epoch": round(self._batches.epoch(step), 6),
            "loss": loss,
            # an infinite norm is fp16 finding its scale: that step was skipped
            "grad_norm": norm if math.isfinite(norm) else None,
            "learning_rate": float(logs["learning_rate"]),
            "tokens": int(self._tokens[step - 1]),
        }
        seen = int(self._tokens[step - 2]) if step > 1 else 0
        speed = self._meter.end(step, line["tokens"] - seen)
        self.trace["metrics"].append(line)
        self._send({"measured": line, "speed": speed})
        self._answer_samples(step)

    def on_evaluate(self, _: Any, state: Any, control: Any, metrics: Any = None, **__: Any) -> None:
        for key in ("eval_loss", f"{GENERAL}_loss"):
            if metrics and key in metrics:
                line = {"step": state.global_step, key: float(metrics[key])}
                if not math.isfinite(line[key]):
                    self._refuse_loss(state.global_step, key, line[key])
                self.trace["metrics"].append(line)
                self._send({"measured": line | {"steps": state.max_steps}})
        if metrics and "eval_loss" in metrics:
            self._steer(state.global_step, float(metrics["eval_loss"]), control)
        self._meter.begin()

    def on_save(self, *_: Any, **__: Any) -> None:
        self._meter.begin()

    def _steer(self, step: int, loss: float, control: Any) -> None:
        """Save a better one where the best is kept; stop where there was none for long."""
        self.eval_losses[step] = loss
        if self.kept_best == step:
            control.should_save = True
        if self._waited_enough:
            control.should_save = control.should_training_stop = True

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        if math.isfinite(loss) and (math.isfinite(norm) or self._job.train.precision == "fp16"):
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's norm is {norm}"
        names = row_names(Path(self._job.rows), self._batches.rows_of(step))
        raise PipeError(
            f"The {what} at step {step}, whose rows are {', '.join(names)}.",
            "Nothing of that step is kept. Look at those rows; or lower the rate and begin anew: "
            "pipe train --force --set train.learning_rate=...",
        )

    def _refuse_loss(self, step: int, name: str, loss: float) -> None:
        rows = Path(self._job.encoded[name.removesuffix("_loss")])
        raise PipeError(
            f"After step {step} the loss on the rows of {rows} is {loss}.",
            "Training diverged, or one of those rows has nothing to learn. Lower the rate and "
            "begin anew: pipe train --force --set train.learning_rate=...",
        )

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop: they must end at the same step."""
        if self.processes == 1:
            return self.stop_asked
        asked = torch.tensor([int(self.stop_asked)], device=self.trainer.args.device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _answer_samples(self, step: int) -> None:
        every = self._job.train.sample_every
        if not every or step % every or self._rank:
            return
        from pipeline.train.samples import answer_aloud

        prompts = [sample["prompt_ids"] for sample in self._job.samples]
        replies = answer_aloud(
            self.trainer.model, self.trainer.processing_class, prompts, self._job.end_ids
        )
        for sample, reply in zip(self._job.samples, replies, strict=True):
            line = {"step": step, "question": sample["question"], "reply": reply}
            self.trace["samples"].append(line)
            self._send({"sample": line})
        self._meter.begin()
