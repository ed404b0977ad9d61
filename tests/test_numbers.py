"""Numbers in text: every style of writing, what is no number, and where an answer states it. One line a case."""

import time

import pytest
from test_scoring import sample

from seqdistill.metrics import METRICS, Item
from seqdistill.metrics.numbers import answer_number, mentioned, only_number, stated_number, whole_number, written
from seqdistill.stages.filter.scoring.answers import extractor
from seqdistill.stages.filter.scoring.verify import by_number

STATED = [  # text, the number it states in normal form
    ("It costs $1,234.50.", "1234.5"),
    ("5-3 is not v2", "3"),
    ("3.00", "3"),
    ("007", "7"),
    ("-0.0", "0"),
    (".50 each", "0.5"),
    ("none", None),
    # signs and money
    ("−5 degrees", "-5"),
    ("+7", "7"),
    ("-$5", "-5"),
    ("$-5$", "-5"),
    (r"\$18.90", "18.9"),
    (r"$\$18.90$", "18.9"),
    ("5.", "5"),
    ("5...", "5"),
    # fractions
    ("1/4", "0.25"),
    ("3/4", "0.75"),
    ("-1/3", "-1/3"),
    (r"\frac{3}{4}", "0.75"),
    (r"\dfrac34", "0.75"),
    (r"\frac{-1}{3}", "-1/3"),
    (r"-\frac{1}{3}", "-1/3"),
    ("1 3/4", "1.75"),
    ("3½", "3.5"),
    ("½", "0.5"),
    # thousands and decimals
    ("10 000", "10000"),
    ("10\u00a0000", "10000"),
    ("10\u202f000,5", "10000.5"),
    ("10{,}000", "10000"),
    (r"10\,000", "10000"),
    ("10'000", "10000"),
    ("10_000", "10000"),
    ("1 000 000", "1000000"),
    ("1.234.567", "1234567"),
    ("1.234,56", "1234.56"),
    ("3,5", "3.5"),
    ("0,125", "0.125"),
    ("1,00,000", "100000"),
    # powers and multiples
    ("6e6", "6000000"),
    ("6E+6", "6000000"),
    ("1e-3", "0.001"),
    ("6 × 10^6", "6000000"),
    ("1 × 10^-3", "0.001"),
    (r"6 \times 10^{6}", "6000000"),
    ("6×10⁶", "6000000"),
    ("10^6", "1000000"),
    ("2^10", "1024"),
    ("6 million", "6000000"),
    ("3万", "30000"),
    ("1.5億", "150000000"),
    # other scripts around, and other digits
    ("答案是42。", "42"),
    ("答えは42です", "42"),
    ("合計は42個です", "42"),
    ("第3回の答えは7", "7"),
    ("คำตอบคือ42บาท", "42"),
    ("ราคา42บาท", "42"),
    ("정답은 42개입니다", "42"),
    ("１２ people", "12"),
    ("٤٢", "42"),
    ("๔๒", "42"),
    # units
    ("25 cm^2", "25"),
    ("25 cm²", "25"),
    ("25cm2", "25"),
    ("25 m²", "25"),
    (r"25\text{ cm}^2", "25"),
    ("5 km/h", "5"),
    ("10 m/s^2", "10"),
    ("1.5kg", "1.5"),
    ("100°C", "100"),
    (r"90^\circ", "90"),
    ("50%", "50"),
    ("CO2 and 5", "5"),
    # multiples in letters, accounts, programs, typography
    ("5k", "5000"),
    ("$5K", "5000"),
    ("$2.5M", "2500000"),
    ("€1.2bn", "1200000000"),
    ("5 m", "5"),
    ("2.5M HCl", "2.5"),
    ("1万5千", "15000"),
    ("3億5000万", "350000000"),
    ("3千5百円", "3500"),
    ("a loss of ($1,234)", "-1234"),
    ("$(1,234.50)", "-1234.5"),
    ("(1,234)", "1234"),
    ("1.5*10**3", "1500"),
    ("2**10", "1024"),
    (r"1.5\times10^{3}", "1500"),
    (r"x = 2\sqrt2", None),
    ("It is –5.", "-5"),
    ("pages 2–5", "5"),
    ("minus 5", "-5"),
    ("It is minus 5 degrees.", "-5"),
    ("10 minus 5", "5"),
    ("negative 3/4", "-0.75"),
    ("_42_", "42"),
    ("x_2 = 7", "7"),
    ("Rs.5", "5"),
    ("The answer is:\n\n- 42", "42"),
    ("- 5", "-5"),
    ("It's 5!", "5"),
    # notes behind the answer
    ("42\n\nConfidence: 0.9", "42"),
    ("It is 42, because:\n1. six is even\n2. seven is not", "42"),
    ("The total is 42.\n\n(Note: 3 of them were broken.)", "42"),
    ("42 (see step 3)", "42"),
    ("42\n\nNote: 2 decimal places.", "42"),
    ("It is 3.14, rounded to 2 decimal places", "3.14"),
    ("She has 12 apples, as shown in step 4.", "12"),
    # marks
    ("#### 72", "72"),
    ("So 3 + 4 = <<3+4=7>>7\n#### 1,200", "1200"),
    ("The answer is 18 apples, 3 more than before.", "18"),
    ("The answer is 5 + 3 = 8.", "8"),
    ("Answer: 18 = 9 × 2", "18"),
    ("Answer: 18 (= 9 × 2)", "18"),
    ('{"answer": 42, "steps": 3}', "42"),
    ("final_answer = 42 in 3 steps", "42"),
    ("Ответ: 42. Всего 3 шага.", "42"),
    ("Resposta: 42. São 3 passos.", "42"),
    ("उत्तर: 42। कुल 3 चरण", "42"),
    ("الجواب: 42 في 3 خطوات", "42"),
    ("答：42个，共3步", "42"),
    ("답은 42, 3단계", "42"),
    ("Cevap: 42, 3 adımda", "42"),
    ("**Answer:** 12\n\nThat took 3 days.", "12"),
    ("Final answer: 3/8", "0.375"),
    (r"So \boxed{72}, after 3 tries", "72"),
    (r"\boxed{42 \text{ apples}}", "42"),
    (r"\boxed{(3, 4)}", None),
    ("So **12** it is", "12"),
    ("x = 7", "7"),
    ("a^2 = 9", "9"),
    # no number, though it has digits
    ("(3,4)", None),
    ("(5, 4)", None),
    ("[1, 2]", None),
    (r"\{1, 2\}", None),
    (r"2\sqrt{3}", None),
    ("2 sqrt 3", None),
    ("4 sqrt(3)", None),
    ("2√3", None),
    ("3π", None),
    ("3 pi", None),
    ("5!", None),
    ("2x", None),
    ("4 + 5i", None),
    ("7:30", None),
    ("at 4:30 pm", None),
    ("3:2", None),
    ("2024-05-03", None),
    ("3/4/2024", None),
    ("version 1.2.3", None),
    ("9" * 2000, None),
    # a $ of LaTeX is no dollar
    ("The answer is $3/4$.", "0.75"),
    ("$ 3/4 $", "0.75"),
    ("$-3/4$", "-0.75"),
    (r"The answer is $2\frac{5}{8}$.", "2.625"),
    (r"$1\frac45$", "1.8"),
    (r"$2 \tfrac58$ cups", "2.625"),
    ("$1 1/2$", "1.5"),
    ("**$1 1/2$**", "1.5"),
    ("$(3,4)$", None),
    ("$(0.354,0.447)$", None),
    ("$(2,251,252)$", None),
    ("The rope is $3m$ long.", "3"),
    ("$25m/s$", "25"),
    ("$12m^2$", "12"),
    ("$2k$", None),
    ("The answer is $3b$.", None),
    ("$10:30$", None),
    ("$x=-1,3$", None),
    ("$n = 12$", "12"),
    ("$$\n\\frac{1}{2}\n$$", "0.5"),
    (r"\(3/4\)", "0.75"),
    (r"\[1\frac{4}{5}\]", "1.8"),
    (r"\((3, 4)\)", None),
    (r"so it is \(25m/s\)", "25"),
    (r"$10{,}000$", "10000"),
    ("minus $5$", "-5"),
    ("$1/2 each", "0.5"),
    ("$1 1/2 each", "1.5"),
    ("It costs $5 and $6.", "6"),
    ("It costs $2 and, later, $ 3", "3"),
    ("It rose to $2.5M, from $2M.", "2000000"),
    (r"\$5 of \$6", "6"),
    # currencies
    ("US$18", "18"),
    ("The total is US$18.", "18"),
    ("R$ 18", "18"),
    ("A$18.00", "18"),
    ("HK$1,800", "1800"),
    ("-US$18", "-18"),
    ("US$-18", "-18"),
    ("(US$18)", "-18"),
    ("CN¥100", "100"),
    ("USD18", "18"),
    ("CHF18.50", "18.5"),
    ("-₹18", "-18"),
    ("−₩18,000", "-18000"),
    ("₺2.5M", "2500000"),
    ("₦500", "500"),
    # formulas
    (r"The answer is $2\sin x$.", None),
    (r"The answer is \(x \ge 3\).", None),
    (r"The answer is $\frac{x}{2}$.", None),
    ("so it is $5x - 2$", None),
    ("$3x - y = 0$", None),
    ("The answer is $y = -28(x-7)$.", None),
    ("$3 m + 2 m = 5 m$", "5"),
    ("$A = 3 \\times 5 = 15$", "15"),
    (r"\frac{2}{3} x", None),
    ("x = ±5", None),
    (r"\pm 5", None),
    ("5 ± 0.2", None),
    ("1010_2", None),
    ("The answer is 2a.", None),
    ("2θ", None),
    (r"2\theta", None),
    (r"\frac{5}{-2}", "-2.5"),
    (r"\frac{-5}{-2}", "2.5"),
    (r"\frac{5.0}{2}", "2.5"),
    ("5/-2", "-2.5"),
    ("-(1/3)", "-1/3"),
    # several numbers, and none of them stated
    ("The answer is between 5 and 6.", None),
    ("The answer is 5 or 6", None),
    ("5 or 6", None),
    ("x = 5 or x = -5", None),
    ("The answer is 5–6.", None),
    ("3 hours or 180 minutes", "180"),
    ("The answer is 18 apples and 3 pears.", "18"),
]


@pytest.mark.parametrize(("text", "found"), STATED, ids=[text[:20] for text, _ in STATED])
def test_the_number_that_a_text_states_is_found_in_normal_form(text: str, found: str | None) -> None:
    assert answer_number(text) == found


JUDGED = [  # reference, answer, right: 1 or 0, None where the reference is not one number
    ("3/4", "1/4", 0),
    ("3/4", "0.75", 1),
    ("3/4", r"\frac{6}{8}", 1),
    ("(3,4)", "(5,4)", None),
    ("4", "(5,4)", 0),
    (r"2\sqrt{3}", r"4\sqrt{3}", None),
    ("3", r"2\sqrt{3}", 0),
    ("4:30", "7:30", None),
    ("30", "7:30", 0),
    ("1000001", "1000002", 0),
    ("1000001", "1,000,001", 1),
    ("1000000.0", "1000000.5", 1),
    ("25", "25 cm^2", 1),
    ("25 cm^2", "The area is 25 cm².", 1),
    ("10000", "10 000", 1),
    ("10000", "10{,}000 dollars", 1),
    ("6000000", "6e6", 1),
    ("42", "答案是42。", 1),
    ("42", "คำตอบคือ42บาท", 1),
    ("42", "The answer is 42 (note: I rounded to 2 places).", 1),
    ("18", "The answer is 18.\n\nLet me know if you need 2 more.", 1),
    ("-5", "−5", 1),
    ("5", "−5", 0),
    ("1/3", "0.3333333333", 1),
    ("1/3", "0.333", 0),
    ("0", "0.0000001", 1),
    ("5 apples and 3 pears", "5 and 3", None),
    ("7 or 8", "8", None),
    ("five", "5", None),
    ("So 48/2 = <<48/2=24>>24.\n#### 72", "She sold 72 clips.", 1),
    ("So it is $1200", "The total is 1,200.", 1),
    (r"\boxed{16}", "It is 16 m.", 1),
    ("2024-05-03", "03", None),
    ("42", "", 0),
    ("3/4", "The answer is $3/4$.", 1),
    ("$3/4$", "0.75", 1),
    ("2.625", r"The answer is $2\frac{5}{8}$.", 1),
    ("2", r"The answer is $2\frac{5}{8}$.", 0),
    ("$1 1/2$", "1.5", 1),
    ("3", "The rope is $3m$ long.", 1),
    ("US$18", "18", 1),
    ("18", "-₹18", 0),
    ("-18", "-₹18", 1),
    # a formula is not the number in it: as a reference unscored, as an answer wrong
    ("$b^{2}-16$", "16", None),
    ("$x(x-3)$", "3", None),
    (r"x \le 3", "3", None),
    ("x > 5", "5", None),
    (r"[2,+\infty)", "2", None),
    (r"\frac{\pi}{3}", "3", None),
    (r"\frac{x}{2}", "2", None),
    (r"\pm 5", "5", None),
    ("1010_2", "1010", None),
    (r"52_{8}", "52", None),
    (r"2\sin x", "2", None),
    (r"\ln 9", "9", None),
    (r"\log_2 3", "3", None),
    (r"2\theta", "2", None),
    (r"3\mathbf{i}", "3", None),
    (r"0.\overline{3}", "0", None),
    ("$n=-6,9$", "-6.9", None),
    ("$x=-6, x=2$", "2", None),
    ("$x^{2}-25=0$", "0", None),
    ("k + 5", "5", None),
    ("4ab", "4", None),
    ("-9 x", "-9", None),
    ("6 + 9i", "6", None),
    ("5/x", "5", None),
    (r"\(2 n\)", "2", None),
    ("2", r"\boxed{2\sin x}", 0),
    ("5", r"\boxed{\pm 5}", 0),
    ("2", r"\boxed{\frac{\pi}{2}}", 0),
    ("9", r"\boxed{|9|x}", 0),
    ("5", "The answer is between 5 and 6.", 0),
    ("-2", r"\frac{5}{-2}", 0),
    # and what is a number still: with its name, its unit, emphasis, the letter of its choice
    ("$x = 3$", "3", 1),
    ("f(x) = 7", "7", 1),
    ("y_1 = 4", "4", 1),
    ("$w_{0}=1$", "1", 1),
    (r"\theta = 90^\circ", "90", 1),
    ("350 (g)", "350", 1),
    ("5 (dollars/hour)", "5", 1),
    ("22.1cm^{2}", "22.1", 1),
    (r"$0.5 \mathrm{~yd}^{2}$", "0.5", 1),
    ("20 $cm^{2}$", "20", 1),
    ("-6/25 m/s", "-0.24", 1),
    ("9.8 m/s^2", "9.8", 1),
    ("**18**", "18", 1),
    ("**$18$**", "18", 1),
    ("<b>18</b>", "18", 1),
    ("6th", "6", 1),
    ("(E) 5", "5", 1),
    (r"\{5\}", "5", 1),
    ("24-hour", "24", 1),
    ("5k", "5000", 1),
]


@pytest.mark.parametrize(("reference", "text", "right"), JUDGED)
def test_a_number_is_right_when_it_is_the_reference_s(reference: str, text: str, right: int | None) -> None:
    assert by_number([sample(text, reference=reference)], extractor("number"), 1e-6) == [right]
    assert METRICS["numeric"].score(Item(text, reference)) == (right and 100.0 * right), "eval reads numbers as filter does"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,050.0", "1050"),
        (" 007 ", "7"),
        ("1/2", "0.5"),
        ("-3", "-3"),
        ("$5", None),
        ("5 km", None),
        ("3, 4", None),
        ("v2", None),
    ],
)
def test_a_text_that_is_a_number_alone_has_its_value(text: str, value: str | None) -> None:
    found = whole_number(text)
    assert (found if found is None else written(found)) == value


def test_the_numbers_that_a_text_mentions_are_compared_in_normal_form() -> None:
    assert mentioned("1,050 people at 7:30 on 2026-05-03, 3.50 each, v2") == {"1050", "7", "30", "2026", "5", "3", "3.5"}
    assert mentioned(r"$x \le 2.5$, $\frac{\pi}{1.5}$ and 5.5 ± 0.25 of US$18") == {"2.5", "1.5", "5.5", "0.25", "18"}


def test_whole_numbers_may_differ_only_by_a_tolerance_that_was_widened() -> None:
    answers = [sample("1210", reference="1200"), sample("1300", reference="1200")]
    assert by_number(answers, extractor("number"), 1e-6) == [0, 0]
    assert by_number(answers, extractor("number"), 0.05) == [1, 0]


HOSTILE = ["1,111", "9", "(1,", "√", "1 ", "1/", "-", "1e", "\\frac{1", "(note ", "answer is ", "1 000 ", "1.111.", "<<", "^{"]
HOSTILE += ["$1", "$", r"\(1", r"\[", "x=", "x_{", "(1,2 ", "f(", "US$", "±", "1_1", "$$ 1,", "a b ", "<b", "5 or "]


@pytest.mark.parametrize("part", HOSTILE)
def test_no_text_makes_the_search_for_a_number_slow(part: str) -> None:
    began = time.process_time()  # not the clock on the wall: other processes may be busy
    stated_number(part * 10_000)
    only_number(part * 10_000)
    assert time.process_time() - began < 7


def test_a_number_is_written_back_as_it_is_worth() -> None:
    for text in ("1050", "-2.5", "0", "0.001", "1/3", "-7/6", "1024", "0.375"):
        value = stated_number(text)
        assert value is not None and written(value) == text
