"""results.json of a comparison and of a quantization study, with figures that tests know."""

from typing import Any

from tests.report.figures import value

VARIANTS: list[dict[str, Any]] = [
    {
        "label": "r8",
        "settings": {"train.lora.r": 8},
        "run": "runs/r8",
        "status": "done",
        "reason": None,
        "method": "qlora",
        "trainable_parameters": 98304,
        "total_parameters": 2033408,
        "memory_bytes": 1_000_000_000,
        "memory_saving": 0.0,
        "seconds": 50.0,
        "speed_up": 1.0,
        "tokens_per_second": 5000.0,
        "train_loss": 0.09,
        "eval_loss": 0.08,
        "general_loss_before": 0.0576,
        "general_loss_after": 1.5,
        "metric": "exact_match",
        "before": value(0.05),
        "after": value(0.70),
        "steps": 180,
    },
    {
        "label": "r32",
        "settings": {"train.lora.r": 32},
        "status": "done",
        "memory_bytes": 1_250_000_000,
        "memory_saving": -0.25,
        "seconds": 100.0,
        "speed_up": 0.5,
        "after": value(0.84),
        "before": value(0.05),
        "train_loss": 0.03,
    },
    {
        "label": "8bit",
        "settings": {"train.method": "lora-8bit"},
        "status": "refused",
        "reason": "method lora-8bit needs a GPU | see `pipe doctor`",
    },
]
COMPARED = {
    "schema": 2,
    "inputs": {},
    "recipe": "demo",
    "vary": {"train.lora.r": [8, 32]},
    "rule": "The highest accuracy; of equals, the fewest parameters.",
    "best": "r32",
    "reference": "r8",
    "device": "cpu",
    "variants": VARIANTS,
}
PRECISIONS = {
    "schema": 2,
    "inputs": {},
    "model": "tuned",
    "task": "test",
    "rows": [
        {
            "method": "nf4",
            "label": "NF4",
            "family": "4-bit",
            "status": "measured",
            "reason": None,
            "weights_bytes": 1_100_000,
            "bits_per_weight": 4.13,
            "memory_bytes": 7_700_000,
            "tokens_per_second": 900.0,
            "perplexity": 1.05,
            "kl": {"mean": 0.0123, "p99": 0.2, "same_top": 0.97},
            "score": {"metric": "exact_match", "value": 0.8, "low": 0.75, "high": 0.85},
        },
        {"method": "gptq", "label": "GPTQ", "status": "not_run", "reason": "No module named x"},
    ],
    "rule": "The fewest bytes that keep the score.",
    "says": "NF4 is the best choice.",
    "memory": {"transformers": "what torch has allocated"},
    "layers": {"nf4": {"blk.0.attn_q": 0.08, "blk.1.ffn_up": 0.093}},
}
