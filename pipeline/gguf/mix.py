"""Which type each tensor gets in a file type: llama.cpp's choice (src/llama-quant.cpp)."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import RecipeError
from pipeline.gguf.kernels import BLOCKS

FILE_TYPES: Mapping[str, int] = {
    "F32": 0,
    "F16": 1,
    "Q8_0": 7,
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "BF16": 32,
}
"""llama_ftype of llama.h, which a file carries as `general.file_type`."""

_FLOATS = ("F32", "F16", "BF16")
# tensor_type_fallback: for rows that do not fill blocks of 256
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_ATTENTION_OUTPUT = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}

# what std::regex and re read alike; a pattern can hold no "=", which ends it
_ALIKE = re.compile(
    r"(?:[a-z0-9_.*+?^$|()-]|\\[.dw]|\[\^?[a-z0-9_.][a-z0-9_.-]*\]|\{\d+(?:,\d*)?\}|\(\?[:!])+"
)
_POSSESSIVE = re.compile(r"[*+?}]\+")


@dataclass(frozen=True)
class Shape:
    """One tensor of the 16-bit file; a vector has one row."""

    name: str
    rows: int
    columns: int
    stored: str = "F32"
    """Its type in the 16-bit file, which stays where llama.cpp quantizes nothing."""


@dataclass(frozen=True)
class Facts:
    """What the choice depends on beside names and shapes."""

    architecture: str
    """`general.architecture`: llama, qwen2 or qwen3."""
    layers: int
    heads: int
    kv_heads: int

    @property
    def gqa(self) -> int:
        """Query heads that share a key head (llama_hparams::n_gqa)."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """LLM_TYPE_70B of load_arch_hparams: any Llama or Qwen2 of 80 layers, by its heads."""
        grouped = self.heads != self.kv_heads
        return self.layers == 80 and (
            self.architecture == "qwen2" or (self.architecture == "llama" and grouped)
        )


@dataclass(frozen=True)
class Override:
    """llama-quantize's --tensor-type: the tensors whose name `pattern` is found in get `type`."""

    pattern: str
    """A regular expression in lower case."""
    type: str

    @classmethod
    def parse(cls, text: str) -> "Override":
        """From `REGEX=TYPE`, as parse_tensor_type of tools/quantize reads it.

        The whole pattern becomes lower case, so `\\D` means `\\d`; the type's case is free.
        Raises RecipeError for what is none, or that C++ would read otherwise than Python.
        """
        pattern, _, type = text.partition("=")
        pattern, type = pattern.lower(), type.upper()
        if not pattern or type not in BLOCKS:
            raise RecipeError(
                f"{text} is no tensor type override.",
                f"Write REGEX=TYPE, such as ffn_down=q6_k, with one of {', '.join(BLOCKS)}.",
            )
        _check_pattern(pattern)
        return cls(pattern, type)

    def applies_to(self, name: str) -> bool:
        """std::regex_search: found anywhere in the name."""
        return re.search(self.pattern, name, re.ASCII) is not None


def choose_types(
    file_type: str,
    tensors: Sequence[Shape],
    facts: Facts,
    overrides: Sequence[Override] = (),
) -> dict[str, str]:
    """Tensor name -> type, as llama-quantize of the same model chooses (llama_tensor_get_type).

    The embedding is tied where there is no `output.weight`. Of `overrides` the first that applies
    wins; F32, F16 and BF16 files know none. An importance matrix changes no type in FILE_TYPES.
    Raises RecipeError for another file type, or an override that no quantized tensor's name has.
    """
    if file_type not in FILE_TYPES:
        raise RecipeError(f"Unknown type {file_type}.", f"There are: {', '.join(FILE_TYPES)}.")
    quantized = [shape for shape in tensors if _is_quantized(shape)]
    _check_used(overrides, quantized)
    types = {shape.name: shape.stored for shape in tensors}
    if file_type in _FLOATS:
        return types | {shape.name: file_type for shape in quantized}
    mixture = _Mixture(file_type, facts, tensors)
    for shape in sorted(quantized, key=_file_order):
        wanted = _overridden(shape, overrides) or mixture.type_of(shape)
        types[shape.name] = _fitting(wanted, shape.columns)
    return types


def check_overrides(file_types: Sequence[str], overrides: Sequence[Override]) -> None:
    """Raises RecipeError where there are overrides and none of `file_types` is quantized."""
    if overrides and not any(file_type not in _FLOATS for file_type in file_types):
        raise RecipeError(
            f"Types of single tensors change nothing in {', '.join(file_types)}.",
            "Ask for a quantized type too, such as Q4_K_M, or leave the overrides out.",
        )


def fallbacks(
    file_type: str,
    tensors: Sequence[Shape],
    types: Mapping[str, str],
    overrides: Sequence[Override] = (),
) -> int:
    """How many matrices got another type as their columns do not fill the wanted type's blocks.

    `types` is what `choose_types` made of the rest. A tied embedding or an output that becomes Q8_0
    counts too; llama-quantize's own warning leaves it out.
    """
    if file_type in _FLOATS:
        return 0
    default = _default_type(file_type)
    # every type in a mix has blocks as wide as the default's, and a fallback narrower ones
    return sum(
        BLOCKS[types[shape.name]][0] < BLOCKS[_overridden(shape, overrides) or default][0]
        for shape in tensors
        if _is_quantized(shape)
    )


class _Mixture:
    """llama_tensor_get_type_impl: it counts, so it must be asked in the order of _file_order.

    A tensor that an override took is not asked about and not counted: later layers move up.
    """

    def __init__(self, file_type: str, facts: Facts, tensors: Sequence[Shape]) -> None:
        self._file_type, self._facts = file_type, facts
        self._default = _default_type(file_type)
        names = [shape.name for shape in tensors]
        self._tied = "output.weight" not in names
        self._attention_values = sum("attn_v.weight" in name for name in names)
        self._seen: Counter[str] = Counter()

    def type_of(self, shape: Shape) -> str:
        name = shape.name
        if name == "output.weight" or (self._tied and name == "token_embd.weight"):
            # where 256 do not fit, Q6_K falls back to the Q8_0 that llama.cpp names here
            return "Q8_0" if self._default == "Q8_0" else "Q6_K"
        if "attn_v.weight" in name:
            return self._attention_value(self._next("attn_v"), self._attention_values)
        if "attn_output.weight" in name:
            return _ATTENTION_OUTPUT.get(self._file_type, self._default)
        if "ffn_down" in name:
            return self._ffn_down(self._next("ffn_down"), self._facts.layers)
        return self._default

    def _attention_value(self, layer: int, layers: int) -> str:
        chosen = self._default
        match self._file_type:
            case "Q2_K":
                chosen = "Q4_K" if self._facts.gqa >= 4 else "Q3_K"
            case "Q3_K_M":
                chosen = "Q5_K" if layer < 2 else "Q4_K"
            case "Q3_K_L":
                chosen = "Q5_K"
            case "Q4_K_S" if layer < 4:
                chosen = "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _more_bits(layer, layers):
                chosen = "Q6_K"
        # eight heads share these weights: more bits cost next to nothing
        return "Q5_K" if self._facts.is_70b and chosen in ("Q3_K", "Q4_K") else chosen

    def _ffn_down(self, layer: int, layers: int) -> str:
        match self._file_type:
            case "Q2_K":
                return "Q3_K"
            case "Q3_K_M":
                return "Q5_K" if layer < layers // 16 else "Q4_K"
            case "Q3_K_L":
                return "Q5_K"
            case "Q4_K_S" if layer < layers // 8:
                return "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _more_bits(layer, layers):
                return "Q6_K"
        return self._default

    def _next(self, kind: str) -> int:
        self._seen[kind] += 1
        return self._seen[kind] - 1


def _default_type(file_type: str) -> str:
    """llama_ftype_get_default_type: Q4_K_M holds Q4_K."""
    return file_type if file_type in BLOCKS else file_type[:4]


def _overridden(shape: Shape, overrides: Sequence[Override]) -> str | None:
    return next((each.type for each in overrides if each.applies_to(shape.name)), None)


def _more_bits(layer: int, layers: int) -> bool:
    """use_more_bits: the first and last eighth, and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(type: str, columns: int) -> str:
    """tensor_type_fallback: a type whose blocks a row of `columns` weights fills."""
    if columns % BLOCKS[type][0] == 0:
        return type
    smaller = _FALLBACK.get(type, type)
    return smaller if columns % BLOCKS[smaller][0] == 0 else "F16"


def _is_quantized(shape: Shape) -> bool:
    """tensor_allows_quantization, for the tensors that a Llama or Qwen has."""
    return shape.rows > 1 and shape.name.endswith("weight") and "_norm.weight" not in shape.name


def _file_order(shape: Shape) -> tuple[int, str]:
    """weight_name_comparer of llama-model-loader.h: by layer, whatever the file's own order."""
    found = re.match(r"blk\.(\d+)", shape.name)
    return int(found[1]) if found else -1, shape.name


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"{pattern} is no regular expression: {error}.") from None
    if not _ALIKE.fullmatch(pattern) or _POSSESSIVE.search(pattern):
        raise RecipeError(
            f"llama.cpp may read the regular expression {pattern} in another way.",
            r"Names need no more than letters, digits and _ . \. \d \w * + ? | ^ $ ( ) [ ] { }.",
        )


def _check_used(overrides: Sequence[Override], quantized: Sequence[Shape]) -> None:
    """A misspelt name would change nothing without a word."""
    for override in overrides:
        if not any(override.applies_to(shape.name) for shape in quantized):
            raise RecipeError(
                f"No tensor that is quantized has {override.pattern} in its name.",
                "Names are such as blk.0.ffn_down.weight and token_embd.weight.",
            )
