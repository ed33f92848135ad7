"""The stage around the training processes: what it tells them, takes from them and publishes."""

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import Base, open_base
from pipeline.chat import chat_format
from pipeline.child import Message
from pipeline.errors import ChangedInput, NativeCrash, PipeError
from pipeline.recipe import Recipe, load
from pipeline.run import Event, Manifest, Measured, Note, Run
from pipeline.train import checkpoint, stage
from pipeline.train.job import Job
from pipeline.train.unfinished import FOLDER

Act = Callable[[Job], Iterator[Message]]

FACTS = {
    "method": "qlora", "device": "cpu", "precision": "fp32", "trainable_parameters": 1,
    "total_parameters": 2, "steps": 2, "kept_step": 2, "final_loss": 1.5, "eval_loss": None,
    "general_loss_before": None, "general_loss_after": None,
}  # fmt: skip


def measured(step: int) -> Message:
    line = {"step": step, "steps": 2, "loss": 2.0, "grad_norm": None, "learning_rate": 0.1}
    speed = {"step": step, "seconds": 0.5, "tokens_per_second": 10.0, "mfu": None}
    return {"measured": line, "speed": speed}


def whole(job: Job) -> Iterator[Message]:
    """Two steps, and an adapter as the result."""
    yield measured(1)
    yield measured(2)
    adapter = Path(job.folder) / "result" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    lines = [measured(step)["measured"] for step in (1, 2)]
    yield {
        "result": {
            "status": "done",
            "facts": FACTS,
            "trace": {"metrics": lines, "samples": []},
            "seconds": {"load": 1.0, "train": 2.0},
            "peak_memory_bytes": {"resident": 10},
        }
    }


def out_of_memory(_: Job) -> Iterator[Message]:
    yield {"result": {"status": "out_of_memory", "reason": "CUDA out of memory."}}


def stopped(job: Job) -> Iterator[Message]:
    yield measured(1)
    checkpoint.publish(Path(job.folder) / "checkpoints", 1, lambda d: (d / "w").touch())
    yield {"result": {"status": "stopped", "step": 1}}


def died(job: Job) -> Iterator[Message]:
    yield measured(1)
    checkpoint.publish(Path(job.folder) / "checkpoints", 1, lambda d: (d / "w").touch())
    raise NativeCrash("The worker process died with SIGKILL at train.", "Go on.")


@dataclass
class FakeChild:
    """Acts as the training processes; keeps the job that each start was given."""

    acts: list[Act]
    jobs: list[Job] = field(default_factory=list)

    @contextmanager
    def opened(self, job_file: Path, *_: Any) -> Iterator["FakeChild"]:
        self.jobs.append(Job.read(job_file))
        yield self

    def stream(self, _: str) -> Iterator[Message]:
        return self.acts.pop(0)(self.jobs[-1])


@pytest.fixture(scope="module")
def base() -> Base:
    return open_base(load("demo").recipe.model)


@dataclass
class Bench:
    base: Base
    run: Run
    patch: pytest.MonkeyPatch
    events: list[Event] = field(default_factory=list)

    def train(self, *acts: Act, settings: tuple[str, ...] = (), force: bool = False) -> FakeChild:
        child = FakeChild(list(acts))
        self.patch.setattr("pipeline.train.watching.open_child", child.opened)
        recipe = load("demo", settings).recipe
        self.manifest = stage.train(recipe, self.run, self.base, self.events.append, force=force)
        return child

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))


@pytest.fixture
def bench(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(base, Run(tmp_path / "run"), monkeypatch)
    publish_data(bench.run, load("demo").recipe, base)
    return bench


def publish_data(run: Run, recipe: Recipe, base: Base) -> None:
    with run.publish("data") as draft:
        encoded = draft.folder / "encoded"
        encoded.mkdir()
        for name in ("train", "eval"):
            (encoded / f"{name}.arrow").write_bytes(b"rows")
            row = {"id": "r1", "system": None, "question": "What is 1 + 1?"}
            (draft.folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        draft.manifest = Manifest(
            stage="data",
            section={"model": recipe.model.model_dump(mode="json")},
            inputs=base.tokenizer_entries(),
            chat_format=chat_format(recipe.chat.format).fingerprint(),
        )


def test_what_the_processes_made_is_published_and_their_folder_removed(bench: Bench) -> None:
    bench.train(whole)
    run = bench.run
    assert sorted(run.require("train").outputs) == ["adapter/adapter_config.json", "metrics.jsonl"]
    assert bench.manifest.facts == FACTS and bench.manifest.counts == {"steps": 2}
    timing = json.loads((run.folder("train") / "timing.json").read_text())
    assert timing["load_seconds"] == 1.0 and timing["train_seconds"] == 2.0
    assert not (run.root / FOLDER).exists()
    assert [e.values for e in bench.events if isinstance(e, Measured)] == [
        {"seconds": 0.5, "tokens_per_second": 10.0, "loss": 2.0, "learning_rate": 0.1}
    ] * 2
    assert "Trained 2 steps, final loss 1.5000." in bench.said


def test_the_job_holds_all_that_the_processes_need(bench: Bench) -> None:
    job = bench.train(whole, settings=("train.sample_every=1", "train.sample_rows=1")).jobs[0]
    assert job.resume is None and job.batch_size == 16 and job.global_batch == 16
    assert sorted(job.encoded) == ["eval", "train"]  # no general rows were prepared
    assert all(Path(path).is_absolute() for path in [*job.encoded.values(), job.folder, job.base])
    (sample,) = job.samples
    assert sample["question"] == "What is 1 + 1?" and len(sample["prompt_ids"]) > 5
    assert job.train.max_steps == 180


def test_done_is_done_and_what_a_kill_after_publishing_left_is_removed(bench: Bench) -> None:
    bench.train(whole)
    (bench.run.root / FOLDER / "checkpoints").mkdir(parents=True)
    bench.train()
    assert "train is up to date." in bench.said and not (bench.run.root / FOLDER).exists()
    bench.train(whole, force=True)
    with pytest.raises(IndexError):  # the processes are started again
        bench.train(settings=("train.max_steps=5",))


def test_memory_that_runs_out_halves_the_rows_at_once_and_keeps_the_step(bench: Bench) -> None:
    settings = ("train.batch_size=12", "train.gradient_accumulation=2")
    child = bench.train(out_of_memory, out_of_memory, whole, settings=settings)
    assert [(job.batch_size, job.global_batch) for job in child.jobs] == [
        (12, 24),
        (6, 24),
        (3, 24),
    ]
    assert "Memory ran out with 12 rows at a time (CUDA out of memory.)" in bench.said
    assert "Going on with 3; a step still takes 24 rows." in bench.said


def test_rows_at_once_always_divide_the_step(bench: Bench) -> None:
    settings = ("train.batch_size=7", "train.gradient_accumulation=1")
    child = bench.train(out_of_memory, whole, settings=settings)
    assert [job.batch_size for job in child.jobs] == [7, 1]


def test_one_row_that_is_too_much_is_an_error_with_the_cure(bench: Bench) -> None:
    with pytest.raises(PipeError, match="with one row at a time: CUDA out of memory") as caught:
        bench.train(out_of_memory, settings=("train.batch_size=1",))
    assert "model.max_seq_length" in caught.value.hint
    assert not bench.run.folder("train").exists()


def test_memory_is_remembered_by_the_next_start(bench: Bench) -> None:
    with pytest.raises(NativeCrash):
        bench.train(out_of_memory, died)
    child = bench.train(whole)
    assert child.jobs[0].batch_size == 8 and child.jobs[0].global_batch == 16
    assert child.jobs[0].resume and child.jobs[0].resume.endswith("step-000001")


def test_a_stop_is_an_interruption_with_a_checkpoint_behind_it(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.train(stopped)
    assert "Stopped after step 1; to go on from there: pipe train" in bench.said
    assert not bench.run.folder("train").exists()
    child = bench.train(whole)
    assert child.jobs[0].resume and "Going on from the checkpoint of step 1." in bench.said


def test_a_death_publishes_nothing_and_says_how_to_go_on(bench: Bench) -> None:
    bench.train(whole)
    before = bench.run.require("train")
    with pytest.raises(NativeCrash):
        bench.train(died, force=True)
    assert bench.run.require("train") == before  # the old one stays until there is a new one


def test_a_disk_that_takes_no_more_of_the_log_is_a_clear_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.train.unfinished.append_line", full)
    with pytest.raises(PipeError, match=r"could not be written: .*No space left") as caught:
        bench.train(whole)
    assert "make room" in caught.value.hint


def test_packing_on_a_cpu_is_told_and_done_otherwise_and_named_so(bench: Bench) -> None:
    child = bench.train(whole, settings=("train.batching=packed",))
    assert child.jobs[0].train.batching == "grouped"
    assert bench.manifest.section["train"]["batching"] == "grouped"
    assert "Packed rows need a GPU" in bench.said
    bench.train(settings=("train.batching=packed",))
    assert "train is up to date." in bench.said


def test_rows_encoded_for_another_length_are_refused(bench: Bench) -> None:
    with pytest.raises(ChangedInput, match="another chat format or length") as caught:
        bench.train(settings=("model.max_seq_length=256",))
    assert caught.value.hint == "Encode again: pipe prepare"
