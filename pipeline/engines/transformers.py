"""Transformers: the 16-bit base, the base with the adapter as trained, and the merged model."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.base import Base
from pipeline.chat import Conversation, Encoder, parse_reply
from pipeline.engines.completion import Completion, Decoding
from pipeline.errors import PipeError

Variant = Literal["base", "adapter", "merged"]


class TransformersEngine:
    """Batched greedy decoding, prompts padded on the left."""

    def __init__(
        self,
        variant: Variant,
        base: Base,
        encoder: Encoder,
        *,
        adapter: Path | None = None,
        load_in_4bit: bool = False,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        self.name: str = variant
        self.encoder = encoder
        self._batch_size = batch_size
        self._ends = encoder.end_ids
        self._model = _load(variant, base, adapter, load_in_4bit, device)

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order, a batch at a time."""
        prompts = [self.encoder.prompt(c, thinking=thinking) for c in conversations]
        for start in range(0, len(prompts), self._batch_size):
            yield from self._batch(
                prompts[start : start + self._batch_size], decoding.max_new_tokens
            )

    def memory_bytes(self) -> int | None:
        import psutil
        import torch

        if self._model.device.type == "cuda":
            return int(torch.cuda.memory_allocated())
        return int(psutil.Process().memory_info().rss)

    def close(self) -> None:
        """Give the memory back: Ollama may want the same GPU."""
        import torch

        self._model = None
        torch.cuda.empty_cache()

    def _batch(self, prompts: list[list[int]], limit: int) -> Iterator[Completion]:
        import torch

        width = max(map(len, prompts))
        pad = self.encoder.pad_id
        rows = [[pad] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        device = self._model.device
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=sorted(self._ends),
                pad_token_id=pad,
            )
        for row in output[:, width:].tolist():
            yield self._completion(row)

    def _completion(self, row: list[int]) -> Completion:
        length = next((i for i, token in enumerate(row) if token in self._ends), len(row))
        ids, stopped = row[:length], length < len(row)
        text = self.encoder.reply_of(ids)
        return Completion(text, parse_reply(text, self.encoder.format), len(ids) + stopped, stopped)


def _load(
    variant: Variant, base: Base, adapter: Path | None, load_in_4bit: bool, device: str
) -> Any:
    """fp32 on a CPU, so that processors agree; bf16 on a GPU, where `device` is cuda."""
    # torch 2.14 warns of its own enums as it loads
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    on_gpu = device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise PipeError(
            "This recipe evaluates on a CUDA GPU and torch sees none here.",
            "On a CPU the shipped demo runs: pipe run -r demo. For the driver see: pipe doctor",
        )
    dtype = torch.bfloat16 if on_gpu else torch.float32
    quantization = None
    if variant == "adapter" and load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        base.folder,
        dtype=dtype,
        device_map={"": 0 if on_gpu else "cpu"},
        quantization_config=quantization,
        trust_remote_code=False,
    )
    # a base's own sampling defaults would only warn: decoding here is greedy
    model.generation_config.temperature = model.generation_config.top_p = None
    if variant == "base":
        return model.eval()
    return _with_adapter(model, variant, adapter).eval()


def _with_adapter(model: Any, variant: Variant, adapter: Path | None) -> Any:
    import torch
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(model, str(adapter))
    if variant == "adapter":
        return tuned
    merged = tuned.merge_and_unload()
    # the served weights have passed through 16 bits: so do these
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)
    return merged
