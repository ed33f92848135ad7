"""Train: Unsloth's 4-bit LoRA, in a child process."""

from pipeline.train.stage import train

__all__ = ["train"]
