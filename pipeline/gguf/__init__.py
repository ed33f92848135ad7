"""Export: merge the adapter into the 16-bit base and quantize to GGUF, in one pass."""
