"""runs/<run>/: a stage writes into a hidden sibling and is published by one rename."""

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Literal

from pipeline.errors import (
    ChangedInput,
    FreedInput,
    MissingInput,
    PipeError,
    RecipeError,
    StaleInput,
)
from pipeline.recipe import Recipe, dump
from pipeline.run.files import explained_writes, sync_file, write_json, write_text
from pipeline.run.freed import freed_files
from pipeline.run.lock import locked
from pipeline.run.manifest import (
    NAME,
    TIMING,
    Entry,
    Manifest,
    Stage,
    describe,
    describe_tree,
    read_manifest,
)

State = Literal["done", "missing", "stale", "changed"]

MADE_BY: dict[Stage, str] = {
    "data": "pipe prepare",
    "train": "pipe train",
    "export": "pipe export",
    "serve": "pipe register",
    "check": "pipe check",
    "eval": "pipe eval",
}


NEEDS: dict[Stage, tuple[Stage, ...]] = {
    "data": (),
    "train": ("data",),
    "export": ("train",),
    "serve": ("export",),
    "check": ("export",),
    "eval": ("data", "train", "export"),
}
"""Stage -> the stages whose manifests it records as inputs."""


def made_from(manifest: Manifest) -> tuple[Stage, ...]:
    """The stages that this one read: an eval of engines that need no export reads none."""
    return tuple(
        need
        for need in NEEDS[manifest.stage]
        if (manifest.stage, need) != ("eval", "export") or f"{need}/{NAME}" in manifest.inputs
    )


def made_again(stage: Stage) -> str:
    """The command that does a stage anew though it seems to be done; two always do."""
    return MADE_BY[stage] + ("" if stage in ("serve", "check") else " --force")


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass
class Draft:
    """A stage's unpublished folder; set `manifest` before the block ends."""

    folder: Path
    manifest: Manifest | None = None
    timing: dict[str, float] = field(default_factory=dict)
    """Seconds by name, kept beside the stage's own, and when it finished, in timing.json."""


@dataclass(frozen=True)
class Run:
    root: Path

    @classmethod
    def of(cls, recipe: Recipe, name: str | None = None) -> "Run":
        """The run of that name, or of that path where a run is already.

        Raises RecipeError for a name that is no folder's.
        """
        if name and (Path(name) / "recipe.yaml").is_file():
            return cls(Path(name))
        if name and not _NAME.fullmatch(name):
            raise RecipeError(
                f"A run cannot be called {name!r}.", "Use letters, digits, `.`, `_` and `-`."
            )
        return cls(Path("runs") / (name or recipe.name))

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def options(self) -> str:
        """What names this run to every command started where this one was."""
        place = self.name if self.root == Path("runs") / self.name else str(self.root)
        return shlex.join(["-r", str(self.root / "recipe.yaml"), "--run", place])

    def folder(self, stage: Stage) -> Path:
        return self.root / stage

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; puts back a stage that a crash left half swapped, and
        removes one that the new stage had already replaced.
        """
        with locked(self.root):
            for old in self.root.glob(".*.old"):
                final = self.root / old.name[1:].removesuffix(".old")
                if final.exists():
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    old.rename(final)
            yield

    def keep_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml, every default filled in."""
        write_text(self.root / "recipe.yaml", dump(recipe))

    def manifest(self, stage: Stage) -> Manifest | None:
        return read_manifest(self.folder(stage))

    def last(self, stage: Stage) -> Manifest | None:
        """What the stage left, if it can be read."""
        try:
            return self.manifest(stage)
        except ChangedInput:
            return None

    def freed(self, stage: Stage) -> list[str]:
        """The stage's files that `pipe clean` freed, which make it neither changed nor stale."""
        return freed_files(self.folder(stage))

    def check_there(self, stage: Stage, names: Iterable[str]) -> None:
        """Raises FreedInput for the first of these files of the stage that `pipe clean` freed."""
        asked = set(names)
        if gone := next((name for name in self.freed(stage) if name in asked), None):
            raise FreedInput(
                f"{self.folder(stage) / gone} is not there: `pipe clean` freed it.",
                # which makes again what is not there
                f"Make it again: {MADE_BY[stage] if stage == 'export' else made_again(stage)}",
            )

    def require(self, stage: Stage, *, complete: bool = True) -> Manifest:
        """The manifest of a finished stage: every file as it was written, from what is there now.

        With `complete=False` files that `pipe clean` freed may be missing.
        Raises MissingInput or ChangedInput, naming the file and the command that makes it.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise MissingInput(
                f"{self.folder(stage)} is not there or not finished.", f"Run: {MADE_BY[stage]}"
            )
        if complete:
            self.check_there(stage, manifest.outputs)
        gone = self.freed(stage)
        for name, entry in manifest.outputs.items():
            if name not in gone:
                self._verify(stage, name, entry)
        self._check_origin(manifest)
        return manifest

    def input_entry(self, stage: Stage) -> dict[str, Entry]:
        """What a later stage records of this one: its manifest, which holds every other hash."""
        return {f"{stage}/{NAME}": self._entry(stage)}

    def is_done(self, plan: Manifest) -> bool:
        """True when the stage's outputs are whole and made by the same work as `plan`."""
        found = self.last(plan.stage)
        return found is not None and found.same_work(plan) and self.standing(plan) == "done"

    def standing(self, plan: Manifest) -> State:
        """How the stage stands that was to do as `plan` says: changed where a file is not as it
        was written. What `pipe clean` freed was whole.
        """
        try:
            if (found := self.manifest(plan.stage)) is None:
                return "missing"
            if not found.follows(plan):
                return "stale"
            self.require(plan.stage, complete=False)
        except StaleInput:
            return "stale"
        except ChangedInput:
            return "changed"
        return "done"

    @contextmanager
    def publish(self, stage: Stage) -> Iterator[Draft]:
        """A draft folder that becomes the stage's folder when the block ends well.

        On any exception, Ctrl-C included, the draft is removed and the old stage stays.
        """
        final = self.folder(stage)
        draft = Draft(self.root / f".{stage}.draft")
        shutil.rmtree(draft.folder, ignore_errors=True)
        draft.folder.mkdir(parents=True)
        started = perf_counter()
        try:
            with explained_writes(stage):
                yield draft
                if draft.manifest is None:
                    raise PipeError(f"The stage {stage} ended without a manifest.")
                outputs = describe_tree(draft.folder)
                for name in outputs:
                    sync_file(draft.folder / name)
                seconds = {"seconds": perf_counter() - started} | draft.timing
                times = {key: round(value, 3) for key, value in seconds.items()}
                now = datetime.now(UTC).isoformat(timespec="seconds")
                write_json(draft.folder / TIMING, {**times, "finished": now})
                replace(draft.manifest, outputs=outputs).write(draft.folder)
                _swap(draft.folder, final)
        finally:
            shutil.rmtree(draft.folder, ignore_errors=True)

    def _check_origin(self, manifest: Manifest) -> None:
        """Raises StaleInput where a stage was made from another version of one it needs."""
        for need in made_from(manifest):
            now = self.manifest(need)
            if now is None or manifest.inputs.get(f"{need}/{NAME}") != self._entry(need):
                raise StaleInput(
                    f"{self.folder(manifest.stage)} was made from another {need} than the one "
                    "there now.",
                    f"Run: {MADE_BY[manifest.stage]}",
                )
            self._check_origin(now)

    def _entry(self, stage: Stage) -> Entry:
        return describe(self.folder(stage) / NAME)

    def _verify(self, stage: Stage, name: str, entry: Entry) -> None:
        path = self.folder(stage) / name
        hint = f"Run: {made_again(stage)}"
        if not path.exists():
            raise ChangedInput(f"{path} is gone since {stage} was published.", hint)
        if path.stat().st_size != entry.bytes or describe(path) != entry:
            raise ChangedInput(f"{path} is not the file that {stage} wrote.", hint)


def _swap(draft: Path, final: Path) -> None:
    """Put `draft` in the place of `final`; a crash between the renames leaves `.old`, no half."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    draft.rename(final)
    sync_file(final.parent)
    shutil.rmtree(old, ignore_errors=True)
