"""The file: what it says of its tokens and its tensors, and what was learned to end with."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.check.gates import Finding
from pipeline.check.prompts import own_prompt, prompts, served_prompt
from pipeline.check.subject import Subject
from pipeline.check.tensors import saved_tensors
from pipeline.engines.gguf_file import GgufFile, TensorInfo

_FLOATS: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_SCALES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "Q4_0": (18, (0,)),
    "Q4_1": (20, (0, 2)),
    "Q5_0": (22, (0,)),
    "Q5_1": (24, (0, 2)),
    "Q8_0": (34, (0,)),
    "Q2_K": (84, (80, 82)),
    "Q3_K": (110, (108,)),
    "Q4_K": (144, (0, 2)),
    "Q5_K": (176, (0, 2)),
    "Q6_K": (210, (208,)),
}
"""Type -> bytes a block, and where its half-precision scales stand: ggml-common.h."""


def one_bos(subject: Subject) -> Finding:
    """What the server evaluates begins with BOS, and has it nowhere else; ChatML has none at all.

    With a server, its own rendered prompts are read; else those of the file's template.
    """
    added, bos, wrong = subject.facts["add_bos"], subject.facts["bos"], list[str]()
    if subject.part is not None and added != (subject.run.encoder.format.bos is not None):
        said = "says that BOS is to be added, and training adds none"
        wrong.append(f"the file {said if added else 'does not say that BOS is to be added'}")
    asked = [case for case, _ in prompts(subject)]
    served = "server" in subject.parts
    for case in asked:
        prompt = served_prompt(subject, case) if served else own_prompt(subject, case)
        ids = subject.llama.tokenize(prompt, add_bos=True)
        # where a file names none, llama.cpp has a token of text for it
        count = ids.count(bos) if bos in subject.control_ids else 0
        if count > 1 or (added and (ids[0] != bos or count != 1)):
            wrong.append(f"{case}: BOS stands {count} times, the ids begin with {ids[:2]}")
    whose = "Ollama's" if served else "the file's"
    none = "" if added else ", which begin with none"
    return f"ids of {len(asked)} prompts by {whose} template{none}", wrong


def learned_end(subject: Subject) -> Finding:
    """The last token that each training row teaches is the end of turn, and that is not the pad."""
    import pyarrow

    encoder, wrong, rows = subject.run.encoder, [], 0
    path = subject.run.run.folder("data") / "encoded" / "train.arrow"
    end, pad = encoder.end_of_turn_id, encoder.pad_id
    with pyarrow.memory_map(str(path)) as file:
        for batch in pyarrow.ipc.open_stream(file):
            ids, starts = batch.column("input_ids"), batch.column("target_start").to_numpy()
            offsets, values = ids.offsets.to_numpy(), ids.values.to_numpy()
            last = values[offsets[1:] - 1]
            taught = (last == end) & (starts < np.diff(offsets))
            wrong += [
                f"training row {rows + n} ends with {encoder.text_of([last[n]])!r}"
                for n in np.flatnonzero(~taught)
            ]
            rows += len(starts)
    if end == pad:
        wrong.append(f"the pad token is {encoder.format.end_of_turn}, which padding hides")
    return f"last label of {rows:,} training rows", wrong


def end_tokens(subject: Subject) -> Finding:
    """The eos and eot that the files name are the format's, and llama.cpp ends a reply on them."""
    facts, wrong = subject.facts, []
    tokens = {token: number for number, token in enumerate(subject.tokens)}
    for type, header in subject.headers.items():
        wrong += [f"{type}: {said}" for said in _named_ends(header, tokens, subject)]
    expected = set(subject.tags.ends if subject.format else ()) & set(tokens)
    ends = {tokens[name] for name in expected} or {facts["eos"]}
    if silent := ends - set(facts["eog"]):
        wrong.append(f"llama.cpp does not end on {[subject.tokens[n] for n in silent]}")
    names = sorted(subject.tokens[n] for n in facts["eog"] if 0 <= n < len(subject.tokens))
    return f"eos, eot, and what llama.cpp ends on: {', '.join(names)}", wrong


def vocabulary(subject: Subject) -> Finding:
    """As many tokens as the embedding, and the output where there is one, has rows."""
    wrong = []
    for type, header in subject.headers.items():
        tokens = len(header.metadata.get("tokenizer.ggml.tokens", ()))
        for name, tensor in _tensors(header).items():
            if name in {"token_embd.weight", "output.weight"} and tensor.shape[-1] != tokens:
                wrong.append(f"{type}: {tokens} tokens, {name} has {tensor.shape[-1]} rows")
    return f"{len(subject.tokens):,} tokens, rows of token_embd and output", wrong


def tied_embeddings(subject: Subject) -> Finding:
    """output.weight is left out exactly where the trained model has no output of its own."""
    tied = _is_tied(subject)
    wrong = [
        f"{type}: the trained output is {'the embedding' if tied else 'its own'}, "
        f"the file has {'' if has else 'no '}output.weight"
        for type, header in subject.headers.items()
        if (has := "output.weight" in _tensors(header)) == tied
    ]
    return f"output.weight; the trained embeddings are {'tied' if tied else 'not tied'}", wrong


def finite_weights(subject: Subject) -> Finding:
    """No NaN and no infinity in any float tensor nor in any scale of a quantized one."""
    wrong, looked, unknown = [], 0, set()
    for type, header in subject.headers.items():
        data = np.memmap(header.path, dtype=np.uint8, mode="r")
        for tensor in header.tensors:
            values = list(_scales(data, tensor))
            looked += bool(values)
            unknown |= set() if values else {tensor.type}
            if not all(_finite(each) for each in values):
                wrong.append(f"{type}: {tensor.name} holds NaN or infinity")
    left = f"; not {', '.join(sorted(unknown))}" if unknown else ""
    return f"floats and scales of {looked} tensors{left}", wrong


def _named_ends(header: GgufFile, tokens: Mapping[str, int], subject: Subject) -> Iterator[str]:
    eos = header.metadata.get("tokenizer.ggml.eos_token_id")
    eot = header.metadata.get("tokenizer.ggml.eot_token_id", eos)
    if subject.format is None:
        if eos is None:
            yield "no eos_token_id"
        return
    end = tokens.get(subject.format.end_of_turn)
    for name, number in {"eos": eos, "eot": eot}.items():
        if number is None or number != end:
            yield f"{name}_token_id is {number}, {subject.format.end_of_turn} is {end}"


def _tensors(header: GgufFile) -> dict[str, TensorInfo]:
    return {tensor.name: tensor for tensor in header.tensors}


def _is_tied(subject: Subject) -> bool:
    """As Transformers loads the base, and PEFT unties an embedding or output trained alone."""
    known = subject.run.trained
    if not known.model.config.get("tie_word_embeddings") or _stored_apart(known.model.shards()):
        return False
    if known.adapter is None:
        return True
    names = saved_tensors([known.adapter / "adapter_model.safetensors"])
    trained = {end for end in ("embed_tokens", "lm_head") if any(end in name for name in names)}
    return len(trained) != 1


def _stored_apart(shards: Sequence[Path]) -> bool:
    """Whether the checkpoint holds an output that differs from the embedding."""
    saved = saved_tensors(shards)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    ends = [saved[name].bits for name in names if name in saved]
    return len(ends) == 2 and not np.array_equal(ends[0], ends[1])


def _scales(data: NDArray[np.uint8], tensor: TensorInfo) -> Iterator[NDArray[Any]]:
    """The tensor's floats, or of a quantized one its scales; nothing for a type not known."""
    stored = data[tensor.offset : tensor.offset + tensor.bytes]
    if tensor.type in _FLOATS:
        yield stored.view(_FLOATS[tensor.type])
    elif tensor.type == "BF16":
        yield stored.view(np.uint16)
    elif tensor.type in _SCALES:
        size, places = _SCALES[tensor.type]
        blocks = stored.reshape(-1, size)
        for place in places:
            yield np.ascontiguousarray(blocks[:, place : place + 2]).view(np.float16)


def _finite(values: NDArray[Any]) -> bool:
    """bf16 is told by its bits: all ones in the exponent."""
    if values.dtype == np.uint16:
        return not bool(((values & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(values).all())
