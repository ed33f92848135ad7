"""The files of the repository: what a run made, under the names that programs look for."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.card import Licence, public_name
from pipeline.errors import ChangedInput
from pipeline.publish.wish import Wish
from pipeline.run import Entry, Manifest, Run

CARD = "README.md"
_WEIGHTS = ("adapter", "model")
"""Folders of the train stage, of which a run has one."""
_TAKEN = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""What a model is loaded from. Pickles, which can run code, are none of it."""
_CONFIGS = ("adapter_config.json", "config.json", "tokenizer_config.json")
_NAMES_BASE = ("base_model_name_or_path", "_name_or_path", "name_or_path")
_OF_THIS_MACHINE = ("is_local", "local_files_only")
"""What Transformers writes into tokenizer_config.json of a tokenizer that lay in a folder."""
_ADAPTER = "-adapter.gguf"
_FROM = re.compile(r"\AFROM \./(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Item:
    """One file: where it stands in the repository, and what is in it."""

    path: str
    source: Path | bytes
    entry: Entry

    @classmethod
    def of_text(cls, path: str, text: str) -> "Item":
        content = text.encode()
        return cls(path, content, Entry(hashlib.sha256(content).hexdigest(), len(content)))


@dataclass(frozen=True)
class Made:
    """A run whose stages were found whole."""

    run: Run
    data: Manifest
    train: Manifest
    export: Manifest

    @property
    def base_revision(self) -> str | None:
        """Commit of the base on the hub; None for one that lies on this machine."""
        revision = self.data.facts["base"]["revision"]
        return str(revision) if revision else None


def contents(
    made: Made, wish: Wish, licence: Licence, parameters: Mapping[str, Any]
) -> dict[str, Item]:
    """Every file but the card, by its path and in that order.

    `parameters` are those of the Modelfile. Raises ChangedInput where a stage lacks its part.
    """
    items = list(_licence_items(licence))
    if wish.only != "gguf":
        items += _weights(made)
    if wish.only != "adapter":
        items += _ggufs(made, wish, parameters)
    return {item.path: item for item in sorted(items, key=lambda item: item.path)}


def types_of(exported: Manifest, wish: Wish) -> dict[str, str]:
    """Quantization type -> path in the repository, the one that Ollama gets first."""
    if wish.only == "adapter":
        return {}
    files: Mapping[str, str] = exported.facts["files"]
    asked = exported.section["export"]["quantize"]
    return {type: f"{wish.name}-{type}.gguf" for type in asked if type in files}


def _licence_items(licence: Licence) -> Iterator[Item]:
    if licence.text:
        yield Item.of_text("LICENSE", licence.text)
    if licence.llama:
        yield Item.of_text("NOTICE", licence.llama.notice)


def _weights(made: Made) -> Iterator[Item]:
    """The adapter or the model at the repository's top, where PEFT and Transformers look."""
    folder, found = made.run.folder("train"), False
    for name, entry in made.train.outputs.items():
        part, _, path = name.partition("/")
        if part in _WEIGHTS and path.endswith(_TAKEN):
            item = Item(path, folder / name, entry)
            found = True
            yield _public(item, made) if path in _CONFIGS else item
    if not found:
        raise ChangedInput(f"{folder} holds no adapter and no model.", "Run: pipe train --force")


def _public(config: Item, made: Made) -> Item:
    """The file as it is, or without what names this machine."""
    assert isinstance(config.source, Path)
    values = json.loads(config.source.read_text(encoding="utf-8"))
    public = {key: value for key, value in values.items() if key not in _OF_THIS_MACHINE}
    public |= {
        key: public_name(public[key], on_hub=made.base_revision is not None)
        for key in _NAMES_BASE
        if isinstance(public.get(key), str)
    }
    if public == values:
        return config
    return Item.of_text(config.path, json.dumps(public, indent=2, ensure_ascii=False) + "\n")


def _ggufs(made: Made, wish: Wish, parameters: Mapping[str, Any]) -> Iterator[Item]:
    """The GGUFs under the repository's name, their Modelfiles, and what hf.co gives to Ollama.

    https://huggingface.co/docs/hub/ollama: `template` is a Go template, `params` is JSON.
    """
    folder, exported = made.run.folder("export"), made.export
    names = {exported.facts["files"][type]: path for type, path in types_of(exported, wish).items()}
    alone = [name for name in exported.outputs if name.endswith(_ADAPTER)]
    names |= dict.fromkeys(alone, f"{wish.name}{_ADAPTER}")
    for name, path in names.items():
        yield Item(path, folder / name, exported.outputs[name])
    for name in exported.outputs:
        if name.startswith("Modelfile"):
            text = (folder / name).read_text(encoding="utf-8")
            yield Item.of_text(name, _FROM.sub(lambda line: f"FROM ./{names[line[1]]}", text))
    if template := exported.facts.get("template"):
        yield Item.of_text("template", template)
    yield Item.of_text("params", json.dumps(parameters, indent=2, sort_keys=True) + "\n")
