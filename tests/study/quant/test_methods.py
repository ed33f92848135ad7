"""Which rows a study has, and in which order."""

import pytest

from pipeline.errors import RecipeError
from pipeline.study.quant.methods import chosen, methods


def names(found: list) -> list[str]:
    return [each.name for each in found]


def test_all_rows_stand_from_the_most_bits_to_the_fewest_engine_by_engine() -> None:
    assert names(methods(["Q4_K_S", "F16"])) == [
        "none", "int8", "llm-int8", "nf4", "nf4-dq", "fp4", "gptq",
        "BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K",
    ]  # fmt: skip
    assert {each.engine for each in methods([])} == {"transformers", "llama.cpp"}


def test_rows_that_are_asked_for_are_found_however_they_are_spelled_and_none_comes_along() -> None:
    found = chosen(["q4_k_m", "NF4_DQ", "nf4", "q8-0", "Q3_K_S"], ["Q8_0"])
    assert names(found) == ["none", "nf4", "nf4-dq", "Q8_0", "Q4_K_M", "Q3_K_S"]


def test_a_row_that_is_no_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match="no method nf5") as refused:
        chosen(["nf5"], [])
    assert "llm-int8" in refused.value.hint and "Q4_K_M" in refused.value.hint
