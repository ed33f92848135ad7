"""Prices by the base at each precision and by the tuned model: said, and weighted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Base
from pipeline.chat import Encoded, Encoder
from pipeline.engines.completion import Decoding
from pipeline.engines.loading import Bits, Variant
from pipeline.engines.trained import Trained, trained
from pipeline.engines.transformers import TransformersEngine, open_trained
from pipeline.errors import PipeError
from pipeline.evaluate.items import Item, item_of
from pipeline.evaluate.kept import Answer
from pipeline.evaluate.metrics import METRICS, Measured
from pipeline.evaluate.number_metrics import number_in
from pipeline.evaluate.results import Scores
from pipeline.run import Entry, Note, Progress
from pipeline.run.files import write_json
from pipeline.run.rows import held_out_rows, read_jsonl
from pipeline.run.studies import SCHEMA, recorded, results_path
from pipeline.study.price.weighted import kept_rows, values_of_tokens, weighted_prices
from pipeline.study.refused import CANNOT, words_of
from pipeline.workflow import Work

Json = dict[str, Any]

_SEVERAL = "Of {count} prices {split} are more than one token here: the next token is no price."


@dataclass(frozen=True)
class _Model:
    """One of those that are compared."""

    label: str
    variant: Variant
    bits: Bits


@dataclass(frozen=True)
class _Asked:
    """The products, and how they are put."""

    items: Sequence[Item]
    prompts: Sequence[Encoded]
    """Each with its end-of-turn token, whose place is that of the price."""
    split: int
    """Prices that are more than one token."""
    top: int
    values: NDArray[np.float64]


def measure(work: Work, top: int, limit: int | None = None) -> Json:
    """Ask base and tuned model for the held-out prices, write price/results.json, and return it.

    A precision that this machine does not have is a row with the words of what refused it. Each
    other has `said` (greedy) and `weighted` (the expectation over the `top` likeliest number
    tokens, or null with `weighted_reason`), of the figures {name: {"value", "low", "high"}};
    `constant` is the median of the training prices as everyone's guess.
    Raises PipeError where the run's rows are no prices, or it is not trained.
    """
    with work.run.lock():
        work.run.require("data")
        work.run.require("train")
        encoder, base = work.encoder(), work.base()
        tuned = trained(work.recipe, work.run, base)
        asked = _asked(work, encoder, top, limit)
        rows = [_row(work, encoder, tuned, model, asked) for model in _models(tuned)]
        found = {
            "schema": SCHEMA,
            "inputs": recorded(_inputs(work, base)),
            "items": len(asked.items),
            "reply_start": asked.items[0].row["reply_start"],
            "top": top,
            "device": tuned.device,
            "constant": _constant(work, asked),
            "rows": rows,
        }
        write_json(results_path(work.run, "price"), found)
    return found


def _asked(work: Work, encoder: Encoder, top: int, limit: int | None) -> _Asked:
    rows = held_out_rows(work.run, limit)
    if not all(
        row.get("reply_start") and number_in(str(row["answer"])) is not None for row in rows
    ):
        raise PipeError(
            f"The held-out rows of the run {work.run.name} are no prices.",
            "A price's answer is a number after columns.reply_start: pipe recipes show "
            "llama3.1-8b-price",
        )
    items = [item_of(row, f"row {number}") for number, row in enumerate(rows, 1)]
    examples = [item.exchange for item in items]
    encoded = encoder.examples([each for each in examples if each])
    split = sum(each is None or len(each.ids) - each.target_start > 2 for each in encoded)
    prompts = [encoder.prompt(item.conversation) for item in items]
    return _Asked(
        items,
        [Encoded((*ids, encoder.end_of_turn_id), len(ids)) for ids in prompts],
        split,
        top,
        values_of_tokens(_texts(work.base(weights=False), encoder)),
    )


def _texts(base: Base, encoder: Encoder) -> list[str]:
    """The text of each id of the model's vocabulary, control tokens as theirs."""
    return [encoder.text_of([number]) for number in range(int(base.config["vocab_size"]))]


def _models(tuned: Trained) -> Iterator[_Model]:
    yield _Model("base, 16-bit", "base", 16)
    yield _Model("base, 8-bit", "base", 8)
    yield _Model("base, 4-bit", "base", 4)
    yield _Model(f"tuned ({tuned.method})", "adapter", tuned.bits)


def _inputs(work: Work, base: Base) -> dict[str, Entry]:
    return base.entries() | work.run.input_entry("data") | work.run.input_entry("train")


def _row(work: Work, encoder: Encoder, tuned: Trained, model: _Model, asked: _Asked) -> Json:
    row: Json = {
        "label": model.label,
        "bits": model.bits,
        "status": "measured",
        "reason": None,
        "memory_bytes": None,
        "said": None,
        "weighted": None,
        "weighted_reason": None,
    }
    try:
        return row | _measured(work, encoder, tuned, model, asked)
    except CANNOT as error:
        if model.bits == 16:
            raise
        reason = words_of(error)
        work.emit(Note(f"{model.label} is not run: {reason}", warning=True))
        return row | {"status": "not_run", "reason": reason}


def _measured(work: Work, encoder: Encoder, tuned: Trained, model: _Model, asked: _Asked) -> Json:
    size = work.recipe.eval.batch_size
    engine = open_trained(model.variant, tuned, encoder, bits=model.bits, batch_size=size)
    try:
        found: Json = {"memory_bytes": engine.memory_bytes()}
        said = _said(work, engine, model.label, asked)
        found["said"] = _figures(asked.items, said, work.recipe.seed)
        if asked.split:
            reason = _SEVERAL.format(count=len(asked.items), split=asked.split)
            return found | {"weighted_reason": reason}
        prices = [f"{price:.6f}" for price in _weighted(engine, asked)]
    finally:
        engine.close()
    return found | {"weighted": _figures(asked.items, prices, work.recipe.seed)}


def _said(work: Work, engine: TransformersEngine, label: str, asked: _Asked) -> list[str]:
    """The answer of each greedy reply."""
    decoding = Decoding(work.recipe.eval.max_new_tokens)
    replies = engine.answers([item.conversation for item in asked.items], decoding)
    said = []
    for reply in replies:
        said.append(reply.reply.answer)
        work.emit(Progress(f"price {label}", len(said), len(asked.items), "products"))
    return said


def _weighted(engine: TransformersEngine, asked: _Asked) -> NDArray[np.float64]:
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "next"
        engine.score(asked.prompts, keep=kept)
        return weighted_prices(kept_rows(kept, len(asked.prompts)), asked.values, asked.top)


def _constant(work: Work, asked: _Asked) -> Json:
    rows = read_jsonl(work.run.folder("data") / "train.jsonl")
    prices = [price for row in rows if (price := number_in(str(row["answer"]))) is not None]
    guess = median(prices)
    figures = _figures(asked.items, [f"{guess:g}"] * len(asked.items), work.recipe.seed)
    return {"value": guess, "said": figures}


def _figures(items: Sequence[Item], said: Sequence[str], seed: int) -> Mapping[str, Json]:
    """The number metrics of these answers, with intervals as `pipe eval` gives them."""
    metrics = [metric for metric in METRICS if metric.on_request]
    measured = [
        Measured(item, Answer(text, "", text, False, True, 1, 0.0), 0, None)
        for item, text in zip(items, said, strict=True)
    ]
    found: Mapping[str, Json] = Scores({"": measured}, metrics, 1, seed).engines().get("", {})
    return found
