"""Which engines a run can put to the test, opened one at a time: memory holds one model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.base import Base
from pipeline.chat import Encoder
from pipeline.engines.completion import Engine
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.served import OllamaEngine
from pipeline.engines.transformers import TransformersEngine, Variant
from pipeline.errors import MissingInput, PipeError
from pipeline.recipe import Recipe
from pipeline.run import Run


@dataclass(frozen=True)
class Contender:
    name: str
    open: Callable[[], Engine]


def contenders(recipe: Recipe, run: Run, base: Base, encoder: Encoder) -> list[Contender]:
    """Base, adapter, merged, each exported GGUF, and Ollama where this run is registered."""
    variants: tuple[Variant, ...] = ("base", "adapter", "merged")
    found = [
        Contender(variant, partial(_transformers, variant, recipe, run, base, encoder))
        for variant in variants
    ]
    for type, file in exported(recipe, run).items():
        found.append(Contender(type, partial(open_gguf, recipe, run, encoder, file)))
    if name := served_name(run):
        server = OllamaServer.from_environment()
        found.append(Contender("ollama", partial(OllamaEngine, server, name, encoder.format)))
    return found


def exported(recipe: Recipe, run: Run) -> dict[str, str]:
    """Type -> GGUF file name, in the recipe's order. Raises MissingInput for a type not there."""
    files = run.require("export").facts["files"]
    for type in recipe.export.quantize:
        if type not in files:
            raise MissingInput(f"{run.folder('export')} holds no {type}.", "Run: pipe export")
    return {type: files[type] for type in recipe.export.quantize}


def open_gguf(recipe: Recipe, run: Run, encoder: Encoder, file: str) -> LlamaCppEngine:
    """An exported GGUF in llama.cpp, with the context that it gets in Ollama."""
    path = run.folder("export") / file
    layers = -1 if recipe.train.device == "cuda" else 0
    return LlamaCppEngine(path, encoder, n_ctx=recipe.num_ctx, seed=recipe.seed, gpu_layers=layers)


def served_name(run: Run) -> str | None:
    """The plain name under which this run's export stands in the Ollama that answers, if so."""
    manifest = run.manifest("serve")
    if manifest is None or manifest.inputs != run.input_entry("export"):
        return None
    name = manifest.facts["models"][0]["name"]
    try:
        return str(name) if OllamaServer.from_environment().find(name) else None
    except PipeError:
        return None


def _transformers(
    variant: Variant, recipe: Recipe, run: Run, base: Base, encoder: Encoder
) -> TransformersEngine:
    return TransformersEngine(
        variant,
        base,
        encoder,
        adapter=run.folder("train") / "adapter",
        load_in_4bit=recipe.train.load_in_4bit,
        device=recipe.train.device,
        batch_size=recipe.eval.batch_size,
    )
