"""Runs with something to register."""

from pathlib import Path

from pipeline.run import Run
from pipeline.run.files import sha256_of
from tests.support.exported import demo, exported_run
from tests.support.faulty_ollama import Handler, lines

RECIPE = demo()


def new_run(folder: Path, name: str, text: str = "") -> Run:
    """Its files are no GGUFs, which a pretended server does not mind."""
    files = {kind: folder / f"{kind}.bin" for kind in RECIPE.export.quantize}
    for kind, path in files.items():
        path.write_text(text or f"GGUF of {name} in {kind}")
    return exported_run(folder / "runs" / name, RECIPE, files)


def digest(run: Run, kind: str) -> str:
    return f"sha256:{sha256_of(run.folder('export') / f'demo-{kind}.gguf')}"


def refuse_the_second(handler: Handler) -> None:
    """A fault of `create`: all but my-model itself."""
    fine = handler.values["model"] == "my-model"
    handler.behave() if fine else lines({"error": "bad GGUF"})(handler)
