"""What is gone on from after a kill, and what is not."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.kept import Kept, Likelihood, Log

KEYS = [f"k{number}" for number in range(10)]


def filled(path: Path, count: int, leg: int = 4) -> Log[Likelihood]:
    log = Log(path, Likelihood, KEYS, leg)
    log.load()
    for number in range(count):
        log.append(Likelihood(-0.1 * number, number))
    return log


def again(path: Path, leg: int = 4) -> Log[Likelihood]:
    log = Log(path, Likelihood, KEYS, leg)
    log.load()
    return log


def test_only_whole_legs_are_gone_on_from(tmp_path: Path) -> None:
    filled(tmp_path / "a", 7)
    log = again(tmp_path / "a")
    assert log.found == [Likelihood(-0.1 * number, number) for number in range(4)]
    log.append(Likelihood(-9.0, 9))
    assert len((tmp_path / "a").read_text().splitlines()) == 5


def test_the_last_leg_may_be_short(tmp_path: Path) -> None:
    filled(tmp_path / "a", 10)
    assert len(again(tmp_path / "a").found) == 10


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a"
    filled(path, 5, leg=1)
    path.write_bytes(path.read_bytes()[:-3])
    assert len(again(path, leg=1).found) == 4
    again(path, leg=1).append(Likelihood(-1.0, 1))
    assert len(again(path, leg=1).found) == 5


def test_nothing_after_a_line_of_another_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a"
    filled(path, 6, leg=1)
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "key": "other"})
    path.write_text("\n".join(lines) + "\n")
    assert len(again(path, leg=1).found) == 2


@given(cut=st.integers(0, 800), leg=st.integers(1, 6))
def test_wherever_the_file_ends_a_beginning_of_whole_legs_remains(
    tmp_path_factory, cut: int, leg: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a"
    whole = filled(path, 10, leg).found
    path.write_bytes(path.read_bytes()[:cut])
    kept = again(path, leg).found
    assert kept == whole[: len(kept)]
    assert len(kept) % leg == 0 or len(kept) == 10


def test_other_parts_are_cleared_and_those_named_stay(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    one, other = kept.part("test", "a" * 64), kept.part("test", "b" * 64)
    for part in (one, other):
        part.mkdir(parents=True)
    kept.keep_pins({"x": "1"})
    kept.clear(but=[one])
    assert one.exists() and not other.exists() and kept.pins() == {"x": "1"}
    kept.clear()
    assert not one.exists() and kept.pins() == {}
