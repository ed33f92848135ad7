"""The figures of a training as a person sees them, in a terminal and in a log."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.cli import show
from pipeline.cli.panel import History, Panel, Watched, brief, curve
from pipeline.run.events import Measured, Note, Progress

STEP = {"grad_norm": 0.5, "learning_rate": 1e-4, "tokens_per_second": 5000.0, "seconds": 2.0}


def step(number: int, of: int = 100, **values: float) -> Measured:
    return Measured("train", number, of, STEP | {"loss": 1.0 / number} | values)


def watched(steps: int, of: int = 100, **values: float) -> Watched:
    found = Watched("train", 0.0)
    for number in range(1, steps + 1):
        found.take(step(number, of, **values), 2.0 * number)
    return found


def drawn(found: Watched, width: int, **options: object) -> list[str]:
    from pipeline.cli.panel import _Drawing

    file = StringIO()
    console = Console(file=file, width=width, **options)  # type: ignore[arg-type]
    console.print(_Drawing(found, lambda: 2.0 * found.step))
    return file.getvalue().splitlines()


ALL = {"mfu": 0.4123, "memory_bytes": 23.1e9}
WANTED = (
    "step 30 of 100",
    "loss",
    "0.0333",
    "eval loss",
    "0.2500",
    "1.00e-04",
    "0.5",
    "5,000",
    "41.2%",
    "23.1 GB",
    "60 s, 140 s left",
)


@pytest.mark.parametrize("width", [200, 120, 80, 79, 60, 40])
def test_every_figure_is_there_at_every_width(width: int) -> None:
    found = watched(30, **ALL)
    found.take(Measured("train", 30, 100, {"eval_loss": 0.25}), 60.0)
    lines = drawn(found, width)
    text = "\n".join(lines).replace("2 min left", "140 s left")
    assert [each for each in WANTED if each not in text] == []
    assert max(map(len, lines)) <= width
    assert any(set(line) & set("▁▂▃▄▅▆▇█") for line in lines)


def test_below_eighty_columns_there_is_no_frame() -> None:
    assert "╭" in drawn(watched(3), 80)[0] and "╭" not in "".join(drawn(watched(3), 79))


def test_a_figure_that_is_not_known_is_not_shown() -> None:
    text = "\n".join(drawn(watched(3), 100))
    assert "MFU" not in text and "memory" not in text and "eval loss" not in text
    assert "MFU" not in watched(3).line(6.0)


def test_a_mfu_of_null_is_no_figure() -> None:
    found = watched(3, mfu=None)  # type: ignore[arg-type]
    assert "MFU" not in found.line(6.0)


def test_a_loss_that_is_no_number_is_said_and_not_drawn() -> None:
    found = watched(3)
    found.take(step(4, loss=float("nan"), grad_norm=float("inf")), 8.0)
    text = "\n".join(drawn(found, 100))
    assert "nan" in text and "inf" in text
    assert len(found.losses.points) == 3


def test_a_terminal_without_unicode_gets_a_curve_it_can_show() -> None:
    class Ascii(StringIO):
        encoding = "ascii"

    from pipeline.cli.panel import _Drawing

    file = Ascii()
    Console(file=file, width=100).print(_Drawing(watched(30), lambda: 60.0))
    file.getvalue().encode("ascii")
    assert "@" in file.getvalue()


def test_the_time_left_is_of_recent_steps_alone() -> None:
    found = watched(50)
    now = 100.0
    for number in range(51, 81):
        now += 10.0
        found.take(step(number), now)
    assert found.left(now) == pytest.approx(200.0)
    assert found.left(now + 50) == pytest.approx(150.0)
    assert watched(1).left(2.0) is None and watched(100).left(200.0) is None


def test_speed_is_all_recent_tokens_by_all_their_time() -> None:
    found = Watched("train", 0.0)
    found.take(step(1, tokens_per_second=1000.0, seconds=9.0), 9.0)
    found.take(step(2, tokens_per_second=10_000.0, seconds=1.0), 10.0)
    assert ("tokens/s", "1,900") in found.figures()


def test_steps_that_begin_again_from_a_checkpoint_give_no_negative_time() -> None:
    found = watched(60)
    found.take(step(51), 130.0)
    assert found.left(130.0) is None
    found.take(step(52), 132.0)
    assert found.left(132.0) == pytest.approx(96.0)


@given(st.lists(st.floats(-1e9, 1e9), max_size=300), st.integers(1, 120), st.integers(1, 8))
def test_a_curve_fits_and_shows_its_ends(values: list[float], width: int, height: int) -> None:
    lines = curve(values, width, height)
    assert len(lines) == height and all(len(line) <= width for line in lines)
    assert not values or " " not in lines[-1]  # the least is seen too
    if values and len(values) <= width and min(values) < max(values):
        assert lines[0][values.index(max(values))] == "█"
        assert lines[-1][values.index(min(values))] == "▁"


def test_a_steep_loss_is_drawn_by_its_logarithm() -> None:
    (line,) = curve([10.0**-power for power in range(8)], 8, 1)
    assert line == "█▇▆▅▄▃▂▁"


@given(st.integers(0, 5000))
def test_a_long_history_stays_short_and_keeps_its_order(count: int) -> None:
    history = History()
    for number in range(count):
        history.add(float(number))
    points = history.points
    assert len(points) < 512 and points == sorted(points)
    assert not count or len(points) >= min(count, 256) - 1
    assert not points or (points[0] < 16 and points[-1] > 0.9 * count - 16)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr(show, "monotonic", lambda: now[0])
    yield now


def test_a_log_has_a_line_at_both_ends_and_every_few_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    emit = show._Lines()
    for number in range(1, 101):
        emit(step(number, **ALL))
        clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    steps = [int(re.findall(r"train: ([\d]+)/100", line)[0]) for line in lines]
    assert steps == [1, *range(6, 97, 5), 100]
    assert lines[-1] == (
        "train: 100/100 steps  loss 0.0100  learning rate 1.00e-04  gradient norm 0.5  "
        "tokens/s 5,000  MFU 41.2%  memory 23.1 GB  2 min"
    )


def test_a_bar_tells_the_time_left_by_what_was_done_since_the_first_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    emit, left = show._Terminal(), []
    # a model is opened for 90 s; then legs take longer than rich looks back by itself
    for done, seconds in ((0, 0), (10, 90), (20, 40), (30, 80)):
        now[0] += seconds
        emit(Progress("eval", done, 100, "questions"))
        assert emit._bars
        left.append(emit._bars.tasks[0].time_remaining)
    emit.stop()
    assert left == [None, None, 80 * 4, 70 * 6]


def test_a_log_tells_an_evaluation_at_once(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    emit = show._Lines()
    emit(Measured("train", 0, 100, {"general_loss": 2.5}))
    emit(step(1))
    emit(step(2))
    emit(Measured("train", 2, 100, {"eval_loss": 0.25}))
    told = capsys.readouterr().err.splitlines()
    first = [line.partition("  ")[0] for line in told]
    assert first == ["train: step 0", "train: 1/100 steps", "train: step 2"]
    assert told[2] == brief(Measured("train", 2, 100, {"eval_loss": 0.25}))
    assert told[2].endswith("eval loss 0.2500")


def test_a_second_training_begins_its_figures_anew(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    emit = show._Lines()
    emit(step(1, of=1))
    clock[0] += 500.0
    emit(step(1, of=2, loss=4.0))
    emit(step(2, of=2, loss=3.0))
    assert capsys.readouterr().err.splitlines()[-1].endswith("0 s")


SCRIPT = """
import sys, time
import click
from pipeline.cli.show import drawing
from pipeline.run.events import Measured, Note, Progress

@click.command()
def go():
    emit = drawing()
    for number in range(1, {steps} + 1):
        values = {{"loss": 1 / number, "grad_norm": 1.0, "learning_rate": 1e-4, "seconds": 1.0,
                  "tokens_per_second": 5000.0}}
        emit(Measured("train", number, {of}, values))
        if number == {steps} // 2:
            emit(Note("HALF WAY"))
    {last}

try:
    go(standalone_mode=False)
except (KeyboardInterrupt, click.Abort):
    print("LEFT", file=sys.stderr)
"""


class Screen:
    """A command in a terminal of its own, 100 columns wide."""

    def __init__(self, **script: object) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        code = SCRIPT.format(**{"steps": 40, "of": 100, "last": "pass"} | script)
        environment = os.environ | {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def until(self, wanted: str | None) -> str:
        """All that was written so far, up to the one that holds `wanted`, or to the end."""
        while wanted is None or wanted not in self.text:
            try:
                self.text += os.read(self._ours, 65536).decode()
            except OSError:  # the other end is closed
                break
        assert wanted is None or wanted in self.text
        if wanted is None:
            assert self.process.wait(timeout=10) == 0, self.text
            os.close(self._ours)
        return self.text


def cursor_is_back(text: str) -> bool:
    return text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_notes_stand_above_a_quiet_panel_and_ctrl_c_gives_the_cursor_back() -> None:
    screen = Screen(steps=2000, of=4000, last="time.sleep(60)")
    screen.until("step 2,000 of 4,000")
    screen.process.send_signal(signal.SIGINT)
    text = screen.until(None)
    assert cursor_is_back(text) and text.rstrip().endswith("LEFT")
    assert text.rfind("╰") < text.rfind("\x1b[?25h")
    before, _, after = text.partition("HALF WAY")
    assert "╭" in before and "╭" in after and "HALF WAY" not in after
    assert "\x1b[2J" not in text and "\x1b[?1049h" not in text
    # drawn by the clock, not by the step
    assert text.count("╭") < 40


def test_a_panel_comes_back_after_a_bar_and_ends_with_the_last_step() -> None:
    last = (
        'emit(Progress("files", 2, 2, "files")); '
        'emit(Measured("train", 50, 50, values)); emit(Note("TRAINED")); '
        'emit(Measured("train", 50, 50, {"eval_loss": 0.125})); '
        'emit(Progress("export", 1, 2, "tensors"))'
    )
    text = Screen(of=50, last=last).until(None)
    _, _, again = text.partition("2/2")
    panel, _, after = again.partition("TRAINED")
    assert "step 50 of 50" in panel and "╰" in panel
    assert "╭" not in after and "eval loss 0.1250" in after and "export" in after
    assert cursor_is_back(text)


def test_a_panel_stops_twice_without_harm() -> None:
    file = StringIO()
    panel = Panel(watched(2), Console(file=file, force_terminal=True, width=100))
    panel.say(Note("[bold]not markup[/bold]", warning=True))
    panel.stop()
    panel.stop()
    assert "[bold]not markup[/bold]" in file.getvalue()
