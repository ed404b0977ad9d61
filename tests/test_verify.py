"""Checks: what is right, what is wrong, what is undecided; and commands that misbehave."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from test_scoring import sample

from seqdistill.errors import UsageError
from seqdistill.limits import run_limited
from seqdistill.metrics.formulas import MathChecker
from seqdistill.metrics.structured import field_f1
from seqdistill.recipe.tables import VerifyConfig
from seqdistill.stages.filter.scoring.answers import compiled, extractor
from seqdistill.stages.filter.scoring.verify import by_command, by_json, by_math, by_number, by_pattern, verifier


def test_a_number_is_right_within_the_tolerance() -> None:
    texts = ["The total is 1,200.", "1200.0001", "1200.1", "about 12", "none"]
    samples = [sample(text, reference="So it is $1200") for text in texts]
    assert by_number(samples, extractor("number"), 1e-6) == [1, 1, 0, 0, 0]
    assert by_number(samples, extractor("number"), 0.01) == [1, 1, 1, 0, 0]
    assert by_number([sample("5", reference="five"), sample("5")], extractor("number"), 0) == [None, None]
    assert by_number([sample(r"\boxed{42 \text{ apples}}", reference="42")], extractor("boxed"), 0) == [1]
    huge = "9" * 400
    assert by_number([sample(huge, reference=huge), sample(huge + "1", reference=huge)], extractor("number"), 0) == [1, 0]


def test_json_is_right_when_it_is_equal_whatever_its_layout() -> None:
    gold = '{"name": "Ann", "ids": [1, 2.0], "ok": true}'
    texts = [
        '```json\n{"ok": true, "ids": [1.0, 2], "name": "Ann"}\n```',
        gold.replace("true", "1"),
        "[1]",
        "no",
        "[" * 100_000,
    ]
    assert by_json([sample(text, reference=gold) for text in texts]) == [1, 0, 0, 0, 0]
    assert by_json([sample(gold, reference="Ann"), sample(gold)]) == [None, None]


@pytest.mark.parametrize(
    "answer",
    [
        '```json\r\n{"a": "``` 1"}\r\n```',
        '``` json\n{"a": "``` 1"}\n```',
        '~~~json\n{"a": "``` 1"}\n~~~',
        '````\n{"a": "``` 1"}\n````\n',
        '```\n{"a": "``` 1"}```',
        '  {"a": "``` 1"}\r\n',
    ],
)
def test_json_is_found_in_every_fence_that_models_write(answer: str) -> None:
    assert by_json([sample(answer, reference='{"a": "``` 1"}')]) == [1]
    assert field_f1(answer, '{"a": "``` 1"}') == 100


def test_a_pattern_is_looked_for_and_a_search_without_end_is_no_score() -> None:
    pattern = compiled(r"\d{4}-\d\d-\d\d", "verify")
    assert by_pattern([sample("on 2026-05-03"), sample("on 3 May")], pattern) == [1, 0]
    assert by_pattern([sample("x" * 5000)], compiled("(x+x+)+y", "verify")) == [None]


TAGGED = '{{"label": "{}", "why": "no doubt"}}'


@pytest.mark.parametrize(
    ("by", "extract", "text", "reference", "score"),
    [  # the answer is what score.extract names, as in a vote
        ("json", "json:answer", '{"answer": 4, "why": "so"}', '{"answer": 4, "why": "because"}', 1),
        ("json", "json:answer", '{"answer": 5, "why": "so"}', '{"answer": 4, "why": "so"}', 0),
        ("json", "json:answer", '{"answer": 4.0}', "4", 1),
        ("json", "json:answer", '{"answer": "Yes."}', "yes", 1),
        ("json", "json:answer", "It is 4.", '{"answer": 4}', 0),
        ("json", "json:answer", '{"answer": 4}', None, None),
        ("json", "regex:(?s)<out>(.*)</out>", 'So: <out>{"a": [1, 2]}</out>', '{"a": [1, 2.0]}', 1),
        ("json", "regex:(?s)<out>(.*)</out>", 'So: <out>{"a": [1, 3]}</out>', '{"a": [1, 2.0]}', 0),
        ("json", None, '{"answer": 4, "why": "so"}', '{"answer": 4, "why": "because"}', 0),
        ("regex:^Yes$", "json:label", TAGGED.format("yes"), None, 1),
        ("regex:^Yes$", "json:label", TAGGED.format("no"), None, 0),
        ("regex:no", "json:label", TAGGED.format("yes"), None, 0),
        ("regex:no", None, TAGGED.format("yes"), None, 1),
        ("regex:^[BC]$", "regex:Answer: (.)", "Not A. Answer: C", None, 1),
        ("regex:^[BC]$", "regex:Answer: (.)", "It may be C.", None, 0),
        ("number", "json:total", '{"total": "1,200 EUR", "rows": 3}', "1200", 1),
    ],
)
def test_a_check_looks_at_the_answer_that_is_extracted(
    by: str, extract: str | None, text: str, reference: str | None, score: float | None
) -> None:
    with verifier(VerifyConfig(by=by), extract) as check:
        assert check([sample(text, reference=reference)]) == [score]


# --- math -----------------------------------------------------------------------------------------------------------------


MATRIX = r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"


def test_equal_formulas_are_right_and_hostile_ones_harm_nothing() -> None:
    cases = [
        (MATRIX, f"${MATRIX}$", 1),
        (MATRIX, rf"\boxed{{{MATRIX}}}", 1),
        (MATRIX, MATRIX, 1),
        (MATRIX, MATRIX.replace("4", "5"), 0),
        (MATRIX, f"${MATRIX.replace('4', '5')}$", 0),
        (MATRIX.replace("pmatrix", "bmatrix"), f"So $${MATRIX}$$", 1),
        (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\[\begin{pmatrix}-\frac13\\ \frac{2}{3}\end{pmatrix}\]", 1),
        (r"\$18.90", "18.90", 1),
        (r"\$18.90", r"It costs \$18.90.", 1),
        (r"\$18.90", r"\boxed{\$18.90}", 1),
        (r"\$18.90", "It is 19", 0),
        ("-5", "−5", 1),
        ("−5", "$-5$", 1),
        ("-5", "The answer is −5.", 1),
        ("5", "The answer is −5.", 0),
        ("+7", "7", 1),
        ("7", "+7", 1),
        ("7", "The answer is +7", 1),
        ("(3,4)", "(3, 4)", 1),
        ("(3,4)", "The answer is (3, 4).", 1),
        ("(3,4)", "$(5,4)$", 0),
        (r"2\sqrt{3}", "2√3", 1),
        (r"2\sqrt{3}", "The answer is 2√3", 1),
        (r"2\sqrt{3}", r"$4\sqrt{3}$", 0),
        ("3/4", "1/4", 0),
        ("3/4", "0.75", 1),
        ("5", "x = 5", 1),
        (r"\frac{1}{2}", "So the answer is $0.5$", 1),
        ("1/2", r"\boxed{\frac{2}{4}}", 1),
        ("x+1", r"$1 + x$", 1),
        (r"\{1, 2\}", r"$\{2, 1\}$", 1),
        ("So it is 1,200 cm", r"\boxed{1200}", 1),
        (r"\boxed{3 \text{ cm}}", "it is 3 cm", 1),
        ("(-\\infty, 2)", "(-∞, 2)", 1),
        ("(-\\infty, 2)", "(-∞, 3)", 0),
        ("\\emptyset", "\\varnothing", 1),
        ("0.\\overline{3}", "\\frac{1}{3}", 1),
        ("0.1\\overline{6}", "1/6", 1),
        ("3 1/2", "3.5", 1),
        ("\\text{Yes}", "yes", 1),
        ("yes", "no", 0),
        ("Tuesday", "\\boxed{\\text{Tuesday}}", 1),
        ("Tuesday", "The answer is Monday.", 0),
        ("Tuesday", "It is Tuesday.", 1),
        ("B", "The answer is (B), not option A.", 1),
        ("Tuesday", "It is not Tuesday.", 0),
        ("Paris", "The capital of France is **Paris**.", 1),
        ("no solution", "There is no solution.", 1),
        ("7:30", "It is 7:30 p.m.", 1),
        ("7:30", r"\boxed{07\text{:}30}", 1),
        ("7:30", "It is 7:31 p.m.", 0),
        ("2:3", "The ratio is 2 : 3, as 4 + 6 = 10.", 1),
        ("2:3", "The ratio is 3:2", 0),
        ("D", "**D**", 1),
        ("(D)", "The correct answer is D) Paris", 1),
        ("D", r"\boxed{D. Paris}", 1),
        ("D", "Option D", 1),
        ("D", "Answer: **(C)** Paris", 0),
        ("A", "The answer is B. A is too small.", 0),
        ("A", "$A$", 1),
        ("6", r"So it is \boxed6", 1),
        ("1/2", r"\boxed\frac12", 1),
        ("[2,5)", "(2,5)", 0),
        ("x\\ge 3", "x > 3", 0),
        ("2", r"The answer is $2\frac{5}{8}$.", 0),
        (r"2\frac{5}{8}", r"The answer is $2\frac{5}{8}$.", 1),
        ("2", r"\boxed{2\sin x}", 0),
        ("5", r"\boxed{\pm 5}", 0),
        ("2", r"\boxed{\frac{\pi}{2}}", 0),
        ("3", r"\boxed{\log_2 3}", 0),
        ("9", r"\boxed{\ln 9}", 0),
        ("2", r"The answer is $\frac{x}{2}$.", 0),
        ("2", r"The answer is \(2\theta\).", 0),
        ("-2", r"\boxed{\frac{5}{-2}}", 0),
        ("5", "The answer is between 5 and 6.", 0),
        ("6", "The answer is between 5 and 6.", 0),
        ("5", "x = 5 or x = -5", 0),
        ("2220_5", r"\boxed{2220_6}", 0),
        ("2220_{5}", "The answer is $2220_5$.", 1),
        ("2220_5", "2221", 0),
        ("2", "(2, ∞)", 0),
        ("9", "ln(9)", 0),
        ("-5", r"\boxed{5} or \boxed{-5}", 0),
        ("5, -5", r"\boxed{5} or \boxed{-5}", 1),
        ("42", "<answer>42</answer>, that is 6 × 7", 1),
        ("no", "The answer is **No**.", 1),
        ("18", "The total is US$18.", 1),
        ("18", "R$ 18", 1),
        ("-18", "-₹18", 1),
        ("42", "It is 41.", 0),
        ("42", "", 0),
        ("42", '__import__("os").system("touch /tmp/owned")', 0),
        ("", "42", None),
        ("4", r"\boxed{9^{9^{9^{9}}}}", None),  # too long or too large; whatever it is, the next one is read
        ("42", "\ud800 \x00 42", 1),
        ("42", "42", 1),
    ]
    checker = MathChecker(seconds=3, megabytes=1024, needed_by="a test")
    try:
        for reference, text, right in cases:
            (score,) = by_math([sample(text, reference=reference)], checker)
            assert score == right or (right is None and score in (None, 0)), (reference, text, score)
        in_thread: list[object] = []
        thread = threading.Thread(
            target=lambda: in_thread.extend(by_math([sample("42", reference="42"), sample("42")], checker))
        )
        thread.start()
        thread.join()
        assert in_thread == [1, None]
    finally:
        checker.close()


# --- commands -------------------------------------------------------------------------------------------------------------

PYTHON = [sys.executable, "-I", "-S", "-c"]


def check(code: str, seconds: float = 20, megabytes: int = 256, text: str = "42") -> float | None:
    (score,) = by_command([sample(text, reference="42")], [*PYTHON, code], seconds, megabytes)
    return score


def test_a_command_reads_the_sample_and_answers_by_its_exit_code() -> None:
    code = "import json, sys; row = json.load(sys.stdin); sys.exit(row['completion'][0]['content'] != row['reference'])"
    assert check(code) == 1
    assert check(code, text="43") == 0
    assert check("import sys; sys.exit(2)") is None, "the command's own failure is no score"


@pytest.mark.parametrize(
    "text", ["; touch owned", "$(touch owned)", "`touch owned`", "\n", '"', "\x00\ud800", "-c", "x" * 3_000_000]
)
def test_hostile_text_arrives_as_data(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    echo = tmp_path / "seen.json"
    code = f"import sys; open({str(echo)!r}, 'w').write(sys.stdin.read())"
    assert check(code, text=text) == 1
    seen = echo.read_text()
    assert json.loads(seen)["completion"][0]["content"] == text
    assert seen.count("\n") == 1, "one line"
    assert [path.name for path in tmp_path.iterdir()] == ["seen.json"]


def test_a_command_that_hangs_is_stopped_and_wrong() -> None:
    began = time.monotonic()
    assert check("import time; time.sleep(300)", seconds=0.5) == 0
    assert check("while True: pass", seconds=0.5) == 0
    assert check("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)", seconds=0.5) == 0
    assert time.monotonic() - began < 300, "none was waited for to its end"


def test_a_command_that_does_not_read_or_writes_without_end_blocks_nothing() -> None:
    assert check("pass", text="x" * 3_000_000) == 1
    assert check("import os\nwhile True: os.write(1, b'x' * 65536); os.write(2, b'x' * 65536)", seconds=0.5) == 0


def test_a_command_that_eats_memory_is_held_to_its_limit() -> None:
    allowed = "x = bytearray(100 << 20)"
    assert check(allowed, megabytes=512) == 1
    assert check(allowed, megabytes=64) == 0


def test_a_command_cannot_fill_the_disk(tmp_path: Path) -> None:
    out = tmp_path / "big"
    assert check(f"f = open({str(out)!r}, 'wb')\nwhile True: f.write(b'x' * (1 << 20))", megabytes=64) == 0
    assert out.stat().st_size <= 64 << 20


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_command_started_ends_with_it(ends: bool, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os, time
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            with open({str(pids)!r}, "a") as file: file.write(f"{{os.getpid()}}\\n")
        time.sleep(600)
while not os.path.exists({str(pids)!r}) or len(open({str(pids)!r}).readlines()) < 3: time.sleep(0.01)
{"" if ends else "time.sleep(600)"}
"""
    numbers: list[int] = []
    for seconds in (60,) if ends else (1, 5, 25, 125):  # a busy machine may need longer to start three processes
        pids.unlink(missing_ok=True)
        assert check(code, seconds=seconds) == (1 if ends else 0)
        numbers = [int(line) for line in pids.read_text().split()] if pids.exists() else []
        if len(numbers) == 3:
            break
    assert len(numbers) == 3
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in numbers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in numbers)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_sees_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert (
        check("import os, sys; sys.exit(any('secret' in value for value in os.environ.values()) or 'PATH' not in os.environ)")
        == 1
    )


def test_commands_run_side_by_side_and_from_any_thread() -> None:
    scores: list[object] = []
    samples = [sample(str(n), n) for n in range(6)]
    code = "import json, sys; sys.exit(int(json.load(sys.stdin)['completion'][0]['content']) % 2)"
    thread = threading.Thread(target=lambda: scores.extend(by_command(samples, [*PYTHON, code], 20, 256)))
    thread.start()
    thread.join()
    assert scores == [1, 0, 1, 0, 1, 0]


def test_limits_are_set_before_the_command_starts() -> None:
    code = "import resource, sys; limits = [resource.getrlimit(r)[1] for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]; "
    assert run_limited([*PYTHON, code + f"sys.exit(limits != [{128 << 20}, 8])"], "", 7.5, 128) == 0
    assert os.getpgid(0) != 0


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VerifyConfig(by="magic"), "no such check"),
        (VerifyConfig(by="regex:("), "not a regular expression"),
        (VerifyConfig(by="command"), "needs a command"),
        (VerifyConfig(by="command", command=["no-such-program-here"]), "no such program"),
        (VerifyConfig(by="number"), "filter.score.extract = 'lines': unknown"),
    ],
)
def test_a_check_that_cannot_be_made_is_a_usage_error(config: VerifyConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message), verifier(config, extract="lines"):
        pass


def test_the_settings_choose_the_check() -> None:
    samples = [sample("It is 42.", reference="42"), sample("7", reference="42")]
    command = [*PYTHON, "import sys; sys.exit('It' not in sys.stdin.read())"]
    for config in (
        VerifyConfig(by="number"),
        VerifyConfig(by="math"),
        VerifyConfig(by="regex:42"),
        VerifyConfig(by="command", command=command),
    ):
        with verifier(config) as checked:
            assert checked(samples) == [1, 0], config.by
    with verifier(VerifyConfig(by="json")) as checked:
        assert checked([sample("[1]", reference="[1.0]")]) == [1]
