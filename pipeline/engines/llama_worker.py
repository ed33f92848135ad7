"""The child process in which llama.cpp runs: a crash there is an error here, not our death.

Started by `pipeline.engines.llamacpp`; `complete` sends {"token", "gap"} for every token.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.child import Message, Send, serve
from pipeline.cores import cores


class Worker:
    _llama: Any = None

    def load(self, request: Message, _: Send) -> dict[str, Any]:
        """Load a GGUF for `n_ctx` tokens of context, prompt and reply together."""
        from llama_cpp import Llama

        threads = cores()
        self._llama = Llama(
            request["path"],
            n_ctx=request["n_ctx"],
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=request["gpu_layers"],
            seed=request["seed"],
            verbose=False,
        )
        return {"n_ctx": self._llama.n_ctx(), "n_vocab": self._llama.n_vocab()}

    def tokenize(self, request: Message, _: Send) -> list[int]:
        """Ids of a text as Ollama's llama-server reads it: BOS added, control tokens parsed."""
        text = request["text"].encode()
        return list(self._llama.tokenize(text, add_bos=request["add_bos"], special=True))

    def render(self, request: Message, _: Send) -> str:
        """A conversation through the file's own Jinja template, by llama-cpp-python."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        formatter = Jinja2ChatFormatter(
            template=self._llama.metadata["tokenizer.chat_template"],
            bos_token=request["bos_token"],
            eos_token=request["eos_token"],
        )
        rendered = formatter(
            messages=request["messages"], enable_thinking=request["enable_thinking"]
        )
        return str(rendered.prompt)

    def complete(self, request: Message, send: Send) -> dict[str, Any]:
        """Stream tokens until the model ends or `max_new_tokens`; temperature 0 is greedy.

        `gap` of the result is the lead of the token that ended the reply.
        """
        for token, gap in self._tokens(request):
            if self._ends(token):
                return {"stopped": True, "gap": gap}
            send({"token": token, "gap": gap})
        return {"stopped": False, "gap": None}

    def _tokens(self, request: Message) -> Iterator[tuple[int, float]]:
        llama = self._llama
        llama.reset()
        pending = request["ids"]
        room = llama.n_ctx() - len(pending)
        for _ in range(min(request["max_new_tokens"], room)):
            llama.eval(pending)
            if request["temperature"] > 0:
                token, gap = self._sampled(request), 0.0
            else:
                token, gap = self._greedy()
            yield token, gap
            pending = [token]

    def _greedy(self) -> tuple[int, float]:
        """The likeliest token and its lead in logits over the second."""
        import llama_cpp
        import numpy as np

        pointer = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(self._llama.n_vocab(),))
        best = int(logits.argmax())
        second = max(logits[:best].max(initial=-np.inf), logits[best + 1 :].max(initial=-np.inf))
        return best, float(logits[best] - second)

    def _sampled(self, request: Message) -> int:
        return int(
            self._llama.sample(
                temp=request["temperature"], top_p=request["top_p"], top_k=0, min_p=0.0
            )
        )

    def _ends(self, token: int) -> bool:
        import llama_cpp

        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        return bool(llama_cpp.llama_vocab_is_eog(vocabulary, token))


if __name__ == "__main__":
    worker = Worker()
    serve(
        {
            "load": worker.load,
            "tokenize": worker.tokenize,
            "render": worker.render,
            "complete": worker.complete,
        }
    )
