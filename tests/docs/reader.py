"""Someone who types what the pages show: on the tiny base, on a CPU, beside a real Ollama."""

import re
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname, urlopen

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.engines.ollama import OllamaServer
from pipeline.recipe import builtin_names
from tests.docs.pages import DOCS, Line, run_lines
from tests.e2e.conftest import PLANTED, leaked
from tests.support.ollama import environment, free_port, ollama_binary
from tests.support.qwen import write_base

FEW = "train: {max_steps: 4}\neval: {limit: 4}\n"
# what a tiny base on a CPU needs; all else is the recipe's own
_TINY = """\
extends: {name}
model: {{base: {base}, max_seq_length: 512}}
data:
  sources: [{{dataset: "builtin:samples/train.jsonl", limit: 400}}]
  general: {{dataset: "builtin:samples/general-tiny.jsonl"}}
train:
  device: cpu
  precision: fp32
  optimizer: adamw_torch
  gradient_checkpointing: false
  max_steps: 4
export: {{quantize: [Q8_0]}}
serve: {{license: apache-2.0, num_ctx: 1024}}
eval: {{limit: 4, max_new_tokens: 16}}
"""
_OF_ITSELF = {"recipes", "plan", "datasets"}
"""Commands that tell of a recipe or a dataset without its base: they get the real one."""
_OLLAMA = "http://127.0.0.1:11434"
_SERVES_WITHIN_S = 60


@dataclass(frozen=True)
class Reader:
    """In a folder of their own; PIPE_RECIPE is set by who sends them."""

    folder: Path
    ollama: str
    """The server's URL."""

    def types(self, line: Line) -> None:
        """All commands of the line, one after the other; each must succeed and keep secrets."""
        for words in line.commands:
            said = self._run(words, f"{line}")
            assert not leaked(said.encode()), line

    def is_refused(self, line: Line) -> str:
        """What a line for a GPU says here: no work, no traceback."""
        ((_, *arguments),) = line.commands
        result = CliRunner().invoke(main, self._stood_in(arguments), input="")
        assert result.exit_code in {1, 2} and isinstance(result.exception, SystemExit), line
        return result.output

    def _run(self, words: Sequence[str], shown: str) -> str:
        program, *arguments = words
        if program == "pipe":
            # in this process: torch is imported once for all of them
            result = CliRunner().invoke(main, self._stood_in(arguments), input="")
            assert result.exit_code == 0, f"{shown}\n{result.output}\n{result.exception!r}"
            return result.output
        if program == "ollama":
            return self._client([str(ollama_binary()), *arguments], shown)
        if program == "curl":
            return self._client([word.replace(_OLLAMA, self.ollama) for word in words], shown)
        assert program == "tensorboard", f"{shown}: mark the block: <!-- not run: REASON -->"
        return _served(arguments)

    def _client(self, command: list[str], shown: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(self.folder, OllamaServer(self.ollama)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{shown}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def _stood_in(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, their recipe on the tiny base."""
        words = list(arguments)
        if words[0] not in _OF_ITSELF and "-r" in words:
            at = words.index("-r") + 1
            words[at] = str(stand_in(words[at], self.folder).relative_to(self.folder))
        return words


def recipe_of(page: Path) -> str:
    """The name of the recipe that the page is about: one of its own, a built-in one, the demo."""
    return page.stem if _shown_on(page) or page.stem in builtin_names() else "demo"


def stand_in(name: str, folder: Path) -> Path:
    """The recipe that stands in for another: the one shown on its page, or the tiny base's."""
    path = folder / "stand-ins" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    if name == "demo":
        path.write_text(f"extends: demo\n{FEW}", encoding="utf-8")
    elif shown := _shown_on(DOCS / "recipes" / f"{name}.md"):
        path.write_text(shown, encoding="utf-8")
    elif shown := _shown_on(DOCS / f"{name}.md"):
        base = str(yaml.safe_load(shown)["extends"])
        extended = stand_in(base, folder).name
        path.write_text(shown.replace(f"extends: {base}", f"extends: {extended}"), encoding="utf-8")
    else:
        assert name in builtin_names(), name
        base = "builtin:tiny-llama"
        if name.startswith("qwen3"):
            base = str(write_base(path.parent / "qwen3", "qwen3", tied=True))
        path.write_text(_TINY.format(name=name, base=base), encoding="utf-8")
    return path


def _shown_on(page: Path) -> str | None:
    """The pipe.yaml that the page shows."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = re.search(r"^```yaml\n# pipe.yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else None


def _served(arguments: Sequence[str]) -> str:
    """What TensorBoard's page answers, on a port of its own."""
    port = str(free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments, "--port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return _answer(f"http://127.0.0.1:{port}/data/runs", process)
    finally:
        process.terminate()
        process.wait()


def _answer(url: str, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + _SERVES_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url) as reply:
                return str(reply.read().decode())
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


def emptied(url: str) -> str:
    """The server, without the models that other readers left."""
    server = OllamaServer(url)
    for model in server.tags():
        server.delete(model["name"])
    return url


@contextmanager
def reader(folder: Path, ollama: str, recipe: str) -> Iterator[Reader]:
    """A reader in the folder, in whose shell PIPE_RECIPE is the stand-in of the recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        patch.setenv("PIPE_RECIPE", str(stand_in(recipe, folder).relative_to(folder)))
        patch.setenv("OLLAMA_HOST", ollama)
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setattr(webbrowser, "open", _is_there)
        yield Reader(folder, ollama)


def left_by_the_first_block(name: str, folder: Path, ollama: str) -> None:
    """What a recipe's page shows first, typed in the folder with an empty server."""
    with reader(folder, emptied(ollama), name) as someone:
        for line in run_lines(DOCS / "recipes" / f"{name}.md")[0]:
            someone.types(line)


def _is_there(url: str) -> bool:
    """In place of a browser."""
    assert url.startswith("file://") and Path(url2pathname(url[len("file://") :])).is_file(), url
    return True
