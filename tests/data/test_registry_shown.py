"""The registry as it is shown: the tables of the docs, and `pipe datasets`."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.datasets import datasets
from pipeline.data.read.registry import FORMS, Entry, entries, markdown_table
from pipeline.recipe import Columns
from pipeline.recipe.schema import Data
from scripts.dataset_table import BEGIN, COLUMNS, END, with_table

DOCS = list(COLUMNS)[1]


def test_the_table_has_a_line_for_each_form_of_a_dataset():
    table = markdown_table().splitlines()
    assert len(table) == 2 + 25
    assert table[4] == (
        "| open-thoughts/OpenThoughts-114k | **default** | chat with thought and solution tags "
        "| 113,957 | apache-2.0 | `{messages: conversations, system: system}` |"
    )
    assert table[14] == (
        "| Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B |  "
        "| one text with `<think>` | ~250,000 | llama3 or cc-by-nc-4.0, non-commercial [?] "
        "| `{question: instruction, reply: response}` |"
    )
    assert all(line.count("|") == 7 for line in table)
    for entry in entries():
        assert any(entry.id in line and FORMS[entry.form] in line for line in table), entry.name


@pytest.mark.parametrize("path", COLUMNS, ids=lambda path: path.name)
def test_the_files_show_the_table_of_the_registry(path):
    """Make it anew: python scripts/dataset_table.py"""
    text = path.read_text(encoding="utf-8")
    assert BEGIN in text and END in text
    assert with_table(text, columns=COLUMNS[path]) == text
    assert markdown_table(columns=COLUMNS[path]) in text


def test_the_examples_in_the_docs_are_valid():
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    data = [yaml.safe_load(block)["data"] for block in blocks if "data:" in block]
    columns = [
        yaml.safe_load(line)["columns"] for line in re.findall(r"^ +columns: {.*$", text, re.M)
    ]
    assert [len(Data.model_validate(each).sources) for each in data] == [2, 1, 1, 1, 1]
    assert [each["general_share"] for each in data if "general" in each] == [0.1]
    assert len(columns) == 3
    for each in columns:
        Columns.model_validate(each)


def shown(*arguments: str) -> list[str]:
    result = CliRunner().invoke(datasets, list(arguments), catch_exceptions=False)
    return [line.rstrip() for line in result.output.splitlines()]


def test_pipe_datasets_lists_them_with_rows_licence_and_duties():
    lines = [" ".join(line.split()) for line in shown()]
    for line in (
        "v0 171,647",
        "open-thoughts/OpenThoughts3-1.2M 1,200,000 apache-2.0",
        "or QuixiAI/dolphin-r1",
        "unsloth/OpenMathReasoning-mini 19,252 cc-by-4.0 [?]",
        "en ~19,700 [?]",
        "One in full: pipe datasets NAME. [?] is not confirmed. See docs/datasets.md.",
    ):
        assert line in lines, lines


def test_pipe_datasets_name_shows_one_in_full():
    assert shown("openmathreasoning-mini") == [
        "unsloth/OpenMathReasoning-mini",
        "  split          cot",
        "  form           one text with <think>",
        "  rows           19,252",
        "  licence        cc-by-4.0 [?]",
        "  teacher        DeepSeek-R1 and QwQ-32B [?]",
        "  columns        {question: problem, reply: generated_solution, "
        "reference: expected_answer, source: problem_source}",
        "  note           Rows of nvidia/OpenMathReasoning cot.",
        "  not confirmed  columns, licence, teacher",
    ]


def test_pipe_datasets_as_json_has_every_field_of_an_entry():
    (found,) = json.loads("".join(shown("s1K-1.1", "--json")))["datasets"]
    assert found.keys() == Entry.__dataclass_fields__.keys()
    assert (found["columns"]["correct"], found["duties"]) == (["deepseek_grade"], [])
    assert len(json.loads("\n".join(shown("--json")))["datasets"]) == len(entries())
