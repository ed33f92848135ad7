"""A base of Llama's shape with random weights, the same on every run, to measure speed on.

python scripts/gpu/make_base.py FOLDER [--shape 1b] [--tokenizer FILE] [--adapter FOLDER]

Initialised as Transformers does (normal, standard deviation `initializer_range`), in bf16. Without
--shape the folder holds a config.json already.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_export_models import _COMMON, SHAPES

SEED = 3407
TINY = Path(__file__).parents[2] / "data" / "tiny-llama" / "tokenizer.json"
EIGHT_B: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "head_dim": 128,
    "intermediate_size": 14336,
    "tie_word_embeddings": False,
}
_SPECIAL = {
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|eot_id|>",
    "pad_token": "<|finetune_right_pad_id|>",
}


def write_config(folder: Path, shape: str, tokenizer: Path) -> None:
    """config.json of Llama 3.2's 1B or 3B or Llama 3.1's 8B, and the tokenizer's files."""
    sizes = {name.lower(): each for name, each in SHAPES.items()} | {"8b": EIGHT_B}
    added = json.loads(tokenizer.read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    config = _COMMON | sizes[shape] | {f"{name}_id": ids[text] for name, text in _SPECIAL.items()}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", **_SPECIAL}
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("config.json", config), ("tokenizer_config.json", words)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


def main() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options = options_of()
    if options.shape:
        write_config(options.folder, options.shape, options.tokenizer)
    # Transformers would write it anew, and prepared rows know the file by its hash
    kept = (options.folder / "config.json").read_bytes()
    torch.manual_seed(SEED)
    config = AutoConfig.from_pretrained(options.folder)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(options.folder)
    (options.folder / "config.json").write_bytes(kept)
    (options.folder / "generation_config.json").unlink(missing_ok=True)
    if options.adapter:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=32, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(model, lora).save_pretrained(options.adapter)
    print(f"{options.folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=["1b", "3b", "8b"])
    parser.add_argument("--adapter", type=Path, help="where to put a random adapter, rank 32")
    parser.add_argument("--tokenizer", type=Path, default=TINY, help="a tokenizer.json of Llama's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
