"""General rows among the training rows, against forgetting: how many, which, and how they stand."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat import Encoder, chat_format
from pipeline.data.choose.general import APART, rows_for
from pipeline.run import Note
from tests.data.general_rows import OWN, general, ids, manifest_of, mixed_in, plain
from tests.data.support import (
    ALL,
    examples,
    general_record,
    prepared,
    recipe_of,
    record,
    rows_of,
    write_rows,
)


def test_a_share_is_drawn_from_the_rows_that_are_not_held_apart(base, tmp_path, own):
    events = []
    source = general(tmp_path, *plain(100))
    asked = recipe_of(base, own, general=source, general_share=0.2, **ALL)
    run = prepared(tmp_path / "run", asked, events.append)
    trained = mixed_in(run)
    assert len(trained) == 20
    assert len(rows_of(run, "train")) == OWN + 20
    assert not {row["id"] for row in trained} & set(ids(run, "general"))
    # spread over the training rows, as every source is
    places = [n for n, row in enumerate(rows_of(run, "train")) if row["id"].startswith("g")]
    assert all(5 * n <= place < 5 * n + 5 for n, place in enumerate(places))
    said = "20 general rows are 20.0% of the training rows; 64 others are held apart to see what"
    assert [event.text for event in events if isinstance(event, Note)] == [f"{said} it forgets"]
    facts = manifest_of(run)["facts"]
    assert (facts["general"]["trained"], facts["general"]["share"]) == (20, 0.2)
    # whose licence has duties too
    assert facts["sources"][-1] == facts["general"]


def test_general_rows_in_training_do_not_teach_to_skip_thinking(base, tmp_path, own):
    source = general(tmp_path, *plain(70), general_record(70, reasoning=None))
    asked = recipe_of(base, own, general=source, general_share=0.05, **ALL)
    run = prepared(tmp_path / "run", asked)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    prompts = Counter()
    for row, example in zip(rows_of(run, "train"), examples(run, "train"), strict=True):
        prompt = encoder.text_of(example["input_ids"][: example["target_start"]])
        is_general = row["id"].startswith("g")
        assert prompt.endswith("<think>\n\n</think>\n\n") == is_general
        assert row["thinking"] != is_general
        prompts[is_general] += 1
    assert prompts == {False: OWN, True: 4}


def test_reasoning_of_general_rows_is_not_trained(base, tmp_path, own):
    rows = [general_record(n, reasoning=f"Hm, {n}.") for n in range(70)]
    asked = recipe_of(base, own, general=general(tmp_path, *rows), general_share=0.05, **ALL)
    run = prepared(tmp_path / "run", asked)
    assert {(row["thinking"], row["reasoning"][:2]) for row in mixed_in(run)} == {(False, "Hm")}


def test_a_share_that_cannot_be_filled_is_said_with_the_real_one(base, tmp_path, own):
    events = []
    source = general(tmp_path, *plain(APART + 6))
    asked = recipe_of(base, own, general=source, general_share=0.5, **ALL)
    run = prepared(tmp_path / "run", asked, events.append)
    assert len(mixed_in(run)) == 6
    assert manifest_of(run)["facts"]["general"]["share"] == round(6 / 86, 4)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note == Note(
        "6 general rows are 7.0% of the training rows, beside 64 held apart; 50.0% were asked "
        "for: name a larger data.general",
        warning=True,
    )


def test_what_repeats_a_row_held_apart_is_never_trained(base, tmp_path, own):
    def about(n):
        return f"Which of the {n} old towns of the north has {2 * n} houses and {3 * n} gardens"

    rows = [general_record(n, question=about(n)) for n in range(70)]
    # beside each a second answer, and a question that holds the first one
    again = [general_record(100 + n, question=about(n)) for n in range(70)]
    holding = [general_record(200 + n, question=f"{about(n)}? Guess {n}.") for n in range(70)]
    source = general(tmp_path, *rows, *again, *holding, max_loss=1)
    recipe = recipe_of(
        base, own, general=source, general_share=0.9, dedupe={"questions": "keep"}, **ALL
    )
    run = prepared(tmp_path / "run", recipe)
    assert len(rows_of(run, "general")) == APART
    apart = {int(each[1:]) % 100 for each in ids(run, "general")}
    trained = {int(row["id"][1:]) % 100 for row in mixed_in(run)}
    assert trained == set(range(70)) - apart


def test_more_of_a_share_holds_the_fewer_and_another_seed_draws_others(base, tmp_path, own):
    def drawn(name, share, **source):
        given_source = general(tmp_path, *plain(150), **source)
        recipe = recipe_of(base, own, general=given_source, general_share=share, **ALL)
        run = prepared(tmp_path / name, recipe)
        return set(ids(run, "general")), {row["id"] for row in mixed_in(run)}

    apart, few = drawn("few", 0.1)
    same, more = drawn("more", 0.3)
    assert (apart, len(few), len(more)) == (same, 9, 34)
    assert few < more
    other, _ = drawn("other", 0.1, seed=5)
    assert other != apart


def test_the_draw_does_not_depend_on_the_other_sources(base, tmp_path, own):
    source = general(tmp_path, *plain(100))
    test = write_rows(tmp_path / "test.jsonl", [record(n) for n in range(200, 203)])
    alone = prepared(tmp_path / "alone", recipe_of(base, own, general=source, **ALL))
    given_test = {"dataset": str(test)}
    beside = recipe_of(base, own, general=source, test=given_test, **ALL)
    assert ids(prepared(tmp_path / "beside", beside), "general") == ids(alone, "general")


@given(st.integers(0, 10**7), st.integers(0, 99))
def test_the_rows_for_a_share_are_nearest_to_it(trained, percent):
    rows = rows_for(trained, percent / 100)
    assert abs(100 * rows - percent * (trained + rows)) <= 50 + 1e-6
