"""GPTQ through gptqmodel in a Python of its own, whose words are kept where it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pipeline.base import Base
from pipeline.errors import PipeError
from pipeline.run.files import write_json
from pipeline.run.secrets import harmless

PYTHON = "PIPE_GPTQ_PYTHON"
"""Names the Python that has gptqmodel: its requirements and ours do not fit into one environment
(gptqmodel 7.7 wants datasets >= 5.1, its releases before that other versions of numpy)."""
VERSIONS = "versions.json"
"""Beside the checkpoint: what made it."""
GROUP = 128
"""Inputs that share a scale: the authors' choice (https://arxiv.org/abs/2210.17323, section 5)."""
_WORKER = Path(__file__).with_name("gptq_worker.py")
_KEPT = ("qweight", "qzeros", "scales", "g_idx")


def find() -> None:
    """Raises PipeError, in Python's words, where there is no gptqmodel."""
    try:
        _run()
    except PipeError as error:
        hint = f"{PYTHON} names a Python that has gptqmodel, in an environment of its own."
        raise PipeError(error.message, hint) from None


def quantize(model: Base, rows: Sequence[Sequence[int]], folder: Path, device: str) -> None:
    """Quantize `model` to 4 bits into `folder`, calibrated on rows of token ids.

    Raises PipeError with the tool's own last words where it is not there or fails.
    """
    job = folder / "job.json"
    paths = {"model": model.folder, "out": folder, "versions": folder / VERSIONS}
    settings = {key: str(path.absolute()) for key, path in paths.items()}
    write_json(job, {**settings, "device": device, "group_size": GROUP, "rows": list(rows)})
    _run(str(job.absolute()))


def layers(folder: Path) -> dict[str, dict[str, Any]]:
    """Layer's name -> its tensors, of a checkpoint that gptqmodel saved.

    Raises PipeError for one that is not in 4 bits and the format `gptq`.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = config.get("quantization_config", {})
    if (said.get("bits"), said.get("checkpoint_format", "gptq")) != (4, "gptq"):
        raise PipeError(f"gptqmodel saved another format than 4 bits of gptq: {said}.")
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            layer, _, kind = name.rpartition(".")
            if kind in _KEPT:
                found.setdefault(layer, {})[kind] = tensor
    return {name: found[name] for name in sorted(found) if len(found[name]) == len(_KEPT)}


def _run(*arguments: str) -> None:
    """Raises PipeError with the last line that was said: of a traceback, what was raised.

    The child ends when its input does, which is when we do, however we do.
    """
    command = [os.environ.get(PYTHON) or sys.executable, "-P", str(_WORKER), *arguments]
    with TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        except OSError as error:
            raise PipeError(f"{PYTHON} cannot be started: {error}.") from None
        with process:
            try:
                code = process.wait()
            finally:
                process.kill()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().splitlines()
    if code:
        last = harmless(said[-1].strip()) if said else ""
        raise PipeError(last or f"gptqmodel ended with code {code}.")
