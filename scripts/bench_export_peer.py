"""The usual way to a quantized GGUF, in the steps that scripts/bench_export.py times.

python scripts/bench_export_peer.py merge BASE ADAPTER OUT
python scripts/bench_export_peer.py convert LLAMA_CPP MERGED OUTTYPE OUT
"""

import runpy
import sys
from pathlib import Path
from typing import Any


def merge(base: str, adapter: str, out: str) -> None:
    """PEFT's merge on the CPU, in the base's own type, saved as a checkpoint."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)


def convert(llama_cpp: str, merged: str, outtype: str, out: str) -> None:
    """convert_hf_to_gguf.py; only its question for an unknown tokenizer's name is answered."""
    script = Path(llama_cpp) / "convert_hf_to_gguf.py"
    sys.path.insert(0, llama_cpp)
    sys.path.insert(0, str(Path(llama_cpp) / "gguf-py"))
    from conversion.base import TextModel

    known = TextModel.get_vocab_base_pre

    def name_of(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            return "llama-bpe"

    TextModel.get_vocab_base_pre = name_of
    sys.argv = [str(script), merged, "--outtype", outtype, "--outfile", out]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    {"merge": merge, "convert": convert}[sys.argv[1]](*sys.argv[2:])
