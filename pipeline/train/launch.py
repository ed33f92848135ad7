"""The processes that train: how they are started, and what each finds in its environment."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.child import Child
from pipeline.cores import cores
from pipeline.errors import PipeError
from pipeline.recipe.training import Train
from pipeline.train.together import JOB, STOPS, held_back, several

WORKER = "pipeline.train.worker"
LAUNCHER = "pipeline.train.launcher"
OUT_OF_MEMORY = (
    "If memory ran out: --set train.batch_size=1 --set train.gradient_accumulation=16, "
    "or a smaller model.max_seq_length."
)
PATIENCE = 1800
"""Seconds that a node waits for the others; torchrun's own number is 900."""

Launcher = Literal["torchrun", "accelerate"]


class LaunchError(PipeError):
    """Processes asked for that no launcher could start."""

    exit_code = 2


@dataclass(frozen=True)
class Launch:
    """How many processes train, where, and who starts them; one alone needs no launcher.

    Raises LaunchError for a node or a rendezvous that cannot be.
    """

    on_each: int = 1
    """Processes on each node: one for each of its GPUs."""
    launcher: Launcher = "torchrun"
    nodes: int = 1
    node: int = 0
    """This node's number. Node 0 does the stage, the others take part in its training."""
    rendezvous: str | None = None
    """HOST:PORT of node 0, free there and reached from every node."""
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        if not 0 <= self.node < self.nodes:
            raise LaunchError(f"Of {self.nodes} nodes, none has the number {self.node}.")
        host, _, port = (self.rendezvous or "").rpartition(":")
        if self.rendezvous is not None and not (host and port.isdigit()):
            raise LaunchError(f"--rendezvous is HOST:PORT, not {self.rendezvous!r}.")
        if self.nodes > 1 and self.rendezvous is None:
            raise LaunchError(
                "Several nodes need --rendezvous HOST:PORT: node 0 and a free port of it."
            )

    @property
    def processes(self) -> int:
        """All of them, on all nodes."""
        return self.on_each * self.nodes

    @property
    def options(self) -> str:
        """The options that start the same processes again."""
        wished = {"--nproc": self.on_each, "--nnodes": self.nodes}
        given = [f"{option} {count}" for option, count in wished.items() if count > 1]
        return " ".join(["", *given])

    def arguments(self) -> Sequence[str]:
        """Python's arguments before `-m WORKER`."""
        if self.processes == 1:
            return ()
        options = self._torchrun() if self.launcher == "torchrun" else self._accelerate()
        return ("-m", LAUNCHER, self.launcher, *options)

    def _torchrun(self) -> Sequence[str]:
        """Static: node k has the ranks from k * on_each on, where c10d would give any node any."""
        count = ("--nproc-per-node", str(self.on_each))
        if self.rendezvous is None:
            return ("--standalone", *count)
        return (
            *count,
            *("--nnodes", str(self.nodes), "--node-rank", str(self.node)),
            *("--rdzv-backend", "static", "--rdzv-endpoint", self.rendezvous),
            *("--rdzv-conf", f"timeout={self.patience}"),
        )

    def _accelerate(self) -> Sequence[str]:
        """Its `--cpu` starts several by MPI alone; `--multi_gpu` does so without a GPU too."""
        common = ("--multi_gpu", "--num_processes", str(self.processes), "--gpu_ids", "all")
        fixed = ("--mixed_precision", "no", "--dynamo_backend", "no")
        if self.rendezvous is None:
            return (*common, "--num_machines", "1", "--main_process_port", "0", *fixed)
        host, _, port = self.rendezvous.rpartition(":")
        return (
            *common,
            *("--num_machines", str(self.nodes), "--machine_rank", str(self.node)),
            *("--main_process_ip", host, "--main_process_port", port),
            *("--rdzv_backend", "static", "--rdzv_conf", f"timeout={self.patience}"),
            *fixed,
        )


def check_alone() -> None:
    """Raises PipeError where a launcher has started `pipe` itself, once for every GPU.

    Every one of those would be a whole pipeline; `pipe` starts the processes that train.
    """
    if several():
        raise PipeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: a launcher has started pipe several times.",
            "Start it once on each node; it starts its processes itself: pipe train --nproc N "
            "(several nodes: --nnodes M --node-rank R --rendezvous HOST:PORT)",
        )


def _check_whole() -> None:
    """Raises PipeError where the environment asks Unsloth to cut the weights into shards."""
    if os.environ.get("UNSLOTH_FSDP2", "0") not in ("", "0"):
        raise PipeError(
            "UNSLOTH_FSDP2 is set: each process would hold a shard of the weights, and pipe's "
            "checkpoints and adapters are made of whole ones.",
            "Unset it. A model that outgrows a GPU: --set train.method=qlora",
        )


def rows_at_once(most: int, global_batch: int, processes: int) -> int:
    """Rows in a micro-batch, `most` or fewer, so that all processes take as many in a step.

    Raises PipeError where the processes cannot share a step's rows evenly.
    """
    if global_batch % processes:
        raise PipeError(
            f"A step of the training under way takes {global_batch} rows, "
            f"which {processes} processes cannot share evenly.",
            f"Go on with a number of processes that divides {global_batch}, or with one: "
            "pipe train; or begin anew: pipe train --force",
        )
    share = global_batch // processes
    return next(rows for rows in range(min(most, share), 0, -1) if share % rows == 0)


def open_child(job_file: Path, train: Train, launch: Launch) -> Child:
    """The child that trains as the file says."""
    environment = {JOB: str(job_file), **_environment(train, job_file.parent / "scratch")}
    if launch.processes > 1:
        _check_whole()
        environment |= _shared(launch, train)
    again = f"Go on from the last checkpoint: pipe train{launch.options}."
    with held_back(*STOPS) if launch.processes > 1 else nullcontext():
        return Child(
            WORKER,
            hint=f"{again} {OUT_OF_MEMORY}",
            environment=environment,
            launcher=launch.arguments(),
        )


def _shared(launch: Launch, train: Train) -> dict[str, str]:
    """What several processes on one machine need beside."""
    # -P of Child does not reach the launcher's own children
    values = {"PYTHONSAFEPATH": "1"}
    if train.device == "cpu":
        # accelerate numbers them, as cpu:1, where torch.load cannot put an optimizer's state
        values["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if "OMP_NUM_THREADS" not in os.environ:  # the launchers' own number is 1
        values["OMP_NUM_THREADS"] = str(max(1, cores() // launch.on_each))
    return values


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
