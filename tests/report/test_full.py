"""A run that was trained in full is called so, and no adapter is spoken of."""

import re
from pathlib import Path

import pytest

from pipeline.report import write_report, write_versus
from pipeline.report.gather import gather
from pipeline.report.summary import method, summary
from pipeline.run import Run
from tests.report.fixture import ENGINES, write_run

FULL = ["train.method=full"]


def in_full(root: Path) -> Run:
    """Its Transformers engine keeps the key `adapter`, and nothing was merged."""
    engines = [name for name in ENGINES if name != "merged"]
    return write_run(root, overrides=FULL, engines=engines)


def text_of(path: Path) -> str:
    """The words of a page, without the recipe, whose keys are every method's."""
    page = path.read_text(encoding="utf-8")
    page = re.sub(r"(?s)<style>.*?</style>|<pre class=\"file\">.*?</pre>", "", page)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_names_the_method_and_the_tuned_model(tmp_path: Path) -> None:
    path, _ = write_report(in_full(tmp_path / "demo"))
    text = text_of(path)
    assert "Full fine-tuning, 180 steps" in text
    assert "tuned (full)" in text and "base → tuned (full)" in text
    assert "train/model/model.safetensors" in text
    assert "LoRA" not in text and "adapter" not in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.method=qlora", "QLoRA, r = 32, alpha = 64"),
        ("train.method=lora", "LoRA, r = 32, alpha = 64"),
        ("train.lora={rslora: true, dora: true}", "QLoRA, r = 32, alpha = 64, rsLoRA, DoRA"),
        ("train.method=full", "Full fine-tuning"),
    ],
)
def test_every_method_has_its_name(tmp_path: Path, override: str, said: str) -> None:
    view = gather(write_run(tmp_path / "demo", overrides=[override]))
    assert method(view) == said
    assert any(said in line for line in summary(view)[0].text)


def test_an_adapter_and_a_full_training_are_compared_as_the_tuned_models(tmp_path: Path) -> None:
    one = write_run(tmp_path / "lora")
    path, _ = write_versus(one, in_full(tmp_path / "full"))
    text = text_of(path)
    assert "Accuracy of adapter / tuned (full): 84.0% → 84.0%." in text
    assert "method QLoRA, r = 32, alpha = 64 Full fine-tuning" in text
