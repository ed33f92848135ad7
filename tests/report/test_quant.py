"""quant.html: its table, its pictures, and what was not run."""

from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.report.quant import write_study
from tests.study.quant.support import DOWN, Q, refused, results, row

HOSTILE = "<script>alert(1)</script>"
ROWS = [
    row("none", 5000, 1.0, (0.80, 0.70, 0.90)),
    row("nf4", 1500, 0.97, (0.75, 0.6, 0.8)),
    row("nf4-dq", 1400, 0.97, (0.74, 0.6, 0.8)),
    row("Q8_0", 2600, 0.99, (0.80, 0.7, 0.9)),
    refused("gptq", f"ModuleNotFoundError: {HOSTILE}"),
]


@pytest.fixture
def page(tmp_path: Path) -> str:
    return write_study(tmp_path, results(ROWS)).read_text()


def pictures(page: str) -> list[ElementTree.Element]:
    return [
        ElementTree.fromstring("<svg " + part.partition("</svg>")[0] + "</svg>")
        for part in page.split("<svg ")[1:]
    ]


def test_the_same_results_give_the_same_bytes_and_no_script(page: str, tmp_path: Path) -> None:
    again = write_study(tmp_path / "again", results(ROWS)).read_text()
    assert again == page
    assert "<script" not in page and HOSTILE in unescape(page)


def test_every_measured_row_is_in_the_table_and_the_best_is_marked(page: str) -> None:
    table = page.partition('id="costs"')[2].partition("</table>")[0]
    assert [label in table for label in ("NF4, double quantization", "GGUF Q8_0", "GPTQ")] == [
        True, True, False,
    ]  # fmt: skip
    (best,) = (line for line in table.split("<tr") if "mark good" in line)
    assert "NF4" in best and "1.50" in best and "0.75 of what is quantized" in best
    assert "GPTQ, 4 bits" in page.partition('id="refused"')[2]


def test_the_pictures_hold_every_row_and_every_matrix(page: str) -> None:
    quality, divergence, heat = pictures(page)
    for name in ("16 bits", "nf4", "nf4-dq", "Q8_0"):
        assert name in quality.get("aria-label", "")
    # 16 bits diverges nowhere from itself, and has no error
    assert len(divergence.findall(".//circle")) == 3
    cells = [each.text for each in heat.findall(".//title")]
    assert len(cells) == 6 and f"NF4, {Q}: 0.11" in cells and f"GGUF Q8_0, {DOWN}: 0.32" in cells
    depths = [float(rect.get("opacity", "nan").rstrip("%")) for rect in heat.findall(".//rect")]
    assert (min(depths), max(depths)) == (8.0, 100.0)


def test_matrices_stand_layer_by_layer_in_the_order_of_their_use(tmp_path: Path) -> None:
    names = [
        "model.embed_tokens.weight",
        Q,
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.10.self_attn.q_proj.weight",
        "lm_head.weight",
    ]
    layers = {"nf4": dict.fromkeys(sorted(names), 0.1)}
    *_, heat = pictures(write_study(tmp_path, results(ROWS, layers=layers)).read_text())
    cells = [each.text or "" for each in heat.findall(".//title")]
    assert [cell.split(", ")[1].partition(":")[0] for cell in cells] == names


def test_a_study_without_scores_or_errors_is_a_page_all_the_same(tmp_path: Path) -> None:
    rows = [row("none", 5000, 1.0, None) | {"kl": None, "perplexity": None, "memory_bytes": None}]
    page = write_study(tmp_path, results(rows, best=None, layers={})).read_text()
    assert "None can be named" in page and "Nothing was measured that can be drawn" in page
    assert 'id="layers"' not in page
