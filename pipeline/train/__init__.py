"""Train: Unsloth's 4-bit LoRA, in a child process."""

from pipeline.train.stage import check_device, train

__all__ = ["check_device", "train"]
