"""`pipe check` as a user types it: what it takes, what it shows, and how it exits."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline import workflow
from pipeline.check import Gate
from pipeline.cli import main
from tests.check.fakes import FORMAT
from tests.support.tiny_gguf import write_tiny_gguf

GATES = [
    Gate("token ids", "passed", "ids of 28 prompts", group="prompts"),
    Gate(
        "merge", "failed", "7 tensors", "a is not merged " * 12, "Again: pipe export", "precision"
    ),
    Gate("stops", "not_run", "nothing", "No server.", "pipe register && pipe check", "served"),
]


def pipe(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """What the run's gates are made to find."""
    gates = list(GATES)
    monkeypatch.setattr(workflow, "check", lambda _: gates)
    return gates


def test_gates_are_shown_in_groups_with_reason_and_cure(
    found: list[Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = pipe("check", "-r", "demo")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "Prompts: the same text and tokens everywhere"
    assert lines[1] == "  passed   token ids                 ids of 28 prompts"
    assert lines[3] == "  failed   merge                     7 tensors"
    assert lines[-1] == "3 gates: 1 passed, 1 failed, 1 not run"
    assert f"{'':37}Again: pipe export -r demo" in lines
    assert max(map(len, lines)) <= 100


def test_a_gate_that_did_not_run_fails_only_where_all_are_required(found: list[Gate]) -> None:
    found.pop(1)
    assert pipe("check", "-r", "demo").exit_code == 0
    assert pipe("check", "-r", "demo", "--require-all").exit_code == 1
    found.pop(1)
    assert pipe("check", "-r", "demo", "--require-all").exit_code == 0


def test_json_holds_every_gate_as_the_results_do(found: list[Gate]) -> None:
    gates: list[dict[str, Any]] = json.loads(pipe("check", "-r", "demo", "--json").stdout)["gates"]
    assert [gate["status"] for gate in gates] == ["passed", "failed", "not_run"]
    assert set(gates[0]) == {"name", "group", "status", "compared", "reason", "hint"}


@pytest.mark.parametrize(
    "given",
    [
        ("--gguf", "a.gguf", "--ollama", "m"),
        ("--gguf", "a.gguf", "-r", "demo"),
        ("--ollama", "m", "--run", "x"),
        ("--ollama", "m", "--set", "seed=1"),
    ],
)
def test_what_stands_in_a_run_s_place_takes_no_run_beside_it(given: tuple[str, ...]) -> None:
    assert pipe("check", *given).exit_code == 2


def test_any_gguf_can_be_checked_without_a_run_or_a_server(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", FORMAT.jinja)
    done = pipe("check", "--gguf", str(path), "--require-all", "--json")
    assert done.exit_code == 0, done.output
    gates = json.loads(done.stdout)["gates"]
    assert [gate["name"] for gate in gates] == [
        "prompt text: llama.cpp",
        "one BOS",
        "end tokens",
        "vocabulary",
        "finite weights",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_gguf_with_a_second_bos_fails_in_llama_cpp_itself(tmp_path: Path) -> None:
    twice = "{{ bos_token }}" + FORMAT.jinja
    done = pipe("check", "--gguf", str(write_tiny_gguf(tmp_path / "tiny.gguf", twice)))
    assert done.exit_code == 1
    assert "failed   one BOS" in done.stdout and "BOS stands 2 times" in done.stdout


def test_a_file_that_is_no_gguf_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF of another kind")
    done = pipe("check", "--gguf", str(path))
    assert done.exit_code == 1
    assert "is not a whole GGUF file" in done.output and "Traceback" not in done.output


def test_no_server_and_no_model_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    done = pipe("check", "--ollama", "m")
    assert done.exit_code == 1 and "No Ollama server answers" in done.output
