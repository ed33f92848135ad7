"""What the page says of a run, whole or not."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.check.table import PROBES
from pipeline.errors import MissingInput
from pipeline.evaluate.results import pairs_of
from pipeline.recipe.metrics import KNOWN
from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.reproduce import pinned_recipe, provenance
from pipeline.report.summary import Answer, summary, verdict
from pipeline.report.words import _LABELS, metric
from tests.report.figures import gates, metrics
from tests.report.fixture import HOSTILE, write_run

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
    assert "Merging and quantizing to Q8_0 costs: accuracy −0.8 points, no clear difference" in text
    assert "KL divergence 0.00031 from 16 bits" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"license": "Llama 3.2 Community License Agreement\n..."}, "Built with Llama"),
        ({"license": "unknown: see the base model's card"}, "read the base's card"),
        ({"duties": ["non-commercial"]}, "Math-220k default: not for commercial use."),
        ({"license": "MIT License\n\nCopyright"}, "No licence asks for more than its notice."),
        ({"license": "MIT", "overrides": ["model.base=x/Llama-3.2-1B"]}, "Built with Llama"),
        ({}, "No licence asks for more than its notice."),
    ],
)
def test_licences_that_bind_are_in_the_summary(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in answers(tmp_path / "demo", **changes)["safe"].text[-1]


def test_the_shipped_rows_have_our_licence_in_every_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    for name in ("manifest.json", "stats.json"):
        path = run.folder("data") / name
        text = path.read_text().replace("open-r1/OpenR1-Math-220k", "builtin:samples/train.jsonl")
        path.write_text(text.replace('"licence": "apache-2.0"', '"licence": null'))
    page = write_report(run)[0].read_text(encoding="utf-8")
    table = page.partition("What became of the records")[2].partition("</table>")[0]
    first, own = table.partition("<tbody>")[2].split("</tr>")[:2]
    assert "apache-2.0" in first and "not known" in own


def test_an_unregistered_model_is_registered_first(tmp_path: Path) -> None:
    run = answers(tmp_path / "demo", without=["serve"])["run"]
    assert run.commands == ["pipe register -r demo", "ollama run my-model", "pipe chat -r demo"]


def test_engines_are_in_the_order_of_the_work(tmp_path: Path) -> None:
    work = ["base", "merged", "Q8_0", "Q4_K_M", "ollama"]  # the files' order is the alphabet's
    assert list(gather(write_run(tmp_path / "demo", engines=work)).engines) == work


@pytest.mark.parametrize(
    "engines", [["base", "adapter", "Q8_0"], ["base", "Q4_K_M", "ollama"], ["base", "endpoint"]]
)
def test_the_tuned_engine_is_the_one_that_eval_compares(tmp_path: Path, engines: list[str]) -> None:
    view = gather(write_run(tmp_path / "demo", engines=engines))
    assert ("base", view.tuned) in pairs_of(engines, list(view.files))


def test_further_tasks_have_tables_of_their_own(tmp_path: Path) -> None:
    more = {"items": 1319, "engines": {"base": metrics("base", 0.5)}, "comparisons": []}
    run = write_run(tmp_path / "demo", tasks={"gsm8k": more})
    assert list(gather(run).tasks) == ["test", "gsm8k"]
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "<b>gsm8k</b>: 1,319 questions" in page and "<b>test</b>: 40 questions" in page


def test_the_recipe_on_the_page_pins_what_was_read(tmp_path: Path) -> None:
    from pipeline.report.reproduce import commands

    override = 'data.sources=[{dataset: "open-r1/OpenR1-Math-220k", config: default}]'
    view = gather(write_run(tmp_path / "demo", overrides=[override]))
    assert "revision: e4e141ec" in pinned_recipe(view)
    assert view.recipe["data"]["sources"][0]["revision"] is None
    assert commands(view)[-1] == "pipe eval -r recipe.yaml"


def test_commits_of_benchmarks_and_tasks_are_on_the_page(tmp_path: Path) -> None:
    override = "data.decontaminate=[{dataset: openai/gsm8k, config: main}]"
    asked = {"math-500": {"dataset": "HuggingFaceH4/MATH-500", "revision": "6e4ed1a2"}}
    view = gather(write_run(tmp_path / "demo", overrides=[override], asked=asked))
    view.facts("data")["decontaminate"] = [{"dataset": "openai/gsm8k", "revision": "740312ad"}]  # type: ignore[index]
    assert "revision: 740312ad" in pinned_recipe(view)
    assert ("openai/gsm8k", "commit 740312ad") in provenance(view)
    assert ("task math-500", "commit 6e4ed1a2") in provenance(view)


def test_the_gates_of_these_tests_are_real_ones() -> None:
    real = {(probe.name, probe.group) for probe in PROBES}
    assert {(gate["name"], gate["group"]) for gate in gates()} <= real


def test_every_metric_of_eval_has_a_name_here() -> None:
    assert set(KNOWN) == set(_LABELS)
    assert metric("wrong").better == "lower" and metric("reply_tokens").better == ""
    assert metric("my_own").better == "higher"
