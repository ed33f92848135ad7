"""Metrics of a user's own: a file, or an installed package."""

from pathlib import Path

import pytest

from pipeline.errors import PipeError
from pipeline.evaluate.items import item_of
from pipeline.evaluate.metrics import all_metrics
from tests.evaluate.support import measured, row

POLITE = "def metric(row, reply):\n    return 'please' in reply\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `house` with a metric `brief` and a task `riddles`."""
    facts = tmp_path / "house-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        "[r1pipe.metrics]\nbrief = house_rules:brief\nbroken = house_rules:missing\n"
        "[r1pipe.tasks]\nriddles = house_rules:riddles\nsilent = house_rules:silent\n"
    )
    (tmp_path / "house_rules.py").write_text(
        "def brief(row, reply):\n    return 1 / len(reply)\n"
        "def riddles():\n    yield {'question': 'What has keys?', 'reference': 'a piano'}\n"
        "def silent():\n    return []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_file_with_a_function_metric_is_a_metric(tmp_path: Path) -> None:
    (metric,) = all_metrics([], [write(tmp_path / "polite.py", POLITE)])[-1:]
    assert metric.name == "polite"
    item = item_of(row(1), "row 1")
    assert metric.of(measured(item, "please")) == (1.0, 1)
    assert metric.of(measured(item, "no")) == (0.0, 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def metric(row, reply):\n    return row['absent']\n", "row r1: KeyError: 'absent'"),
        ("def metric(row, reply):\n    return float('nan')\n", "row r1: nan is no number"),
        ("def metric(row, reply):\n    return None\n", "row r1: TypeError"),
    ],
)
def test_an_error_of_a_metric_names_the_row(tmp_path: Path, body: str, said: str) -> None:
    (metric,) = all_metrics([], [write(tmp_path / "mine.py", body)])[-1:]
    with pytest.raises(PipeError, match=said):
        metric.of(measured(item_of(row(1), "row 1"), "x"))


@pytest.mark.parametrize(
    ("body", "said"),
    [("x = 1\n", "no function `metric`"), ("1 / 0\n", "ZeroDivisionError")],
)
def test_a_file_that_is_no_metric_is_refused(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(PipeError, match=said):
        all_metrics([], [write(tmp_path / "mine.py", body)])


def test_a_metric_may_not_take_the_name_of_another(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="Two metrics are called bleu"):
        all_metrics([], [write(tmp_path / "bleu.py", POLITE)])


def test_an_installed_package_brings_a_metric(package: Path) -> None:
    (metric,) = all_metrics(["brief"], [])[-1:]
    assert metric.of(measured(item_of(row(1), "row 1"), "ab")) == (0.5, 1)
    with pytest.raises(PipeError, match="broken of house_rules:missing does not load"):
        all_metrics(["broken"], [])
    with pytest.raises(PipeError, match="there is: brief, broken"):
        all_metrics(["long"], [])
