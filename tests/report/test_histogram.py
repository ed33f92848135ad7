"""The bins of the lengths show a shape and lose no row."""

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.histogram import bins_of, finer
from tests.report.fixture import write_run

COUNTS = st.dictionaries(st.integers(1, 50_000), st.integers(1, 9), min_size=5, max_size=60)


@given(COUNTS)
def test_every_row_is_in_the_bin_of_its_length(counts: dict[int, int]) -> None:
    bins = finer(counts)
    assert bins is not None and 2 <= len(bins.edges) <= 25
    widths = {b - a for a, b in zip(bins.edges, bins.edges[1:], strict=False)}
    assert len(widths) == 1 and str(widths.pop()).rstrip("0") in ("1", "2", "5")
    for place, (edge, rows) in enumerate(zip(bins.edges, bins.rows, strict=True)):
        end = bins.edges[place + 1] if place + 1 < len(bins.edges) else 10**9
        assert rows == sum(count for length, count in counts.items() if edge < length <= end)


def test_a_few_lengths_are_no_shape() -> None:
    assert finer({}) is None and finer({60: 10, 101: 500}) is None


def encoded(folder: Path, lengths: list[int]) -> None:
    table = pa.table({"input_ids": pa.array([[1] * n for n in lengths], pa.list_(pa.int32()))})
    folder.mkdir()
    with pa.ipc.new_stream(str(folder / "train.arrow"), table.schema) as stream:
        stream.write_table(table)


def test_two_bins_give_way_to_finer_ones_of_the_encoded_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    encoded(run.folder("data") / "encoded", [52, 55, 99, 101, 101, 103, 109])
    stats = gather(run).stats
    assert bins_of(run, stats).of == "as they came, before any was dropped"
    stats["lengths"] |= {"edges": [0, 64, 128], "rows": [2, 5, 0]}
    found = bins_of(run, stats)
    assert found.of == "of the rows to train on" and sum(found.rows) == 7
    assert dict(zip(found.edges, found.rows, strict=True)) | {50: 2, 95: 1, 100: 3, 105: 1} == dict(
        zip(found.edges, found.rows, strict=True)
    )
    (run.folder("data") / "encoded" / "train.arrow").unlink()
    assert bins_of(run, stats).edges == (0, 64, 128)
    assert "Length of the rows" in write_report(run)[0].read_text(encoding="utf-8")
