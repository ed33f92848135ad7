"""llama.cpp through llama-cpp-python, in a child process that may crash without taking us along."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.chat import Conversation, Encoder, parse_reply
from pipeline.child import Child
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.gguf_file import read_gguf
from pipeline.errors import PipeError

REBUILD = (
    "If it is the build, rebuild it for any AVX2 processor: "
    "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)


def _llama_process() -> Child:
    return Child("pipeline.engines.llama_worker", hint=REBUILD)


class LlamaCppEngine:
    """A GGUF file that answers. The context is `n_ctx` tokens, prompt and reply together."""

    def __init__(
        self, gguf: Path, encoder: Encoder, *, n_ctx: int, seed: int = 0, gpu_layers: int = -1
    ) -> None:
        self.name = gguf.stem
        self.encoder = encoder
        self.header = read_gguf(gguf)
        self._process = _llama_process()
        try:
            self._process.ask(
                "load",
                path=str(gguf),
                n_ctx=n_ctx,
                gpu_layers=gpu_layers,
                seed=seed,
            )
        except PipeError:
            self._process.close()
            raise

    def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
        """The generation prompt by the Jinja template that the file carries."""
        return str(
            self._process.ask(
                "render",
                messages=list(conversation),
                enable_thinking=thinking,
                bos_token=self.encoder.format.bos,
                eos_token=self.encoder.format.end_of_turn,
            )
        )

    def tokenize(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Ids as llama.cpp reads a rendered prompt."""
        return list(self._process.ask("tokenize", text=text, add_bos=add_bos))

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order, one at a time; a full context cuts a reply off."""
        for conversation in conversations:
            ids = self.encoder.prompt(conversation, thinking=thinking)
            tokens, gaps, stopped = self._complete(ids, decoding.max_new_tokens)
            text = self.encoder.reply_of(tokens)
            reply = parse_reply(text, self.encoder.format)
            yield Completion(text, reply, len(tokens) + stopped, stopped, tuple(gaps))

    def stream(
        self, conversation: Conversation, *, temperature: float, top_p: float, max_new_tokens: int
    ) -> Iterator[str]:
        """One sampled reply, piece by piece."""
        ids = self.encoder.prompt(conversation)
        tokens: list[int] = []
        shown = ""
        for message in self._process.stream(
            "complete",
            ids=ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        ):
            if "token" in message:
                tokens.append(message["token"])
                text = self.encoder.reply_of(tokens)
                if not text.endswith("\ufffd"):
                    yield text[len(shown) :]
                    shown = text

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._process.close()

    def _complete(self, ids: list[int], limit: int) -> tuple[list[int], list[float], bool]:
        tokens: list[int] = []
        gaps: list[float] = []
        stopped = False
        for message in self._process.stream(
            "complete", ids=ids, max_new_tokens=limit, temperature=0.0, top_p=1.0
        ):
            if "token" in message:
                tokens.append(message["token"])
                gaps.append(message["gap"])
            else:
                stopped = message["result"]["stopped"]
                gaps += [message["result"]["gap"]] if stopped else []
        return tokens, gaps, stopped
