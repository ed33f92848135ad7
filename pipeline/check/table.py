"""The table of gates: what is asked, in which order, and what each needs."""

from pipeline.check import context, file, identity, precision, prompts, rope, served
from pipeline.check.gates import Probe

PROBES = (
    Probe("prompt text: Transformers", "prompts", ("run",), "train", prompts.transformers_prompts),
    Probe(
        "prompt text: llama.cpp", "prompts", ("format", "file"), "export", prompts.llama_cpp_prompts
    ),
    Probe("prompt text: Ollama", "prompts", ("file", "server"), "register", prompts.ollama_prompts),
    Probe("token ids", "prompts", ("run", "file"), "export", prompts.token_ids),
    Probe("token count: Ollama", "prompts", ("file", "server"), "register", prompts.token_counts),
    Probe("control tokens in text", "prompts", ("run", "file"), "export", prompts.control_tokens),
    Probe("one BOS", "file", ("file",), "export", file.one_bos),
    Probe("end of turn is learned", "file", ("run",), "train", file.learned_end),
    Probe("end tokens", "file", ("file",), "export", file.end_tokens),
    Probe("vocabulary", "file", ("file",), "export", file.vocabulary),
    Probe("tied embeddings", "file", ("run", "file"), "export", file.tied_embeddings),
    Probe("rope frequencies", "file", ("run", "file"), "export", rope.rope_frequencies),
    Probe("finite weights", "file", ("file",), "export", file.finite_weights),
    Probe("version", "served", ("server",), "update", served.version),
    Probe("stops", "served", ("server",), "reply", served.stops),
    Probe("thinks", "served", ("server", "thinking"), "reply", served.thinks),
    Probe("answers directly", "served", ("server", "thinking"), "reply", served.answers_directly),
    Probe("JSON after thinking", "served", ("server", "thinking"), "reply", served.structured),
    Probe("streaming", "served", ("server",), "register", served.streaming),
    Probe("context length", "served", ("file", "server"), "register", context.context_length),
    Probe("greedy answers", "served", ("file", "server"), "register", served.greedy_answers),
    Probe("served file", "identity", ("run", "file", "server"), "register", identity.served_file),
    Probe("merge", "precision", ("run", "file"), "export", precision.merge_took_effect),
    Probe(
        "adapter kept", "precision", ("run", "adapter", "file"), "export", precision.adapter_kept
    ),
    Probe("engines agree", "precision", ("run", "file"), "export", precision.engines_agree),
    Probe("quantization", "precision", ("run", "file"), "precision", precision.quantization),
)
"""Precision comes last: it puts other models into memory than the one that the others ask."""
