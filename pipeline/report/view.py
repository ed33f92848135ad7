"""What is known of a run: what its stages left, what is missing, what no longer holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engines.trained import shown
from pipeline.report.words import listed
from pipeline.run import Manifest, Run, Stage
from pipeline.run.folder import made_again, made_from

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

    @property
    def said(self) -> str:
        """In one line."""
        return f"{self.text} Run: {self.command}"


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
    freed: dict[Stage, list[str]] = field(default_factory=dict)
    """Stage -> its files that `pipe clean` took, of the stages of which some are gone."""
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

    @property
    def freed_gaps(self) -> list[Gap]:
        """What `pipe clean` took, and how to have it again, by stage."""
        return [
            # export makes again what is not there, and nothing else
            Gap(
                _gone(stage, names),
                self.command("export") if stage == "export" else self.again(stage),
            )
            for stage, names in self.freed.items()
        ]

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


def _gone(stage: Stage, names: Sequence[str]) -> str:
    paths = listed([f"{stage}/{name}" for name in names])
    return f"{paths} {'is' if len(names) == 1 else 'are'} not there: pipe clean freed the disk."


def _in_order(export: Manifest | None, named: Mapping[str, str]) -> list[str]:
    asked = export.section.get("export", {}).get("quantize", ()) if export else ()
    return [kind for kind in asked if kind in named] + [kind for kind in named if kind not in asked]
