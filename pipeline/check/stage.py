"""`pipe check`: the gates of a run, of any GGUF file, of any model in Ollama."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import get_args

from pipeline.check.gates import Gate, Group, applicable, judge
from pipeline.check.part import RunPart
from pipeline.check.subject import Subject
from pipeline.check.subjects import BASELINE, file_subject, run_subject, served_subject
from pipeline.check.table import PROBES
from pipeline.engines.ollama import OllamaServer
from pipeline.plans import planned
from pipeline.run import Emit, Progress, versions_of
from pipeline.run.files import write_json

SCRATCH = ".check-"
"""How the folder begins, beside the stages, that is there while the gates are measured."""


def check(part: RunPart) -> list[Gate]:
    """Put a run through every gate and publish `check/`; a gate that could not run says why.

    The caller holds the run's lock. Raises PipeError where a stage before it is not whole.
    """
    run = part.run
    for stage in ("data", "train", "export"):
        run.require(stage)
    with run.publish("check") as draft, _scratch(run.root) as folder:
        subject = run_subject(part, folder)
        assert subject.measures is not None
        gates, seconds = _judged(subject, part.emit)
        precision = subject.measures.precision
        found = {"gates": [asdict(gate) for gate in gates], "precision": precision}
        write_json(draft.folder / "results.json", found)
        write_json(draft.folder / BASELINE, subject.measures.kept())
        draft.timing.update(seconds)
        draft.manifest = replace(
            planned("check", part.recipe, run),
            inputs=part.base.tokenizer_entries() | run.input_entry("export"),
            versions=versions_of("transformers", "llama-cpp-python"),
        )
    return gates


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder for what is large and does not last; one that a killed check left is removed."""
    for left in root.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=root, prefix=SCRATCH, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def check_file(path: Path, emit: Emit) -> list[Gate]:
    """Put any GGUF through the gates that a file has a part for. Raises PipeError for no GGUF."""
    return _judged(file_subject(path), emit)[0]


def check_model(name: str, emit: Emit) -> list[Gate]:
    """Put any model of the Ollama that answers through the gates, and its file where it is here.

    Raises OllamaUnreachable, and PipeError where there is no such model.
    """
    return _judged(served_subject(OllamaServer.from_environment(), name), emit)[0]


def _judged(subject: Subject, emit: Emit) -> tuple[list[Gate], dict[str, float]]:
    """Every gate that applies, in the groups' order, and the seconds that each group took."""
    probes = applicable(PROBES, subject)
    subject.emit = emit
    gates: list[Gate] = []
    seconds: defaultdict[str, float] = defaultdict(float)
    try:
        for number, probe in enumerate(probes):
            emit(Progress("check", number, len(probes), "gates", {"gate": probe.name}))
            if probe.group == "precision":
                subject.make_room()
            started = perf_counter()
            gates.append(judge(probe, subject))
            seconds[probe.group] += perf_counter() - started
        emit(Progress("check", len(probes), len(probes), "gates"))
    finally:
        subject.close()
    order = get_args(Group)
    return sorted(gates, key=lambda gate: order.index(gate.group)), dict(seconds)
