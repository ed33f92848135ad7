"""The child process in which llama.cpp runs: a crash there is an error here, not our death.

Started by `pipeline.engines.llamacpp`. A reply comes step by step, as it is asked for: whoever
stops asking has stopped it.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.child import Message, Send, serve
from pipeline.engines.llama_batch import Replies
from pipeline.engines.llama_context import N_BATCH, Feed, LlamaContext
from pipeline.errors import PipeError

_AT_ONCE = 1 << 17
"""Log-probabilities in float64 that stay near a core: one token's of a vocabulary of 128,256."""


class Worker:
    _context: LlamaContext
    _replies: Replies

    def load(self, request: Message, _: Send) -> None:
        """Load a GGUF for `sequences` conversations of `n_ctx` tokens each."""
        self._context = LlamaContext(
            request["path"],
            n_ctx=request["n_ctx"],
            sequences=request["sequences"],
            gpu_layers=request["gpu_layers"],
        )

    def facts(self, _: Message, __: Send) -> dict[str, Any]:
        return self._context.facts()

    def tokenize(self, request: Message, _: Send) -> list[int]:
        """Ids of a text as Ollama's llama-server reads it: BOS added, control tokens parsed."""
        return self._context.tokenize(request["text"], add_special=request["add_bos"])

    def pieces(self, request: Message, _: Send) -> list[str]:
        """Each token's bytes, one letter a byte; a control token has none."""
        return [self._context.piece(token).decode("latin-1") for token in request["ids"]]

    def render(self, request: Message, _: Send) -> dict[str, str]:
        """A conversation through the file's own Jinja template, by llama-cpp-python; and BOS."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = self._context.template()
        if template is None:
            raise PipeError(
                "The file carries no chat template.",
                "Export it with one: pipe export, or ask the model by its name in Ollama.",
            )
        bos, eos = map(self._context.name_of, (self._context.bos_id, self._context.eos_id))
        formatter = Jinja2ChatFormatter(template=template, bos_token=bos, eos_token=eos)
        rendered = formatter(
            messages=request["messages"], enable_thinking=request["enable_thinking"]
        )
        return {"prompt": str(rendered.prompt), "bos": bos if self._context.add_bos else ""}

    def begin(self, request: Message, _: Send) -> None:
        """Take up new conversations; those before them are forgotten."""
        self._replies = Replies(self._context, request)

    def step(self, _: Message, __: Send) -> list[Message]:
        """What `Replies.step` gives."""
        return self._replies.step()

    def score(self, request: Message, send: Send) -> None:
        """Send the log-probabilities of each of `sequences`, (ids, target_start)."""
        keep = request["keep"]
        with Path(keep).open("wb") if keep else nullcontext() as out:
            for ids, target_start in request["sequences"]:
                send({"log_probabilities": self._scored(ids, target_start, out)})

    def _scored(self, ids: list[int], target_start: int, out: IO[bytes] | None) -> list[float]:
        scores: list[float] = []
        step = max(1, _AT_ONCE // self._context.n_vocab)
        for end, logits in self._logits(ids, target_start):
            targets = ids[end - len(logits) + 1 : end + 1]
            for at in range(0, len(targets), step):
                rows = log_softmax(logits[at : at + step])
                wanted = targets[at : at + step]
                scores += rows[np.arange(len(wanted)), wanted].tolist()
                if out is not None:
                    out.write(rows.tobytes())
        return scores

    def _logits(
        self, ids: Sequence[int], target_start: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Logits of the last tokens of ids[:end], for every `end`, as far as they predict one."""
        self._context.forget(0)
        given = ids[:-1]
        for start in range(0, len(given), N_BATCH):
            tokens = given[start : start + N_BATCH]
            end = start + len(tokens)
            wanted = min(len(tokens), max(0, end - target_start + 1))
            yield end, self._context.decode([Feed(0, start, tokens, wanted)])


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Natural log-probabilities of each row, summed in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows.astype(np.float32)


if __name__ == "__main__":
    # Ctrl-C is for the parent to answer; the child ends when its input does
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker()
    operations = ("load", "facts", "tokenize", "pieces", "render", "begin", "step", "score")
    serve({name: getattr(worker, name) for name in operations})
