"""Random weights, the same on every run, for a folder that holds a Llama's config.json.

python scripts/gpu/make_base.py FOLDER [--tokenizer FILE] [--adapter FOLDER]

Initialised as Transformers does (normal, standard deviation `initializer_range`), in bf16.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SEED = 3407


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path, help="where to put a random adapter, rank 32")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to put beside the weights")
    options = parser.parse_args()
    if options.tokenizer:
        shutil.copyfile(options.tokenizer, options.folder / "tokenizer.json")
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


if __name__ == "__main__":
    main()
