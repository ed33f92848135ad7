"""`pipe check`: is what is served what was trained? Each gate passes, fails, or did not run."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.base import Base
from pipeline.chat import Encoder, chat_format, conversation_of
from pipeline.check import compare
from pipeline.engines.contenders import open_gguf, served_name
from pipeline.engines.ollama import OllamaServer
from pipeline.errors import NativeCrash, OllamaRefused, OllamaUnreachable
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Progress, Run, versions_of
from pipeline.run.files import write_json
from pipeline.run.rows import held_out_rows

Status = Literal["passed", "failed", "not_run"]
_NO_SERVER = "This run is not registered with an Ollama that answers."
_REGISTER = "Start it (ollama serve), then: pipe register && pipe check"


@dataclass(frozen=True)
class Gate:
    name: str
    status: Status
    compared: str
    reason: str = ""
    hint: str = ""


def check(recipe: Recipe, run: Run, base: Base, emit: Emit) -> list[Gate]:
    """Run every gate and publish `check/results.json`; a gate that could not run says why."""
    run.require("data")
    run.require("train")
    run.require("export")
    gates: list[Gate] = []
    subject = compare.Subject(
        recipe=recipe,
        run=run,
        encoder=Encoder(base.folder / "tokenizer.json", chat_format(recipe.chat.format)),
        server=OllamaServer.from_environment(),
        served=served_name(run),
        questions=[conversation_of(row) for row in held_out_rows(run, compare.QUESTIONS)],
    )
    with run.publish("check") as draft, subject.opened(open_gguf):
        plans = list(_plans(subject))
        for number, (name, served, hint, look) in enumerate(plans):
            emit(Progress("check", number, len(plans), "gates", {"gate": name}))
            gates.append(_judge(name, served and subject.served is None, hint, look))
        emit(Progress("check", len(plans), len(plans), "gates"))
        write_json(draft.folder / "results.json", {"gates": [asdict(gate) for gate in gates]})
        draft.manifest = _manifest(recipe, run, base)
    return gates


def _plans(
    subject: compare.Subject,
) -> Iterable[tuple[str, bool, str, Callable[[], compare.Finding]]]:
    """(name, needs the server, cure, what looks)."""
    again = "Export again: pipe export --force && pipe check"
    register = "Register again: pipe register --force && pipe check"
    yield "prompt text: llama.cpp", False, again, lambda: compare.llama_cpp_prompts(subject)
    yield "prompt text: Transformers", False, again, lambda: compare.transformers_prompts(subject)
    yield "prompt text: Ollama", True, register, lambda: compare.ollama_prompts(subject)
    yield "token ids: llama.cpp", False, again, lambda: compare.token_ids(subject)
    yield "token count: Ollama", True, register, lambda: compare.token_counts(subject)
    yield "one BOS", False, again, lambda: compare.one_bos(subject)
    yield "served file", True, register, lambda: compare.digests(subject)
    yield "thinks and stops", True, register, lambda: compare.thinks(subject)
    yield "answers directly", True, register, lambda: compare.answers_directly(subject)
    yield "greedy answers", True, register, lambda: compare.greedy_answers(subject)


def _judge(name: str, absent: bool, hint: str, look: Callable[[], compare.Finding]) -> Gate:
    if absent:
        return Gate(name, "not_run", "nothing", _NO_SERVER, _REGISTER)
    try:
        compared, wrong = look()
    except (OllamaUnreachable, OllamaRefused, NativeCrash) as error:
        return Gate(name, "not_run", "nothing", error.message, error.hint)
    if wrong:
        return Gate(name, "failed", compared, wrong[0], hint)
    return Gate(name, "passed", compared)


def _manifest(recipe: Recipe, run: Run, base: Base) -> Manifest:
    return Manifest(
        stage="check",
        section={},
        inputs=base.tokenizer_entries() | run.input_entry("export"),
        chat_format=chat_format(recipe.chat.format).fingerprint(),
        seed=recipe.seed,
        versions=versions_of("transformers", "llama-cpp-python"),
    )
