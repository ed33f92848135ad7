"""Layers of a recipe: what a later one replaces, what it leaves, and what is said of both."""

from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.recipe.overlay import Overlay, leaves, written

NAMES = st.sampled_from(["a", "b", "c", "0", "1"])
SCALARS = st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3)
        | st.lists(st.dictionaries(NAMES, inner, max_size=3), max_size=2)
    ),
    max_leaves=8,
)
LAYERS = st.dictionaries(NAMES, VALUES, max_size=3)


def laid(*layers: dict[str, Any]) -> Overlay:
    """The layers one over another; they come from `layer 0`, `layer 1` and so on."""
    overlay = Overlay()
    for number, layer in enumerate(layers):
        overlay.add(layer, f"layer {number}")
    return overlay


def nested(key: str, value: Any) -> Any:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@given(LAYERS, st.data(), st.integers(10, 19))
def test_setting_one_leaf_changes_it_alone(
    layer: dict[str, Any], data: st.DataObject, value: int
) -> None:
    before = dict(leaves(layer))
    settable = [key for key, value in before.items() if value != {}]
    assume(settable)
    key = data.draw(st.sampled_from(settable))
    overlay = laid(layer, nested(key, value))
    assert dict(leaves(overlay.values)) == before | {key: value}
    assert overlay.origins == dict.fromkeys(before, "layer 0") | {key: "layer 1"}


@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_every_leaf_has_an_origin_that_wrote_it_and_nothing_else_has_one(
    layers: list[dict[str, Any]],
) -> None:
    try:
        overlay = laid(*layers)
    except RecipeError:  # a list was asked for an item that it does not have
        reject()
    assert list(overlay.origins) == [key for key, _ in leaves(overlay.values)]
    for key, origin in overlay.origins.items():
        assert key.partition(".")[0] in layers[int(origin.removeprefix("layer "))]


@given(st.lists(LAYERS, min_size=2, max_size=3))
def test_a_layer_is_left_as_it_was(layers: list[dict[str, Any]]) -> None:
    kept = deepcopy(layers)
    with suppress(RecipeError):
        laid(*layers)
    assert layers == kept


@given(LAYERS)
def test_the_same_layer_again_changes_no_value_but_all_origins(layer: dict[str, Any]) -> None:
    overlay = laid(layer, layer)
    assert overlay.values == layer
    # an empty section writes nothing over one that is there
    written = {key for key, value in leaves(layer) if value != {}}
    assert {key for key, origin in overlay.origins.items() if origin == "layer 1"} >= written


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_a_written_value_is_one_line_that_yaml_reads_back(value: Any) -> None:
    text = written(value)
    assert len(f"{text}.".splitlines()) == 1
    assert yaml.safe_load(text) == value


def test_a_section_inside_an_item_is_laid_over_key_by_key() -> None:
    sources = [{"dataset": "x", "columns": {"question": "q", "answer": "a"}}, {"dataset": "y"}]
    overlay = laid({"sources": sources}, nested("sources.0.columns.answer", "b"))
    assert overlay.values["sources"] == [
        {"dataset": "x", "columns": {"question": "q", "answer": "b"}},
        {"dataset": "y"},
    ]
    assert overlay.origins == {
        "sources.0.dataset": "layer 0",
        "sources.0.columns.question": "layer 0",
        "sources.0.columns.answer": "layer 1",
        "sources.1.dataset": "layer 0",
    }


def test_null_takes_a_section_away_and_a_section_begins_anew_over_it() -> None:
    full = {"list": [{"columns": {"question": "q", "reasoning": "r"}}]}
    overlay = laid(full, nested("list.0.columns", None))
    assert overlay.values == {"list": [{"columns": None}]}
    assert overlay.origins == {"list.0.columns": "layer 1"}
    overlay = laid(full, nested("list.0.columns", None), nested("list.0.columns.question", "p"))
    assert overlay.values == {"list": [{"columns": {"question": "p"}}]}
    assert overlay.origins == {"list.0.columns.question": "layer 2"}


def test_a_list_replaces_a_list_whole() -> None:
    overlay = laid({"list": [{"a": 1}, {"a": 2}]}, {"list": [{"b": 3}]})
    assert overlay.values == {"list": [{"b": 3}]}
    assert overlay.origins == {"list.0.b": "layer 1"}


def test_an_item_of_plain_values_is_replaced_and_the_list_is_said_to_be_new() -> None:
    overlay = laid({"quantize": ["Q4_K_M", "Q8_0"]}, nested("quantize.1", "F16"))
    assert overlay.values == {"quantize": ["Q4_K_M", "F16"]}
    assert overlay.origins == {"quantize": "layer 1"}


def test_yaml_numbers_name_items_too() -> None:
    assert laid({"list": [{"a": 1}]}, {"list": {0: {"a": 2}}}).values == {"list": [{"a": 2}]}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("list.2.a", "list has no item 2; it has 2, from 0 on."),
        ("list.-1.a", "list has no item -1; it has 2, from 0 on."),
        ("list.a", "list has no item a; it has 2, from 0 on."),
        ("list.1.flags.3", "list.1.flags has no item 3; it has 1, from 0 on."),
        ("list.0.none.0", "list.0.none has no item 0; it is empty."),
    ],
)
def test_an_item_that_is_not_there_is_named_with_its_list(key: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        laid({"list": [{"none": []}, {"flags": ["f"]}]}, nested(key, 1))
    assert caught.value.message == said


def test_what_yaml_shares_between_two_sections_is_changed_in_one() -> None:
    shared = {"repetition": True}
    overlay = laid({"filters": shared, "test": {"filters": shared}}, nested("filters.loop", 1))
    assert overlay.values["test"] == {"filters": {"repetition": True}}
