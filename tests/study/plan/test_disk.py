"""The bytes that each stage will write."""

import json
from pathlib import Path

import pytest

from pipeline.recipe import load
from pipeline.recipe.schema import Model
from pipeline.run import Run
from pipeline.study.plan.disk import disk_of, gguf_bytes
from pipeline.study.plan.found import found_base
from tests.study.plan.test_shapes import shape

EXPORTED = json.loads((Path(__file__).parents[3] / "benchmarks" / "export.json").read_text())


@pytest.mark.parametrize("size", ["1B", "3B"])
def test_planned_files_are_those_of_real_exports_but_for_one_and_the_same_header(
    size: str,
) -> None:
    real = EXPORTED["shapes"][size]["all"]["files"]
    headers = {
        name: bytes - gguf_bytes(shape(f"Llama-3.2-{size}"), name[9:-5])
        for name, bytes in real.items()
    }
    # a vocabulary of 128,256 words and their merges
    assert len(headers) == 3 and all(7e6 < each < 9e6 for each in headers.values())
    assert max(headers.values()) - min(headers.values()) < 1024


def test_a_type_for_some_tensors_changes_the_size_of_the_file() -> None:
    from pipeline.gguf.mix import Override

    llama = shape("Llama-3.2-1B")
    wider = gguf_bytes(llama, "Q4_K_M", [Override.parse("ffn_down=q8_0")])
    assert gguf_bytes(llama, "Q4_K_M") < wider < gguf_bytes(llama, "Q8_0")


def test_every_stage_of_a_recipe_whose_base_is_not_here_has_a_line(tmp_path: Path) -> None:
    recipe = load("llama3.2-1b-r1").recipe
    items = disk_of(recipe, Run(tmp_path), found_base(recipe.model))
    sizes = {(item.stage, item.what.split(",")[0]): item.bytes for item in items}
    assert sizes["download", "base in 16 bits"] == 2 * 1_235_814_400
    assert sizes["data", "rows"] is None
    assert sizes["train", "adapter"] == 4 * 22_544_384
    assert [item.stage for item in items] == ["download", "data", "train", "train"] + 2 * ["export"]
    assert {item.how for item in items if item.stage == "export"} == {"exact"}


def test_the_best_checkpoint_beside_the_newest_takes_its_own_room(tmp_path: Path) -> None:
    def checkpoints(*overrides: str) -> int:
        recipe = load("llama3.2-1b-r1", overrides).recipe
        items = disk_of(recipe, Run(tmp_path), found_base(recipe.model))
        found = next(item.bytes for item in items if "checkpoints" in item.what)
        assert found
        return found

    assert checkpoints("train.keep=best", "train.eval_every=50") > 1.6 * checkpoints()


def test_a_full_training_leaves_a_whole_model(tmp_path: Path) -> None:
    recipe = load("llama3.2-1b-r1", ["train.method=full"]).recipe
    items = disk_of(recipe, Run(tmp_path), found_base(recipe.model))
    assert next(i.bytes for i in items if i.what == "model") == 2 * 1_235_814_400


def test_the_shipped_base_needs_no_download() -> None:
    found = found_base(Model(base="builtin:tiny-llama"))
    assert found.is_here and found.origin == "folder" and found.known is None
