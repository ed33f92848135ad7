"""The context length: what it is said to be really holds."""

from collections.abc import Sequence

from pipeline.chat import Message
from pipeline.check.conversations import as_sent
from pipeline.check.gates import Finding
from pipeline.check.prompts import ids_of
from pipeline.check.subject import Subject
from pipeline.engines.ollama import ChatReply, OllamaServer, full_name
from pipeline.errors import OllamaRefused

NEAR = 32
"""A prompt at most so many tokens below the context length is evaluated whole."""
_FILLER = "7 "


def context_length(subject: Subject) -> Finding:
    """A prompt close to it is evaluated whole, one beyond it is refused where nothing may be cut.

    By default Ollama 0.34 cuts such a prompt to about half the context and says nothing; what is
    left of it is shown.
    """
    wrong, n_ctx = [], subject.n_ctx
    near, count = prompt_of(subject, n_ctx - 2)
    evaluated = _chat(subject, near, truncate=False).prompt_eval_count
    loaded = loaded_context(subject.ollama, subject.name)
    if evaluated != count:
        wrong.append(f"of a prompt of {count} tokens {evaluated} are evaluated")
    if loaded != n_ctx:
        wrong.append(f"Ollama has loaded it with a context of {loaded} tokens, not {n_ctx}")
    beyond, more = prompt_of(subject, n_ctx + NEAR)
    try:
        taken = _chat(subject, beyond, truncate=False).prompt_eval_count
        wrong.append(f"a prompt of {more} tokens is taken, {taken} evaluated, and may not be cut")
    except OllamaRefused as refusal:
        if "context" not in refusal.message:
            raise
    kept = _chat(subject, beyond).prompt_eval_count
    return (
        f"{count} of {n_ctx} tokens evaluated whole; {more} refused with truncate=false, "
        f"else cut to {kept} and not said",
        wrong,
    )


def prompt_of(subject: Subject, most: int) -> tuple[list[Message], int]:
    """A question of at most `most` tokens in all, nearly as many, and how many they are."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _count(subject, middle) <= most else (low, middle - 1)
    return _question(low), _count(subject, low)


def _question(words: int) -> list[Message]:
    return as_sent([{"role": "user", "content": _FILLER * words}], None)


def _count(subject: Subject, words: int) -> int:
    conversation = _question(words)
    if subject.format is not None:
        return len(ids_of(subject, subject.format.render(conversation)))
    return len(ids_of(subject, subject.llama.render(conversation)))


def _chat(
    subject: Subject, conversation: Sequence[Message], truncate: bool | None = None
) -> ChatReply:
    options = {"temperature": 0, "num_predict": 1}
    return subject.ollama.chat(subject.name, conversation, options=options, truncate=truncate)


def loaded_context(server: OllamaServer, name: str) -> int:
    """The context length of the running model of that name, by /api/ps; 0 where it does not run."""
    running = {full_name(str(each.get("name", ""))): each for each in server.running()}
    return int(running.get(full_name(name), {}).get("context_length") or 0)
