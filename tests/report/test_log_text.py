"""Text of others in the log: shown as it is, never as Markdown, and no secret among it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.log.write import code, fenced, plain
from pipeline.report.safe import visible
from pipeline.run.files import write_json
from pipeline.run.secrets import harmless
from tests.report.figures import gates
from tests.report.fixture import HOSTILE, write_run
from tests.report.logged import MARKDOWN, text_of
from tests.report.studied import COMPARED, PRECISIONS


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
    return str(visible(harmless(text)))


@given(TEXTS)
def test_nothing_ends_a_code_span_or_a_block_of_code_too_early(text: str) -> None:
    tokens = MARKDOWN.parse(str(fenced(text, "sh")))
    assert [token.type for token in tokens] == ["fence"]
    if span := str(code(text)):
        (inline,) = (token for token in MARKDOWN.parse(f"x {span}") if token.type == "inline")
        kinds = [part.type for part in inline.children or ()]
        assert kinds == ["text", "code_inline"]
