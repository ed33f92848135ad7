"""The model card names the data, its licences and what a user of the model must keep to."""

import pytest
import yaml

from pipeline.card import Licence, Measured, Publication
from pipeline.chat import chat_format
from pipeline.recipe import load
from pipeline.run import Entry
from pipeline.serve import model_card
from tests.publish.runs import BOUND, COMMIT, FREE, RESULTS

LOCAL = {"dataset": "rows.jsonl", "rows": 7}
FILES = ("adapter_config.json", "adapter_model.safetensors", "Llama-3.2-x-Q8_0.gguf")


def card(license="llama3.2", sources=(BOUND, LOCAL), published=None, **sections):
    recipe = load("llama3.2-3b-r1")
    changed = recipe.recipe.model_copy(update=sections)
    return model_card(changed, chat_format(changed.chat.format), license, sources, published)


def publication(files=FILES, gates=(), results=RESULTS, **changes):
    order = ("base", "adapter", "Q8_0", "endpoint")
    said = {
        "repository": "me/Llama-3.2-x",
        "files": {path: Entry("0" * 64, 12345) for path in files},
        "types": {"Q8_0": "Llama-3.2-x-Q8_0.gguf"},
        "recipe": "name: x\n",
        "base_revision": COMMIT,
        "trained": {
            "method": "qlora", "steps": 1250, "device": "NVIDIA H100", "precision": "bf16",
            "trainable_parameters": 10, "total_parameters": 1000, "final_loss": 0.51234,
            "general_loss_before": 2.5, "general_loss_after": 2.625,
        },
        "measured": Measured(results, "test", order, {"test": {"dataset": "test"}}),
        "gates": gates,
    }  # fmt: skip
    return Publication(**(said | changes))


def front(text):
    return yaml.safe_load(text.split("---\n", 2)[1])


def test_the_front_matter_is_what_the_hub_reads():
    found = front(card(sources=[FREE, LOCAL], published=publication()))
    [model] = found.pop("model-index")
    assert found == {
        "base_model": "unsloth/Llama-3.2-3B-Instruct",
        "base_model_relation": "adapter",
        "datasets": ["open-r1/OpenR1-Math-220k"],
        "language": ["en"],
        "library_name": "peft",
        "license": "llama3.2",
        "license_name": "llama3.2-community",
        "license_link": "https://www.llama.com/llama3_2/license/",
        "pipeline_tag": "text-generation",
        "tags": ["reasoning", "lora", "gguf", "ollama"],
    }
    assert model["name"] == "Llama-3.2-x"
    [task] = model["results"]
    assert task["dataset"] == {"name": "held-out rows", "type": "held-out"}
    assert {each["name"]: each["value"] for each in task["metrics"]} == {
        "Accuracy, tuned (95% interval 79.0% to 89.0%, 250 questions)": 0.84,
        "Cross-entropy, tuned (95% interval 0.45 to 0.55, 250 questions)": 0.5,
        "Accuracy, Q8_0 (95% interval 78.0% to 88.0%, 250 questions)": 0.83,
    }


def test_the_hubs_own_reader_takes_the_card():
    from huggingface_hub import ModelCard

    data = ModelCard(card(published=publication())).data
    assert data.base_model == "unsloth/Llama-3.2-3B-Instruct"
    assert {each.metric_type for each in data.eval_results} == {"exact_match", "cross_entropy"}


@pytest.mark.parametrize(
    ("files", "library", "relation"),
    [
        (FILES, "peft", "adapter"),
        (("config.json", "model.safetensors"), "transformers", "finetune"),
        (("Llama-3.2-x-Q8_0.gguf",), "gguf", "quantized"),
    ],
)
def test_what_the_repository_holds_decides_how_the_hub_shows_it(files, library, relation):
    found = front(card(published=publication(files)))
    assert (found["library_name"], found["base_model_relation"]) == (library, relation)


def test_what_binds_the_data_binds_the_model_too():
    found = front(card())
    assert found["license"] == "other"
    assert found["license_name"] == "llama3.2-and-cc-by-nc-sa-4.0"
    text = card()
    assert "\n**For non-commercial use**: data that it was trained on says so.\n" in text
    assert "\n**Share alike**: what is made from it carries the data's licence.\n" in text


def test_the_data_and_their_duties_are_named():
    text = card()
    name = "ServiceNow-AI/R1-Distill-SFT"
    row = f"| [{name}](https://huggingface.co/datasets/{name}) (v0) | 12,345 | {BOUND['licence']} |"
    assert f"{row} non-commercial, share-alike |" in text
    assert "| rows.jsonl | 7 | not known | – |" in text


def test_before_and_after_stand_side_by_side_with_their_intervals():
    text = card(published=publication())
    assert "**Held-out rows: 250 questions.** Figures with 95% intervals." in text
    assert "| base, before | 5.0% (0.0% to 10.0%) | 6.5 (6.45 to 6.55) |" in text
    assert "| tuned | 84.0% (79.0% to 89.0%) | 0.5 (0.45 to 0.55) |" in text
    assert "| Q8_0 | 83.0% (78.0% to 88.0%) | – |" in text
    # an endpoint is another's model
    assert "99.0%" not in text
    assert "accuracy: +79.0 points, 95% interval +74.0 to +84.0 (McNemar, exact, p < 0.001)" in text


def test_how_it_is_run_is_shown_for_what_is_there():
    text = card(published=publication())
    assert "ollama run hf.co/me/Llama-3.2-x:Q8_0\n" in text
    assert "llama-server -hf me/Llama-3.2-x:Q8_0 --jinja\n" in text
    assert f'revision="{COMMIT}"' in text
    assert 'PeftModel.from_pretrained(base, "me/Llama-3.2-x")' in text
    alone = card(published=publication(files=FILES[:2], types={}))
    assert "ollama run" not in alone and "PeftModel" in alone


def test_training_is_told_as_it_ran():
    assert (
        "QLoRA, r = 32, alpha = 32, 1,250 steps; 10 of 1,000 parameters (1.0%); on NVIDIA H100 in "
        "bf16; final loss 0.512; loss on rows of the base's own kind 2.5 before, 2.62 after."
    ) in card(published=publication())


def test_checks_are_told_without_the_reasons_that_name_this_machine():
    gates = [
        {"name": "one BOS", "status": "passed", "reason": ""},
        {"name": "served file", "status": "not_run", "reason": "no server at 10.1.2.3"},
    ]
    text = card(published=publication(gates=gates))
    assert "1 of 2 passed. Not run: served file." in text
    assert "10.1.2.3" not in text


def test_the_same_run_gives_the_same_bytes():
    assert card(published=publication()) == card(published=publication())


def test_words_of_the_data_do_not_become_markdown():
    source = {"dataset": "a|b_c`d.jsonl", "rows": 1, "licence": "<b>|"}
    text = card(sources=[source])
    assert r"| a\|b_c\`d.jsonl | 1 | &lt;b&gt;\| | – |" in text


def test_nothing_in_a_recipe_closes_its_fence():
    text = card(published=publication(recipe="description: |\n  ```\n  # gone\n"))
    assert "\n````yaml\ndescription: |\n  ```\n  # gone\n````\n" in text


@pytest.mark.parametrize(
    ("stated", "base", "id", "version"),
    [
        ("llama3.2", "x", "llama3.2", "3.2"),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n" + "a\n" * 9, "x", "llama3.2", "3.2"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n" + "a\n" * 9, "x", "llama3", "3"),
        ("mit", "unsloth/Llama-3.2-1B", "llama3.2", "3.2"),
        ("mit", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "other", ""),
        ("apache-2.0", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "apache-2.0", None),
        ("apache-2.0", "openlm-research/open_llama_3b", "apache-2.0", None),
        ("apache-2.0", "builtin:tiny-llama", "apache-2.0", None),
        ("Apache-2.0", "Qwen/Qwen3-0.6B", "apache-2.0", None),
        ("Apache License\nVersion 2.0\n" + "a\n" * 9, "Qwen/Qwen3-0.6B", "apache-2.0", None),
        ("Qwen RESEARCH LICENSE AGREEMENT\n" + "a\n" * 9, "Qwen/Qwen2.5-3B", "other", None),
        ("unknown: see the base model's card", "x/y", "other", None),
    ],
)
def test_a_licence_is_known_by_its_id_or_its_text_and_a_llama_by_its_name(
    stated, base, id, version
):
    found = Licence.of(stated, base)
    assert found.id == id
    assert (found.llama and found.llama.version) == version


def test_the_text_of_a_known_licence_goes_along():
    assert Licence.of("llama3.2", "x").text.startswith("LLAMA 3.2 COMMUNITY")
    assert "Apache License" in Licence.of("apache-2.0", "x").text
    research = Licence.of("Qwen RESEARCH LICENSE AGREEMENT\n" + "a\n" * 9, "Qwen/Qwen2.5-3B")
    assert (research.name, research.link) == ("qwen-research-license-agreement", "LICENSE")
    # the text stated for a Llama is not its licence
    assert Licence.of("MIT License\n" + "a\n" * 9, "x/Llama-3.2-1B").text.startswith("LLAMA 3.2")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("thinker", "Llama-3.2-thinker"),
        ("llama3.2-r1", "Llama-3.2-r1"),
        ("llama", "Llama-3.2-reasoning"),
        ("Meta-Llama-r1", "Llama-3.2-Meta-Llama-r1"),
    ],
)
def test_a_name_is_made_one_that_the_llama_licence_allows(name, allowed):
    llama = Licence.of("llama3.2", "x").llama
    assert not llama.allows(name)
    assert llama.allowed(name) == allowed and llama.allows(allowed)
