"""Every known dataset: golden rows in its own columns, and the tables made from the registry."""

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.datasets import datasets
from pipeline.data.read.detect import detect
from pipeline.data.read.registry import (
    FORMS,
    Entry,
    entries,
    find,
    lookup,
    markdown_table,
    registered,
)
from pipeline.data.read.rows import Row, required, to_row
from pipeline.errors import PipeError
from pipeline.recipe import Columns, Source
from pipeline.recipe.schema import Data
from scripts.dataset_table import BEGIN, COLUMNS, END, with_table

DOCS = list(COLUMNS)[1]

GOLDEN = Path(__file__).parent / "golden"


def golden_file(entry: Entry) -> Path:
    """The config's own file, else the one for all configs of the dataset."""
    name = entry.id.partition("/")[2]
    own = GOLDEN / f"{name}.{entry.config}.jsonl"
    return own if own.exists() else GOLDEN / f"{name}.jsonl"


def golden(entry: Entry) -> list[dict]:
    lines = golden_file(entry).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def everywhere(test):
    return pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)(test)


@everywhere
def test_golden_records_become_the_golden_rows(entry):
    for case in golden(entry):
        row = to_row(entry.columns, case["record"], "row 1", entry.id)
        found = {"row": row.as_dict()} if isinstance(row, Row) else {"reject": row.reason}
        expected = {key: case[key] for key in ("row", "reject") if key in case}
        assert found == expected, case["about"]


@everywhere
def test_golden_records_have_every_column_that_the_entry_names(entry):
    names = entry.columns
    extras = (names.id, names.source, names.system, names.reference, names.input)
    wanted = required(names) | {path.partition(".")[0] for path in extras if path}
    assert wanted <= {column for case in golden(entry) for column in case["record"]}


@everywhere
def test_golden_rows_have_the_form_that_the_entry_says(entry):
    rows = [case["row"] for case in golden(entry) if "row" in case]
    assert rows
    assert all((row["reasoning"] is None) == (entry.form == "direct") for row in rows)
    replies = json.dumps([case["record"] for case in golden(entry) if "row" in case])
    assert ("<|begin_of_thought|>" in replies) == (entry.form == "thought")
    assert ("<answer>" in replies) == (entry.form == "wrapped")
    assert bool(entry.columns.messages) == (
        entry.form in ("chat", "thought", "wrapped") or entry.id.endswith("dolphin-r1")
    )
    assert bool(entry.columns.candidates) == (entry.form == "candidates")
    assert bool(entry.columns.reasoning) == (entry.form == "separate")


@everywhere
def test_detection_would_find_columns_that_read_the_golden_records_as_well(entry):
    """Neither the registry nor detection is then likely to be wrong alone."""
    head = [case["record"] for case in golden(entry)]
    found = detect(head)
    assert found is not None
    for case in golden(entry):
        row = to_row(found, case["record"], "row 1", entry.id)
        if "row" in case and isinstance(row, Row) and "gemini" not in str(found.reasoning):
            assert (row.question, row.reasoning, row.answer) == (
                case["row"]["question"],
                case["row"]["reasoning"],
                case["row"]["answer"],
            ), case["about"]
        assert isinstance(row, Row) or "row" not in case


def test_every_golden_file_belongs_to_an_entry():
    assert {golden_file(entry) for entry in entries()} == set(GOLDEN.glob("*.jsonl"))


def test_the_issue_s_datasets_are_known():
    assert [entry.name for entry in entries() if entry.is_default] == [
        "ServiceNow-AI/R1-Distill-SFT v0",
        "open-thoughts/OpenThoughts-114k default",
        "open-thoughts/OpenThoughts3-1.2M",
        "open-r1/OpenR1-Math-220k default",
        "open-r1/Mixture-of-Thoughts all",
        "bespokelabs/Bespoke-Stratos-17k",
        "simplescaling/s1K-1.1",
        "cognitivecomputations/dolphin-r1 reasoning-deepseek",
        "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B",
        "FreedomIntelligence/medical-o1-reasoning-SFT en",
        "nvidia/OpenMathReasoning",
        "unsloth/OpenMathReasoning-mini",
        "glaiveai/reasoning-v1-20m",
        "GeneralReasoning/GeneralThought-430K",
        "GeneralReasoning/GeneralThought-323K",
        "GeneralReasoning/GeneralThought-195K",
        "a-m-team/AM-DeepSeek-R1-Distilled-1.4M am_0.9M",
        "Congliu/Chinese-DeepSeek-R1-Distill-data-110k",
        "Congliu/Chinese-DeepSeek-R1-Distill-data-110k-SFT",
        "tatsu-lab/alpaca",
        "yahma/alpaca-cleaned",
    ]


def test_what_is_not_confirmed_is_marked():
    assert {entry.name: entry.unconfirmed for entry in entries() if entry.unconfirmed} == {
        "open-thoughts/OpenThoughts3-1.2M": ("columns",),
        "simplescaling/s1K-1.1": ("values",),
        "cognitivecomputations/dolphin-r1 reasoning-flash": ("teacher",),
        "cognitivecomputations/dolphin-r1 nonreasoning": ("columns",),
        "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B": ("licence",),
        "FreedomIntelligence/medical-o1-reasoning-SFT en": ("rows", "teacher"),
        "FreedomIntelligence/medical-o1-reasoning-SFT zh": ("rows", "teacher"),
        "FreedomIntelligence/medical-o1-reasoning-SFT en_mix": ("rows", "teacher"),
        "FreedomIntelligence/medical-o1-reasoning-SFT zh_mix": ("rows", "teacher"),
        "nvidia/OpenMathReasoning": ("teacher",),
        "unsloth/OpenMathReasoning-mini": ("columns", "licence", "teacher"),
        "glaiveai/reasoning-v1-20m": ("rows", "licence"),
        "GeneralReasoning/GeneralThought-430K": ("columns",),
        "GeneralReasoning/GeneralThought-323K": ("columns",),
        "GeneralReasoning/GeneralThought-195K": ("columns",),
        "a-m-team/AM-DeepSeek-R1-Distilled-1.4M am_0.9M": ("licence",),
        "a-m-team/AM-DeepSeek-R1-Distilled-1.4M am_0.5M": ("licence",),
        "Congliu/Chinese-DeepSeek-R1-Distill-data-110k": ("licence",),
        "Congliu/Chinese-DeepSeek-R1-Distill-data-110k-SFT": ("licence",),
        "yahma/alpaca-cleaned": ("licence", "teacher"),
    }


def test_models_carry_on_the_duties_of_these():
    assert {entry.id: entry.duties for entry in entries() if entry.duties} == {
        "ServiceNow-AI/R1-Distill-SFT": ("non-commercial", "share-alike"),
        "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B": ("non-commercial",),
        "a-m-team/AM-DeepSeek-R1-Distilled-1.4M": ("non-commercial",),
        "tatsu-lab/alpaca": ("non-commercial",),
        "yahma/alpaca-cleaned": ("non-commercial",),
    }


def test_v1_never_reads_messages():
    assert lookup("ServiceNow-AI/R1-Distill-SFT", "v1").columns == Columns(
        messages="reannotated_messages", id="id", source="source"
    )


@pytest.mark.parametrize(
    ("dataset", "config", "found"),
    [
        ("ServiceNow-AI/R1-Distill-SFT", None, "ServiceNow-AI/R1-Distill-SFT v0"),
        ("servicenow-ai/r1-distill-sft", "v1", "ServiceNow-AI/R1-Distill-SFT v1"),
        ("QuixiAI/dolphin-r1", None, "cognitivecomputations/dolphin-r1 reasoning-deepseek"),
        ("nvidia/OpenMathReasoning", "default", "nvidia/OpenMathReasoning"),
    ],
)
def test_lookup_by_id_or_alias_and_config(dataset, config, found):
    assert lookup(dataset, config).name == found


def test_a_split_that_is_not_train_is_named():
    assert {entry.id: entry.split for entry in entries() if entry.split != "train"} == {
        "nvidia/OpenMathReasoning": "cot",
        "unsloth/OpenMathReasoning-mini": "cot",
    }


@pytest.mark.parametrize(
    ("dataset", "config", "known"),
    [("ServiceNow-AI/R1-Distill-SFT", "v2", "v0, v1"), ("simplescaling/s1K-1.1", "v1", "none")],
)
def test_an_unknown_config_names_the_known_ones(dataset, config, known):
    with pytest.raises(PipeError) as error:
        lookup(dataset, config)
    assert lookup("some/dataset", config) is None
    assert error.value.message == (
        f"The registry knows no config {config} of {dataset}; it knows: {known}."
    )


def test_a_source_with_columns_of_its_own_keeps_licence_and_duties_in_any_config():
    name, own = "ServiceNow-AI/R1-Distill-SFT", Columns(question="a", reply="b")
    entry = registered(Source(dataset=name, config="v2", columns=own))
    assert (entry.name, entry.licence, entry.rows, entry.unconfirmed) == (
        f"{name} v2",
        "cc-by-nc-sa-4.0",
        None,
        ("columns", "rows"),
    )
    assert entry.duties == ("non-commercial", "share-alike")


def test_the_rows_of_another_split_are_not_known():
    name = "nvidia/OpenMathReasoning"
    assert registered(Source(dataset=name)).rows == 3_201_061
    assert registered(Source(dataset=name, split="cot")).rows == 3_201_061
    tir = registered(Source(dataset=name, split="tir"))
    assert (tir.split, tir.rows) == ("tir", None)


def test_find_takes_the_last_part_of_an_id():
    assert [entry.name for entry in find("s1k-1.1")] == ["simplescaling/s1K-1.1"]
    assert [entry.config for entry in find("quixiai/dolphin-r1")] == [
        "reasoning-deepseek",
        "reasoning-flash",
        "nonreasoning",
    ]
    with pytest.raises(PipeError, match=r"Did you mean simplescaling/s1K-1.1\?"):
        find("s1K")


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
    assert [len(Data.model_validate(each).sources) for each in data] == [2, 1, 1, 1]
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
