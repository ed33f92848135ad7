"""A byte-level BPE vocabulary in GGUF: tokens, their types, merges."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipeError
from pipeline.gguf.models.pretokenizer import pre_tokenizer_of

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""llama_token_type (llama.cpp's include/llama.h)."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids; `types` are llama.cpp's token types."""

    pre: str
    """tokenizer.ggml.pre: which regex splits text."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: Mapping[str, int]
    """Of the tokenizer's own tokens, without fillers."""
    first: int | None
    """The token that the tokenizer puts before every text, if any."""

    @classmethod
    def read(cls, folder: Path, rows: int) -> "Vocabulary":
        """From tokenizer.json, filled up to the embedding's `rows` with unused tokens.

        Tokens that only tokenizer_config.json knows are in too, as Transformers adds them.
        Raises PipeError for a tokenizer that llama.cpp would read otherwise, for more tokens
        than rows, and for a token that stands twice: llama.cpp aborts on it.
        """
        path, beside = folder / "tokenizer.json", folder / "tokenizer_config.json"
        tokenizer, config = read_json(path), read_json(beside) if beside.is_file() else {}
        try:
            pre = pre_tokenizer_of(tokenizer, path)
            ids, kinds = _names(folder, tokenizer, config)
            first = ids.get(_first_token(tokenizer, config))
            merges = [_merge(pair) for pair in tokenizer["model"]["merges"]]
            by_id = _by_id(ids, rows, path)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PipeError(
                f"{path} is not a whole tokenizer: {error!r}.", "Fetch it again."
            ) from None
        tokens = [by_id[i] if i in by_id else _filler(i, ids) for i in range(rows)]
        types = [kinds[by_id[i]] if i in by_id else _UNUSED for i in range(rows)]
        return cls(pre, tokens, types, merges, ids, first)

    def id_of(self, token: str) -> int:
        """Raises PipeError where the tokenizer lacks a token that the chat format needs."""
        if token not in self.ids:
            raise PipeError(
                f"The tokenizer has no token {token}, which the chat format needs.",
                "Choose a chat format made for this base, chat.format; or keep the base's own: "
                "pipe export --own-template, outside a run.",
            )
        return self.ids[token]

    def add_to(self, writer: "GGUFWriter") -> None:
        """The keys of TextModel._set_vocab_gpt2 (llama.cpp's conversion/base.py)."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises PipeError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipeError(f"{path} cannot be read: {error}", "Fetch the base again.") from None
    if not isinstance(found, dict):
        raise PipeError(f"{path} holds no JSON object.", "Fetch the base again.")
    return found


def named_token(config: Mapping[str, Any], kind: str) -> str:
    """The `bos`, `eos` or `pad` token of a tokenizer_config.json; empty where it names none."""
    named = config.get(f"{kind}_token")
    return str((named.get("content") if isinstance(named, dict) else named) or "")


def _first_token(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """By the post-processor's template, or without any by tokenizer_config.json."""
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            single = step.get("single") or [{}]
            return str(single[0].get("SpecialToken", {}).get("id", ""))
    return named_token(config, "bos") if not processor and config.get("add_bos_token") else ""


def _names(
    folder: Path, tokenizer: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    """Of each token as the file has it: its id, and its type."""
    ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
    kinds = dict.fromkeys(ids, _NORMAL)
    for token in _added(tokenizer, config):
        name, number = _as_written(token), token["id"]
        if ids.pop(token["content"], number) != number or ids.setdefault(name, number) != number:
            raise PipeError(f"The tokenizer in {folder} has the token {name!r} under two ids.")
        kinds[name] = _type(token)
    return ids, kinds


def _added(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from tokenizer["added_tokens"]
    known = {token["content"] for token in tokenizer["added_tokens"]}
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        if token["content"] not in known:
            yield {**token, "id": int(number)}


def _type(token: Mapping[str, Any]) -> int:
    return _CONTROL if token["special"] or _looks_special(token["content"]) else _USER_DEFINED


def _looks_special(text: str) -> bool:
    """TextModel.does_token_look_special (conversion/base.py)."""
    ends = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(start) and text.endswith(end) for start, end in ends
    )


def _as_written(token: Mapping[str, Any]) -> str:
    """User-defined tokens have `▁` as a space (TextModel.get_vocab_base)."""
    text = str(token["content"])
    return text.replace("▁", " ") if _type(token) == _USER_DEFINED else text


def _merge(pair: str | Sequence[str]) -> str:
    """One space joins the two; a space inside is encoded (gguf-py's SpecialVocab)."""
    if isinstance(pair, str):
        return pair
    left, right = pair
    return f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"


def _by_id(ids: Mapping[str, int], rows: int, path: Path) -> dict[int, str]:
    counts = Counter(ids.values())
    if twice := [number for number, count in counts.items() if count > 1]:
        names = [name for name, number in ids.items() if number == twice[0]]
        raise PipeError(f"{path} gives the id {twice[0]} to {names[0]!r} and {names[1]!r}.")
    if max(counts) >= rows:
        raise PipeError(
            f"The tokenizer has the id {max(counts)}, the embedding {rows} rows.",
            "Export with the tokenizer that the model was trained with.",
        )
    return {number: name for name, number in ids.items()}


def _filler(number: int, taken: Mapping[str, int]) -> str:
    """[PAD12], as llama.cpp's converter names it, or the next such name that no token has."""
    name = f"[PAD{number}]"
    while name in taken:
        name = f"{name[:-1]}_]"
    return name
