"""What log.md says of a run, of a comparison and of a quantization study."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.errors import MissingInput
from pipeline.report.log import log_text, write_log
from pipeline.report.log.sections import changed
from pipeline.report.log.write import code, fenced, plain
from pipeline.run import Run, Stage
from pipeline.run.files import write_json
from tests.report.fixture import HOSTILE, gates, metrics, value, write_run

STAGES = ("data", "train", "export", "serve", "check", "eval")
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")

VARIANTS: list[dict[str, Any]] = [
    {
        "label": "r8",
        "settings": {"train.lora.r": 8},
        "run": "runs/r8",
        "status": "done",
        "reason": None,
        "method": "qlora",
        "trainable_parameters": 98304,
        "total_parameters": 2033408,
        "memory_bytes": 1_000_000_000,
        "memory_saving": 0.0,
        "seconds": 50.0,
        "speed_up": 1.0,
        "tokens_per_second": 5000.0,
        "train_loss": 0.09,
        "eval_loss": 0.08,
        "general_loss_before": 0.0576,
        "general_loss_after": 1.5,
        "metric": "exact_match",
        "before": value(0.05),
        "after": value(0.70),
        "steps": 180,
    },
    {
        "label": "r32",
        "settings": {"train.lora.r": 32},
        "status": "done",
        "memory_bytes": 1_250_000_000,
        "memory_saving": -0.25,
        "seconds": 100.0,
        "speed_up": 0.5,
        "after": value(0.84),
        "before": value(0.05),
        "train_loss": 0.03,
    },
    {
        "label": "8bit",
        "settings": {"train.method": "lora-8bit"},
        "status": "refused",
        "reason": "method lora-8bit needs a GPU | see `pipe doctor`",
    },
]
COMPARED = {
    "schema": 2,
    "inputs": {},
    "recipe": "demo",
    "vary": {"train.lora.r": [8, 32]},
    "rule": "The highest accuracy; of equals, the fewest parameters.",
    "best": "r32",
    "reference": "r8",
    "device": "cpu",
    "variants": VARIANTS,
}
PRECISIONS = {
    "schema": 2,
    "inputs": {},
    "model": "tuned",
    "task": "test",
    "rows": [
        {
            "method": "nf4",
            "label": "NF4",
            "family": "4-bit",
            "status": "measured",
            "reason": None,
            "weights_bytes": 1_100_000,
            "bits_per_weight": 4.13,
            "memory_bytes": 7_700_000,
            "tokens_per_second": 900.0,
            "perplexity": 1.05,
            "kl": {"mean": 0.0123, "p99": 0.2, "same_top": 0.97},
            "score": {"metric": "exact_match", "value": 0.8, "low": 0.75, "high": 0.85},
        },
        {"method": "gptq", "label": "GPTQ", "status": "not_run", "reason": "No module named x"},
    ],
    "rule": "The fewest bytes that keep the score.",
    "says": "NF4 is the best choice.",
    "memory": {"transformers": "what torch has allocated"},
    "layers": {"nf4": {"blk.0.attn_q": 0.08, "blk.1.ffn_up": 0.093}},
}


def text_of(run: Run) -> str:
    return log_text(run)[0]


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of every table as a Markdown parser sees it."""
    found: dict[str, list[str]] = {}
    cells: list[str] = []
    inside = False
    for token in MARKDOWN.parse(text):
        if token.type == "tr_open":
            cells = []
        elif token.type in ("td_open", "th_open"):
            inside = True
        elif token.type == "inline" and inside:
            cells.append("".join(part.content for part in token.children or ()))
            inside = False
        elif token.type == "tr_close" and cells:
            found[cells[0]] = cells[1:]
    return found


def test_a_whole_run_has_every_section_and_nothing_left_to_fill_in(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    path, gaps = write_log(run)
    text = path.read_text(encoding="utf-8")
    assert path == run.root / "log.md" and gaps == []
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "Set-up", "Hyperparameters", "Memory", "Quantization", "Data", "Before and after",
        "Losses", "Readiness", "What is missing", "How to do it again",
    ]  # fmt: skip
    assert text.startswith("# demo: experiment log\n")
    assert "**Did it get better?** Yes: 4.8% → 84.0%." in text
    assert "Nothing: every stage is done" in section(text, "What is missing")


@pytest.mark.parametrize("last", STAGES)
def test_a_log_stands_from_the_first_stage_on_and_names_what_fills_it(
    tmp_path: Path, last: str
) -> None:
    missing = STAGES[STAGES.index(last) + 1 :]
    text, gaps = log_text(write_run(tmp_path / "demo", without=missing))
    assert len(gaps) == len(missing)
    told = section(text, "What is missing")
    assert all(f"- {plain(gap.text)} `{gap.command}`" in told for gap in gaps)
    assert all(gap.command.endswith("-r runs/demo/recipe.yaml") for gap in gaps)


def test_a_run_without_any_stage_has_no_log(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="No stage"):
        write_log(write_run(tmp_path / "demo", without=STAGES))
    assert not (tmp_path / "demo" / "log.md").exists()


def test_the_same_run_gives_the_same_bytes_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "demo")
    first = write_log(run)[0].read_bytes()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert write_log(run)[0].read_bytes() == first


def test_the_date_is_that_of_the_stages(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", without=("serve", "check", "eval"))
    made = {"data": "2026-11-23T23:00:00+00:00", "train": "2026-11-24T01:30:00+02:00"}
    for stage, told in made.items():
        write_json(run.root / stage / "timing.json", {"seconds": 1.0, "finished": told})
    write_json(run.root / "export" / "timing.json", {"seconds": 1.0})
    os.utime(run.folder("export") / "manifest.json", (0, 1795478400))
    files = ", by the dates of their files"
    assert f"The stages finished 2026-11-23 23:00 to 2026-11-24 00:00 UTC{files}." in text_of(run)
    write_json(run.root / "export" / "timing.json", {"finished": "2026-11-23T23:30:00Z"})
    assert "The stages finished 2026-11-23 23:00 to 23:30 UTC." in text_of(run)
    for broken in ('{"finished": 3}', '{"finished": "soon"}', "{", "[]"):
        (run.root / "export" / "timing.json").write_text(broken, encoding="utf-8")
        assert f"2026-11-24 00:00 UTC{files}." in text_of(run)


def test_figures_before_and_after_stand_with_intervals_points_and_percent(tmp_path: Path) -> None:
    found = rows(section(text_of(write_run(tmp_path / "demo")), "Before and after"))
    before, after, change, relative, chance = found["Accuracy"]
    assert (before, after) == ("4.8% (0.3% to 9.3%)", "84.0% (79.5% to 88.5%)")
    assert change == "+79.2 points (+74.2 to +84.2 points)"
    assert (relative, chance) == ("+1,650%", "p < 0.001, hardly chance")
    # nothing was well formed before: no percent of nothing
    assert found["Well formed"][3] == "–"
    assert found["Perplexity"][2:4] == ["−445", "−99.8%"]


def test_a_base_that_was_not_measured_leaves_nothing_to_compare(tmp_path: Path) -> None:
    text = text_of(write_run(tmp_path / "demo", engines=["adapter", "Q8_0"]))
    assert "No metric was measured on both." in section(text, "Before and after")


def test_every_task_is_told(tmp_path: Path) -> None:
    more = {"items": 1319, "engines": {e: metrics(e, 0.5) for e in ("base", "adapter")}}
    told = section(text_of(write_run(tmp_path / "demo", tasks={"gsm8k": more})), "Before and after")
    assert re.findall("^### (.*)$", told, re.MULTILINE) == [
        "test: 40 questions", "gsm8k: 1,319 questions",
    ]  # fmt: skip


def test_losses_stand_by_tenths_and_the_line_falls(tmp_path: Path) -> None:
    losses = [8.0 / 2**step for step in range(20)]
    told = section(text_of(write_run(tmp_path / "demo", losses=losses)), "Losses")
    assert "logarithm: █▇▆▆▅▄▃▃▂▁" in told
    found = rows(told)
    assert found["training"] == ["8", number_of(losses[-1])]
    assert found["validation: rows that only steer"] == ["–", "0.0311"]
    assert found["general rows, which the base could do before"] == ["2.1", "2.15"]
    assert found["1 to 10"] == ["6", "–"] and found["180 to 190"][1] == "0.0311"


def number_of(figure: float) -> str:
    from pipeline.report.words import number

    return number(figure)


@pytest.mark.parametrize("losses", [[3.0], [0.0, 0.0], [2.0, float("nan")], [1.0] * 7])
def test_few_and_odd_losses_are_told_too(tmp_path: Path, losses: list[float]) -> None:
    found = rows(section(text_of(write_run(tmp_path / "demo", losses=losses)), "Losses"))
    assert len([name for name in found if name[0].isdigit()]) == min(10, len(losses))
    assert (found["training"][1] == "not a number") == (losses[-1] != losses[-1])


def test_the_quality_score_is_what_its_formula_says(tmp_path: Path) -> None:
    rejects = {"too_long": 100, "refuted": 30, "near_duplicate": 20, "contaminated": 5}
    rejects |= {"duplicate_row": 10, "no_reasoning": 35}
    found = rows(section(text_of(write_run(tmp_path / "demo", rejects=rejects)), "Data"))
    assert found["records read"][0] == "2,600"
    assert found["too long for the context"] == ["100", "3.8%"]
    assert found["repeats"] == ["30", "1.2%"]
    assert found["asks what a test or benchmark asks"] == ["5", "0.2%"]
    assert found["dropped for another reason"] == ["35", "1.3%"]
    assert found["quality score"] == ["2,400", "96.0%"]  # 2,400 of 2,500 that fit


def test_rows_are_counted_by_how_they_are_learned(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    made = [
        {"reasoning": "x", "thinking": True, "reference": "1"},
        {"reasoning": "x", "thinking": False, "reference": None},
        {"reasoning": None, "thinking": False, "reference": "3"},
        {"reasoning": "x", "thinking": True, "reference": "4"},
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in made)
    (run.folder("data") / "train.jsonl").write_text(lines, encoding="utf-8")
    found = rows(section(text_of(run), "Data"))
    assert found["... with reasoning"] == ["2", "50.0%"]
    assert found["... answered directly"] == ["2", "50.0%"]
    known = "training rows with a known answer, which theirs does not contradict"
    assert found[known] == ["3", "75.0%"]


def test_what_ran_otherwise_than_asked_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", general={"batch_size": 4, "optimizer": "adamw_torch"})
    found = rows(section(text_of(run), "Hyperparameters"))
    assert found["train.batch_size"] == ["16", "4"]
    assert found["train.optimizer"] == ["adamw_torch", ""]
    assert found["train.lora.r"] == ["32", ""]
    assert "train.save_every" not in found


def test_a_full_training_has_no_rank(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", overrides=["train.method=full"])
    found = rows(section(text_of(run), "Hyperparameters"))
    assert found["train.method"] == ["full", ""]
    assert not [name for name in found if "lora" in name]


def test_gates_are_a_list_to_tick_off(tmp_path: Path) -> None:
    told = section(text_of(write_run(tmp_path / "demo")), "Readiness")
    assert "- [x] merge: 21 tensors\n" in told
    assert (
        "- [ ] context length (failed): a prompt of 1,000 tokens: Ollama evaluated 512 of them "
        "`pipe register --set serve.num_ctx=1024`\n" in told
    )
    assert "- [ ] served file (not run): no server answers `Start it: ollama serve`\n" in told
    assert told.count("- [x]") == 4 and told.count("- [ ]") == 2


def test_gates_and_scores_of_earlier_work_are_in_doubt(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    (run.folder("train") / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    text, gaps = log_text(run)
    assert "**Measured before files were changed.**" in section(text, "Before and after")
    assert gaps and plain(gaps[0].text) in section(text, "What is missing")


def test_without_studies_the_commands_that_make_them_are_named(tmp_path: Path) -> None:
    text = text_of(write_run(tmp_path / "demo"))
    options = "-r runs/demo/recipe.yaml"
    assert f"`pipe compare --vary train.lora.r=8,16,32 {options}`" in section(
        text, "Hyperparameters"
    )
    assert f"`pipe quant {options}`" in section(text, "Quantization")
    found = rows(section(text, "Quantization"))
    assert found["Q4_K_M"][1:5] == ["0.021", "96.0%", "79.6% (75.1% to 84.1%)", "−4.4 points"]


def test_a_comparison_is_told_with_its_best_and_what_was_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    write_json(run.root / "compare" / "results.json", COMPARED)
    text = text_of(run)
    told = section(text, "Hyperparameters")
    assert "**Optimal configuration: train.lora.r=32: 84.0% (80.0% to 88.0%) right" in told
    assert "The highest accuracy; of equals, the fewest parameters.**" in told
    assert "- 8bit: refused: method lora-8bit needs a GPU \\| see \\`pipe doctor\\`\n" in told
    assert rows(told)["r8"] == [
        "train.lora.r=8", "98,304 (4.8%)", "0.09", "0.08", "0.0576 → 1.5",
        "5.0% (1.0% to 9.0%)", "70.0% (66.0% to 74.0%)", "+65.0 points, +1,300%",
    ]  # fmt: skip
    memory = rows(section(text, "Memory"))
    assert memory["r8"] == ["1.00", "0.0%", "50 s", "1.00×", "5,000"]
    assert memory["r32"] == ["1.25", "−25.0%", "2 min", "0.50×", "–"]
    assert memory["resident"] == ["1.24 GB"]
    assert "pipe compare" not in text


def test_a_comparison_by_an_error_is_told_with_its_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    off = {"value": 4.0, "low": 3.5, "high": 4.5}
    variants = [
        each | {"metric": "mae", "before": {"value": 48.0, "low": 45.0, "high": 51.0}, "after": off}
        for each in VARIANTS[:2]
    ]
    write_json(run.root / "compare" / "results.json", COMPARED | {"variants": variants})
    told = section(text_of(run), "Hyperparameters")
    assert "| MAE before | after |" in told and "train.lora.r=32: MAE 4 (3.5 to 4.5)," in told
    assert rows(told)["r8"][5:] == ["48 (45 to 51)", "4 (3.5 to 4.5)", "−44, −91.7%"]


def test_a_comparison_of_which_nothing_was_done_names_no_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    failed: list[dict[str, Any]] = [
        {"label": "r8", "status": "failed", "reason": None, "settings": {}}
    ]
    write_json(run.root / "compare" / "results.json", COMPARED | {"best": None, "variants": failed})
    told = section(text_of(run), "Hyperparameters")
    assert "**No variant is named best. The highest" in told and "- r8: failed\n" in told


def test_a_quantization_study_is_told_with_what_could_not_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    write_json(run.root / "quant" / "results.json", PRECISIONS)
    told = section(text_of(run), "Quantization")
    assert rows(told)["NF4"] == [
        "4-bit", "4.13", "1.1 MB", "7.7 MB", "900", "1.05", "0.0123", "97.0%",
        "80.0% (75.0% to 85.0%)", "blk.1.ffn_up 9.3%",
    ]  # fmt: skip
    assert "- GPTQ: not run: No module named x\n" in told
    assert (
        "Of the tuned model, on the task test. NF4 is the best choice. The fewest bytes that keep "
        "the score. Memory in transformers: what torch has allocated." in told
    )
    assert "pipe quant" not in told and "Q4_K_M" in rows(told)


@pytest.mark.parametrize("study", ["compare", "quant"])
def test_a_study_that_cannot_be_read_is_said_and_not_told(tmp_path: Path, study: str) -> None:
    run = write_run(tmp_path / "demo")
    (run.root / study).mkdir()
    for content in ("{", "[]", '{"schema": 2}', '{"schema": 2, "inputs": []}', ""):
        (run.root / study / "results.json").write_text(content, encoding="utf-8")
        text, (gap,) = log_text(run)
        assert f"{study}/results.json cannot be read" in gap.text
        assert gap.command.startswith(f"pipe {study}") and "--force" not in gap.command
        assert gap.command in section(text, "What is missing")


def test_a_study_of_an_earlier_pipe_is_made_again_of_what_was_trained_then(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    old = COMPARED | {"schema": 1, "stages": ["train", "eval"]}
    write_json(run.root / "compare" / "results.json", old)
    text, (gap,) = log_text(run)
    assert gap.text.endswith("compare/results.json has schema 1; this pipe writes 2.")
    again = "pipe compare --vary train.lora.r=8,32 -r runs/demo/recipe.yaml"
    assert gap.command == again and f"`{again}`" in section(text, "Hyperparameters")
    assert "r32" not in rows(text)


@pytest.mark.parametrize(
    ("study", "found", "title"),
    [("compare", COMPARED, "Hyperparameters"), ("quant", PRECISIONS, "Quantization")],
)
def test_a_study_of_another_training_is_told_as_stale(
    tmp_path: Path, study: str, found: dict[str, Any], title: str
) -> None:
    run = write_run(tmp_path / "demo")
    stages: tuple[Stage, ...] = ("data", "train")
    inputs = {name: vars(e) for stage in stages for name, e in run.input_entry(stage).items()}
    path = run.root / study / "results.json"
    write_json(path, found | {"inputs": inputs})
    text, gaps = log_text(run)
    assert gaps == [] and "Stale" not in text and "is stale" not in text
    inputs["train/manifest.json"] |= {"sha256": "0" * 64}
    write_json(path, found | {"inputs": inputs})
    text, (gap,) = log_text(run)
    said = f"{study}/ is stale: made of another training."
    assert gap.text == said and gap.command.startswith(f"pipe {study}")
    assert said in section(text, title) and said in section(text, "What is missing")


def test_hostile_text_is_text(tmp_path: Path) -> None:
    written = HOSTILE.replace("\ud800", "") + "`` | a | [x](javascript:1) \n\n# me\n- [x] safe"
    bad = [dict.fromkeys(gate, written) | {"status": "failed"} for gate in gates()]
    variant = {"label": written, "status": "failed", "reason": written, "settings": {}}
    run = write_run(
        tmp_path / "demo", rejects={written: 3}, gates=bad, duties=[written], license=written,
        overrides=[f"description={json.dumps(written)}"],
    )  # fmt: skip
    write_json(run.root / "compare" / "results.json", COMPARED | {"variants": [variant]})
    row = PRECISIONS["rows"][0] | {"label": written}  # type: ignore[index]
    write_json(run.root / "quant" / "results.json", PRECISIONS | {"rows": [row]})
    text = text_of(run)
    assert not any(mark in text for mark in ("\x1b", "\x00", "\u202e"))
    page = MARKDOWN.render(text)
    assert not re.search(
        "<(?!/?(?:h[1-3]|p|table|thead|tbody|tr|th|td|ul|li|pre|code|em|strong)\\b)", page
    )
    assert "javascript:" in page and 'href="' not in page
    assert page.count("<h1>") == 1 and "- [x] safe" not in re.findall("^.*$", text, re.MULTILINE)
    for table in page.split("<table>")[1:]:
        counts = [row.count("<td>") + row.count("<th>") for row in table.split("<tr>")[1:]]
        assert len(set(counts)) == 1


def test_no_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-form")
    said = "401 for hf_abcdefghijkl at https://me:pw@host/x?sig=1, a-token-of-another-form"
    bad = [dict(gate, reason=said, status="failed") for gate in gates()]
    text = text_of(write_run(tmp_path / "demo", gates=bad, overrides=[f"description={said}"]))
    for secret in ("hf_abcdefghijkl", "pw@", "sig=1", "a-token-of-another-form"):
        assert secret not in text


TEXTS = st.text(st.sampled_from("ab1 \t\n\\`*_|[]()~$<>&;#!+-=.:/w") | st.characters(), max_size=30)


@given(TEXTS)
def test_any_text_reads_in_markdown_as_it_was_written(text: str) -> None:
    """No character of it is lost, and none begins a mark-up: as a paragraph and as a cell."""
    shown = str(plain(text))
    if not shown:
        return
    tokens = MARKDOWN.parse(shown)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert all(part.type in ("text", "text_special") for part in tokens[1].children or ())
    said = "".join(part.content for part in tokens[1].children or ())
    assert said == " ".join(visible_of(text).split())
    cell = MARKDOWN.parse(f"| x | {shown} |\n| --- | --- |\n")
    assert len([token for token in cell if token.type == "th_open"]) == 2


def visible_of(text: str) -> str:
    from pipeline.report.safe import visible
    from pipeline.run.secrets import harmless

    return str(visible(harmless(text)))


@given(TEXTS)
def test_nothing_ends_a_code_span_or_a_block_of_code_too_early(text: str) -> None:
    tokens = MARKDOWN.parse(str(fenced(text, "sh")))
    assert [token.type for token in tokens] == ["fence"]
    if span := str(code(text)):
        (inline,) = (token for token in MARKDOWN.parse(f"x {span}") if token.type == "inline")
        kinds = [part.type for part in inline.children or ()]
        assert kinds == ["text", "code_inline"]


def test_a_change_of_nothing_has_no_percent() -> None:
    assert changed("exact_match", 0.0, 0.5) == ("+50.0 points", "–")
    assert changed("cross_entropy", 2.0, 1.0) == ("−1", "−50%")
    assert changed("exact_match", None, 0.5) == ("–", "–")
