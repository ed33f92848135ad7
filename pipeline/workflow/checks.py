"""Check a run, a file, or a model in Ollama."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.chat import chat_format
from pipeline.engines.trained import Trained, trained
from pipeline.recipe.schema import Importance
from pipeline.run import Emit, silent
from pipeline.run.rows import held_out_rows
from pipeline.workflow.work import Work

if TYPE_CHECKING:
    from pipeline.check import RunPart

_ROWS = 50
"""Held-out rows: so many questions have their greedy replies compared."""
_WIDE = "BF16"


def check(work: Work) -> list[Any]:
    """The gates of a run. What they need made of its base is made beside it, and removed."""
    from pipeline.check import check as stage

    with work.run.lock():
        work.needs("data", "train", "export")
        return stage(part_of(work))


def part_of(work: Work) -> "RunPart":
    """The run as its gates see it. Raises ChangedInput where the base is not the one trained on."""
    from pipeline.check import RunPart

    work.needs("data", "train")
    base = work.base()
    work.run.require("train").check_inputs(base.entries(), "Train on this base: pipe train")
    tuned = trained(work.recipe, work.run, base)
    return RunPart(
        recipe=work.recipe,
        run=work.run,
        trained=tuned,
        encoder=work.encoder(),
        make=_Maker(work, tuned),
        rows=held_out_rows(work.run, _ROWS),
        emit=work.emit,
    )


def check_file(path: Path, emit: Emit) -> list[Any]:
    """The gates of any GGUF file."""
    from pipeline.check import check_file as stage

    return stage(path, emit)


def check_model(name: str, emit: Emit) -> list[Any]:
    """The gates of any model in the Ollama that answers."""
    from pipeline.check import check_model as stage

    return stage(name, emit)


@dataclass(frozen=True)
class _Maker:
    """Exports as the run was exported; files in 16 bits are so in every tensor."""

    work: Work
    trained: Trained

    def __call__(self, folder: Path, types: Sequence[str], *, tuned: bool) -> Mapping[str, Path]:
        narrow = tuple(type for type in types if type != _WIDE)
        asked: dict[str, Any] = {"tensor_types": (), "importance": None}
        files: dict[str, Path] = {}
        if _WIDE in types:
            files |= self._written(folder, (_WIDE,), asked, tuned)
        if narrow:
            asked = {"importance": self._importance()}
            files |= self._written(folder, narrow, asked, tuned)
        return files

    def _written(
        self, folder: Path, types: Sequence[str], asked: dict[str, Any], tuned: bool
    ) -> dict[str, Path]:
        from pipeline.gguf.export import write_types
        from pipeline.gguf.job import Job

        recipe, known = self.work.recipe, self.trained
        changes = {"quantize": tuple(types), "adapter_gguf": False, **asked}
        job = Job(
            name="tuned" if tuned else "base",
            base=known.model if tuned else known.base,
            adapter=known.adapter if tuned else None,
            format=chat_format(recipe.chat.format, thinks=recipe.chat.thinking),
            asked=recipe.export.model_copy(update=changes),
            license="none",
        )
        done = write_types(job, folder, silent)
        return {type: folder / done.files[type] for type in types}

    def _importance(self) -> Importance | None:
        """The matrix that the export used: the one named, or the one it collected."""
        asked = self.work.recipe.export.importance
        if asked is None or asked.file is not None:
            return asked
        kept = self.work.run.folder("export") / "importance.gguf"
        return asked.model_copy(update={"file": str(kept)})
