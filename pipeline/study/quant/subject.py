"""The model of a run whose weights are narrowed, what it is asked, and what its rows hang on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.chat import Encoded
from pipeline.check import RunPart
from pipeline.check.measure import windows
from pipeline.data.read.sources import open_source
from pipeline.engines.completion import Decoding
from pipeline.errors import PipeError
from pipeline.evaluate.ask import BATCHES, Asked, own_replies
from pipeline.evaluate.items import item_of, without_unreadable
from pipeline.evaluate.metrics import Metric, all_metrics
from pipeline.evaluate.tasks import Task, open_tasks
from pipeline.gguf.export import named_importance
from pipeline.recipe.metrics import deciding_metric
from pipeline.run import Entry, versions_of
from pipeline.run.rows import held_out_rows
from pipeline.run.studies import QUANT_WORK
from pipeline.study.quant.methods import Method
from pipeline.workflow import Work
from pipeline.workflow.checks import part_of

Model = Literal["tuned", "base"]

QUESTIONS = 100
"""Asked of each row where neither `--limit` nor eval.limit says how many."""
LIKELIHOODS = 1 << 30
"""Bytes of log-probabilities that are on disk at once: the reference's and one other's."""
_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python", "math-verify")


@dataclass(frozen=True)
class Subject:
    """One model of a run, and all that its rows share."""

    work: Work
    part: RunPart
    model: Model
    task: Task
    asked: Asked
    sequences: Sequence[Encoded]
    """Held-out rows with their own replies: what perplexity and KL divergence are over."""
    metric: Metric

    @property
    def root(self) -> Path:
        """Where rows that are done are kept, and all that is made on the way."""
        return self.work.run.root / QUANT_WORK

    @cached_property
    def folder(self) -> Path:
        """Where this model's files are made: another after it was trained anew."""
        return self.root / f"{self.model}-{_hash(self._content)[:16]}"

    @property
    def positions(self) -> int:
        """Tokens that are scored."""
        return sum(len(each.ids) - each.target_start for each in self.sequences)

    @property
    def vocabulary(self) -> int:
        return int(self.part.base.config["vocab_size"])

    def key(self, method: Method) -> str:
        """A hash of all that the method's row hangs on."""
        recipe = self.work.recipe
        how: dict[str, Any] = {
            "method": method.name,
            "metric": self.metric.name,
            "task": {name: asdict(entry) for name, entry in self.task.entries.items()},
            "questions": [item.id for item in self.asked.items],
            "decoding": asdict(self.asked.decoding),
            "batch_size": recipe.eval.batch_size,
            "scored": [(each.ids, each.target_start) for each in self.sequences],
            "device": self.part.trained.device,
            "num_ctx": recipe.num_ctx,
            "versions": versions_of(*_VERSIONS),
        }
        return _hash([self._content, how])

    @cached_property
    def inputs(self) -> dict[str, Entry]:
        """The files that every row hangs on, as a stage records what it read."""
        run, known = self.work.run, self.part.trained
        entries = known.base.entries() | run.input_entry("data")
        if self.model == "tuned":
            entries |= run.input_entry("train")
        asked = self.work.recipe.export
        entries |= named_importance(asked)
        if asked.importance and asked.importance.file is None:  # the one that export collected
            entries["importance"] = run.require("export", complete=False).outputs["importance.gguf"]
        return entries

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Of the model and of what is made of it: hashes, and the settings of the export."""
        asked = self.work.recipe.export
        found: dict[str, Any] = {name: asdict(entry) for name, entry in self.inputs.items()}
        found["export"] = asked.model_dump(mode="json", exclude={"quantize", "adapter_gguf"})
        found["chat"] = self.part.encoder.format.fingerprint()
        return found


def open_subject(work: Work, model: Model, limit: int | None) -> Subject:
    """The run's model, with the first `limit` questions of the task that leads its eval.

    Raises PipeError where a stage before it is missing, or no row has a reply to be scored on.
    """
    recipe, part = work.recipe, part_of(work)
    count = limit or recipe.eval.limit or QUESTIONS
    task = open_tasks(recipe.eval.tasks[:1], work.run, open_source, {})[0]
    items, _ = without_unreadable(task.items(count))
    name = deciding_metric(recipe)
    (metric,) = (each for each in all_metrics(recipe.eval.metrics, ()) if each.name == name)
    asked = Asked(
        name=task.name,
        items=items,
        own={},
        folder=work.run.root / QUANT_WORK,
        decoding=Decoding(recipe.eval.max_new_tokens),
        samples=1,
        leg=BATCHES * recipe.eval.batch_size,
    )
    return Subject(work, part, model, task, asked, _scored(work, part, count), metric)


def _scored(work: Work, part: RunPart, count: int) -> list[Encoded]:
    """The replies of the first held-out rows, as much of them as the disk is asked to hold."""
    rows = held_out_rows(work.run, count)
    items = [item_of(row, f"row {number}") for number, row in enumerate(rows, 1)]
    own = own_replies(part.encoder, items, work.recipe.num_ctx)
    row_bytes = 4 * int(part.base.config["vocab_size"])
    if found := windows(list(own.values()), LIKELIHOODS // (2 * row_bytes)):
        return found
    raise PipeError("No held-out row fits the context with its reply.", "Raise serve.num_ctx.")


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def exported(subject: Subject) -> Mapping[str, Path]:
    """GGUF type -> the run's own file, whole; none of a base, of no export, or of a freed file."""
    work = subject.work
    if subject.model == "base" or work.run.manifest("export") is None:
        return {}
    files = work.run.require("export", complete=False).facts["files"]
    freed, folder = work.run.freed("export"), work.run.folder("export")
    there = {type: folder / name for type, name in files.items() if name not in freed}
    return {type: there[type] for type in work.recipe.export.quantize if type in there}
