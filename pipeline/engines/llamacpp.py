"""llama.cpp through llama-cpp-python, in a child process that may crash without taking us along."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.chat import ASSUMED, Conversation, Encoded, Encoder, parse_reply
from pipeline.child import Child
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.gguf_file import read_gguf
from pipeline.errors import PipeError

REBUILD = (
    "If it is the build, rebuild it for any AVX2 processor: "
    "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)


class LlamaFacts(TypedDict):
    """What llama.cpp knows of a loaded model. -1 is an id that the file does not name."""

    n_vocab: int
    n_ctx: int
    """Tokens that a conversation has room for: those asked for, rounded up by llama.cpp."""
    n_ctx_train: int
    bos: int
    eos: int
    eot: int
    add_bos: bool
    eog: list[int]
    """Every id that ends a reply."""
    control: list[int]
    """Every id of a control token, which has no text in a reply."""
    has_template: bool


def _llama_process() -> Child:
    return Child("pipeline.engines.llama_worker", hint=REBUILD)


class LlamaCppEngine:
    """A GGUF file that answers. The context is `n_ctx` tokens, prompt and reply together.

    Without an encoder, of a file of which nothing else is known, prompts are what llama-server
    makes of them: the file's own Jinja template, control tokens parsed, BOS once. `batch_size`
    conversations are decoded at a time, each with a context of its own: memory grows with it.
    `seed` is not used: each `Decoding` has its own.
    """

    def __init__(
        self,
        gguf: Path,
        encoder: Encoder | None,
        *,
        n_ctx: int,
        gpu_layers: int = -1,
        batch_size: int = 1,
    ) -> None:
        self.name = gguf.stem
        self.encoder = encoder
        self.format = encoder.format if encoder else ASSUMED
        self.n_ctx = n_ctx
        self.header = read_gguf(gguf)
        self._pieces: dict[int, bytes] = {}
        self._process = _llama_process()
        try:
            self._process.ask(
                "load", path=str(gguf), n_ctx=n_ctx, gpu_layers=gpu_layers, sequences=batch_size
            )
        except PipeError:
            self._process.close()
            raise

    def facts(self) -> LlamaFacts:
        """What llama.cpp says of the loaded file."""
        facts: LlamaFacts = self._process.ask("facts")
        return facts

    def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
        """The generation prompt by the Jinja template that the file carries.

        A conversation that ends with the assistant's words is rendered without them, and they
        follow as they are and say themselves whether the reply thinks. Raises PipeError for a file
        without a template.
        """
        return str(self._rendered(conversation, thinking)["prompt"])

    def tokenize(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Ids as llama.cpp reads a rendered prompt."""
        return list(self._process.ask("tokenize", text=text, add_bos=add_bos))

    def prompt(self, conversation: Conversation, *, thinking: bool = True) -> list[int]:
        """Ids of the generation prompt, BOS first."""
        if self.encoder:
            return self.encoder.prompt(conversation, thinking=thinking)
        rendered = self._rendered(conversation, thinking)
        return self.tokenize(rendered["prompt"].removeprefix(rendered["bos"]))

    def reply_of(self, ids: Sequence[int]) -> str:
        """Text of ids without control tokens."""
        if self.encoder:
            return self.encoder.reply_of(ids)
        if unknown := [number for number in ids if number not in self._pieces]:
            pieces = self._process.ask("pieces", ids=unknown)
            self._pieces |= {i: p.encode("latin-1") for i, p in zip(unknown, pieces, strict=True)}
        return b"".join(self._pieces[number] for number in ids).decode(errors="replace")

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order; a full context cuts a reply off, even before its first token.

        One that is drawn comes from a generator seeded by (`decoding.seed`, its place here).
        """
        prompts = [self.prompt(c, thinking=thinking) for c in conversations]
        tokens: list[list[int]] = [[] for _ in prompts]
        gaps: list[list[float]] = [[] for _ in prompts]
        ended: dict[int, dict[str, Any]] = {}
        shown = 0
        for event in self._events(prompts, decoding):
            index = event["index"]
            gaps[index] += [] if event["gap"] is None else [event["gap"]]
            if "token" in event:
                tokens[index].append(event["token"])
                continue
            ended[index] = event
            while end := ended.pop(shown, None):
                yield self._completion(tokens[shown], gaps[shown], end)
                shown += 1

    def score(self, sequences: Sequence[Encoded], keep: Path | None = None) -> list[NDArray[Any]]:
        """See `Scorer`. Raises PipeError for a sequence longer than the context."""
        for number, sequence in enumerate(sequences):
            if len(sequence.ids) > self.n_ctx:
                raise PipeError(
                    f"Text {number} has {len(sequence.ids)} tokens, the context {self.n_ctx}.",
                    "Give the model a longer context, or leave that text out.",
                )
            if sequence.target_start < 1:
                raise ValueError("nothing stands before the first token")
        asked = [(sequence.ids, sequence.target_start) for sequence in sequences]
        messages = self._process.stream(
            "score", sequences=asked, keep=None if keep is None else str(keep)
        )
        return [
            np.array(message["log_probabilities"], np.float32)
            for message in messages
            if "log_probabilities" in message
        ]

    def memory_bytes(self) -> int | None:
        """Resident bytes of llama.cpp's process, the mapped file included; not what a GPU holds."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return None

    def close(self) -> None:
        self._process.close()

    def _rendered(self, conversation: Conversation, thinking: bool) -> dict[str, str]:
        messages, begun = list(conversation), ""
        if messages and messages[-1]["role"] == "assistant":
            begun, thinking = messages.pop()["content"], True
        rendered = self._process.ask("render", messages=messages, enable_thinking=thinking)
        return {**rendered, "prompt": rendered["prompt"] + begun}

    def _events(self, prompts: list[list[int]], decoding: Decoding) -> Iterator[dict[str, Any]]:
        self._process.ask(
            "begin",
            prompts=prompts,
            n_ctx=self.n_ctx,
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            seed=decoding.seed,
        )
        while events := self._process.ask("step"):
            yield from events

    def _completion(self, ids: list[int], gaps: list[float], end: dict[str, Any]) -> Completion:
        text, stopped = self.reply_of(ids), bool(end["stopped"])
        reply = parse_reply(text, self.format)
        return Completion(
            text, reply, len(ids) + stopped, stopped, tuple(gaps), end["first_token_s"]
        )
