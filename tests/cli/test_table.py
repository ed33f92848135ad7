"""The tables of all commands: what is folded, what is not, and what a cell may hold."""

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from pipeline.cli import main
from pipeline.cli.table import brief_interval, draw, table

ROWS = [("Qwen2.5-Coder-1.5B", "1.5", "made for code; a research licence"), ("b", "20.25", "")]


def shown(made: Table, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(made)
    return captured.get().splitlines()


def test_figures_end_below_one_another_and_text_begins_so() -> None:
    lines = shown(table("abc", ROWS, left=(0, 2)), 80)
    first, second = (line for line in lines if "1.5 " in line or "20.25" in line)
    assert first.index("  1.5 ") + 5 == second.index("20.25") + 5
    assert first.startswith(" Qwen2.5") and second.startswith(" b ")


def test_a_whole_column_is_not_folded_while_another_can_be() -> None:
    lines = shown(table("abc", ROWS, left=(0, 2), whole=(0,)), 44)
    assert any(line.startswith(" Qwen2.5-Coder-1.5B ") for line in lines)
    assert all(len(line) <= 44 for line in lines)
    assert " ".join(" ".join(line[27:] for line in lines[3:]).split()) == ROWS[0][2]


@pytest.mark.parametrize("width", ["20", "40"])
def test_where_all_is_whole_the_terminal_breaks_lines_and_no_figure_is_lost(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    draw(table("abc", ROWS, whole=range(3)))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "Qwen" in line)
    assert line.split() == ["Qwen2.5-Coder-1.5B", "1.5", *ROWS[0][2].split()]


def test_brackets_are_shown_as_they_are() -> None:
    lines = shown(table("ab", [("runs/[bold]x[/]", "[?]")]), 80)
    assert any("runs/[bold]x[/]  [?]" in line for line in lines)


@pytest.mark.parametrize(("count", "whole", "between"), [(8, True, 2), (9, True, 1), (9, False, 2)])
def test_columns_stand_closer_where_they_would_fill_more_than_a_line(
    count: int, whole: bool, between: int
) -> None:
    row = ["12345678"] * count
    made = table("abcdefghi"[:count], [row], whole=range(count) if whole else ())
    assert any(line.strip() == (" " * between).join(row) for line in shown(made, 99))


def test_an_interval_is_brief() -> None:
    assert brief_interval("exact_match", {"value": 0.7, "low": 0.6, "high": 0.805}) == "60.0-80.5"
    assert brief_interval("mae", {"value": 2.5, "low": 2, "high": 3}) == "2-3"


def test_a_dataset_s_id_is_folded_last() -> None:
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["datasets"]).output.splitlines()
    assert any(line.startswith(" cognitivecomputations/dolphin-r1 ") for line in lines)
    assert any("[?]" in line for line in lines[:-1]) and all(len(line) <= 80 for line in lines)
