"""Bad input and interruptions at the real stages: one clear paragraph, nothing lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.child import Child
from pipeline.errors import PipeError
from pipeline.recipe.training import Train
from pipeline.train.job import Job
from pipeline.train.together import JOB
from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e


def test_a_gpu_recipe_without_a_gpu_says_which_recipe_needs_none(short: Demo) -> None:
    on_gpu = ("--set", "train.device=cuda", "--set", "train.precision=bf16")
    for command in ("run", "train"):
        done = short.pipe(command, *on_gpu, code=1)
        assert "has no driver for one" in done.stderr and "pipe run -r demo" in done.stderr
    assert not short.run.folder("data").exists()


def test_torch_has_the_last_word_on_the_gpu(tmp_path: Path) -> None:
    job = Job(
        base="", base_name="", base_revision=None, config={}, max_seq_length=32, train=Train(),
        seed=0, pad_id=0, end_ids=(), chat_template="", rows="", encoded={}, samples=[],
        folder=str(tmp_path), batch_size=1, global_batch=1,
    )  # fmt: skip
    environment = {JOB: str(job.write(tmp_path / "job.json"))}
    with (
        Child("pipeline.train.worker", hint="", environment=environment) as child,
        pytest.raises(PipeError, match="torch sees none here"),
    ):
        child.ask("train")


def test_two_trainings_give_the_same_bytes(short: Demo) -> None:
    short.pipe("prepare")
    found = []
    for _ in range(2):
        short.pipe("train", "--force")
        folder = short.run.folder("train")
        found.append([(folder / name).read_bytes() for name in ("manifest.json", "metrics.jsonl")])
    assert found[0] == found[1]


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_publishes_nothing_and_can_be_repeated(
    short: Demo, with_signal: signal.Signals
) -> None:
    short.pipe("prepare")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train"],
        cwd=short.folder,
        env={**os.environ, "OLLAMA_HOST": NOBODY},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(6)
    os.killpg(process.pid, with_signal)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; nothing half-made was published" in said and "Traceback" not in said
    left = sorted(path.name for path in short.run.root.iterdir())
    assert [name for name in left if name != ".train.work"] == [
        ".lock",
        "data",
        "data.svg",
        "recipe.yaml",
    ]


def test_register_insists_where_export_would_only_say(short: Demo) -> None:
    short.pipe("prepare")
    short.pipe("train")
    done = short.pipe("export")
    assert "Not registered" in done.stderr
    done = short.pipe("export", "--register", code=1)
    assert "No Ollama server" in done.stderr or "ollama serve" in done.stderr


def test_the_wheel_runs_the_demo_from_any_folder(short: Demo, tmp_path: Path) -> None:
    """Recipes, templates, samples and the tiny base travel with it."""
    root = Path(__file__).parents[2]
    site = tmp_path / "site"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "-q", "--wheel", "-o", tmp_path / "dist", root], check=True)
    (wheel,) = (tmp_path / "dist").glob("r1pipe-*.whl")
    subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "OLLAMA_HOST": NOBODY}
    where = subprocess.run(
        [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    small = [
        "--set",
        "train.max_steps=2",
        "--set",
        "eval.limit=2",
        "--set",
        "eval.max_new_tokens=4",
    ]
    subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "-r", "demo", *small],
        cwd=elsewhere, env=environment, capture_output=True, check=True,
    )  # fmt: skip
    assert (elsewhere / "runs/demo/eval/results.json").exists()


def test_the_wheel_asks_for_an_unsloth_with_the_cpu_backend() -> None:
    from importlib.metadata import requires

    assert "unsloth>=2026.10.9" in (requires("r1pipe") or [])
