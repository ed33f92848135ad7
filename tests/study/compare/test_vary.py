"""`--vary`: strict about keys and values, generous with short names."""

import json
import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.run.studies import study_command
from pipeline.study.compare.vary import variants, varied
from tests.support.exported import demo


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train.lora.r=8,16", "train.lora.r"),
        ("lora.r=8,16", "train.lora.r"),
        ("r=8,16", "train.lora.r"),
        ("alpha=8,16", "train.lora.alpha"),
        ("dropout=0,0.1", "train.lora.dropout"),
        ("learning_rate=1e-4,2e-4", "train.learning_rate"),
        ("batch_size=2,4", "train.batch_size"),
        ("method=full,lora", "train.method"),
        ("no_thinking_share=0,0.1", "data.no_thinking_share"),
        ("max_seq_length=128,256", "model.max_seq_length"),
        ("seed=1,2", "seed"),
        ("data.sources.0.limit=100,200", "data.sources.0.limit"),
    ],
)
def test_a_short_key_means_the_only_one_that_ends_so(text: str, key: str) -> None:
    assert list(varied(variants(demo(), [text]))) == [key]


def test_several_keys_make_their_product_the_first_varying_slowest() -> None:
    found = variants(demo(), ["r=8,16", "learning_rate=1e-4,2e-4"])
    assert [each.label for each in found] == [
        "r=8,learning_rate=0.0001",
        "r=8,learning_rate=0.0002",
        "r=16,learning_rate=0.0001",
        "r=16,learning_rate=0.0002",
    ]
    last = found[-1]
    assert last.settings == {"train.lora.r": 16, "train.learning_rate": 2e-4}
    assert (
        last.recipe and last.recipe.train.lora.r == 16 and last.recipe.train.learning_rate == 2e-4
    )
    # all else is the recipe's
    plain = demo("train.lora.r=16", "train.learning_rate=0.0002")
    assert last.recipe == plain


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lora.rank=8,16"], "Did you mean lora.r?"),
        (["lerning_rate=1,2"], "Did you mean learning_rate?"),
        (["limit=2,3"], "may mean data.sources.0.limit or data.test.limit"),
        (["r=8"], "one value leaves nothing to compare"),
        (["r="], "one value leaves nothing to compare"),
        (["r"], "write it as key=a,b,c"),
        (["=8,16"], "write it as key=a,b,c"),
        (["r=[8,16"], "the values are not YAML"),
        (["r=8,8.0"], "names train.lora.r=8 twice"),
        (["r=8,16", "lora.r=1,2"], "names train.lora.r twice"),
        (["r=0,8"], "it cannot be 0"),
        (["r=8,many"], "it cannot be many"),
        (["method=lora,dora"], "it cannot be dora"),
        (["eval.limit=5,9"], "decides nothing of what is trained"),
        (["export.quantize=[Q8_0],[Q4_K_M]"], "pipe quant"),
        (["save_every=1,2"], "there is no such key to vary"),
    ],
)
def test_what_is_wrong_is_said_and_is_the_user_s_to_mend(texts: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        variants(demo(), texts)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_values_that_do_not_go_together_are_a_variant_with_its_reason() -> None:
    found = variants(demo(), ["method=qlora,lora-8bit"])
    assert found[0].recipe and not found[0].reason
    assert found[1].recipe is None
    assert found[1].reason == (
        "method lora-8bit needs a GPU; a CPU has qlora, lora and full: "
        "Unsloth opens no 8-bit base there"
    )
    pairs = variants(demo(), ["keep=last,best", "eval_every=null,5"])
    assert [each.label for each in pairs if each.recipe is None] == ["keep=best,eval_every=none"]


def test_lists_are_values_too_and_labels_name_a_folder() -> None:
    found = variants(demo(), ["target_modules=[q_proj],[q_proj,v_proj]"])
    assert [each.label for each in found] == [
        "target_modules=q_proj",
        "target_modules=q_proj-v_proj",
    ]
    assert found[1].recipe and found[1].recipe.train.lora.target_modules == ("q_proj", "v_proj")
    bases = variants(demo(), ["model.base=../a/b,..-a-b,/"])
    assert [each.label for each in bases] == ["base=..-a-b", "base=..-a-b-2", "base=empty"]


@given(st.lists(st.integers(1, 512), min_size=2, max_size=6, unique=True))
def test_any_ranks_come_back_in_the_order_given(ranks: list[int]) -> None:
    found = variants(demo(), [f"lora.r={','.join(map(str, ranks))}"])
    assert varied(found) == {"train.lora.r": ranks}
    assert len({each.label for each in found}) == len(ranks)


@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=4, unique=True))
def test_whatever_a_value_holds_its_label_is_one_safe_name(values: list[str]) -> None:
    found = variants(demo(), [f"model.revision={','.join(map(json.dumps, values))}"])
    labels = [each.label for each in found]
    assert len(set(labels)) == len(values)
    assert all("/" not in label and label.isascii() and len(label) < 100 for label in labels)
    assert all(label.startswith("model.revision=") for label in labels)


@pytest.mark.parametrize(
    "texts",
    [
        ["lora.r=8,16", "method=lora,qlora"],
        ["eval_every=null,5", "deterministic=true,false"],
        ["target_modules=[q_proj],[q_proj,v_proj]", "learning_rate=1e-4,2e-4"],
    ],
)
def test_the_command_that_makes_a_comparison_again_means_the_same_variants(
    texts: list[str],
) -> None:
    first = variants(demo(), texts)
    known = json.loads(json.dumps({"vary": varied(first), "stages": ["train", "export"]}))
    words = shlex.split(study_command("compare", known))
    assert words[:2] == ["pipe", "compare"] and words[-3:] == ["--stages", "train", "--export"]
    again = [text for flag, text in pairwise(words) if flag == "--vary"]
    assert [each.settings for each in variants(demo(), again)] == [each.settings for each in first]
