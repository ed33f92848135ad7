"""Tokens a second of `pipe eval`'s Transformers engine on a GPU, for each model it can hold.

python scripts/gpu/generate.py --base BASE --adapter DIR --questions test.jsonl --out FILE
"""

import argparse
import json
import sys
import traceback
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

CONTENDERS = (("base", False), ("adapter", False), ("adapter", True), ("merged", False))
"""Which model, and whether its base is NF4."""


def measured(options: argparse.Namespace, variant: Any, load_in_4bit: bool) -> dict[str, Any]:
    """One engine: 8 tokens to warm up, then the timed batch."""
    import torch

    from pipeline.base import open_base
    from pipeline.chat import Encoder, chat_format
    from pipeline.engines.completion import Decoding
    from pipeline.engines.loading import Bits, load_model
    from pipeline.engines.transformers import TransformersEngine
    from pipeline.recipe.schema import Model

    base = open_base(Model(base=str(options.base.resolve())))
    encoder = Encoder(base.folder / "tokenizer.json", chat_format("llama3.2-reasoning"))
    lines = options.questions.read_text(encoding="utf-8").splitlines()
    lines = list(islice(cycle(lines), options.batch))
    chats = [[{"role": "user", "content": json.loads(line)["question"]}] for line in lines]
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = perf_counter()
    bits: Bits = 4 if load_in_4bit else 16
    model = load_model(variant, base, options.adapter, bits=bits, device=options.device)
    engine = TransformersEngine(variant, model, encoder, batch_size=options.batch)
    loaded = perf_counter()
    list(engine.answers(chats, Decoding(8)))
    warm = perf_counter()
    done = list(engine.answers(chats, Decoding(options.tokens)))
    seconds = perf_counter() - warm
    tokens = sum(each.tokens for each in done)
    engine.close()
    return {
        "load_seconds": round(loaded - started, 2),
        "batch": len(chats),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "gpu_allocated": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for variant, load_in_4bit in CONTENDERS:
        name = f"{variant}{'_nf4' if load_in_4bit else ''}"
        try:
            found[name] = measured(options, variant, load_in_4bit)
        except (ImportError, OSError, RuntimeError, TypeError, ValueError):
            found[name] = {"failed": traceback.format_exc()}
        print("RESULT", name, json.dumps(found[name]), flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
