"""The tensors of a PEFT adapter file, sorted by the module of the base that they belong to."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipeError
from pipeline.gguf.weights.checkpoint import Checkpoint, Stored

UNKNOWN = ""
"""The part of a tensor that is neither LoRA's nor a whole parameter."""
_PREFIX = "base_model.model."
_LORA = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(?:\.(?P<adapter>[^.]+?))??(?:\.(?P<kind>weight|bias))?"
)
_TOKENS = re.compile(
    r"(?P<module>.+)\.token_adapter\.(?P<part>trainable_tokens_delta)(?:\.(?P<adapter>[^.]+))?"
)
_COPY = re.compile(
    r"(?P<module>.+?)\.(?P<part>modules_to_save)(?:\.(?P<adapter>[^.]+?))??\.(?P<kind>weight|bias)"
)
_BASE = re.compile(
    r"(?P<module>.+?)(?:\.token_adapter)?\.(?P<part>base_layer|original_module)"
    r"\.(?P<kind>weight|bias)"
)
_OWN = re.compile(r"(?P<module>.+)\.(?P<kind>weight|bias)")


@dataclass
class Saved:
    """What an adapter holds for one module; each part can be taken once.

    Parts are PEFT's names without the adapter's: lora_A, lora_B, lora_B.bias, lora_embedding_A,
    lora_embedding_B, lora_magnitude_vector, trainable_tokens_delta, and for whole parameters
    weight, bias, base_layer.weight, base_layer.bias.
    """

    module: str
    file: Checkpoint
    parts: dict[str, str]
    """Part -> the tensor's name in the file."""

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    def take(self, part: str) -> Stored:
        """Raises PipeError for a part that is missing, of another type, or not finite."""
        if part not in self.parts:
            raise PipeError(
                f"The adapter lacks {part} of {self.module}.", "Save it again: save_pretrained."
            )
        name = self.parts.pop(part)
        stored = self.file.read(name)
        if not stored.finite():
            raise PipeError(
                f"The adapter's tensor {name} holds NaN or infinity.",
                "Train again with a lower train.learning_rate.",
            )
        return stored


def read_saved(folder: Path) -> dict[str, Saved]:
    """What adapter_model.safetensors holds, by module name as the base has it.

    Raises PipeError for a missing, torn or foreign file, and for more than one adapter in it.
    """
    file = Checkpoint([_weights_file(folder)])
    modules: dict[str, Saved] = {}
    adapters: set[str] = set()
    for name in file:
        module, part, adapter = _split(name)
        saved = modules.setdefault(module, Saved(module, file, {}))
        if part in saved:
            raise PipeError(f"{folder} holds {name} beside {saved.parts[part]}.", "Keep one.")
        saved.parts[part] = name
        adapters |= {adapter} if adapter else set()
    if len(adapters) > 1:
        raise PipeError(
            f"{folder} holds several adapters in one file: {', '.join(sorted(adapters))}.",
            "Save one: save_pretrained(selected_adapters=[name]).",
        )
    for saved in modules.values():
        _drop_second_copies(saved)
    return modules


def _weights_file(folder: Path) -> Path:
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        if (folder / "adapter_model.bin").exists():
            raise PipeError(
                f"{folder} holds its weights as adapter_model.bin, a pickle, which can run code.",
                "Save it again with PEFT: save_pretrained(folder, safe_serialization=True).",
            )
        raise PipeError(f"{folder} holds no adapter_model.safetensors.", "Train it: pipe train")
    return path


def _split(name: str) -> tuple[str, str, str | None]:
    """Module, part, and the adapter's name where a raw state dict kept it."""
    stem = name.removeprefix(_PREFIX)
    for pattern in (_LORA, _TOKENS, _COPY, _BASE, _OWN):
        if found := pattern.fullmatch(stem):
            groups = found.groupdict()
            return found["module"], _part(groups), groups.get("adapter")
    return stem, UNKNOWN, None


def _part(groups: dict[str, str | None]) -> str:
    part, kind = groups.get("part"), groups.get("kind")
    if part in ("base_layer", "original_module"):
        return f"base_layer.{kind}"
    if part is None or part == "modules_to_save":
        return f"{kind}" if part is None else f"{part}.{kind}"
    return f"{part}.bias" if kind == "bias" else part


def _drop_second_copies(saved: Saved) -> None:
    """save_embedding_layers adds the state of the module that modules_to_save has saved already."""
    for kind in ("weight", "bias"):
        if (copy := f"modules_to_save.{kind}") in saved.parts:
            name = saved.parts.pop(copy)
            saved.parts.setdefault(kind, name)
