"""`pipe clean`: look through a run and its variants while nothing works in them; and remove."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import MissingInput, PipeError
from pipeline.run import Run
from pipeline.run.folder import MADE_BY
from pipeline.run.freed import free_files
from pipeline.run.lock import locked
from pipeline.workflow.cleanable import TRASH, Item, Look, Wish, of_variants


def looked_through(run: Run, wish: Wish) -> list[Item]:
    """What would go and what stays, the safest first; nothing is removed.

    Raises MissingInput where there is no run, RunLocked while a command works in it.
    """
    with _held(run):
        return list(_items(run, wish))


def clean(run: Run, wish: Wish, shown: Collection[str]) -> list[Item]:
    """Remove what goes of what was `shown`, looked at once more; returns what was removed.

    Raises as `looked_through` does, and PipeError for what the system does not let go.
    """
    with _held(run):
        going = [item for item in _items(run, wish) if item.goes and item.path in shown]
        for item in going:
            try:
                _remove(run.root, item)
            except OSError as error:
                raise PipeError(
                    f"{run.root / item.path} could not be removed: {error}.",
                    "Where it may be, do the rest again: pipe clean",
                ) from error
        return going


def is_run(folder: Path) -> bool:
    """Whether a stage was begun there, or a comparison, which may be all that there is."""
    return (folder / "recipe.yaml").is_file() or any(folder.glob("compare/runs/*/recipe.yaml"))


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """The locks of the run, of its comparison and of every variant."""
    if not is_run(run.root):
        raise MissingInput(f"{run.root} is not a run.", f"Run: {MADE_BY['data']}")
    with ExitStack() as locks:
        locks.enter_context(run.lock())
        if (run.root / "compare").is_dir():
            locks.enter_context(locked(run.root / "compare"))
        for variant in _variants(run):
            locks.enter_context(variant.lock())
        yield


def _variants(run: Run) -> list[Run]:
    return [Run(p.parent) for p in sorted(run.root.glob("compare/runs/*/recipe.yaml"))]


def _items(run: Run, wish: Wish) -> Iterator[Item]:
    looks = [Look(run.root, each, wish) for each in (run, *_variants(run))]
    for look in looks:
        yield from look.leftovers()
    for look in looks:
        yield from look.work()
    yield from looks[0].exports()
    yield from of_variants(looks[0], looks[1:])


def _remove(root: Path, item: Item) -> None:
    path = root / item.path
    if item.stage is not None:
        return free_files(item.stage, [path.relative_to(item.stage).as_posix()])
    if not path.is_dir():
        return path.unlink(missing_ok=True)
    trash = root / TRASH
    if path != trash:
        shutil.rmtree(trash, ignore_errors=True)
        path.rename(trash)
    return shutil.rmtree(trash)
