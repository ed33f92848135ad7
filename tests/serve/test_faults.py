"""A server that fails in the middle of a registration: time is bounded, and what stands is said."""

import threading
from dataclasses import replace
from time import monotonic, sleep

import pytest

from pipeline.engines.ollama import OllamaServer
from pipeline.engines.ollama_http import Patience
from pipeline.errors import OllamaRefused, OllamaUnreachable, PipeError
from pipeline.run import Note, Progress, silent
from pipeline.serve import RegisterOptions, register
from pipeline.serve.pulse import pulse
from tests.serve.runs import RECIPE, digest, new_run, refuse_the_second
from tests.support.faulty_ollama import cut, early, faulty_ollama, hang, lines, reply, stall
from tests.support.ollama import free_port

PLAIN = RegisterOptions()
IMPATIENT = Patience(connect=0.5, quick=0.15, slow=0.15, total=0.3, restart=0.2)
FULL = {"error": "write /models/blobs/sha256-17: no space left on device"}
OLD_STANDS = r"The model my-model that was there before is as it was\."


@pytest.fixture
def older(ollama, tmp_path):
    """Another run's models bear the names; the digest of the first."""
    run = new_run(tmp_path, "older")
    for name, kind in {"my-model": "Q8_0", "my-model:q4_k_m": "Q4_K_M"}.items():
        ollama.blobs[digest(run, kind)] = 1
        ollama.models[name] = {"model": name, "files": {"a.gguf": digest(run, kind)}}
    return digest(run, "Q8_0")


def texts(events):
    return " ".join(event.text for event in events if isinstance(event, Note))


CALLS = [
    "GET /api/version", "POST /api/show", "HEAD /api/blobs", "POST /api/blobs", "POST /api/copy",
    "POST /api/create", "POST /api/generate", "POST /api/chat",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_hangs_anywhere_is_given_up_in_time(ollama, older, run, monkeypatch, call):
    impatient = OllamaServer(ollama.url, IMPATIENT)
    monkeypatch.setattr(OllamaServer, "from_environment", lambda: impatient)
    ollama.faults[call] = hang
    started = monotonic()
    with pytest.raises(OllamaUnreachable, match=r"stopped answering in .*; given up"):
        register(RECIPE, run, silent, PLAIN)
    assert monotonic() - started < 10
    assert run.manifest("serve") is None


@pytest.mark.parametrize("fault", [hang, reply(500, {"error": "permission denied"})])
def test_an_old_model_that_cannot_be_removed_does_not_undo_the_new(
    ollama, older, run, monkeypatch, fault
):
    impatient = OllamaServer(ollama.url, replace(IMPATIENT, quick=0.5))
    monkeypatch.setattr(OllamaServer, "from_environment", lambda: impatient)
    ollama.faults["DELETE /api/delete"] = fault
    notes = []
    manifest = register(RECIPE, run, notes.append, PLAIN)
    assert run.manifest("serve") == manifest
    assert ollama.digest_of("my-model") == digest(run, "Q8_0")
    assert "remove it: ollama rm my-model:before-register" in texts(notes)
    assert all(note.warning for note in notes if "before-register" in getattr(note, "text", ""))


def test_an_old_model_that_could_not_be_removed_is_not_put_back_later(ollama, older, run, tmp_path):
    refused = reply(500, {"error": "permission denied"})
    ollama.faults = {"DELETE /api/delete": refused}
    register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model:before-register") == older
    ollama.faults["POST /api/chat"] = reply(500, {"error": "llama-server died"})
    with pytest.raises(OllamaRefused, match="died"):
        register(RECIPE, new_run(tmp_path, "newer"), silent, PLAIN)
    assert ollama.digest_of("my-model") == digest(run, "Q8_0")


def test_of_two_runs_the_one_registered_last_is_what_was_proven(ollama, run, tmp_path):
    newer = new_run(tmp_path, "a-newer")
    for each in (run, newer):
        register(RECIPE, each, silent, PLAIN)
    # a registration of the older run is killed: its spare is the newer run's model
    for name in ("my-model", "my-model:before-register"):
        ollama.models[name] = {"files": {"a.gguf": digest(newer, "Q8_0")}}
        ollama.weights.pop(name, None)
    ollama.models["my-model"] = {"files": {"a.gguf": digest(run, "Q8_0")}}
    ollama.faults["POST /api/chat"] = reply(500, {"error": "llama-server died"})
    with pytest.raises(OllamaRefused, match=OLD_STANDS):
        register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model") == digest(newer, "Q8_0")


@pytest.mark.parametrize("call", ["POST /api/create", "POST /api/chat"])
def test_a_stream_that_stops_between_two_lines_is_given_up(ollama, call):
    server = OllamaServer(ollama.url, IMPATIENT)
    ollama.faults[call] = stall
    with pytest.raises(OllamaUnreachable, match="stopped answering"):
        if call == "POST /api/chat":
            server.chat("m", [])
        else:
            server.create({"model": "m"}, str)


def test_an_upload_has_so_much_time_as_its_size_allows(ollama, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(3 << 20))
    server = OllamaServer(ollama.url, Patience(slow=0.1, rate=1e12))
    sent = []
    with pytest.raises(OllamaUnreachable, match=r"stopped answering in /api/blobs;"):
        server.upload_blob(path, f"sha256:{'0' * 64}", lambda n: (sent.append(n), sleep(0.2)))
    assert sent == [1 << 20]


def test_a_full_disk_is_said_with_what_to_do(ollama, older, run):
    ollama.faults["POST /api/blobs"] = early(500, FULL)
    with pytest.raises(OllamaRefused, match="no space left on device") as error:
        register(RECIPE, run, silent, PLAIN)
    assert "Make room" in error.value.hint
    assert ollama.calls("POST /api/blobs") == 1, "no second try"
    assert ollama.digest_of("my-model") == older
    ollama.faults.clear()
    register(RECIPE, run, silent, PLAIN)


def test_a_large_upload_that_is_refused_early_is_heard(ollama, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(32 << 20))
    ollama.faults["POST /api/blobs"] = early(500, FULL)
    with pytest.raises(OllamaRefused, match="no space left"):
        OllamaServer(ollama.url).upload_blob(path, f"sha256:{'0' * 64}", lambda _: None)


def test_a_server_that_starts_again_is_waited_for():
    port = free_port()
    server = OllamaServer(f"127.0.0.1:{port}")
    with faulty_ollama(port):
        server.version()
    back = threading.Event()

    def serve_later():
        sleep(0.4)
        with faulty_ollama(port):
            back.wait(10)

    thread = threading.Thread(target=serve_later)
    thread.start()
    try:
        server.create({"model": "m", "files": {"a.gguf": "sha256:0"}}, str)
    except OllamaRefused as refusal:
        assert "no such file" in refusal.message
    finally:
        back.set()
        thread.join()


def test_a_server_that_stays_away_is_not_waited_for_long():
    with faulty_ollama() as ollama:
        server = OllamaServer(ollama.url, IMPATIENT)
        server.version()
    started = monotonic()
    with pytest.raises(OllamaUnreachable, match="No Ollama server answers"):
        server.tags()
    assert 0.2 <= monotonic() - started < 10


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("POST /api/create", cut(1)),
        ("POST /api/create", lines({"status": "parsing GGUF"}, {"error": "bad GGUF"})),
        ("POST /api/create", lines({"status": "writing manifest"})),
        ("POST /api/create", reply(500, FULL)),
        ("POST /api/chat", reply(500, {"error": "llama-server died"})),
        ("POST /api/chat", lines({"message": {"content": "5"}}, {"error": "out of memory"})),
    ],
)  # fmt: skip
def test_the_old_model_stands_until_the_new_one_has_answered(ollama, older, run, call, fault):
    ollama.faults[call] = fault
    with pytest.raises((OllamaRefused, OllamaUnreachable), match=OLD_STANDS):
        register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model") == older
    assert older in ollama.blobs
    assert sorted(ollama.models) == ["my-model", "my-model:q4_k_m"]
    assert ollama.calls("POST /api/create") == 1, "never repeated"


def test_the_old_model_is_put_back_where_the_new_one_reads_back_otherwise(
    ollama, older, run, monkeypatch
):
    honest = ollama.shown
    bare = {"capabilities": ["completion"]}
    monkeypatch.setattr(ollama, "shown", lambda name: honest(name) | bare, raising=False)
    with pytest.raises(PipeError, match=f"differs in: thinking. {OLD_STANDS}"):
        register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model") == older


def test_where_it_cannot_be_put_back_it_is_kept_under_another_name(ollama, older, run):
    def die(handler):
        handler.server.ollama.faults["POST /api/copy"] = reply(500, FULL)
        reply(500, {"error": "llama-server died"})(handler)

    ollama.faults["POST /api/chat"] = die
    with pytest.raises(OllamaRefused, match="ollama cp my-model:before-register my-model"):
        register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model:before-register") == older
    # and the next one that fails puts that one back, not the unproven
    ollama.faults = {"POST /api/chat": reply(500, {"error": "llama-server died"})}
    with pytest.raises(OllamaRefused, match=OLD_STANDS):
        register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model") == older


def test_a_copy_that_a_full_disk_cut_off_is_made_again(ollama, older, run):
    def show(handler):
        spare = handler.values["model"].endswith("before-register")
        reply(500, {"error": "unexpected EOF"})(handler) if spare else handler.behave()

    ollama.faults["POST /api/show"] = show
    register(RECIPE, run, silent, PLAIN)
    assert ollama.calls("POST /api/copy") == 2
    assert sorted(ollama.models) == ["my-model", "my-model:q4_k_m"]


def test_of_two_types_the_first_stands_and_the_same_command_goes_on(ollama, run):
    ollama.faults["POST /api/create"] = refuse_the_second
    made = r"No model my-model:q4_k_m was made\. Registered before that, whole: my-model\."
    with pytest.raises(OllamaRefused, match=made):
        register(RECIPE, run, silent, PLAIN)
    assert list(ollama.models) == ["my-model"]
    ollama.faults.clear()
    register(RECIPE, run, silent, PLAIN)
    assert ollama.calls("POST /api/blobs") == 2


@pytest.mark.parametrize("unit", ["B", "steps"])
def test_an_interruption_says_what_stands(ollama, older, run, unit):
    notes = []

    def interrupt(event):
        notes.append(event)
        if isinstance(event, Progress) and event.unit == unit:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        register(RECIPE, run, interrupt, PLAIN)
    assert "Interrupted at my-model." in texts(notes)
    assert ("as it was" in texts(notes)) is (unit == "steps")
    assert ollama.digest_of("my-model") == older
    assert sorted(ollama.models) == ["my-model", "my-model:q4_k_m"]
    assert run.manifest("serve") is None


def test_an_interruption_at_the_second_type_names_the_first(ollama, run):
    notes = []

    def interrupt(event):
        notes.append(event)
        if isinstance(event, Progress) and event.task == "create my-model:q4_k_m":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        register(RECIPE, run, interrupt, PLAIN)
    assert "Registered before that, whole: my-model." in texts(notes)


def test_a_silent_server_is_told_of_every_few_seconds():
    events = []
    with pulse(events.append, "create my-model", "steps", every=0.02) as say:
        say("parsing GGUF")
        sleep(0.2)
    assert events[0] == Progress("create my-model", 1, None, "steps", {"status": "parsing GGUF"})
    assert len(events) > 2
    assert events[-1].figures == {"status": "parsing GGUF", "silent": "0 s"}
    told = len(events)
    sleep(0.06)
    assert len(events) == told, "it ends with its block"
