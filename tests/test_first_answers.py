"""What only answers show is decided on the first few: reasoning, and log-probabilities, that a training would need."""

import json
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from chat_server import Body, ChatServer, answer
from test_api import tables, toml
from test_early import SOFT, Change, having

from seqdistill.cli import main
from seqdistill.stages.generate.first_answers import TRIAL

PROMPTS = 40
IDS: dict[str, int] = {}  # the tiny student's token ids


def plain(body: Body) -> Body:
    """Without log-probabilities, whatever was requested."""
    return answer({**body, "logprobs": None})


def thinking(body: Body) -> Body:
    """One answer in three has reasoning."""
    reply = answer(body)
    if sum(map(ord, body["messages"][-1]["content"])) % 3 == 0:
        reply["choices"][0]["message"]["reasoning_content"] = "They ask, so I say."
    return reply


def some_yes(body: Body) -> Body:
    """One answer in three is a choice."""
    reply = answer(body)
    if sum(map(ord, body["messages"][-1]["content"])) % 3 == 0:
        reply["choices"][0]["message"]["content"] = "yes"
    return reply


def by_ids(body: Body, shift: int = 0) -> Body:
    """As vLLM's server with return_tokens_as_token_ids."""
    reply = answer({**body, "logprobs": None})
    text = reply["choices"][0]["message"]["content"].replace(" ", "Ġ")
    names = [f"token_id:{IDS[letter] + shift}" for letter in text]
    places = [{"token": name, "logprob": -0.1, "top_logprobs": [{"token": name, "logprob": -0.1}]} for name in names]
    reply["choices"][0]["logprobs"] = {"content": places}
    return reply


def of_another_tokenizer(body: Body) -> Body:
    return by_ids(body, 1)


def without_likeliest(body: Body) -> Body:
    reply = by_ids(body)
    for place in reply["choices"][0]["logprobs"]["content"]:
        place["top_logprobs"] = []
    return reply


INLINE, MULTITASK = having(train__rationale="inline"), having(train__rationale="multitask")
REASONING = having(train__reasoning=True)
SCHEMA = having(generate__schema={"type": "object", "required": ["item"]})
CHOICES = having(generate__choices=["yes", "no"])
SEVERAL = having(generate__samples=3, generate__samples_per_request=3)
STOPPED: list[tuple[str, list[Change], Any, int, str]] = [  # what makes it so, the teacher, requests paid at most, the message
    ("inline rationale without reasoning", [INLINE], answer, TRIAL, 'rationale = "inline", but none of the first 8 answers'),
    ("multitask rationale without reasoning", [MULTITASK], answer, TRIAL, "leave rationale out"),
    ("reasoning without reasoning", [REASONING], answer, TRIAL, "[teacher] reasoning_tags"),
    ("three samples a request", [INLINE, SEVERAL], answer, 3, "none of the first 9 answers"),
    ("one request at a time", [INLINE, having(generate__concurrency=1)], answer, TRIAL, "what was answered is kept"),
    ("a schema that the endpoint ignores", [SCHEMA], answer, TRIAL, "has the form (not JSON: Expecting value"),
    ("choices that the endpoint ignores", [CHOICES], answer, TRIAL, "[generate] choices: none of the first 8 answers"),
    ("soft, tokens by their texts", [SOFT], answer, TRIAL, "return_tokens_as_token_ids = true"),
    ("soft, no log-probabilities", [SOFT], plain, TRIAL, "the endpoint reports none"),
    ("soft, no likeliest tokens", [SOFT], without_likeliest, TRIAL, "no likeliest tokens are stored"),
    ("soft, another tokenizer", [SOFT], of_another_tokenizer, TRIAL, "use a student of the teacher's family"),
]
CONTINUED: list[tuple[str, list[Change], Any]] = [
    ("some answers have reasoning", [MULTITASK], thinking),
    ("tokens by the student's ids", [SOFT], by_ids),
    ("some answers have the form", [CHOICES], some_yes),
    ("no form is wanted of what is trained on", [CHOICES, having(filter__schema=False)], answer),
    ("nothing is needed", [], answer),
]


def recipe_in(folder: Path, server: ChatServer, tiny_model: Path, changes: list[Change]) -> list[str]:
    """Writes the recipe, and returns its flag."""
    IDS.update(json.loads((tiny_model / "tokenizer.json").read_text())["model"]["vocab"])
    recipe: dict[str, Any] = tables(server, folder, tiny_model)
    file = Path(recipe["task"]["prompts"])
    file.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(PROMPTS)))
    for change in changes:
        change(folder, recipe)
    (folder / "recipe.toml").write_text(toml(recipe))
    return ["-c", str(folder / "recipe.toml"), "-q"]


@pytest.mark.parametrize("command", ["generate", "run"])
@pytest.mark.parametrize(("name", "changes", "reply", "paid", "says"), [pytest.param(*case, id=case[0]) for case in STOPPED])
def test_answers_that_cannot_be_trained_on_stop_generate_after_the_first(
    command: str,
    name: str,
    changes: list[Change],
    reply: Any,
    paid: int,
    says: str,
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    with ChatServer(reply=reply) as server:
        flags = recipe_in(tmp_path, server, tiny_model, changes)
        assert main([command, str(run), *flags]) == 1, name
        assert says in " ".join(capsys.readouterr().err.split())
        assert 0 < len(server.requests) <= paid
        assert len((run / "generate" / "journal.jsonl").read_text().split('"completion": {')) - 1 >= TRIAL
        assert not (run / "generate" / "manifest.json").exists()
        sent = len(server.requests)
        assert main([command, str(run), *flags]) == 1
        assert len(server.requests) == sent, "what is known is not paid for again"


@pytest.mark.parametrize(("name", "changes", "reply"), [pytest.param(*case, id=case[0]) for case in CONTINUED])
def test_answers_of_use_continue_and_each_is_paid_once(
    name: str, changes: list[Change], reply: Any, tmp_path: Path, tiny_model: Path
) -> None:
    with ChatServer(reply=reply) as server:
        assert main(["generate", str(tmp_path / "run"), *recipe_in(tmp_path, server, tiny_model, changes)]) == 0, name
        assert len(server.requests) == PROMPTS


def test_with_other_settings_what_was_paid_for_counts(tmp_path: Path, tiny_model: Path) -> None:
    with ChatServer() as server:
        flags = recipe_in(tmp_path, server, tiny_model, [INLINE])
        assert main(["generate", str(tmp_path / "run"), *flags]) == 1
        flags = recipe_in(tmp_path, server, tiny_model, [])
        assert main(["generate", str(tmp_path / "run"), *flags]) == 0
        assert len(server.requests) == PROMPTS


def test_a_batch_is_submitted_only_after_the_first_answers(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BatchServer() as server:
        flags = recipe_in(tmp_path, server, tiny_model, [INLINE, having(generate__batch=True)])
        assert main(["generate", str(tmp_path / "run"), *flags]) == 1
        assert "has reasoning" in capsys.readouterr().err
        assert len(server.requests) == TRIAL and not server.batches


def test_an_estimate_has_the_first_answers_at_the_price_without_a_batch(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BatchServer() as server:
        priced = having(teacher__price={"prompt": 0.0, "completion": 1000.0}, generate__batch=True)
        estimated = {}
        for name, changes in (("all in batches", [priced]), ("first answers", [INLINE, priced])):
            flags = recipe_in(tmp_path, server, tiny_model, changes)
            assert main(["generate", str(tmp_path / name), "--dry-run", "--json", *flags]) == 0
            estimated[name] = json.loads(capsys.readouterr().out)["missing_usd"]
        assert server.requests == []
    assert estimated["first answers"] / estimated["all in batches"] == pytest.approx((PROMPTS + TRIAL) / PROMPTS)


def test_a_probe_says_it_too(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        flags = recipe_in(tmp_path, server, tiny_model, [INLINE])
        assert main(["generate", str(tmp_path / "run"), "--probe", "20", *flags]) == 1
        assert "has reasoning" in capsys.readouterr().err and len(server.requests) == TRIAL


def test_of_two_teachers_one_may_lack_it(tmp_path: Path, tiny_model: Path) -> None:
    def each(body: Body) -> Body:
        return thinking(body) if body["model"] == "thinker" else answer(body)

    with ChatServer(model=None, reply=each) as server:
        one = {"engine": "openai", "base_url": [server.url]}
        recipe_in(tmp_path, server, tiny_model, [MULTITASK, lambda _folder, recipe: recipe.pop("teacher")])
        several = "".join(
            f"[[teachers]]\n{toml({'': {'model': name, **one}}).replace('[]', '')}\n" for name in ("plain", "thinker")
        )
        (tmp_path / "recipe.toml").write_text((tmp_path / "recipe.toml").read_text() + "\n" + several)
        assert main(["generate", str(tmp_path / "run"), "-c", str(tmp_path / "recipe.toml"), "-q"]) == 0
        assert len(server.requests) == 2 * PROMPTS


def test_a_teacher_in_this_process_is_stopped_too(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        local = having(teacher={"model": str(tiny_model), "engine": "transformers", "base_url": []})
        flags = recipe_in(tmp_path, server, tiny_model, [INLINE, local])
        assert main(["generate", str(tmp_path / "run"), *flags]) == 1
        assert "has reasoning" in capsys.readouterr().err
