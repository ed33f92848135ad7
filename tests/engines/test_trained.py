"""What training left: which weights are the tuned ones, and how they are opened here."""

from pathlib import Path

import pytest

from pipeline.base import Base
from pipeline.engines import trained as room
from pipeline.engines.trained import Trained, shown, trained
from pipeline.recipe import Recipe
from pipeline.run import Manifest, Run
from tests.support.exported import demo

BASE = Base("meta-llama/Llama-3.2-1B", Path("/base"), "c0ffee")


def known(method: str, asked: str = "cpu", *, gpu: bool = False) -> Trained:
    return Trained(method, BASE, Path("/run/train"), asked, gpu)


def run_trained(root: Path, **facts: str) -> Run:
    run = Run(root)
    with run.publish("train") as draft:
        draft.manifest = Manifest(stage="train", section={}, inputs={}, facts=facts)
    return run


def cuda(method: str) -> Recipe:
    return demo("train.device=cuda", f"train.method={method}")


def test_an_adapter_belongs_on_the_base_and_has_the_tokenizer() -> None:
    for method in ("qlora", "lora", "lora-8bit"):
        found = known(method)
        assert found.adapter == Path("/run/train/adapter") == found.tokenizer
        assert found.model == BASE and not found.is_full


def test_a_model_trained_in_full_stands_in_the_bases_place_and_keeps_its_name() -> None:
    found = known("full")
    assert found.is_full and found.adapter is None
    assert found.model == Base(BASE.name, Path("/run/train/model"), BASE.revision)
    assert found.tokenizer == found.model.folder
    assert found.base == BASE and found.model.title == "Llama-3.2-1B"


def test_the_method_is_the_one_that_ran_whatever_the_recipe_says_now(tmp_path: Path) -> None:
    assert trained(demo("train.method=lora"), run_trained(tmp_path, method="full"), BASE).is_full
    silent = run_trained(tmp_path / "older")
    assert trained(demo("train.method=lora"), silent, BASE).method == "lora"
    assert trained(demo("train.method=full"), Run(tmp_path / "none"), BASE).is_full


@pytest.mark.parametrize(
    ("method", "bits"), [("qlora", 4), ("lora", 16), ("lora-8bit", 8), ("full", 16)]
)
def test_an_adapter_is_opened_on_the_bits_that_it_was_trained_on(method: str, bits: int) -> None:
    found = known(method, "cuda", gpu=True)
    assert (found.bits, found.device, list(found.differences())) == (bits, "cuda", [])


@pytest.mark.parametrize(("method", "bits"), [("qlora", 4), ("lora-8bit", 8)])
def test_without_a_gpu_the_bits_stay_and_the_cpu_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, bits: int
) -> None:
    monkeypatch.setattr(room, "has_gpu", lambda: False)
    found = trained(cuda(method), run_trained(tmp_path, method=method), BASE)
    assert (found.bits, found.device) == (bits, "cpu")
    (no_gpu,) = found.differences()
    assert "on the CPU in fp32" in no_gpu


def test_a_cpu_run_is_as_it_was_trained_with_a_gpu_or_without() -> None:
    for gpu in (True, False):
        found = known("qlora", gpu=gpu)
        assert (found.bits, found.device, list(found.differences())) == (4, "cpu", [])


def test_only_the_tuned_model_of_a_full_training_has_another_name_for_people() -> None:
    assert shown("adapter", "full") == "tuned (full)"
    assert shown("base", "full") == "base" and shown("Q8_0", "full") == "Q8_0"
    assert {shown("adapter", method) for method in ("qlora", "lora", None)} == {"adapter"}
