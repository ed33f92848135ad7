"""Which answers are right, and which are certainly wrong."""

import subprocess
import sys
import threading
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers import exact_match, refutes
from pipeline.answers.maths import is_bounded

PIECES = [*"012xn+-/^{}(),%", "10", "0.5", "\\frac{", "\\sqrt{", "\\pi", "}{"]


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Leo has 68 pens.", "68", True),
        ("Leo has 68 pens, not 67.", "68", False),
        ("The sum is 1,068.50", "1068.5", True),
        ("It is -3", "3", False),
        ("It is 007", "7", True),
        ("The answer is .5", "0.5", True),
        ("-.50", "-0.5", True),
        ("-0", "0", True),
        ("-0.4", "0.4", False),
        ("It is no.5", "5", True),
        ("So \\boxed{\\frac{1}{2}} it is, by step 3.", "\\boxed{\\frac{1}{2}}", True),
        ("So \\boxed{1} or \\boxed{2}", "2", True),
        ("Blue  whale", "blue whale", True),
        ("", "", False),
        ("", "3", False),
        ("\\boxed{unclosed 3", "3", True),
        ("$\\frac{1}{2}$", "\\boxed{\\frac{1}{2}}", True),
        ("half: 1/2", "\\frac{3}{2}", False),
        ("\\boxed{3/4}", "3/4", True),
        ("\\boxed{42\\text{ cm}}", "42", True),
        ("\\boxed{x=5}", "5", True),
        ("\\boxed{x^2}", "y^2", False),
        ("\\boxed{(1,2)}", "(1,2)", True),
        ("\\boxed{A}", "A", True),
    ],
)
def test_exact_match(answer: str, reference: str, right: bool) -> None:
    assert exact_match(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("\\boxed{5}", "6"),
        ("\\boxed{100}", "101"),
        ("\\boxed{-3}", "3"),
        ("\\boxed{1,234}", "1235"),
        ("\\boxed{0.25}", "0.75"),
        ("\\boxed{\\dfrac{1}{2}}", "\\frac{1}{3}"),
        ("\\boxed{1\\frac{1}{2}}", "2.5"),
        ("$\\frac{3}{4}$", "1/4"),
        ("Leo has 67 pens.", "68"),
        ("It is 5.", "2"),
        ("The answer is 12.", "15"),
        ("First 3 + 4 = 7.\n\n**Answer:** 17", "18"),
        ("3 + 4\n#### 17", "18"),
        ("\\boxed{x = 3}", "4"),
        ("$x = 3$", "x = 4"),
        ("\\boxed{50\\%}", "60\\%"),
        ("\\boxed{50\\%}", "0.6"),
        ("\\boxed{30^\\circ}", "45^\\circ"),
        ("\\boxed{\\$5}", "7"),
        ("\\boxed{42 \\text{ cm}}", "43"),
        ("\\boxed{42 \\text{ cm}}", "43 cm"),
        ("\\boxed{\\sqrt{2}}", "\\sqrt{3}"),
        ("\\boxed{3\\sqrt{2}}", "2\\sqrt{3}"),
        ("\\boxed{\\pi}", "2\\pi"),
        ("\\boxed{2x+1}", "2x+3"),
        ("\\boxed{(x+1)^2}", "x^2+2x+2"),
        ("\\boxed{(1,2)}", "(1,3)"),
        ("\\boxed{\\{1,2\\}}", "\\{1,3\\}"),
        ("\\boxed{1, 2}", "1, 3"),
        ("\\boxed{[1,2)}", "[1,3)"),
        ("\\boxed{(-\\infty,1)\\cup(2,\\infty)}", "(-\\infty,1)\\cup(3,\\infty)"),
    ],
)
def test_a_number_or_formula_that_differs_is_refuted(answer: str, reference: str) -> None:
    assert refutes(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        # the same, written differently
        ("\\boxed{\\frac{1}{2}}", "0.5"),
        ("\\boxed{.5}", "1/2"),
        ("\\boxed{1{,}234}", "1234"),
        ("\\boxed{1\\,234}", "1,234"),
        ("\\boxed{12 345}", "12345"),
        ("\\boxed{68.0}", "68"),
        ("\\boxed{007}", "7"),
        ("\\boxed{+5}", "5"),
        ("\\boxed{−5}", "-5"),
        ("The answer is **7**.", "7"),
        ("x = 3", "3"),
        ("\\boxed{x=3}", "3"),
        ("\\boxed{\\sqrt{12}}", "2\\sqrt{3}"),
        ("\\boxed{\\frac{\\sqrt{2}}{2}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{(x+1)^2}", "x^2+2x+1"),
        ("\\boxed{\\sin(x)^2}", "1-\\cos(x)^2"),
        ("\\boxed{\\ln 4}", "2\\ln 2"),
        ("\\boxed{x^{1/2}}", "\\sqrt{x}"),
        ("\\boxed{\\frac{3}{2}\\pi}", "\\frac{3\\pi}{2}"),
        ("\\boxed{3+2i}", "2i+3"),
        ("\\boxed{10^{-3}}", "0.001"),
        ("\\boxed{2^{100}}", "1267650600228229401496703205376"),
        ("\\boxed{1,2}", "\\{2,1\\}"),
        ("\\boxed{\\{2,1\\}}", "\\{1,2\\}"),
        # choices, names, sentences
        ("\\boxed{A}", "A"),
        ("\\boxed{B}", "A"),
        ("\\boxed{A}", "(B)"),
        ("(B)", "A"),
        ("\\boxed{\\text{(A)}}", "B"),
        ("\\boxed{C}", "12"),
        ("\\boxed{12}", "C"),
        ("(3)", "(2)"),
        ("\\boxed{(2)}", "3"),
        ("\\boxed{B) 12}", "14"),
        ("Paris", "London"),
        ("\\boxed{\\text{Paris}}", "London"),
        ("\\boxed{\\text{Yes}}", "False"),
        ("\\boxed{5}", "five"),
        ("\\boxed{\\text{None}}", "0"),
        # units
        ("\\boxed{50\\%}", "0.5"),
        ("\\boxed{50\\%}", "50"),
        ("50%", "1/2"),
        ("\\boxed{42\\text{ cm}}", "42"),
        ("\\boxed{1.5 \\text{ km}}", "1500"),
        ("\\boxed{1.5 \\text{ km}}", "1500 m"),
        ("\\boxed{5 \\text{ miles}}", "8 km"),
        ("\\boxed{2 \\text{ hours}}", "120"),
        ("\\boxed{7 hours 30 minutes}", "7.5"),
        ("\\boxed{500 \\text{ cents}}", "5"),
        ("\\boxed{\\$5.00}", "5"),
        ("\\boxed{30^\\circ}", "30"),
        ("\\boxed{30^{\\circ}}", "30 degrees"),
        ("\\boxed{30^\\circ}", "\\frac{\\pi}{6}"),
        # rounding
        ("\\boxed{12.57}", "4\\pi"),
        ("\\boxed{13}", "4\\pi"),
        ("\\boxed{3.33}", "\\frac{10}{3}"),
        ("\\boxed{9.8 \\text{ m/s}^2}", "9.81"),
        ("\\boxed{3\\times 10^8}", "299792458"),
        ("\\boxed{(1.41,2)}", "(\\sqrt{2},2)"),
        # other readings
        ("\\boxed{3,14}", "3.14"),
        ("\\boxed{1010_2}", "10"),
        ("\\boxed{2:3}", "2/3"),
        ("\\boxed{[1,2)}", "(1,2]"),
        ("\\boxed{(1,2)}", "1<x<2"),
        ("\\boxed{x\\in(1,2)}", "(1,2)"),
        ("\\boxed{(1,2)}", "(2,1)"),
        ("\\boxed{\\pm 3}", "3,-3"),
        ("\\boxed{x=3 \\text{ or } x=-3}", "3"),
        ("\\boxed{y=3}", "x=4"),
        ("\\boxed{y=2x+1}", "2x-y+1=0"),
        ("\\boxed{2n+1}", "2k+1"),
        ("\\boxed{x^2/2+C}", "x^2/2+3+C"),
        ("\\boxed{ab}", "ba"),
        ("\\boxed{1}", "1, 2"),
        ("\\boxed{1} and \\boxed{2}", "3"),
        ("\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", "(1,3)"),
        # numbers in prose
        ("Leo has three pens and 5 cups.", "3"),
        ("Leo has 68 pens, not 67.", "67"),
        ("The balance fell by 3 dollars.", "-3"),
        ("Half of 10 people came, and some left.", "4"),
        ("From 3 and 4 we get our result.", "12"),
        # nothing to read
        ("", ""),
        ("", "3"),
        ("3", ""),
        ("\\boxed{}", "3"),
        ("\\boxed{unclosed 3", "4"),
        ("I cannot answer that.", "7"),
    ],
)
def test_what_another_reading_may_explain_is_not_refuted(answer: str, reference: str) -> None:
    assert not refutes(answer, reference)


@pytest.mark.parametrize(
    "huge",
    [
        "9^9^9",
        "9^{9^{9}}",
        "9**9**9",
        "9^(9^9)",
        "10^{10^{10}}",
        "((2^{999})^{999})^{999}",
        "2^{99999999}",
        "1000000!",
        "(((5)!)!)!",
    ],
)
def test_what_sympy_cannot_hold_is_never_given_to_it(huge: str) -> None:
    exact_match("\\boxed{x}", "y")  # sympy is imported
    started = perf_counter()
    assert not is_bounded(huge)
    assert not exact_match(f"\\boxed{{{huge}}}", "1")
    assert not refutes(f"\\boxed{{{huge}}}", "1")
    assert not refutes("\\boxed{1}", huge)
    assert perf_counter() - started < 0.5


def test_ordinary_powers_are_bounded() -> None:
    assert is_bounded(
        "$x^2 + y^{10} = 3 \\times 10^{23}$, so 2^{2024} and (x+1)^3. That is 5! Yes."
    )


def test_it_works_beside_the_main_thread() -> None:
    """Where there is no SIGALRM."""
    found: list[bool] = []

    def work() -> None:
        found.append(refutes("\\boxed{\\sqrt{2}}", "\\sqrt{3}"))
        found.append(exact_match("\\boxed{\\frac{2}{4}}", "\\frac{1}{2}"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, True]


def test_math_verify_says_nothing(monkeypatch, caplog, capfd) -> None:
    monkeypatch.setattr("pipeline.answers.maths.SECONDS", 1)
    assert not exact_match("\\boxed{(x+1)^{9999}}", "(x+2)^{9999}")  # beyond the seconds given
    assert not exact_match("\\boxed{\\frac{1}{}", "\\sqrt{")
    assert caplog.text == "" and capfd.readouterr() == ("", "")


def test_equal_answers_never_import_sympy() -> None:
    code = (
        "import sys; from pipeline.answers import exact_match, refutes;"
        "assert exact_match('It is 68.', '68') and not refutes('It is 68.', '68.0');"
        "assert not refutes('Paris', 'London') and not refutes('$\\\\frac{1}{2}$', '0.5');"
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text(max_size=60), st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_judged_and_the_same_way_twice(answer: str, reference: str) -> None:
    boxed = f"\\boxed{{{answer}}}"
    assert refutes(boxed, reference) == refutes(boxed, reference)
    assert not refutes(answer, answer)


@given(st.lists(st.sampled_from(PIECES)))
@settings(max_examples=200, deadline=None)
def test_no_formula_refutes_itself(parts: list[str]) -> None:
    formula = " ".join(parts)
    assert not refutes(f"\\boxed{{{formula}}}", formula.replace(" ", ""))


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
@settings(max_examples=100, deadline=None)
def test_integers_refute_each_other_unless_they_are_equal(one: int, other: int) -> None:
    assert refutes(f"\\boxed{{{one}}}", f"{other}") is (one != other)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("\\boxed{33.3\\%}", "1/3"),
        ("\\boxed{66.67\\%}", "2/3"),
        ("\\boxed{1.67 \\text{ hours}}", "100"),
    ],
)
def test_a_rounded_value_in_another_unit_is_not_refuted(answer: str, reference: str) -> None:
    assert not refutes(answer, reference)
