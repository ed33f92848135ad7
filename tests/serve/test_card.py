"""The model card names the data, its licences and what a user of the model must keep to."""

import yaml

from pipeline.chat import chat_format
from pipeline.recipe import load
from pipeline.serve import model_card

SOURCES = [
    {
        "dataset": "ServiceNow-AI/R1-Distill-SFT",
        "config": "v0",
        "revision": "0" * 40,
        "rows": 12345,
        "licence": "cc-by-nc-sa-4.0",
        "duties": ["non-commercial", "share-alike"],
    },
    {"dataset": "rows.jsonl", "rows": 7},
]


def card(license="llama3.2"):
    recipe = load("llama3.2-3b-r1").recipe
    return model_card(recipe, chat_format(recipe.chat.format), license, SOURCES)


def test_the_front_matter_is_yaml_that_the_hub_reads():
    _, front, _ = card().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "unsloth/Llama-3.2-3B-Instruct",
        "datasets": ["ServiceNow-AI/R1-Distill-SFT"],
        "library_name": "gguf",
        "license": "llama3.2",
        "tags": ["reasoning", "lora", "gguf", "ollama"],
    }


def test_a_licence_in_full_is_other():
    assert "license: other\n" in card("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n...")


def test_the_data_and_their_duties_are_named():
    text = card()
    row = "| ServiceNow-AI/R1-Distill-SFT (v0) | 12,345 | cc-by-nc-sa-4.0 | {} |"
    assert row.format("non-commercial, share-alike") in text
    assert "| rows.jsonl | 7 | not known | - |" in text
    assert "**For non-commercial use**: data that it was trained on says so." in text
    assert "**Share alike**: what is made from it carries the data's licence." in text
