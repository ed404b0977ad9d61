"""Task templates: two views, strict variables, prompts that are data."""

from pathlib import Path

import pytest

from seqdistill.errors import UsageError
from seqdistill.tasks.templates import PLAIN, load_template, prompts_folder, render


def write(folder: Path, text: str) -> str:
    path = folder / "task.toml"
    path.write_text(text)
    return str(path)


def test_the_teacher_sees_more_than_the_student(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[teacher]\nsystem = "Be {{ tone }}."\nuser = "Sum up: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n'
    )
    template = load_template(path)
    row = {"prompt": "the text", "tone": "brief"}
    assert render(template, "teacher", row, "f:1") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Sum up: the text"},
    ]
    assert render(template, "student", row, "f:1") == [{"role": "user", "content": "the text"}]


def test_a_prompt_is_data_and_never_template_code(tmp_path: Path) -> None:
    hostile = r"{{ 7 * 7 }} {% raw %} \boxed{} $5 {{ ''.__class__.__mro__ }}"
    template = load_template(write(tmp_path, '[teacher]\nuser = "Q: {{ prompt }}"\n'))
    assert render(template, "teacher", {"prompt": hostile}, "f:1")[0]["content"] == f"Q: {hostile}"
    assert render(PLAIN, "student", {"prompt": hostile}, "f:1")[0]["content"] == hostile


def test_earlier_turns_stay_and_the_last_is_rendered(tmp_path: Path) -> None:
    template = load_template(write(tmp_path, '[teacher]\nsystem = "S"\nuser = "<{{ prompt }}>"\n'))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    rendered = render(template, "teacher", {"prompt": turns}, "f:1")
    assert [m["content"] for m in rendered] == ["S", "a", "b", "<c>"]
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "c"}]
    assert [m["content"] for m in render(template, "teacher", {"prompt": own}, "f:1")] == ["own", "<c>"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('user = "x"', "tables are user"),
        ('[teacher]\nsystem = "x"\n', "must have the key user"),
        ('[teacher]\nuser = "{{ prompt"\n', "\\[teacher\\] user, line 1"),
        ('[teacher]\nuser = "x"\n[judge]\nuser = "y"\n', "tables are teacher, judge"),
        ("[teacher", "not TOML"),
    ],
)
def test_a_bad_template_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_template(write(tmp_path, text))


def test_a_missing_variable_names_row_and_key(tmp_path: Path) -> None:
    template = load_template(write(tmp_path, '[teacher]\nuser = "{{ prompt }} {{ product }}"\n'))
    with pytest.raises(UsageError, match=r"f\.jsonl:3: .*\[teacher\] user: 'product' is undefined"):
        render(template, "teacher", {"prompt": "a"}, "f.jsonl:3")


def test_the_tasks_that_come_along_can_be_named() -> None:
    for task in prompts_folder().glob("*/task.toml"):
        assert load_template(task.parent.name).path == task
    with pytest.raises(UsageError, match="no-such-task"):
        load_template("no-such-task")
