"""`pipe chat` in a terminal and in scripts, with a partner that says what it is told to."""

import os
import signal
import stat
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.prompt import _prepare, history_file, read_question, typed
from pipeline.cli.screen import harmless
from pipeline.cli.terminal import COMMANDS, Terminal
from pipeline.cli.transcript import Exchange, Transcript, load
from pipeline.engines.talk import Manner, Piece, Remark
from pipeline.errors import OllamaUnreachable, PipeError
from tests.support.scripted import Scripted, ending, reply


def lines(*typed: str | Callable[[], str]):
    """Reads what was typed, then the end of the input."""
    left = iter(typed)

    def read(_: str) -> str:
        for line in left:
            if line == "^C":
                raise KeyboardInterrupt
            return line() if callable(line) else line
        raise EOFError

    return read


@pytest.fixture
def talked(capsys):
    def talk(partner: Scripted, *typed: str | Callable[[], str], system: str = "") -> str:
        Terminal(partner, Manner(seed=5), system, lines(*typed)).run()
        return capsys.readouterr().out

    return talk


def test_a_reply_is_thinking_then_answer_without_escape_codes_in_a_pipe(talked):
    shown = talked(Scripted(reply()), "2 + 2?")
    assert "two and two\n\n4\n" in shown and "\x1b" not in shown


def test_the_conversation_goes_on_with_answers_alone_and_another_seed(talked):
    partner = Scripted(reply())
    talked(partner, "one", "two", system="S")
    assert partner.asked[1][0] == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "two"},
    ]
    assert [manner.seed for _, manner in partner.asked] == [5, 6]


def test_folded_thinking_is_one_line_that_counts_and_can_be_opened(talked):
    shown = talked(Scripted(reply("two and two")), "/fold", "2 + 2?", "/last")
    first, _, opened = shown.partition("thought: 3 tokens, ")
    assert "two and two" not in first and "two and two" in opened
    assert "/last shows it\n4\n" in opened


def test_commands_do_what_they_say(talked):
    partner = Scripted(reply())
    shown = talked(
        partner,
        "/think off",
        "a",
        "/system Be brief.",
        "b",
        "/new",
        "/system",
        "c",
        "/nosuch",
        "/help",
    )
    assert [manner.thinking for _, manner in partner.asked] == [False] * 3
    assert [len(conversation) for conversation, _ in partner.asked] == [1, 4, 1]
    assert "There is no /nosuch" in shown
    assert all(f"  {name}" in shown for name in COMMANDS)


def test_again_asks_the_same_in_the_place_of_the_last(talked):
    partner = Scripted(reply())
    shown = talked(partner, "/again", "a", "b", "/again")
    assert "Nothing was asked yet." in shown
    assert partner.asked[1][0] == partner.asked[2][0]
    assert partner.asked[1][1] != partner.asked[2][1]


def test_again_that_fails_or_is_stopped_leaves_the_earlier_exchange(talked):
    broken = [OllamaUnreachable("It broke.", "Restart.")]
    stopped = [Piece("thinking", "hm", 1), interrupt, *reply()]
    for script in (broken, stopped):
        partner = Scripted(reply())

        def fail(partner: Scripted = partner, script=script) -> str:
            partner.script = script
            return "/again"

        def mend(partner: Scripted = partner) -> str:
            partner.script = reply()
            return "b"

        assert "The earlier reply stays." in talked(partner, "a", fail, mend)
        assert [m["content"] for m in partner.asked[2][0]] == ["a", "4", "b"]


def test_again_after_loading_asks_the_last_question_of_what_was_loaded(talked, tmp_path):
    path, partner = tmp_path / "talk.json", Scripted(reply())
    Transcript("", [Exchange("old", "b")]).save(path, "m")
    shown = talked(partner, "a", f"/load {path}", "/again", "/new", "/again")
    assert [m["content"] for m in partner.asked[1][0]] == ["old"]
    assert len(partner.asked) == 2 and "Nothing was asked yet." in shown


def test_a_reply_that_was_cut_off_in_its_thinking_is_not_kept(talked):
    partner = Scripted([Piece("thinking", "hm", 1), ending("length", 70)])
    assert "The reply holds no answer: not kept." in talked(partner, "a", "b")
    assert [len(conversation) for conversation, _ in partner.asked] == [1, 1]


def test_what_a_server_says_cannot_command_the_terminal(talked):
    script = [Remark("left out", "\x07full"), PipeError("\x07broke", "\x07mend")]
    shown = talked(Scripted(script, name="\x07model"), "a")
    assert "\x07" not in shown and all(word in shown for word in ("model", "full", "broke", "mend"))


def test_stats_tell_speed_and_context(talked):
    shown = talked(Scripted(reply()), "/stats", "a", "/stats")
    assert "Nothing was answered yet." in shown
    assert "last reply     5 tokens in 1.50 s: the first after 0.50 s, then 6.0 tokens/s" in shown
    assert "context        35 of 100 tokens (35%): 30 prompt, 5 reply" in shown


def test_quit_leaves_what_follows_unread(talked):
    partner = Scripted(reply())
    talked(partner, "/quit", "a")
    assert not partner.asked


def test_an_error_in_mid_reply_keeps_what_came_on_the_screen_and_the_conversation_goes_on(talked):
    partner = Scripted([Piece("answer", "The ans", 1), OllamaUnreachable("It broke.", "Restart.")])
    shown = talked(partner, "a", "/again", "b")
    assert shown.count("The ans\npipe: It broke. The question is not kept") == 3
    assert all(len(conversation) == 1 for conversation, _ in partner.asked)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_the_reply_alone_and_keeps_an_answer_that_began(talked):
    before = signal.getsignal(signal.SIGINT)
    partner = Scripted([Piece("answer", "Four, becau", 3), interrupt, *reply()])
    shown = talked(partner, "a", "b")
    assert "Four, becau\nStopped; what came is kept." in shown
    assert [len(conversation) for conversation, _ in partner.asked] == [1, 3]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_during_the_thinking_keeps_nothing(talked):
    for stoppable in (True, False):
        script = [Piece("thinking", "hm", 1), interrupt, *reply()]
        partner = Scripted(script, stoppable=stoppable)
        shown = talked(partner, "a", "b")
        assert "Stopped before the answer: not kept." in shown
        assert [len(conversation) for conversation, _ in partner.asked] == [1, 1]
        assert partner.left.is_set()


def test_ctrl_c_twice_leaves(talked):
    partner = Scripted([Piece("answer", "x", 1), interrupt, *reply()])
    assert "Ctrl-C again" in talked(partner, "^C", "^C", "a")
    assert not partner.asked
    talked(partner, "a", "^C", "b")  # one in the reply, one at the prompt
    assert len(partner.asked) == 1
    twice = Scripted([Piece("answer", "x", 1), interrupt, interrupt, *reply()], stoppable=True)
    twice.stopped = _Never()
    talked(twice, "a", "b")
    assert len(twice.asked) == 1 and twice.left.is_set()


class _Never:
    """A partner that does not heed being stopped."""

    def is_set(self) -> bool:
        return False

    set = clear = is_set


def test_a_remark_is_made_once_until_a_new_conversation(talked):
    partner = Scripted([Remark("left out", "The context is full."), *reply()])
    assert talked(partner, "a", "b", "c").count("The context is full.") == 1
    assert talked(partner, "a", "/new", "b").count("The context is full.") == 2


def test_a_reply_that_was_cut_off_says_by_what(talked):
    shown = talked(Scripted([Piece("answer", "x", 1), ending("length", 70)]), "a")
    assert "Cut off after 70 tokens: the context is full." in shown


def test_longer_questions_are_typed_in_lines():
    assert read_question(lines("a \\", "b\\", "c")) == "a \nb\nc"
    assert read_question(lines('"""one', "two", 'three"""')) == "one\ntwo\nthree"
    assert read_question(lines('"""', " x\\", '"""')) == " x\\"
    assert read_question(lines('"""at once"""')) == "at once"
    with pytest.raises(EOFError):
        read_question(lines('"""never closed'))


def test_what_a_model_says_cannot_command_the_terminal():
    hostile = "\x1b[2J\x1b]0;title\x07 ok\r\ntab\there\x9b31m\x7f"
    assert harmless(hostile) == "�[2J�]0;title� ok\ntab\there�31m�"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(words, st.lists(st.builds(Exchange, words, words, words), max_size=4))
def test_a_conversation_saved_as_json_loads_as_it_was(system, exchanges):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "talk.json"
        Transcript(system, exchanges).save(path, "m")
        assert load(path) == Transcript(system, exchanges)


def test_saving_replaces_a_file_only_when_told_to(talked, tmp_path):
    path = tmp_path / "talk.md"
    path.write_text("precious")
    shown = talked(Scripted(reply()), "2 + 2?", f"/save {path}", "/save", "/save x.txt")
    assert "is there already." in shown and path.read_text() == "precious"
    assert "Say where" in shown and "neither in .md nor in .json" in shown
    talked(Scripted(reply()), "2 + 2?", f"/save! {path}")
    text = path.read_text()
    assert "## Question\n\n2 + 2?" in text and "<details><summary>Thinking</summary>" in text


def test_a_save_that_fails_leaves_the_file_as_it_was(talked, tmp_path):
    path = tmp_path / "talk.md"
    path.write_text("precious")
    shown = talked(Scripted(reply()), "a \ud800", f"/save! {path}", "/save ~nobody-at-all/x.md")
    assert "could not be written" in shown and path.read_text() == "precious"
    assert "names no home folder" in shown


def test_typed_bytes_that_are_no_text_are_replaced(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with typed(tmp_path / "history", COMMANDS) as read:
        assert read("> ") == "caf\ufffd"


def test_loading_goes_on_from_a_saved_conversation_and_refuses_anything_else(talked, tmp_path):
    path, partner = tmp_path / "talk.json", Scripted(reply())
    Transcript("S", [Exchange("a", "b", "c")]).save(path, "m")
    talked(partner, f"/load {path}", "d")
    assert [m["content"] for m in partner.asked[0][0]] == ["S", "a", "b", "d"]
    said = '{"role": "user", "content": %s}'
    half, nothing, lone = (said % content for content in ('"x"', "null", '"\\ud800"'))
    pairs = [f'{{"messages": [{bad}, {bad}]}}' for bad in (nothing, lone, "3")]
    for bad in ("{", "[]", f'{{"messages": [{half}]}}', '{"messages": 3}', *pairs):
        path.write_text(bad)
        with pytest.raises(PipeError, match="holds no conversation"):
            load(path)


def test_the_history_is_readable_by_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert history_file(tmp_path / "none") == tmp_path / "state" / "pipe" / "chat_history"
    assert history_file(tmp_path) == tmp_path / ".chat_history"
    path = history_file(tmp_path / "none")
    assert _prepare(path) and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_is_said_and_hinders_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert not _prepare(tmp_path / "file" / "chat_history")
    assert "What you type is not kept" in capsys.readouterr().err
