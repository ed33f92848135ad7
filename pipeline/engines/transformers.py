"""Transformers: the base, the tuned model as it was trained, and the merged one."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.chat import Conversation, Encoded, Encoder, parse_reply
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.loading import Bits, Variant, load_model, scale_bytes
from pipeline.engines.trained import Trained
from pipeline.errors import PipeError

_ROWS = 512
"""Positions whose logits are held at once: 260 MB in fp32 with Llama 3's vocabulary."""


class TransformersEngine:
    """Replies and log-probabilities in batches; prompts are padded on the left, texts on the right.

    `model` is loaded, whatever was done to its layers; PEFT's, it is asked with its adapter.
    """

    def __init__(self, name: str, model: Any, encoder: Encoder, *, batch_size: int = 16) -> None:
        self.name = name
        self.encoder = encoder
        self._batch_size = batch_size
        self._ends = encoder.end_ids
        self._model = model
        self._has_adapter = hasattr(model, "get_base_model")

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order, a batch at a time; a batch shares its time to the first token.

        Each batch is drawn from the seed and its place, so that a run repeats with its batch size.
        """
        prompts = [self.encoder.prompt(c, thinking=thinking) for c in conversations]
        for start in range(0, len(prompts), self._batch_size):
            yield from self._batch(prompts[start : start + self._batch_size], decoding, start)

    def score(self, sequences: Sequence[Encoded], keep: Path | None = None) -> list[NDArray[Any]]:
        """As `Scorer` says, from logits in the model's dtype. `keep` is written anew.

        Raises ValueError for a sequence whose first token is supervised: nothing stands before it.
        """
        if any(sequence.target_start < 1 for sequence in sequences):
            raise ValueError("a sequence's first token has nothing before it to be scored by")
        if keep is None:
            return self._scores(sequences, None)
        with keep.open("wb") as file:
            return self._scores(sequences, file)

    def adapter_deltas(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """(module as the base's safetensors name it, fp32 change of its weight [out, in]).

        PEFT's own `get_delta_weight` of every LoRA layer. Raises PipeError where the adapter holds
        more than plain LoRA, such as DoRA, whose change is no sum, or whole trained weights.
        """
        from peft.tuners.lora import LoraLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        if not self._has_adapter:
            raise ValueError(f"the {self.name} holds no adapter")
        model, active = self._model.get_base_model(), self._model.active_adapter
        for name, module in model.named_modules():
            is_lora = isinstance(module, LoraLayer)
            if (is_lora and not _plain(module, active)) or isinstance(
                module, AuxiliaryTrainingWrapper
            ):
                raise PipeError(
                    f"The adapter changes {name} by more than plain LoRA (DoRA, a bias, or the "
                    "whole weight): its change cannot be told as one matrix.",
                    "What pipe train makes is plain LoRA: pipe train --force",
                )
            if is_lora and active in module.scaling:
                delta = module.get_delta_weight(active).detach().float().cpu().numpy()
                yield name, delta

    def memory_bytes(self) -> int | None:
        """On a GPU all that torch has allocated there, on a CPU the model's weights and scales."""
        import torch

        if self._model is None:
            return None
        if self._model.device.type == "cuda":
            return int(torch.cuda.memory_allocated())
        return int(self._model.get_memory_footprint()) + scale_bytes(self._model)

    def close(self) -> None:
        """Give the memory back: Ollama may want the same GPU."""
        import torch

        self._model = None
        torch.cuda.empty_cache()

    def _batch(
        self, prompts: list[list[int]], decoding: Decoding, start: int
    ) -> Iterator[Completion]:
        import torch

        width = max(map(len, prompts))
        pad = self.encoder.pad_id
        rows = [[pad] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        device = self._model.device
        torch.manual_seed(decoding.seed + start)
        watch = _Watch(greedy=decoding.temperature == 0)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=sorted(self._ends),
                pad_token_id=pad,
                logits_processor=[watch],
                **_sampling(decoding),
            )
        for row, gaps in zip(output[:, width:].tolist(), watch.rows(len(rows)), strict=True):
            yield self._completion(row, gaps, watch.first_token_s)

    def _completion(self, row: list[int], gaps: list[float], first: float | None) -> Completion:
        length = next((i for i, token in enumerate(row) if token in self._ends), len(row))
        ids, stopped = row[:length], length < len(row)
        text = self.encoder.reply_of(ids)
        reply = parse_reply(text, self.encoder.format)
        tokens = len(ids) + stopped
        return Completion(text, reply, tokens, stopped, tuple(gaps[:tokens]), first)

    def _scores(self, sequences: Sequence[Encoded], file: IO[bytes] | None) -> list[NDArray[Any]]:
        """Batches of like length, the longest first: what memory cannot hold shows at once."""
        import torch

        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i].ids))
        targets = [len(s.ids) - s.target_start for s in sequences]
        offsets = [0, *accumulate(targets)]
        scores: list[NDArray[Any]] = [np.empty(n, np.float32) for n in targets]
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            with torch.inference_mode():
                hidden = self._hidden([sequences[i].ids for i in batch])
                for row, i in enumerate(batch):
                    self._score(hidden[row], sequences[i], scores[i], file, offsets[i])
        return scores

    def _hidden(self, rows: Sequence[Sequence[int]]) -> Any:
        """Last hidden states [rows, longest, width] of ids padded on the right."""
        import torch

        width = max(map(len, rows))
        device = self._model.device
        padded = [[*ids, *[self.encoder.pad_id] * (width - len(ids))] for ids in rows]
        mask = [[1] * len(ids) + [0] * (width - len(ids)) for ids in rows]
        return self._causal.model(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False,
        ).last_hidden_state

    def _score(
        self,
        hidden: Any,
        sequence: Encoded,
        scores: NDArray[Any],
        file: IO[bytes] | None,
        offset: int,
    ) -> None:
        """Fill one sequence's scores, and its rows of the file, which begin at row `offset`."""
        import torch

        ids = torch.tensor(sequence.ids, device=hidden.device)
        head = self._causal.get_output_embeddings()
        for start in range(sequence.target_start, len(sequence.ids), _ROWS):
            end = min(start + _ROWS, len(sequence.ids))
            # a token is told by the state before it
            logits = head(hidden[start - 1 : end - 1]).float()
            logs = torch.log_softmax(logits, dim=-1)
            found = logs.gather(1, ids[start:end, None])[:, 0].cpu().numpy()
            done = start - sequence.target_start
            scores[done : done + len(found)] = found
            if file is not None:
                file.seek((offset + done) * logs.shape[1] * 4)
                file.write(logs.cpu().numpy().tobytes())

    @property
    def _causal(self) -> Any:
        """The causal language model, whose layers hold the adapter where there is one."""
        return self._model.get_base_model() if self._has_adapter else self._model


def open_trained(
    variant: Variant, tuned: Trained, encoder: Encoder, *, bits: Bits = 16, batch_size: int = 16
) -> TransformersEngine:
    """What was trained on, or what came of it, where that training computes.

    `bits` below 16 narrow the weights of the base, alone or under the adapter.
    Raises as load_model does.
    """
    base, adapter = (tuned.base, None) if variant == "base" else (tuned.model, tuned.adapter)
    model = load_model(variant, base, adapter, bits=bits, device=tuned.device)
    return TransformersEngine(variant, model, encoder, batch_size=batch_size)


class _Watch:
    """Looks at the logits as they come, for the time of the first and the lead of the likeliest."""

    def __init__(self, *, greedy: bool) -> None:
        self._greedy, self._started = greedy, perf_counter()
        self._leads: list[Any] = []
        self.first_token_s: float | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.first_token_s is None:
            scores[0, 0].item()  # a GPU is only now done
            self.first_token_s = perf_counter() - self._started
        if self._greedy:
            best = scores.topk(2, dim=-1).values.float()
            self._leads.append(best[:, 0] - best[:, 1])
        return scores

    def rows(self, count: int) -> list[list[float]]:
        """Per reply the leads of its tokens, in logits; empty where it was not greedy."""
        import torch

        if not self._leads:
            return [[] for _ in range(count)]
        return [list(row) for row in torch.stack(self._leads, dim=1).tolist()]


def _sampling(decoding: Decoding) -> dict[str, Any]:
    """No top-k: Transformers' own default of 50 is no part of the protocol."""
    if decoding.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": 0,
    }


def _plain(layer: Any, adapter: str) -> bool:
    """Whether a LoRA layer's change is B A, scaled, and nothing else."""
    return adapter not in layer.lora_variant and not layer.lora_bias.get(adapter, False)
