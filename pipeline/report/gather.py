"""One view of a run: what its stages left, what is missing, what is no longer true."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.engines.trained import shown
from pipeline.errors import ChangedInput, MissingInput, RecipeError, StaleInput
from pipeline.run import Manifest, Run, Stage
from pipeline.run.folder import MADE_BY, made_again, made_from
from pipeline.run.rows import read_jsonl

_GAPS: dict[Stage, str] = {
    "data": "There is no data.",
    "train": "Nothing is trained.",
    "export": "No GGUF is written.",
    "serve": "The model is not registered with Ollama.",
    "check": "No gate has been checked.",
    "eval": "The quality has not been measured.",
}
TUNED = ("adapter", "merged")
_DONE: dict[Stage, tuple[str, str]] = {"check": ("Checked", "for"), "eval": ("Measured", "on")}
_EARLIER: dict[Stage, str] = {
    "data": "earlier data",
    "train": "an earlier training",
    "export": "an earlier export",
}


@dataclass(frozen=True)
class Gap:
    """What the page cannot show or vouch for, and the command that helps."""

    text: str
    command: str


@dataclass
class RunView:
    run: Run
    options: str
    """What follows a `pipe` command that means this run, such as `-r demo`."""
    recipe: dict[str, Any]
    manifests: dict[Stage, Manifest] = field(default_factory=dict)
    gaps: dict[Stage, Gap] = field(default_factory=dict)
    warnings: list[Gap] = field(default_factory=list)
    stale: dict[Stage, Stage] = field(default_factory=dict)
    """Stage -> what it came from that is another now."""
    changed: set[Stage] = field(default_factory=set)
    """Stages of which a file, or the manifest of what they came from, is not as written."""
    stats: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """What metrics.jsonl says of each step; its other lines are losses on other rows."""
    log: dict[str, Any] = field(default_factory=dict)
    """training_log.json: seconds and memory."""
    results: dict[str, Any] = field(default_factory=dict)
    """Those of the leading task on top, of further ones under `tasks`."""
    lead: str = "test"
    speed: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)

    def command(self, words: str) -> str:
        return f"pipe {words} {self.options}".strip()

    def again(self, stage: Stage) -> str:
        """The command that does a stage again, though it seems to be done."""
        return self.command(made_again(stage).removeprefix("pipe "))

    def gap(self, stage: Stage) -> Gap:
        """What to say where the page finds nothing of a stage."""
        return self.gaps.get(stage) or Gap("What it left cannot be read.", self.again(stage))

    def doubt(self, stage: Stage) -> str:
        """Why what a stage found does not hold of what is there now; empty where it does."""
        done, on = _DONE[stage]
        if stage in self.stale:
            return f"{done} {on} {_EARLIER[self.stale[stage]]}"
        made = self.manifests.get(stage)
        changed = self.changed & {stage, *(made_from(made) if made else ())}
        return f"{done} before files were changed" if changed else ""

    def facts(self, stage: Stage) -> Mapping[str, Any]:
        manifest = self.manifests.get(stage)
        return manifest.facts if manifest else {}

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task -> its results; the leading one first."""
        if not self.results:
            return {}
        return {self.lead: self.results} | dict(self.results.get("tasks") or {})

    @property
    def engines(self) -> dict[str, dict[str, Any]]:
        """Engine -> metrics on the leading task, in the order of the work."""
        return dict(self.results.get("engines", {}))

    @property
    def tuned(self) -> str | None:
        """The engine that stands for the trained model."""
        return next(
            (n for n in (*TUNED, *self.files, "ollama", "endpoint") if n in self.engines), None
        )

    def shown(self, engine: str) -> str:
        """An engine's name for people, by how the run was trained when it was measured."""
        made = self.manifests.get("eval")
        return shown(engine, made.section.get("method") if made else None)

    @property
    def files(self) -> dict[str, str]:
        """Quantization type -> file name, in the order asked for."""
        named: dict[str, str] = self.facts("export").get("files", {})
        return {kind: named[kind] for kind in _in_order(self.manifests.get("export"), named)}

    @property
    def sizes(self) -> dict[str, int]:
        """Quantization type -> bytes."""
        export = self.manifests.get("export")
        outputs = export.outputs if export else {}
        return {kind: outputs[file].bytes for kind, file in self.files.items() if file in outputs}

    @property
    def served(self) -> str | None:
        """The model's name in Ollama, where it was registered."""
        models = self.facts("serve").get("models") or [{}]
        name = models[0].get("name")
        return str(name) if name else None

    @property
    def serve_name(self) -> str:
        return self.served or str(self.recipe.get("serve", {}).get("name", self.run.name))


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
    try:
        run.require(stage)
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


def is_right(answer: Mapping[str, Any]) -> bool | None:
    """None where the answer was not graded."""
    graded = answer.get("metrics", {}).get("exact_match")
    return None if graded is None else graded >= 0.5


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


def _in_order(export: Manifest | None, named: Mapping[str, str]) -> list[str]:
    asked = export.section.get("export", {}).get("quantize", ()) if export else ()
    return [kind for kind in asked if kind in named] + [kind for kind in named if kind not in asked]


def _json(path: Path) -> dict[str, Any]:
    """Raises ChangedInput where the file holds no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ChangedInput(f"{path} is no JSON: {error}", "Remake it with --force.") from None
    if not isinstance(found, dict):
        raise ChangedInput(f"{path} is no JSON object.", "Remake it with --force.")
    return found
