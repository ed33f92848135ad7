"""A run, fake engines, and an eval of them that may be killed."""

from pathlib import Path

import pytest

from pipeline.base import open_base
from pipeline.data.read.sources import open_source
from pipeline.evaluate import Means, evaluate, stage
from pipeline.recipe import Recipe
from pipeline.run import Manifest
from tests.evaluate.support import rules, run_before_eval
from tests.support.exported import demo
from tests.support.notes import Notes

SMALL = ("eval.batch_size=1", "eval.limit=10")
HASHED = ("results.json", "answers.jsonl", "manifest.json")


class Bench:
    """A run, fake engines, and what was said and asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run_before_eval(root)
        self.notes = Notes()
        self.log: list[tuple[str, int]] = []
        self.engines = rules(self.log)
        self.recipe = demo(*SMALL)
        monkeypatch.setattr(stage, "contenders", lambda *_: self.engines)
        monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # no server answers here

    def eval(self, recipe: Recipe | None = None, **means: object) -> Manifest:
        self.log.clear()
        self.notes.clear()
        chosen = recipe or self.recipe
        base = open_base(chosen.model)
        return evaluate(chosen, self.run, base, self.notes, Means(open_source, **means))

    def killed(self, after: int, recipe: Recipe | None = None) -> None:
        whole, self.engines = self.engines, rules(self.log, fails=after)
        with pytest.raises(KeyboardInterrupt):
            self.eval(recipe)
        self.engines = whole

    def bytes(self) -> list[bytes]:
        return [(self.run.folder("eval") / name).read_bytes() for name in HASHED]
