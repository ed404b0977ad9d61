"""Task templates: two views, strict variables, prompts that are data."""

import json
from datetime import date
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
        (f'[teacher]\nuser = "{{{{ {"(" * 500}prompt{")" * 500} }}}}"\n', "\\[teacher\\] user: RecursionError"),
        (f'[teacher]\nuser = "{"{% for a in b %}" * 25}x{"{% endfor %}" * 25}"\n', "\\[teacher\\] user: SyntaxError"),
        (f'[teacher]\nuser = "{{{{ {"9" * 5000} }}}}"\n', "\\[teacher\\] user: ValueError"),
    ],
)
def test_a_bad_template_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_template(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ n / 0 }}", "ZeroDivisionError"),
        ("{{ n | dictsort }}", "AttributeError"),
        ("{{ '%(a)s' | format(b=1) }}", "KeyError: 'a'"),
        ("{{ '{}'.format() }}", "IndexError"),
        ("{{ prompt.encode('x') }}", "LookupError: unknown encoding"),
        ("{{ 10.0 ** 400 }}", "OverflowError"),
        ("{{ prompt | truncate(-1) }}", "AssertionError: expected length"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "RecursionError"),
        ("{% include 'x' %}", "no loader"),
    ],
)
def test_what_a_template_computes_and_cannot_is_a_usage_error(tmp_path: Path, text: str, says: str) -> None:
    template = load_template(write(tmp_path, f'[teacher]\nuser = """{text} {{{{ prompt }}}}"""\n'))
    with pytest.raises(UsageError, match=rf"f:1: .*\[teacher\] user: .*{says}"):
        render(template, "teacher", ROW, "f:1")


def test_a_missing_variable_names_row_and_key(tmp_path: Path) -> None:
    template = load_template(write(tmp_path, '[teacher]\nuser = "{{ prompt }} {{ product }}"\n'))
    with pytest.raises(UsageError, match=r"f\.jsonl:3: .*\[teacher\] user: 'product' is undefined"):
        render(template, "teacher", {"prompt": "a"}, "f.jsonl:3")


TOOLS = [{"type": "function", "function": {"name": "wetter für", "strict": True, "parameters": None}}]
ROW = {"prompt": "Who?", "context": None, "tools": TOOLS, "choices": ["it's", "b"], "urgent": True, "n": 5, "share": 0.5} | {
    "row": {"items": ["a", "b"], "context": None},
    "day": date(2026, 1, 2),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ tools }}", json.dumps(TOOLS, ensure_ascii=False)),
        ("{{ choices }} {{ urgent }} {{ n }} {{ share }} {{ day }}", '["it\'s", "b"] true 5 0.5 2026-01-02'),
        ("{{ row['items'] }} {{ row }}", '["a", "b"] {"items": ["a", "b"], "context": null}'),
        ("{{ 'Pick: ' ~ choices ~ '!' }} {{ choices | string | upper }}", 'Pick: ["it\'s", "b"]! ["IT\'S", "B"]'),
        ("{{ choices | join(', ') }} {{ prompt | trim | lower }} {{ tools | tojson | length > 5 }}", "it's, b who? true"),
        ("{{ tools | join('; ') }}", json.dumps(TOOLS[0], ensure_ascii=False)),
        ("{{ tools | join(', ', attribute='type') }} {{ tools | map(attribute='type') | join }}", "function function"),
        ("{{ '%s: %d of %s' | format(prompt, n, choices) }} {{ choices | join(d='/') }}", 'Who?: 5 of ["it\'s", "b"] it\'s/b'),
        ("{% if context %}{{ context }}{% endif %}{{ prompt }}", "Who?"),
        ("{{ context or '' }}{{ context or 'none' }} {{ context | default('x', true) }} {{ context is none }}", "none x true"),
        (
            "{% for tool in tools %}{{ tool.function.name }}{% endfor %} {% for i in range(3) %}{{ i }}{% endfor %}",
            "wetter für 012",
        ),
    ],
)
def test_values_are_written_as_json_and_not_as_python_writes_them(tmp_path: Path, text: str, expected: str) -> None:
    template = load_template(write(tmp_path, f'[teacher]\nuser = """{text}"""\n'))
    assert render(template, "teacher", ROW, "f:1")[0]["content"] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *(
            (text, "a value is null")
            for text in ("{{ context }}", "{{ row.context }}", "{{ 'C: ' ~ context }}", "{{ tools[0].function.parameters }}")
        ),
        *(
            (f"{{{{ context | {name} }}}}", "a value is null")
            for name in ("trim", "upper", "string", "indent", "replace('a', 'b')")
        ),
        ("{{ 'C: %s' | format(context) }}", "a value is null"),
        ("{{ [prompt, context] | join(' ') }}", "a value is null"),
        ("{{ row.items }}", r"'items' is a method .*row\['items'\]"),
        *(("{{ range }}", "is a method or a function"), ("{{ cycler }}", "is a method or a function")),
        *(
            ("{{ self }}", "no value of a row"),
            ("{{ choices | map('upper') }}", "no value of a row"),
            ("{{ row.keys() }}", "no value"),
        ),
        ("{% for x in choices %}{{ loop }}{% endfor %}", "a method or a function|no value"),
    ],
)
def test_what_is_no_text_never_gets_into_a_prompt(tmp_path: Path, text: str, says: str) -> None:
    template = load_template(write(tmp_path, f'[teacher]\nuser = """{text} {{{{ prompt }}}}"""\n'))
    with pytest.raises(UsageError, match=rf"f:1: .*\[teacher\] user: .*{says}") as raised:
        render(template, "teacher", ROW, "f:1")
    assert "null" not in says or " or '' }}, or remove the row" in (raised.value.hint or "")


def test_the_tasks_that_come_along_can_be_named() -> None:
    for task in prompts_folder().glob("*/task.toml"):
        assert load_template(task.parent.name).path == task
    with pytest.raises(UsageError, match="no-such-task"):
        load_template("no-such-task")
