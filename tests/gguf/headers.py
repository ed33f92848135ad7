"""The shapes of a model of each family, and its file with a hole for weights."""

import gguf

from pipeline.gguf.mix import Shape

HIDDEN, FFN, VOCAB = 256, 512, 64


def shapes_of(facts, *, tied=True, hidden=HIDDEN, ffn=FFN, stored="F16"):
    """What the architecture's 16-bit file holds."""
    keys = hidden // facts.heads * facts.kv_heads
    sizes = {
        "attn_norm": (1, hidden),
        "attn_q": (hidden, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, hidden),
        "ffn_norm": (1, hidden),
        "ffn_gate": (ffn, hidden),
        "ffn_up": (ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
    names = {f"{name}.weight": size for name, size in sizes.items()}
    if facts.architecture == "qwen2":
        names |= {f"attn_{k}.bias": (1, sizes[f"attn_{k}"][0]) for k in "qkv"}
    if facts.architecture == "qwen3":
        names |= {f"attn_{k}_norm.weight": (1, hidden // facts.heads) for k in "qk"}
    whole = {"token_embd.weight": (VOCAB, hidden), "output_norm.weight": (1, hidden)}
    if not tied:
        whole["output.weight"] = (VOCAB, hidden)
    if facts.architecture == "llama":
        whole["rope_freqs.weight"] = (1, 32)
    for layer in range(facts.layers):
        whole |= {f"blk.{layer}.{name}": size for name, size in names.items()}
    return [
        Shape(name, rows, columns, "F32" if rows == 1 else stored)
        for name, (rows, columns) in whole.items()
    ]


def write_header(path, facts, shapes):
    """A GGUF file whose weights are a hole: a dry run reads none."""
    writer = gguf.GGUFWriter(path, facts.architecture)
    writer.add_block_count(facts.layers)
    writer.add_context_length(128)
    writer.add_embedding_length(shapes[0].columns)
    writer.add_feed_forward_length(512)
    writer.add_head_count(facts.heads)
    writer.add_head_count_kv(facts.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    weights = 0
    for shape in shapes:
        kind = gguf.GGMLQuantizationType[shape.stored]
        size = shape.rows * shape.columns * gguf.GGML_QUANT_SIZES[kind][1]
        dimensions = (shape.rows, shape.columns) if shape.rows > 1 else (shape.columns,)
        writer.add_tensor_info(shape.name, dimensions, None, size, raw_dtype=kind)
        weights += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        header = -(-path.stat().st_size // 32) * 32
        file.truncate(header + weights)
    return path
