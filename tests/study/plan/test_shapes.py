"""The catalogue's shapes hold as many weights as the published files."""

import pytest

from pipeline.assets import asset
from pipeline.base import base_at
from pipeline.errors import PipeError
from pipeline.recipe import load
from pipeline.recipe.training import Lora
from pipeline.study.plan import Shape, catalogue, shape_of
from pipeline.study.plan.catalogue import Known

PUBLISHED = {
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "Llama-3.2-3B-Instruct": 3_212_749_824,
    "Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen3-0.6B": 596_049_920,
}
EVERY = [pytest.param(known, id=known.title) for known in catalogue().models]


def shape(title: str) -> Shape:
    known = catalogue().find(title)
    assert known
    return known.shape


@pytest.mark.parametrize(("title", "parameters"), PUBLISHED.items())
def test_a_shape_has_as_many_parameters_as_its_authors_published(
    title: str, parameters: int
) -> None:
    known = catalogue().find(title)
    assert known and known.published == parameters == known.shape.parameters


def test_only_counts_that_are_known_are_called_published() -> None:
    assert {k.title: k.published for k in catalogue().models if k.published} == PUBLISHED


@pytest.mark.parametrize("known", EVERY)
def test_every_count_is_what_the_model_card_rounds(known: Known) -> None:
    said = float(known.card.removesuffix("B")) * 1e9
    assert known.shape.parameters == pytest.approx(said, rel=0.02)


@pytest.mark.parametrize("known", EVERY)
def test_a_name_finds_its_own_entry_alone_whoever_holds_the_copy(known: Known) -> None:
    for owner in ("", "meta-llama/", "Someone/", "/models/"):
        assert catalogue().find(f"{owner}{known.title}") is known
    assert catalogue().find(f"{known.title}-bnb-4bit") is None


@pytest.mark.parametrize("recipe", ["llama3.2-1b-r1", "llama3.2-3b-r1", "qwen3-0.6b-r1"])
def test_the_bases_of_our_own_recipes_are_in_it_with_their_chat_format(recipe: str) -> None:
    loaded = load(recipe).recipe
    known = catalogue().find(loaded.model.base)
    assert known and known.format == loaded.chat.format


def test_vision_models_are_named_with_a_reason_and_not_offered() -> None:
    named = {each["name"]: each["why"] for each in catalogue().out_of_scope}
    assert any("Vision" in name for name in named) and any("VL" in name for name in named)
    assert all(named.values())
    assert catalogue().find("meta-llama/Llama-3.2-11B-Vision-Instruct") is None
    assert catalogue().find("Qwen/Qwen2.5-VL-3B-Instruct") is None


def test_an_adapter_of_rank_32_on_qwen3_has_the_parameters_that_peft_counts() -> None:
    qwen = shape("Qwen3-0.6B")
    adapter = sum(qwen.adapter(Lora(r=32)))
    assert (adapter, qwen.parameters + adapter) == (20_185_088, 616_235_008)
    assert adapter / (qwen.parameters + adapter) == pytest.approx(0.0328, abs=5e-5)


def test_fewer_modules_a_head_and_dora_change_an_adapter_as_they_should() -> None:
    llama = shape("Llama-3.2-1B")
    assert sum(llama.adapter(Lora(r=1, target_modules=("q_proj",)))) == 16 * (2048 + 2048)
    untied = shape("Llama-3.1-8B")
    assert sum(untied.adapter(Lora(r=2, target_modules=("lm_head",)))) == 2 * (128256 + 4096)
    plain, dora = (sum(llama.adapter(Lora(r=8, dora=each))) for each in (False, True))
    assert dora - plain == 16 * (2048 + 512 + 512 + 2048 + 8192 + 8192 + 2048)


def test_the_shipped_base_is_counted_as_its_weights_are() -> None:
    from safetensors import safe_open

    base = base_at(asset("data/tiny-llama"))
    with safe_open(base.shards()[0], "numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    stored = sum(rows * (columns[0] if columns else 1) for rows, *columns in shapes)
    assert shape_of(base.config).parameters == stored


def test_a_cache_of_8192_tokens_of_the_3b_takes_940_million_bytes() -> None:
    # 2 x 28 layers x 8 heads x 128 values x 2 bytes = 114,688 a token
    assert shape("Llama-3.2-3B").kv_cache_bytes(8192) == 114_688 * 8192


def test_a_model_of_another_family_is_refused() -> None:
    with pytest.raises(PipeError, match="gpt2"):
        shape_of({"model_type": "gpt2"})
