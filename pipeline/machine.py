"""What this machine can do. Foreign native code is tried in a child process."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.base import open_base
from pipeline.chat import Encoder, chat_format
from pipeline.engines.completion import Decoding
from pipeline.engines.llamacpp import REBUILD, LlamaCppEngine
from pipeline.engines.ollama import OllamaServer
from pipeline.errors import PipeError
from pipeline.recipe.schema import Export, Model
from pipeline.run import silent


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    found: str
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def look() -> list[Finding]:
    """Python, processor, GPU, Unsloth, llama.cpp, Ollama and disk, in this order."""
    return [_python(), _processor(), _gpu(), _unsloth(), _llama_cpp(), _ollama(), _disk()]


def _python() -> Finding:
    return Finding("Python", True, f"{platform.python_version()} on {platform.system()}")


def _processor() -> Finding:
    return Finding("processor", True, f"{platform.machine()}, {os.cpu_count()} cores")


def _gpu() -> Finding:
    """Asks torch in a child: the question alone takes seconds and a CUDA context."""
    question = (
        "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", question], capture_output=True, text=True, check=False
    )
    name = answer.stdout.strip()
    if name:
        return Finding("GPU", True, name)
    return Finding(
        "GPU",
        False,
        "torch sees no CUDA GPU",
        "Without one: pipe run -r demo. With one: install its driver (nvidia-smi must answer).",
    )


def _unsloth() -> Finding:
    try:
        version = importlib.metadata.version("unsloth")
    except importlib.metadata.PackageNotFoundError:
        return Finding("Unsloth", False, "not installed", "Install as README shows.")
    return Finding("Unsloth", True, version)


def _llama_cpp() -> Finding:
    """Quantizes the shipped base and asks it a word: a bad build dies at the first product."""
    try:
        version = importlib.metadata.version("llama-cpp-python")
        with tempfile.TemporaryDirectory() as folder:
            _quantize_and_ask(Path(folder))
    except importlib.metadata.PackageNotFoundError:
        return Finding("llama.cpp", False, "llama-cpp-python is not installed", REBUILD)
    except PipeError as error:
        return Finding("llama.cpp", False, error.message.splitlines()[0], error.hint)
    return Finding("llama.cpp", True, f"llama-cpp-python {version}, quantizes and answers")


def _quantize_and_ask(folder: Path) -> None:
    from pipeline.gguf.export import write_types
    from pipeline.gguf.job import Job

    format = chat_format("llama3.2-reasoning")
    base = open_base(Model(base="builtin:tiny-llama"))
    asked = Export(quantize=("Q8_0", "Q4_K_M"))
    job = Job("probe", base, None, format, asked, license="none")
    encoder = Encoder(base.folder / "tokenizer.json", format)
    for file in write_types(job, folder, silent).files.values():
        engine = LlamaCppEngine(folder / file, encoder, n_ctx=64)
        try:
            list(engine.answers([[{"role": "user", "content": "Hi"}]], Decoding(4)))
        finally:
            engine.close()


def _ollama() -> Finding:
    server = OllamaServer.from_environment()
    try:
        return Finding("Ollama", True, f"{server.version()} at {server.url}")
    except PipeError as error:
        return Finding("Ollama", False, error.message, error.hint)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    return Finding("disk", True, f"{free / 1e9:.0f} GB free here")
