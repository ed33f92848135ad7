"""What was asked is not asked again: after a kill, by another eval, with the same engines alone."""

from pathlib import Path

import pytest

from pipeline.engines import trained
from pipeline.errors import PipeError
from pipeline.evaluate import published
from pipeline.evaluate.kept import FOLDER
from pipeline.run import Manifest
from tests.evaluate.bench import SMALL, Bench
from tests.evaluate.support import asked
from tests.support.exported import demo


@pytest.mark.parametrize("after", [1, 4, 9, 16, 22, 43])
def test_killed_anywhere_and_gone_on_with_it_leaves_the_same_bytes(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    recipe = demo(*SMALL, "eval.samples=2", "eval.temperature=0.6", "eval.engines=[base,adapter]")
    bench.engines = bench.engines[:2]
    bench.eval(recipe)
    whole, questions = bench.bytes(), asked(bench.log)
    other = Bench(tmp_path / "runs" / "other", monkeypatch)
    other.engines = other.engines[:2]
    other.killed(after, recipe)
    before = asked(other.log)
    assert not other.run.folder("eval").exists()
    other.eval(recipe)
    assert other.bytes() == whole
    # a leg of four is asked again at most
    assert len(questions) <= len(before) + len(asked(other.log)) < len(questions) + 4


def test_going_on_says_with_how_many(bench: Bench) -> None:
    bench.killed(9)
    bench.eval()
    assert bench.notes == ["eval base goes on with 8 answers that are there."]


def test_what_is_done_is_not_done_again_but_by_force(bench: Bench) -> None:
    bench.eval()
    first = bench.bytes()
    bench.eval()
    assert bench.notes == ["eval is up to date."] and bench.log == []
    bench.eval(force=True)
    assert len(asked(bench.log)) == 30 and bench.bytes() == first


def test_another_metric_asks_no_question_again(bench: Bench, tmp_path: Path) -> None:
    bench.eval()
    file = tmp_path / "brief.py"
    file.write_text("def metric(row, reply):\n    return len(reply) < 40\n")
    manifest = bench.eval(metric_files=(file,))
    assert bench.log == []
    assert published(bench.run)["engines"]["base"]["brief"]["value"] == 1.0
    assert "metric/brief.py" in manifest.inputs
    speed = published(bench.run)["speed"]["test"]["adapter"]
    assert {"tokens_per_s", "load_s", "memory_bytes", "first_token_s"} <= set(speed)


def test_another_task_joins_and_only_it_is_asked(bench: Bench, tmp_path: Path) -> None:
    bench.eval()
    path = tmp_path / "more.jsonl"
    path.write_text('{"question": "What is 2 + 1?", "reference": "3"}\n' * 3)
    bench.eval(demo(*SMALL, f"eval.tasks=[test, {path}]"))
    assert len(asked(bench.log)) == 9
    more = published(bench.run)["tasks"]["more"]
    assert more["items"] == 3 and more["engines"]["adapter"]["exact_match"]["value"] == 1.0
    assert "cross_entropy" not in more["engines"]["adapter"]
    kept = {path.name.split("-")[0] for path in (bench.run.root / FOLDER).iterdir()}
    assert kept == {"test", "more", "pins.json"}


def test_other_questions_or_another_export_are_asked_anew(bench: Bench) -> None:
    bench.eval()
    bench.eval(demo("eval.batch_size=1", "eval.limit=5"))
    assert len(asked(bench.log)) == 12  # the fifth was asked alone, in a leg of its own
    with bench.run.publish("export") as draft:
        entries = bench.run.input_entry("train")
        draft.manifest = Manifest("export", {"other": True}, entries, facts={"files": {}})
    bench.eval()
    assert not bench.notes and len(asked(bench.log)) == 30


def test_the_last_line_of_an_answer_that_was_torn_is_asked_again(bench: Bench) -> None:
    bench.killed(9)
    kept = next((bench.run.root / FOLDER).glob("test-*")) / "base.answers.jsonl"
    kept.write_bytes(kept.read_bytes()[:-5])
    bench.eval()
    whole = bench.bytes()
    bench.eval(force=True)
    assert bench.bytes() == whole


@pytest.mark.parametrize(
    "setting", ["serve.num_ctx=2048", "train.method=lora", "train.device=cuda"]
)
def test_engines_opened_otherwise_are_asked_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setattr(trained, "has_gpu", lambda: True)
    bench.eval()
    bench.eval(demo(*SMALL, setting))
    assert not bench.notes and len(asked(bench.log)) == 30


def test_a_run_of_another_machine_s_gpu_is_looked_at_on_the_cpu_and_this_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = demo(*SMALL, "train.device=cuda", "train.method=lora-8bit")
    monkeypatch.setattr(trained, "has_gpu", lambda: True)
    assert bench.eval(recipe).facts["device"] == "cuda" and bench.notes == []
    monkeypatch.setattr(trained, "has_gpu", lambda: False)
    bench.eval(recipe)
    assert bench.notes == ["eval is up to date."]  # the scores of the GPU stay good
    assert bench.eval(recipe, force=True).facts["device"] == "cpu"
    assert bench.notes[0].startswith("No driver of a GPU is here")
    bench.engines = bench.engines[2:]
    bench.eval(recipe, force=True)
    assert bench.notes == []  # Ollama alone is opened as ever


def registered(bench: Bench, digest: str, num_ctx: int) -> None:
    model = {"name": "my-model", "digest": digest, "type": "Q8_0"}
    facts = {"models": [model], "parameters": {"num_ctx": num_ctx}}
    with bench.run.publish("serve") as draft:
        entries = bench.run.input_entry("export")
        draft.manifest = Manifest("serve", {}, entries, facts=facts)


@pytest.mark.parametrize("other", [("sha256:2", 1024), ("sha256:1", 2048)])
def test_another_model_under_the_name_is_asked_anew_and_alone(
    bench: Bench, other: tuple[str, int]
) -> None:
    registered(bench, "sha256:1", 1024)
    bench.eval()
    registered(bench, *other)
    bench.eval()
    assert len(asked(bench.log)) == 10 and not any("ollama" in note for note in bench.notes)
    bench.engines = bench.engines[:2]
    bench.eval()
    assert bench.notes == ["eval is up to date."]  # while the server is away


def test_force_clears_nothing_before_all_that_was_asked_for_is_found_good(
    bench: Bench, tmp_path: Path
) -> None:
    bench.killed(9)
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"question": " "}\n')
    for bad in (str(empty), "no-such-task"):
        with pytest.raises(PipeError):
            bench.eval(demo(*SMALL, f"eval.tasks=[{bad}]"), force=True)
    bench.eval()
    assert bench.notes == ["eval base goes on with 8 answers that are there."]
