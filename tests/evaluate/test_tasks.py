"""Where questions come from: the run, files, the hub, installed packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.read.sources import open_source
from pipeline.errors import PipeError
from pipeline.evaluate.items import Item
from pipeline.evaluate.task_file import builtin_path, builtin_tasks, read_task_file
from pipeline.evaluate.tasks import Task, open_tasks
from pipeline.run import Run
from tests.evaluate.support import row, run_before_eval
from tests.evaluate.test_plugins import package
from tests.support.hub import HubServer, commit_of

__all__ = ["package"]

BOXED = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."

# huggingface_hub reads HF_ENDPOINT when it is imported, so the hub gets its own process
DRIVER = """
import json, sys
from pathlib import Path
from pipeline.data.read.sources import open_source
from pipeline.errors import PipeError
from pipeline.evaluate.tasks import open_tasks
from pipeline.run import Run

for names, pins in json.load(sys.stdin):
    try:
        found = []
        for task in open_tasks(tuple(names), Run(Path("r")), open_source, pins):
            items = [[item.id, item.row["question"], item.reference] for item in task.items(2)]
            found.append([task.name, dict(task.facts), list(task.entries), items])
        print(json.dumps(found))
    except PipeError as error:
        print(json.dumps([error.message, error.hint]))
"""


def opened(*references: str, run: Run | None = None, **pins: str) -> list[Task]:
    return open_tasks(references, run or Run(Path("nowhere")), open_source, pins)


def items(reference: str | Path, limit: int | None = None) -> list[Item]:
    return opened(str(reference))[0].items(limit)


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_held_out_rows_are_asked_as_they_are(tmp_path: Path) -> None:
    run = run_before_eval(tmp_path / "r", rows=3)
    (task,) = opened("test", run=run)
    found = task.items(2)
    assert [item.id for item in found] == ["r0", "r1"]
    assert found[1].conversation == [{"role": "user", "content": "What is 1 + 1?"}]
    assert found[1].reference == "2" and found[1].exchange.answer == "It is 2."
    assert task.entries == {}  # the data stage's manifest is an input already


def test_a_local_file_of_rows_is_a_task(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "mine.jsonl",
        {"question": "1 + 1?", "reference": 2, "system": "Be brief."},
        {"question": "Capital of France?", "answer": "Paris", "id": 7},
    )
    first, second = items(path)
    assert first.reference == "2" and first.exchange is None
    assert first.conversation[0] == {"role": "system", "content": "Be brief."}
    assert (second.id, second.reference, second.exchange.answer) == ("7", "Paris", "Paris")
    (task,) = opened(str(path))
    assert task.name == "mine" and list(task.entries) == ["task/mine/mine.jsonl"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "mine: line 2 cannot be read"),
        ('{"problem": "?"}', "mine, line 2: `question` is no text but NoneType"),
        ('{"question": "  "}', "mine, line 2: the question is empty"),
        ('{"question": "?", "answer": 3}', "mine, line 2: `answer` is no text but int"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row(1)) + f"\n{line}\n")
    with pytest.raises(PipeError, match=said):
        items(path)


def test_a_yaml_file_says_which_columns_and_how_to_ask(tmp_path: Path) -> None:
    write_lines(tmp_path / "sums.jsonl", {"q": "1 + 1", "a": "two, so #### 2", "n": "s1"})
    path = tmp_path / "sums.yaml"
    path.write_text(
        "file: sums.jsonl\nid: n\nquestion: q\nreference: a\nreference_pattern: '#### (.+)'\n"
        "prompt: 'Work out {question}.'\nsystem: Think.\n"
    )
    (item,) = items(path)
    assert item.id == "s1" and item.reference == "2" and item.exchange is None
    assert [message["content"] for message in item.conversation] == ["Think.", "Work out 1 + 1."]
    assert item.row["a"] == "two, so #### 2"
    (task,) = opened(str(path))
    assert list(task.entries) == ["task/sums", "task/sums/sums.jsonl"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question: q\nreference: a\n", "name one of `dataset`"),
        ("file: a.jsonl\ndataset: a/b\nreference: a\n", "name one of `dataset`"),
        ("file: a.jsonl\n", "known answer: `reference` or `answer`"),
        ("file: a.jsonl\nsplit: test\nreference: a\n", "a file has no config"),
        ("file: a.jsonl\nreference: a\nprompt: Hi\n", "must hold {question} once"),
        ("file: a.jsonl\nreference: a\nreference_pattern: '('\n", "no regular expression"),
        ("file: a.jsonl\nreference: a\nreference_pattern: 'a'\n", "must have one group"),
        ("file: a.jsonl\nreference: a\nshots: 5\n", "shots: Extra inputs"),
        ("- a\n", "valid dictionary"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_yaml_file_that_does_not_hold_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(PipeError, match=said):
        read_task_file(path)


def test_a_record_without_the_column_or_the_pattern_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"q": "?", "a": "2"})
    path = tmp_path / "t.yaml"
    path.write_text("file: a.jsonl\nquestion: problem\nreference: a\n")
    with pytest.raises(PipeError, match=r"t, line 1: nothing in the column problem\. Found: q, a"):
        items(path)
    path.write_text("file: a.jsonl\nquestion: q\nreference: a\nreference_pattern: '#(.)'\n")
    with pytest.raises(PipeError, match="reference_pattern finds nothing in the column a"):
        items(path)


def test_an_installed_package_brings_a_task(package: Path) -> None:
    (task,) = opened("riddles")
    (item,) = task.items(None)
    assert item.reference == "a piano" and task.facts["package"] == "house"
    with pytest.raises(PipeError, match="silent of house_rules:silent gives no rows"):
        opened("silent")


def test_a_task_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(PipeError, match="There is no task gsm8") as error:
        opened("gsm8")
    assert "Did you mean gsm8k?" in error.value.hint
    assert builtin_tasks() == ["gsm8k", "math-500"]


def test_two_tasks_may_not_have_one_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "test.jsonl", row(1))
    run = run_before_eval(tmp_path / "r")
    with pytest.raises(PipeError, match="Two tasks are called test"):
        opened("test", str(path), run=run)


def test_the_shipped_tasks_are_whole_files() -> None:
    for name in builtin_tasks():
        task = read_task_file(builtin_path(name))
        assert task.dataset and task.split == "test" and task.prompt.endswith(BOXED)


@pytest.fixture
def hub(tmp_path: Path):
    gsm8k, math500 = tmp_path / "gsm8k", tmp_path / "math"
    for folder in (gsm8k / "main", gsm8k / "socratic", math500):
        folder.mkdir(parents=True)
    (gsm8k / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: [{split: test, path: main/*.jsonl}]\n"
        "- config_name: socratic\n  data_files: [{split: test, path: socratic/*.jsonl}]\n---\n"
    )
    rows = [{"question": f"{n} apples?", "answer": f"So\n#### {n},000"} for n in range(1, 4)]
    write_lines(gsm8k / "main" / "test-0.jsonl", *rows)
    write_lines(gsm8k / "socratic" / "test-0.jsonl", rows[0])
    write_lines(math500 / "test.jsonl", {"problem": "x?", "answer": "\\pi", "unique_id": "u/1"})
    repos = {
        ("dataset", "openai/gsm8k"): gsm8k,
        ("dataset", "HuggingFaceH4/MATH-500"): math500,
    }
    with HubServer(repos).running() as server:
        yield server


def from_hub(hub: HubServer, folder: Path, *jobs: tuple[list[str], dict[str, str]]) -> list:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(jobs),
        env=kept | mine,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_benchmarks_come_from_the_hub_pinned_by_the_commit_that_was_found(
    hub: HubServer, tmp_path: Path
) -> None:
    path = tmp_path / "gone.yaml"
    path.write_text("dataset: some/gone\nreference: a\n")
    commit = commit_of(hub.repos["dataset", "openai/gsm8k"])
    asked = json.dumps(["openai/gsm8k", "main", "test", None])
    earlier = "0" * 40
    hub.kept = frozenset({earlier})
    found, pinned, gone = from_hub(
        hub,
        tmp_path,
        (["gsm8k", "math-500"], {}),
        (["gsm8k"], {asked: earlier}),
        ([str(path)], {}),
    )
    (name, facts, entries, shown), math500 = found
    assert name == "gsm8k" and facts["revision"] == commit and facts["asked"] == asked
    assert entries == ["task/gsm8k", f"task/gsm8k/openai/gsm8k@{commit}"]
    assert shown == [
        ["row 1", f"1 apples?{BOXED}", "1,000"],
        ["row 2", f"2 apples?{BOXED}", "2,000"],
    ]
    assert math500[3] == [["u/1", f"x?{BOXED}", "\\pi"]]
    assert pinned[0][1]["revision"] == earlier and pinned[0][3] == shown
    assert gone[0].startswith("The task gone: The hub has no dataset some/gone")
    assert gone[1].startswith("Check the task")
