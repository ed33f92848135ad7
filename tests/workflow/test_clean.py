"""pipe clean: what nobody needs goes, and the run stands as it stood."""

import os
import shutil
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.ollama import OllamaServer
from pipeline.errors import FreedInput, MissingInput, PipeError, RunLocked
from pipeline.recipe import Recipe, load
from pipeline.run import Run, silent
from pipeline.workflow import Work, status
from pipeline.workflow.clean import clean, looked_through
from pipeline.workflow.cleanable import TRASH, Item, Wish
from tests.support.finished import compared, finished, publish, unfinished_training

RECIPE: Recipe = load("demo").recipe
SAFE = Wish()
ALL = Wish(exports=True, variants=True, unfinished=True)
WISHES = [Wish(*each) for each in product((False, True), repeat=3)]
LEFT = (
    ".export.draft/demo-Q8_0.gguf.part",
    ".eval.draft/results.json",
    ".data.shared/train.jsonl",
    ".check-1a2b/base.gguf",
    ".recipe.yaml.tmp",
    "compare/.results.json.tmp",
    "quant/.quant.csv.tmp",
    ".base/tiny-Q8_0-1a2b.gguf",
    ".eval.work/test-1a2b/base.answers.jsonl",
    ".data.parts/0-1a2b/0000000-1a2b.arrow",
    ".quant.work/tuned-1a2b/merged/model.safetensors",
    ".clean.gone/base.gguf",
)
"""What commands leave that were killed, or had something to keep for the next."""
OURS = (
    ".chat_history",
    ".quant.work/rows/tuned-nf4.json",
    "compare/results.txt",
    "notes/.hidden",
    "report.html",
    "tracking/tensorboard/events",
)
"""What is nobody's to remove."""


@pytest.fixture
def run(tmp_path: Path, template: Run) -> Run:
    return Run(Path(shutil.copytree(template.root, tmp_path / "runs" / "demo")))


@pytest.fixture
def served(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Model -> digest that it runs on in Ollama, which has both files."""
    facts = run.require("serve").facts
    models = {each["name"]: each["digest"] for each in facts["models"]}
    monkeypatch.setattr(OllamaServer, "runs", lambda _, name, digest: models.get(name) == digest)
    return models


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")


def files(root: Path) -> set[str]:
    """Every file but locks, which say who was there last."""
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    return {name for name in found if not name.endswith(".lock")}


def goes(run: Run, wish: Wish = SAFE) -> dict[str, Item]:
    return {item.path: item for item in looked_through(run, wish) if item.goes}


def stays(run: Run, wish: Wish = SAFE) -> dict[str, Item]:
    return {item.path: item for item in looked_through(run, wish) if not item.goes}


def cleaned(run: Run, wish: Wish = SAFE) -> list[str]:
    return [item.path for item in clean(run, wish, goes(run, wish))]


def states(run: Run) -> set[str]:
    found = status(Work(RECIPE, run, silent))
    return {state for stage, state in found.items() if stage != "check"}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("template") / "demo", RECIPE)


@settings(max_examples=10)
@given(left=st.sets(st.sampled_from(LEFT)), ours=st.sets(st.sampled_from(OURS)))
def test_all_that_is_left_over_goes_and_nothing_else(
    template: Run, left: set[str], ours: set[str]
) -> None:
    with TemporaryDirectory() as folder:
        run = Run(Path(shutil.copytree(template.root, Path(folder) / "demo")))
        put(run.root, *ours)
        before = files(run.root)
        put(run.root, *left)
        assert len(cleaned(run)) == len(left)
        assert files(run.root) == before
        assert states(run) == {"done"} and not goes(run)


def test_looking_removes_nothing_and_counts_the_bytes(run: Run) -> None:
    put(run.root, *LEFT)
    before = files(run.root)
    assert {item.bytes for item in goes(run, ALL).values() if item.path[0] == "."} == {5}
    assert files(run.root) == before


def test_what_was_not_shown_is_not_removed(run: Run) -> None:
    put(run.root, *LEFT)
    shown = goes(run)
    put(run.root, ".train.draft/late", ".serve.draft/late")
    assert {item.path for item in clean(run, Wish(), shown)} == set(shown)
    assert set(goes(run)) == {".serve.draft", ".train.draft"}


@pytest.mark.parametrize("wish", WISHES)
def test_a_training_that_can_be_gone_on_with_never_goes(run: Run, wish: Wish) -> None:
    pins = unfinished_training(run)
    put(run.root, ".train.draft/result/adapter_model.safetensors")
    pins.write_text(pins.read_text().replace(str(RECIPE.seed), "1"))
    cleaned(run, wish)
    assert ".train.work/checkpoints/step-000010/weights" in files(run.root)
    assert ".train.draft/result/adapter_model.safetensors" in files(run.root)
    assert stays(run, wish)[".train.work"].again == "pipe train --force gives it up"


def test_checkpoints_of_a_training_that_has_ended_go(run: Run) -> None:
    unfinished_training(run)
    assert goes(run)[".train.work"].bytes > 700
    assert cleaned(run) == [".train.work"] and states(run) == {"done"}


def test_checkpoints_stay_where_the_weights_are_not_as_they_were_written(run: Run) -> None:
    unfinished_training(run)
    (run.folder("train") / "adapter" / "adapter_model.safetensors").write_bytes(b"rot")
    assert ".train.work" in stays(run, ALL)


def test_what_a_stopped_eval_or_prepare_goes_on_from_goes_only_if_it_is_asked_for(
    run: Run,
) -> None:
    put(run.root, ".eval.work/test-1a2b/base.answers.jsonl", ".data.parts/0-1/0.arrow")
    (run.folder("data") / "train.jsonl").write_text("changed")
    kept = {path: item.again for path, item in stays(run).items() if path.startswith(".")}
    assert kept == dict.fromkeys([".data.parts", ".eval.work"], "pipe clean --unfinished")
    assert cleaned(run, Wish(unfinished=True)) == [".data.parts", ".eval.work"]


def test_nothing_is_removed_through_a_link(run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, "work/answers.jsonl", "compare/.results.json.tmp", "gguf")
    (run.root / ".eval.work").symlink_to(outside / "work")
    (run.root / "compare").symlink_to(outside / "compare")
    put(run.root, ".base/own.gguf")
    (run.root / ".base" / "theirs.gguf").symlink_to(outside / "gguf")
    assert cleaned(run, ALL) == [".base"]
    assert {".eval.work", "compare/.results.json.tmp"} <= set(stays(run))
    assert files(outside) == {"work/answers.jsonl", "compare/.results.json.tmp", "gguf"}


def test_a_run_in_a_folder_reached_by_a_link_is_cleaned(run: Run, tmp_path: Path) -> None:
    put(run.root, ".base/own.gguf")
    (tmp_path / "disk").symlink_to(run.root)
    assert cleaned(Run(tmp_path / "disk")) == [".base"]


def test_a_file_with_another_name_elsewhere_gives_nothing_back(run: Run, tmp_path: Path) -> None:
    put(run.root, ".base/a.gguf", ".base/b.gguf")
    os.link(run.root / ".base" / "a.gguf", tmp_path / "a.gguf")
    assert goes(run)[".base"].bytes == 5


@pytest.mark.parametrize("held", [".", "compare/runs/r=8"])
def test_nothing_is_taken_from_under_a_running_command(run: Run, held: str) -> None:
    compared(run, RECIPE, ["r=8", "r=16"], "r=8")
    put(run.root, ".base/a.gguf")
    with Run(run.root / held).lock():
        for act in (lambda: looked_through(run, SAFE), lambda: clean(run, ALL, [".base"])):
            with pytest.raises(RunLocked):
                act()
    assert ".base/a.gguf" in files(run.root)


def test_what_is_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="is not a run"):
        looked_through(Run(tmp_path / "none"), Wish())
    assert not (tmp_path / "none").exists()


def test_the_system_s_refusal_is_one_clear_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run.root, ".recipe.yaml.tmp")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PipeError, match=r"recipe\.yaml\.tmp could not be removed"):
        cleaned(run)


def test_a_removal_that_was_killed_is_ended_by_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run.root, ".base/a.gguf")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def killed(*_: object, ignore_errors: bool = False) -> None:
            if not ignore_errors:
                raise KeyboardInterrupt

        patched.setattr("pipeline.workflow.clean.shutil.rmtree", killed)
        cleaned(run)
    assert not (run.root / ".base").exists()
    assert cleaned(run) == [TRASH]


def test_exports_stay_unless_they_are_asked_for(run: Run) -> None:
    assert set(stays(run)) == {"export/demo-Q8_0.gguf", "export/demo-Q4_K_M.gguf"}
    assert cleaned(run) == []


def test_exports_that_ollama_has_go_and_the_run_stays_done(
    run: Run, served: dict[str, str]
) -> None:
    served["demo"] = "sha256:another"
    kept = stays(run, Wish(exports=True))["export/demo-Q8_0.gguf"]
    assert "another file" in kept.why and kept.again.startswith("pipe register")
    assert cleaned(run, Wish(exports=True)) == ["export/demo-Q4_K_M.gguf"]
    assert states(run) == {"done"}
    assert run.freed("export") == ["demo-Q4_K_M.gguf"]
    with pytest.raises(FreedInput, match="pipe clean") as caught:
        run.require("export")
    assert caught.value.hint == "Make it again: pipe export"
    # the other one can be used
    run.check_there("export", ["demo-Q8_0.gguf", "Modelfile"])
    assert cleaned(run, Wish(exports=True)) == []


def test_a_freed_stage_is_not_done_again_and_is_whole_once_it_was(
    run: Run, served: dict[str, str]
) -> None:
    made = run.require("export")
    cleaned(run, Wish(exports=True))
    assert run.freed("export") == sorted(["demo-Q8_0.gguf", "demo-Q4_K_M.gguf"])
    assert run.is_done(made)
    publish(run, RECIPE, "export", {name: entry.bytes for name, entry in made.outputs.items()})
    assert run.freed("export") == [] and "export/freed.json" not in files(run.root)


def test_a_file_that_went_without_pipe_clean_is_still_a_change(
    run: Run, served: dict[str, str]
) -> None:
    served["demo"] = "sha256:another"
    cleaned(run, Wish(exports=True))
    (run.folder("export") / "Modelfile").unlink()
    assert status(Work(RECIPE, run, silent))["export"] == "changed"


def test_a_kill_leaves_no_file_gone_that_is_not_recorded(
    run: Run, served: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".gguf":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        cleaned(run, Wish(exports=True))
    assert (run.folder("export") / "freed.json").is_file()
    assert run.freed("export") == [] and states(run) == {"done"}


@pytest.mark.parametrize("lost", ["train/adapter/adapter_model.safetensors", "train/manifest.json"])
def test_exports_that_could_not_be_made_again_stay(
    run: Run, served: dict[str, str], lost: str
) -> None:
    (run.root / lost).unlink()
    kept = stays(run, ALL)
    assert "could not be made again" in kept["export/demo-Q8_0.gguf"].why
    assert cleaned(run, ALL) == []


def test_exports_stay_where_ollama_does_not_answer(run: Run) -> None:
    kept = stays(run, Wish(exports=True))["export/demo-Q8_0.gguf"]
    assert "is not known" in kept.why


def test_of_a_comparison_the_best_variant_and_all_figures_stay(run: Run) -> None:
    eight, sixteen = compared(run, RECIPE, ["r=8", "r=16"], "r=16")
    put(eight.root, ".base/a.gguf", ".eval.work/test-1a2b/base.answers.jsonl")
    assert goes(run)["compare/runs/r=8/.eval.work"].again.startswith("pipe compare asks")
    shutil.rmtree(eight.root / ".eval.work")
    before = files(run.root)
    gone = {
        "compare/runs/r=8/.base/a.gguf",
        "compare/runs/r=8/train/adapter/adapter_model.safetensors",
        "compare/runs/r=8/export/demo-Q8_0.gguf",
        "compare/runs/r=8/export/demo-Q4_K_M.gguf",
    }
    assert set(goes(run)) == {"compare/runs/r=8/.base"}
    cleaned(run, Wish(variants=True))
    records = {f"compare/runs/r=8/{stage}/freed.json" for stage in ("train", "export")}
    assert files(run.root) == before - gone | records
    # a comparison goes on from what stands there as done
    assert states(eight) == states(sixteen) == {"done"}


def test_a_comparison_may_be_all_that_there_is(tmp_path: Path) -> None:
    run = Run(tmp_path / "demo")
    compared(run, RECIPE, ["r=8", "r=16"], "r=16")
    assert "compare/runs/r=8/train/adapter/adapter_model.safetensors" in cleaned(run, ALL)


@pytest.mark.parametrize("best", [None, "r=16"])
def test_variants_without_kept_results_stay(run: Run, best: str | None) -> None:
    compared(run, RECIPE, ["r=8", "r=16"], best)
    if best:
        (run.root / "compare" / "results.json").write_text("{torn")
    assert cleaned(run, Wish(variants=True)) == []


def test_weights_of_the_run_itself_never_go(run: Run, served: dict[str, str]) -> None:
    compared(run, RECIPE, ["r=8", "r=16"], "r=16")
    cleaned(run, ALL)
    for stage in ("data", "train", "serve", "eval"):
        run.require(stage)
    assert "train/adapter/adapter_model.safetensors" in files(run.root)
