"""`pipe chat` with the demo's real models: for scripts, in a terminal, on the page."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

WAIT_S = 60


def question(demo: Demo, number: int = 0) -> str:
    rows = (demo.run.folder("data") / "test.jsonl").read_text().splitlines()
    return str(json.loads(rows[number])["question"])


def test_scripts_get_an_answer_from_the_file_from_any_file_and_from_ollama(demo: Demo) -> None:
    greedy = ["--ask", question(demo), "--temperature", "0", "--json"]
    file = demo.run.folder("export") / "my-model-Q8_0.gguf"
    run = json.loads(demo.pipe("chat", *greedy, ollama=NOBODY).stdout)
    any_file = json.loads(demo.pipe("chat", "--gguf", str(file), *greedy, ollama=NOBODY).stdout)
    served = json.loads(demo.pipe("chat", "--ollama", *greedy).stdout)
    same = ("thinking", "answer", "stopped", "tokens")
    assert [run[key] for key in same] == [any_file[key] for key in same]
    for said in (run, served):
        assert said["stopped"] and said["thinking"] and said["answer"]
        assert 0 < said["first_token_s"] <= said["seconds"]
    cut = demo.pipe("chat", "--ask", question(demo), "--max-tokens", "4", ollama=NOBODY, code=1)
    assert "Cut off after 4 tokens: --max-tokens." in cut.stderr


@dataclass
class Tty:
    """`pipe chat` in a terminal."""

    process: "subprocess.Popen[bytes]"
    terminal: int
    screen: str = ""

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def expect(self, pattern: str) -> str:
        """Read on until the pattern stands in what was read since the last one."""
        deadline = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.screen)):
            assert time.monotonic() < deadline, f"no {pattern} in {self.screen!r}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.screen += os.read(self.terminal, 4096).decode(errors="replace")
        self.screen, seen = self.screen[found.end() :], self.screen[: found.end()]
        return seen


@contextmanager
def chat_in_a_terminal(demo: Demo) -> Iterator[Tty]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "chat"],
        cwd=demo.folder,
        env={**os.environ, "TERM": "xterm", "OLLAMA_HOST": NOBODY},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Tty(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_conversation_in_a_terminal(demo: Demo) -> None:
    dimmed = re.escape("\x1b[2m")
    with chat_in_a_terminal(demo) as tty:
        tty.expect(r"1,024 tokens of context")
        tty.expect("> ")
        tty.type(f"{question(demo)}\n")
        assert re.search(dimmed, tty.expect(r"\n\r?\n[^\n]+\.\r\n"))
        tty.type("/fold\n/again\n")
        tty.expect(r"thought: \d+ tokens")
        tty.type("/stats\n")
        tty.expect(r"tokens/s.*\n.*of 1,024 tokens")
        tty.expect("exchanges\r\n.*> ")
        tty.type("\x04")
        assert tty.process.wait(WAIT_S) == 0
    history = demo.run.root / ".chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "/fold" in history.read_text()


@contextmanager
def page(demo: Demo) -> Iterator[tuple[str, list[str], "subprocess.Popen[str]"]]:
    """Its address, the lines before it, and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "chat", "--web", "--port", "0"],
        cwd=demo.folder,
        env={**os.environ, "OLLAMA_HOST": NOBODY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    try:
        assert process.stdout
        for line in process.stdout:
            if found := re.match(r"(http://127\.0\.0\.1:\d+)/", line):
                yield found[1], lines, process
                break
            lines.append(line)
        else:
            raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()


def children(process: "subprocess.Popen[str]") -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def answer(url: str, side: str, asked: str) -> dict[str, str]:
    messages = [{"role": "user", "content": asked}]
    body = {"side": side, "messages": messages, "temperature": 0}
    said = {"thinking": "", "answer": ""}
    with httpx.stream(
        "POST", f"{url}/reply", json=body, headers={"Origin": url}, timeout=WAIT_S
    ) as reply:
        events = [json.loads(line) for line in reply.iter_lines()]
    for event in events[:-1]:
        said[event["kind"]] += event["text"]
    assert events[-1]["kind"] == "end" and events[-1]["reason"] == "stop"
    return said


def test_the_page_has_base_and_tuned_and_makes_the_base_once(demo: Demo) -> None:
    for time_round in (1, 2):
        with page(demo) as (url, before, process):
            assert any("Making the untuned base as Q8_0" in line for line in before) == (
                time_round == 1
            )
            sides = httpx.get(f"{url}/about").json()["sides"]
            models = {side["id"]: side["model"] for side in sides}
            assert models == {"base": "tiny-llama Q8_0", "tuned": "my-model-Q8_0.gguf"}
            base, tuned = (answer(url, side, question(demo)) for side in models)
            assert base != tuned and tuned["thinking"] and tuned["answer"]
            workers = children(process)
            assert len(workers) == 2
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 0
            assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    (file,) = (demo.run.root / ".base").iterdir()
    assert re.fullmatch(r"tiny-llama-Q8_0-[0-9a-f]{12}\.gguf", file.name)
