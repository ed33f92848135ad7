"""Files as sources: jsonl, parquet, and what is neither."""

import pytest

from pipeline.data import prepare
from pipeline.errors import PipeError
from pipeline.run import Progress, Run, silent
from pipeline.run.rows import read_jsonl
from tests.data.support import recipe_of, record, write_rows


def test_limit_takes_the_first_rows(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(50)])
    recipe = recipe_of(base, path)
    source = recipe.data.sources[0].model_copy(update={"limit": 20})
    data = recipe.data.model_copy(update={"sources": (source,)})
    events = []
    run = Run(tmp_path / "run")
    manifest = prepare(recipe.model_copy(update={"data": data}), run, events.append)
    assert manifest.counts["general"] == 2
    assert sum(manifest.counts.values()) == 20 + 2
    done = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert done == [(20, 20), (2, 2), (22, 22)]


def test_parquet_gives_the_rows_that_jsonl_gives(base, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    records = [record(n) for n in range(30)] + [record(30, problem=None)]
    jsonl = write_rows(tmp_path / "rows.jsonl", records)
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b")]
    prepare(recipe_of(base, jsonl), runs[0], silent)
    prepare(recipe_of(base, tmp_path / "rows.parquet"), runs[1], silent)
    for split in ("train", "eval", "test"):
        name = f"{split}.jsonl"
        assert (runs[0].folder("data") / name).read_bytes() == (
            runs[1].folder("data") / name
        ).read_bytes()
    (reject,) = read_jsonl(runs[1].folder("data") / "rejects.jsonl")
    assert (reject["where"], reject["reason"]) == ("row 31", "not_text")


def test_parquet_with_bytes_that_are_no_utf8(base, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([record(n) for n in range(20)])
    raw = pa.array([b"\xff\xfe", *[f"Question {n}?".encode() for n in range(1, 20)]], pa.binary())
    column = table.schema.get_field_index("problem")
    table = table.set_column(column, "problem", raw.view(pa.string()))
    parquet.write_table(table, tmp_path / "rows.parquet")
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, tmp_path / "rows.parquet"), run, silent)
    (reject,) = read_jsonl(run.folder("data") / "rejects.jsonl")
    assert (reject["where"], reject["reason"]) == ("row 1", "bad_encoding")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "The data file {path} is not there."),
        ("rows.csv", "{path} is neither jsonl nor parquet."),
        ("rows.parquet", "{path} is no whole parquet file: "),
    ],
)
def test_what_is_no_source_is_named(base, tmp_path, name, message):
    path = tmp_path / name
    if name != "none.jsonl":
        path.write_text("a,b\n1,2\n")
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), Run(tmp_path / "run"), silent)
    assert error.value.message.startswith(message.format(path=path))


def test_an_empty_file_is_an_error(base, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"")
    with pytest.raises(PipeError, match=r"rows\.jsonl is empty"):
        prepare(recipe_of(base, tmp_path / "rows.jsonl"), Run(tmp_path / "run"), silent)


def test_a_file_has_no_config(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    recipe = recipe_of(base, path, test={"dataset": str(path), "config": "v0"})
    with pytest.raises(PipeError, match="a file has no config"):
        prepare(recipe, Run(tmp_path / "run"), silent)
