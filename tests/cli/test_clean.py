"""`pipe clean` as a user types it: it shows first, and removes what was agreed to."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import clean as module
from pipeline.cli import main
from pipeline.engines.ollama import OllamaServer
from pipeline.recipe import load
from pipeline.run import Run
from tests.support.finished import compared, finished


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run with an eval's answers; nothing outside it is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = finished(Path("runs/demo"), load("demo").recipe)
    put(".eval.work/answers.jsonl", 2000)
    return found


def put(name: str, size: int, run: str = "runs/demo") -> None:
    path = Path(run) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def pipe(*arguments: str, answer: str | None = None) -> Result:
    chosen = [] if "--all-runs" in arguments else ["-r", "demo"]
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(main, ["clean", *chosen, *arguments], input=answer)


def as_json(*arguments: str) -> dict[str, Any]:
    done = pipe("--json", *arguments)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def lies_there() -> bool:
    return Path("runs/demo/.eval.work/answers.jsonl").exists()


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--dry-run", "--yes")])
def test_what_would_go_is_shown_and_stays(arguments: tuple[str, ...]) -> None:
    done = pipe(*arguments)
    assert done.exit_code == 0 and lies_there()
    (row,) = (line for line in done.stdout.splitlines() if ".eval.work" in line)
    assert row.split()[:3] == [".eval.work", "2", "kB"]
    assert "eval/ is finished" in row and "pipe eval -r demo asks" in row
    assert done.stdout.splitlines()[-1] == (
        "2 kB can be freed; nothing was removed. To remove it: pipe clean -r demo --yes"
    )


def test_the_command_that_is_said_names_what_was_asked_for() -> None:
    last = pipe("--unfinished", "--exports").stdout.splitlines()[-1]
    assert last.endswith("pipe clean -r demo --exports --unfinished --yes")
    assert pipe("--all-runs").stdout.splitlines()[-1].endswith("pipe clean --all-runs --yes")


def test_with_yes_it_goes() -> None:
    done = pipe("--yes")
    assert done.exit_code == 0 and done.stdout.splitlines()[-1] == "Freed 2 kB."
    assert not lies_there()
    assert pipe("--yes").stdout.splitlines()[-1] == "There is nothing to free."


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool) -> None:
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(module, "sys", SimpleNamespace(stdin=terminal, stdout=terminal))
    done = pipe(answer=answer)
    assert "Free 2 kB? [y/N]" in done.stdout and done.exit_code == 0
    assert lies_there() is not goes


def test_json_removes_nothing_without_yes() -> None:
    looked = as_json()
    assert lies_there() and (looked["removed"], looked["bytes"]) == (False, 2000)
    ((run,), outside) = (looked["runs"], looked["elsewhere"])
    assert run["run"] == "demo" and outside == []
    assert [item["path"] for item in run["items"] if item["goes"]] == [".eval.work"]
    assert set(run["items"][0]) == {"path", "bytes", "goes", "why", "again"}
    done = as_json("--yes")
    assert not lies_there() and (done["removed"], done["bytes"]) == (True, 2000)


def test_freed_exports_are_said_by_the_commands_that_need_them(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(OllamaServer, "runs", lambda *_: True)
    assert pipe("--exports", "--yes").stdout.splitlines()[-1] == "Freed 3.3 kB."
    runner = CliRunner()
    states = json.loads(runner.invoke(main, ["status", "-r", "demo", "--json"]).stdout)["stages"]
    assert (states["export"], states["serve"], states["eval"]) == ("done", "done", "done")
    for command in (["register"], ["publish", "me/x", "--dry-run"], ["chat", "--ask", "Hi"]):
        done = runner.invoke(main, [*command, "-r", "demo"])
        assert done.exit_code == 1 and "is not there: `pipe clean` freed it." in done.stderr
        assert done.stderr.splitlines()[-1] == "Make it again: pipe export -r demo"


def test_every_run_is_looked_through_and_a_torn_one_is_left_out() -> None:
    finished(Path("runs/other"), load("demo").recipe)
    put(".base/a.gguf", 3000, "runs/other")
    put("recipe.yaml", 7, "runs/torn")
    put(".eval.work/answers.jsonl", 50, "runs/torn")
    done = pipe("--all-runs", "--yes")
    assert done.exit_code == 0 and "runs/torn is left out" in done.stderr
    assert "pipe eval -r runs/demo/recipe.yaml --run demo asks" in done.stdout
    assert done.stdout.splitlines()[-1] == "Freed 5 kB." and not lies_there()


def test_all_runs_and_one_run_do_not_go_together() -> None:
    assert pipe("--all-runs", "--run", "demo").exit_code == 2


def test_variants_are_named_by_their_folder(run: Run) -> None:
    compared(run, load("demo").recipe, ["r=8", "r=16"], "r=16")
    found = {item["path"]: item["goes"] for item in as_json("--compare")["runs"][0]["items"]}
    weights = "train/adapter/adapter_model.safetensors"
    assert found[f"compare/runs/r=8/{weights}"] and not found[f"compare/runs/r=16/{weights}"]


def test_what_others_keep_is_named_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("models--x/blobs/1a", 4000, str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--x" / "model.safetensors").symlink_to("blobs/1a")
    there = [{"name": "demo:latest", "size": 900}, {"name": "stranger:latest", "size": 7}]
    monkeypatch.setattr(OllamaServer, "tags", lambda _: there)
    hub, ollama = as_json("--yes")["elsewhere"]
    assert (hub["bytes"], hub["how"]) == (4000, "hf cache ls, then hf cache rm")
    assert (ollama["bytes"], ollama["how"]) == (900, "ollama rm demo")
    assert (tmp_path / "hub" / "models--x" / "blobs" / "1a").exists()


def test_what_is_no_run_says_the_next_command() -> None:
    done = pipe("--run", "none")
    assert done.exit_code == 1 and not Path("runs/none").exists()
    assert done.stderr.splitlines()[-1] == "Run: pipe prepare -r demo --run none"
