"""The files that tell how a training went."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.logs import append_line, read_lines, write_lines, write_logs

FACTS: dict[str, Any] = {
    "method": "qlora",
    "device": "cpu",
    "precision": "fp32",
    "trainable_parameters": 2_500,
    "total_parameters": 1_000_000,
    "steps": 2,
    "kept_step": 1,
    "final_loss": 1.25,
    "eval_loss": 0.5,
    "general_loss_before": None,
    "general_loss_after": None,
}


def step(number: int, norm: float | None = 0.75) -> dict[str, Any]:
    return {"step": number, "loss": 2.0 / number, "grad_norm": norm, "learning_rate": 2e-4}


def result(**changes: Any) -> dict[str, Any]:
    metrics = [{"step": 0, "general_loss": 9.0}, step(1), {"step": 1, "eval_loss": 0.5}]
    values = {
        "facts": FACTS,
        "trace": {"metrics": [*metrics, step(2, None)], "samples": []},
        "seconds": {"load": 1.0, "train": 2.5},
        "peak_memory_bytes": {"resident": 3_000_000_000},
    }
    return values | changes


@given(
    st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3)),
    st.binary(max_size=20),
)
def test_whole_lines_are_read_back_and_what_follows_a_torn_one_is_not(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("logs") / "metrics.jsonl"
    assert read_lines(path) == []
    write_lines(path, lines)
    assert read_lines(path) == lines
    append_line(path, {"step": 1})
    with path.open("ab") as file:
        file.write(b"\x00\x00" + garbage.replace(b"\n", b"") + b"\n")
    append_line(path, {"step": 2})
    assert read_lines(path) == [*lines, {"step": 1}]


def test_a_line_without_its_end_is_torn_though_it_parses(tmp_path: Path) -> None:
    """`12` may be the beginning of `123`."""
    path = tmp_path / "speed.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert read_lines(path) == [{"step": 1}]


def test_metrics_hold_no_time_and_are_the_same_bytes_for_the_same_numbers(tmp_path: Path) -> None:
    speeds = [{"step": 1, "seconds": 0.5, "tokens_per_second": 100.0}]
    for name, speed in (("one", speeds), ("two", [])):
        (tmp_path / name).mkdir()
        write_logs(tmp_path / name, result(), speed)
    one, two = (tmp_path / name / "metrics.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_text().splitlines()[1] == (
        '{"grad_norm": 0.75, "learning_rate": 0.0002, "loss": 2.0, "step": 1}'
    )
    assert (tmp_path / "one" / "speed.jsonl").read_text().startswith('{"seconds": 0.5')
    assert not (tmp_path / "one" / "samples.jsonl").exists()


def test_the_log_has_each_step_with_its_speed(tmp_path: Path) -> None:
    speeds = [{"step": 2, "tokens_per_second": 812.4, "seconds": 0.1}]
    write_logs(tmp_path, result(), speeds)
    log = json.loads((tmp_path / "training_log.json").read_text())
    assert [(s["step"], s["tokens_per_second"]) for s in log["steps_logged"]] == [
        (1, None),
        (2, 812.4),
    ]
    assert log["final_loss"] == 1.25 and log["facts"] == FACTS
    text = (tmp_path / "training_log.txt").read_text()
    assert "trainable parameters  2,500 (0.25%)" in text
    assert "steps                 2, weights of step 1" in text
    assert "loss on general rows  no rows before, no rows after" in text
    assert text.splitlines()[-2:] == [
        "     1    2.0000      0.750      2.000e-04          ",
        "     2    1.0000    skipped      2.000e-04       812",
    ]


def test_answers_aloud_are_in_a_file_of_their_own_and_in_the_log(tmp_path: Path) -> None:
    sample = {"step": 2, "question": "Größe?", "reply": "Two\nlines."}
    write_logs(tmp_path, result(trace={"metrics": [step(1)], "samples": [sample]}), [])
    assert read_lines(tmp_path / "samples.jsonl") == [sample]
    assert "Größe" in (tmp_path / "samples.jsonl").read_text(encoding="utf-8")
    assert (tmp_path / "training_log.txt").read_text().endswith("step 2: Größe?\nTwo\nlines.\n")
