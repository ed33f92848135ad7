"""Write the synthetic catalogue: `data/samples/{catalogue,catalogue-test}.jsonl`.

A product has a kind, a maker and an extra, each worth so many dollars; its price is their sum and
some noise, so that the best that can be learned is known: a linear regression on the attributes.
The words are single tokens to the tiny base, as are the prices from 10 to 99. Same seed, same
bytes.

    python scripts/make_catalogue.py --out data/samples
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 8
TRAIN_ROWS = 2000
TEST_ROWS = 250
LOWEST, HIGHEST = 1, 99
NOISE = 4.0
"""Mean absolute deviation in dollars, of a Laplace distribution: its peak is what greedy decoding
finds; that of a normal one is too flat for 2,000 rows to tell."""

KINDS = {"pens": 10, "cups": 28, "hats": 46, "bags": 64, "toys": 82}
"""Far apart, so that some 50 steps on one token a row find them; the others are found after."""
MAKERS = {"Leo": 0, "Mia": 9}
EXTRAS = {"maps": 0, "shells": 4}
# fmt: off
PEOPLE = (
    "Sam", "Eva", "Max", "Ida", "Tom", "Zoe", "Kim", "Joe",
    "Amy", "Dan", "Lea", "Tim", "Ava", "Roy", "Una", "Ray",
)
# fmt: on
FORM = "{kind} for {one} or {other}. {maker} {kind} with {extra}."
"""Whom it is for changes no price: it makes every description another. One form and words of one
token each keep an attribute in its place, where so small a model finds it sooner."""


@dataclass(frozen=True)
class Product:
    """One entry of the catalogue; `price` in whole dollars."""

    kind: str
    maker: str
    extra: str
    description: str
    price: int

    @property
    def worth(self) -> int:
        """The price without noise."""
        return KINDS[self.kind] + MAKERS[self.maker] + EXTRAS[self.extra]


def draw_product(rng: random.Random) -> Product:
    """A product with every attribute drawn evenly; the price is kept in 1..99."""
    kind, maker, extra = (rng.choice(list(each)) for each in (KINDS, MAKERS, EXTRAS))
    one, other = rng.sample(PEOPLE, 2)
    words = {"kind": kind, "maker": maker, "extra": extra, "one": one, "other": other}
    description = FORM.format(**words)
    worth = KINDS[kind] + MAKERS[maker] + EXTRAS[extra]
    # two exponential draws differ as a Laplace distribution does
    noise = rng.expovariate(1 / NOISE) - rng.expovariate(1 / NOISE)
    price = min(HIGHEST, max(LOWEST, round(worth + noise)))
    return Product(kind, maker, extra, description, price)


def draw_products(count: int, seed: int = SEED) -> list[Product]:
    """So many products, no two with one description."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        product = draw_product(rng)
        found.setdefault(product.description, product)
    return list(found.values())


def to_row(product: Product, row_id: str) -> dict[str, str | int]:
    """The product as a row, its attributes beside its description."""
    return {
        "id": row_id,
        "description": product.description,
        "price": product.price,
        "kind": product.kind,
        "maker": product.maker,
        "extra": product.extra,
    }


def main() -> None:
    """Write both files; the test rows are drawn first, so they do not depend on the others."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/samples"))
    out: Path = parser.parse_args().out
    products = draw_products(TEST_ROWS + TRAIN_ROWS)
    splits = {"catalogue-test": products[:TEST_ROWS], "catalogue": products[TEST_ROWS:]}
    out.mkdir(parents=True, exist_ok=True)
    for name, chosen in splits.items():
        rows = (to_row(each, f"{name}_{number}") for number, each in enumerate(chosen))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_bytes(lines.encode())
        print(f"{out / name}.jsonl: {len(chosen)} products")


if __name__ == "__main__":
    main()
