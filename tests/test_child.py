"""The child process: its results, its errors, its death."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.child import Child
from pipeline.errors import NativeCrash, PipeError


@pytest.fixture
def child() -> Iterator[Child]:
    root = str(Path(__file__).parents[1])
    environment = {"PYTHONPATH": root}
    with Child("tests.support.child_module", hint="rebuild it", environment=environment) as child:
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
