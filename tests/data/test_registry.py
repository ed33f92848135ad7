"""Every known dataset: which there are, what they oblige to, and how they are found."""

import pytest

from pipeline.data.read.registry import entries, find, lookup, registered
from pipeline.errors import PipeError
from pipeline.recipe import Columns, Source


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
