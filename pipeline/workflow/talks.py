"""Someone to talk to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.workflow.work import Work


@contextmanager
def talking(work: Work, *, ollama: bool, temperature: float) -> Iterator[Any]:
    """Someone to talk to: the first exported file in llama.cpp, or the served model."""
    from pipeline.engines.talk import FilePartner, ServedPartner

    recipe, run = work.recipe, work.run
    sampling = {"temperature": temperature, "top_p": recipe.serve.top_p}
    if ollama:
        yield ServedPartner(run.require("serve").facts["models"][0]["name"], sampling)
        return
    file = run.require("export").facts["files"][recipe.export.quantize[0]]
    partner = FilePartner(run.folder("export") / file, work.encoder(), recipe.num_ctx, sampling)
    try:
        yield partner
    finally:
        partner.close()
