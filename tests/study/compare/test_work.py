"""Done once, gone on with, and the same table however often it was stopped."""

import csv
import json
from pathlib import Path

import pytest

from pipeline.errors import PipeError, RunLocked
from pipeline.run.lock import locked
from pipeline.run.studies import study_doubt
from pipeline.study.compare import expected_seconds, last
from tests.study.compare.support import GB, Bench, Figures, bench

RANKS = "lora.r=8,16"
FILES = ("results.json", "compare.csv", "compare.html")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    lean = Figures(right=82, memory=GB, seconds=50)
    return bench(tmp_path / "runs" / "demo", monkeypatch, r_16=lean)


def bytes_of(made: Bench) -> list[bytes]:
    return [(made.root / "compare" / name).read_bytes() for name in FILES]


def test_every_variant_is_a_row_with_its_figures(made: Bench) -> None:
    found = made.compare(RANKS)
    assert found["schema"] == 2 and found["recipe"] == "demo"
    assert found["vary"] == {"train.lora.r": [8, 16]} and found["device"] == "cpu"
    assert found["reference"] == "r=8" and found["best"] == "r=16"
    first, second = found["variants"]
    assert second["run"] == "runs/r=16" and second["settings"] == {"train.lora.r": 16}
    assert second["status"] == "done" and second["reason"] is None and second["steps"] == 4
    # the seconds of all steps, not those of the last process
    assert (second["memory_bytes"], second["seconds"]) == (GB, 50.0)
    assert second["tokens_per_second"] == 50.0
    assert (second["memory_saving"], second["speed_up"]) == (0.5, 2.0)
    assert (first["memory_saving"], first["speed_up"]) == (0.0, 1.0)
    assert second["before"]["value"] == 0.05 and second["after"]["value"] == 0.82
    assert second["train_loss"] == 0.25 and second["eval_loss"] == 0.5
    assert (second["general_loss_before"], second["general_loss_after"]) == (2.0, 2.1)
    assert json.loads((made.root / "compare" / "results.json").read_text()) == found
    assert last(made.plan(RANKS).work.run) == found


def test_what_it_was_made_of_is_recorded_and_another_makes_it_stale(made: Bench) -> None:
    made.prepare(made.plan(RANKS).work)
    found, run = made.compare(RANKS), made.plan(RANKS).work.run
    inside = [f"compare/runs/{label}" for label in ("r=16", "r=8")]
    assert list(found["inputs"]) == [
        *(f"{at}/{stage}/manifest.json" for at in inside for stage in ("data", "eval", "train")),
        "data/manifest.json",
    ]
    assert study_doubt(run, found) == ""
    # one that was stopped after a training leaves the table of before
    made.stops = "train r=16"
    with pytest.raises(KeyboardInterrupt):
        made.compare(RANKS, overrides=["train.max_steps=5"])
    assert study_doubt(run, found) == "made of another training"
    made.stops = ""
    assert study_doubt(run, made.compare(RANKS, overrides=["train.max_steps=5"])) == ""


def test_other_rows_in_the_run_make_it_stale_and_rows_that_are_gone_do_not(made: Bench) -> None:
    made.prepare(made.plan(RANKS).work)
    found, work = made.compare(RANKS), made.plan(RANKS).work
    (made.root / "data" / "manifest.json").rename(made.root / "manifest.away")
    assert study_doubt(work.run, found) == ""
    made.prepare(made.plan(RANKS, overrides=["data.no_thinking_share=0.3"]).work)
    assert study_doubt(work.run, found) == "made of other rows"


def test_rows_that_no_variant_shares_are_none_of_its_inputs(made: Bench) -> None:
    made.prepare(made.plan(RANKS, overrides=["data.no_thinking_share=0.3"]).work)
    assert "data/manifest.json" not in made.compare(RANKS)["inputs"]


def test_the_csv_has_a_column_for_each_key_that_varies(made: Bench) -> None:
    made.compare(RANKS, "method=qlora,lora-8bit")
    with (made.root / "compare" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["train.lora.r"], row["train.method"], row["status"]) for row in rows] == [
        ("8", "qlora", "done"),
        ("8", "lora-8bit", "refused"),
        ("16", "qlora", "done"),
        ("16", "lora-8bit", "refused"),
    ]
    assert (rows[2]["memory_gb"], rows[2]["trainable_percent"]) == ("2.0", "40.0")
    assert (rows[0]["metric"], rows[0]["after_value"]) == ("exact_match", "0.8")
    assert rows[1]["after_value"] == ""
    assert "needs a GPU" in rows[1]["reason"]


def test_rows_are_prepared_once_and_shared_as_the_same_files(made: Bench) -> None:
    made.compare(RANKS)
    assert made.done == ["prepare r=8", "train r=8", "train r=16", "eval r=8", "eval r=16"]
    first, second = (made.rows("r=8"), made.rows("r=16"))
    assert first.samefile(second)


def test_rows_that_the_run_has_prepared_are_taken_from_it(made: Bench) -> None:
    made.prepare(made.plan(RANKS).work)
    made.compare(RANKS)
    assert not [done for done in made.done if "prepare" in done]
    assert made.rows("r=16").samefile(made.root / "data" / "test.jsonl")


def test_damaged_rows_are_not_shared(made: Bench) -> None:
    made.prepare(made.plan(RANKS).work)
    (made.root / "data" / "test.jsonl").write_text("{}")
    made.compare(RANKS)
    assert made.done[0] == "prepare r=8"
    assert (made.root / "data" / "test.jsonl").read_text() == "{}"


def test_variants_with_rows_of_their_own_prepare_them_and_share_among_themselves(
    made: Bench,
) -> None:
    made.compare("no_thinking_share=0,0.2", RANKS)
    prepared = [done for done in made.done if "prepare" in done]
    assert prepared == [
        "prepare no_thinking_share=0.0,r=8",
        "prepare no_thinking_share=0.2,r=8",
    ]


def test_rows_of_other_words_are_not_shared_and_the_run_s_own_stay(made: Bench) -> None:
    made.prepare(made.plan(RANKS).work)
    kept = (made.root / "data" / "manifest.json").read_bytes()
    made.compare(RANKS)
    made.compare(RANKS, overrides=["data.no_thinking_share=0.3"])
    assert made.done[0] == "prepare r=8" and "prepare r=16" not in made.done
    section = json.loads(made.rows("r=16").with_name("manifest.json").read_text())["section"]
    assert section["data"]["no_thinking_share"] == 0.3
    assert (made.root / "data" / "manifest.json").read_bytes() == kept


def test_what_is_done_is_not_done_again_but_by_force(made: Bench) -> None:
    made.compare(RANKS)
    whole = bytes_of(made)
    made.compare(RANKS)
    assert made.done == [] and bytes_of(made) == whole
    made.compare(RANKS, force=True)
    assert made.done == ["train r=8", "train r=16", "eval r=8", "eval r=16"]
    assert bytes_of(made) == whole


@pytest.mark.parametrize("where", ["prepare r=8", "train r=8", "train r=16", "eval r=16"])
def test_stopped_anywhere_and_gone_on_with_it_leaves_the_same_table(
    made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    made.compare(RANKS)
    whole, wanted = bytes_of(made), list(made.done)
    other = bench(tmp_path / "other" / "demo", monkeypatch)
    other.figures, other.stops = made.figures, where
    with pytest.raises(KeyboardInterrupt):
        other.compare(RANKS)
    before = list(other.done)
    assert not (other.root / "compare" / "results.json").exists()
    other.stops = ""
    other.compare(RANKS)
    assert before + other.done == wanted and bytes_of(other) == whole


def test_one_that_fails_is_a_row_and_the_others_go_on(made: Bench) -> None:
    made.fails["train r=8"] = PipeError("Memory ran out.", "Less: pipe train --force")
    found = made.compare(RANKS)
    first, second = found["variants"]
    assert first["status"] == "failed" and first["after"] is None
    assert first["reason"] == "Memory ran out. Less: pipe compare --force"
    assert second["status"] == "done" and found["reference"] == found["best"] == "r=16"
    assert "r=8 failed: Memory ran out. Less: pipe compare --force" in made.notes
    made.fails.clear()
    found = made.compare(RANKS)
    assert [row["status"] for row in found["variants"]] == ["done", "done"]
    assert made.done == ["train r=8", "eval r=8"]  # it alone is tried again


def test_one_that_fails_when_asked_keeps_what_its_training_measured(made: Bench) -> None:
    made.fails["eval r=8"] = PipeError("No question.")
    first = made.compare(RANKS)["variants"][0]
    assert (first["status"], first["after"], first["train_loss"]) == ("failed", None, 0.25)


def test_a_refused_one_is_announced_and_no_work_is_done_for_it(made: Bench) -> None:
    found = made.compare("method=lora-8bit,qlora")
    assert found["reference"] == "method=qlora"
    assert made.notes[0] == "2 variants: method=lora-8bit, method=qlora"
    assert made.notes[1].startswith("method=lora-8bit is refused: method lora-8bit needs a GPU")
    assert not (made.root / "compare" / "runs" / "method=lora-8bit").exists()


def test_a_gpu_s_recipe_without_one_is_refused_for_every_variant(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.train.stage.has_gpu", lambda: False)
    with pytest.raises(PipeError, match=r"No variant could be done\. r=8 refused: The recipe demo"):
        made.compare(RANKS, overrides=["train.device=cuda"])
    assert made.done == []
    assert [row["status"] for row in last(made.plan(RANKS).work.run)["variants"]] == ["refused"] * 2


def test_files_that_were_exported_are_asked_too(made: Bench) -> None:
    found = made.compare(RANKS, export=True, overrides=["export.quantize=[Q8_0]"])
    assert found["stages"] == ["train", "eval", "export"]
    assert made.done[1:5] == ["train r=8", "export r=8", "train r=16", "export r=16"]
    value = {"value": 0.79, "low": 0.75, "high": 0.79}
    assert found["variants"][0]["files"] == {"Q8_0": value | {"bytes": 4}}
    assert made.engines == ["base", "adapter", "Q8_0"]


def test_two_at_once_in_one_run_are_refused(made: Bench) -> None:
    with locked(made.root / "compare"), pytest.raises(RunLocked):
        made.compare(RANKS)


def test_the_time_left_is_that_of_those_that_were_timed(made: Bench) -> None:
    assert expected_seconds(made.plan(RANKS)) is None
    made.compare("lora.r=8,32", stages=("train",))
    timed = made.plan("lora.r=8,16,64", stages=("train",))
    assert expected_seconds(timed) == 2 * 105.0
    other = made.plan(RANKS, stages=("train",), overrides=["train.max_steps=5"])
    assert expected_seconds(other) is None  # those were timed at another training
