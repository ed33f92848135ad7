"""Export: merge the adapter into the 16-bit base and quantize to GGUF."""

from pipeline.gguf.export import Job, export, file_name, planned, write_types

__all__ = ["Job", "export", "file_name", "planned", "write_types"]
