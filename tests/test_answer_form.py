"""Answers that keep to a JSON schema or to choices: requested through each engine, and checked by the filter."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from engine_contract import ask
from filter_runs import filtered, kept_ids, make_run, rows_of, rules_of, sample

from seqdistill.engines import Request, open_engine
from seqdistill.errors import UsageError
from seqdistill.journal.storage import request_key
from seqdistill.progress import Silent
from seqdistill.recipe.tables import FilterConfig, GenerateConfig, ModelConfig, Recipe, TaskConfig, TeacherConfig
from seqdistill.runs import Run
from seqdistill.stages.filter.stage import filter_samples
from seqdistill.stages.generate.stage import generate
from seqdistill.tasks.answer_form import AnswerForm

PRICED = {
    "type": "object",
    "properties": {"item": {"type": "string"}, "price": {"type": "number"}},
    "required": ["item", "price"],
    "additionalProperties": False,
}


def request(number: int = 0, **settings: Any) -> Request:
    return Request(
        f"p{number}", [{"role": "user", "content": f"Is {number} odd?"}], **{"max_tokens": 24, "seed": number, **settings}
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"item": "lamp", "price": 3.5}', None),
        ('{"item": "lamp", "price": "3.5"}', "$.price: '3.5' is not of type 'number'"),
        ('{"item": "lamp"}', "$: 'price' is a required property"),
        ('{"item": "lamp", "price": NaN}', "not JSON: NaN is no JSON value"),
        ('Here it is: {"item": "lamp", "price": 3}', "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "JSON nested too deeply"),
        ('{"item": "lamp", "price": ' + "9" * 5000 + "}", "not JSON: Exceeds the limit"),
        ('{"item": ' + "[" * 300 + "]" * 300 + ', "price": 1}', "$.item: "),
    ],
)
def test_a_text_that_breaks_the_schema_is_reported_with_its_place(text: str, fault: str | None) -> None:
    found = AnswerForm(PRICED).fault(text)
    assert found == fault if fault is None else found is not None and found.startswith(fault)
    assert len(found or "") <= 200


def test_an_answer_is_one_of_the_choices_but_for_white_space() -> None:
    form = AnswerForm(choices=("yes", "no"))
    assert form.fault(" yes\n") is None
    assert form.fault("Yes") == form.fault("yes, it is") == "none of the 2 choices"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schema": {"type": "strin"}}, r"\[generate.schema\].type: 'strin' is not valid"),
        ({"schema": {"$schema": 1}}, r"\[generate.schema\].\$schema: 1 is not the address of a draft"),
        (
            {"schema": {"items": {"$ref": "#/definitions/a"}, "$defs": {"a": {}}}},
            "refers to '#/definitions/a', which is no schema",
        ),
        (
            {"schema": {"items": {"$ref": "#/required/0/x"}, "required": ["a"]}},
            "refers to '#/required/0/x', which is no schema",
        ),
        ({"schema": {"$defs": {"a": {"$ref": "http://[::1"}}}}, "refers to 'http://\\[::1', which is no schema"),
        ({"schema": {"type": "string"}, "choices": ["a"]}, "both schema and choices"),
        ({"choices": ["a", "a"]}, "empty or repeated choice"),
    ],
)
def test_a_bad_form_is_a_usage_error_before_any_request(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with ChatServer() as server, pytest.raises(UsageError, match=says):
        generate(Run(tmp_path / "run"), recipe(tmp_path, server, 2, **settings), Silent())
    assert server.requests == []


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"items": {"$ref": "#"}}}},
        {"$id": "http://a/b", "items": {"$ref": "c#k"}, "$defs": {"a": {"$id": "c", "$anchor": "k"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": {"$ref": "#/definitions/a"},
            "definitions": {"a": True},
        },
        {"items": {"$ref": "https://json-schema.org/draft/2020-12/schema"}},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_a_reference_to_a_schema_is_taken_wherever_it_is(schema: dict[str, Any]) -> None:
    AnswerForm(schema).check()
    assert AnswerForm(schema).fault("[]") is None


def test_a_reference_out_of_the_schema_is_not_fetched() -> None:
    with ChatServer() as server:
        form = AnswerForm({"$ref": f"{server.url}/schema.json"})
        with pytest.raises(UsageError, match="which is not in it"):
            form.fault("{}")
        assert server.requests == []


def test_settings_at_their_default_leave_the_journal_key_as_it_was() -> None:
    assert request_key(request(schema=None, choices=None), "m") == request_key(request(), "m")
    assert len({request_key(request(**s), "m") for s in ({}, {"choices": ["a"]}, {"schema": PRICED})}) == 3


def recipe(folder: Path, server: ChatServer, prompts: int, **asked: Any) -> Recipe:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What does item {n} cost?"}) + "\n" for n in range(prompts)))
    teacher = TeacherConfig(model="teacher", engine="openai", base_url=[server.url])
    return Recipe(task=TaskConfig(prompts=str(file)), teacher=teacher, generate=GenerateConfig(**asked))


def reply_with(content: Any) -> Any:
    def reply(body: Body) -> Body:
        raw = answer(body)
        raw["choices"][0]["message"]["content"] = content(body)
        raw["choices"][0]["finish_reason"] = "stop"
        return raw

    return reply


def test_an_endpoint_gets_a_strict_schema_and_the_filter_drops_what_breaks_it(tmp_path: Path) -> None:
    def content(body: Body) -> str:
        number = int(body["messages"][-1]["content"].split()[3])
        return json.dumps({"item": f"item {number}", "price": number if number % 4 else "dear"})

    run = Run(tmp_path / "run")
    with ChatServer(reply=reply_with(content)) as server:
        asked = recipe(tmp_path, server, 12, schema=PRICED)
        generate(run, asked, Silent())
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": PRICED, "strict": True}}
        assert all(body["response_format"] == wanted for body in server.requests)
    result = filter_samples(run, Recipe(), Silent())  # the schema is known from generate's manifest
    assert result.by_rule == {"schema": 3}
    assert {row["reason"] for row in rows_of(run, "rejected.jsonl")} == {"$.price: 'dear' is not of type 'number'"}
    assert filter_samples(run, Recipe(filter=FilterConfig(schema=False)), Silent()).kept == 12


def test_choices_are_requested_as_an_object_and_come_back_plain(tmp_path: Path) -> None:
    texts = iter(['{"choice": "yes"}', '{"choice": "no"}', "perhaps", '{"choice": 3}', "[" * 50_000])
    with ChatServer(reply=reply_with(lambda body: next(texts))) as server:
        engine = open_engine(ModelConfig(model="teacher", engine="openai", base_url=[server.url]))
        said = [ask(engine, [request(n, choices=["yes", "no"])])[f"p{n}"] for n in range(5)]
        schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"]["enum"] == ["yes", "no"]
    assert [c.content[:20] for c in said] == ["yes", "no", "perhaps", '{"choice": 3}', "[" * 20]
    assert said[0].raw["choices"][0]["message"]["content"] == '{"choice": "yes"}', "the reply is kept raw"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_transformers_answers_with_one_of_the_choices(tiny_model: Path, temperature: float) -> None:
    choices = ["yes", "yesterday", "no", "nö"]
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"batch_size": 8}))
    requests = [request(n, choices=choices, temperature=temperature) for n in range(40)]
    answers = ask(engine, requests).values()
    assert {(c.content in choices, c.finish_reason) for c in answers} == {(True, "stop")}
    if temperature:
        assert len({c.content for c in answers}) == 4


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_transformers_keeps_to_a_schema(tiny_model: Path, temperature: float) -> None:
    schema = {
        "type": "object",
        "properties": {
            "item": {"enum": ["bread", 'milk "fresh"', "\u00e4pfel"]},
            "price": {"type": "integer", "minimum": 0, "maximum": 99},
            "sold": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["item", "price", "sold"],
        "additionalProperties": False,
    }
    engine = open_engine(ModelConfig(model=str(tiny_model), options={"batch_size": 16}))
    asked = [request(n, schema=schema, temperature=temperature, max_tokens=100) for n in range(40)]
    answers = ask(engine, asked).values()
    assert {(AnswerForm(schema).fault(c.content), c.finish_reason) for c in answers} == {(None, "stop")}
    assert all(c.content == json.dumps(json.loads(c.content), ensure_ascii=False) for c in answers), "no idle white space"
    if temperature:
        assert len({c.content for c in answers}) > 20


def test_a_schema_that_has_no_grammar_is_a_usage_error(tiny_model: Path) -> None:
    engine = open_engine(ModelConfig(model=str(tiny_model)))
    with pytest.raises(UsageError, match=r"\[generate.schema\] cannot be kept to"):
        ask(engine, [request(schema={"type": "object", "unevaluatedProperties": False, "not": {"required": ["a"]}})])
    with pytest.raises(UsageError, match="beams with a schema"):
        ask(engine, [request(schema=PRICED, beams=2)])


def test_the_filter_takes_choices_from_the_recipe(tmp_path: Path) -> None:
    rows = [sample(f"Is {n} odd?", "yes" if n % 2 else "no") for n in range(8)] + [sample("Is 9 odd?", "Yes, it is.")]
    run = make_run(tmp_path, rows)
    filter_samples(run, Recipe(generate=GenerateConfig(choices=["yes", "no"]), filter=FilterConfig(validation=0)), Silent())
    assert rules_of(run) == {rows[-1].id: "schema"} and len(kept_ids(run)) == 8
    assert filtered(run).kept == 9, "without a form every text is fine"
