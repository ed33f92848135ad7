"""A PEFT LoRA adapter, and what it changes in each tensor of the base."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError
from pipeline.gguf.weights.changes import AddedBias, Change, Dora, LowRank, Replaced, TrainedRows
from pipeline.gguf.weights.checkpoint import Checkpoint
from pipeline.gguf.weights.peft_config import PeftConfig, read_config
from pipeline.gguf.weights.saved import UNKNOWN, Saved, read_saved
from pipeline.gguf.weights.steps import StepReader, Steps

_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"
_NAMES = {
    "pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "loftq": "LoftQ", "lora_ga": "LoRA-GA",
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: nothing of it is computed until `Change.apply`."""

    changes: Mapping[str, Change]
    """By the base's tensor names; others are as in the base."""
    rows: int | None
    """The vocabulary's new size where the embeddings were resized."""
    own_head: bool
    """The base ties its output to the embedding and this adapter parts them: `changes` then has
    an lm_head.weight that starts from the embedding."""
    summary: Mapping[str, Any]
    """For the manifest: methods, ranks, alphas, and how many tensors change."""


def load_adapter(folder: Path, base: Checkpoint, config: Mapping[str, Any]) -> Adapter:
    """What the adapter in `folder` changes in `base`, whose config.json is `config`.

    Changes are those that the trained model computes with. For LoRA or trained tokens on only one
    of two tied embeddings PEFT's merge_and_unload changes both (it warns); here they are parted.

    Raises PipeError for a folder that is no LoRA adapter or does not fit the base, naming what
    cannot be merged, for NaN or infinity, and for an adapter that changes nothing.
    """
    peft = read_config(folder)
    modules = read_saved(folder)
    _check_saved_modules(peft, base, modules)
    reader = StepReader(peft, base, _initial(peft) if peft.residual else None)
    tied = bool(config.get("tie_word_embeddings", False))
    changes = _embedding_changes(reader, modules, base, tied)
    for module, saved in modules.items():
        if module not in (_EMBEDDING, _HEAD) and UNKNOWN not in saved:
            changes |= _changes(reader, saved)
    _check_nothing_left(modules)
    if not changes:
        raise PipeError(f"The adapter {folder} changes nothing.", "Train it: pipe train --force")
    rows = _vocabulary_rows(changes, base, tied)
    return Adapter(changes, rows, tied and f"{_HEAD}.weight" in changes, _summary(peft, changes))


def _changes(reader: StepReader, saved: Saved) -> dict[str, Change]:
    """What one module changes: its weight, its bias, both or neither."""
    found: dict[str, Change] = {}
    for kind in ("weight", "bias"):
        source = f"{saved.module}.{kind}"
        if any((part.endswith("bias")) == (kind == "bias") for part in saved.parts):
            steps = reader.bias(saved) if kind == "bias" else reader.weight(saved, source)
            found |= _put(source, source, steps)
    return found


def _put(name: str, source: str, steps: Steps) -> dict[str, Change]:
    change = _change(source, steps)
    return {name: change} if change.steps else {}


def _change(source: str, steps: Steps) -> Change:
    done = (*steps.base, *steps.own)
    whole = [number for number, step in enumerate(done) if isinstance(step, Replaced)]
    # what comes before a replacement has no effect
    return Change(None if whole else source, steps.shape, done[whole[-1] :] if whole else done)


def _embedding_changes(
    reader: StepReader, modules: Mapping[str, Saved], base: Checkpoint, tied: bool
) -> dict[str, Change]:
    embedding, head = modules.get(_EMBEDDING), modules.get(_HEAD)
    names = f"{_EMBEDDING}.weight", f"{_HEAD}.weight"
    if not tied:
        return {
            name: change
            for saved in (embedding, head)
            if saved is not None
            for name, change in _changes(reader, saved).items()
        }
    first = reader.weight(embedding, names[0]) if embedding else None
    second = reader.weight(head, names[0]) if head else None
    untouched = Steps((), (), base.shape(names[0]))
    return _tied_changes(first or untouched, second or untouched)


def _tied_changes(embedding: Steps, head: Steps) -> dict[str, Change]:
    """One tensor where both modules still hold the same one, else two.

    A tensor of the base that the adapter brings (`base`) is shared; what trains one module (`own`)
    is not, but for trained tokens, which PEFT puts on both (set_additional_trainable_modules).
    """
    source = f"{_EMBEDDING}.weight"
    first = _change(source, _started_from(embedding, head))
    second = _change(source, _started_from(head, embedding))
    only_tokens = all(isinstance(step, TrainedRows) for step in embedding.own)
    follows = not head.own and only_tokens and not (embedding.base and head.base)
    if follows or first.same_as(second):
        return {source: first} if first.steps else {}
    parted = {source: first} if first.steps else {}
    return parted | {f"{_HEAD}.weight": second}


def _started_from(steps: Steps, other: Steps) -> Steps:
    if steps.base or not other.base:
        return steps
    shape = steps.shape if steps.own else other.shape
    return Steps(other.base, steps.own, shape)


def _vocabulary_rows(changes: Mapping[str, Change], base: Checkpoint, tied: bool) -> int | None:
    """The new size, or None. Raises PipeError where embedding and output have different ones."""
    names = [f"{_EMBEDDING}.weight", f"{_HEAD}.weight"]
    sizes = {
        name: changes[name].shape[0] if name in changes else base.shape(name)[0]
        for name in names
        if name in changes or (name in base and not (tied and name == names[1]))
    }
    if len(set(sizes.values())) > 1:
        raise PipeError(
            f"With the adapter {names[0]} has {sizes[names[0]]} rows and {names[1]} "
            f"{sizes[names[1]]}.",
            "Save both embeddings: save_pretrained(save_embedding_layers=True).",
        )
    new = next(iter(sizes.values()), None)
    return None if names[0] not in base or new == base.shape(names[0])[0] else new


def _initial(peft: PeftConfig) -> dict[str, Saved]:
    """The adapter as it was before training, which the base was changed by."""
    name = _NAMES[f"{peft.residual}"]
    for place in (peft.folder, peft.folder.parent):
        folder = place / f"{peft.residual}_init"
        if (folder / "adapter_config.json").exists():
            first = read_config(folder)
            if _scaling(first) != _scaling(peft):
                raise PipeError(
                    f"{folder} has other ranks or alphas than {peft.folder}.",
                    "Save the adapter that training began with there.",
                )
            return read_saved(folder)
    raise PipeError(
        f"The adapter {peft.folder} was initialised by {name}, which changes the base: it cannot "
        "be merged into the original.",
        f"Put the adapter saved before training into {peft.folder.name}/{peft.residual}_init, or "
        "save with save_pretrained(path_initial_model_for_weight_conversion=that adapter).",
    )


def _scaling(peft: PeftConfig) -> tuple[object, ...]:
    return peft.rank, peft.alpha, peft.rslora, peft.rank_pattern, peft.alpha_pattern


def _check_saved_modules(peft: PeftConfig, base: Checkpoint, modules: Mapping[str, Saved]) -> None:
    """Every tensor below a module of modules_to_save is in the file, as PEFT's loading demands."""
    for name in (*base, f"{_HEAD}.weight"):
        module, _, kind = name.rpartition(".")
        if any(peft.saves(ancestor) for ancestor in _ancestors(module)):
            saved = modules.get(module)
            if saved is None or not {kind, f"base_layer.{kind}"} & saved.parts.keys():
                raise PipeError(
                    f"The adapter lacks {name}, which its modules_to_save names.",
                    "Save it again: save_pretrained.",
                )


def _ancestors(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]


def _check_nothing_left(modules: Mapping[str, Saved]) -> None:
    for saved in modules.values():
        for name in saved.parts.values():
            raise PipeError(
                f"The adapter holds {name}, which a LoRA merge has no place for.",
                "Save it again with PEFT, or merge it there and export the merged checkpoint.",
            )


def _summary(peft: PeftConfig, changes: Mapping[str, Change]) -> dict[str, Any]:
    steps = [step for change in changes.values() for step in change.steps]
    modules = [
        name.rpartition(".")[0]
        for name, change in changes.items()
        if any(isinstance(step, LowRank | Dora) for step in change.steps)
    ]
    found = {
        "DoRA": any(isinstance(step, Dora) for step in steps),
        "rsLoRA" if peft.rslora else "LoRA": any(isinstance(step, LowRank) for step in steps),
        f"{_NAMES.get(peft.residual or '')} undone": peft.residual is not None,
        "whole tensors": any(isinstance(step, Replaced) for step in steps),
        "trained tokens": any(isinstance(step, TrainedRows) for step in steps),
        "LoRA biases": any(isinstance(step, AddedBias) for step in steps),
    }
    return {
        "methods": [name for name, used in found.items() if used],
        "ranks": sorted({peft.rank_of(module) for module in modules}),
        "alphas": sorted({peft.alpha_of(module) for module in modules}),
        "tensors": len(changes),
    }
