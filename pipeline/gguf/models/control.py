"""The control tokens that a file names, and the chat template: a run's own or the base's."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipeError
from pipeline.gguf.models.vocabulary import Vocabulary, named_token, read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>")
_END_OF_MESSAGE = "<|eom_id|>"


@dataclass(frozen=True)
class ControlTokens:
    """Ids; None where the model has no such token."""

    bos: int | None
    eos: int
    eot: int | None
    eom: int | None
    pad: int | None
    add_bos: bool
    """Whether a runtime puts `bos` before every text."""

    @classmethod
    def of_format(
        cls, vocabulary: Vocabulary, *, bos: str | None, end_of_turn: str, pad: str
    ) -> "ControlTokens":
        """What a chat format asks for: generation ends at its end of turn.

        Raises PipeError where the tokenizer lacks `bos` or `end_of_turn`; `pad` may be missing.
        """
        end = vocabulary.id_of(end_of_turn)
        return cls(
            bos=None if bos is None else vocabulary.id_of(bos),
            eos=end,
            eot=end,
            eom=vocabulary.ids.get(_END_OF_MESSAGE),
            pad=vocabulary.ids.get(pad),
            add_bos=bos is not None,
        )

    @classmethod
    def of_folder(cls, vocabulary: Vocabulary, folder: Path) -> "ControlTokens":
        """What the model's own files say, as gguf-py's SpecialVocab reads them.

        tokenizer_config.json names tokens, and the post-processor the one that it puts first;
        where they do not, generation_config.json and config.json give ids.
        Raises PipeError where none of them says how a text ends.
        """
        ids = {kind: _own_id(kind, vocabulary, folder) for kind in ("bos", "eos", "pad")}
        eos, first = ids["eos"], vocabulary.first
        if eos is None:
            raise PipeError(
                f"The files in {folder} do not say which token ends a text.",
                "Set eos_token in tokenizer_config.json.",
            )
        turns = (vocabulary.ids[name] for name in _ENDS_OF_TURN if name in vocabulary.ids)
        return cls(
            bos=ids["bos"] if first is None else first,
            eos=eos,
            eot=next(turns, None),
            eom=vocabulary.ids.get(_END_OF_MESSAGE),
            pad=ids["pad"],
            add_bos=first is not None,
        )

    def add_to(self, writer: "GGUFWriter") -> None:
        """The tokenizer.ggml.*_token_id keys and add_bos_token.

        eot is said where it is known: llama.cpp would else take the first it meets by its text.
        """
        if self.bos is not None:
            writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        if self.eot is not None:
            writer.add_eot_token_id(self.eot)
        if self.eom is not None:
            writer.add_eom_token_id(self.eom)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(self.add_bos)


def own_chat_template(folder: Path) -> str | None:
    """The model's own Jinja template, the default one where it has several; None without any.

    chat_template.jinja wins over tokenizer_config.json, as in Transformers.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = _optional(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _own_id(kind: str, vocabulary: Vocabulary, folder: Path) -> int | None:
    name = named_token(_optional(folder / "tokenizer_config.json"), kind)
    if name in vocabulary.ids:
        return vocabulary.ids[name]
    for file in ("generation_config.json", "config.json"):
        number = _optional(folder / file).get(f"{kind}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and 0 <= number < len(vocabulary.tokens):
            return number
    return None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
