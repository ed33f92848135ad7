"""The child process that talks: one conversation, whose reply comes step by step.

Started by `pipeline.engines.talk_file`. Whoever stops asking for steps has stopped the reply.
"""

import codecs
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp

from pipeline.child import Message, Send, serve
from pipeline.engines.llama_context import N_BATCH, Feed, LlamaContext
from pipeline.engines.llama_worker import Worker

_TOP_K = 40
"""As Ollama draws where a Modelfile says nothing: DefaultOptions in its api/types.go."""
_PENALISED = 64
"""Tokens that a repeat penalty looks back on: repeat_last_n there."""


class TalkContext(LlamaContext):
    """The memory of one conversation, which keeps what the next prompt shares with it."""

    def __init__(self, path: str, *, n_ctx: int, gpu_layers: int, threads: int) -> None:
        super().__init__(path, n_ctx=n_ctx, sequences=1, gpu_layers=gpu_layers)
        self._held: list[int] = []
        if threads:
            llama_cpp.llama_set_n_threads(self._context, threads, threads)

    def keep(self, ids: Sequence[int]) -> int:
        """Forget what differs from `ids`; how many of them, but the last, need not be decoded."""
        pairs = enumerate(zip(self._held, ids, strict=False))
        alike = next((at for at, (a, b) in pairs if a != b), min(len(self._held), len(ids)))
        kept = min(alike, len(ids) - 1)
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1):
            # a recurrent memory forgets all or nothing
            llama_cpp.llama_memory_seq_rm(self._memory, 0, -1, -1)
            kept = 0
        self._held = self._held[:kept]
        return kept

    def extend(self, tokens: Sequence[int], *, wanted: bool) -> None:
        """Decode tokens after those held; `wanted` leaves the logits after the last to `draw`."""
        self.decode([Feed(0, len(self._held), tokens, int(wanted))])
        self._held += tokens

    def draw(self, sampler: Any) -> int:
        return int(llama_cpp.llama_sampler_sample(sampler, self._context, -1))


class Reply:
    """One reply to `ids`; `temperature` 0 is greedy."""

    def __init__(self, context: TalkContext, request: Message) -> None:
        self._context, self._left = context, request["max_new_tokens"]
        self._pending = request["ids"][context.keep(request["ids"]) :]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sampler = sampler(request, context.n_vocab)
        self.tokens = 0

    def step(self) -> Message:
        """{"text", "tokens"}: what came and all tokens so far, none while the prompt is decoded;
        with "reason" at its end, `stop` or `length`."""
        if self._left <= 0:
            return self._end("length")
        batch, self._pending = self._pending[:N_BATCH], self._pending[N_BATCH:]
        self._context.extend(batch, wanted=not self._pending)
        if self._pending:
            return {"text": "", "tokens": 0}
        token = self._context.draw(self._sampler)
        self.tokens += 1
        self._left -= 1
        if self._context.ends(token):
            return self._end("stop")
        self._pending = [token]
        return {"text": self._decoder.decode(self._context.piece(token)), "tokens": self.tokens}

    def free(self) -> None:
        llama_cpp.llama_sampler_free(self._sampler)

    def _end(self, reason: str) -> Message:
        rest = self._decoder.decode(b"", final=True)
        return {"text": rest, "tokens": self.tokens, "reason": reason}


def sampler(asked: Mapping[str, Any], n_vocab: int) -> Any:
    """llama.cpp's samplers in llama-server's order, which Ollama leaves as it is."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    penalty = asked["repeat_penalty"]
    links = [llama_cpp.llama_sampler_init_penalties(n_vocab, _PENALISED, penalty, 0.0, 0.0)]
    if asked["temperature"] > 0:
        links += [
            llama_cpp.llama_sampler_init_top_k(_TOP_K),
            llama_cpp.llama_sampler_init_top_p(asked["top_p"], 1),
            llama_cpp.llama_sampler_init_temp(asked["temperature"]),
            llama_cpp.llama_sampler_init_dist(asked["seed"]),
        ]
    else:
        links.append(llama_cpp.llama_sampler_init_greedy())
    for link in links:
        llama_cpp.llama_sampler_chain_add(chain, link)
    return chain


class TalkWorker(Worker):
    _talk: TalkContext
    _reply: Reply | None = None

    def load(self, request: Message, _: Send) -> None:
        """Load a GGUF for `n_ctx` tokens of context; `threads` 0 takes all cores."""
        names = ("n_ctx", "gpu_layers", "threads")
        self._talk = TalkContext(request["path"], **{name: request[name] for name in names})
        self._context = self._talk

    def begin(self, request: Message, _: Send) -> None:
        """Take up a reply; one that is under way is left as it stands."""
        if self._reply:
            self._reply.free()
        self._reply = Reply(self._talk, request)

    def step(self, _: Message, __: Send) -> Message:  # type: ignore[override]
        """What `Reply.step` gives."""
        assert self._reply
        return self._reply.step()


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches every process: the parent decides what it stops
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = TalkWorker()
    operations = ("load", "tokenize", "render", "begin", "step")
    serve({name: getattr(worker, name) for name in operations})
