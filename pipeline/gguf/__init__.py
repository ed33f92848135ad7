"""Export: merge the adapter into the 16-bit base and quantize to GGUF, in one pass."""

from pipeline.gguf.export import export, file_name, named_importance, planned, write_types
from pipeline.gguf.importance import training_text
from pipeline.gguf.job import Job

__all__ = [
    "Job",
    "export",
    "file_name",
    "named_importance",
    "planned",
    "training_text",
    "write_types",
]
