"""Full fine-tuning through the whole pipeline: no adapter anywhere, the model in its place."""

import json
import shutil
from collections.abc import Iterator

import pytest

from pipeline.check.table import PROBES
from pipeline.engines.gguf_file import read_gguf
from pipeline.engines.ollama import OllamaServer
from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

NAME = "in-full"
RECIPE = (
    "extends: demo\ntrain: {method: full, max_steps: 60}\n"
    f"serve: {{name: {NAME}}}\neval: {{limit: 40}}\n"
)


@pytest.fixture(scope="module")
def full(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo's rows, trained on in full, exported and registered."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "pipe.yaml").write_text(RECIPE)
    shutil.copytree(demo.run.folder("data"), folder / "runs" / "demo" / "data")
    full = Demo(folder, demo.ollama)
    full.pipe("train")
    full.pipe("export")
    yield full
    server = OllamaServer(demo.ollama)
    for model in full.json("serve/manifest.json")["facts"]["models"]:
        server.delete(model["name"])


def test_every_weight_is_trained_and_the_files_come_from_the_base(full: Demo) -> None:
    train = full.json("train/manifest.json")
    assert train["facts"]["method"] == "full"
    assert train["facts"]["trainable_parameters"] == train["facts"]["total_parameters"]
    assert "model/model.safetensors" in train["outputs"]
    assert not any(name.startswith("adapter") for name in train["outputs"])
    metadata = read_gguf(full.run.folder("export") / f"{NAME}-Q8_0.gguf").metadata
    assert metadata["general.base_model.0.name"] == "Tiny Llama"
    assert metadata["general.license"] == "Apache-2.0"
    card = (full.run.folder("export") / "README.md").read_text()
    assert "LoRA" not in card and "lora" not in card


def test_every_gate_of_the_files_passes(full: Demo) -> None:
    """Without a server: what so few steps teach is no matter of the files."""
    gates = json.loads(full.pipe("check", "--json", ollama=NOBODY).stdout)["gates"]
    found = {gate["name"]: gate for gate in gates}
    left = {name for name, gate in found.items() if gate["status"] != "passed"}
    served = {probe.name for probe in PROBES if "server" in probe.needs}
    assert left == served and "adapter kept" not in found
    assert "of the training's change" in found["merge"]["compared"]
    assert "are the trained ones to the bit" in found["merge"]["compared"]


def test_what_was_learned_is_measured_and_told_as_a_full_training(full: Demo) -> None:
    done = full.pipe("eval")
    assert "merged is left out: trained in full" in done.stderr
    assert "tuned (full) answers" in done.stdout and "adapter" not in done.stdout
    scores = full.json("eval/results.json")["engines"]
    assert sorted(scores) == ["Q4_K_M", "Q8_0", "adapter", "base", "ollama"]
    right = {name: score["exact_match"]["value"] for name, score in scores.items()}
    assert right["adapter"] - right["base"] >= 0.2
    assert abs(right["Q8_0"] - right["adapter"]) <= 0.1
    assert abs(right["ollama"] - right["Q8_0"]) <= 0.05
    perplexity = scores["adapter"]["perplexity"]["value"]
    assert scores["Q8_0"]["perplexity"]["value"] == pytest.approx(perplexity, rel=0.02)
    full.pipe("report")
    page = (full.run.root / "report.html").read_text()
    assert "Full fine-tuning, 60 steps" in page and "tuned (full)" in page
    assert "stale" not in full.pipe("status").stdout
