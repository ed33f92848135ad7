"""The model that bears a name now is kept until the new one is proven."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.engines.ollama import OllamaServer
from pipeline.errors import OllamaRefused, OllamaUnreachable, PipeError
from pipeline.run import Emit, Note
from pipeline.serve.names import spare_name


@contextmanager
def kept(server: OllamaServer, name: str, emit: Emit, proven: str = "") -> Iterator[None]:
    """Where the block fails, the name's model is put back, and the error says what stands.

    `proven` is the digest that the name ran on when it was last registered whole, if it was.

    Ollama replaces a model, and deletes its file, before anybody has seen the new one answer; and
    it writes a manifest in place, so that a full disk destroys the old one. A second name holds it.
    """
    spare = spare_name(name)
    # one that a killed registration left is the last that was proven; one that only could not be
    # removed is older than the model that bears the name
    held = _is_whole(server, spare) and not _is_proven(server, name, proven)
    if not held and server.find(name) is not None:
        server.copy(name, spare)
        held = True
    try:
        yield
    except PipeError as error:
        stands = _put_back(server, name, spare) if held else _left(server, name)
        raise type(error)(f"{error.message.rstrip('.')}. {stands}", error.hint) from error
    except KeyboardInterrupt:
        stands = _put_back(server, name, spare) if held else _left(server, name)
        emit(Note(stands, warning=True))
        raise
    if held:
        _remove(server, spare, emit)


def _is_whole(server: OllamaServer, name: str) -> bool:
    """A copy that a full disk cut off is refused, not missing."""
    try:
        return server.find(name) is not None
    except OllamaRefused:
        return False


def _is_proven(server: OllamaServer, name: str, proven: str) -> bool:
    try:
        return bool(proven) and server.runs(name, proven)
    except OllamaRefused:
        return False


def _remove(server: OllamaServer, spare: str, emit: Emit) -> None:
    """The new model stands and is proven, whatever becomes of the old one."""
    try:
        server.delete(spare)
    except (OllamaRefused, OllamaUnreachable) as error:
        text = f"{error.message.rstrip('.')}. The model before it is still kept as {spare}"
        emit(Note(f"{text}; remove it: ollama rm {spare}", warning=True))


def _put_back(server: OllamaServer, name: str, spare: str) -> str:
    try:
        server.copy(spare, name)
        server.unload(name)
        server.delete(spare)
    except (OllamaRefused, OllamaUnreachable):
        return f"The model {name} that was there before is kept: ollama cp {spare} {name}"
    return f"The model {name} that was there before is as it was."


def _left(server: OllamaServer, name: str) -> str:
    try:
        found = server.find(name)
    except (OllamaRefused, OllamaUnreachable):
        return f"Whether {name} was made cannot be seen now; see: ollama show {name}"
    if found is None:
        return f"No model {name} was made."
    return f"{name} is there, unproven; see: ollama show {name}. Remove it: ollama rm {name}"
