"""How a gate is judged, and which apply to what."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.check.gates import Finding, Probe, applicable, judge
from pipeline.check.subject import Subject
from pipeline.check.table import PROBES
from pipeline.errors import NativeCrash, OllamaRefused, OllamaUnreachable, PipeError
from tests.check.fakes import FakeServer, subject

Look = Callable[[Subject], Finding]


def probe(look: Look) -> Probe:
    return Probe("a gate", "served", ("server",), "register", look)


def raising(error: Exception) -> Look:
    def look(_: Subject) -> Finding:
        raise error

    return look


def test_a_finding_without_fault_passes_and_one_with_faults_fails_with_its_cure(
    tmp_path: Path,
) -> None:
    asked = subject(tmp_path, server=FakeServer())
    passed = judge(probe(lambda _: ("3 replies", [])), asked)
    assert (passed.status, passed.compared, passed.reason, passed.hint) == (
        "passed", "3 replies", "", "",
    )  # fmt: skip
    failed = judge(probe(lambda _: ("3 replies", ["one", "two", "three"])), asked)
    assert (failed.status, failed.reason) == ("failed", "one (and 2 more)")
    assert failed.hint == "Register again: pipe register --force && pipe check"


def test_a_refusal_is_a_failure_and_what_keeps_from_looking_is_not_run(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer())
    refused = judge(probe(raising(OllamaRefused("does not support thinking"))), asked)
    assert (refused.status, refused.reason) == ("failed", "does not support thinking")
    for error in (
        OllamaUnreachable("gone", "start it"),
        NativeCrash("died", "rebuild"),
        PipeError("the disk is full", "make room"),
    ):
        gate = judge(probe(raising(error)), asked)
        assert (gate.status, gate.reason, gate.hint) == ("not_run", error.message, error.hint)


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OutOfMemoryError("CUDA"), RuntimeError("[enforce] can't allocate memory: 9")],
)
def test_too_little_memory_leaves_one_gate_not_run(tmp_path: Path, error: Exception) -> None:
    gate = judge(probe(raising(error)), subject(tmp_path, server=FakeServer()))
    assert gate.status == "not_run" and "too little memory" in gate.reason
    with pytest.raises(RuntimeError):
        judge(probe(raising(RuntimeError("shape"))), subject(tmp_path, server=FakeServer()))


def test_a_programming_error_is_not_taken_for_a_finding(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        judge(probe(raising(ZeroDivisionError())), subject(tmp_path, server=FakeServer()))


def test_a_missing_part_says_why_and_is_not_asked(tmp_path: Path) -> None:
    asked = subject(tmp_path, missing={"server": ("no server", "ollama serve")})
    gate = judge(probe(raising(AssertionError())), asked)
    assert (gate.status, gate.compared) == ("not_run", "nothing")
    assert (gate.reason, gate.hint) == ("no server", "ollama serve")


def test_gates_are_left_out_where_the_subject_has_no_such_part(tmp_path: Path) -> None:
    def names(asked: Subject) -> set[str]:
        return {each.name for each in applicable(PROBES, asked)}

    run = subject(tmp_path, missing={"server": ("no server", "")})
    assert names(run) == {each.name for each in PROBES}
    foreign = subject(tmp_path, part=None, format=None, thinks=False)
    assert names(foreign) == {"one BOS", "end tokens", "vocabulary", "finite weights"}
    served = subject(
        tmp_path,
        server=FakeServer(),
        part=None,
        files={},
        missing={"file": ("unreadable", "")},
        thinks=False,
    )
    assert {"version", "stops", "streaming", "context length"} <= names(served)
    assert not {"thinks", "merge", "served file"} & names(served)


def test_each_gate_has_a_name_of_its_own_and_a_command_as_cure(tmp_path: Path) -> None:
    assert len({each.name for each in PROBES}) == len(PROBES)
    asked = subject(tmp_path, server=FakeServer())
    for each in PROBES:
        spoiled = Probe(each.name, each.group, (), each.cure, lambda _: ("", ["x"]))
        assert any(word in judge(spoiled, asked).hint for word in ("pipe ", "https://"))
