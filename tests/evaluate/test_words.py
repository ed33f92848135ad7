"""The sentence under the table."""

from pipeline.evaluate import in_words


def compared(one: str, other: str, change: float, p: float, metric: str = "exact_match") -> dict:
    span = {"value": change, "low": change - 0.05, "high": change + 0.05}
    return {"metric": metric, "from": one, "to": other, "change": span, "p_value": p}


def task(comparisons: list[dict], **values: float) -> dict:
    engines = {name: {"exact_match": {"value": value}} for name, value in values.items()}
    return {"engines": engines, "comparisons": comparisons}


def test_a_great_gain_is_told_in_points_and_times() -> None:
    said = in_words(
        task(
            [
                compared("base", "adapter", 0.792, 1e-50),
                compared("base", "adapter", 0.9, 1e-9, "well_formed"),
                compared("adapter", "Q4_K_M", -0.008, 0.7),
                compared("Q4_K_M", "ollama", 0.0, 1.0),
            ],
            base=0.048,
            adapter=0.84,
            Q4_K_M=0.832,
            ollama=0.832,
        )
    )
    assert said == (
        "adapter answers 84.0% right where base answered 4.8%: +79.2 points (+74.2 to +84.2), "
        "17.5 times as many (p < 0.0001); Q4_K_M loses 0.8 points (p = 0.7, not significant); "
        "ollama answers as many right as Q4_K_M"
    )


def test_a_small_gain_is_told_in_percent_and_a_loss_as_one() -> None:
    gain = in_words(task([compared("base", "adapter", 0.05, 0.03)], base=0.5, adapter=0.55))
    assert gain.endswith("+5.0 points (+0.0 to +10.0), 10.0% more (p = 0.03)")
    loss = in_words(task([compared("base", "adapter", -0.1, 0.2)], base=0.5, adapter=0.4))
    assert loss.endswith("-10.0 points (-15.0 to -5.0), 20.0% fewer (p = 0.2, not significant)")


def test_from_nothing_there_is_no_percentage_and_without_pairs_no_sentence() -> None:
    said = in_words(task([compared("base", "adapter", 0.4, 0.001)], base=0.0, adapter=0.4))
    assert "%: +40.0 points (+35.0 to +45.0) (p = 0.001)" in said
    assert in_words(task([], base=0.1)) == ""


def test_another_metric_that_decides_is_said_in_its_own_units() -> None:
    found = {
        "engines": {"base": {"mae": {"value": 48.0}}, "adapter": {"mae": {"value": 3.88}}},
        "comparisons": [
            compared("base", "adapter", 0.1, 0.5),
            compared("base", "adapter", -44.12, 0.00001) | {"metric": "mae"},
        ],
    }
    said = in_words(found, None, "mae")
    assert said.startswith("adapter has mae 3.88 where base had 48: -44.1 (")
    assert said.endswith(" (p < 0.0001)")
