"""Rows in another language: dropped where it is sure, by each part of the row."""

import subprocess
import sys

import pytest

from pipeline.data.work.filters import checks
from pipeline.data.work.language import KNOWN, is_in_other_language, words
from pipeline.errors import RecipeError
from pipeline.recipe import Filters
from tests.data.judged import TRACE, reason, traces

ENGLISH = """
Find all real x such that x^2 - 5x + 6 = 0.
If 3x + 7 = 22, what is the value of x?
What is the derivative of f(x) = sin(x)cos(x) at x = π/4?
Evaluate the integral ∫_0^1 x^2 dx and give your answer as a fraction.
Let $a, b, c$ be positive reals with $abc = 1$. Prove that $a + b + c \\ge 3$.
Compute the number of ways to arrange the letters of MISSISSIPPI.
Simplify \\(\\frac{x^2-1}{x-1}\\) for \\(x \\neq 1\\).
A train leaves at 3:45 pm and travels at 60 km/h; how far has it gone by 5:15 pm?
The sum of two numbers is 20 and their product is 96. What are they?
How many positive divisors does 360 have?
Solve for n: 2^{n+1} = 128.
What is the remainder when 7^{100} is divided by 13?
In triangle ABC, AB = 5, BC = 7 and angle B = 60°. Find AC.
Determine the eigenvalues of the matrix [[2, 1], [1, 2]].
Show that √2 is irrational.
What is the probability of rolling a sum of 7 with two fair dice?
Let S = {1, 2, 3, ..., 100}. How many subsets of S have an even sum?
Find the limit of (1 + 1/n)^n as n → ∞.
Convert 0.1̅6̅ to a fraction in lowest terms.
If f: ℝ → ℝ satisfies f(x + y) = f(x) + f(y), what can be said about f?
Write a function def add(a, b) that returns the sum of a and b.
Given an array nums and an integer k, return the k most frequent elements.
Implement a LRU cache with get(key) and put(key, value) in O(1) time.
What does `[x**2 for x in range(10) if x % 2]` evaluate to in Python?
Why does my C++ code segfault at `int *p = nullptr; *p = 5;`?
Explain the difference between == and === in JavaScript.
You are given a string s of lowercase letters; find the longest palindromic substring.
Write a SQL query: SELECT the second highest salary FROM Employee.
What is the time complexity of quicksort in the worst case?
Reverse a linked list in place. Input: 1->2->3->NULL. Output: 3->2->1->NULL.
Fix the bug in this regex: ^[a-z]+@[a-z]+\\.com$ so that it allows digits.
Given n (1 ≤ n ≤ 10^5) integers a_i, print the maximum of a_i + a_j.
What is the pH of a 0.01 M HCl solution?
Balance the equation: Fe + O2 -> Fe2O3.
A 2 kg block slides down a 30° incline (μ = 0.2). Find its acceleration.
How much energy is released when 1 g of mass is converted (E = mc²)?
What is the wavelength of light with frequency 5 × 10^14 Hz?
Name the enzyme that unwinds DNA during replication.
Calculate the molarity of 5.85 g NaCl in 250 mL of water.
State Ohm's law and find I when V = 12 V and R = 4 Ω.
Which planet has the shortest day, and how long is it?
Is the Schrödinger equation linear? Explain why that matters.
John has $5 and buys 3 apples at $0.75 each; how much money is left?
A patient (45 y/o, BP 150/95 mmHg) takes 20 mg lisinopril; what should be monitored?
""".strip().split("\n")

CHINESE = "一个长方形的长是宽的两倍，周长是三十六厘米，求这个长方形的面积是多少平方厘米？"
OTHERS = {
    "zh": [
        CHINESE,
        "首先，我们需要求出方程 $x^2-5x+6=0$ 的根，然后验证这两个根是否满足题目的条件。",
        "请用 Python 写一个函数，判断一个字符串是否是回文，并说明它的时间复杂度。",
    ],
    "es": [
        "¿Cuántos números primos hay entre 1 y 100? Explica tu razonamiento paso a paso.",
        "Primero calculamos la suma de los dos términos y luego dividimos entre 3.",
        "Un tren sale de Madrid a las 8:00 y otro de Barcelona a las 9:00. ¿Cuándo se cruzan?",
    ],
    "de": [
        "Wie viele Primzahlen gibt es zwischen 1 und 100? Begründe deine Antwort.",
        "Zuerst berechnen wir die Summe der beiden Zahlen und teilen sie dann durch 3.",
        "Ein Zug fährt um 8:00 Uhr in Berlin ab. Wann kommt er in Hamburg an?",
    ],
    "fr": [
        "Combien y a-t-il de nombres premiers entre 1 et 100 ? Justifiez votre réponse.",
        "Nous calculons d'abord la somme des deux termes, puis nous divisons par 3.",
        "Soit $f$ une fonction continue sur $[0,1]$. Montrer que $f$ est bornée.",
    ],
    "ru": [
        "Сколько простых чисел находится между 1 и 100? Объясните своё решение.",
        "Сначала найдём сумму двух чисел, а затем разделим её на три.",
        "Докажите, что число √2 является иррациональным.",
    ],
    "ja": [
        "1から100までの間に素数はいくつありますか。理由も説明してください。",
        "まず、二つの数の和を求めて、それを三で割ります。次に余りを確認します。",
        "次の関数を微分しなさい。また、その極値を求めなさい。",
    ],
}


@pytest.mark.parametrize("question", ENGLISH)
def test_an_english_question_is_taken_for_english(question: str) -> None:
    assert reason(question=question) is None


@pytest.mark.parametrize(
    ("language", "text"), [(code, text) for code, texts in OTHERS.items() for text in texts]
)
def test_another_language_is_dropped_and_its_own_recipe_takes_it(language: str, text: str) -> None:
    for part in ("question", "reasoning", "answer"):
        assert reason(reference=None, **{part: text}) == "wrong_language"
    assert not is_in_other_language(text, (language,))
    assert not is_in_other_language(text, ("en", language))
    assert is_in_other_language(text, ("en", "ko"))


def test_english_is_dropped_from_a_chinese_recipe() -> None:
    chinese = Filters(languages=("zh",), repetition=False, verify=False)
    assert reason(chinese, question=CHINESE, reasoning=CHINESE * 5, answer=CHINESE) is None
    assert reason(chinese, question=CHINESE, reasoning=TRACE, answer=CHINESE) == "wrong_language"


@pytest.mark.parametrize("code", ["zh", "es", "de", "fr", "ru", "ja"])
@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_a_trace_that_switches_is_dropped(code: str, at: float) -> None:
    english = traces(20)
    part = " ".join(OTHERS[code]) * (30 if code in ("zh", "ja") else 20)
    place = round(at * len(english))
    mixed = english[:place] + part + english[place:]
    assert reason(Filters(languages=("en",), repetition=False), reasoning=mixed) == "wrong_language"


def test_a_few_foreign_words_are_no_switch() -> None:
    trace = traces(20)
    quoted = trace[:6000] + " The word 因此 means therefore, and so does поэтому. " + trace[6000:]
    assert reason(reasoning=quoted) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 3",
        "42",
        "Genau 7.",
        "$$\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}$$" * 20,
        "```python\nfür_alle = [wert for wert in werte]\nrückgabe(für_alle)\n```",
        "no no no no " * 100,
        "🦙" * 100,
        "ΔS = k ln Ω, αβγ → δε, ∇×E = −∂B/∂t; " * 10,
    ],
)
def test_where_there_are_too_few_words_nothing_is_judged(text: str) -> None:
    assert not is_in_other_language(text, ("en",))
    assert not is_in_other_language(text, ("zh",))


def test_only_words_count() -> None:
    text = "Let $x$ be **such** that f(x) = \\frac{1}{2}, don't use a_1; such x² is 好的。"
    assert " ".join(words(text).split()) == "Let be such that don't use x is 好的"


def test_an_unknown_language_is_an_error_with_those_known() -> None:
    with pytest.raises(RecipeError) as error:
        checks(Filters(languages=("en", "klingon")))
    assert error.value.message == "Unknown language in filters.languages: klingon."
    assert " de " in error.value.hint and " zh" in error.value.hint


def test_the_codes_are_those_of_the_model() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    labels = LanguageIdentifier.from_model_file(MODEL_FILE).labels
    assert sorted(KNOWN) == sorted(label for label in labels if len(label) == 2)


def test_the_model_is_loaded_when_it_is_first_needed() -> None:
    code = (
        "import sys; from pipeline.data.work.filters import checks;"
        "from pipeline.recipe import Filters;"
        "checks(Filters(languages=('en',))); sys.exit('py3langid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
