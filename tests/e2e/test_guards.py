"""What stops a training, or makes it smaller: said plainly, with the last good checkpoint kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipeError
from pipeline.run import Run
from pipeline.run.rows import read_jsonl
from pipeline.train.order import order_of
from pipeline.train.rows import labelled, lengths_of
from tests.e2e.conftest import PLANTED
from tests.support.training import Bench, Outcome, steps_of, work_of

pytestmark = pytest.mark.e2e

STEP = 5
"""Where things go wrong: after the checkpoint of step 3."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        with Bench(tmp_path_factory.mktemp("bench")) as bench:
            yield bench


@pytest.fixture(scope="module")
def rows_of_step(bench: Bench) -> list[int]:
    """The lines of train.jsonl that step STEP learns from, by the order's own rule."""
    encoded = labelled(bench.prepared.folder("data") / "encoded" / "train.arrow")
    order = order_of(lengths_of(encoded), 8, epochs=1, max_steps=12, seed=3407, grouped=False)
    return order.rows_of(STEP)


def failed(outcome: Outcome, run: Run) -> PipeError:
    """Its error, with nothing published and the checkpoint of step 3 kept."""
    assert isinstance(outcome.error, PipeError), outcome
    assert steps_of(run) == [3] and not run.folder("train").exists()
    assert not list(run.root.glob(".train.draft"))
    return outcome.error


@pytest.mark.parametrize(
    ("fault", "words"),
    [("nan", "The loss is nan"), ("infinite_gradient", "The gradient's norm is inf")],
)
def test_a_loss_or_gradient_that_is_no_number_names_its_step_and_its_rows(
    bench: Bench, rows_of_step: list[int], tmp_path: Path, fault: str, words: str
) -> None:
    run = bench.run()
    seen = tmp_path / "seen.jsonl"
    # the fault is in the last of the rows, wherever they are: the step must be found by itself
    faults: dict[str, Any] = {"seen": str(seen), fault: rows_of_step[-1]}
    error = failed(bench.train(run, **faults), run)
    lines = list(read_jsonl(run.folder("data") / "train.jsonl"))
    names = [lines[row]["id"] for row in rows_of_step]
    assert error.message == f"{words} at step {STEP}, whose rows are {', '.join(names)}."
    assert "train.learning_rate" in error.hint
    # and those were really the rows that the model saw
    encoded = labelled(run.folder("data") / "encoded" / "train.arrow")
    saw = [json.loads(line) for line in seen.read_text().splitlines()]
    taken = [ids for step, ids in saw if step == STEP]
    assert taken == [encoded[row]["input_ids"] for row in rows_of_step]
    # nothing of the step is in the weights: without the fault it ends as if there had been none
    bench.train(run)
    assert _weights(run) == _weights_without_fault(bench)


def _weights(run: Run) -> str:
    return run.require("train").outputs["adapter/adapter_model.safetensors"].sha256


def _weights_without_fault(bench: Bench) -> str:
    if not hasattr(bench, "whole"):
        run = bench.run()
        assert bench.train(run).error is None
        bench.whole = _weights(run)  # type: ignore[attr-defined]
    return str(bench.whole)  # type: ignore[attr-defined]


def test_too_little_memory_halves_the_micro_batch_and_the_step_stays_as_large(
    bench: Bench,
) -> None:
    run = bench.run()
    outcome = bench.train(run, memory=1, cut=STEP)
    assert "cut short" in str(outcome.error)
    said = outcome.text
    assert "Memory ran out with 4 rows at a time (CUDA out of memory." in said
    assert "Going on with 2; a step still takes 8 rows." in said
    assert "Memory ran out with 2 rows at a time" in said and "Going on with 1;" in said
    # remembered after the kill
    outcome = bench.train(run, memory=1)
    assert "Memory ran out" not in outcome.text and outcome.manifest
    facts = outcome.manifest.facts
    assert (facts["batch_size"], facts["gradient_accumulation"]) == (1, 8)
    # the same training but for the order of sums
    other = bench.run()
    bench.train(other)
    ours, theirs = _losses(run), _losses(other)
    assert ours[0] == pytest.approx(theirs[0], rel=0.02)
    assert len(ours) == len(theirs) == 12 and ours[-1] < ours[0]


def _losses(run: Run) -> list[float]:
    lines = (run.folder("train") / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_memory_that_does_not_hold_one_row_is_an_error_with_the_cure(bench: Bench) -> None:
    run = bench.run()
    outcome = bench.train(run, memory=0)
    assert isinstance(outcome.error, PipeError)
    assert "Memory ran out with one row at a time: CUDA out of memory" in outcome.error.message
    assert "model.max_seq_length" in outcome.error.hint
    assert not run.folder("train").exists()


@pytest.mark.parametrize("fault", [{"full_disk": 6}, {"file_limit": [6, 100_000]}])
def test_a_full_disk_at_a_checkpoint_is_one_clear_error_and_can_be_gone_on_from(
    bench: Bench, fault: dict[str, Any]
) -> None:
    run = bench.run()
    error = failed(bench.train(run, **fault), run)
    assert error.message.startswith("The checkpoint of step 6 could not be written: ")
    assert "ake room" in error.hint and "Traceback" not in str(error)
    names = [path.name for path in (work_of(run) / "checkpoints").iterdir()]
    assert names == ["step-000003"]  # nothing half-written takes room
    outcome = bench.train(run)
    assert "Going on from the checkpoint of step 3." in outcome.said
    assert _weights(run) == _weights_without_fault(bench)


def test_too_little_room_is_refused_before_the_first_step(bench: Bench) -> None:
    run = bench.run()
    outcome = bench.train(run, little_room=10_000)
    assert isinstance(outcome.error, PipeError)
    assert outcome.error.message.startswith("Training needs 0.0")
    assert "0.000 GB are free" in outcome.error.message
    assert steps_of(run) == [] and not (work_of(run) / "metrics.jsonl").read_text()


def test_no_token_of_the_environment_is_in_any_file(bench: Bench) -> None:
    """Whatever the trainings here left, one that was cut short among them."""
    run = bench.run()
    assert bench.train(run, "sample_every=2", "sample_rows=1", cut=5).error
    assert steps_of(run) == [3]
    files = [path for path in bench.folder.rglob("*") if path.is_file()]
    assert {"train.jsonl", "optimizer.pt", "trace.json", "job.json"} <= {p.name for p in files}
    assert not [path for path in files if path.name == "training_args.bin"]
    for path in files:
        content = path.read_bytes()
        assert not [name for name, value in PLANTED.items() if value.encode() in content], path
