"""Which engines a run can put to the test, opened one at a time: memory holds one model."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from pipeline.base import Base
from pipeline.chat import Encoder
from pipeline.engines.completion import Engine
from pipeline.engines.endpoint import EndpointEngine
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.loading import Variant
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.served import OllamaEngine
from pipeline.engines.trained import TUNED, Trained, shown, trained
from pipeline.engines.transformers import TransformersEngine, open_trained
from pipeline.errors import ChangedInput, MissingInput, PipeError
from pipeline.recipe import Recipe
from pipeline.recipe.schema import Endpoint
from pipeline.run import Run

CONTEXTS = 16
"""Conversations that llama.cpp is given at a time at most: each takes a whole context's memory, and
more are hardly faster (the demo's 250 questions: 7.4 s by 16, 6.1 s by 64)."""
_WITHOUT_EXPORT = ("base", "adapter", "merged", EndpointEngine.name)
"""Engines that are there as soon as a run is trained."""


@dataclass(frozen=True)
class Contender:
    name: str
    open: Callable[[], Engine]
    scores: bool
    """Whether it is a Scorer too: a server tells no log-probabilities of a given text."""
    label: str = ""
    """Its name for people, where that is another."""

    @property
    def shown(self) -> str:
        return self.label or self.name


def contenders(recipe: Recipe, run: Run, base: Base, encoder: Encoder) -> list[Contender]:
    """Base, adapter, merged, each exported GGUF, Ollama where this run is registered, an endpoint.

    `adapter` is the tuned model; where it was trained in full nothing is merged, and there is no
    `merged`. Of these the recipe's eval.engines, where it names any. Raises PipeError for a name
    that is not there, and for an endpoint whose key is not in the environment.
    """
    found = _all(recipe, run, base, encoder)
    names = [each.name for each in found]
    if missing := [name for name in recipe.eval.engines if name not in names]:
        raise PipeError(
            f"There is no engine {', '.join(missing)}; there is: {', '.join(names)}.",
            "Correct eval.engines. merged is there where an adapter was trained, ollama while this "
            "run's model bears its name in a server that answers (pipe register), endpoint once "
            "the recipe has an eval.endpoint.",
        )
    chosen = [each for each in found if each.name in (recipe.eval.engines or names)]
    if recipe.eval.endpoint and any(each.name == EndpointEngine.name for each in chosen):
        _key(recipe.eval.endpoint)  # now, not after hours of the others
    return chosen


def check_there(run: Run, engines: Collection[str]) -> None:
    """Raises FreedInput where `pipe clean` freed a file that one of the engines is opened from."""
    if not {TUNED, "merged"}.isdisjoint(engines):
        run.check_there("train", run.freed("train"))
    made = run.manifest("export")
    files: dict[str, str] = made.facts["files"] if made else {}
    run.check_there("export", [file for type, file in files.items() if type in engines])


def reads_export(recipe: Recipe) -> bool:
    """Whether an engine that eval.engines asks for, or leaves open, comes from an export."""
    asked = recipe.eval.engines
    return not asked or any(name not in _WITHOUT_EXPORT for name in asked)


def _all(recipe: Recipe, run: Run, base: Base, encoder: Encoder) -> list[Contender]:
    at_once = recipe.eval.batch_size
    contexts = min(at_once, CONTEXTS)
    tuned = trained(recipe, run, base)
    variants: tuple[Variant, ...] = ("base", "adapter")
    if not tuned.is_full:
        variants += ("merged",)
    found = [
        Contender(
            variant,
            partial(_transformers, variant, tuned, encoder, recipe.eval.batch_size),
            True,
            shown(variant, tuned.method),
        )
        for variant in variants
    ]
    for type, file in _files(recipe, run).items():
        opened = partial(open_gguf, recipe, run, encoder, file, batch_size=contexts)
        found.append(Contender(type, opened, True))
    if reads_export(recipe) and (name := served_name(run)) and _bears_ours(run, name):
        served = partial(
            OllamaEngine,
            OllamaServer.from_environment(),
            name,
            encoder.format,
            batch_size=at_once,
        )
        found.append(Contender(OllamaEngine.name, served, False))
    if recipe.eval.endpoint:
        asked = partial(_endpoint, recipe.eval.endpoint, encoder, at_once)
        found.append(Contender(EndpointEngine.name, asked, False))
    return found


def _files(recipe: Recipe, run: Run) -> dict[str, str]:
    """As `exported`; where eval.engines names files of this export, those, and where it names none,
    an export need not be there, nor be whole."""
    try:
        files = run.require("export", complete=False).facts["files"]
        asked = {type: name for type, name in files.items() if type in recipe.eval.engines}
        return asked or exported(recipe, run)
    except (MissingInput, ChangedInput):
        if reads_export(recipe):
            raise
        return {}


def exported(recipe: Recipe, run: Run) -> dict[str, str]:
    """Type -> GGUF file name, in the recipe's order. Raises MissingInput for a type not there."""
    files = run.require("export", complete=False).facts["files"]
    for type in recipe.export.quantize:
        if type not in files:
            raise MissingInput(f"{run.folder('export')} holds no {type}.", "Run: pipe export")
    return {type: files[type] for type in recipe.export.quantize}


def open_gguf(
    recipe: Recipe, run: Run, encoder: Encoder, file: str, *, batch_size: int = 1
) -> LlamaCppEngine:
    """An exported GGUF in llama.cpp, each conversation with the context that it gets in Ollama."""
    return LlamaCppEngine(
        run.folder("export") / file,
        encoder,
        n_ctx=recipe.num_ctx,
        gpu_layers=-1 if recipe.train.device == "cuda" else 0,
        batch_size=batch_size,
    )


def served_name(run: Run) -> str | None:
    """The plain name that this run's export was given, where the Ollama that answers has it.

    Whether it is still this run's model, `OllamaServer.runs` says.
    """
    manifest = run.manifest("serve")
    if manifest is None or manifest.inputs != run.input_entry("export"):
        return None
    name = manifest.facts["models"][0]["name"]
    try:
        return str(name) if OllamaServer.from_environment().find(name) else None
    except PipeError:
        return None


def taken_name(run: Run) -> str | None:
    """The name that this run's export was given, where another model bears it now."""
    name = served_name(run)
    return name if name and not _bears_ours(run, name) else None


def _bears_ours(run: Run, name: str) -> bool:
    """Whether the model of that name runs on what this run gave it."""
    model = run.require("serve").facts["models"][0]
    try:
        digest = str(model.get("served") or model.get("digest"))
        return OllamaServer.from_environment().runs(name, digest)
    except PipeError:
        return False


def _transformers(
    variant: Variant, tuned: Trained, encoder: Encoder, batch_size: int
) -> TransformersEngine:
    bits = tuned.bits if variant == "adapter" else 16
    return open_trained(variant, tuned, encoder, bits=bits, batch_size=batch_size)


def _endpoint(endpoint: Endpoint, encoder: Encoder, batch_size: int) -> EndpointEngine:
    return EndpointEngine(
        endpoint.url,
        endpoint.model,
        encoder.format,
        key=_key(endpoint),
        batch_size=batch_size,
    )


def _key(endpoint: Endpoint) -> str | None:
    """The endpoint's key, where the recipe says that it has one."""
    if endpoint.key_env is None:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise PipeError(
            f"The key for {endpoint.url} is to stand in the environment variable "
            f"{endpoint.key_env}, which is not set.",
            f"Set {endpoint.key_env}, or take key_env out of eval.endpoint.",
        )
    return key
