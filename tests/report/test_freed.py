"""What `pipe clean` freed is told as gone, with the command that makes it again."""

from pathlib import Path

from click.testing import CliRunner

from pipeline.cli.report import report
from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.log import log_text
from pipeline.report.summary import summary
from pipeline.run import Run
from pipeline.run.freed import free_files
from tests.report.fixture import write_run
from tests.report.logged import rows, section

FILE = "my-model-Q8_0.gguf"


def freed(root: Path) -> Run:
    run = write_run(root)
    free_files(run.folder("export"), [FILE])
    return run


def test_a_freed_file_is_named_with_how_to_have_it_again(tmp_path: Path) -> None:
    path, (gap,) = write_report(freed(tmp_path / "demo"), "-r demo")
    assert gap.text == f"export/{FILE} is not there: pipe clean freed the disk."
    assert gap.command == "pipe export -r demo"
    page = path.read_text(encoding="utf-8")
    assert page.count('<span class="mark warn">freed</span>') == 1
    assert gap.text in page and "Not all of this still holds" not in page


def test_chat_with_a_freed_file_comes_after_its_export(tmp_path: Path) -> None:
    answer = summary(gather(freed(tmp_path / "demo"), "-r demo"))[-1]
    assert answer.commands == ["ollama run my-model", "pipe export -r demo", "pipe chat -r demo"]


def test_the_log_says_so_too(tmp_path: Path) -> None:
    text, gaps = log_text(freed(tmp_path / "demo"))
    assert [gap.command for gap in gaps] == ["pipe export -r runs/demo/recipe.yaml"]
    assert f"export/{FILE} is not there" in section(text, "What is missing")
    assert "Q8_0, freed" in rows(section(text, "Quantization"))


def test_weights_that_were_freed_are_trained_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    free_files(run.folder("train"), ["adapter/adapter_model.safetensors"])
    _, (gap,) = write_report(run, "-r demo")
    assert gap.command == "pipe train --force -r demo"


def test_the_command_says_it_on_standard_error(tmp_path: Path) -> None:
    run = freed(tmp_path / "demo")
    done = CliRunner().invoke(report, [str(run.root)])
    assert done.exit_code == 0
    assert done.stderr.startswith(f"export/{FILE} is not there: pipe clean freed the disk. Run: ")
