"""Rows and results of a study, as its stages leave them."""

from typing import Any

from pipeline.study.quant.measure import blank
from pipeline.study.quant.methods import methods

METHODS = {each.name: each for each in methods([])}
Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


def row(name: str, size: int, same_top: float, score: tuple[float, float, float] | None) -> Any:
    """A measured row of `size` bytes; `score` is value, low, high of exact match."""
    value = score and dict(zip(("value", "low", "high"), score, strict=True))
    return blank(METHODS[name]) | {
        "weights_bytes": size,
        "bits_per_weight": size / 1000,
        "bits_per_quantized_weight": size / 2000,
        "memory_bytes": 3 * size,
        "tokens_per_second": 123.4,
        "prompt_tokens_per_second": 987.6,
        "perplexity": 1.25,
        "kl": {"mean": (1 - same_top) / 10, "p99": 1 - same_top, "same_top": same_top},
        "score": score and {"metric": "exact_match", **value},
    }


def refused(name: str, reason: str) -> Any:
    return blank(METHODS[name]) | {"status": "not_run", "reason": reason}


def results(rows: list[Any], **more: Any) -> dict[str, Any]:
    layers = {
        each["method"]: {Q: 0.01 + number / 10, DOWN: 0.02 + number / 10}
        for number, each in enumerate(rows)
        if each["status"] == "measured" and each["method"] != "none"
    }
    return {
        "schema": 2,
        "inputs": {},
        "recipe": "demo",
        "model": "tuned",
        "base": "tiny-llama",
        "task": "test",
        "questions": 8,
        "graded": 8,
        "replies": 8,
        "positions": 500,
        "device": "cpu",
        "memory": {"transformers": "as held", "llama.cpp": "resident"},
        "rule": "The smallest that is good enough.",
        "best": "nf4",
        "says": "NF4 is the best choice.",
        "rows": rows,
        "layers": layers,
        **more,
    }
