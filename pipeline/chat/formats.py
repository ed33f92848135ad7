"""The chat formats that there are, and which of them a base's tokenizer is made for."""

import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pipeline.chat.format import ChatFormat
from pipeline.errors import PipeError, RecipeError

LLAMA32_REASONING = ChatFormat(
    name="llama3.2-reasoning",
    bos="<|begin_of_text|>",
    start_header="<|start_header_id|>",
    end_header="<|end_header_id|>",
    gap="\n\n",
    end_of_turn="<|eot_id|>",
    after_turn="",
    ends=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    pad="<|finetune_right_pad_id|>",
    think="<think>",
    end_think="</think>",
    stops=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    spelled=re.compile(r"<\|(?=[A-Za-z0-9_]+\|>)"),
    normal_form=None,
    note="The model thinks before it answers and loses Llama's own tool calling.",
)

CHATML_REASONING = ChatFormat(
    name="chatml-reasoning",
    bos=None,
    start_header="<|im_start|>",
    end_header=None,
    gap="\n",
    end_of_turn="<|im_end|>",
    after_turn="\n",
    # llama.cpp ends a reply on the tokens of code infilling too
    ends=("<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    pad="<|endoftext|>",
    think="<think>",
    end_think="</think>",
    stops=("<|im_start|>", "<|im_end|>"),
    # Qwen3's tokenizer finds these tags in any text, as llama.cpp does
    spelled=re.compile(r"<\|(?=[A-Za-z0-9_]+\|>)|<(?=/?(?:think|tool_call|tool_response)>)"),
    normal_form="NFC",
    note=(
        "The model thinks before it answers and loses Qwen's own tool calling. No system message "
        "is added where there is none, as Qwen2.5's own template does."
    ),
)

ASSUMED = LLAMA32_REASONING
"""By whose tags the replies of a model are read of which nothing but its file or name is known."""

FORMATS = {format.name: format for format in (LLAMA32_REASONING, CHATML_REASONING)}


def chat_format(name: str, *, thinks: bool = True) -> ChatFormat:
    """The format of that name; without `thinks`, for a model that never does.

    Raises RecipeError where there is none.
    """
    if name not in FORMATS:
        raise RecipeError(f"Unknown chat format {name}.", f"There is: {', '.join(FORMATS)}")
    return FORMATS[name] if thinks else replace(FORMATS[name], thinks=False)


def format_for(tokenizer_json: Path) -> ChatFormat:
    """The format that the tokenizer has the control tokens of, whatever the model is called.

    Raises PipeError where it has those of none, or cannot be read.
    """
    tokens = _tokens(tokenizer_json)
    for format in FORMATS.values():
        if tokens.issuperset(format.needs):
            return format
    raise misfit(ASSUMED, ASSUMED.start_header, tokens)


def check_fit(tokenizer_json: Path, format: ChatFormat) -> None:
    """Raises PipeError, with the format to take instead, where the tokenizer lacks a token of it.

    Takes a fraction of a second for a vocabulary of 150,000; Encoder looks for itself.
    """
    tokens = _tokens(tokenizer_json)
    for name in format.needs:
        if name not in tokens:
            raise misfit(format, name, tokens)


def misfit(format: ChatFormat, lacking: str, tokens: Collection[str]) -> PipeError:
    """What to say of a tokenizer with these tokens, which lacks one that the format needs."""
    others = (each for each in FORMATS.values() if each.name != format.name)
    fits = [each.name for each in others if all(name in tokens for name in each.needs)]
    cure = "Use a Llama 3, Qwen2 or Qwen3 base."
    if fits:
        cure = f"This base has the tokens of another: --set chat.format={fits[0]}"
    return PipeError(
        f"The tokenizer has no token {lacking}, which the format {format.name} needs.", cure
    )


def _tokens(tokenizer_json: Path) -> frozenset[str]:
    try:
        found = json.loads(tokenizer_json.read_text(encoding="utf-8"))
        added = (token["content"] for token in found["added_tokens"])
        return frozenset([*found["model"]["vocab"], *added])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{tokenizer_json} cannot be read: {error!r}"
        raise PipeError(reason, "Check model.base.") from None
