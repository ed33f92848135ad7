"""docs/your-own-data.md: each form of a row that it shows is read by the columns beside it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.recipe import load
from pipeline.run.rows import read_jsonl
from tests.support.own_rows import own_rows

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text(encoding="utf-8")
(RECIPE,) = re.findall(r"^```yaml\n# pipe.yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FORMS = re.findall(r"^\| (.*?) \| `(\{.*\})` \| `(\{.*\})` \|$", PAGE, re.MULTILINE)


def test_the_recipe_is_whole_and_takes_every_row_of_a_form() -> None:
    loaded = yaml.safe_load(RECIPE)
    assert loaded["data"]["sources"][0]["columns"] == yaml.safe_load(FORMS[0][2])
    filters = load("llama3.2-3b-r1", [f"data={json.dumps(loaded['data'])}"]).recipe.data.filters
    assert filters.languages == () and filters.min_reasoning_words == 0


@pytest.mark.parametrize(("form", "row", "columns"), FORMS, ids=[form for form, _, _ in FORMS])
def test_a_shown_row_is_read_as_it_is_meant(
    form: str, row: str, columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named, example = yaml.safe_load(columns), json.loads(row)
    rows = [example, *own_rows(named)]
    Path("mine.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    recipe: dict[str, Any] = yaml.safe_load(RECIPE) | {"extends": "demo"}
    recipe["data"]["sources"][0]["columns"] = named
    recipe["data"] |= {"test": None, "eval_share": 0, "test_share": 0}
    Path("pipe.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(main, ["prepare", "-r", "pipe.yaml"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = list(read_jsonl(Path("runs/mine/data/train.jsonl")))
    assert len(found) == len(rows)
    (shown,) = (each for each in found if each["question"] == example[named["question"]])
    reasoning = None if "alone" in form else "2 and 3 more are 5."
    said = (shown["reasoning"], shown["answer"], shown["reference"])
    assert said == (reasoning, "It is 5.", example.get("gold"))
