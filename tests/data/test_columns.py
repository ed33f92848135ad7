"""Which columns a source has: said, known, or found; and what is said when they are not there."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.read.columns import Settled, settle_columns
from pipeline.data.read.detect import detect, good_rows
from pipeline.data.read.registry import flow, lookup
from pipeline.errors import PipeError
from pipeline.recipe import Columns, Filters, Source
from tests.data.records import CHATS, VALUES

REPLY = "<think>so</think>4"
V0 = {"problem": "2 + 2?", "reannotated_assistant_content": REPLY}
V1 = {"reannotated_messages": [{"role": "user", "content": "Hi"}], "messages": []}
OWN = {
    "id": "a",
    "source": "s",
    "system": None,
    "question": "2 + 2?",
    "reasoning": "so",
    "answer": "4",
    "reference": None,
    "thinking": True,
}
R1_DISTILL = "ServiceNow-AI/R1-Distill-SFT"


def turns(*texts, keys=("role", "content"), names=("user", "assistant")):
    return [dict(zip(keys, turn, strict=True)) for turn in zip(names, texts, strict=False)]


def settled(head, dataset="rows.jsonl", accept=False, **said):
    return settle_columns(Source(dataset=dataset, **said), head, accept=accept)


def refusal(head, **said):
    with pytest.raises(PipeError) as error:
        settled(head, **said)
    return error.value.message, error.value.hint


def test_the_recipe_s_columns_come_first_and_the_registry_keeps_its_licence():
    own = Columns(question="reannotated_assistant_content", answer="problem")
    found = settled([V0, {}], R1_DISTILL, columns=own)
    assert found == Settled(own, "recipe", lookup(R1_DISTILL, "v0"), 1)
    assert settled([V0], R1_DISTILL, columns=own, config="v9").entry.licence == "cc-by-nc-sa-4.0"


def test_the_registry_s_columns_are_taken_by_id_and_config():
    entry = lookup(R1_DISTILL, "v0")
    assert settled([V0, V0 | {"problem": ""}], R1_DISTILL) == Settled(
        entry.columns, "registry", entry, 1
    )
    assert settled([V1], R1_DISTILL, config="v1").columns.messages == "reannotated_messages"


def test_an_unknown_config_of_a_known_dataset_is_refused():
    message, _ = refusal([V0], dataset=R1_DISTILL, config="v2")
    assert message == f"The registry knows no config v2 of {R1_DISTILL}; it knows: v0, v1."


def test_a_file_is_not_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simplescaling").mkdir()
    (tmp_path / "simplescaling" / "s1K-1.1").touch()
    found = settled([V0], "simplescaling/s1K-1.1")
    assert (found.origin, found.entry) == ("known columns", None)


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (V0, lookup(R1_DISTILL, "v0").columns),
        (V1, lookup(R1_DISTILL, "v1").columns),
        (V0 | V1, lookup(R1_DISTILL, "v1").columns),
    ],
)
def test_columns_of_r1_distill_are_known_anywhere(record, columns):
    for dataset in ("rows.jsonl", "builtin:samples/train.jsonl", "some/copy"):
        found = settled([{"stray": 1}, record], dataset)
        assert (found.columns, found.origin, found.entry) == (columns, "known columns", None)


def test_prepare_s_own_rows_are_known():
    own = "{question: question, system: system, reasoning: reasoning, answer: answer, "
    found = settled([OWN])
    assert found.shown() == own + "reference: reference, id: id, source: source}"
    assert (found.origin, found.good) == ("known columns", 1)


def test_own_rows_without_any_reasoning_train_direct_answers():
    found = settled([OWN | {"reasoning": None}])
    assert (found.columns.reasoning, found.good) == (None, 1)
    assert settled([OWN | {"reasoning": None}, OWN]).columns.reasoning == "reasoning"


def test_columns_that_were_found_ask_to_be_confirmed():
    head = [{"prompt": "2 + 2?", "output": REPLY} for _ in range(94)]
    head += [{"prompt": "2 + 2?", "output": "4"}] * 5 + [{"prompt": "", "output": REPLY}]
    assert refusal(head, dataset="some/dataset") == (
        "The columns of some/dataset are not known. 94 of 100 rows read well "
        "(no_reasoning 5, empty_question 1) with\ncolumns: {question: prompt, reply: output}",
        "Take that: pipe prepare --yes. "
        "Or write it, corrected, as data.sources.N.columns of the recipe.",
    )
    assert settled(head, "some/dataset", accept=True) == Settled(
        Columns(question="prompt", reply="output"), "detected", None, 94
    )


def test_what_detection_shows_can_be_pasted_into_a_recipe():
    columns = Columns(
        question="the question",
        candidates="c",
        correct=("yes", "b: c"),
        labels=("no", "1"),
        prompt="Say:\n\n{question}",
        where={"a.b": ("x, y",)},
    )
    assert "\n" not in flow(columns)
    assert Columns.model_validate(yaml.safe_load(flow(columns))) == columns


def test_nothing_found_says_what_is_there():
    assert refusal([{"a": 1, "b": "x"}, {"c": None}], accept=True) == (
        "The columns of rows.jsonl are not known, and none look like a question and its reply. "
        "Found: a, b, c.",
        "Say which column holds what in data.sources.N.columns of the recipe; "
        "docs/datasets.md has examples.",
    )


def test_no_record_at_all_is_said():
    assert "Found: no record at all." in refusal([])[0]
    message, hint = refusal([], dataset=R1_DISTILL)
    assert message.endswith("Found: no record at all.")
    assert hint == "Check the source's config, split and content."


def test_a_column_of_the_recipe_that_no_record_has_is_an_error():
    columns = Columns(question="q", reply="r.text", reference="gld", where={"model": ("R1",)})
    assert refusal([{"q": "a", "r": {}}, {"gold": "4"}], columns=columns) == (
        "rows.jsonl has no column gld, model. "
        "Expected by the recipe: gld, model, q, r. Found: q, r, gold.",
        "Correct data.sources.N.columns of the recipe.",
    )


def test_flags_that_no_record_has_are_an_error():
    columns = Columns(question="q", reply="r", correct=("ok",), complete="whole")
    message, _ = refusal([{"q": "a", "r": REPLY}], columns=columns)
    assert message.startswith("rows.jsonl has no column ok, whole. ")


def test_a_registered_dataset_without_its_columns_says_what_was_expected_and_found():
    head = [{"prompt": "2 + 2?", "output": REPLY}]
    assert refusal(head, dataset=R1_DISTILL, accept=True) == (
        f"{R1_DISTILL} has no column problem, reannotated_assistant_content. "
        f"Expected by the registry for {R1_DISTILL} v0: problem, reannotated_assistant_content. "
        "Found: prompt, output.",
        "Check its config and split, or say which column holds what in "
        "data.sources.N.columns of the recipe. 1 of 1 rows read well with\n"
        "columns: {question: prompt, reply: output}",
    )


def test_an_unconfirmed_entry_says_so_when_its_columns_are_not_there():
    message, _ = refusal([{"messages": []}], dataset="open-thoughts/OpenThoughts3-1.2M")
    assert message == (
        "open-thoughts/OpenThoughts3-1.2M has no column conversations. Expected by the registry "
        "for open-thoughts/OpenThoughts3-1.2M, where they are not confirmed: conversations. "
        "Found: messages."
    )


def test_good_rows_heed_flags_unless_the_source_s_filters_do_not():
    columns = Columns(question="q", reply="r", correct=("ok",))
    head = [{"q": "a", "r": REPLY, "ok": ok} for ok in (True, False, None)]
    assert settled(head, columns=columns).good == 2
    assert settled(head, columns=columns, filters=Filters(correct=False)).good == 3


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"Problem": "a", "Trace": REPLY}, "{question: Problem, reply: Trace}"),
        ({"user": "a", "x": "<|end_of_thought|>"}, None),
        (
            {"instruction": "a", "input": "", "output": "b"},
            "{question: instruction, input: input, answer: output}",
        ),
        (
            {"instruction": "a", "input": "b", "output": REPLY},
            "{question: instruction, input: input, reply: output}",
        ),
        ({"prompt": "a", "completion": "b"}, "{question: prompt, answer: completion}"),
        (
            {"prompt": turns("a"), "completion": turns(REPLY, names=("assistant",))},
            "{messages: prompt, reply: completion.0.content}",
        ),
        (
            {"prompt": turns("a"), "completion": turns("b", names=("assistant",))},
            "{messages: prompt, answer: completion.0.content}",
        ),
        (
            {"chat": turns("a", REPLY, keys=("from", "value"), names=("human", "gpt"))},
            "{messages: chat}",
        ),
        ({"messages": turns("a", "b")}, "{messages: messages, answer: messages}"),
        (
            {"question": "a", "x_thinking": "b", "y_thinking": "c", "answer": "4", "y_answer": "d"},
            "{question: question, reasoning: x_thinking, answer: answer}",
        ),
        (
            {"query": "a", "m_reasoning": "b", "gold_answer": "c", "m_answer": "d", "id": 1},
            "{question: query, reasoning: m_reasoning, answer: m_answer, id: id}",
        ),
        (
            {"problem": "a", "tries": [REPLY], "correct": [True], "is_complete": [True], "gold": 1},
            "{question: problem, candidates: tries, correct: [correct], complete: is_complete}",
        ),
        (
            {"question": "a", "system": "b", "response": REPLY, "answer": "4", "source": "c"},
            "{question: question, system: system, reply: response, reference: answer, "
            "source: source}",
        ),
        (
            {"text": "a", "label": 1, "label_text": "good"},
            "{question: text, answer: label_text, reference: label_text}",
        ),
        ({"text": "a", "label": 0}, "{question: text, answer: label, reference: label}"),
        ({"a": 1}, None),
    ],
)
def test_columns_are_found_by_looking(record, shown):
    found = detect([record] * 3)
    assert (flow(found) if found else None) == shown


def test_reasoning_is_not_left_out_because_some_replies_lack_it():
    head = [{"question": "a", "reasoning": "b" if n < 2 else None, "answer": "c"} for n in range(9)]
    assert detect(head).reasoning == "reasoning"
    rare = [{"question": "a", "reasoning": None, "answer": "c"} for _ in range(99)]
    assert detect([head[0], *rare]).reasoning is None


NAMES = ("question", "input", "reasoning", "answer", "messages", "label", "text", "correct", "x")


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES | CHATS, max_size=5), max_size=4))
def test_detection_stumbles_over_no_record(head):
    found = detect(head)
    assert found is None or good_rows(found, head) > 0
