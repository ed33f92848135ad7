"""Which answers are shown, and of whom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.samples import samples
from tests.report.figures import metrics, value
from tests.report.fixture import write_run


def test_samples_show_what_training_mended_broke_and_left(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", items=20, right={"base": 0.3, "adapter": 0.6})
    found = samples(gather(run))
    assert [(sample.id, sample.title) for sample in found] == [
        ("test_6", "base wrong, tuned right"),
        ("test_7", "base wrong, tuned right"),
        ("test_12", "both wrong"),
        ("test_0", "both right"),
    ]
    first = found[0]
    assert first.question.startswith("Dan owns 96 cards") and first.reference == "91"
    assert [said.engines for said in first.said] == [
        ["base"],
        ["adapter", "merged", "Q8_0", "Q4_K_M", "ollama"],
    ]
    assert first.said[1].thinking == "Dan sells 5: 96-5=91"
    assert (first.said[0].right, first.said[1].right) == (False, True)


def test_a_price_that_is_near_enough_is_shown_as_right(tmp_path: Path) -> None:
    hits = {"scores": {"hit_rate": value(1.0)}, "each": {"adapter": {"hit_rate": 1}}}
    run = write_run(tmp_path / "demo", engines=["base", "adapter"], right={"adapter": 0.0}, **hits)
    assert {each.title for each in samples(gather(run))} == {
        "base wrong, tuned right",
        "both right",
    }
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "A number is right where it is a hit: off by less than 40" in page


def test_of_many_samples_one_is_shown(tmp_path: Path) -> None:
    found = samples(gather(write_run(tmp_path / "demo", items=5, samples=4)))
    assert {name for said in found[0].said for name in said.engines} == {
        "base", "adapter", "merged", "Q8_0", "Q4_K_M", "ollama",
    }  # fmt: skip
    assert len([name for said in found[0].said for name in said.engines]) == 6


def replies(task: str, right: Sequence[bool | None], **more: Any) -> list[dict[str, Any]]:
    """One of the adapter to each question; None is one that the limit cut."""
    return [
        {"task": task, "engine": "adapter", "id": f"q{place}", "text": "4.", "sample": 0}
        | {"stopped": each is not None, "metrics": {"exact_match": int(bool(each))}}
        | more
        for place, each in enumerate(right)
    ]


def test_another_tasks_samples_say_what_was_asked(tmp_path: Path) -> None:
    more = {"items": 2, "engines": {"adapter": metrics("adapter", 0.5)}, "comparisons": []}
    asked = replies("gsm8k", [True, False], question="What is 2 + 2?", reference="4")
    run = write_run(tmp_path / "demo", tasks={"gsm8k": more}, answers=asked)
    found = [sample for sample in samples(gather(run)) if sample.task == "gsm8k"]
    assert [sample.title for sample in found] == ["tuned wrong", "tuned right"]
    assert {(sample.question, sample.reference) for sample in found} == {("What is 2 + 2?", "4")}
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "What is 2 + 2?" in page and '"mark bad">tuned wrong' in page


def test_a_reply_that_was_cut_hides_no_other(tmp_path: Path) -> None:
    more = {"items": 5, "engines": {"adapter": metrics("adapter", 0.8)}, "comparisons": []}
    asked = replies("mine", [None, True, True, True, True])
    run = write_run(tmp_path / "demo", tasks={"mine": more}, answers=asked)
    found = [sample.title for sample in samples(gather(run)) if sample.task == "mine"]
    assert found == ["tuned right", "tuned right", "cut off"]
