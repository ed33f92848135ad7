"""Model names, and finding a model's weights in what /api/show says."""

import pytest

from pipeline.engines.ollama import model_blob
from pipeline.errors import RecipeError
from pipeline.serve.names import model_names

HEX = "0123456789abcdef" * 4


def test_the_first_type_gets_the_plain_name():
    assert model_names("my-model", ["Q4_K_M", "Q8_0"]) == {
        "Q4_K_M": "my-model",
        "Q8_0": "my-model:q8_0",
    }


def test_a_tag_is_kept():
    assert model_names("me/my-model:v2", ["Q8_0", "F16"]) == {
        "Q8_0": "me/my-model:v2",
        "F16": "me/my-model:v2-f16",
    }


@pytest.mark.parametrize("tag", ["cloud", "local", "20b-cloud", "CLOUD"])
def test_tags_that_lead_elsewhere_are_refused(tag):
    with pytest.raises(RecipeError, match="tag"):
        model_names(f"my-model:{tag}", ["Q8_0"])


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b/c", "a:", "a:b:c", "ä", "a\n", "a" * 81])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(RecipeError, match="no model names"):
        model_names(name, ["Q8_0"])


def test_the_weights_of_a_model():
    shown = {"modelfile": f"# FROM tiny:latest\n\nFROM /m/blobs/sha256-{HEX}\nTEMPLATE x\n"}
    assert model_blob(shown) == (f"/m/blobs/sha256-{HEX}", f"sha256:{HEX}")


@pytest.mark.parametrize("text", ["", "# FROM tiny\n", "FROM llama3.2\n", f"FROM sha256-{HEX}0\n"])
def test_a_model_without_weights_of_its_own(text):
    assert model_blob({"modelfile": text}) == ("", "")
