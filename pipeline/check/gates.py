"""A gate: what it is called, what it needs, what looks, and how what was found is judged."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.check.subject import Need, Subject
from pipeline.errors import OllamaRefused, PipeError

Status = Literal["passed", "failed", "not_run"]
Group = Literal["prompts", "file", "precision", "served", "identity"]
Cure = Literal["train", "export", "precision", "register", "reply", "update"]

Finding = tuple[str, list[str]]
"""What was compared, and what was found wrong."""

_CURES: dict[Cure, tuple[str, str]] = {
    "train": ("Prepare and train again: pipe prepare --force && pipe train --force", ""),
    "export": (
        "Export again: pipe export --force && pipe check",
        "Make the file again with what made it, then run this again.",
    ),
    "precision": (
        "Export again: pipe export --force && pipe check; or take a wider type: export.quantize",
        "",
    ),
    "register": (
        "Register again: pipe register --force && pipe check",
        "See its template and parameters: ollama show --modelfile NAME; mend them, ollama create.",
    ),
    "reply": (
        "Register again: pipe register --force && pipe check. Of replies that do not end: train "
        "longer, or raise serve.num_ctx",
        "See its template and parameters: ollama show --modelfile NAME; mend them, ollama create.",
    ),
    "update": ("Update Ollama: https://ollama.com/download, then: pipe register && pipe check",)
    * 2,
}

_NO_ROOM = "There is too little memory for the models that this gate loads."
_MAKE_ROOM = "End other programs that hold memory (ollama ps, nvidia-smi), then: pipe check"


@dataclass(frozen=True)
class Gate:
    """What a gate found; of a failed one `reason` says why and `hint` the next command."""

    name: str
    status: Status
    compared: str
    reason: str = ""
    hint: str = ""
    group: Group = "prompts"


@dataclass(frozen=True)
class Probe:
    """One line of the table of gates. It is left out where the subject has no part it needs."""

    name: str
    group: Group
    needs: tuple[Need, ...]
    cure: Cure
    look: Callable[[Subject], Finding]


def applicable(probes: Iterable[Probe], subject: Subject) -> list[Probe]:
    """Those of the table that this subject has parts for, there now or missing."""
    known = subject.parts | set(subject.missing)
    return [probe for probe in probes if known.issuperset(probe.needs)]


def judge(probe: Probe, subject: Subject) -> Gate:
    """Look, and say how it went.

    A server's refusal of what is asked of a served model is a failure; what else keeps a gate from
    looking (no server, a crash, a full disk, too little memory) leaves it not run, with the
    reason.
    """
    for need in probe.needs:
        if need in subject.missing:
            return Gate(probe.name, "not_run", "nothing", *subject.missing[need], probe.group)
    cure = _CURES[probe.cure]["run" not in subject.parts]
    try:
        compared, wrong = probe.look(subject)
    except OllamaRefused as error:
        return Gate(probe.name, "failed", "nothing", error.message, cure, probe.group)
    except PipeError as error:
        return Gate(probe.name, "not_run", "nothing", error.message, error.hint, probe.group)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return Gate(probe.name, "not_run", "nothing", _NO_ROOM, _MAKE_ROOM, probe.group)
    if not wrong:
        return Gate(probe.name, "passed", compared, group=probe.group)
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return Gate(probe.name, "failed", compared, wrong[0] + more, cure, probe.group)


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out: torch, which only some gates load, has errors of its own for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return "can't allocate memory" in str(error)  # torch on a CPU
