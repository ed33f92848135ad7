"""Whether a training fits, and the fewest changes that make it fit."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.study.plan import Setting, choices, memory_of
from pipeline.study.plan.catalogue import catalogue
from pipeline.study.plan.choose import usual
from pipeline.study.plan.fit import Verdict, verdict
from tests.study.plan.test_memory import GPU, settings, shapes
from tests.study.plan.test_shapes import shape

FIELDS = {
    "train.method": "method",
    "train.batch_size": "batch_size",
    "train.optimizer": "optimizer",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "model.max_seq_length": "max_seq_length",
}


def with_changes(setting: Setting, found: Verdict) -> Setting:
    """The setting of a recipe that obeys the proposal."""
    changed: dict[str, Any] = {
        FIELDS[key]: value for key, value in found.changes.items() if key in FIELDS
    }
    return replace(setting, **changed)


@given(shapes, settings, st.floats(2, 100))
def test_what_is_proposed_fits_and_nothing_is_where_it_fits_already(
    base: Any, setting: Setting, gigabytes: float
) -> None:
    room = gigabytes * 2**30
    found = verdict(base, setting, gigabytes)
    if memory_of(base, setting).total <= room:
        assert found.fits and not found.changes
    elif found.fits:
        need = memory_of(base, with_changes(setting, found)).total
        assert need == found.total <= room
    else:
        assert found.total > room


@given(shapes, settings, st.floats(2, 100), st.floats(1, 3))
def test_what_fits_fits_into_a_larger_card_with_no_more_changes(
    base: Any, setting: Setting, gigabytes: float, times: float
) -> None:
    small, large = (verdict(base, setting, size) for size in (gigabytes, gigabytes * times))
    if small.fits:
        assert large.fits and len(large.changes) <= len(small.changes)


def test_a_smaller_micro_batch_keeps_the_rows_of_a_step() -> None:
    setting = replace(GPU, batch_size=8, max_seq_length=4096)
    found = verdict(shape("Llama-3.2-3B"), setting, 8, accumulation=2)
    assert found.fits
    assert found.changes["train.batch_size"] * found.changes["train.gradient_accumulation"] == 16


def test_rows_are_shortened_last() -> None:
    setting = replace(GPU, method="lora", batch_size=4, max_seq_length=4096)
    found = verdict(shape("Llama-3.1-8B"), setting, 12, accumulation=4)
    assert found.fits and found.changes["train.method"] == "qlora"
    assert "model.max_seq_length" not in found.changes


def test_a_column_of_one_method_is_never_given_another() -> None:
    found = verdict(shape("Llama-3.1-8B"), replace(GPU, method="full"), 24, other_method=False)
    assert not found.fits and found.total > 24 * 2**30


@pytest.mark.parametrize("use", catalogue().uses)
@pytest.mark.parametrize("gigabytes", [6, 12, 24, 80])
def test_every_model_that_is_offered_fits_as_it_is_said_to(use: str, gigabytes: float) -> None:
    found = choices(use, gigabytes)
    assert len(found) == len(catalogue().models)
    for choice in found:
        setting = usual(catalogue().uses[use], choice.method)
        need = memory_of(choice.known.shape, with_changes(setting, _as_verdict(choice))).total
        assert (need <= gigabytes * 2**30) is choice.fits or not choice.fits


def _as_verdict(choice: Any) -> Verdict:
    return Verdict(0, choice.fits, choice.changes, choice.total)


def test_what_fits_comes_before_what_does_not() -> None:
    fits = [choice.fits for choice in choices("chat", 8)]
    assert fits == sorted(fits, reverse=True) and not all(fits)


def test_each_use_leads_with_a_family_that_suits_it() -> None:
    leading = {use: choices(use, 12)[0].known.title for use in catalogue().uses}
    assert leading["code"].startswith("Qwen2.5-Coder")
    assert leading["reasoning"].startswith("Qwen3")
    assert leading["chat"].startswith("Llama")
    assert leading["classification"] == "Qwen3-0.6B"


def test_a_research_licence_is_never_passed_over_in_silence() -> None:
    coder = next(c for c in choices("code", 24) if c.known.title.startswith("Qwen2.5-Coder-3B"))
    assert "research licence" in coder.why


def test_a_use_that_nobody_described_is_refused_with_those_there_are() -> None:
    with pytest.raises(PipeError) as caught:
        choices("poetry", 8)
    assert "classification" in caught.value.hint
