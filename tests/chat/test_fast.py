"""A faster encoder encodes only where it gives the tokenizer's own ids for every text."""

import json
import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.chat import Encoder, fast, fastest, proof
from pipeline.errors import PipeError
from tests.chat.texts import ATTACKS, FORMAT, TEXTS, completed, write
from tests.support.tokenizer import PATTERN, SPECIALS, tokenizer_json

UNITS = ["a", "b", "ab", "ba", "aab", " ", "\n", "=", "-", "=-", "é", "中", "'s", "7"]
RUNS = st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 150)), max_size=6).map(
    lambda runs: "".join(unit * times for unit, times in runs)
)
CHARACTERS = "".join(map(chr, range(0x250))) + "ſ\u2028"


def renumbered(text, seed):
    """The same tokens in any order of ids, as a token may have a lower id than its parts."""
    description = json.loads(text)
    vocabulary = description["model"]["vocab"]
    ids = sorted(vocabulary.values())
    random.Random(seed).shuffle(ids)
    description["model"]["vocab"] = dict(zip(vocabulary, ids, strict=True))
    return json.dumps(description)


@cache
def rich_json():
    """Tokens that overlap themselves and one another, and parts of characters."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(3)
    lines = ["".join(rng.choice(UNITS) * rng.randint(1, 30) for _ in range(40)) for _ in range(300)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens(list(SPECIALS))
    return str(tokenizer.to_str())


@pytest.fixture(scope="module", params=[1, 2, 3])
def renumbered_pair(request, tmp_path_factory):
    return encoders(tmp_path_factory, completed(renumbered(rich_json(), request.param)))


@pytest.fixture(scope="module", params=["tiktoken", "pieces"])
def pair(request, tmp_path_factory):
    return encoders(tmp_path_factory, completed(rich_json()), request.param)


def encoders(tmp_path_factory, text, backend="tiktoken"):
    """One tokenizer, proven, with its own encoder and a faster one."""
    path = write(tmp_path_factory.mktemp("tokenizer"), text)
    assert fastest(path).backend == "tiktoken"
    own, quick = Encoder(path, FORMAT), Encoder(path, FORMAT, backend=backend)
    assert (own.backend, quick.backend) == ("tokenizers", backend)
    return own, quick


@given(text=RUNS | TEXTS | ATTACKS)
def test_both_give_the_same_ids_whatever_the_order_of_ids(renumbered_pair, text):
    own, quick = renumbered_pair
    assert quick.content_ids(text) == own.content_ids(text)


@given(text=RUNS | TEXTS | ATTACKS)
def test_both_give_the_same_ids(pair, text):
    own, quick = pair
    assert quick.content_ids(text) == own.content_ids(text)


@pytest.mark.parametrize("name", SPECIALS)
def test_no_added_token_comes_out_of_a_text(pair, name):
    own, quick = pair
    added = {own.whole(special)[0] for special in SPECIALS}
    for cut in range(len(name) + 1):
        for form in (name, name[:cut] + name + name[cut:], name[:cut] + " " + name[cut:]):
            ids = quick.content_ids(form)
            assert added.isdisjoint(ids)
            assert ids == own.content_ids(form)


@pytest.mark.parametrize("unit", [" ", "\t ", "\n", " \n", "a", "^", "7", "é", "🙂"])
def test_the_longest_runs_that_tiktoken_gets(pair, unit):
    own, quick = pair
    text = unit * (fast._LONGEST // len(unit))
    ids = quick._fast.ids(text)
    assert quick.text_of(ids) == text
    assert quick._fast.ids(text + unit) is None
    assert quick.content_ids(text[:20_000] + "x") == own.content_ids(text[:20_000] + "x")


def test_an_uncommon_character_goes_to_tokenizers(tmp_path_factory):
    own, quick = encoders(tmp_path_factory, completed(rich_json()), "pieces")
    newer = "a \U00033000b \u0558c"
    assert quick._fast.ids(newer) is None
    assert quick.content_ids(newer) == own.content_ids(newer)


def test_pieces_are_forgotten_before_they_fill_the_memory(pair, monkeypatch):
    own, quick = pair
    monkeypatch.setattr(fast, "_MOST_PIECES", 3)
    for number in range(20):
        text = f"a{number} b{number}"
        assert quick.content_ids(text) == own.content_ids(text)


def test_a_run_that_tiktoken_would_panic_at_goes_to_tokenizers(pair):
    _, quick = pair
    text = " " * 1_000_001
    assert quick.text_of(quick.content_ids(text)) == text


def altered(change):
    description = json.loads(completed(tokenizer_json()))
    change(description)
    return json.dumps(description)


def drop_a_merge(description):
    del description["model"]["merges"][17]


def swap_two_merges(description):
    merges = description["model"]["merges"]
    merges[5], merges[-5] = merges[-5], merges[5]


def set_in_model(key, value):
    return lambda description: description["model"].update({key: value})


def set_in_splitting(place, key, value):
    return lambda description: description["pre_tokenizer"]["pretokenizers"][place].update(
        {key: value}
    )


def drop_a_byte(description):
    del description["model"]["vocab"]["ÿ"]


def add_a_character(description):
    description["model"]["vocab"]["中"] = 9999


def repeat_an_id(description):
    description["model"]["vocab"]["th"] = 0


def control_inside(description):
    description["model"]["vocab"]["<|eot_id|>"] = description["added_tokens"][-3]["id"]


DIFFERENT_CUT = "it does not cut text as Llama 3 does"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_a_merge, "its merges lack 1 of "),
        (swap_two_merges, "its merges are not in the order of its ids"),
        (set_in_model("type", "Unigram"), "its model is not BPE"),
        (set_in_model("ignore_merges", False), "it merges pieces that are tokens already"),
        (set_in_model("dropout", 0.1), "its model sets dropout"),
        (set_in_model("unk_token", "a"), "its model sets unk_token"),
        (set_in_model("byte_fallback", True), "its model sets byte_fallback"),
        (set_in_model("end_of_word_suffix", "</w>"), "its model sets end_of_word_suffix"),
        (lambda d: d.update(normalizer={"type": "NFC"}), "it normalizes text"),
        (lambda d: d.update(pre_tokenizer=None), DIFFERENT_CUT),
        (
            set_in_splitting(0, "pattern", {"Regex": PATTERN.replace("{1,3}", "{1,2}")}),
            DIFFERENT_CUT,
        ),
        (set_in_splitting(0, "invert", True), DIFFERENT_CUT),
        (set_in_splitting(1, "add_prefix_space", True), DIFFERENT_CUT),
        (drop_a_byte, "its vocabulary is not one of bytes"),
        (add_a_character, "its vocabulary is not one of bytes"),
        (repeat_an_id, "two of its tokens have one id"),
        (control_inside, "its vocabulary holds the added token <|eot_id|>"),
    ],
)
def test_a_tokenizer_that_differs_is_not_proven_and_says_why(tmp_path, change, reason):
    found = fastest(write(tmp_path, altered(change)))
    merged_otherwise = change in {drop_a_merge, swap_two_merges}
    assert found.backend == ("pieces" if merged_otherwise else "tokenizers")
    assert found.reason.startswith(reason)


def test_a_completed_tokenizer_goes_to_tiktoken_and_a_trained_one_in_pieces(tmp_path):
    assert fastest(write(tmp_path, completed(tokenizer_json()))).backend == "tiktoken"
    found = fastest(write(tmp_path, tokenizer_json()))
    assert found.backend == "pieces"
    assert found.reason.startswith("its merges lack ")


def test_merges_written_as_text_and_either_trim_offsets_are_proven(tmp_path):
    def older(description):
        description["model"]["merges"] = [" ".join(m) for m in description["model"]["merges"]]
        description["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = False

    assert fastest(write(tmp_path, altered(older))).backend == "tiktoken"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipeError, match="cannot be read"):
        fastest(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("backend", ["tiktoken"])
def test_fast_without_a_proof_falls_back_where_the_two_differ(tmp_path, backend):
    lower = altered(lambda d: d.update(normalizer={"type": "Lowercase"}))
    encoder = Encoder(write(tmp_path, lower), FORMAT, backend=backend)
    assert encoder.backend == "tokenizers"
    assert encoder.text_of(encoder.content_ids("WHY")) == "why"


ENGINES = [proof._Tiktoken, proof._Regex]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_regex_engines_agree_on_characters(engine):
    assert proof._compared(engine(), CHARACTERS) == ""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("question", "character", "reason"),
    [
        (0, "é", r"the regex engines differ in \p{L}: U+00E9"),
        (1, "²", r"the regex engines differ in \p{N}: U+00B2"),
        (2, "\x85", r"the regex engines differ in \s: U+0085"),
        (3, "ſ", r"the regex engines differ in (?i:'s|"),
    ],
)
def test_a_character_that_one_engine_knows_and_the_other_does_not_is_named(
    engine, question, character, reason
):
    class Older(engine):
        def taken(self, asked, text):
            taken = super().taken(asked, text)
            return taken.replace(character, "") if asked == proof._QUESTIONS[question] else taken

    assert proof._compared(Older(), CHARACTERS).startswith(reason)
    assert proof._compared(Older(), CHARACTERS).endswith(f"U+{ord(character):04X}")


@pytest.mark.parametrize("name", ["GROUPED", "LLAMA3_SPLIT"])
def test_a_regex_that_cuts_otherwise_is_found(monkeypatch, name):
    real = fast.LLAMA3_SPLIT
    monkeypatch.setattr(proof, name, getattr(fast, name).replace(r"\s+(?!\S)|", ""))
    if name == "LLAMA3_SPLIT":
        cut = proof._cut
        monkeypatch.setattr(proof, "_cut", lambda _, *rest: cut(real, *rest))
        monkeypatch.setattr(proof, "_one_piece_each", lambda *_: True)
        monkeypatch.setattr(proof, "_taken_alone", lambda *_: True)
    engine = proof._Tiktoken() if name == "GROUPED" else proof._Regex()
    assert proof._compared(engine, CHARACTERS) == (
        "the regex engines cut '\\t\\t\\t\\t!' differently"
    )
