"""A run whose export stage is done, with whatever files a test wants in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.chat import chat_format
from pipeline.recipe import Recipe, load
from pipeline.run import Manifest, Run


def demo(*overrides: str) -> Recipe:
    return load("demo", overrides).recipe


def exported_run(root: Path, recipe: Recipe, files: Mapping[str, Path]) -> Run:
    """`files` maps a quantization type to a GGUF, which is copied."""
    run = Run(root)
    format = chat_format(recipe.chat.format)
    names = {kind: f"{recipe.name}-{kind}.gguf" for kind in files}
    with run.publish("data") as draft:
        draft.manifest = Manifest(stage="data", section={}, inputs={})
    with run.publish("train") as draft:
        draft.manifest = Manifest(stage="train", section={}, inputs=run.input_entry("data"))
    with run.publish("export") as draft:
        for kind, source in files.items():
            shutil.copyfile(source, draft.folder / names[kind])
        draft.manifest = Manifest(
            stage="export",
            section={},
            inputs=run.input_entry("train"),
            chat_format=format.fingerprint(),
            facts={"files": names, "license": "mit", "template": format.ollama_template},
        )
    return run
