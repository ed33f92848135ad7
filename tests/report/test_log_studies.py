"""What log.md says of a comparison and of a quantization study, or of neither."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.log import log_text
from pipeline.run import Stage
from pipeline.run.files import write_json
from tests.report.fixture import write_run
from tests.report.logged import rows, section, text_of
from tests.report.studied import COMPARED, PRECISIONS, VARIANTS


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
