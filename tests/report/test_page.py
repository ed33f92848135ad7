"""What the page says of a run, whole or not."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MissingInput
from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.samples import samples
from pipeline.report.summary import Answer, summary, verdict
from tests.report.fixture import HOSTILE, gates, metrics, write_run

STAGES = ("data", "train", "export", "serve", "check", "eval")


def answers(root: Path, **changes: Any) -> dict[str, Answer]:
    """Of a run with these changes, by the first word that tells them apart."""
    found = summary(gather(write_run(root, **changes), "-r demo"))
    return dict(zip(("trained", "better", "safe", "run"), found, strict=True))


def test_a_run_without_check_and_eval_names_the_commands(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", without=("serve", "check", "eval"))
    path, gaps = write_report(run, "-r demo")
    commands = [gap.command for gap in gaps]
    assert commands == ["pipe register -r demo", "pipe check -r demo", "pipe eval -r demo"]
    page = path.read_text(encoding="utf-8")
    assert all(command in page for command in commands)
    assert "2,362 training rows" in page


@pytest.mark.parametrize("last", ["data", "train", "export"])
def test_a_page_stands_from_the_first_stage_on(tmp_path: Path, last: str) -> None:
    run = write_run(tmp_path / "demo", without=STAGES[STAGES.index(last) + 1 :])
    path, gaps = write_report(run)
    assert len(gaps) == 5 - STAGES.index(last)
    assert path.read_text(encoding="utf-8").endswith("</html>")


def test_a_run_without_any_stage_has_no_page(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "demo", without=("data", "train", "export", "serve", "check", "eval")
    )
    with pytest.raises(MissingInput, match="No stage") as error:
        write_report(run)
    assert error.value.hint == "Run: pipe prepare"


@pytest.mark.parametrize(
    "changes",
    [
        {"speed": False},
        {"engines": ["Q8_0"]},
        {"engines": ["base"]},
        {"engines": []},
        {"items": 0},
        {"samples": 4},
        {"losses": [3.0]},
        {"losses": [0.0, 0.0]},
        {"gates": []},
        {"answer": ""},
        {"answer": "<think>\nnever closed"},
    ],
    ids=str,
)
def test_a_page_stands_on_little(tmp_path: Path, changes: dict[str, Any]) -> None:
    path, _ = write_report(write_run(tmp_path / "demo", **changes))
    assert "How do I run it?" in path.read_text(encoding="utf-8")


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    import json

    runs = [write_run(tmp_path / name / "demo") for name in ("one", "two")]
    for run in runs:  # the stages' own times lie in timing.json, which the page does not read
        (run.folder("eval") / "timing.json").write_text(json.dumps({"seconds": len(run.name)}))
    one, two = (write_report(run)[0].read_bytes() for run in runs)
    assert one == two


def test_a_stale_stage_is_shown_and_announced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    manifest = run.folder("export") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3407', '"seed": 3408'))
    path, gaps = write_report(run, "-r demo")
    texts = {gap.text: gap.command for gap in gaps}
    assert texts[f"{run.folder('eval')} was made from another export than the one there now."] == (
        "pipe eval -r demo"
    )
    page = path.read_text(encoding="utf-8")
    assert "Not all of this still holds" in page and "4.8% → 84.0%" in page


def test_a_changed_file_is_announced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    (run.folder("check") / "results.json").write_text("{")
    path, gaps = write_report(run, "-r demo")
    assert any("is not the file that check wrote" in gap.text for gap in gaps)
    assert any("is no JSON" in gap.text for gap in gaps)
    assert {gap.command for gap in gaps} == {"pipe check -r demo"}
    assert "Not checked" in path.read_text(encoding="utf-8")


def test_hostile_text_is_text(tmp_path: Path) -> None:
    written = HOSTILE.replace("\ud800", "")
    changes = {"rejects": {written: 3}, "gates": hostile_gates(written), "duties": [written]}
    run = write_run(tmp_path / "demo", answer=HOSTILE, **changes)
    page = write_report(run, HOSTILE)[0].read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page
    assert not any(mark in page for mark in ("\x1b", "\x00", "\u202e"))
    assert "&lt;script&gt;" in page and "[U+202E]" in page


def hostile_gates(text: str) -> list[dict[str, str]]:
    return [dict.fromkeys(gate, text) | {"status": "failed"} for gate in gates()]


def test_no_gap_between_gates_and_summary(tmp_path: Path) -> None:
    safe = answers(tmp_path / "a", gates=gates(["passed"] * 6))["safe"]
    assert (safe.headline, safe.tone) == ("Yes: all 6 gates passed", "good")
    safe = answers(tmp_path / "b", gates=gates(["passed"] * 5 + ["not_run"]))["safe"]
    assert (safe.headline, safe.tone) == ("Not fully checked: 5 of 6 gates", "warn")
    safe = answers(tmp_path / "c", gates=gates(["failed", "failed"]))["safe"]
    assert (safe.headline, safe.tone) == ("No: 3 gates failed", "bad")
    assert "Failed: prompt text: llama.cpp, prompt text: Ollama and context length." in safe.text[0]


def value(middle: float) -> dict[str, float | None]:
    return {"value": middle, "low": middle - 0.04, "high": middle + 0.04}


def paired(low: float, high: float, p_value: float | None) -> dict[str, Any]:
    return {"change": {"value": (low + high) / 2, "low": low, "high": high}, "p_value": p_value}


@pytest.mark.parametrize(
    ("name", "before", "after", "test", "said"),
    [
        ("exact_match", 0.2, 0.5, {}, "good"),
        ("exact_match", 0.5, 0.2, {}, "bad"),
        ("exact_match", 0.50, 0.55, {}, "warn"),
        ("exact_match", 0.50, 0.55, paired(0.01, 0.09, 0.01), "good"),
        ("exact_match", 0.50, 0.55, paired(-0.01, 0.11, 0.2), "warn"),
        ("exact_match", 0.50, 0.55, paired(0.01, 0.09, 0.07), "warn"),
        ("perplexity", 0.9, 0.4, {}, "good"),
        ("perplexity", 0.4, 0.9, {}, "bad"),
        ("reply_tokens", 0.1, 0.9, {}, "warn"),
    ],
)
def test_better_is_said_only_where_it_is_shown(
    name: str, before: float, after: float, test: dict[str, Any], said: str
) -> None:
    assert verdict(name, value(before), value(after), test)[1] == said


def test_the_cost_of_the_first_file_is_told(tmp_path: Path) -> None:
    text = " ".join(answers(tmp_path / "demo")["safe"].text)
    assert "Quantizing to Q8_0 costs: accuracy −0.8 points, no clear difference" in text
    assert "KL divergence 0.00031" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"license": "Llama 3.2 Community License Agreement\n..."}, "Built with Llama"),
        ({"license": "unknown: see the base model's card"}, "read the base's card"),
        ({"duties": ["non-commercial"]}, "Math-220k default: not for commercial use."),
        ({}, "No licence asks for more than its notice."),
    ],
)
def test_licences_that_bind_are_in_the_summary(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in answers(tmp_path / "demo", **changes)["safe"].text[-1]


def test_an_unregistered_model_is_registered_first(tmp_path: Path) -> None:
    run = answers(tmp_path / "demo", without=["serve"])["run"]
    assert run.commands == ["pipe register -r demo", "ollama run my-model", "pipe chat -r demo"]


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


def test_of_many_samples_one_is_shown(tmp_path: Path) -> None:
    found = samples(gather(write_run(tmp_path / "demo", items=5, samples=4)))
    assert {name for said in found[0].said for name in said.engines} == {
        "base", "adapter", "merged", "Q8_0", "Q4_K_M", "ollama",
    }  # fmt: skip
    assert len([name for said in found[0].said for name in said.engines]) == 6


def test_engines_are_in_the_order_of_the_work(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", engines=["ollama", "Q4_K_M", "Q8_0", "base", "mine"])
    assert list(gather(run).engines) == ["base", "Q8_0", "Q4_K_M", "ollama", "mine"]


def test_further_tasks_have_tables_of_their_own(tmp_path: Path) -> None:
    more = {"items": 1319, "engines": {"base": metrics("base", 0.5)}, "comparisons": []}
    run = write_run(tmp_path / "demo", tasks={"gsm8k": more})
    assert list(gather(run).tasks) == ["test", "gsm8k"]
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "<b>gsm8k</b>: 1,319 questions" in page and "<b>test</b>: 40 questions" in page


def test_the_recipe_on_the_page_pins_what_was_read(tmp_path: Path) -> None:
    from pipeline.report.reproduce import commands, pinned_recipe

    override = 'data.sources=[{dataset: "open-r1/OpenR1-Math-220k", config: default}]'
    view = gather(write_run(tmp_path / "demo", overrides=[override]))
    assert "revision: e4e141ec" in pinned_recipe(view)
    assert view.recipe["data"]["sources"][0]["revision"] is None
    assert commands(view)[-1] == "pipe eval -r recipe.yaml"
