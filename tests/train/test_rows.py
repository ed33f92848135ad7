"""Encoded rows as the trainer takes them: ids, labels, and packing that keeps rows apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.job import Job
from pipeline.train.order import bins_of
from pipeline.train.rows import IGNORE, batches_of, labelled, lengths_of, packed, row_names

Row = tuple[list[int], int]


@st.composite
def rows_of_ids(draw: st.DrawFn) -> list[Row]:
    """Token ids of each row and where its target starts."""
    ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40)
    return [(each, draw(st.integers(0, len(each)))) for each in draw(st.lists(ids, min_size=1))]


def written(folder: Path, rows: list[Row], batch: int = 7) -> Path:
    """An Arrow stream in record batches, as prepare writes them."""
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "target_start": pa.int32()})
    path = folder / "train.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(rows), batch):
            ids, starts = zip(*rows[start : start + batch], strict=True)
            writer.write_batch(pa.record_batch([list(ids), list(starts)], schema=schema))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@given(rows=rows_of_ids(), batch=st.integers(1, 9))
def test_labels_are_the_ids_from_the_target_on(folder: Path, rows: list[Row], batch: int) -> None:
    made = labelled(written(folder, rows, batch))
    assert made["input_ids"] == [ids for ids, _ in rows]
    assert made["labels"] == [[IGNORE] * start + ids[start:] for ids, start in rows]
    assert lengths_of(made).tolist() == [len(ids) for ids, _ in rows]


@given(rows=rows_of_ids(), capacity=st.integers(1, 90))
def test_packed_rows_are_their_rows_one_after_the_other(
    folder: Path, rows: list[Row], capacity: int
) -> None:
    single = labelled(written(folder, rows))
    bins = bins_of(lengths_of(single), capacity)
    made = packed(single, bins)
    for number, each in enumerate(bins):
        line = made[number]
        for column in ("input_ids", "labels"):
            assert line[column] == [value for row in each for value in single[row][column]]
        assert line["seq_lengths"] == [len(rows[row][0]) for row in each]
    assert lengths_of(made).sum() == sum(len(ids) for ids, _ in rows)


def test_row_names_are_the_ids_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [{"id": "a", "question": "ü\u2028?"}, {"id": None}, {}, {"id": 7}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    assert row_names(path, [3, 0, 1, 2, 0]) == ["7", "a", "line 2", "line 3", "a"]
    assert row_names(path, [9]) == ["line 10"]


def job(folder: Path, path: Path, batching: str, capacity: int) -> Job:
    from pipeline.recipe.training import Train

    train = Train.model_validate(
        {"device": "cpu", "precision": "fp32", "optimizer": "adamw_torch", "batching": batching}
    )
    return Job(
        base="", base_name="", base_revision=None, config={}, max_seq_length=capacity,
        train=train, seed=1, pad_id=0, end_ids=(1,), chat_template="", rows="",
        encoded={"train": str(path)}, samples=[], folder=str(folder), batch_size=1, global_batch=3,
    )  # fmt: skip


@pytest.mark.parametrize("batching", ["shuffled", "grouped", "packed"])
def test_a_step_knows_its_lines_and_its_tokens_however_it_is_batched(
    tmp_path: Path, batching: str
) -> None:
    draw = np.random.default_rng(0)
    rows: list[Row] = [([n] * int(draw.integers(1, 40)), 0) for n in range(50)]
    made = batches_of(job(tmp_path, written(tmp_path, rows), batching, 64))
    steps = len(made.order.steps)
    seen = 0
    for step in range(1, steps + 1):
        held = [
            int(value) for n in made.order.rows_of(step) for value in made.dataset[n]["input_ids"]
        ]
        assert sorted(set(held)) == sorted(set(made.rows_of(step)))
        seen += len(held)
        assert made.order.tokens(made.lengths)[step - 1] == seen
    assert {row for step in range(1, steps + 1) for row in made.rows_of(step)} == set(range(50))
    assert 1 <= made.epoch(steps) < 1 + 3 / len(made.lengths)


TINY: list[Row] = [([5, 6, 7, 8], 2), ([9, 10], 1), ([11, 12, 13], 1), ([14], 0)]


@pytest.mark.e2e
def test_trls_collator_gives_packed_rows_positions_of_their_own(tmp_path: Path) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = packed(labelled(written(tmp_path, TINY)), [[0, 1], [2, 3]])
    batch = DataCollatorForLanguageModeling(0, padding_free=True)([rows[0], rows[1]])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 0]]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
    # the first token of a row is nobody's next one
    none = IGNORE
    assert batch["labels"].tolist() == [[none, none, 7, 8, none, 10, none, 12, 13, none]]
    assert "attention_mask" not in batch


@pytest.mark.e2e
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_rows_do_not_see_one_another(tmp_path: Path, attention: str) -> None:
    """Loss by token, of rows alone and of the same rows packed: no mask, positions only."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from pipeline.assets import asset

    model: Any = AutoModelForCausalLM.from_pretrained(
        asset("data/tiny-llama"), dtype=torch.float32, attn_implementation=attention
    ).eval()
    draw = np.random.default_rng(3)
    ids = [draw.integers(0, 400, size).tolist() for size in (5, 90, 33, 2, 61, 17)]
    rows = labelled(written(tmp_path, [(each, 1) for each in ids]))
    bins = bins_of(lengths_of(rows), 120)
    assert max(map(len, bins)) > 1
    made = packed(rows, bins)
    for number, each in enumerate(bins):
        batch = DataCollatorForLanguageModeling(0, padding_free=True)([made[number]])
        together = _losses(model, batch["input_ids"], batch["labels"], batch["position_ids"])
        alone = [
            _losses(model, torch.tensor([ids[row]]), torch.tensor([[IGNORE, *ids[row][1:]]]))
            for row in each
        ]
        assert together.shape == torch.cat(alone).shape
        assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-5)
        if len(each) > 1:  # the test sees what it is there to see
            mixed = _losses(model, batch["input_ids"], batch["labels"])
            assert (mixed - torch.cat(alone)).abs().max() > 1e-2


def _losses(model: Any, ids: Any, labels: Any, positions: Any = None) -> Any:
    import torch

    with torch.no_grad():
        given = {} if positions is None else {"position_ids": positions, "use_cache": False}
        logits = model(input_ids=ids, **given).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="none")
    return losses[labels[0, 1:] != IGNORE]
