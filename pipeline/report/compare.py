"""compare.html: the variants of a recipe side by side, and which is best by the stated rule."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.engines.trained import TUNED
from pipeline.report import compare_words as told
from pipeline.report.axes import WIDTH, Scale, add, canvas, markup
from pipeline.report.charts import Chart, interval_bar
from pipeline.report.compare_words import Results, Row
from pipeline.report.deciding import comparison
from pipeline.report.gather import gather
from pipeline.report.render import write_page
from pipeline.report.summary import Answer, in_words, verdict
from pipeline.report.training import training_charts
from pipeline.report.view import RunView
from pipeline.report.words import finite, metric, number, odds, share
from pipeline.run import Run
from pipeline.run.studies import study_command

_FIRST, _COLOURS = 2, 8
"""The page's colours of variants: from c2 to c9, then from c2 again."""
_ROW = 40
"""Height of a bar with its name, in px."""
_FORGOT = 1.05
"""From this ratio of the general loss, after to before, on the page speaks of forgetting."""


def write_comparison(folder: Path, results: Results) -> Path:
    """Write compare.html into `folder`, from its results and the runs of its variants."""
    rows = told.done(results)
    colours = {row["label"]: _FIRST + place % _COLOURS for place, row in enumerate(rows)}
    top = _top(results)
    views = [(str(row["label"]), gather(Run(folder / row["run"]), "")) for row in rows]
    return write_page(
        folder / "compare.html",
        "compare.html.jinja",
        version=__version__,
        told=_Told,
        results=results,
        title=told.title(results),
        answers=_answers(results, dict(views)),
        deciding=told.deciding(results),
        rows=rows,
        left_out=told.left_out(results),
        scored=[_scored(row, colours, top) for row in rows if row["after"]],
        top=told.deciding(results).form(top),
        files=_files(rows),
        bars=_bars(rows, colours),
        charts=_curves(views),
        drawn=min(len(views), _COLOURS),
        markdown=told.markdown(results),
        measured=told.measured(results),
        command=study_command("compare", results),
    )


class _Told:
    """The words of a row, for the template."""

    trainable = staticmethod(told.trainable)
    gigabytes = staticmethod(told.gigabytes)
    saved = staticmethod(told.saved)
    took = staticmethod(told.took)
    speed_up = staticmethod(told.speed_up)
    loss = staticmethod(told.loss)
    general = staticmethod(told.general)
    settings = staticmethod(told.settings)
    reason = staticmethod(told.reason)


def _curves(views: Sequence[tuple[str, RunView]]) -> list[Chart]:
    """As many as there are colours for."""
    return training_charts(views[:_COLOURS]) if views else []


def _answers(results: Results, views: Mapping[str, RunView]) -> list[Answer]:
    row = told.best(results)
    first = Answer("Which is the best?", "None is named", "warn", [str(results["rule"])])
    if row is None:
        return [first]
    first.headline, first.tone = str(row["label"]), "good"
    first.text.insert(0, told.optimal(results))
    found = [
        first,
        _gained(results, row, views[row["label"]]),
        _saved(results, row),
        _forgot(results),
    ]
    return [answer for answer in found if answer]


def _gained(results: Results, row: Row, view: RunView) -> Answer | None:
    """The best's score before and after; by the paired test, where its eval made one."""
    before, after = row["before"], row["after"]
    if not before or not after:
        return None
    kind = metric(str(row["metric"]))
    test = comparison(view, str(row["metric"]), "base", TUNED)
    word, tone = verdict(str(row["metric"]), before, after, test)
    answer = Answer("Did training help it?", f"{word}: {kind.shown(before)} → {kind.shown(after)}")
    answer.tone = tone
    answer.bars = [
        ("before", kind.shown(before), interval_bar(before, 0.0, _top(results), 1, 320)),
        ("after", kind.shown(after), interval_bar(after, 0.0, _top(results), 2, 320)),
    ]
    answer.text.append(in_words(str(row["metric"]), int(results["questions"]), test))
    return answer


def _saved(results: Results, row: Row) -> Answer | None:
    """What the best costs against the reference or, where it is that itself, against the rest."""
    if row["label"] != results["reference"]:
        text = f"{told.saved(row)} of the memory of {results['reference']} saved."
        speed = f"Training is {told.speed_up(row)} as fast, {told.took(row)}."
        return Answer("What does it cost?", f"{told.gigabytes(row)} GB", text=[text, speed])
    rest = [each for each in told.done(results) if each is not row]
    lines = [f"{e['label']}: {told.gigabytes(e)} GB, {told.took(e)}." for e in rest]
    head = f"{told.gigabytes(row)} GB, {told.took(row)}"
    return Answer("What does it cost?", head, text=lines[:4])


def _forgot(results: Results) -> Answer | None:
    """The variant whose loss on general rows rose most."""
    known = [row for row in told.done(results) if _rise(row) is not None]
    if not known:
        return None
    worst = max(known, key=lambda row: _rise(row) or 0.0)
    answer = Answer("What was forgotten?", "Nothing to speak of", "good")
    if (_rise(worst) or 0.0) >= _FORGOT:
        answer.headline, answer.tone = f"Most by {worst['label']}: {told.general(worst)}", "warn"
    answer.text.append("Loss on general rows, which the base could do: what it rises is forgotten.")
    answer.text += [f"{row['label']}: {told.general(row)}." for row in known[:_COLOURS]]
    return answer


def _rise(row: Row) -> float | None:
    before, after = row["general_loss_before"], row["general_loss_after"]
    return after / before if finite(before) and finite(after) and before > 0 else None


def _top(results: Results) -> float:
    """Where the tracks of intervals end: at 100% of a share, else at the largest value."""
    if told.deciding(results).form is share:
        return 1.0
    values = [row[when] or {} for row in told.done(results) for when in ("before", "after")]
    ends = [value.get(end) for value in values for end in ("value", "high")]
    return max((end for end in ends if finite(end)), default=0.0) or 1.0


def _scored(row: Row, colours: Mapping[str, int], top: float) -> dict[str, Any]:
    """One variant's score in figures, in a picture, and against the most accurate."""
    kind, test = metric(str(row["metric"])), row["against_most_accurate"]
    change = f"{kind.change(test['change']['value'])} against {test['from']}" if test else ""
    return {
        "label": row["label"],
        "kind": kind,
        "before": row["before"],
        "after": row["after"],
        "bars": [
            interval_bar(row["before"], 0.0, top, 1),
            interval_bar(row["after"], 0.0, top, colours[row["label"]]),
        ],
        "change": change,
        "words": odds(test["p_value"], test["change"]) if test else "",
    }


def _files(rows: Sequence[Row]) -> list[tuple[str, str, Mapping[str, Any], float | None]]:
    """(variant, type, value, bytes) of every GGUF that was asked."""
    return [
        (row["label"], kind, found, found["bytes"])
        for row in rows
        for kind, found in row["files"].items()
    ]


def _bars(rows: Sequence[Row], colours: Mapping[str, int]) -> list[Chart]:
    figures: list[tuple[str, str, Callable[[Row], str]]] = [
        ("memory", "memory_bytes", lambda row: f"{told.gigabytes(row)} GB"),
        ("training time", "seconds", told.took),
        ("tokens a second", "tokens_per_second", lambda row: number(row["tokens_per_second"])),
    ]
    charts = (_bars_of(title, key, say, rows, colours) for title, key, say in figures)
    return [chart for chart in charts if chart]


def _bars_of(
    title: str,
    key: str,
    say: Callable[[Row], str],
    rows: Sequence[Row],
    colours: Mapping[str, int],
) -> Chart | None:
    """A bar from zero for each variant, its name above it and its figure at its end."""
    known = [row for row in rows if finite(row[key])]
    if not known:
        return None
    top = max(float(row[key]) for row in known) or 1.0
    room = 8 + 8 * max(len(say(row)) for row in known)
    x = Scale(0.0, top, 2, WIDTH - room)
    said = "; ".join(f"{row['label']} {say(row)}" for row in known)
    svg = canvas(f"{title}: {said}", _ROW * len(known) + 4)
    for place, row in enumerate(known):
        y = _ROW * place
        group = add(svg, "g", cls=f"c{colours[row['label']]} spot")
        add(svg, "text", _short(str(row["label"])), cls="tick strong", x=2, y=y + 13)
        width = max(1.0, x(float(row[key])) - 2)
        add(group, "rect", cls="bar", x=2, y=y + 19, width=width, height=13, rx=2)
        add(group, "title", f"{row['label']}: {say(row)}")
        add(svg, "text", say(row), cls="tick", x=width + 8, y=y + 30)
    return Chart(title, markup(svg))


def _short(label: str) -> str:
    """What has room above a bar."""
    longest = 46
    return label if len(label) <= longest else f"{label[: longest - 1]}…"
