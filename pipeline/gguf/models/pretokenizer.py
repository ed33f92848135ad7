"""Which of llama.cpp's pre-tokenizers splits text as a tokenizer.json does."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

_PRE = {LLAMA3_SPLIT: "llama-bpe", QWEN2_SPLIT: "qwen2"}
"""llm_tokenizer_bpe in llama.cpp's src/llama-vocab.cpp, by the regex that it was adapted from."""
_IGNORES_MERGES = {"llama-bpe": True, "qwen2": False}
_HINT = "Export a model with the tokenizer of Llama 3, Qwen2 or Qwen3, or one trained in its form."


def pre_tokenizer_of(tokenizer: Mapping[str, Any], path: Path) -> str:
    """tokenizer.ggml.pre of a tokenizer.json: `llama-bpe` or `qwen2`.

    NFC normalisation is let pass, as in llama.cpp's converter: llama.cpp does not normalise, so
    text that is not NFC is tokenized otherwise there. Raises PipeError naming whatever else
    llama.cpp would do in another way.
    """
    _check_model(tokenizer["model"], path)
    if ((tokenizer.get("normalizer") or {}).get("type") or "NFC") != "NFC":
        raise _refusal(path, f"normalises by {tokenizer['normalizer']['type']}")
    if (tokenizer.get("decoder") or {}).get("type") != "ByteLevel":
        raise _refusal(path, "does not decode bytes (decoder ByteLevel)")
    for token in tokenizer.get("added_tokens", ()):
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise _refusal(path, f"strips or isolates around its token {token['content']}")
    pre = _PRE.get(_split_pattern(tokenizer, path))
    if pre is None:
        raise _refusal(path, "splits text by a regex of its own")
    _check_merges(tokenizer["model"], pre, path)
    return pre


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    if model.get("type") != "BPE":
        raise _refusal(path, f"is of the type {model.get('type')}, not BPE")
    for key in ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refusal(path, f"sets {key}")


def _split_pattern(tokenizer: Mapping[str, Any], path: Path) -> str:
    """The regex of `Split, then ByteLevel`, the one form that is exported."""
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        raise _refusal(path, "does not split by one regex and then into bytes")
    split, bytes_ = steps
    plain = split.get("behavior") == "Isolated" and not split.get("invert")
    if not plain or bytes_.get("add_prefix_space") or bytes_.get("use_regex"):
        raise _refusal(path, "splits in a way that llama.cpp does not (Isolated, no prefix space)")
    return str(split.get("pattern", {}).get("Regex"))


def _check_merges(model: Mapping[str, Any], pre: str, path: Path) -> None:
    """llama.cpp fixes by the name whether a whole word that is a token is taken unmerged."""
    expected = _IGNORES_MERGES[pre]
    if bool(model.get("ignore_merges")) == expected:
        return
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
    ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
    for token in model["vocab"]:
        if _merged(token, ranks) != [token]:
            raise _refusal(
                path, f"sets ignore_merges to {not expected}, which changes the token {token!r}"
            )


def _merged(token: str, ranks: Mapping[tuple[str, str], int]) -> Sequence[str]:
    """The pieces that BPE leaves of `token`: always the lowest rank first, then the leftmost."""
    pieces = list(token)
    while len(pieces) > 1:
        found = [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not found:
            break
        _, at = min(found)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def _refusal(path: Path, why: str) -> PipeError:
    return PipeError(f"{path.name} {why}: llama.cpp would tokenize otherwise.", _HINT)
