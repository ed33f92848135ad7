"""The stage: every engine asked, and what is published, said and left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.contenders import Contender
from pipeline.errors import OllamaUnreachable, PipeError, ServerFailed
from pipeline.evaluate import published
from pipeline.evaluate.kept import FOLDER
from tests.evaluate.bench import SMALL, Bench
from tests.evaluate.support import Rule, asked, tokens_of_replies
from tests.support.exported import demo


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


def gone() -> None:
    raise OllamaUnreachable("No Ollama server answers.")


def test_a_server_that_goes_away_is_left_out_and_said(bench: Bench) -> None:
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


def test_an_endpoint_that_goes_away_is_left_out_and_said(bench: Bench) -> None:
    def gone() -> None:
        raise ServerFailed("The endpoint stopped answering.")

    bench.engines = [*bench.engines[:2], Contender("endpoint", gone, False)]
    assert bench.eval().section["engines"] == ["base", "adapter"]
    assert bench.notes == ["endpoint is left out: The endpoint stopped answering."]


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
