"""What log.md says of a run: its sections, dates, settings, gates, and what is missing."""

import os
import re
from pathlib import Path

import pytest

from pipeline.errors import MissingInput
from pipeline.report.log import log_text, write_log
from pipeline.report.log.write import plain
from pipeline.run.files import write_json
from tests.report.fixture import write_run
from tests.report.logged import rows, section, text_of

STAGES = ("data", "train", "export", "serve", "check", "eval")


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
    assert all(f"- {plain(gap.text)} Run: `{gap.command}`" in told for gap in gaps)
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
