"""The 16-bit base model: one local snapshot at one revision, which every stage uses."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.assets import PREFIX, locate
from pipeline.errors import PipeError
from pipeline.recipe.schema import Model
from pipeline.run.manifest import Entry, describe
from pipeline.run.secrets import harmless

_TOKENIZER = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_TUNED = ("llama", "qwen2", "qwen3")
"""`model_type` of what is tuned: the families that export knows."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "LICENSE*", "README.md")

_SNAPSHOT = re.compile(r"/models--(?P<repository>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})$")
"""The hub's cache: repo_folder_name and REPO_ID_SEPARATOR of huggingface_hub."""


@dataclass(frozen=True)
class Base:
    """A folder with config.json, tokenizer.json and 16-bit safetensors."""

    name: str
    folder: Path
    revision: str | None
    """Commit of the hub repository; None for a local folder."""

    @property
    def title(self) -> str:
        """The model's own name, without its owner or the folder it lies in."""
        return re.split(r"[/:]", self.name.rstrip("/"))[-1]

    @property
    def config(self) -> dict[str, Any]:
        return _read_json(self.folder / "config.json")

    def shards(self) -> list[Path]:
        """The safetensors files in name order. Raises PipeError where there are none."""
        shards = sorted(self.folder.glob("*.safetensors"))
        if not shards:
            raise PipeError(
                f"{self.folder} holds no safetensors weights.",
                "A base is a folder of 16-bit safetensors, as save_pretrained makes them.",
            )
        return shards

    def entries(self) -> dict[str, Entry]:
        """Hashes of what is tokenized with and merged into: weights, configuration, tokenizer."""
        files = [self.folder / name for name in _TOKENIZER] + self.shards()
        return {f"base/{path.name}": describe(path) for path in files if path.exists()}

    def tokenizer_entries(self) -> dict[str, Entry]:
        files = [self.folder / name for name in _TOKENIZER]
        return {f"base/{path.name}": describe(path) for path in files if path.exists()}


def open_base(model: Model, *, revision: str | None = None, weights: bool = True) -> Base:
    """The recipe's base on this disk, fetched from the hub where it is a hub id.

    `revision` (the one an earlier stage recorded) goes before the recipe's own; with
    `weights=False` only the tokenizer and the configuration are fetched.
    Raises PipeError where the base cannot be had or is not a Llama or Qwen in 16-bit safetensors.
    """
    path = locate(model.base)
    if model.base.startswith((PREFIX, ".", "/", "~")) or path.is_dir():
        base = Base(model.base, path, None)
    else:
        base = _from_hub(model.base, revision or model.revision, weights)
    _check_tuned(base)
    return base


def base_at(folder: Path) -> Base:
    """A model in a folder, of whatever family: export itself says which it takes.

    A snapshot in the hub's cache has the name and the revision of its repository, any other folder
    its own name. Raises PipeError where there is no model.
    """
    place = folder.resolve()
    if not (place / "config.json").is_file():
        missing = "config.json in the folder" if place.is_dir() else "folder"
        raise PipeError(
            f"There is no {missing} {folder}.",
            "Name a folder made by save_pretrained, or a snapshot in the hub's cache.",
        )
    if cached := _SNAPSHOT.search(place.as_posix()):
        return Base(cached["repository"].replace("--", "/"), place, cached["commit"])
    return Base(place.name, place, None)


def _from_hub(repository: str, revision: str | None, weights: bool) -> Base:
    from httpx import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [*_TOKENIZER, *(_WEIGHTS if weights else ())]
    try:
        if revision is None:
            revision = HfApi().model_info(repository).sha
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    # the hub's own errors are OSErrors or HTTPErrors; a mistyped folder is no valid name there
    except (OSError, HTTPError, HFValidationError) as error:
        reason = harmless((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise PipeError(
            f"The base {repository} cannot be fetched: {reason}",
            "Check the name and the network, and HF_TOKEN where the model is gated; "
            "or set model.base to a local folder.",
        ) from None
    # a snapshot's folder is named by its commit, which a branch or tag is not
    return Base(repository, folder, folder.name)


def _check_tuned(base: Base) -> None:
    if not (base.folder / "config.json").is_file():
        raise PipeError(
            f"The base {base.name} has no config.json in {base.folder}.",
            "model.base is a hub id or a folder made by save_pretrained.",
        )
    config = base.config
    if config.get("model_type") not in _TUNED:
        raise PipeError(
            f"The base {base.name} is a {config.get('model_type')}; this pipe tunes "
            f"{', '.join(_TUNED)}.",
            "See: pipe recipes",
        )
    if "quantization_config" in config:
        raise PipeError(
            f"The base {base.name} is already quantized.",
            "Name the 16-bit model: train quantizes it, export merges into it.",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise PipeError(f"{path} cannot be read: {error}", "Fetch the base again.") from None
