"""The stage: asked once, gone on with after a kill, and published whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.base import open_base
from pipeline.cli import main
from pipeline.cli.evaluate import show_scores
from pipeline.data.read.sources import open_source
from pipeline.engines import trained
from pipeline.engines.contenders import Contender
from pipeline.errors import OllamaUnreachable, PipeError, ServerFailed
from pipeline.evaluate import Means, evaluate, published, stage
from pipeline.evaluate.kept import FOLDER
from pipeline.recipe import Recipe
from pipeline.run import Manifest, Note
from tests.evaluate.support import Rule, asked, rules, run_before_eval, tokens_of_replies
from tests.support.exported import demo

SMALL = ("eval.batch_size=1", "eval.limit=10")
HASHED = ("results.json", "answers.jsonl", "manifest.json")


class Bench:
    """A run, fake engines, and what was said and asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run_before_eval(root)
        self.notes: list[str] = []
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
        return evaluate(chosen, self.run, base, self._emit, Means(open_source, **means))

    def killed(self, after: int, recipe: Recipe | None = None) -> None:
        whole, self.engines = self.engines, rules(self.log, fails=after)
        with pytest.raises(KeyboardInterrupt):
            self.eval(recipe)
        self.engines = whole

    def bytes(self) -> list[bytes]:
        return [(self.run.folder("eval") / name).read_bytes() for name in HASHED]

    def _emit(self, event: object) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "runs" / "r", monkeypatch)


def test_what_is_published_says_who_was_right_how_surely_and_how_fast(bench: Bench) -> None:
    manifest = bench.eval()
    results = published(bench.run)
    assert list(results["engines"]) == ["base", "adapter", "ollama"]
    right = {name: each["exact_match"]["value"] for name, each in results["engines"].items()}
    assert right == {"base": 0.0, "adapter": 0.7, "ollama": 0.7}
    assert results["items"] == 10 and results["samples"] == 1 and results["tasks"] == {}
    assert results["decoding"] == {"max_new_tokens": 96, "temperature": 0.0}
    assert results["engines"]["adapter"]["cross_entropy"]["value"] == 0.5
    assert "cross_entropy" not in results["engines"]["ollama"]
    pairs = {(each["from"], each["to"]) for each in results["comparisons"]}
    assert pairs == {("base", "adapter"), ("adapter", "ollama")}
    speed = results["speed"]["test"]["adapter"]
    assert set(speed) == {"tokens_per_s", "first_token_s", "seconds", "load_s", "memory_bytes"}
    assert manifest.counts == {"test": 10, "test graded": 10}
    assert set(manifest.outputs) == {"results.json", "answers.jsonl"}


def test_the_table_and_the_sentence_below_it_fit_a_terminal(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.eval()
    show_scores(bench.run, False)
    lines = capsys.readouterr().out.splitlines()
    assert "r: 10 questions of test" in lines[0]
    cells = next(line for line in lines if line.strip().startswith("adapter")).split()
    assert cells[:6] == ["adapter", "70.0%", "39.7-89.2", "100.0%", "0.0%", "1.649"]
    said = "adapter answers 70.0% right where base answered 0.0%: +70.0 points (+22.8 to +89.2)"
    assert lines[-1].startswith(said) and lines[-1].endswith(
        "ollama answers as many right as adapter"
    )
    assert all(len(line) <= 80 for line in lines[:-1])
    show_scores(bench.run, True)
    assert json.loads(capsys.readouterr().out)["items"] == 10


def test_each_table_bears_the_name_of_its_own_task_whatever_the_names_are(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a-further-one.jsonl"
    path.write_text(json.dumps({"question": "What is 3 and 1?", "reference": "4"}) + "\n")
    bench.eval(demo(*SMALL, f"eval.tasks=[test, {path}]"))
    show_scores(bench.run, False)
    shown = capsys.readouterr().out
    assert "r: 10 questions of test" in shown and "r: 1 questions of a-further-one" in shown


def test_options_are_shorthands_for_values_of_the_recipe() -> None:
    options = ["--task", "gsm8k", "--engine", "q4_k_m", "--engine", "Base", "--limit", "3"]
    options += ["--samples", "4", "--temperature", "0.6"]
    done = CliRunner().invoke(main, ["eval", "-r", "demo", *options, "--dry-run", "--json"])
    assert done.exit_code == 0
    settings = json.loads(done.stdout)["eval"]["settings"]
    asked = {key: settings[key] for key in ("tasks", "engines", "limit", "samples", "temperature")}
    assert asked == {
        "tasks": ["gsm8k"],
        "engines": ["Q4_K_M", "base"],
        "limit": 3,
        "samples": 4,
        "temperature": 0.6,
    }
    greedy = CliRunner().invoke(main, ["eval", "-r", "demo", "--samples", "4"])
    assert greedy.exit_code == 2 and "greedy samples are all the same" in greedy.stderr


def test_every_reply_is_kept_with_its_metrics(bench: Bench) -> None:
    bench.eval()
    lines = (bench.run.folder("eval") / "answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [each["engine"] for each in answers[::10]] == ["base", "adapter", "ollama"]
    second = answers[11]
    assert second["task"] == "test" and second["id"] == "r1" and second["sample"] == 0
    assert second["stopped"] and second["tokens"] == 9 and second["text"].endswith("It is 2.")
    assert second["metrics"] == {
        "cross_entropy": 0.5,
        "exact_match": 1.0,
        "repetition": 0.0,
        "reply_tokens": 9.0,
        "rouge_l": 1.0,
        "thinking_tokens": second["metrics"]["thinking_tokens"],
        "truncated": 0.0,
        "well_formed": 1.0,
        "wrong": 0.0,
    }
    assert second["metrics"]["thinking_tokens"] > 0


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


def test_samples_have_seeds_of_their_own_and_all_engines_the_same(bench: Bench) -> None:
    bench.eval(demo(*SMALL, "eval.samples=3", "eval.temperature=0.6", "seed=100"))
    lines = (bench.run.folder("eval") / "answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    seeds = [int(each["text"].split("(")[1].split(")")[0]) for each in answers]
    assert seeds == [*range(100, 130)] * 3
    assert [each["sample"] for each in answers[:4]] == [0, 1, 2, 0]
    assert published(bench.run)["decoding"] == {
        "max_new_tokens": 96,
        "temperature": 0.6,
        "top_p": 0.95,
        "seed": 100,
    }


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
        draft.manifest = Manifest("export", {"other": True}, entries)
    bench.eval()
    assert not bench.notes and len(asked(bench.log)) == 30


def test_a_server_that_goes_away_is_left_out_and_said(bench: Bench) -> None:
    def gone() -> None:
        raise OllamaUnreachable("No Ollama server answers.")

    whole = bench.engines
    bench.engines = [*whole[:2], replace(whole[2], open=gone)]
    manifest = bench.eval()
    assert bench.notes == ["ollama is left out: No Ollama server answers."]
    assert manifest.section["engines"] == ["base", "adapter"]
    bench.engines = whole
    bench.eval()
    assert len(asked(bench.log)) == 10  # ollama's own
    bench.engines = whole[:2]
    bench.eval()
    assert bench.notes == ["eval is up to date."]


def test_no_engine_at_all_is_an_error(bench: Bench) -> None:
    def gone() -> None:
        raise OllamaUnreachable("No Ollama server answers.")

    bench.engines = [Contender("ollama", gone, False)]
    with pytest.raises(PipeError, match="No engine answered"):
        bench.eval()


def test_questions_that_cannot_be_graded_are_counted_and_said(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    gold = ["3", "9^{9^{9^{9}}}", "3"]
    rows = [{"question": "What is 2 + 1?", "reference": each} for each in gold]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    manifest = bench.eval(demo(*SMALL, f"eval.tasks=[{path}]"))
    assert bench.notes[0].startswith("odd: 1 of 3 references cannot be read by math-verify")
    assert manifest.counts == {"odd": 3, "odd graded": 2}
    assert published(bench.run)["engines"]["adapter"]["exact_match"]["value"] == 1.0


def test_rows_beyond_the_context_are_left_out_of_perplexity_and_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"id": "long", "question": "What is 1 + 1?", "answer": "two " * 2000, "reference": "2"}
    path = bench.run.root / "long.jsonl"
    path.write_text(json.dumps(long) + "\n")
    bench.eval(demo(*SMALL, f"eval.tasks=[test, {path}]"))
    assert "long: 1 of 1 rows are longer than the context of 1024 tokens" in bench.notes[0]
    assert "perplexity" not in published(bench.run)["tasks"]["long"]["engines"]["base"]
    whole = published(bench.run)["engines"]["base"]
    assert whole["perplexity"]["value"] == pytest.approx(1.648721)
    kept = next((bench.run.root / FOLDER).glob("test-*")) / "base.scores.jsonl"
    counted = sum(json.loads(line)["tokens"] for line in kept.read_text().splitlines())
    assert counted == tokens_of_replies(bench.recipe, 10)


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
    assert bench.notes[1].startswith("The adapter was trained on a base in 8 bits")
    bench.engines = bench.engines[2:]
    bench.eval(recipe, force=True)
    assert bench.notes == []  # Ollama alone is opened as ever


def test_a_model_trained_in_full_is_called_so_and_merged_is_said_to_be_left_out(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run = run_before_eval(bench.run.root.parent / "full", {"method": "full"})
    bench.engines[1] = replace(bench.engines[1], label="tuned (full)")
    bench.eval()
    assert bench.notes == [
        "merged is left out: trained in full, `adapter` is the tuned model itself."
    ]
    assert list(published(bench.run)["engines"]) == ["base", "adapter", "ollama"]
    show_scores(bench.run, False)
    shown = capsys.readouterr().out
    assert "tuned (full) answers 70.0% right where base answered 0.0%" in shown
    assert "ollama answers as many right as tuned (full)" in shown and "adapter" not in shown
    bench.eval(demo(*SMALL, "eval.engines=[base,adapter,ollama]"))
    assert not any("merged" in note for note in bench.notes)  # it was not asked for


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


def test_an_endpoint_that_goes_away_is_left_out_and_said(bench: Bench) -> None:
    def gone() -> None:
        raise ServerFailed("The endpoint stopped answering.")

    bench.engines = [*bench.engines[:2], Contender("endpoint", gone, False)]
    assert bench.eval().section["engines"] == ["base", "adapter"]
    assert bench.notes == ["endpoint is left out: The endpoint stopped answering."]


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


@pytest.mark.parametrize("odd", [float("nan"), float("-inf")])
def test_likelihoods_that_are_no_numbers_are_said_and_not_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, odd: float
) -> None:
    def broken(self: Rule, sequences: list, keep: Path | None = None) -> list:
        value = odd if self.name == "adapter" else -0.5
        return [np.full(len(s.ids) - s.target_start, value, np.float32) for s in sequences]

    monkeypatch.setattr(Rule, "score", broken)
    bench.eval()
    said = "score adapter: 10 of 10 likelihoods are no finite numbers"
    assert len(bench.notes) == 1 and bench.notes[0].startswith(said)
    engines = published(bench.run)["engines"]
    assert "perplexity" not in engines["adapter"] and engines["base"]["cross_entropy"]
    assert "NaN" not in (bench.run.folder("eval") / "answers.jsonl").read_text()


def test_answers_in_prose_are_not_held_against_one_another_and_it_is_said(
    bench: Bench, tmp_path: Path
) -> None:
    prose = "Because light of short waves is scattered more than light of long waves."
    path = tmp_path / "prose.jsonl"
    rows = [{"question": "What is 2 + 1?", "answer": each} for each in (prose, "It is 3.")]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    manifest = bench.eval(demo(*SMALL, f"eval.tasks=[{path}]"))
    assert bench.notes[0].startswith("prose: 1 of 2 questions have no reference, nor an answer")
    assert manifest.counts == {"prose": 2, "prose graded": 1}
    assert published(bench.run)["engines"]["adapter"]["exact_match"]["value"] == 1.0


def test_answers_to_other_tasks_say_what_was_asked(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text('{"question": "What is 2 + 1?", "reference": 3}\n')
    bench.eval(demo(*SMALL, f"eval.tasks=[test, {path}]"))
    lines = (bench.run.folder("eval") / "answers.jsonl").read_text().splitlines()
    own, other = json.loads(lines[0]), json.loads(lines[-1])
    assert "question" not in own and "reference" not in own
    assert (other["question"], other["reference"]) == ("What is 2 + 1?", "3")
