"""What studies left is read strictly, and is stale once the run is no longer as they saw it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChangedInput
from pipeline.run import Manifest, Run
from pipeline.run.files import write_json
from pipeline.run.studies import (
    STUDIES,
    Standing,
    Study,
    recorded,
    results_path,
    study_command,
    study_doubt,
    study_results,
    study_states,
)

VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


def published(root: Path, seed: int = 1) -> Run:
    """A run whose rows and training differ with the seed."""
    run = Run(root)
    for stage in ("data", "train"):
        with run.publish(stage) as draft:  # type: ignore[arg-type]
            (draft.folder / "file").write_text(str(seed))
            draft.manifest = Manifest(stage, {}, {}, seed=seed)
    return run


def write(run: Run, study: Study, **known: Any) -> None:
    entries = run.input_entry("data") | run.input_entry("train")
    write_json(results_path(run, study), {"schema": 2, "inputs": recorded(entries)} | known)


def states(run: Run) -> dict[Study, str]:
    return {study: standing.state for study, standing in study_states(run).items()}


def test_what_is_not_there_is_no_study(tmp_path: Path) -> None:
    run = published(tmp_path)
    assert [study_results(run, study) for study in STUDIES] == [None] * 3
    assert study_states(run) == {}


def test_a_study_stands_until_the_run_is_another(tmp_path: Path) -> None:
    run = published(tmp_path)
    for study in STUDIES:
        write(run, study)
    assert states(run) == dict.fromkeys(STUDIES, "done")
    found = study_results(run, "quant") or {}
    with run.publish("train") as draft:
        draft.manifest = Manifest("train", {}, {}, seed=2)
    assert study_doubt(run, found) == "made of another training"
    with run.publish("data") as draft:
        draft.manifest = Manifest("data", {}, {}, seed=2)
    assert study_doubt(run, found) == "made of other rows"  # from where the others come
    assert states(run) == dict.fromkeys(STUDIES, "stale")
    assert study_states(run)["quant"] == Standing("stale", "made of other rows", "pipe quant")
    write(run, "quant")
    assert states(run)["quant"] == "done"


def test_the_same_work_done_anew_leaves_a_study_good(tmp_path: Path) -> None:
    run = published(tmp_path)
    write(run, "price")
    published(tmp_path)
    assert states(run) == {"price": "done"}


def test_a_stage_that_is_gone_contradicts_nothing_and_other_inputs_are_not_looked_for(
    tmp_path: Path,
) -> None:
    run = published(tmp_path)
    found = {
        "inputs": {
            name: {"sha256": "0" * 64, "bytes": 1}
            for name in ("base/model.safetensors", "eval/manifest.json", "notes/manifest.json")
        }
    }
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.json").write_text("{}")
    assert study_doubt(run, found) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 1, "vary": {"train.lora.r": [8, 16]}, "stages": ["train"]}', "has schema 1"),
        ('{"schema": 3, "inputs": {}}', "has schema 3; this pipe writes 2"),
        ('{"schema": 2}', "cannot be read"),
        ('{"schema": 2, "inputs": []}', "cannot be read"),
        ("[]", "cannot be read"),
        ("null", "cannot be read"),
        ("{", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_what_this_pipe_did_not_write_is_refused_with_the_command_that_makes_it_anew(
    tmp_path: Path, text: str, said: str
) -> None:
    run = published(tmp_path)
    for study in STUDIES:
        results_path(run, study).parent.mkdir()
        results_path(run, study).write_text(text)
        with pytest.raises(ChangedInput, match=said) as caught:
            study_results(run, study)
        assert caught.value.hint.startswith(f"Run: pipe {study}")
    assert states(run) == dict.fromkeys(STUDIES, "changed")


def test_a_comparison_of_before_is_made_again_with_what_varied_in_it(tmp_path: Path) -> None:
    run = published(tmp_path)
    old = {"schema": 1, "vary": {"train.lora.r": [8, 16]}, "stages": ["train", "eval"]}
    write_json(results_path(run, "compare"), old)
    with pytest.raises(ChangedInput) as caught:
        study_results(run, "compare")
    assert caught.value.hint == "Run: pipe compare --vary train.lora.r=8,16"


@given(JSON)
def test_whatever_a_file_holds_its_command_is_one(found: Any) -> None:
    assert study_command("compare", found).startswith("pipe compare --")
    assert study_command("quant", found) == "pipe quant"


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.lists(VALUES), min_size=1))
def test_hostile_values_stay_words_of_their_own(vary: dict[str, Any]) -> None:
    import shlex

    words = shlex.split(study_command("compare", {"vary": json.loads(json.dumps(vary))}))
    assert words[2:-2:2] == ["--vary"] * len(vary) and words[-2:] == ["--stages", "train"]
