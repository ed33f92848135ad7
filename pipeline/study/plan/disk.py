"""What each stage leaves on the disk, before it runs."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.gguf.header import aligned
from pipeline.gguf.kernels import row_bytes
from pipeline.gguf.mix import Facts, Override, choose_types
from pipeline.gguf.mix import Shape as Placed
from pipeline.recipe import Recipe
from pipeline.run import Run
from pipeline.study.plan.found import Found
from pipeline.study.plan.memory import Setting, optimizer_bytes
from pipeline.study.plan.shapes import Shape
from pipeline.train.checkpoint import KEPT

_STORED = "BF16"
"""The type of a 16-bit base's matrices; its vectors are written in F32."""


@dataclass(frozen=True)
class Item:
    """What a stage writes: bytes, None where they are not known yet."""

    stage: str
    what: str
    bytes: int | None
    how: str
    """`there` (on the disk now), `exact`, or `planned`."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def disk_of(recipe: Recipe, run: Run, found: Found) -> list[Item]:
    """Every stage's files in the order of the work."""
    shape = found.shape
    items = [_base(found), _data(run)]
    items += list(_training(recipe, shape))
    overrides = tuple(map(Override.parse, recipe.export.tensor_types))
    return items + [
        Item("export", f"{type}, and a header", gguf_bytes(shape, type, overrides), "exact")
        for type in recipe.export.quantize
    ]


def free_bytes(folder: Path) -> int:
    """Free where `folder` is, or will be made."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def gguf_bytes(shape: Shape, type: str, overrides: Sequence[Override] = ()) -> int:
    """The tensors of a GGUF file of `type`, as llama-quantize's mix of types and `pipe export` have
    them; before them lies a header with the vocabulary, some MB.
    """
    model = shape.architecture
    names = model.names()
    tensors = [
        Placed(
            names[tensor.name],
            tensor.shape[0] if len(tensor.shape) > 1 else 1,
            tensor.shape[-1],
            _STORED if len(tensor.shape) > 1 else "F32",
        )
        for tensor in shape.tensors
    ]
    tensors += [Placed(n, 1, len(values)) for n, values in model.extra_tensors().items()]
    facts = Facts(model.gguf_name, model.layers, model.heads, model.kv_heads)
    types = choose_types(type, tensors, facts, overrides)
    return sum(aligned(each.rows * row_bytes(types[each.name], each.columns)) for each in tensors)


def _base(found: Found) -> Item:
    if found.folder is not None and found.is_here:
        size = sum(path.stat().st_size for path in found.folder.glob("*.safetensors"))
        return Item("download", f"base, {found.origin}", size, "there")
    return Item("download", "base in 16 bits, once", 2 * found.shape.parameters, "planned")


def _data(run: Run) -> Item:
    made = run.last("data")
    if made is None:
        return Item("data", "rows, known after pipe prepare", None, "planned")
    return Item("data", "rows", sum(entry.bytes for entry in made.outputs.values()), "there")


def _training(recipe: Recipe, shape: Shape) -> Iterator[Item]:
    """Checkpoints that are kept at once, the one being written too, and the result."""
    setting = Setting.of(recipe)
    full = setting.method == "full"
    trained = shape.parameters if full else sum(shape.adapter(setting.lora))
    at_once = KEPT + 1 + 2 * (recipe.train.keep == "best")
    each = 4 * trained + optimizer_bytes(shape, setting)
    yield Item("train", f"{at_once} checkpoints while it runs", at_once * each, "planned")
    what, size = ("model", 2 * trained) if full else ("adapter", 4 * trained)
    yield Item("train", what, size, "planned")
