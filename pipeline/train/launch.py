"""The processes that train: how they are started, and what each finds in its environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.child import Child
from pipeline.recipe.training import Train
from pipeline.train.worker import JOB

WORKER = "pipeline.train.worker"
OUT_OF_MEMORY = (
    "If memory ran out: --set train.batch_size=1 --set train.gradient_accumulation=16, "
    "or a smaller model.max_seq_length."
)

Launcher = Literal["torchrun", "accelerate"]


@dataclass(frozen=True)
class Launch:
    """How many processes train, and who starts them; one alone needs no launcher."""

    processes: int = 1
    launcher: Launcher = "torchrun"

    def arguments(self, device: str) -> Sequence[str]:
        """Python's arguments before `-m WORKER`."""
        if self.processes == 1:
            return ()
        count = str(self.processes)
        if self.launcher == "torchrun":
            module = "torch.distributed.run"
            return ("-m", module, "--standalone", "--nproc-per-node", count)
        kind = "--cpu" if device == "cpu" else "--multi_gpu"
        return ("-m", "accelerate.commands.launch", kind, "--num_processes", count)


def open_child(job_file: Path, train: Train, launch: Launch) -> Child:
    """The child that trains as the file says."""
    environment = {JOB: str(job_file), **_environment(train, job_file.parent / "scratch")}
    return Child(
        WORKER,
        hint=f"Go on from the last checkpoint: pipe train. {OUT_OF_MEMORY}",
        environment=environment,
        launcher=launch.arguments(train.device),
    )


def _environment(train: Train, scratch: Path) -> dict[str, str]:
    """Nothing installed, nothing sent, nothing fetched; the same kernels on every processor."""
    common = {
        "UNSLOTH_AUTO_INSTALL": "0",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(scratch / "compiled"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(scratch / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        # PEFT writes a set: its order follows string hashes
        "PYTHONHASHSEED": "0",
    }
    if train.device == "cpu":
        return common | {
            "CUDA_VISIBLE_DEVICES": "",
            "UNSLOTH_FORCE_CPU": "1",
            "UNSLOTH_CPU_BF16": "0",
        }
    common["UNSLOTH_DISABLE_CPU_FALLBACK"] = "1"
    if train.deterministic:
        common |= {
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch.use_deterministic_algorithms
            "FLASH_ATTENTION_DETERMINISTIC": "1",
            # else the loss is summed in chunks as large as the memory that happens to be free
            "UNSLOTH_CE_LOSS_TARGET_GB": "1",
        }
    return common
