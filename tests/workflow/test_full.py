"""A run that was trained in full goes through what comes after training."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base import open_base
from pipeline.check.tensors import Stored, saved_tensors
from pipeline.engines.gguf_file import different_tensors, read_gguf
from pipeline.errors import PipeError
from pipeline.run import silent
from pipeline.serve import license_text
from pipeline.workflow import Work, export, status
from pipeline.workflow.checks import part_of
from tests.support.exported import demo
from tests.support.full import run_in_full

FULL = ("train.method=full", "export.quantize=[BF16,Q8_0]")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    recipe = demo(*FULL)
    return Work(recipe, run_in_full(tmp_path / "runs" / "demo", recipe), silent)


def test_the_files_hold_the_model_and_name_the_base_it_comes_from(work: Work) -> None:
    manifest = export(work)
    assert manifest.facts["base"] == {"name": "builtin:tiny-llama", "revision": None}
    assert manifest.facts["adapter"] == {} and "base/model.safetensors" in manifest.inputs
    for type in ("BF16", "Q8_0"):
        header = read_gguf(work.run.folder("export") / manifest.facts["files"][type])
        assert header.metadata["general.base_model.0.name"] == "Tiny Llama"
        assert header.metadata["general.license"] == "Apache-2.0"
    header = read_gguf(work.run.folder("export") / manifest.facts["files"]["BF16"])
    stored = Stored(header)
    trained = saved_tensors([work.run.folder("train") / "model" / "model.safetensors"])
    ours = trained["model.layers.0.mlp.down_proj.weight"]
    rows = np.arange(ours.rows)
    assert (stored.rows(stored.tensors["blk.0.ffn_down.weight"], rows) == ours.at(rows)).all()


def test_the_licence_is_the_bases_though_the_model_has_none(
    tmp_path: Path,
) -> None:
    recipe = demo(*FULL, "serve.license=null")
    run = run_in_full(tmp_path / "runs" / "demo", recipe)
    expected = license_text(recipe, open_base(recipe.model).folder)
    assert export(Work(recipe, run, silent)).facts["license"] == expected
    assert license_text(recipe, run.folder("train") / "model") != expected


def test_there_is_no_adapter_to_write_alone_and_this_is_said_before_any_work(work: Work) -> None:
    alone = Work(demo(*FULL, "export.adapter_gguf=true"), work.run, silent)
    with pytest.raises(PipeError, match="no adapter to write alone") as caught:
        export(alone)
    assert "trained in full" in caught.value.hint and not work.run.folder("export").exists()


def test_a_recipe_that_says_another_method_now_makes_the_training_stale(work: Work) -> None:
    export(work)
    assert status(work)["export"] == "done"
    for change, state in (("lora", "stale"), ("full", "done")):
        other = demo(*FULL, f"train.method={change}", "train.sample_every=5", "train.save_every=7")
        assert status(Work(other, work.run, silent))["train"] == state


def test_a_changed_weight_of_the_model_is_found_before_it_is_exported(work: Work) -> None:
    shard = work.run.folder("train") / "model" / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(PipeError, match="is not the file that train wrote"):
        export(work)


def test_checks_make_the_tuned_file_of_the_model_and_the_base_of_the_base(
    work: Work, tmp_path: Path
) -> None:
    export(work)
    part = part_of(work)
    assert part.trained.is_full and part.base.folder != part.trained.model.folder
    files = {}
    for tuned in (True, False):
        folder = tmp_path / str(tuned)
        folder.mkdir()
        files[tuned] = part.make(folder, ("BF16",), tuned=tuned)["BF16"]
    ours = work.run.folder("export") / "my-model-BF16.gguf"
    assert different_tensors(ours, files[True]) == []
    assert "token_embd.weight" in different_tensors(ours, files[False])
