"""What of a run can go, why that is safe, and how to have it again; what stays, and why."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe import load
from pipeline.run import Manifest, Run, Stage, silent
from pipeline.run.disk import bytes_freed
from pipeline.run.files import TEMPORARY
from pipeline.run.folder import MADE_BY, NEEDS, State
from pipeline.run.studies import QUANT_ROWS, QUANT_WORK, SHARED_ROWS, STUDIES, study_results
from pipeline.workflow.status import status
from pipeline.workflow.talks import BASES
from pipeline.workflow.work import Work

TRASH = ".clean.gone"
"""A folder on its way out: what bears a name of ours is whole, also while it goes."""
_WEIGHTS = ".safetensors"
_STAGE = re.compile(r"\bpipe (?:prepare|train|eval)\b")


@dataclass(frozen=True)
class Wish:
    """What may go beyond what nobody needs any more."""

    exports: bool = False
    """GGUF files that Ollama has."""
    variants: bool = False
    """Weights and files of a comparison's variants, but the best one's."""
    unfinished: bool = False
    """What an eval or a prepare that was stopped would go on from."""


@dataclass(frozen=True)
class Item:
    """Something in a run that goes, or that stays and is worth naming."""

    path: str
    """Below the run's folder."""
    bytes: int
    """That its removal gives back: a file with another name elsewhere counts nothing."""
    goes: bool
    why: str
    """That this is safe; of what stays, what it is needed for."""
    again: str
    """How to have it again; of what stays, how it may go."""
    stage: Path | None = None
    """The folder of the finished stage that keeps count of the file, where it is one of its."""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "bytes", "goes", "why", "again")}


@dataclass(frozen=True)
class Look:
    """One run, or one variant below it, looked through."""

    root: Path
    """Of the run that is cleaned."""
    run: Run
    wish: Wish

    def item(self, path: Path, goes: bool, why: str, again: str, of: Stage | None = None) -> Item:
        """What lies behind a link is not the run's own, and stays."""
        name = path.relative_to(self.root)
        stage = self.run.folder(of) if of else None
        if path.is_symlink() or path.parent.resolve() != (self.root.resolve() / name).parent:
            return Item(name.as_posix(), 0, False, "it is a link, or behind one", "by hand")
        if self.run.root != self.root:  # a stage's own command would do another run
            why, again = (_STAGE.sub("pipe compare", text) for text in (why, again))
        return Item(name.as_posix(), bytes_freed(path), goes, why, again, stage)

    @cached_property
    def states(self) -> dict[Stage, State]:
        """By the run's own recipe: the one in force when it was last worked on."""
        recipe = load(str(self.run.root / "recipe.yaml")).recipe
        return status(Work(recipe, self.run, silent))

    def leftovers(self) -> Iterator[Item]:
        """What killed commands left and no command reads."""
        from pipeline.check.stage import SCRATCH

        drafts = [f".{stage}.draft" for stage in NEEDS if stage != "train"]
        hidden = [*drafts, SHARED_ROWS, TRASH, f"{SCRATCH}*", TEMPORARY]
        below = [f"{study}/{TEMPORARY}" for study in STUDIES]
        for pattern in (*hidden, *below, "compare/base/.*.draft"):
            for path in sorted(self.run.root.glob(pattern)):
                yield self.item(path, True, "a killed command left it", "nothing reads it")

    def work(self) -> Iterator[Item]:
        """Folders in which commands work, where what they were for is done."""
        from pipeline.data.prepare import PARTS
        from pipeline.evaluate.kept import FOLDER as ANSWERS

        root = self.run.root
        if (root / BASES).exists():
            why = "the untuned base as GGUF, to talk to beside the tuned model"
            yield self.item(root / BASES, True, why, "pipe chat --web makes it")
        for path in sorted((root / QUANT_WORK).glob("*")):
            if path.name != QUANT_ROWS:
                why = "made on the way by a study that was stopped"
                yield self.item(path, True, why, "pipe quant makes it")
        yield from self._of_stage(root / PARTS, "data", "pipe prepare works them out")
        yield from self._of_stage(root / ANSWERS, "eval", "pipe eval asks, should it have to")
        yield from self._training()

    def _of_stage(self, path: Path, stage: Stage, again: str) -> Iterator[Item]:
        if not path.exists():
            return
        if self.states[stage] == "done":
            yield self.item(path, True, f"{stage}/ is finished and holds what came of it", again)
            return
        why = f"{stage} is {self.states[stage]}: {MADE_BY[stage]} goes on from it"
        way = again if self.wish.unfinished else "pipe clean --unfinished"
        yield self.item(path, self.wish.unfinished, why, way)

    def _training(self) -> Iterator[Item]:
        """Checkpoints may be all that is left of a training: never while it can be gone on with."""
        from pipeline.train.unfinished import FOLDER, has_ended

        for name in (FOLDER, ".train.draft"):
            path = self.run.root / name
            if not path.exists():
                continue
            if has_ended(self.run):
                why = "the training has ended, train/ holds what it came to"
                yield self.item(path, True, why, "nothing reads it")
            else:
                why = "a training that has not ended: pipe train goes on from it"
                yield self.item(path, False, why, "pipe train --force gives it up")

    def exports(self) -> Iterator[Item]:
        made = self.run.last("export")
        files: dict[str, str] = made.facts["files"] if made else {}
        lost = _lost(self.run) if files and self.wish.exports else None
        for type, name in files.items():
            path = self.run.folder("export") / name
            if made is None or not path.is_file():
                continue
            if not self.wish.exports:
                why = "pipe check, chat, publish and register read it"
                way = "pipe clean --exports, where Ollama has it"
                yield self.item(path, False, why, way)
            elif need := lost or _needed(self.run, made, type):
                yield self.item(path, False, *need)
            else:
                why = "Ollama has it; check, publish, register and chat with the file need it"
                yield self.item(path, True, why, "pipe export", "export")

    def weights(self) -> list[tuple[Path, Stage]]:
        """The large files of the finished stages that are there."""
        kinds: tuple[tuple[Stage, str], ...] = (("train", _WEIGHTS), ("export", ".gguf"))
        found = []
        for stage, ending in kinds:
            made, folder = self.run.last(stage), self.run.folder(stage)
            names = [name for name in (made.outputs if made else ()) if name.endswith(ending)]
            found += [(folder / name, stage) for name in names if (folder / name).exists()]
        return found


def of_variants(parent: Look, looks: Collection[Look]) -> Iterator[Item]:
    """Weights of variants, each with whether its figures are kept and another one is the best."""
    if not looks:
        return
    try:
        found = study_results(Run(parent.root), "compare") or {}
    except ChangedInput:
        found = {}
    rows = {row["label"]: row for row in found.get("variants") or ()}
    for look in looks:
        label = look.run.name
        done = rows.get(label, {}).get("status") == "done"
        for path, stage in look.weights():
            if not done or found.get("best") is None:
                why = "compare/results.json does not hold its figures, or names no best"
                yield look.item(path, False, why, "pipe compare")
            elif label == found["best"]:
                yield look.item(path, False, "of the best variant", "by hand")
            elif not parent.wish.variants:
                why = "the only copy; the figures are in compare/"
                yield look.item(path, False, why, "pipe clean --compare")
            else:
                why = "another variant is the best; figures, logs and page stay"
                yield look.item(path, True, why, "training it anew", stage)


def _lost(run: Run) -> tuple[str, str] | None:
    """Why exported files could not be made again, and the cure; None where they can."""
    try:
        run.require("train")
        run.require("export", complete=False)
    except PipeError as error:
        return f"it could not be made again: {error.message}", error.hint
    return None


def _needed(run: Run, made: Manifest, type: str) -> tuple[str, str] | None:
    """Why an exported file stays, and how it may go; None where Ollama serves it."""
    from pipeline.engines.ollama import OllamaServer

    way = "pipe register, then pipe clean --exports"
    served = run.last("serve")
    if served is None or served.inputs != run.input_entry("export"):
        return "Ollama was not given it", way
    digest = f"sha256:{made.outputs[made.facts['files'][type]].sha256}"
    models = {each["type"]: each for each in served.facts["models"] if each["digest"] == digest}
    if type not in models:
        return "Ollama was not given it", way
    model = models[type]
    try:
        there = OllamaServer.from_environment().runs(model["name"], model.get("served", digest))
    except PipeError as error:
        return f"whether Ollama has it is not known: {error.message}", error.hint
    return None if there else (f"{model['name']} in Ollama is another file now", way)
