"""A few questions answered aloud by the model in training, which learns on as if never asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MAX_NEW_TOKENS = 256
_FLAGS = ("training", "gradient_checkpointing", "_flag_for_generation")
"""What generating, or Unsloth's `for_inference` and `for_training` around it, switch in modules."""
_ABSENT = object()


def answer_aloud(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_ids: Sequence[int],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """The greedy reply to each prompt, without control tokens; "" for none.

    `model` is the one in training, not one that DDP or FSDP has wrapped; `prompts` are token ids,
    `end_ids` those that end a reply. A reply of `max_new_tokens` is cut off there. The model, its
    configuration and the random generators are left as they were, so that the losses that follow
    have the same bits; modules that torch.compile has made may be an exception.
    """
    import torch

    if not prompts:
        return []
    width = max(map(len, prompts))
    pad = min(end_ids)  # masked, and after a reply not read
    device = model.get_input_embeddings().weight.device
    with _as_it_was(model), torch.no_grad(), _half_precision(model, device):
        if not hasattr(model, "for_training"):  # Unsloth's generate switches there and back
            model.eval()
        output = model.generate(
            input_ids=torch.tensor([[pad] * (width - len(p)) + [*p] for p in prompts]).to(device),
            attention_mask=torch.tensor(
                [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
            ).to(device),
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(end_ids),
            pad_token_id=pad,
            do_sample=False,
            use_cache=True,
        )
    ends = set(end_ids)
    return [_text(tokenizer, row, ends) for row in output[:, width:].tolist()]


def _text(tokenizer: Any, row: list[int], ends: set[int]) -> str:
    length = next((place for place, token in enumerate(row) if token in ends), len(row))
    return str(tokenizer.decode(row[:length], skip_special_tokens=True)).strip()


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Puts back the flags of all modules, `use_cache`, and the random generators of torch.

    Unsloth's `for_training`, within its `generate`, has put back what else it had changed: the
    padding side of the tokenizer and the adapter's copies for fast answers.
    """
    import torch

    modules = list(model.modules())
    flags = [{name: vars(each).get(name, _ABSENT) for name in _FLAGS} for each in modules]
    caches = [(config, config.use_cache) for config in _configs(model)]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for module, known in zip(modules, flags, strict=True):
                _put_back(module, known)
            for config, value in caches:
                config.use_cache = value


def _put_back(module: Any, flags: dict[str, Any]) -> None:
    for name, value in flags.items():
        if value is not _ABSENT:
            setattr(module, name, value)
        elif name in vars(module):
            delattr(module, name)


def _configs(model: Any) -> list[Any]:
    """Each configuration that says whether keys and values are kept, once."""
    found = {
        id(c): c for m in model.modules() if hasattr(c := getattr(m, "config", None), "use_cache")
    }
    return list(found.values())


def _half_precision(model: Any, device: Any) -> Any:
    """On a GPU what the Trainer computes in too: layers of two precisions do not fit otherwise."""
    import torch

    halves = (torch.bfloat16, torch.float16)
    dtype = next((p.dtype for p in model.parameters() if p.dtype in halves), None)
    enabled = device.type == "cuda" and dtype is not None
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)
