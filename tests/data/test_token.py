"""The hub's token reaches the hub and nothing else: no file of the run, no line that is said."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.secrets import harmless
from tests.data.support import record, write_rows
from tests.support.hub import HubServer
from tests.support.tokenizer import write_base

PLANTED = "hf_plantedplantedplantedplanted"
ROWS, MORE = "some/rows", "some/more"


class Indiscreet(BaseHTTPRequestHandler):
    """A mirror that says in its errors what it was sent, and sends on to signed addresses."""

    heard: list[str] = []  # noqa: RUF012 - what the server was sent, whichever request
    status = 400

    def do_GET(self):
        sent = self.headers.get("Authorization", "")
        self.heard.append(sent)
        if "moved" in self.path and "signed" not in self.path:
            self.send_response(307)
            self.send_header("Location", f"/signed/moved?Signature={PLANTED[3:]}&token={PLANTED}")
        else:
            self.send_response(self.status)
            self.send_header("X-Error-Message", f"Not good for {self.path}: {sent}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def indiscreet():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Indiscreet)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pipe(folder, endpoint, dataset, *options):
    """What `pipe prepare` says, errors and all, with the token in its environment."""
    data = {"sources": [{"dataset": dataset}], "general": {"dataset": MORE}, "eval_share": 0}
    recipe = {
        "name": "t",
        "model": {"base": str(write_base(folder / "base")), "max_seq_length": 512},
        "data": data | {"test_share": 0},
    }
    (folder / "pipe.yaml").write_text(json.dumps(recipe))
    kept = {k: v for k, v in os.environ.items() if "TOKEN" not in k and "proxy" not in k.lower()}
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_TOKEN": PLANTED}
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *options],
        cwd=folder,
        env=kept | hub | {"USE_TORCH": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def written(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.e2e
def test_a_planted_token_is_in_no_file_and_no_line_of_prepare(tmp_path):
    repos = {}
    for name, first in ((ROWS, 0), (MORE, 100)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_rows(folder / "train.jsonl", [record(n) for n in range(first, first + 20)])
        repos["dataset", name] = folder
    work = tmp_path / "work"
    work.mkdir()
    with HubServer(repos).running() as hub:
        code, said = pipe(work, hub.url, ROWS, "prepare", "--show", "1")
        assert hub.tokens == {f"Bearer {PLANTED}"}
    assert code == 0, said
    # the commits of both are known now
    code, again = pipe(work, "http://127.0.0.1:9", ROWS, "prepare")
    assert (code, "data is up to date" in again) == (0, True)
    assert "20 rows" in said or "20/20" in said
    assert PLANTED not in said
    files = written(work / "runs")
    assert b'"general/some/more@' in files
    assert PLANTED.encode() not in files + written(tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("dataset", "login", "status"),
    [("some/rows", "", 400), ("some/rows", f"me:{PLANTED}@", 401), ("some/moved", "", 500)],
)
def test_a_hub_that_answers_with_the_token_makes_nobody_say_it(
    tmp_path, indiscreet, monkeypatch, dataset, login, status
):
    monkeypatch.setattr(Indiscreet, "status", status)
    Indiscreet.heard.clear()
    code, said = pipe(tmp_path, f"http://{login}{indiscreet}", dataset, "--debug", "prepare")
    assert code == 1
    assert Indiscreet.heard
    assert login or f"Bearer {PLANTED}" in Indiscreet.heard
    assert f"The dataset {dataset}" in said
    assert "Traceback" in said
    assert PLANTED not in said
    assert PLANTED[3:] not in said
    assert PLANTED.encode() not in written(tmp_path)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (f"401 for Bearer {PLANTED} here", "401 for Bearer HF_TOKEN here"),
        ("401 for Basic bWU6aGZfcGxhbnRlZA== at", "401 for Basic HF_TOKEN at"),
        ("key hf_AbCdEf0123456789 is old", "key HF_TOKEN is old"),
        ("url: https://me:secret@hub.example/api/x", "url: https://hub.example/api/x"),
        (
            "for url 'https://cdn.example/a/b?Signature=abc&Key=d'.",
            "for url 'https://cdn.example/a/b'.",
        ),
        ("404 Client Error: some/rows at hf_main?", "404 Client Error: some/rows at hf_main?"),
        ("OPENAI_API_KEY=sk-proj-AbCdEf0123456789xy", "OPENAI_API_KEY=[removed]"),
        ("with github_pat_11ABCDEFG0abcdefgh and", "with [removed] and"),
        ("from hf-internal-testing/tiny-random", "from hf-internal-testing/tiny-random"),
        ("wandb: 0123456789abcdef0123456789abcdef01234567", "wandb: WANDB_API_KEY"),
    ],
)
def test_what_lets_another_in_is_taken_out_of_a_message(monkeypatch, said, heard):
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    assert harmless(said) == heard


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_token_survives_wherever_it_stands(before, after):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "my own word")
        assert "my own word" not in harmless(f"{before}my own word{after}")
