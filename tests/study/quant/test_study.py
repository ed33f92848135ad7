"""A study row by row: what is kept, what is tried again, what is published."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipeError, RunLocked
from pipeline.run import Note
from pipeline.run.lock import locked
from pipeline.run.studies import study_doubt
from pipeline.study.quant import Wish, planned, quantize, study
from pipeline.study.quant.measure import Measured
from pipeline.study.quant.methods import Method
from pipeline.workflow import Work
from tests.study.quant.support import Q, row
from tests.support.exported import demo
from tests.support.full import run_in_full

WISH = Wish(methods=("nf4", "llm-int8", "q8_0"))


class Measuring:
    """Stands for the engines; says which rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, Exception] = {}

    def __call__(self, subject: Any, method: Method, types: list[str]) -> Measured:
        self.asked.append(method.name)
        if error := self.fails.get(method.name):
            raise error
        size = {"none": 1000}.get(method.name, 300)
        subject.folder.mkdir(parents=True, exist_ok=True)
        (subject.folder / "large").write_text("made on the way")
        found = row(method.name, size, 0.99, (0.8, 0.7, 0.9))
        return Measured(found, {} if method.name == "none" else {Q: 0.1})


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    found = Measuring()
    monkeypatch.setattr(study, "measure", found)
    return found


@pytest.fixture
def said() -> list[Any]:
    return []


@pytest.fixture
def work(tmp_path: Path, said: list[Any]) -> Work:
    recipe = demo("train.method=full")
    return Work(recipe, run_in_full(tmp_path / "runs" / "demo", recipe), said.append)


def names(results: dict[str, Any], status: str) -> list[str]:
    return [each["method"] for each in results["rows"] if each["status"] == status]


def test_a_study_leaves_three_files_that_belong_together(
    work: Work, measuring: Measuring, said: list[Any]
) -> None:
    results = quantize(work, WISH)
    folder = work.run.root / "quant"
    assert json.loads((folder / "results.json").read_text()) == results
    assert sorted(path.name for path in folder.iterdir()) == [
        "quant.csv", "quant.html", "results.json",
    ]  # fmt: skip
    assert (results["model"], results["task"], results["questions"]) == ("tuned", "test", 1)
    assert (results["replies"], results["best"]) == (1, "llm-int8")
    assert results["says"] in (folder / "quant.html").read_text()
    assert list(results["layers"]) == ["llm-int8", "nf4", "Q8_0"]
    assert [event.text for event in said] == [
        "Row 1 of 4: none (16 bits)",
        "Row 2 of 4: LLM.int8()",
        "Row 3 of 4: NF4",
        "Row 4 of 4: GGUF Q8_0",
    ]


def test_rows_that_are_there_are_not_measured_again(work: Work, measuring: Measuring) -> None:
    first = quantize(work, WISH)
    assert measuring.asked == ["none", "llm-int8", "nf4", "Q8_0"]
    assert quantize(work, Wish(methods=("nf4", "fp4")))["best"] == "nf4"
    assert measuring.asked[4:] == ["fp4"]
    assert quantize(work, WISH) == first and len(measuring.asked) == 5


def test_what_a_row_hangs_on_makes_it_anew(
    work: Work, measuring: Measuring, said: list[Any]
) -> None:
    first = quantize(work, WISH)
    assert {"data/manifest.json", "train/manifest.json"} < set(first["inputs"])
    assert study_doubt(work.run, first) == ""
    with work.run.publish("train") as draft:
        old = work.run.require("train")
        (draft.folder / "model").mkdir()
        source = work.run.folder("train") / "model"
        for path in source.iterdir():
            (draft.folder / "model" / path.name).write_bytes(path.read_bytes())
        (draft.folder / "model" / "note").write_text("trained anew")
        draft.manifest = old
    assert study_doubt(work.run, first) == "made of another training"
    assert study_doubt(work.run, quantize(work, WISH)) == ""
    assert measuring.asked == 2 * ["none", "llm-int8", "nf4", "Q8_0"]
    said.clear()
    of_base = quantize(work, Wish("base", WISH.methods))
    assert len(measuring.asked) == 12
    assert "train/manifest.json" not in of_base["inputs"]  # no training changes the base
    assert "quant/ holds the study of the tuned model; its rows are kept." in said[0].text
    quantize(work, WISH)  # the base's rows lie beside the tuned model's
    assert len(measuring.asked) == 12


def test_a_method_that_is_refused_is_a_row_with_its_words_and_is_tried_again(
    work: Work, measuring: Measuring, said: list[Any]
) -> None:
    measuring.fails["llm-int8"] = NotImplementedError("no kernel\nfor this machine")
    measuring.fails["nf4"] = PipeError("the disk is full", "make room")
    results = quantize(work, WISH)
    assert names(results, "measured") == ["none", "Q8_0"]
    reasons = {each["method"]: each["reason"] for each in results["rows"] if each["reason"]}
    assert reasons == {"llm-int8": "NotImplementedError: no kernel", "nf4": "the disk is full"}
    warned = [event.text for event in said if isinstance(event, Note) and event.warning]
    assert "LLM.int8() is not run: NotImplementedError: no kernel" in warned
    assert "NF4 is not run: the disk is full make room" in warned
    measuring.fails.clear()
    assert names(quantize(work, WISH), "not_run") == []
    assert measuring.asked[4:] == ["llm-int8", "nf4"]


def test_without_16_bits_there_is_no_study_and_a_bug_is_not_taken_for_a_refusal(
    work: Work, measuring: Measuring
) -> None:
    measuring.fails["nf4"] = KeyError("a bug")
    with pytest.raises(KeyError):
        quantize(work, WISH)
    measuring.fails["none"] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        quantize(work, Wish("base"))
    assert not (work.run.root / "quant").exists()


def test_what_was_made_on_the_way_is_removed_and_rows_are_kept(
    work: Work, measuring: Measuring
) -> None:
    stale = work.run.root / ".quant.work" / "tuned-0123456789abcdef"
    stale.mkdir(parents=True)
    measuring.fails["nf4"] = KeyError("killed")
    with pytest.raises(KeyError):
        quantize(work, WISH)
    left = {path.name.partition("-")[0] for path in (work.run.root / ".quant.work").iterdir()}
    assert left == {"rows", "tuned"} and not stale.exists()
    measuring.fails.clear()
    quantize(work, WISH)
    assert measuring.asked == ["none", "llm-int8", "nf4", "nf4", "Q8_0"]
    assert [path.name for path in (work.run.root / ".quant.work").iterdir()] == ["rows"]


def test_results_that_cannot_be_read_are_written_anew(work: Work, measuring: Measuring) -> None:
    first = quantize(work, WISH)
    path = work.run.root / "quant" / "results.json"
    path.write_text("[")
    assert quantize(work, WISH) == first == json.loads(path.read_text())
    assert len(measuring.asked) == 4


def test_force_measures_all_anew(work: Work, measuring: Measuring) -> None:
    quantize(work, WISH)
    quantize(Work(work.recipe, work.run, work.emit, force=True), WISH)
    assert measuring.asked == 2 * ["none", "llm-int8", "nf4", "Q8_0"]


def test_a_plan_says_which_rows_are_there_and_measures_nothing(
    work: Work, measuring: Measuring
) -> None:
    quantize(work, Wish(methods=("nf4",)))
    found = {each["name"]: each["status"] for each in planned(work, WISH)}
    assert found == {
        "none": "kept", "llm-int8": "to be measured", "nf4": "kept", "Q8_0": "to be measured",
    }  # fmt: skip
    assert measuring.asked == ["none", "nf4"]


def test_a_study_waits_for_nobody_else_in_the_run(work: Work, measuring: Measuring) -> None:
    with locked(work.run.root), pytest.raises(RunLocked):
        quantize(work, WISH)
