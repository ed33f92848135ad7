"""The Ollama client against a server that misbehaves; the real one is asked in test_e2e.py."""

import hashlib
from multiprocessing.pool import ThreadPool
from pathlib import Path
from time import monotonic, sleep

import pytest
from ollama._client import _parse_host

from pipeline.engines.ollama import OllamaServer
from pipeline.engines.ollama_http import Connection, Patience, server_url
from pipeline.errors import OllamaRefused, OllamaUnreachable, PipeError
from tests.support.faulty_ollama import cut, dribble, faulty_ollama, hang, lines, reply, stall
from tests.support.ollama import free_port

IMPATIENT = Patience(connect=0.5, quick=0.3, slow=0.3, total=0.3)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def fake():
    with faulty_ollama() as ollama:
        yield ollama


@pytest.fixture
def server(fake):
    return OllamaServer(fake.url)


@pytest.mark.parametrize(
    "host",
    [
        "", "1.2.3.4", ":56789", "1.2.3.4:56789", "http://1.2.3.4", "https://1.2.3.4",
        "https://1.2.3.4:56789", "example.com", "example.com:56789", "https://example.com",
        "example.com/", "example.com/path", "https://example.com:56789/path/", "localhost:1",
        "[::1]", "[::1]:56789", "http://[::1]", "https://[0001:002:003:0004::1]:56789/path",
    ],
)  # fmt: skip
def test_hosts_mean_what_they_mean_to_ollamas_client(host):
    assert server_url(host) == _parse_host(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0", "http://127.0.0.1:80"),
        ("[::]:8080", "http://[::1]:8080"),
        ("::1", "http://[::1]:11434"),
        (' "127.0.0.1:1" ', "http://127.0.0.1:1"),
        ("127.0.0.1:99999", "http://127.0.0.1:11434"),
        ("127.0.0.1:port", "http://127.0.0.1:11434"),
    ],
)
def test_hosts_that_only_the_go_client_understands(host, url):
    assert server_url(host) == url


@pytest.mark.parametrize("host", ["ftp://a", "http://me:hunter2@a", "a b", "unix:///run/o.sock"])
def test_what_is_no_host_is_refused_unquoted(host):
    with pytest.raises(PipeError, match="OLLAMA_HOST") as error:
        server_url(host)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("", True), ("0.0.0.0", True), ("localhost:1", True), ("127.8.8.8", True),
        ("[::1]:1", True), ("192.168.0.2", False), ("localhost.example.com", False),
    ],
)  # fmt: skip
def test_loopback(host, loopback):
    assert OllamaServer(host).is_loopback is loopback


def test_the_environment_names_the_host(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:8080")
    assert OllamaServer.from_environment().url == "http://127.0.0.1:8080"
    monkeypatch.delenv("OLLAMA_HOST")
    assert OllamaServer.from_environment().url == "http://127.0.0.1:11434"


def test_no_server_is_said_with_the_next_step():
    with pytest.raises(OllamaUnreachable, match="ollama serve"):
        OllamaServer(f"127.0.0.1:{free_port()}").version()


def test_a_loopback_server_is_asked_without_proxy_or_key(fake, server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("OLLAMA_API_KEY", "planted-key")
    assert server.version() == "0.34.1"
    server.chat("m", HELLO)
    assert "planted-key" not in str(fake.seen)


def test_another_machine_is_asked_through_the_proxy(fake, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", fake.url)
    monkeypatch.setenv("http_proxy", fake.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(OllamaRefused):
        OllamaServer("http://models.example:11434").version()
    assert fake.seen[0][0].startswith("GET http:")


def test_a_broken_connection_is_tried_again(fake, server):
    fake.faults["GET /api/version"] = cut(2)
    assert server.version() == "0.34.1"
    assert fake.calls("GET /api/version") == 3


def test_tries_are_bounded(fake, server):
    fake.faults["GET /api/version"] = cut(9)
    with pytest.raises(OllamaUnreachable, match="broke in /api/version"):
        server.version()
    assert fake.calls("GET /api/version") == 3


@pytest.mark.parametrize("call", ["create", "chat", "delete"])
def test_what_changes_something_is_never_repeated(fake, server, call):
    fake.faults[key := f"{'DELETE' if call == 'delete' else 'POST'} /api/{call}"] = cut(9)
    actions = {
        "create": lambda: server.create({"model": "m"}, str),
        "chat": lambda: server.chat("m", HELLO),
        "delete": lambda: server.delete("m"),
    }
    with pytest.raises(OllamaUnreachable, match="broke"):
        actions[call]()
    assert fake.calls(key) == 1


@pytest.mark.parametrize("fault", [hang, dribble])
@pytest.mark.parametrize("call", ["version", "create", "chat"])
def test_a_server_that_hangs_or_dribbles_is_given_up(fake, call, fault):
    server = OllamaServer(fake.url, IMPATIENT)
    fake.faults |= dict.fromkeys(["GET /api/version", "POST /api/create", "POST /api/chat"], fault)
    actions = {
        "version": server.version,
        "create": lambda: server.create({"model": "m"}, str),
        "chat": lambda: server.chat("m", HELLO),
    }
    with pytest.raises(OllamaUnreachable, match="stopped answering"):
        actions[call]()
    assert len(fake.seen) == 1


def test_a_server_error_is_in_its_own_words(fake, server):
    fake.faults["GET /api/tags"] = reply(500, {"error": "disk is full"})
    with pytest.raises(OllamaRefused, match="refused /api/tags: disk is full"):
        server.tags()


def test_another_program_on_the_port_is_noticed(fake, server):
    fake.faults["GET /api/version"] = reply(200, "<html>hello</html>")
    with pytest.raises(OllamaRefused, match="hello"):
        server.version()


def test_an_error_line_under_http_200_is_an_error(fake, server):
    fake.faults["POST /api/create"] = lines({"status": "parsing GGUF"}, {"error": "no GGUF"})
    steps = []
    with pytest.raises(OllamaRefused, match="no GGUF"):
        server.create({"model": "m"}, steps.append)
    assert steps == ["parsing GGUF"]


@pytest.mark.parametrize("events", [[], [{"status": "writing manifest"}]])
def test_only_success_is_success(fake, server, events):
    fake.faults["POST /api/create"] = lines(*events)
    with pytest.raises(OllamaRefused, match="ended at"):
        server.create({"model": "m"}, str)


@pytest.fixture
def file(tmp_path: Path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" * (1 << 19))
    return path, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_file_is_sent_once(fake, server, file):
    sent = []
    assert server.upload_blob(*file, sent.append)
    assert sent == [1 << 20, 2 << 20]
    assert fake.blobs == {file[1]: 2 << 20}
    assert not server.upload_blob(*file, sent.append)
    assert fake.calls("POST /api/blobs") == 1


def test_a_broken_upload_is_sent_again(fake, server, file):
    fake.faults["POST /api/blobs"] = cut(1)
    assert server.upload_blob(*file, lambda _: None)
    assert fake.blobs == {file[1]: 2 << 20}


def test_a_server_that_hangs_in_an_upload_is_given_up(fake, file):
    fake.faults["POST /api/blobs"] = hang
    with pytest.raises(OllamaUnreachable, match="stopped answering"):
        OllamaServer(fake.url, IMPATIENT).upload_blob(*file, lambda _: None)
    assert fake.calls("POST /api/blobs") == 1


def test_other_bytes_than_the_digest_are_refused(server, file):
    with pytest.raises(OllamaRefused, match="digest mismatch"):
        server.upload_blob(file[0], f"sha256:{'0' * 64}", lambda _: None)


@pytest.mark.parametrize("digest", ["sha256:../../etc", f"sha256-{'0' * 64}", f"sha256:{'A' * 64}"])
def test_a_digest_that_is_none_is_never_sent(fake, server, digest):
    with pytest.raises(ValueError, match="64 lower-case hex"):
        server.has_blob(digest)
    assert not fake.seen


def test_a_streamed_reply(fake, server):
    fake.faults["POST /api/chat"] = lines(
        {"message": {"thinking": "2 "}},
        {"message": {"thinking": "+ 3"}},
        {"message": {"content": "5"}},
        {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3},
    )
    whole = server.chat("m", HELLO)
    assert (whole.thinking, whole.content, whole.done_reason) == ("2 + 3", "5", "stop")
    assert (whole.prompt_eval_count, whole.eval_count) == (7, 3)


def test_an_error_in_the_middle_of_a_reply_is_an_error(fake, server):
    fake.faults["POST /api/chat"] = lines({"message": {"content": "5"}}, {"error": "runner died"})
    with pytest.raises(OllamaRefused, match="runner died"):
        server.chat("m", HELLO)


def test_no_model_is_none(server):
    assert server.find("nobody") is None


def test_a_name_runs_a_file_only_by_its_digest(fake, server):
    ours, theirs = (f"sha256:{digit * 64}" for digit in "01")
    fake.models["m"] = {"files": {"a.gguf": theirs}}
    assert server.runs("m", theirs)
    assert not server.runs("m", ours)
    assert not server.runs("nobody", ours)


def waited_for(fake, seconds, at_once, answer):
    """What comes of a chat whose first byte takes so long, `at_once` of them being out."""

    def slow(handler):
        sleep(seconds)
        answer(handler)

    fake.faults["POST /api/chat"] = slow
    patience = Patience(connect=5, quick=5, slow=0.5, total=9)
    return list(Connection(fake.url, patience).events("/api/chat", {}, at_once))


def test_one_that_waits_in_the_servers_queue_does_not_hang(fake):
    done = {"done": True}
    assert waited_for(fake, 1.0, 8, lines(done)) == [done]
    with pytest.raises(OllamaUnreachable, match="stopped answering"):
        waited_for(fake, 1.0, 1, lines(done))


def test_once_it_answers_it_may_be_silent_no_longer_than_another(fake):
    started = monotonic()
    with pytest.raises(OllamaUnreachable, match="stopped answering"):
        waited_for(fake, 0, 18, stall)
    assert monotonic() - started < 5, "not the 9 s of the first byte"


def test_a_hundred_open_replies_keep_the_next_from_nothing(fake):
    fake.faults["POST /api/chat"] = stall
    connection = Connection(fake.url, Patience(quick=0.5, slow=20))
    open_replies = [connection.events("/api/chat", {}) for _ in range(110)]
    with ThreadPool(1) as pool:
        begun = pool.apply_async(lambda: [next(each) for each in open_replies]).get(20)
    assert begun == [{"status": "parsing GGUF"}] * 110
    for each in open_replies:
        each.close()
