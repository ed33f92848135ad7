"""Into how many tokens a tokenizer cuts the whole numbers 0 to 999."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.assets import PREFIX, locate
from pipeline.errors import PipeError
from pipeline.run import Emit, Note, Progress
from pipeline.run.secrets import harmless

NUMBERS = 1000
BEFORE = "Price is $"
"""What stands before a number: alone, a tokenizer might begin it with a sign for a new word."""

USUAL = (
    "unsloth/Llama-3.2-1B-Instruct",
    "Qwen/Qwen3-0.6B",
    "unsloth/gemma-2-2b-it",
    "microsoft/Phi-3-mini-4k-instruct",
    "microsoft/phi-4",
)
"""One of each family that is asked about most; none of them needs a licence to be accepted."""


@dataclass(frozen=True)
class Numbers:
    """What a tokenizer makes of the numbers; all None where it could not be had."""

    name: str
    vocabulary: int | None = None
    one_token: int | None = None
    """How many of 0 to 999 are one token."""
    up_to: int | None = None
    """The last number before the first that is not; -1 where 0 already is not."""
    most: int | None = None
    """Tokens of the longest."""
    reason: str | None = None
    """Why it could not be had."""


def study(names: tuple[str, ...], emit: Emit) -> dict[str, Any]:
    """{"schema", "before", "numbers", "tokenizers": [Numbers]}, in the order of `names`.

    A name is a hub id, of which tokenizer.json alone is fetched, a folder that holds one, or the
    file itself. What cannot be had is said and kept with its reason.
    Raises PipeError where none of them can be.
    """
    found = []
    for place, name in enumerate(names or USUAL):
        emit(Progress("tokenizers", place, len(names or USUAL), "tokenizers"))
        found.append(_one(name))
        if found[-1].reason:
            emit(Note(f"{name} is left out: {found[-1].reason}", warning=True))
    emit(Progress("tokenizers", len(found), len(found), "tokenizers"))
    if all(each.reason for each in found):
        raise PipeError(
            "None of these tokenizers can be had.",
            "Name a folder with a tokenizer.json: pipe price tokenizers builtin:tiny-llama",
        )
    rows = [asdict(each) for each in found]
    return {"schema": 1, "before": BEFORE, "numbers": NUMBERS, "tokenizers": rows}


def lengths_of(tokenizer_json: Path) -> tuple[int, list[int]]:
    """Size of the vocabulary, and the tokens that each of 0 to 999 takes after BEFORE.

    A number whose digits are joined to what stands before it is not one token: 2 at least.
    Raises PipeError for a file that is no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing more special
        raise PipeError(f"{tokenizer_json.name} is no tokenizer: {error}") from None
    before = _ids(tokenizer, BEFORE)
    lengths = []
    for number in range(NUMBERS):
        ids = _ids(tokenizer, f"{BEFORE}{number}")
        own = len(ids) - len(before)
        lengths.append(own if ids[: len(before)] == before else max(2, own))
    return int(tokenizer.get_vocab_size()), lengths


def _one(name: str) -> Numbers:
    try:
        vocabulary, lengths = lengths_of(_file(name))
    except PipeError as error:
        return Numbers(name, reason=error.message)
    split = [number for number, length in enumerate(lengths) if length > 1]
    return Numbers(
        name,
        vocabulary,
        one_token=NUMBERS - len(split),
        up_to=split[0] - 1 if split else NUMBERS - 1,
        most=max(lengths),
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _file(name: str) -> Path:
    path = locate(name)
    if not (path.exists() or name.startswith((PREFIX, ".", "/", "~"))):
        return _fetched(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise PipeError(f"there is no tokenizer.json in {name}")
    return file


def _fetched(repository: str) -> Path:
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(hf_hub_download(repository, "tokenizer.json"))
    except (OSError, HTTPError, HFValidationError) as error:
        said = harmless((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise PipeError(f"it cannot be fetched: {said}") from None
