"""The page's server: whom it serves, what it streams, and how it ends."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
import uvicorn

from pipeline.chat import chat_format
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.talk import Manner, Partner, Piece, Remark
from pipeline.engines.talk_served import ServedPartner
from pipeline.errors import NativeCrash, PipeError
from pipeline.web import Page, application, listen
from pipeline.web.app import Asked
from pipeline.web.server import _Server
from tests.support.faulty_ollama import faulty_ollama, hang, stall
from tests.support.scripted import Scripted, reply

ASKED = {"side": "tuned", "messages": [{"role": "user", "content": "2 + 2?"}], "temperature": 0.5}


def page(**sides: Partner) -> Page:
    return Page(sides, Manner(temperature=0.6, seed=40), "Be kind.")


@contextmanager
def served(page: Page) -> Iterator[str]:
    """The server on a port of its own, in a thread."""
    config = uvicorn.Config(application(page), log_config=None, lifespan="off", ws="none",
                            timeout_graceful_shutdown=2)  # fmt: skip
    with listen(0) as socket:
        server = _Server(config, page)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.handle_exit(2, None)
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def client(partner: Scripted) -> Iterator[httpx.Client]:
    with served(page(tuned=partner)) as url, httpx.Client(base_url=url) as opened:
        yield opened


def post(client: httpx.Client, asked=ASKED, **headers: str) -> httpx.Response:
    origin = str(client.base_url).rstrip("/")
    return client.post("/reply", json=asked, headers={"Origin": origin, **headers})


def told(response) -> list[dict]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_reply_comes_as_lines_of_json():
    partner = Scripted([Remark("left out", "Full."), *reply("hm", "4")])
    with client(partner) as opened:
        said = told(post(opened, ASKED | {"system": "S", "thinking": False, "turn": 2}))
    assert [line["kind"] for line in said] == ["remark", "thinking", "answer", "end"]
    assert said[2] == {"kind": "answer", "text": "4", "tokens": 2}
    assert said[3]["tokens_per_s"] == 6.0 and said[3]["n_ctx"] == 100
    ((conversation, manner),) = partner.asked
    assert [message["content"] for message in conversation] == ["S", "2 + 2?"]
    assert manner == Manner(0.5, 42, None, thinking=False)


def test_an_error_in_mid_reply_is_its_last_line_and_the_next_question_is_answered():
    partner = Scripted([Piece("answer", "4", 1), NativeCrash("It died.", "Rebuild.")])
    with client(partner) as opened:
        for _ in range(2):
            *_, last = told(post(opened))
            assert last == {"kind": "error", "text": "It died.\nRebuild."}


def test_a_name_that_was_rebound_to_this_machine_is_refused():
    with client(Scripted()) as opened:
        for path in ("/", "/about", "/reply"):
            assert opened.get(path, headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_only_our_own_page_may_ask_and_only_in_json(headers):
    partner = Scripted(reply())
    with client(partner) as opened:
        assert post(opened, **headers).status_code == 403
        assert opened.post("/reply", json=ASKED).status_code == 403
        assert opened.get("/reply").status_code == 405
    assert not partner.asked


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (ASKED | {"side": "other"}, 404),
        (ASKED | {"messages": []}, 400),
        (ASKED | {"temperature": -1}, 400),
        (ASKED | {"messages": [{"role": "system", "content": "x"}]}, 400),
        (ASKED | {"more": 1}, 400),
        (ASKED | {"system": "x" * (4 << 20)}, 400),
    ],
)
def test_what_is_no_question_is_refused(asked, status):
    partner = Scripted(reply())
    with client(partner) as opened:
        assert post(opened, asked).status_code == status
    assert not partner.asked


def test_the_page_runs_its_own_script_only_and_calls_nobody_else():
    with client(Scripted()) as opened:
        first, second = opened.get("/"), opened.get("/")
        assert opened.get("/about").json() == {
            "sides": [{"id": "tuned", "model": "scripted"}],
            "system": "Be kind.",
            "temperature": 0.6,
            "thinking": True,
        }
    policy = first.headers["content-security-policy"]
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    assert policy.startswith("default-src 'none'") and "connect-src 'self'" in policy
    assert first.text.count(f'nonce="{nonce}"') == 2 and nonce not in second.text
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["cache-control"] == "no-store"
    # what could bring in markup or another origin is not in the page at all
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?:", first.text)


def test_a_conversation_begins_with_the_system_text_if_there_is_one():
    said = {**ASKED, "messages": [{"role": "user", "content": "a"}]}
    assert [m["role"] for m in Asked(**said, system="S").conversation()] == ["system", "user"]
    assert [m["role"] for m in Asked(**said, system=" ").conversation()] == ["user"]


def stream(url: str, **asked):
    headers = {"Origin": url}
    return httpx.stream("POST", f"{url}/reply", json=ASKED | asked, headers=headers, timeout=10)


def test_a_browser_that_goes_away_ends_its_reply():
    endless = [Piece("answer", "x", 1), *[lambda: time.sleep(0.02)] * 5000]
    partner = Scripted(endless)
    with served(page(tuned=partner)) as url:
        with stream(url) as response:
            assert next(response.iter_lines())
        assert partner.left.wait(5), "the reply went on without a reader"
        assert partner.stopped.is_set()


def test_questions_to_one_side_wait_for_one_another_and_sides_do_not():
    gate = threading.Event()
    slow = Scripted([lambda: gate.wait(5), *reply()])
    quick = Scripted(reply())
    with served(page(base=slow, tuned=quick)) as url:
        ends: list[str] = []

        def ask(side: str, turn: int) -> None:
            with stream(url, side=side, turn=turn) as response:
                ends.extend(f"{side} {turn}" for line in response.iter_lines() if '"end"' in line)

        threads = [threading.Thread(target=ask, args=("base", turn)) for turn in (1, 2)]
        for thread in threads:
            thread.start()
        while not slow.asked:
            time.sleep(0.01)
        ask("tuned", 3)
        assert ends == ["tuned 3"] and len(slow.asked) == 1
        gate.set()
        for thread in threads:
            thread.join(5)
        assert len(slow.asked) == 2 and len(ends) == 3


def test_the_end_of_the_server_ends_a_reply_under_way():
    partner = Scripted([Piece("answer", "x", 1), *[lambda: time.sleep(0.02)] * 5000])
    with served(page(tuned=partner)) as url:

        def read() -> None:
            with suppress(httpx.HTTPError), stream(url) as response:
                response.read()

        reader = threading.Thread(target=read)
        reader.start()
        while not partner.asked:
            time.sleep(0.01)
        began = time.monotonic()
    # the script alone takes 100 s
    assert partner.left.wait(1) and time.monotonic() - began < 30
    reader.join(5)


def test_it_listens_on_loopback_alone_and_says_when_a_port_is_taken():
    with listen(0) as socket:
        host, port = socket.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(PipeError, match=f"Port {port} .* cannot be had"), listen(port):
            pass


def test_a_bug_breaks_the_reply_off_and_does_not_block_its_side():
    def fail() -> None:
        raise RuntimeError("a bug")

    partner = Scripted([Piece("answer", "4", 1), fail])
    with served(page(tuned=partner)) as url:
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError), stream(url) as response:
                response.read()
    assert len(partner.asked) == 2


@pytest.mark.parametrize("fault", [hang, stall])
def test_an_ollama_that_hangs_blocks_neither_its_side_nor_the_end_of_the_server(fault):
    with faulty_ollama() as ollama:
        ollama.models["m"] = {"files": {"m": "sha256:0"}}
        partner = ServedPartner(OllamaServer(ollama.url), "m", chat_format("llama3.2-reasoning"))
        with served(page(tuned=partner)) as url:
            ollama.faults["POST /api/chat"] = fault
            with suppress(httpx.ReadTimeout):
                httpx.post(f"{url}/reply", json=ASKED, headers={"Origin": url}, timeout=0.5)
            del ollama.faults["POST /api/chat"]
            with stream(url) as response:
                assert '"answer"' in response.read().decode()
            ollama.faults["POST /api/chat"] = fault
            with suppress(httpx.ReadTimeout):
                httpx.post(f"{url}/reply", json=ASKED, headers={"Origin": url}, timeout=0.5)
