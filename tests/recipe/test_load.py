"""Recipes: strict keys, all errors at once, and where each value came from."""

import re
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe import Columns, builtin_names, dump, load


def test_every_built_in_recipe_is_valid() -> None:
    assert builtin_names() == [
        "demo",
        "llama3.1-8b-price",
        "llama3.2-1b-r1",
        "llama3.2-3b-r1",
        "qwen3-0.6b-alpaca-100",
        "qwen3-0.6b-r1",
    ]
    for name in builtin_names():
        assert load(name).recipe.name == name


def test_extends_keeps_what_it_does_not_say() -> None:
    one, three = load("llama3.2-1b-r1").recipe, load("llama3.2-3b-r1").recipe
    assert one.model.base == "unsloth/Llama-3.2-1B-Instruct"
    assert one.data == three.data
    assert one.train.batch_size * one.train.gradient_accumulation == 16


def test_origins_name_the_layer_of_each_value() -> None:
    loaded = load("llama3.2-1b-r1", ["train.lora.r=8"])
    assert loaded.recipe.train.lora.r == 8
    assert loaded.origins["train.lora.r"] == "--set"
    assert loaded.origins["train.batch_size"] == "llama3.2-1b-r1.yaml"
    assert loaded.origins["train.learning_rate"] == "llama3.2-3b-r1.yaml"
    assert loaded.origins["train.max_grad_norm"] == "default"


def test_every_wrong_key_is_named_at_once_with_the_nearest_right_one() -> None:
    with pytest.raises(RecipeError) as caught:
        load("demo", ["train.learning_rte=3", "exprt={}", "train.lora.rr=1", "train.epochs=-1"])
    assert caught.value.exit_code == 2
    for part in (
        "unknown key train.learning_rte, did you mean learning_rate?",
        "unknown key exprt, did you mean export?",
        "unknown key train.lora.rr, did you mean r?",
        "train.epochs: Input should be greater than 0",
    ):
        assert part in caught.value.message


def test_a_cpu_recipe_with_gpu_settings_is_refused_before_work() -> None:
    with pytest.raises(RecipeError, match="needs a GPU"):
        load("demo", ["train.optimizer=adamw_8bit"])


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean llama3\.2-1b-r1"):
        load("llama3.2-1b")


def test_pipe_yaml_here_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    assert load().recipe.name == "llama3.2-3b-r1"
    Path("pipe.yaml").write_text("extends: demo\nname: mine\n")
    assert load().recipe.name == "mine"
    monkeypatch.setenv("PIPE_RECIPE", "demo")
    assert load().recipe.name == "demo"


def test_a_recipe_that_extends_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="extends itself"):
        load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_named_with_the_command_that_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my pipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load("my pipe.yaml")
    assert caught.value.message.startswith("my pipe.yaml")
    assert caught.value.hint.endswith("then: pipe recipes validate 'my pipe.yaml'")


def test_yaml_that_is_broken_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pipe.yaml"
    path.write_text("extends: demo\ntrain:\n  epochs: 2: 3\n")
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert caught.value.message == f"{path}, line 3: mapping values are not allowed here."
    assert caught.value.hint == f"Correct that line, then: pipe recipes validate {path}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("name=my run", "name: use letters, digits"),
        ("name=-x", "name: use letters, digits"),
        ("serve.name=a/b/c", "serve.name: use up to 80 letters"),
        ("eval.endpoint={model: m, url: 'http://me:secret@host'}", "begin it with http://"),
        ("eval.endpoint={model: m, url: 'http://h', key_env: 1X}", "no digit first"),
    ],
)
def test_a_text_that_is_spelled_wrong_is_told_the_rule_in_words(setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load("demo", [setting])
    assert said in caught.value.message
    # no regular expression, and nothing of what may be a secret
    assert not {"^", "$", "secret", "Value error"} & set(
        re.findall(r"\^|\$|secret|Value error", caught.value.message)
    )


def test_a_wrong_value_names_the_recipe_that_is_extended(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: llama3.2-1b-r1\n")
    for setting in ("train.epochs=-1", "data.sources.7.limit=3"):
        with pytest.raises(RecipeError) as caught:
            load(str(path), [setting])
        # 1b extends 3b: the nearest of both
        assert caught.value.hint == "See: pipe recipes show llama3.2-1b-r1"


def test_a_dumped_recipe_loads_to_the_same(tmp_path: Path) -> None:
    recipe = load("demo", ["serve.name=other"]).recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe))
    assert load(str(path)).recipe == recipe


def test_set_reaches_into_a_list_by_number() -> None:
    recipe = load("llama3.2-1b-r1", ["data.sources.0.limit=2000"]).recipe
    assert recipe.data.sources[0].limit == 2000
    assert recipe.data.sources[0].config == "v0"
    with pytest.raises(RecipeError, match=r"data\.sources has no item 1"):
        load("llama3.2-1b-r1", ["data.sources.1.limit=2000"])


def test_set_keeps_what_else_a_section_of_a_list_s_item_says() -> None:
    plain = load("llama3.1-8b-price")
    changed = load("llama3.1-8b-price", ["data.sources.0.columns.reply_start=It costs"])
    columns = plain.recipe.data.sources[0].columns
    assert columns
    assert changed.recipe.data.sources[0].columns == columns.model_copy(
        update={"reply_start": "It costs"}
    )
    key = "data.sources.0.columns.reply_start"
    assert changed.origins == {**plain.origins, key: "--set"}
    assert changed.values == {**plain.values, key: "It costs"}


def test_every_value_is_there_under_its_key_with_its_origin() -> None:
    loaded = load("llama3.2-1b-r1", ["data.sources.0.limit=7"])
    assert list(loaded.values) == list(loaded.origins)
    assert loaded.values["data.sources.0.limit"] == 7
    assert loaded.origins["data.sources.0.limit"] == "--set"
    assert loaded.origins["data.sources.0.config"] == "llama3.2-3b-r1.yaml"
    assert loaded.origins["data.sources.0.weight"] == "default"
    assert loaded.values["export.quantize"] == list(loaded.recipe.export.quantize)


def test_a_wrong_key_deep_in_a_list_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(RecipeError) as caught:
        load("llama3.1-8b-price", ["data.sources.0.columns.replystart=It costs"])
    said = "unknown key data.sources.0.columns.replystart, did you mean reply_start?"
    assert said in caught.value.message


def test_a_section_that_is_replaced_whole_is_reset_first() -> None:
    columns = "data.sources.0.columns"
    recipe = load(
        "llama3.1-8b-price", [f"{columns}=null", f"{columns}={{question: title, reply: text}}"]
    ).recipe
    assert recipe.data.sources[0].columns == Columns(question="title", reply="text")


def test_a_replaced_section_leaves_no_origins_behind(tmp_path: Path) -> None:
    path = tmp_path / "pipe.yaml"
    path.write_text("extends: demo\ndata: {test: null}\n")
    loaded = load(str(path))
    assert loaded.origins["data.test"] == "pipe.yaml"
    assert not [key for key in loaded.origins if key.startswith("data.test.")]
