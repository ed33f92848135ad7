"""Read what the stages of a run left, and whether it still holds, into one view."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ChangedInput, MissingInput, RecipeError, StaleInput
from pipeline.report.view import Gap, RunView
from pipeline.run import Run, Stage
from pipeline.run.folder import MADE_BY, made_from
from pipeline.run.rows import read_jsonl

_GAPS: dict[Stage, str] = {
    "data": "There is no data.",
    "train": "Nothing is trained.",
    "export": "No GGUF is written.",
    "serve": "The model is not registered with Ollama.",
    "check": "No gate has been checked.",
    "eval": "The quality has not been measured.",
}


def gather(run: Run, options: str | None = None) -> RunView:
    """Read what is there. Stages that are stale or changed are read too, and warned of.

    Raises MissingInput where no stage has finished, RecipeError where recipe.yaml is none.
    """
    recipe = _recipe(run)
    view = RunView(run, own_options(run, recipe) if options is None else options, recipe)
    for stage in _GAPS:
        _look(view, stage)
    if not view.manifests:
        raise MissingInput(f"No stage of {run.root} has finished.", f"Run: {MADE_BY['data']}")
    _read(view)
    return view


def own_options(run: Run, recipe: Mapping[str, Any]) -> str:
    """The options that mean this run to someone who stands beside `runs/`."""
    if run.root.parent.parent.name == "compare":  # a variant: runs/RUN/compare/runs/LABEL
        folder = "/".join(run.root.absolute().parts[-5:])
        return f"-r {folder}/recipe.yaml --run {folder}"
    other = "" if recipe.get("name") == run.name else f" --run {run.name}"
    return f"-r runs/{run.name}/recipe.yaml{other}"


def _scores(results: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The results with their engines in the order of the work, as `evaluate.published` has them.

    That one vouches for the run, so it gives nothing of stale work, which the page does show.
    """
    tasks = {name: _sorted(each, order) for name, each in results.get("tasks", {}).items()}
    return _sorted(results, order) | ({"tasks": tasks} if tasks else {})


def _sorted(results: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    engines = results.get("engines", {})
    names = [name for name in order if name in engines]
    names += [name for name in engines if name not in names]
    return results | {"engines": {name: engines[name] for name in names}}


def _look(view: RunView, stage: Stage) -> None:
    """Take the stage's manifest, with a gap or a warning where it cannot be relied on."""
    run = view.run
    try:
        manifest = run.manifest(stage)
    except ChangedInput as error:
        view.gaps[stage] = Gap(error.message, view.again(stage))
        return
    if manifest is None:
        view.gaps[stage] = Gap(_GAPS[stage], view.command(MADE_BY[stage].removeprefix("pipe ")))
        return
    view.manifests[stage] = manifest
    if gone := [name for name in run.freed(stage) if name in manifest.outputs]:
        view.freed[stage] = gone
    try:
        run.require(stage, complete=False)
    except ChangedInput as error:
        # of stale work the hint names the stage that is behind, which may be another
        stale = isinstance(error, StaleInput)
        if stale and (need := _earlier(view, stage)):
            view.stale[stage] = need
        elif not stale:
            view.changed.add(stage)
        cure = view.command(error.hint.removeprefix("Run: pipe ")) if stale else view.again(stage)
        warning = Gap(error.message, cure)
        view.warnings += [] if warning in view.warnings else [warning]


def _earlier(view: RunView, stage: Stage) -> Stage | None:
    """The nearest stage that this one came from and that is another now."""
    made = view.manifests[stage]
    inputs = made.inputs
    for need in reversed(made_from(made)):
        if need not in view.manifests:
            return need
        if not view.run.input_entry(need).items() <= inputs.items():
            return need
        if further := _earlier(view, need):
            return further
    return None


def _read(view: RunView) -> None:
    view.stats = _kept(view, "data", "stats.json")
    view.log = _kept(view, "train", "training_log.json")
    view.checks = _kept(view, "check", "results.json")
    if precision := view.checks.get("precision"):
        kinds = [*view.files, *(kind for kind in precision if kind not in view.files)]
        view.checks["precision"] = {kind: precision[kind] for kind in kinds if kind in precision}
    view.speed = _kept(view, "eval", "speed.json")
    if found := _kept(view, "eval", "results.json"):
        view.results = _scores(found, view.manifests["eval"].section.get("engines", ()))
        # answers stand in the order of the tasks
        view.lead = next((str(each["task"]) for each in _answers(view) if "task" in each), "test")
    view.steps = [line for line in lines_of(view, "metrics.jsonl") if "loss" in line]


def lines_of(view: RunView, name: str) -> list[dict[str, Any]]:
    """Of a file that train wrote; none where there is no such file."""
    path = view.run.folder("train") / name
    return list(read_jsonl(path)) if "train" in view.manifests and path.exists() else []


def _kept(view: RunView, stage: Stage, name: str) -> dict[str, Any]:
    """A stage's JSON object; empty where the stage or the file is not there or not readable."""
    path = view.run.folder(stage) / name
    if stage not in view.manifests or not path.exists():
        return {}
    try:
        found: dict[str, Any] = _json(path)
    except ChangedInput as error:
        view.warnings.append(Gap(error.message, view.again(stage)))
        return {}
    return found


def rows_of(view: RunView) -> Iterator[dict[str, Any]]:
    """The held-out rows, those of the task `test`."""
    path = view.run.folder("data") / "test.jsonl"
    return read_jsonl(path) if path.exists() else iter(())


def answers_of(view: RunView, task: str) -> Iterator[dict[str, Any]]:
    """Every answer to the task, as `pipe eval` kept it."""
    return (answer for answer in _answers(view) if answer.get("task", task) == task)


def _answers(view: RunView) -> Iterator[dict[str, Any]]:
    path = view.run.folder("eval") / "answers.jsonl"
    return read_jsonl(path) if "eval" in view.manifests and path.exists() else iter(())


def _recipe(run: Run) -> dict[str, Any]:
    path = run.root / "recipe.yaml"
    if not path.exists():
        raise MissingInput(f"{run.root} is not a run.", f"Run: {MADE_BY['data']}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}", "Run: pipe prepare") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{path} is not a mapping of keys.", "Run: pipe prepare")
    return found


def _json(path: Path) -> dict[str, Any]:
    """Raises ChangedInput where the file holds no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ChangedInput(f"{path} is no JSON: {error}", "Remake it with --force.") from None
    if not isinstance(found, dict):
        raise ChangedInput(f"{path} is no JSON object.", "Remake it with --force.")
    return found
