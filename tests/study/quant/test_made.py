"""Files of a study: the run's own where it has them, others made for the study alone."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.recipe import load
from pipeline.run import silent
from pipeline.run.freed import free_files
from pipeline.study.quant.made import gguf_files
from pipeline.workflow import Work
from tests.support.finished import finished


def test_a_file_that_clean_freed_is_made_for_the_study_and_stays_freed(tmp_path: Path) -> None:
    recipe = load("demo").recipe
    run = finished(tmp_path / "runs" / "demo", recipe)
    files = run.require("export").facts["files"]
    kept, gone = recipe.export.quantize
    free_files(run.folder("export"), [files[gone]])

    def make(draft: Path, types: Sequence[str], *, tuned: bool) -> dict[str, Path]:
        assert tuned
        made = {type: draft / f"{type}-made" for type in types}
        for path in made.values():
            path.write_text("made")
        return made

    subject: Any = SimpleNamespace(
        work=Work(recipe, run, silent),
        model="tuned",
        folder=run.root / ".quant.work" / "tuned-1a2b",
        part=SimpleNamespace(make=make),
    )
    found = gguf_files(subject, [kept, gone])
    assert found[kept] == run.folder("export") / files[kept]
    assert found[gone] == subject.folder / "gguf" / f"{gone}.gguf"
    assert found[gone].read_text() == "made"
    assert run.freed("export") == [files[gone]]
