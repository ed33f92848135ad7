"""A GGUF in llama.cpp's own C interface: its vocabulary, and memory for several conversations."""

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from pipeline.cores import cores
from pipeline.errors import PipeError

N_BATCH = 512
"""Tokens that one call decodes at most."""
_PAD = 256
"""llama.cpp rounds a conversation's context up to a multiple of this (llama-context.cpp)."""
_THREAD_BYTES = 8 << 20
"""Weights worth a thread: with less, threads wait for one another, on a busy machine for ever."""


@dataclass(frozen=True)
class Feed:
    """Tokens that a conversation goes on with, from `position` on."""

    sequence: int
    position: int
    tokens: Sequence[int]
    wanted: int
    """Logits are asked for after each of so many last tokens."""


class LlamaContext:
    """`sequences` conversations of `n_ctx` tokens each, apart from one another.

    Raises PipeError for a file that llama.cpp does not load and where memory does not suffice.
    """

    def __init__(self, path: str, *, n_ctx: int, sequences: int, gpu_layers: int) -> None:
        # warnings, of a context shorter than the model's above all, would hide what went wrong
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        llama_cpp.llama_backend_init()
        wanted = llama_cpp.llama_model_default_params()
        wanted.n_gpu_layers = gpu_layers
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), wanted)
        if not self._model:
            raise PipeError(f"llama.cpp does not load {path}.")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))
        self.bos_id = int(llama_cpp.llama_vocab_bos(self.vocabulary))
        self.eos_id = int(llama_cpp.llama_vocab_eos(self.vocabulary))
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(self.vocabulary))
        self.sequences = sequences
        self._context = _context(self._model, n_ctx, sequences)
        self.n_ctx = int(llama_cpp.llama_n_ctx_seq(self._context))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(N_BATCH, 0, 1)

    def decode(self, feeds: Sequence[Feed]) -> NDArray[np.float32]:
        """Logits, float32 [tokens whose logits are wanted, n_vocab], in the order of `feeds`.

        At most N_BATCH tokens. What is returned holds until the next call.
        """
        self._fill(feeds)
        if code := llama_cpp.llama_decode(self._context, self._batch):
            raise PipeError(f"llama.cpp does not decode {self._batch.n_tokens} tokens: code {code}")
        outputs = sum(feed.wanted for feed in feeds)
        if not outputs:
            return np.empty((0, self.n_vocab), np.float32)
        pointer = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(outputs, self.n_vocab))

    def forget(self, sequence: int) -> None:
        """Empty a conversation's memory."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Ids of a text, its control tokens parsed; BOS before it where the file says so."""
        data = text.encode()
        room = len(data) + 2
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self.vocabulary, data, len(data), ids, room, add_special, True
        )
        if count < 0:
            raise PipeError(f"llama.cpp does not tokenize a text of {len(data)} bytes.")
        return list(ids[:count])

    def piece(self, token: int, *, control: bool = False) -> bytes:
        """A token's bytes; those of a control token only with `control`."""
        buffer = ctypes.create_string_buffer(64)
        for _ in range(2):
            size = llama_cpp.llama_token_to_piece(
                self.vocabulary, token, buffer, len(buffer), 0, control
            )
            if size >= 0:
                break
            buffer = ctypes.create_string_buffer(-size)
        return buffer.raw[:size]

    def ends(self, token: int) -> bool:
        """Whether the token ends a reply."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def template(self) -> str | None:
        """The Jinja chat template that the file carries."""
        text = llama_cpp.llama_model_chat_template(self._model, None)
        return text.decode() if text is not None else None

    def name_of(self, token: int) -> str:
        """A token's text, control tokens spelled out; "" for an id that the file does not name."""
        return self.piece(token, control=True).decode() if token >= 0 else ""

    def facts(self) -> dict[str, Any]:
        """The fields of `pipeline.engines.llamacpp.LlamaFacts`."""
        words, ids = self.vocabulary, range(self.n_vocab)
        return {
            "n_vocab": self.n_vocab,
            "n_ctx": self.n_ctx,
            "n_ctx_train": llama_cpp.llama_model_n_ctx_train(self._model),
            "bos": self.bos_id,
            "eos": self.eos_id,
            "eot": llama_cpp.llama_vocab_eot(words),
            "add_bos": self.add_bos,
            "eog": [i for i in ids if self.ends(i)],
            "control": [i for i in ids if llama_cpp.llama_vocab_is_control(words, i)],
            "has_template": self.template() is not None,
        }

    def _fill(self, feeds: Sequence[Feed]) -> None:
        batch, at = self._batch, 0
        for feed in feeds:
            last = len(feed.tokens) - feed.wanted
            for number, token in enumerate(feed.tokens):
                batch.token[at] = token
                batch.pos[at] = feed.position + number
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = feed.sequence
                batch.logits[at] = number >= last
                at += 1
        batch.n_tokens = at


def _context(model: Any, n_ctx: int, sequences: int) -> Any:
    wanted = llama_cpp.llama_context_default_params()
    each = -(-n_ctx // _PAD) * _PAD
    wanted.n_ctx = each * sequences
    wanted.n_seq_max = sequences
    # a part of the memory for each: what one says moves no cell of another
    wanted.kv_unified = False
    wanted.n_batch = wanted.n_ubatch = N_BATCH
    wanted.n_threads = wanted.n_threads_batch = _threads(model)
    wanted.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, wanted)
    if not context:
        raise PipeError(f"llama.cpp has no memory for {sequences} conversations of {each} tokens.")
    return context


def _threads(model: Any) -> int:
    return max(1, min(cores(), int(llama_cpp.llama_model_size(model)) // _THREAD_BYTES))
