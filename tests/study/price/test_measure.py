"""`pipe price`: which models are asked, what their figures are of, and what is not run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.base import open_base
from pipeline.chat import parse_reply
from pipeline.cli.price import price
from pipeline.engines.completion import Completion, Decoding
from pipeline.errors import MissingInput, PipeError
from pipeline.recipe import load
from pipeline.run import Manifest, Note, Progress, Run, silent
from pipeline.run.studies import study_doubt
from pipeline.study.price import measure
from pipeline.workflow import Work

PRICES = (10, 20, 30, 40)


class Rule:
    """The base says 7 dollars, the tuned model the truth and a dollar; 8 to 10 are likely next."""

    opened: list[tuple[str, int]]
    refuses: dict[int, Exception]
    """Bits -> what is raised where they are asked for."""

    def __init__(self, variant: str, tuned: object, encoder: Any, **how: Any) -> None:
        if error := self.refuses.get(how["bits"]):
            raise error
        self.opened.append((variant, how["bits"]))
        self.encoder, self.variant = encoder, variant

    def answers(
        self, conversations: Sequence[Any], decoding: Decoding, **_: Any
    ) -> Iterator[Completion]:
        for conversation in conversations:
            assert conversation[-1] == {"role": "assistant", "content": "Price is $"}
            number = int(conversation[0]["content"].split()[-1])
            text = "7 dollars" if self.variant == "base" else str(number + 1)
            yield Completion(text, parse_reply(text, self.encoder.format), 2, True)

    def score(self, sequences: Sequence[Any], keep: Path) -> list[Any]:
        table = np.full((len(sequences), 640), -50.0, np.float32)
        for row, sequence in enumerate(sequences):
            assert len(sequence.ids) == sequence.target_start + 1
            for number in (8, 9, 10):
                table[row, self.encoder.content_ids(str(number))[0]] = -1.0
        keep.write_bytes(table.tobytes())
        return []

    def memory_bytes(self) -> int:
        return 2_000_000

    def close(self) -> None:
        self.opened.append(("closed", 0))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(Rule, "opened", found, raising=False)
    monkeypatch.setattr(Rule, "refuses", {}, raising=False)
    monkeypatch.setattr("pipeline.study.price.measured.open_trained", Rule)
    return found


def row(number: int, answer: str | None = None, **more: Any) -> dict[str, Any]:
    known = {"id": f"p{number}", "source": "s", "system": None, "reasoning": None}
    known |= {"question": f"A cup of {number}", "answer": answer or str(number), "reference": None}
    return known | {"reply_start": "Price is $"} | more


def work(root: Path, rows: Sequence[dict[str, Any]] | None = None) -> Work:
    recipe = load("demo", ["name=prices"]).recipe
    run = Run(root / "runs" / "prices")
    rows = [row(number) for number in PRICES] if rows is None else rows
    with run.publish("data") as draft:
        for name, found in (("test", rows), ("train", [row(5), row(25), row(50)])):
            lines = "".join(json.dumps(each) + "\n" for each in found)
            (draft.folder / f"{name}.jsonl").write_text(lines)
        base = open_base(recipe.model)
        section = {"model": recipe.model.model_dump(mode="json")}
        facts = {"base": {"name": base.name, "revision": None}}
        draft.manifest = Manifest(stage="data", section=section, inputs={}, facts=facts)
    with run.publish("train") as draft:
        (draft.folder / "adapter").mkdir()
        draft.manifest = Manifest(
            stage="train", section={}, inputs=run.input_entry("data"), facts={"method": "qlora"}
        )
    return Work(recipe, run, silent)


def test_the_base_in_each_precision_and_the_tuned_model_are_asked(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    found = measure(work(tmp_path), top=3)
    assert opened == [
        ("base", 16), ("closed", 0), ("base", 8), ("closed", 0), ("base", 4), ("closed", 0),
        ("adapter", 4), ("closed", 0),
    ]  # fmt: skip
    rows = {each["label"]: each for each in found["rows"]}
    assert rows["base, 16-bit"]["said"]["mae"]["value"] == 18
    assert rows["tuned (qlora)"]["said"]["mae"]["value"] == 1
    assert all(row["weighted"]["mae"]["value"] == 16 for row in rows.values())
    assert all(row["status"] == "measured" and row["reason"] is None for row in rows.values())
    kept = json.loads((tmp_path / "runs" / "prices" / "price" / "results.json").read_text())
    assert kept == found and (kept["items"], kept["top"]) == (4, 3)


def test_a_precision_that_is_refused_is_a_row_with_the_tool_s_words(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    Rule.refuses[8] = ImportError("no 8-bit kernels\nfor this machine")
    known, events = work(tmp_path), []
    found = measure(Work(known.recipe, known.run, events.append), top=3)
    rows = {each["label"]: each for each in found["rows"]}
    refused = rows["base, 8-bit"]
    assert refused["reason"] == "ImportError: no 8-bit kernels"
    assert refused["status"] == "not_run" and refused["said"] is refused["memory_bytes"] is None
    assert [each["status"] for each in rows.values()].count("measured") == 3
    warned = [each.text for each in events if isinstance(each, Note) and each.warning]
    assert warned == ["base, 8-bit is not run: ImportError: no 8-bit kernels"]


def test_without_16_bits_nothing_is_measured_and_a_bug_is_no_refusal(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    known = work(tmp_path)
    Rule.refuses[8] = KeyError("a bug")
    with pytest.raises(KeyError):
        measure(known, top=3)
    Rule.refuses[16] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(known, top=3)
    assert not (known.run.root / "price").exists()


def test_what_it_was_made_of_is_recorded(tmp_path: Path, opened: list[tuple[str, int]]) -> None:
    known = work(tmp_path)
    found = measure(known, top=3)
    assert found["schema"] == 2 and study_doubt(known.run, found) == ""
    assert any(name.startswith("base/") for name in found["inputs"])
    manifest = known.run.folder("train") / "manifest.json"
    manifest.write_text(manifest.read_text().replace("qlora", "lora"))
    assert study_doubt(known.run, found) == "made of another training"


def test_the_constant_guess_is_the_training_median(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    constant = measure(work(tmp_path), top=3)["constant"]
    assert constant["value"] == 25
    assert constant["said"]["mae"]["value"] == 10
    assert constant["said"]["r2"]["value"] == 0


def test_prices_of_several_tokens_have_no_weighted_price(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    found = measure(work(tmp_path, [row(20), row(1234), row(30)]), top=3)
    assert all(each["weighted"] is None for each in found["rows"])
    reasons = {each["weighted_reason"] for each in found["rows"] if each["said"]}
    assert reasons == {"Of 3 prices 1 are more than one token here: the next token is no price."}


def test_a_price_of_nothing_is_a_price(tmp_path: Path, opened: list[tuple[str, int]]) -> None:
    assert measure(work(tmp_path, [row(0, "0"), row(9)]), top=1)["items"] == 2


@pytest.mark.parametrize("rows", [[row(1, "cheap")], [row(1, reply_start=None)]])
def test_rows_that_are_no_prices_are_refused_before_a_model_is_opened(
    tmp_path: Path, opened: list[tuple[str, int]], rows: list[dict[str, Any]]
) -> None:
    with pytest.raises(PipeError, match="are no prices") as caught:
        measure(work(tmp_path, rows), top=3)
    assert "llama3.1-8b-price" in str(caught.value.hint)
    assert opened == []


def test_a_run_that_is_not_trained_says_so(tmp_path: Path) -> None:
    known = work(tmp_path)
    (known.run.folder("train") / "manifest.json").unlink()
    with pytest.raises(MissingInput):
        measure(known, top=3)


def test_at_most_so_many_products_are_asked_and_progress_is_shown(
    tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    known, events = work(tmp_path), []
    found = measure(Work(known.recipe, known.run, events.append), top=3, limit=2)
    assert found["items"] == 2
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.task, last.done, last.total) == ("price tuned (qlora)", 2, 2)


def test_the_command_shows_a_line_for_each_model_and_why_one_has_none(
    tmp_path: Path, opened: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work(tmp_path)
    Rule.refuses[8] = ImportError("LLM.int8() is not here")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(price, ["-r", "demo", "--run", "prices", "--top", "3"])
    assert done.exit_code == 0, done.output
    refused = "base, 8-bit: ImportError: LLM.int8()"
    for words in ("always $25", "base, 16-bit", "tuned (qlora)", "MAE", refused):
        assert words in done.stdout
    done = CliRunner().invoke(price, ["-r", "demo", "--run", "prices", "--json", "--limit", "1"])
    assert json.loads(done.stdout)["items"] == 1
