"""Recorded answers whose rows need more than other names: what was asked and answered, what else is known. A line a case."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_program_shapes import CHAT_PROGRAMS, node
from column_shapes import COLUMNS
from data_set_shapes import DATA_SETS
from generate_runs import Notes
from recorded_parts import ANSWER, ASKED, CHAT, GEMINI, OLLAMA, REPLY, RESPONSE
from test_recorded_shapes import broken, imported, lines, places_in
from tool_shapes import TOOLS

from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe, TaskConfig
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import import_recorded
from seqdistill.tasks.messages import tools_text

CASES = {**CHAT_PROGRAMS, **TOOLS, **DATA_SETS, **COLUMNS}


@pytest.mark.parametrize("case", CASES)
def test_what_was_asked_and_answered_is_read_whole(tmp_path: Path, case: str) -> None:
    rows, expected, skipped = CASES[case]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [([turn["content"] for turn in one.prompt], one.text) for one in samples] == list(expected)
    assert (result.unread, result.skipped) == (0, skipped)
    assert all(one.reasoning is None or "hm" in json.dumps(rows) for one in samples)


def test_a_wrong_value_anywhere_is_never_more_than_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    rows = [row for rows, _, _ in CASES.values() for row in rows if "recordId" not in row]
    values = (3, "[{", [{}])
    wrong = [broken(row, place, value) for row in rows for place in places_in(row) for value in values]
    result, _ = imported(tmp_path, lines(tmp_path, [*wrong, {"prompt": "p", "completion": "c"}]))
    assert result.unread > len(wrong) / 10


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "2 + 3?", "answer": "5", "ground_truth": "five"}, "five"),
        ({"input": "2 + 3?", "output": "5", "expected": "five"}, "five"),
        ({"input": "2 + 3?", "actual_output": "5", "expected_output": "five"}, "five"),
        ({"problem": "2 + 3?", "solution": "So: 5", "answer": "five"}, "five"),
        ({"question": "2 + 3?", "answer": "5", "reference": "five", "ground_truth": "no"}, "five"),
        ({"span_id": "s", "input": [ASKED], "output": "5", "expected": "five"}, "five"),
        ({"input": "2 + 3?", "ideal": "5"}, None),
        *[({"messages": [ASKED, ANSWER], key: "five"}, "five") for key in ("ground_truth", "expected", "answer", "target")],
        ({"messages": [ASKED, ANSWER], "answer": "five", "solution": "So: 5", "generations": ["5"]}, "five"),
        ({"chosen": [ASKED, ANSWER], "rejected": [ASKED, ANSWER], "answer": 5}, "5"),
        ({**CHAT, "choices": REPLY["choices"], "ground_truth": "five"}, "five"),
        ({"messages": [ASKED, ANSWER, ASKED], "answer": "5"}, None),
        ({"problem": "2 + 3?", "answer": "five", "generations": ["5"]}, "five"),
        ({"problem": "2 + 3?", "answer": "five", "generations": ["5"], "correctness": [True]}, "five"),
        ({"prompt": "2 + 3?", "completion": "5", "expected": {"a": 1}}, None),
        ({"problem": "2 + 3?", "generated_solution": "So: 5", "expected_answer": "five"}, "five"),
        *[({"problem": "2 + 3?", "solution": "So: 5", "answer": none}, None) for none in ("proof", "notfound")],
    ],
)
def test_what_was_expected_is_the_reference_of_what_was_answered(
    tmp_path: Path, row: dict[str, Any], reference: str | None
) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [row]))
    assert sample.reference == reference


@pytest.mark.parametrize("columns", [{"completion": "label"}, {"completion": "response", "reference": "label"}])
def test_a_column_that_is_named_label_may_be_the_answer_or_the_reference(tmp_path: Path, columns: dict[str, str]) -> None:
    recipe = Recipe(task=TaskConfig(columns=columns))
    row = {"prompt": "Is it 6?", "response": "It is not.", "label": 0}
    result, (sample,) = imported(tmp_path, lines(tmp_path, [row]), recipe)
    assert "0" in (sample.text, sample.reference) and result.skipped == 0


def test_an_answer_that_is_null_in_the_named_column_is_not_taken_from_another(tmp_path: Path) -> None:
    recipe = Recipe(task=TaskConfig(columns={"prompt": "question", "completion": "second"}))
    rows = [{"question": "2 + 3?", "second": said, "output": "the first draft"} for said in ("5", None)]
    result, (sample,) = imported(tmp_path, lines(tmp_path, rows), recipe)
    assert (sample.text, result.unread) == ("5", 1)


XLAM = {
    "query": "2 + 3?",
    "tools": json.dumps([{"name": "add"}]),
    "answers": json.dumps([{"name": "add", "arguments": {"a": 2}}]),
}


def test_function_calls_of_a_data_set_are_text_and_its_functions_are_in_the_system_message(tmp_path: Path) -> None:
    _, (sample,) = imported(tmp_path, lines(tmp_path, [XLAM]))
    system, asked = sample.prompt
    assert '<tools>\n{"name": "add"}\n</tools>' in system["content"] and asked == ASKED
    assert (sample.text, sample.finish_reason) == ('<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>', "stop")


def test_the_functions_are_described_in_the_words_of_a_chat_template() -> None:
    import trl
    from jinja2 import Environment

    folder = Path(trl.__file__).parent / "chat_templates"
    template = Environment().from_string((folder / "qwen2_5.jinja").read_text())
    rendered = template.render(messages=[ASKED], tools=[{"name": "add"}], add_generation_prompt=True)
    assert tools_text([{"name": "add"}]) in rendered


def test_answers_that_were_given_with_tools_are_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    rows = [{**CHAT, "tools": tools, "response": REPLY} for tools in ([{"type": "function"}], [])]
    described = {"role": "system", "content": 'You have <tools>[{"name": "add"}]</tools>'}
    rows.append({"messages": [described, ASKED, ANSWER], "tools": json.dumps([{"function": {"name": "add"}}])})
    result = import_recorded(Run(tmp_path / "run"), Recipe(), [lines(tmp_path, rows)], notes)
    assert (result.samples, result.unread) == (3, 0)
    assert any("1 answers were given with tools, which are no part of the prompts" in note for note in notes.notes)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "Which?", "choices": ["red", "blue"], "answer": 1}, "the options in 'choices' are not in the prompt"),
        (
            {"question": "Which?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answer": "A"},
            "the options in 'choices' are not in the prompt",
        ),
        *[
            ({"question": "Which?", **options, "answer": "A"}, "the options in .* are not in the prompt: ")
            for options in (
                {"A": "red", "B": "blue", "C": "green", "D": "grey"},
                {"a": "red", "b": 2, "c": "green"},
                {"options": {"A": "red", "B": "blue"}},
                {"options": [{"key": "A", "value": "red"}, {"key": "B", "value": "blue"}]},
                {"options": '{"A": "red", "B": "blue"}'},
                {"opa": "red", "opb": "blue", "opc": "green", "opd": "grey"},
                {"option_a": "red", "option_b": "blue"},
                {"choice1": "red", "choice2": "blue"},
            )
        ],
        ({"prompt": "2 + 3?", "completion": "5", "history": ["hi", "hello"]}, "'history' is not messages and no pairs of a"),
        ({"question": "How many?", "table": {"header": ["a"], "rows": [["1"]]}, "answers": ["1"]}, "the 'table' is not in"),
        *[
            (
                {"request": {"model": "m", "input": "And 1?", **more}, "response": RESPONSE},
                "a part of the prompt is not in this log",
            )
            for more in (
                {"previous_response_id": "resp_0"},
                {"conversation": "conv_1"},
                {"conversation": {"id": "conv_1"}},
                {"prompt": {"id": "pmpt_1", "variables": {"city": "Paris"}}},
            )
        ],
        (
            {**RESPONSE, "input": "And 1?", "previous_response_id": "resp_0"},
            "a part of the prompt is not in this log: previous_",
        ),
        *[
            (
                {"request": {"model": "m", "prompt": "And 1?", **more}, "response": {**OLLAMA, "response": "6"}},
                "is not in this log",
            )
            for more in ({"context": [1, 2]}, {"suffix": "return 1"})
        ],
        ({"prompt": "def f(", "suffix": "return 1", "completion": "x):"}, "a part of the prompt is not in this log: suffix"),
        (
            {"request": {"message": "And 1?", "documents": [{"text": "d"}]}, "response": {"text": "6"}},
            "a part of the prompt is not in this log: documents",
        ),
        (
            {"request": {"contents": "And 1?", "cachedContent": "cachedContents/1"}, "response": GEMINI},
            "is not in this log: cached",
        ),
        (
            {
                "current_node": "b",
                "mapping": {
                    "a": {
                        "message": {
                            "author": {"role": "user"},
                            "content": {"parts": [{"content_type": "image_asset_pointer"}, "What is it?"]},
                        }
                    },
                    "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["A cat."]}}, "parent": "a"},
                },
            },
            "a part of type 'image_asset_pointer': only text can be learnt",
        ),
        (
            {
                "current_node": "b",
                "mapping": {
                    "a": {
                        "message": {
                            "author": {"role": "user"},
                            "content": {"parts": ["Summarise it."]},
                            "metadata": {"attachments": [{"name": "a.pdf"}]},
                        }
                    },
                    "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["Done."]}}, "parent": "a"},
                },
            },
            "holds files, and only text",
        ),
        (
            {"status_code": 429, "request": json.dumps(CHAT), "response": json.dumps({"error_code": "LIMIT"})},
            "the reply is an error of status 429: .*LIMIT",
        ),
        ({"request": CHAT, "response": {"status": 500, "body": {"detail": "down"}}}, "the reply is an error of status 500"),
        ({"prompt": "2 + 3?", "completion": "Rate limit", "error": "429"}, "the answer is that of an error: .*429"),
        ({"request": CHAT, "response": "ChatCompletion(id='x', choices=[])"}, "an object as Python prints it"),
        ({"prompt": "2 + 3?", "response": "content='5' additional_kwargs={}"}, "an object as Python prints it"),
        ({"document": "long", "summary": "short"}, r'columns = { prompt = "document", completion = "summary" }'),
        (node("b", "a", "assistant", "5"), "the message that it answers, 'a', is not in these files"),
        ({"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}, "the answer is empty"),
    ],
)
def test_what_means_nothing_by_itself_is_not_taken(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"log.jsonl:1: .*{says}"):
        imported(tmp_path, lines(tmp_path, [row]))


def test_where_nothing_can_be_read_the_first_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        imported(tmp_path, lines(tmp_path, [{"question": "Which?", "choices": ["red", "blue"], "answer": 1}]))
    assert raised.value.hint == "write them into the prompt"


def test_options_that_are_in_the_prompt_are_no_hindrance(tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{"choices": ["red", "blue"]}, {"options": {"A": "red", "B": "blue"}}, {"A": "x", "B": "y"}]
    rows = [
        {"question": "Which: red or blue?", **one, "answer": "red"} for one in [*options, {"A": "red", "B": "blue", "C": "or"}]
    ]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [one.text for one in samples] == ["red"] * 4 and result.unread == 0


def test_the_fields_of_a_request_that_are_empty_or_the_replys_are_no_hindrance(tmp_path: Path) -> None:
    rows = [
        {**RESPONSE, "input": "2 + 3?", "previous_response_id": None, "conversation": None},
        {"request": {"model": "m", "prompt": "2 + 3?", "context": [], "suffix": ""}, "response": {**OLLAMA, "response": "5"}},
        {"prompt": "2 + 3?", "completion": "5", "conversation": "c1", "context": "It is about sums."},
        {"prompt": {"id": 1, "messages": [ASKED]}, "completion": "5"},
    ]
    result, samples = imported(tmp_path, lines(tmp_path, rows))
    assert [one.prompt for one in samples] == [[ASKED]] * 4 and result.unread == 0


def test_the_models_of_several_answers_are_their_own(tmp_path: Path) -> None:
    row = {"instruction": "2 + 3?", "generations": ["5", "five"], "model_names": ["m", "x"], "model_name": "judge"}
    _, samples = imported(tmp_path, lines(tmp_path, [row]))
    assert [(one.text, one.teacher) for one in samples] == [("5", "m"), ("five", "x")]


def test_the_model_of_an_answer_is_found_in_its_message_or_column(tmp_path: Path) -> None:
    messages = [ASKED, {**ANSWER, "model": "m"}]
    named = ({"generator": "m"}, {"generator": ["x"], "generation_model": "m"}, {"model": {"name": "x"}, "model_name": "m"})
    for number, row in enumerate(
        (
            *({"chat": {"messages": messages}}, {"messages": messages}, {"messages": messages, "model": "m"}),
            *({"messages": [ASKED, ANSWER], **one} for one in named),
            {"prompt": "2 + 3?", "chosen": "5", "rejected": "6", "chosen_model": "m", "rejected_model": "x"},
            {"inputs": CHAT, "outputs": {"generations": [[{"text": "5"}]]}, "extra": {"metadata": {"ls_model_name": "m"}}},
        )
    ):
        _, (sample,) = imported(tmp_path / str(number), lines(tmp_path, [row]))
        assert sample.teacher == "m"
