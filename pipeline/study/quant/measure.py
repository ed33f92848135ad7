"""One row of the study: a method's weights, and what the model says with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.base import Base
from pipeline.engines.completion import Decoding
from pipeline.engines.contenders import CONTEXTS, Contender, open_gguf
from pipeline.engines.divergence import Divergence, divergence, perplexity
from pipeline.engines.loading import Scheme, load_model
from pipeline.engines.transformers import TransformersEngine
from pipeline.errors import PipeError
from pipeline.evaluate.ask import Outcome, Session, ask, session
from pipeline.evaluate.results import Scores
from pipeline.run.files import explained_writes
from pipeline.study.quant import gptq
from pipeline.study.quant.held import Held, held_in_file, held_in_torch
from pipeline.study.quant.made import gguf_files, gptq_checkpoint, whole
from pipeline.study.quant.methods import NONE, Method
from pipeline.study.quant.subject import Subject

Found = dict[str, Any]

_SCHEMES: Mapping[str, Scheme] = {
    "llm-int8": "llm-int8",
    "nf4": "nf4",
    "nf4-dq": "nf4-dq",
    "fp4": "fp4",
}
_PROMPTS = 16
"""Questions whose prompts are read to time that."""
_DIGITS = 6
"""Significant, of what is published."""


@dataclass(frozen=True)
class Measured:
    row: Found
    layers: Mapping[str, float]
    """Matrix -> relative error."""


def measure(subject: Subject, method: Method, types: list[str]) -> Measured:
    """Open the model under this method and ask it everything.

    `types` are all GGUF types of the study, which are made together. Raises PipeError,
    ImportError, NotImplementedError, RuntimeError or ValueError, in the libraries' words, where
    this machine cannot do it.
    """
    held, opened = _opened(subject, method, types)
    contender = Contender(method.name, opened, False, method.label)
    with session(contender, subject.part.encoder, subject.work.emit) as here:
        answers = subject.folder / f"{method.name}-{subject.key(method)[:16]}"
        outcome = ask(here, replace(subject.asked, folder=answers))
        likely, apart = _scored(subject, method, here)
        figures = {
            "memory_bytes": here.engine.memory_bytes(),
            "tokens_per_second": outcome.speed.get("tokens_per_s"),
            "prompt_tokens_per_second": _prompt_speed(subject, here),
            "perplexity": likely if isfinite(likely) else None,
            "kl": _kl(apart),
            "score": _score(subject, method, outcome),
        }
    errors = {name: _rounded(error) for name, error in held.errors.items()}
    return Measured(blank(method) | _weights(held) | _rounded(figures), errors)


def blank(method: Method) -> Found:
    """A row without figures, as one that is not run stays."""
    return {
        "method": method.name,
        "label": method.label,
        "family": method.family,
        "engine": method.engine,
        "status": "measured",
        "reason": None,
        "weights_bytes": None,
        "bits_per_weight": None,
        "bits_per_quantized_weight": None,
        "memory_bytes": None,
        "tokens_per_second": None,
        "prompt_tokens_per_second": None,
        "perplexity": None,
        "kl": None,
        "score": None,
    }


def _opened(subject: Subject, method: Method, types: list[str]) -> tuple[Held, Callable[[], Any]]:
    """What its weights take, and the engine that has them; a file is opened when it is asked."""
    if method.family != "gguf":
        model, reference = _in_torch(subject, method)
        held = held_in_torch(model, reference)
        size = subject.work.recipe.eval.batch_size
        encoder = subject.part.encoder
        engine = TransformersEngine(method.name, model, encoder, batch_size=size)
        return held, lambda: engine
    path = gguf_files(subject, types)[method.name]
    recipe, run = subject.work.recipe, subject.work.run
    contexts = min(recipe.eval.batch_size, CONTEXTS)
    file = str(path.absolute())  # not all of them lie in export/
    return held_in_file(path, whole(subject)), lambda: open_gguf(
        recipe, run, subject.part.encoder, file, batch_size=contexts
    )


def _in_torch(subject: Subject, method: Method) -> tuple[Any, Base]:
    """The model with its weights narrowed, and its folder in 16 bits."""
    from pipeline.study.quant.packed import PackedLinear, absmax_layer, from_gptq, pack

    found = gptq.layers(gptq_checkpoint(subject)) if method.family == "gptq" else {}
    base, device = whole(subject), subject.part.trained.device
    model = load_model("base", base, None, bits=_SCHEMES.get(method.name, 16), device=device)

    def from_checkpoint(name: str, layer: Any) -> PackedLinear:
        if name not in found:
            raise PipeError(f"gptqmodel left {name} as it was.")
        tensors = {key: tensor.to(model.device) for key, tensor in found[name].items()}
        return PackedLinear(tensors, from_gptq, layer.bias)

    if method.name == "int8":
        pack(model, absmax_layer)
    elif method.family == "gptq":
        pack(model, from_checkpoint)
    return model, base


def _scored(subject: Subject, method: Method, here: Session) -> tuple[float, Divergence | None]:
    """Perplexity of the held-out replies, and how far its predictions are from `none`'s."""
    kept = _reference_path(subject)
    if method == NONE:
        return _keep(subject, here.engine, kept), None
    if not kept.exists():
        _score_reference(subject, kept)
    candidate = subject.folder / "candidate.logits"
    try:
        found = _keep(subject, here.engine, candidate)
        return found, divergence(kept, candidate, subject.vocabulary)
    finally:
        candidate.unlink(missing_ok=True)


def _reference_path(subject: Subject) -> Path:
    """By what it hangs on: another number of questions scores other replies."""
    return subject.folder / f"none-{subject.key(NONE)[:16]}.logits"


def _score_reference(subject: Subject, path: Path) -> None:
    """`none`'s predictions anew, where its row is kept and they are not."""
    _, opened = _opened(subject, NONE, [])
    engine = opened()
    try:
        _keep(subject, engine, path)
    finally:
        engine.close()


def _keep(subject: Subject, engine: Any, path: Path) -> float:
    """The engine's perplexity; its predictions are in `path`, whole."""
    draft = path.with_name(f".{path.name}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    with explained_writes(path.name):
        found = perplexity(engine.score(subject.sequences, draft))
        draft.replace(path)
    return found


def _prompt_speed(subject: Subject, here: Session) -> float:
    """Prompt tokens a second: a reply of one token is asked of some questions at once."""
    asked = [item.conversation for item in subject.asked.items[:_PROMPTS]]
    tokens = sum(len(subject.part.encoder.prompt(each)) for each in asked)
    started = perf_counter()
    list(here.engine.answers(asked, Decoding(max_new_tokens=1)))
    return tokens / (perf_counter() - started)


def _score(subject: Subject, method: Method, outcome: Outcome) -> Found | None:
    """The metric with its 95% interval, as eval has it; None where it says nothing."""
    name = subject.metric.name
    replies = {method.name: outcome.replies}
    scores = Scores(replies, [subject.metric], 1, subject.work.recipe.seed).engines()
    found = scores.get(method.name, {}).get(name)
    return {"metric": name, **found} if found else None


def _kl(apart: Divergence | None) -> Found | None:
    if apart is None:
        return {"mean": 0.0, "p99": 0.0, "same_top": 1.0}
    found = apart.as_json()
    kl = {key: found[key] for key in ("mean", "p99", "same_top")}
    return kl if all(map(isfinite, kl.values())) else None


def _weights(held: Held) -> Found:
    return {
        "weights_bytes": held.bytes,
        "bits_per_weight": round(held.bits_per_weight, 4),
        "bits_per_quantized_weight": round(held.bits_per_quantized_weight, 4),
    }


def _rounded(value: Any) -> Any:
    """Floats to so many digits, in mappings too."""
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
