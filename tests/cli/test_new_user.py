"""What a first-time user types: the command that a message names has to be the right one."""

import errno
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.cli.options import with_options
from pipeline.cli.show import drawing
from pipeline.run import Note, Progress
from tests.support.tokenizer import write_base

SETTING = ("--set", "data.sources=[{dataset: mine.jsonl}]")


def pipe(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    return tmp_path


def mine(here: Path) -> None:
    rows = [{"prompt": f"Name {n}.", "completion": f"It is {n}."} for n in range(30)]
    (here / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_hints_command_keeps_what_was_set(here: Path) -> None:
    """Without it, `Take that: pipe prepare --yes` would prepare the recipe's own rows."""
    mine(here)
    code, output = pipe("prepare", "-r", "demo", *SETTING)
    assert code == 1
    told = "pipe prepare -r demo --set 'data.sources=[{dataset: mine.jsonl}]' --yes."
    assert f"Take that: {told}" in output


def test_a_hint_leaves_out_what_only_one_command_can_take() -> None:
    code, output = pipe("export", "-r", "demo", "--quantize", "Q8_0", "--set", "train.lora.r=8")
    assert code == 1
    assert output.splitlines()[-1] == "Run: pipe prepare -r demo --set train.lora.r=8"


def test_a_command_that_names_its_recipe_keeps_it() -> None:
    assert with_options("pipe register -r a.yaml", "-r b") == "pipe register -r a.yaml"


@pytest.mark.parametrize("command", ["export", "check", "eval"])
def test_no_base_is_fetched_for_a_command_that_comes_too_early(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("pipeline.base._from_hub", fetched)
    code, output = pipe(command, "-r", "llama3.2-1b-r1")
    assert code == 1
    assert output.endswith("Run: pipe prepare -r llama3.2-1b-r1\n")


def test_notes_name_the_recipe_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`to go on from there: pipe train` would go on with another recipe."""

    def training(work: object, _: object) -> None:
        work.emit(Note("Stopped; to go on from there: pipe train"))  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.workflow.train", training)
    code, output = pipe("train", "-r", "demo", "--run", "two")
    assert code == 130
    assert "to go on from there: pipe train -r demo --run two\n" in output


def test_prepare_counts_its_rows_and_says_what_is_next(here: Path) -> None:
    write_base(here / "base")
    mine(here)
    with (here / "mine.jsonl").open("a") as file:
        file.write('{"prompt": "cut off\n')
    recipe = {
        "name": "t",
        "model": {"base": "base", "max_seq_length": 256},
        "data": {
            "sources": [{"dataset": "mine.jsonl"}],
            "general": {"dataset": "builtin:samples/general.jsonl", "limit": 1},
            "eval_share": 0,
            "test_share": 0,
        },
    }
    (here / "pipe.yaml").write_text(json.dumps(recipe))
    code, output = pipe("prepare", "--yes")
    assert code == 0
    counted = "Rows: 30 to train on, 0 that steer, 0 held out, 1 dropped: "
    assert f"{counted}runs/t/data/rejects.jsonl says why\nNext: pipe train\n" in output
    assert "Next:" not in pipe("prepare", "--yes", "--json")[1]


def test_chats_of_several_turns_are_not_taken_for_unknown_columns(here: Path) -> None:
    turns = ("human", "Hi."), ("gpt", "Hello."), ("human", "How much is 1+1?"), ("gpt", "2.")
    chat = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    (here / "mine.jsonl").write_text(f"{json.dumps(chat)}\n" * 9)
    code, output = pipe("prepare", "-r", "demo", *SETTING)
    assert code == 1
    assert "0 of 9 rows read well (not_one_exchange 9) with" in output
    assert "make several rows of a longer chat" in output


@pytest.mark.parametrize("name", ["my run", "übung", "a: b", "../x"])
def test_init_refuses_a_name_that_prepare_would_refuse(here: Path, name: str) -> None:
    code, output = pipe("init", "--extends", "demo", "--name", name)
    assert code == 2 and "name" in output
    assert not (here / "pipe.yaml").exists()


def test_init_takes_a_name_that_yaml_would_read_as_something_else(here: Path) -> None:
    assert pipe("init", "--extends", "demo", "--name", "7")[0] == 0
    assert yaml.safe_load((here / "pipe.yaml").read_text())["name"] == "7"
    assert pipe("recipes", "validate") == (0, "7 is a valid recipe.\n")


def test_status_for_programs_has_the_next_command() -> None:
    found = json.loads(pipe("status", "-r", "demo", "--json")[1])
    assert found["next"] == "pipe prepare -r demo"


def test_a_dry_run_shows_values_as_a_recipe_has_them() -> None:
    code, output = pipe("train", "-r", "demo", "--dry-run")
    assert code == 0
    shown = dict(line.strip().split(": ", 1) for line in output.splitlines() if line[:1] == " ")
    assert shown["eval_every"] == "null" and shown["gradient_checkpointing"] == "false"
    assert yaml.safe_load(shown["lora"])["r"] == 32


def test_what_fits_a_card_is_not_said_to_be_larger_than_it() -> None:
    code, output = pipe("plan", "--use", "reasoning", "--vram", "12")
    assert code == 0
    sizes = [float(size) for size in re.findall(r"lora\*? +(\d+\.\d) ", output)]
    assert len(sizes) > 5 and max(sizes) <= 12


def test_files_have_the_licence_that_can_be_known(here: Path) -> None:
    mine(here)
    code, output = pipe("prepare", "-r", "demo", *SETTING, "--dry-run")
    assert code == 0
    assert output.count("licence: apache-2.0") == 2, "of the shipped test and general rows"
    assert "not known: it is your file" in output and "dataset's card" not in output
    assert "mine.jsonl: 30 rows\n" in output
    command = "pipe prepare -r demo --set 'data.sources=[{dataset: mine.jsonl}]' --yes"
    assert f"      Take that: {command}." in output


def test_an_empty_file_is_called_empty(here: Path) -> None:
    (here / "mine.jsonl").touch()
    code, output = pipe("prepare", "-r", "demo", *SETTING)
    assert code == 1
    assert "The data file mine.jsonl is empty." in output and "one record a line" in output


def test_the_command_that_converts_a_file_really_does(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(here / "cache"))
    name = "o'clock, ü.csv"
    rows = "".join(f"What is {n}?,{n}\n" for n in range(9))
    (here / name).write_text(f"question,answer\n{rows}")
    code, output = pipe("prepare", "-r", "demo", "--set", f'data.sources=[{{dataset: "{name}"}}]')
    assert code == 1
    command = next(line for line in output.splitlines() if line.startswith("Convert it: "))
    subprocess.run(["sh", "-c", command.removeprefix("Convert it: ")], check=True)
    made = (here / name).with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["question"] for line in made] == [f"What is {n}?" for n in range(9)]


def test_no_time_is_promised_before_there_is_a_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a batch comes when the model is open and all of the batch is done."""
    now = iter([100.0, 160.0, 166.0, 172.0])
    monkeypatch.setattr("pipeline.cli.show.monotonic", lambda: next(now))
    emit = drawing()
    for done in (0, 1, 11, 31):
        emit(Progress("eval", done, 61, "questions"))
    first, opened, later, last = capsys.readouterr().err.splitlines()
    assert "left" not in first and "left" not in opened
    assert later.endswith("30 s left"), "6 s for 10 questions, and 50 to go"
    assert last.endswith("12 s left"), "12 s for 30, and 30 to go"


def test_init_says_that_the_environment_names_another_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIPE_RECIPE", "demo")
    assert "unset PIPE_RECIPE" in pipe("init")[1]
    assert Path("pipe.yaml").is_file()


def test_a_folder_that_may_not_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Injected: who runs the tests may be root, who may write everywhere."""

    def refused(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    code, output = pipe("prepare", "-r", "demo")
    assert code == 1
    assert "runs/demo: Permission denied." in output
    assert "work in another folder" in output
