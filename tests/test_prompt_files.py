"""Rows of prompt files: the shapes that people have, other column names, and what is wrong with one."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from generate_runs import Notes
from test_chat_templates import template_of

from seqdistill.errors import UsageError
from seqdistill.records import Prompt, prompt_id
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import PLAIN, Template

VIEWS = Template(None, None, {"system": "Be brief.", "user": "Summarize: {{ prompt }}"}, {"user": "{{ prompt }}"})


def jsonl(folder: Path, *rows: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def load(folder: Path, *rows: object) -> list[Prompt]:
    return load_prompts(jsonl(folder, *rows), PLAIN)


def test_the_teacher_sees_more_than_the_student(tmp_path: Path) -> None:
    (prompt,) = load_prompts(jsonl(tmp_path, {"prompt": "long text"}), VIEWS)
    assert prompt.teacher_messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Summarize: long text"},
    ]
    assert prompt.messages == [{"role": "user", "content": "long text"}]
    assert prompt.id == prompt_id(prompt.teacher_messages)


def test_a_trailing_assistant_message_is_the_reference_and_earlier_turns_stay(tmp_path: Path) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (prompt,) = load(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert prompt.reference == "d"
    assert [message["content"] for message in prompt.messages] == ["a", "b", "c"]


def test_a_repeated_prompt_is_requested_once_and_counted_unless_rows_have_ids(tmp_path: Path) -> None:
    notes = Notes()
    path = jsonl(tmp_path, {"prompt": "same"}, {"prompt": "other"}, {"prompt": "same"}, {"prompt": "same "})
    assert len(load_prompts(path, PLAIN, progress=notes)) == 2
    assert "2 rows repeat" in notes.notes[0]
    assert len(load(tmp_path, {"id": "a", "prompt": "same"}, {"id": 2, "prompt": "same"})) == 2


def test_a_column_that_is_called_message_is_no_mistyped_prompt(tmp_path: Path) -> None:
    (prompt,) = load(tmp_path, {"prompt": "a", "message": "feat: x"})
    assert prompt.messages == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("text", ["", " \n", None, [], [{"type": "text", "text": ""}]])
def test_a_system_message_without_text_is_left_out(tmp_path: Path, text: Any) -> None:
    asked = {"role": "user", "content": "a"}
    rows = [{"messages": [{"role": role, "content": text}, asked]} for role in ("system", "developer")]
    later = {"messages": [asked, {"role": "assistant", "content": "b"}, {"role": "system", "content": text}, asked]}
    prompts = load(tmp_path, *rows, later)
    assert [prompt.messages for prompt in prompts] == [[asked], [asked, later["messages"][1], asked]]


def test_limit_is_the_first_prompts(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"prompt": str(n)} for n in range(5)))
    assert [p.messages[0]["content"] for p in load_prompts(path, PLAIN, 2)] == ["0", "1"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", ":2: not JSON"),
        ("[]", ":2: not a JSON object"),
        ({"prompt": "  "}, ":2: the prompt is empty"),
        ({"prompt": 3}, ":2: key 'prompt' is 3, no text and no messages"),
        ({"prompt": None}, ":2: key 'prompt' is null, no text and no messages"),
        ({"prompt": "x", "image": {"bytes": "...", "path": "x.png"}}, ":2: the row holds images"),
        ({"prompt": "x", "history": ["hi", "hello"]}, ":2: 'history' is not messages and no pairs"),
        ({"prompt": "x", "image": "1.jpg"}, ":2: the row holds images, in 'image'"),
        ({"image": "12", "messages": [{"role": "user", "content": "<image>\nx"}]}, ":2: the row holds images"),
        ({"messages": [{"role": "user", "content": "x", "images": ["AA"]}]}, ":2: message 1 of 'messages' holds images"),
        ({"text": "x"}, ":2: the row has no prompt; its keys are text"),
        ({"messages": []}, ":2: key 'messages' is not a list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, ":2: message 1 of 'messages' has the unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": ""}]}, ":2: message 1 of 'messages' has no text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, ":2: key 'messages' has no prompt"),
        ({"id": "first", "prompt": "x"}, ":2: the id 'first' is also that of .*:1"),
        ({"prompt": "x", "reference": ["y", "z"]}, ":2: key 'reference' is not text"),
        ({"prompt": "cut \ud83d"}, r":2: half a character, \\ud83d, which no model can read"),
        ({"id": "\ude00", "prompt": "x"}, r":2: half a character, \\ude00"),
        ('{"prompt": "x", "y": ' + "[" * 5000, ":2: not JSON: nested deeper than 100 levels"),
        ('{"prompt": "x", "y": %s}' % ("9" * 5000), ":2: not JSON: Exceeds the limit"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, says: str) -> None:
    with pytest.raises(UsageError, match=f"prompts.jsonl{says}"):
        load(tmp_path, {"id": "first", "prompt": "good"}, row)


def test_a_variable_that_the_row_lacks_is_named(tmp_path: Path) -> None:
    template = Template(Path("task.toml"), None, {"user": "{{ prompt }} in {{ language }}"}, {"user": "{{ prompt }}"})
    path = jsonl(tmp_path, {"prompt": "x", "language": "French"}, {"prompt": "y"})
    with pytest.raises(UsageError, match=r"prompts.jsonl:2: task.toml: \[teacher\] user: 'language' is undefined"):
        load_prompts(path, template)


# --- files in the wild: one line a case -------------------------------------------------------------------------------

ASKED = [{"role": "user", "content": "2 + 3?"}]


TOOL = {"type": "function", "function": {"name": "add"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}


CALL_TEXT = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'


RESULT_TEXT = "<tool_response>\n5\n</tool_response>"


@pytest.mark.parametrize(
    ("row", "asked", "reference"),
    [
        ({"prompt": "2 + 3?", "reference": 42}, ["2 + 3?"], "42"),
        ({"prompt": "2 + 3?", "reference": 42.0}, ["2 + 3?"], "42"),
        ({"prompt": "2 + 3?", "reference": 0.25}, ["2 + 3?"], "0.25"),
        ({"prompt": "2 + 3?", "reference": True}, ["2 + 3?"], "true"),
        ({"prompt": "2 + 3?", "reference": {"sum": 5}}, ["2 + 3?"], '{"sum": 5}'),
        ({"prompt": "2 + 3?", "reference": None}, ["2 + 3?"], None),
        ('{"prompt": "2 + 3?", "reference": NaN}', ["2 + 3?"], None),
        ({"Prompt": "2 + 3?", "REFERENCE ": "5"}, ["2 + 3?"], "5"),
        ({"messages": json.dumps(ASKED)}, ["2 + 3?"], None),
        ({"messages": str(ASKED)}, ["2 + 3?"], None),
        ({"prompt": json.dumps(ASKED)}, ["2 + 3?"], None),
        ({"prompt": '[{"a": 1}] is JSON'}, ['[{"a": 1}] is JSON'], None),
        ({"prompt": "Continue.\nHuman: hi\nAssistant:"}, ["Continue.\nHuman: hi\nAssistant:"], None),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "3?"}]}]},
            None,
            None,
        ),
        ({"messages": [{"role": "user", "content": "2 + 3?", "name": "ann", "tool_calls": None, "weight": 1}]}, None, None),
        ({"messages": [{"role": "developer", "content": "S"}, *ASKED]}, ["S", "2 + 3?"], None),
        ({"prompt": "2 + 3?", "system": "S"}, ["S", "2 + 3?"], None),
        ({"messages": [{"role": "system", "content": "own"}, *ASKED], "system": "S"}, ["own", "2 + 3?"], None),
        ({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}, ["2 + 3?"], "5"),
        ({"conversations": ASKED}, ["2 + 3?"], None),
        ({"conversation": [{"input": "2 + 3?", "output": "5"}]}, ["2 + 3?"], "5"),
        ({"messages": [{"type": "human", "content": "2 + 3?"}, {"type": "ai", "content": "5"}]}, ["2 + 3?"], "5"),
        ({"custom_id": "r", "url": "/v1/chat/completions", "body": {"model": "m", "messages": ASKED}}, ["2 + 3?"], None),
        ({"custom_id": "r", "url": "/v1/responses", "body": {"model": "m", "input": "2 + 3?"}}, ["2 + 3?"], None),
        ({"custom_id": "r", "params": {"model": "m", "system": "S", "messages": ASKED}}, ["S", "2 + 3?"], None),
        ({"key": "r", "request": {"contents": [{"parts": [{"text": "2 + 3?"}]}]}}, ["2 + 3?"], None),
        ({"recordId": "r", "modelInput": {"messages": ASKED, "system": [{"text": "S"}]}}, ["S", "2 + 3?"], None),
        ({"contents": [{"parts": [{"text": "2 + 3?"}]}, {"role": "model", "parts": [{"text": "5"}]}]}, ["2 + 3?"], "5"),
        ({"input": {"messages": ASKED}, "preferred_output": [], "non_preferred_output": []}, ["2 + 3?"], None),
        ({"chosen": [*ASKED, {"role": "assistant", "content": "5"}], "rejected": []}, ["2 + 3?"], "5"),
        ({"chosen": "\n\nHuman: 2 + 3?\n\nAssistant: 5", "rejected": "\n\nHuman: 2 + 3?\n\nAssistant: 6"}, ["2 + 3?"], "5"),
        ({"prompt": {"role": "user", "content": "2 + 3?"}}, ["2 + 3?"], None),
        ({"prompt": {"messages": ASKED}}, ["2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": ["5"]}, ["2 + 3?"], "5"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n5"}]}, ["2 + 3?"], "5"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "<think>\nhm"}]}, ["2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": {"role": "assistant", "content": "5"}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": [{"role": "assistant", "content": "5"}]}, ["2 + 3?"], "5"),
        (
            {"instruction": "2 + 3?", "input": "", "output": "five", "prompt": "### Instruction:\n2 + 3?\n\n### Output:\nfive"},
            ["2 + 3?"],
            "five",
        ),
        ({"instruction": "Add.", "input": "2 + 3?", "output": "5"}, ["Add.\n\n2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "output": "5", "history": [["hi", "hello"]]}, ["hi", "hello", "2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "output": "5", "history": []}, ["2 + 3?"], "5"),
        ({"instruction": "Add.", "question": "2 + 3?", "answer": "5"}, ["Add.\n\n2 + 3?"], "5"),
        ({"instruction": "Add.", "query": "2 + 3?", "context": "c", "response": "5"}, ["Add.\n\n2 + 3?\n\nc"], "5"),
        ({"instruction": "Add.", "text": "2 + 3?", "output": "5"}, ["Add.\n\n2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "output": "5", "text": "### Instruction:\n2 + 3?\n\n### Response:\n5"}, ["2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "input": "", "output": "5", "text": "Below is ..."}, ["2 + 3?"], "5"),
        ({"instruction": "2 + 3?", "question": "2 + 3?", "answer": "5"}, ["2 + 3?"], "5"),
        *[
            ({"prompt": "2 + 3?", "system": "S", key: history}, ["S", "hi", "hello", "2 + 3?"], None)
            for key, history in (
                ("history", [["hi", "hello"]]),
                ("history", [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]),
                ("chat_history", [{"question": "hi", "answer": "hello"}]),
                ("history", "Human: hi\n\nAssistant: hello"),
            )
        ],
        ({"prompt": "2 + 3?", "system_prompt": "S"}, ["S", "2 + 3?"], None),
        ({"prompt": "2 + 3?", "system_message": "S"}, ["S", "2 + 3?"], None),
        ({"conversation": [{"system": "S", "input": "2 + 3?", "output": "5"}]}, ["S", "2 + 3?"], "5"),
        ({"messages": ASKED, "chat_template_kwargs": {"custom_instructions": "S"}}, ["S", "2 + 3?"], None),
        ({"custom_id": "r", "body": {"model": "m", "instructions": "S", "input": "2 + 3?"}}, ["S", "2 + 3?"], None),
        ({"custom_id": "r", "body": {"model": "m", "system": "S", "messages": ASKED}}, ["S", "2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": {"text": ["5", "five"], "answer_start": [0, 4]}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": {"text": [], "answer_start": []}}, ["2 + 3?"], None),
        ({"prompt": "2 + 3?", "reference": {"value": "5", "aliases": ["five"], "type": "Num"}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": {"spans": ["5", "five"], "types": ["number"]}}, ["2 + 3?"], "5"),
        ({"prompt": "2 + 3?", "reference": []}, ["2 + 3?"], None),
        ({"message_id": "a", "parent_id": None, "role": "prompter", "text": "2 + 3?", "rank": None}, ["2 + 3?"], None),
        ({"message_tree_id": "a", "prompt": {"message_id": "a", "role": "prompter", "text": "2 + 3?"}}, ["2 + 3?"], None),
        (
            {"messages": [*ASKED, {"role": "assistant", "content": CALL_TEXT}, {"role": "tool", "content": RESULT_TEXT}]},
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        ({"instruction": "2 + 3?", "input": "", "output": "5"}, ["2 + 3?"], "5"),
        ({"instruction": "Add.", "context": "2 + 3?", "response": "5", "category": "qa"}, ["Add.\n\n2 + 3?"], "5"),
        (
            {
                "messages": [
                    *ASKED,
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "content": "5"},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        (
            {
                "messages": [
                    *ASKED,
                    {"role": "assistant", "content": [{"type": "tool_use", "name": "add", "input": {"a": 2, "b": 3}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "5"}]},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            None,
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "2 + 3?"},
                    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 3}}'},
                    {"from": "observation", "value": "5"},
                    {"from": "gpt", "value": "It is 5."},
                ]
            },
            ["2 + 3?", CALL_TEXT, RESULT_TEXT],
            "It is 5.",
        ),
    ],
)
def test_rows_as_people_hold_them_are_read(tmp_path: Path, row: object, asked: list[str] | None, reference: str | None) -> None:
    (prompt,) = load(tmp_path, row)
    assert [message["content"] for message in prompt.messages] == (asked or ["2 + 3?"])
    assert prompt.reference == reference
    assert all(set(message) == {"role", "content"} for message in prompt.messages)
    assert prompt.messages[-1]["role"] == "user"


ARC = {"text": ["a1", "b1"], "label": ["A", "B"]}
TEMPLATES = ("cohere", "deepseekv3", "gemma4", "gemma4_31b", "glm4moe", "kimi_k2_thinking", "llama3", "nemotron_3_nano")
TEMPLATES += ("nemotron_nano_v2", "phi3", "qwen2_5", "qwen3_5_think", "qwen3_5_nothink", "qwq")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_that_a_chat_template_wrote_is_read_as_its_messages(tmp_path: Path, name: str) -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template as compiled

    turns = [("system", "S"), ("user", "hi"), ("assistant", "hello"), ("user", "2 + 3?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    text = compiled(template_of(name)).render(messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    (prompt,) = load(tmp_path, {"prompt": text})
    assert prompt.messages == messages


@pytest.mark.parametrize(
    "text",
    [
        "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: 2 + 3?\n\nAssistant:",
        "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\n2 + 3?",
        "<s>[INST] hi [/INST] hello </s><s>[INST] 2 + 3? [/INST]",
    ],
)
def test_a_prompt_that_is_a_transcript_up_to_the_answer_is_read_as_its_turns(tmp_path: Path, text: str) -> None:
    (prompt,) = load(tmp_path, {"prompt": text, "system": "S"})
    assert [one["content"] for one in prompt.messages] == ["S", "hi", "hello", "2 + 3?"]


def test_results_of_several_calls_are_one_users_turn(tmp_path: Path) -> None:
    calls = {"role": "assistant", "content": "Adding.", "tool_calls": [CALL, CALL]}
    row = {"messages": [*ASKED, calls, *[{"role": "tool", "tool_call_id": "c1", "content": "5"}] * 2]}
    (prompt,) = load(tmp_path, row)
    assert [message["role"] for message in prompt.messages] == ["user", "assistant", "user"]
    assert prompt.messages[1]["content"] == f"Adding.\n{CALL_TEXT}\n{CALL_TEXT}"
    assert prompt.messages[2]["content"] == f"{RESULT_TEXT}\n{RESULT_TEXT}"


def test_columns_by_other_names_are_mapped_and_the_rest_are_variables(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": 7, "topic": "physics", "uid": 12, "doc": "d1", "who": "Be kind.", "lang": "French"}
    columns = {"prompt": "question", "reference": "answer", "slice": "topic", "id": "uid", "group": "doc", "system": "who"}
    template = Template(None, None, {"user": "{{ prompt }} in {{ lang }}: {{ topic }}"}, {"user": "{{ prompt }}"})
    (prompt,) = load_prompts(jsonl(tmp_path, row), template, columns=columns)
    assert [message["content"] for message in prompt.teacher_messages] == ["Be kind.", "Why? in French: physics"]
    assert (prompt.reference, prompt.slice, prompt.id, prompt.group) == ("7", "physics", "12", "d1")
    (asked,) = load_prompts(jsonl(tmp_path, {"talk": ASKED, "prompt": "no"}), PLAIN, columns={"messages": "talk"})
    assert asked.messages == ASKED


def test_a_column_of_earlier_turns_that_the_template_writes_is_not_put_before_the_prompt(tmp_path: Path) -> None:
    row = {"prompt": "2 + 3?", "history": ["hi"]}
    view = {"user": "{{ history[0] }} {{ prompt }}"}
    (prompt,) = load_prompts(jsonl(tmp_path, row), Template(None, None, view, view))
    assert [message["content"] for message in prompt.messages] == ["hi 2 + 3?"]


def test_a_column_within_an_object_is_named_by_its_path(tmp_path: Path) -> None:
    row = {"prompt": "2 + 3?", "reward_model": {"ground_truth": "5"}, "a.b": "x", "": "y", "accepted": ["5", "five"]}
    for columns, reference, kind in (
        ({"reference": "reward_model.ground_truth"}, "5", None),
        ({"reference": "reward_model.ground_truth", "slice": "a.b"}, "5", "x"),
        ({"reference": "accepted.1"}, "five", None),
    ):
        (prompt,) = load_prompts(jsonl(tmp_path, row), PLAIN, columns=columns)
        assert (prompt.messages[0]["content"], prompt.reference, prompt.slice) == ("2 + 3?", reference, kind)
    with pytest.raises(UsageError, match="key 'reference' is not text") as several:
        load_prompts(jsonl(tmp_path, row), PLAIN, columns={"reference": "accepted"})
    assert '{ reference = "COLUMN.0" }' in several.value.hint
    with pytest.raises(UsageError, match=r"no row has the column 'reward_model\.truth'"):
        load_prompts(jsonl(tmp_path, row), PLAIN, columns={"reference": "reward_model.truth"})


def test_a_file_with_our_own_keys_needs_no_mapping_although_another_does(tmp_path: Path) -> None:
    (prompt,) = load_prompts(
        jsonl(tmp_path, {"prompt": "Why?", "reference": "So."}), PLAIN, columns={"prompt": "question", "reference": "answer"}
    )
    assert (prompt.messages[0]["content"], prompt.reference) == ("Why?", "So.")


def test_the_group_of_a_prompt_is_no_part_of_its_id(tmp_path: Path) -> None:
    (one,), (other,) = (load(tmp_path, {"prompt": "p", "group": group}) for group in ("a", 2))
    assert (one.group, other.group, one.id) == ("a", "2", other.id)


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"prompt": "x", "refrence": "y"}, {}, ":1: unknown key 'refrence', did you mean 'reference'"),
        ({"promt": "x"}, {}, ":1: unknown key 'promt', did you mean 'prompt'"),
        ({"prompt": "x", "slices": "y"}, {}, ":1: unknown key 'slices', did you mean 'slice'"),
        ({"prompt": "x", "references": ["y"]}, {}, "did you mean 'reference'"),
        ({"question": "x"}, {}, r":1: the row has no prompt; its keys are question"),
        ({"question": "x"}, {"prompt": "qestion"}, "the row has no prompt"),
        ({"Message": "x"}, {}, ":1: the row has no prompt; its keys are Message"),
        ({"mesages": [{"role": "user", "content": "x"}]}, {}, ":1: unknown key 'mesages', did you mean 'messages'"),
        ({"prompt": "x", "answer": "y"}, {"reference": "anwser"}, "no row has the column 'anwser'.*did you mean 'answer'"),
        ({"prompt": "x"}, {"refrence": "answer"}, r"\[task\] columns: unknown key 'refrence', did you mean 'reference'"),
        ({"prompt": "x"}, {"reference": 3}, r"\[task\] columns: reference = 3 is not the name of a column"),
        ({"prompt": "The sky (litellm_truncated 500 chars) blue?"}, {}, ":1: the log does not hold the whole text"),
        (
            {"body": {"input": "And 1?", "previous_response_id": "resp_0"}},
            {},
            ":1: a part of the prompt is not in this log: previous_",
        ),
        ({"messages": "Why is the sky blue?"}, {}, ":1: key 'messages' is text that is not a list of messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {},
            "message 1 of 'messages' holds a part of type",
        ),
        ({"messages": ["x"]}, {}, ":1: message 1 of 'messages'"),
    ],
)
def test_a_mistyped_key_or_column_is_named_with_the_nearest(
    tmp_path: Path, row: object, columns: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        load_prompts(jsonl(tmp_path, row), PLAIN, columns=columns)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("columns", "proposed"), [("ticket id,Message,Label", ("Message", "Label")), ("Body,Kind", ("Body", ""))]
)
def test_the_columns_proposed_for_a_table_can_be_copied_as_they_are(
    tmp_path: Path, columns: str, proposed: tuple[str, str]
) -> None:
    (tmp_path / "table.csv").write_text(columns + "\n" + ",".join("abc"[: columns.count(",") + 1]) + "\n")
    with pytest.raises(UsageError) as raised:
        load_prompts(str(tmp_path / "table.csv"), PLAIN)
    (hint,) = re.findall(r"\[task\] (columns = .*)", raised.value.hint or "")
    named = tomllib.loads(hint)["columns"]
    assert (named["prompt"], named.get("reference", "")) == proposed
    (prompt,) = load_prompts(str(tmp_path / "table.csv"), PLAIN, columns=named)
    assert prompt.messages[-1]["content"] in "abc"


def test_a_key_that_only_looks_mistyped_is_fine_where_it_is_used(tmp_path: Path) -> None:
    template = Template(None, None, {"user": "{{ prompt }} {{ references }}"}, {"user": "{{ prompt }}"})
    (prompt,) = load_prompts(jsonl(tmp_path, {"prompt": "x", "references": "[1]"}), template)
    assert prompt.teacher_messages[0]["content"] == "x [1]"
    assert load(tmp_path, {"prompt": "x", "preference": 1, "text": "y", "idx": 3})[0].id


def test_what_is_left_out_of_rows_is_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    rows = [
        {"prompt": "a"},
        {"prompt": "a", "reference": "x"},
        {"prompt": "a", "reference": "y"},
        {"prompt": "b", "tools": [{}]},
    ]
    prompts = load_prompts(jsonl(tmp_path, *rows), PLAIN, progress=notes)
    assert [prompt.reference for prompt in prompts] == ["x", None], "a reference of a repeated prompt is not lost"
    assert [
        next(part for part in ("2 rows repeat", "1 of them have another reference", "1 rows come with tools") if part in note)
        for note in notes.notes
    ] == ["2 rows repeat", "1 of them have another reference", "1 rows come with tools"]
    load_prompts(jsonl(tmp_path, {"prompt": "a", "answer": "x"}), PLAIN, progress=notes)
    assert "is it the column 'answer'? [task] columns = { reference = \"answer\" }" in notes.notes[-1]


@pytest.mark.parametrize(
    ("row", "template", "says"),
    [
        ({"question": "Who?", "context": "Ann did."}, "{{ prompt }}", "the column 'context' is in no prompt"),
        ({"question": "Which?", "choices": ["a", "b"]}, "{{ prompt }}", "the column 'choices' is in no prompt"),
        (
            {"question": "Which?", "choices": {"text": ["a1", "b1"], "label": ["A", "B"]}},
            "{{ prompt }}",
            "the column 'choices' is in no",
        ),
        ({"question": "Which?", "A": "x", "B": "y", "C": "z"}, "{{ prompt }}", "the columns 'A', 'B', 'C' are in no prompt"),
        ({"question": "x, y or z?", "A": "x", "B": "y", "C": "z"}, "{{ prompt }}", None),
        (
            {"question": "Which?", "choices": {"text": ["a1", "b1"], "label": ["A", "B"]}},
            "{{ prompt }} {{ choices.text }}",
            None,
        ),
        ({"question": "Who?", "context": "Ann did."}, "{{ prompt }} {{ context }}", None),
        ({"question": "Who?", "context": ""}, "{{ prompt }}", None),
        ({"prompt": "Translate.", "input": "Hallo", "question": "x"}, "{{ prompt }}", "the column 'input' is in no prompt"),
        ({"prompt": "Translate: Hallo", "input": "Hallo", "question": "x"}, "{{ prompt }}", None),
    ],
)
def test_what_a_question_is_about_and_no_prompt_holds_is_mentioned(
    tmp_path: Path, row: dict[str, object], template: str, says: str | None
) -> None:
    notes, view = Notes(), {"user": template}
    load_prompts(jsonl(tmp_path, row), Template(None, None, view, view), None, notes, {"prompt": "question"})
    assert [says in note for note in notes.notes if says] == ([True] if says else []) and bool(notes.notes) == bool(says)


@pytest.mark.parametrize(
    ("row", "template", "name"),
    [
        ({"prompt": "2 + 3?", "tools": [TOOL]}, "{{ prompt }}", "tools"),
        ({"custom_id": "a", "body": {"messages": ASKED, "tools": [TOOL]}}, "{{ prompt }}", "body.tools"),
        ({"prompt": "2 + 3?", "tools": json.dumps([TOOL])}, "{{ prompt }} {{ tools }}", None),
        ({"prompt": "2 + 3?", "tools": []}, "{{ prompt }}", None),
        (
            {"messages": [{"role": "system", "content": f"<tools>{json.dumps(TOOL)}</tools>"}, *ASKED], "tools": [TOOL]},
            "{{ prompt }}",
            None,
        ),
    ],
)
def test_tools_are_mentioned_by_their_column_where_they_are_not_sent(
    tmp_path: Path, row: object, template: str, name: str | None
) -> None:
    notes, view = Notes(), {"user": template}
    load_prompts(jsonl(tmp_path, row), Template(None, None, view, view), progress=notes)
    assert any(f"{{{{ {name} }}}}" in note for note in notes.notes) == (name is not None)


def test_answers_and_later_questions_in_trees_are_no_prompts(tmp_path: Path) -> None:
    notes = Notes()
    roles = {"a": (None, "prompter"), "b": ("a", "assistant"), "c": ("b", "prompter"), "d": (None, "prompter")}
    rows = [{"message_id": name, "parent_id": parent, "role": role, "text": name} for name, (parent, role) in roles.items()]
    for columns in {}, {"prompt": "text"}:
        prompts = load_prompts(jsonl(tmp_path, *rows), PLAIN, None, notes, columns)
        assert [prompt.messages[0]["content"] for prompt in prompts] == ["a", "d"]
        assert "2 messages further down in trees" in notes.notes[-1]


def test_an_error_names_the_columns_that_are_likely_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, {"question": "2 + 3?", "answer": "5"})
    assert '[task] columns = { prompt = "question", reference = "answer" }' in raised.value.hint
