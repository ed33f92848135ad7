"""Partners for `pipe chat`: a conversation in, the reply in pieces, thinking told from answer."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.chat import Encoder, Message, Part, ReplySplitter
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.ollama import OllamaServer


class FilePartner:
    """A GGUF in llama.cpp, no server needed. `n_ctx` tokens hold prompt and reply together."""

    def __init__(
        self, gguf: Path, encoder: Encoder, n_ctx: int, sampling: Mapping[str, float]
    ) -> None:
        self._engine = LlamaCppEngine(gguf, encoder, n_ctx=n_ctx)
        self._n_ctx, self._sampling = n_ctx, sampling

    def stream(self, messages: Sequence[Message]) -> Iterator[tuple[Part, str]]:
        encoder = self._engine.encoder
        room = self._n_ctx - len(encoder.prompt(messages)) - 1
        splitter = ReplySplitter(encoder.format)
        for piece in self._engine.stream(messages, max_new_tokens=room, **self._sampling):
            yield from splitter.feed(piece)
        yield from splitter.end()

    def close(self) -> None:
        self._engine.close()


class ServedPartner:
    """A model in Ollama, which splits the reply itself."""

    def __init__(self, model: str, sampling: Mapping[str, float]) -> None:
        self._server = OllamaServer.from_environment()
        self._model, self._sampling = model, sampling

    def stream(self, messages: Sequence[Message]) -> Iterator[tuple[Part, str]]:
        pieces = self._server.stream_chat(self._model, messages, options=self._sampling)
        for kind, piece in pieces:
            yield ("thinking" if kind == "thinking" else "answer"), piece
