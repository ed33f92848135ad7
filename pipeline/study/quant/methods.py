"""The rows of the study: what each method is called, and which engine answers with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import RecipeError
from pipeline.gguf.mix import FILE_TYPES

Family = Literal["none", "int8", "4-bit", "gptq", "gguf"]
Engine = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True)
class Method:
    name: str
    """As `--method` takes it; of a GGUF its type."""
    label: str
    family: Family

    @property
    def engine(self) -> Engine:
        return "llama.cpp" if self.family == "gguf" else "transformers"


NONE = Method("none", "none (16 bits)", "none")
"""What the others are held against."""
_IN_TRANSFORMERS = (
    NONE,
    Method("int8", "int8 absmax", "int8"),
    Method("llm-int8", "LLM.int8()", "int8"),
    Method("nf4", "NF4", "4-bit"),
    Method("nf4-dq", "NF4, double quantization", "4-bit"),
    Method("fp4", "FP4", "4-bit"),
    Method("gptq", "GPTQ, 4 bits", "gptq"),
)
_SPREAD = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""The GGUF types that a study has beside the run's own: one for each number of bits."""


def methods(exported: Iterable[str]) -> list[Method]:
    """All rows by rule: Transformers', then the GGUF types from the most bits to the fewest."""
    types = {*_SPREAD, *exported}
    wide = [type for type in ("BF16", "F16") if type in types]
    return [*_IN_TRANSFORMERS, *map(_gguf, [*wide, *_by_bits(types)])]


def chosen(names: Sequence[str], exported: Sequence[str]) -> list[Method]:
    """The rows that were asked for, in the order of the table; `none` is always one of them.

    Any case, and `_` for `-`, will do. Raises RecipeError for a name that is no method.
    """
    all_of = methods(exported)
    if not names:
        return all_of
    types = [type for type in FILE_TYPES if type != "F32"]
    known = {each.name: each for each in (*_IN_TRANSFORMERS, *map(_gguf, types))}
    asked = {_spelled(name, known) for name in names} | {NONE.name}
    order = [each.name for each in methods(types)]
    return [known[name] for name in sorted(asked, key=order.index)]


def _spelled(name: str, known: dict[str, Method]) -> str:
    for spelling in (name, name.lower().replace("_", "-"), name.upper().replace("-", "_")):
        if spelling in known:
            return spelling
    raise RecipeError(f"There is no method {name}.", f"There are: {', '.join(known)}.")


def _gguf(type: str) -> Method:
    return Method(type, f"GGUF {type}", "gguf")


def _by_bits(types: Iterable[str]) -> list[str]:
    """Q8_0 before Q6_K ... before Q2_K; of equal digits L before M before S."""
    narrow = [type for type in types if type.startswith("Q")]
    return sorted(narrow, key=lambda type: (-int(type[1]), "LMS".find(type[-1])))
