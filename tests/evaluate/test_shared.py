"""Scores without an export, and the base's answers shared by runs that train it otherwise."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.base import open_base
from pipeline.chat import Encoder, chat_format
from pipeline.data.read.sources import open_source
from pipeline.engines.contenders import contenders
from pipeline.errors import MissingInput, StaleInput
from pipeline.evaluate import Means, evaluate, stage
from pipeline.recipe import Recipe
from pipeline.run import Manifest, Run
from tests.evaluate.support import asked, rules, run_before_eval
from tests.support.exported import demo
from tests.support.notes import Notes

BOTH = ("eval.engines=[base,adapter]", "eval.batch_size=1")


def trained(root: Path, facts: Mapping[str, object] | None = None) -> Run:
    """A run without an export."""
    run = run_before_eval(root, facts)
    shutil.rmtree(run.folder("export"))
    return run


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, int]] = []
        self.notes = Notes()
        self.fails: int | None = None
        monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
        monkeypatch.setattr(stage, "contenders", lambda *_: rules(self.log, self.fails)[:2])

    def eval(self, run: Run, recipe: Recipe | None = None, **means: object) -> int:
        """How many questions it asked."""
        self.log.clear()
        self.notes.clear()
        chosen = recipe or demo(*BOTH)
        evaluate(chosen, run, open_base(chosen.model), self.notes, Means(open_source, **means))
        return len(asked(self.log))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_base_and_adapter_are_scored_without_an_export(bench: Bench, tmp_path: Path) -> None:
    run = trained(tmp_path / "r")
    assert bench.eval(run) == 20
    inputs = run.require("eval").inputs
    assert "train/manifest.json" in inputs and "export/manifest.json" not in inputs
    # an export that comes later changes nothing of their scores
    with run.publish("export") as draft:
        draft.manifest = Manifest("export", {}, run.input_entry("train"), facts={"files": {}})
    assert bench.eval(run) == 0 and bench.notes == ["eval is up to date."]
    with run.publish("train") as draft:
        draft.manifest = Manifest("train", {"other": True}, run.input_entry("data"))
    with pytest.raises(StaleInput, match="another train"):
        run.require("eval")


def test_an_engine_of_the_export_needs_it_as_ever(tmp_path: Path) -> None:
    run = trained(tmp_path / "r")

    def names(*engines: str) -> list[str]:
        recipe = demo(f"eval.engines=[{','.join(engines)}]")
        base = open_base(recipe.model)
        encoder = Encoder(base.folder / "tokenizer.json", chat_format(recipe.chat.format))
        return [each.name for each in contenders(recipe, run, base, encoder)]

    assert names("base", "adapter", "merged") == ["base", "adapter", "merged"]
    for engines in ([], ["base", "Q8_0"], ["ollama"]):
        with pytest.raises(MissingInput, match="export is not there"):
            names(*engines)


def test_the_second_run_asks_the_base_nothing(bench: Bench, tmp_path: Path) -> None:
    shared = tmp_path / "base"
    first, second = trained(tmp_path / "one"), trained(tmp_path / "two", {"method": "full"})
    assert bench.eval(first, shared=shared) == 20
    assert bench.eval(second, shared=shared) == 10
    assert bench.notes[-1] == "eval base goes on with 10 answers that are there."
    lines = [
        [line for line in (run.folder("eval") / "answers.jsonl").read_text().splitlines()
         if '"engine": "base"' in line]
        for run in (first, second)
    ]  # fmt: skip
    assert lines[0] == lines[1] and len(lines[0]) == 10
    # the second has copies: what it does with them leaves the shared ones as they are
    kept = {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    (own,) = (second.root / ".eval.work").glob("test-*/base.answers.jsonl")
    own.write_text("")
    assert kept == {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}


@pytest.mark.parametrize("other", ["eval.limit=8", "eval.max_new_tokens=9", "eval.batch_size=2"])
def test_what_is_asked_otherwise_is_asked_anew(bench: Bench, tmp_path: Path, other: str) -> None:
    shared = tmp_path / "base"
    bench.eval(trained(tmp_path / "one"), shared=shared)
    assert bench.eval(trained(tmp_path / "two"), demo(*BOTH, other), shared=shared) >= 16
    assert len(list(shared.iterdir())) == 2


@pytest.mark.parametrize(("drawn", "asked"), [([], 10), (["eval.temperature=0.6"], 20)])
def test_another_seed_asks_anew_only_where_replies_are_drawn(
    bench: Bench, tmp_path: Path, drawn: list[str], asked: int
) -> None:
    shared = tmp_path / "base"
    bench.eval(trained(tmp_path / "one"), demo(*BOTH, *drawn), shared=shared)
    other = demo(*BOTH, *drawn, "seed=1")
    assert bench.eval(trained(tmp_path / "two"), other, shared=shared) == asked


def test_an_eval_that_was_stopped_goes_on_with_its_own_answers(
    bench: Bench, tmp_path: Path
) -> None:
    shared, run = tmp_path / "base", trained(tmp_path / "one")
    bench.fails = 15
    with pytest.raises(KeyboardInterrupt):
        bench.eval(run, shared=shared)
    assert not shared.exists()  # whole or not at all
    bench.fails = None
    assert bench.eval(run, shared=shared) < 20
    assert bench.eval(trained(tmp_path / "two"), shared=shared) == 10
