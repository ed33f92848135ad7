"""The child process: its results, its errors, its death."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.child import Child
from pipeline.errors import NativeCrash, PipeError

MODULE = "tests.support.child_module"
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1]), "CHILD_TEST": "yes"}


@pytest.fixture
def child() -> Iterator[Child]:
    with Child(MODULE, hint="rebuild it", environment=ENVIRONMENT) as child:
        yield child


def test_messages_come_before_the_result_and_prints_do_not(child: Child) -> None:
    assert list(child.stream("count", to=2)) == [
        {"number": 0},
        {"number": 1},
        {"result": "counted"},
    ]
    assert child.ask("count", to=0) == "counted"
    assert "a library's own words" in child.log_tail()


def test_an_error_leaves_the_child_usable(child: Child) -> None:
    with pytest.raises(PipeError, match="refused") as caught:
        child.ask("refuse")
    assert caught.value.hint == "ask otherwise"
    with pytest.raises(PipeError, match="native reasons"):
        child.ask("fail")
    assert child.ask("count", to=0) == "counted"


def test_a_crash_is_an_error_with_its_last_words_and_the_cure(child: Child) -> None:
    with pytest.raises(NativeCrash, match="SIGABRT at crash") as caught:
        child.ask("crash")
    assert "GGML_ASSERT(x) failed" in caught.value.message
    assert caught.value.hint == "rebuild it"
    with pytest.raises(NativeCrash):
        child.ask("count", to=0)


def test_a_child_killed_in_the_middle_of_a_message_is_a_crash() -> None:
    with Child("tests.support.torn_child", hint="more memory", environment=ENVIRONMENT) as torn:
        messages = torn.stream("count")
        assert next(messages) == {"number": 0}
        with pytest.raises(NativeCrash, match="SIGKILL at count") as caught:
            next(messages)
    assert caught.value.hint == "more memory"


def ended(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_environment_and_the_launcher_reach_the_child() -> None:
    with Child(
        MODULE, hint="", environment=ENVIRONMENT, launcher=("-W", "error::Warning")
    ) as child:
        first = next(child.stream("wait", seconds=0))
    assert first["variable"] == "yes" and first["warn"] == ["error::Warning"]
    assert first["pid"] == child.pid and "CHILD_TEST" not in os.environ


def test_a_module_in_the_users_folder_is_not_what_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with Child(MODULE, hint="", environment=ENVIRONMENT) as child:
        assert child.ask("count", to=0) == "counted"


@pytest.mark.parametrize("busy", [True, False])
def test_a_child_dies_with_a_parent_that_was_killed_whatever_it_does(busy: bool) -> None:
    program = f"""
from pipeline.child import Child
child = Child({MODULE!r}, hint="")
print(next(child.stream("wait", seconds={60 if busy else 0}))["pid"], flush=True)
input()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert not ended(pid, within_s=0)
    parent.kill()
    parent.communicate()
    assert ended(pid)


def test_an_exception_in_the_parent_ends_a_busy_child_at_once() -> None:
    started = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        Child(MODULE, hint="", environment=ENVIRONMENT) as child,
    ):
        next(child.stream("wait", seconds=60))
        raise KeyboardInterrupt
    assert ended(child.pid, within_s=0) and time.monotonic() - started < 4


def test_a_signal_reaches_the_child_and_names_its_death(child: Child) -> None:
    messages = child.stream("wait", seconds=60)
    next(messages)
    child.send_signal(signal.SIGTERM)
    with pytest.raises(NativeCrash, match="SIGTERM at wait"):
        next(messages)
    child.send_signal(signal.SIGTERM)  # to the dead: nothing


def test_a_child_that_cannot_start_says_why() -> None:
    with (
        Child("tests.support.no_such_module", hint="install it") as child,
        pytest.raises(NativeCrash, match="No module named") as caught,
    ):
        child.ask("count", to=0)
    assert "exit code 1" in caught.value.message and caught.value.hint == "install it"
