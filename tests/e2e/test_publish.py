"""A published demo: what others load from the repository is what the run made."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.assets import asset
from pipeline.chat import Encoder, chat_format
from pipeline.engines.ollama import OllamaServer, model_blob
from pipeline.run.rows import held_out_rows
from tests.e2e.conftest import PLANTED, Demo, leaked
from tests.support.ollama import ollama_binary
from tests.support.upload_hub import UploadHub

pytestmark = pytest.mark.e2e
NAME = "me/thinker"


@pytest.fixture(scope="module")
def repository(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as the hub has them after `pipe publish`, typed twice."""
    folder = tmp_path_factory.mktemp("repository")
    with (
        UploadHub(token=PLANTED["HF_TOKEN"]).running() as hub,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        demo.pipe("export")  # other tests may have exported the run otherwise
        first, again = (demo.pipe("publish", NAME) for _ in range(2))
        assert "files, commit " in first.stdout and "no new commit" in again.stdout
        assert hub.bodies and not [body for body in hub.bodies if leaked(body)]
        for path, content in hub.repos[NAME].files.items():
            (folder / path).write_bytes(content)
    return folder


def test_no_secret_is_in_any_file_of_the_folder(demo: Demo, repository: Path) -> None:
    """After every stage, the page, the log and the publication; what they said is looked at too."""
    if demo.run.manifest("check") is None:  # a minute, and other tests may have done it
        demo.pipe("check")
    for command in ("report", "log"):
        demo.pipe(command)
    made = {path.name for path in demo.run.root.iterdir()}
    assert {"data", "train", "export", "serve", "check", "eval", "report.html", "log.md"} <= made
    for path in (*demo.folder.rglob("*"), *repository.iterdir()):
        assert path.is_dir() or not leaked(path.read_bytes()), path


def test_transformers_and_peft_load_it_as_the_card_says(demo: Demo, repository: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(asset("data/tiny-llama"))
    model = PeftModel.from_pretrained(base, repository)
    tokenizer = AutoTokenizer.from_pretrained(repository)
    format = chat_format("llama3.2-reasoning")
    row = held_out_rows(demo.run, 1)[0]
    turns = [{"role": "user", "content": row["question"]}]
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    encoder = Encoder(asset("data/tiny-llama/tokenizer.json"), format)
    assert ids["input_ids"][0].tolist() == list(encoder.prompt(turns))
    reply = model.generate(**ids, max_new_tokens=96, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    text = tokenizer.decode(reply)
    assert text.startswith("<think>\n") and text.endswith("<|eot_id|>")


def test_ollama_makes_the_registered_model_of_the_published_modelfile(
    demo: Demo, repository: Path, ollama_server: OllamaServer
) -> None:
    environment = os.environ | {"OLLAMA_HOST": ollama_server.url}
    command = [ollama_binary(), "create", "published", "-f", "Modelfile"]
    subprocess.run(command, cwd=repository, env=environment, capture_output=True, check=True)
    try:
        made, registered = (ollama_server.show(name) for name in ("published", "my-model"))
        assert model_blob(made)[1] == model_blob(registered)[1]
        for key in ("template", "license", "capabilities"):
            assert made[key] == registered[key], key
        lines = [sorted(each["parameters"].splitlines()) for each in (made, registered)]
        assert lines[0] == lines[1]  # the server tells them in no order
        # hf.co gives Ollama these two in place of a Modelfile
        assert (repository / "template").read_text() == registered["template"]
        parameters = json.loads((repository / "params").read_text())
        assert parameters == demo.json("serve/manifest.json")["facts"]["parameters"]
    finally:
        ollama_server.delete("published")
