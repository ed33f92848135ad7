"""The synthetic catalogue: what is shipped is what the script makes, and its structure is known."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.assets import asset
from scripts.make_catalogue import (
    EXTRAS,
    HIGHEST,
    KINDS,
    LOWEST,
    MAKERS,
    NOISE,
    PEOPLE,
    TEST_ROWS,
    TRAIN_ROWS,
    draw_products,
    to_row,
)  # fmt: skip

PRODUCTS = draw_products(TEST_ROWS + TRAIN_ROWS)


@pytest.mark.parametrize(
    ("name", "products"),
    [("catalogue-test", PRODUCTS[:TEST_ROWS]), ("catalogue", PRODUCTS[TEST_ROWS:])],
)
def test_the_shipped_rows_are_those_that_the_script_makes(name: str, products: list) -> None:
    rows = [to_row(product, f"{name}_{number}") for number, product in enumerate(products)]
    shipped = asset(f"data/samples/{name}.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in shipped.splitlines()] == rows


def test_no_description_comes_twice_and_every_price_is_in_range() -> None:
    assert len({product.description for product in PRODUCTS}) == len(PRODUCTS)
    assert all(LOWEST <= product.price <= HIGHEST for product in PRODUCTS)


def test_a_price_is_its_attributes_worth_and_the_stated_noise() -> None:
    worths = np.array([product.worth for product in PRODUCTS])
    off = np.array([product.price for product in PRODUCTS]) - worths
    inside = (worths > LOWEST + 6 * NOISE) & (worths < HIGHEST - 6 * NOISE)
    assert abs(off[inside].mean()) < 0.3
    assert np.abs(off[inside]).mean() == pytest.approx(NOISE, rel=0.06)


def test_its_words_and_its_prices_are_single_tokens_to_the_tiny_base() -> None:
    tokenizer = Tokenizer.from_file(str(asset("data/tiny-llama/tokenizer.json")))
    words = [*KINDS, *MAKERS, *EXTRAS, *PEOPLE]
    split = [word for word in words if len(tokenizer.encode(f" {word}").ids) > 2]
    assert split == []
    assert all(len(tokenizer.encode(str(price)).ids) <= 2 for price in range(LOWEST, HIGHEST + 1))
