"""Answers and reasoning are read back from what a chat template itself writes around them: TRL's real templates."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_contract import ask

from seqdistill.engines import Request, open_engine
from seqdistill.engines.answer_markup import answer_markup, read_answer, turn_end
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig

THOUGHT = "Two facts: it is shut.\nAnd it is Monday."
ANSWER = "The library is shut.\n\n- On Monday {{ 7 * 7 }}"
NAMES = (  # key of the reasoning; None: the template renders none
    ("gptoss", "thinking"), ("qwen3", "reasoning_content"), ("qwen3_5_think", "reasoning_content"), ("qwen3_5_nothink", None),
    ("qwen3_6", "reasoning_content"), ("qwen3_8", "reasoning_content"), ("qwen3_instruct_2507", None), ("qwen2_5", None),
    ("glm4moe", "reasoning_content"), ("muse_glimmer", "reasoning_content"), ("gemma4_v5", "reasoning_content"),
    ("diffusion_gemma", "reasoning_content"), ("nemotron_3_nano", "reasoning_content"),
    ("nemotron_3_ultra", "reasoning_content"), ("lfm2_2_5", "thinking"), ("lfm2_2_5_v2", "reasoning_content"),
    ("gemma", None), ("gemma3", None), ("llama3", None), ("llama3_1", None), ("phi3", None), ("cohere", None),
    ("cohere2", None), ("deepseek_r1_distill", None), ("lfm2", None),
)  # fmt: skip
MARKS = [
    *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<think>", "</think>", "<|im_start|>"),
    *("<|im_end|>", "<|eot|>", "<|eom|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|eot_id|>", "<|user|>", "<|assistant|>", "<|END_OF_TURN_TOKEN|>", "<|START_RESPONSE|>"),
    "<|END_RESPONSE|>",
]


def template(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


@pytest.fixture(scope="module", params=["special", "plain"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    """The tiny model's tokenizer, which knows the templates' marks as special tokens, or spells them out."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    if request.param == "special":
        tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return tokenizer


def rendered(tokenizer: Any, thought: dict[str, str]) -> tuple[str, str]:
    """(the prompt, what a model writes that was trained on this template), by the template."""
    question = [{"role": "user", "content": "Is it open?"}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    turn = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": ANSWER, **thought}], tokenize=False)
    return prompt, turn


@pytest.mark.parametrize(("name", "key"), NAMES)
def test_what_the_template_renders_is_read_back(name: str, key: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template = template(name)
    markup = answer_markup(tokenizer, {})

    def read(written: str) -> tuple[str, str | None]:
        return read_answer(tokenizer, markup, tokenizer.encode(written, add_special_tokens=False))[:2]

    def until_stop(prompt: str, turn: str) -> str:
        return turn[len(prompt) : turn.index(ANSWER) + len(ANSWER)]

    prompt, turn = rendered(tokenizer, {})
    if turn.startswith(prompt):
        assert read(until_stop(prompt, turn)) == (ANSWER, None)
    if key:
        prompt, turn = rendered(tokenizer, {key: THOUGHT})
        written = until_stop(prompt, turn)
        assert turn.startswith(prompt)
        assert read(written) == (ANSWER, THOUGHT)
        thought = written[: written.index(THOUGHT) + 20]
        assert read(thought) == ("", THOUGHT[:20].strip()), "cut off while it thinks"
    else:
        assert read(ANSWER) in ((ANSWER, None), ("", ANSWER)), "the second where the prompt opened the reasoning"


def test_a_model_that_thinks_in_an_opened_block_is_read_as_thinking(tokenizer: Any) -> None:
    """DeepSeek R1's prompt opens the block, and its template leaves reasoning out of what it renders."""
    tokenizer.chat_template = template("deepseek_r1_distill")
    markup = answer_markup(tokenizer, {})
    for written, wanted in [
        (f"{THOUGHT}\n</think>\n\n{ANSWER}", (ANSWER, THOUGHT)),
        (THOUGHT, ("", THOUGHT)),
    ]:
        assert read_answer(tokenizer, markup, tokenizer.encode(written, add_special_tokens=False))[:2] == wanted


def test_tags_of_the_recipe_are_looked_for(tokenizer: Any) -> None:
    tokenizer.chat_template = template("llama3")
    tokens = tokenizer.encode(f"<plan>{THOUGHT}</plan>{ANSWER}", add_special_tokens=False)
    assert read_answer(tokenizer, answer_markup(tokenizer, {}), tokens)[1] is None
    assert read_answer(tokenizer, answer_markup(tokenizer, {}, ["<plan>...</plan>"]), tokens)[:2] == (ANSWER, THOUGHT)
    with pytest.raises(UsageError, match="not a pair of tags"):
        answer_markup(tokenizer, {}, ["<plan>"])


def test_further_channels_before_the_answer_are_no_part_of_it(tokenizer: Any) -> None:
    tokenizer.chat_template = template("gptoss")
    markup = answer_markup(tokenizer, {})
    parts = [("analysis", THOUGHT), ("commentary", "I look it up."), ("final", ANSWER)]
    written = "<|end|><|start|>assistant".join(f"<|channel|>{channel}<|message|>{text}" for channel, text in parts)
    content, reasoning, _ = read_answer(tokenizer, markup, tokenizer.encode(written, add_special_tokens=False))
    assert content == ANSWER
    assert reasoning is not None and THOUGHT in reasoning and "I look it up." in reasoning


def test_the_token_behind_an_answer_ends_the_turn(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    for name, token in [("gptoss", "<|return|>"), ("llama3", "<|eot_id|>"), ("phi3", "<|end|>"), ("glm4moe", None)]:
        tokenizer.chat_template = template(name)
        wanted = None if token is None else tokenizer.convert_tokens_to_ids(token)
        assert turn_end(tokenizer, answer_markup(tokenizer, {})) == wanted


def test_a_parser_that_the_model_declares_is_used(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 4's template renders no reasoning for a plain answer; its tokenizer says how to read it."""
    fields = {
        "thinking": {"open": "<|channel>thought\n", "close_pattern": r"\n<channel\|>", "content": "text"},
        "content": {"close_pattern": r"<turn\|>\s*", "content": "text"},
    }
    declared = {"defaults": {"role": "assistant"}, "start_anchor": "<|turn>model\n", "fields": fields}
    monkeypatch.setattr(tokenizer, "response_template", declared, raising=False)
    tokenizer.chat_template = template("gemma4")
    markup = answer_markup(tokenizer, {})
    written = f"<|channel>thought\n{THOUGHT}\n<channel|>{ANSWER}"
    assert read_answer(tokenizer, markup, tokenizer.encode(written, add_special_tokens=False))[:2] == (ANSWER, THOUGHT)


# --- in the engine ----------------------------------------------------------------------------------------------------


def with_template(tiny_model: Path, folder: Path, text: str) -> Path:
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(text)
    return folder


def questions(count: int, *roles: str) -> list[Request]:
    return [Request(f"p{n}", [{"role": role, "content": f"{role} {n}"} for role in roles], 4) for n in range(count)]


def test_template_options_reach_the_prompt(tiny_model: Path, tmp_path: Path) -> None:
    text = "{{ 'x' * (40 if enable_thinking else 4) }}{% for m in messages %}{{ m.content }}{% endfor %}"
    folder = str(with_template(tiny_model, tmp_path / "model", text))
    tokens = [
        ask(open_engine(ModelConfig(model=folder, chat_template_kwargs=options)), questions(1, "user"))["p0"].prompt_tokens
        for options in ({}, {"enable_thinking": True})
    ]
    assert tokens[1] - tokens[0] == 36


REFUSALS = {
    "system": ("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}", "System"),
    "turns": ("{% if messages|length % 2 == 0 %}{{ raise_exception('roles must alternate') }}{% endif %}", "alternate"),
    "sum": ("{% if messages|length > 1 %}{{ 'a' + 1 }}{% endif %}", "concatenate"),
    "name": ("{% if messages|length > 1 %}{{ missing.part }}{% endif %}", "'missing' is undefined"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_conversation_that_the_template_refuses_is_that_requests_failure(case: str, tiny_model: Path, tmp_path: Path) -> None:
    check, says = REFUSALS[case]
    text = check + "{% for m in messages %}{{ m.content }}{% endfor %}"
    engine = open_engine(ModelConfig(model=str(with_template(tiny_model, tmp_path / "model", text))))
    bad = Request("bad", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], 4)
    answers = ask(engine, [*questions(9, "user"), bad])
    assert answers["bad"].error == "template"
    assert says in (answers["bad"].message or "")
    assert all(answer.error is None for name, answer in answers.items() if name != "bad")
    assert ask(engine, [bad])["bad"].error == "template"
    with pytest.raises(UsageError, match="all 9 requests fail") as raised:
        ask(engine, questions(9, "system", "user"))
    assert says in raised.value.message


def test_settings_that_bend_answers_do_not_act_and_are_named(tiny_model: Path, tmp_path: Path) -> None:
    import json

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "generation_config.json"
    plain = json.loads(file.read_text())
    active_settings: dict[str, Any] = {
        "repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "min_new_tokens": 12, "suppress_tokens": [*range(30, 140)],
        "bad_words_ids": [[150]], "forced_eos_token_id": 200, "sequence_bias": [[[160], 5.0]], "min_length": 500,
        "exponential_decay_length_penalty": [2, 1.5],
    }  # fmt: skip
    file.write_text(json.dumps(plain | active_settings | {"do_sample": True, "temperature": 0.6, "top_k": 20}))
    requests = [Request(f"p{n}", [{"role": "user", "content": "word " * n}], 12, logprobs=2) for n in range(1, 6)]
    bent, own = open_engine(ModelConfig(model=str(folder))), open_engine(ModelConfig(model=str(tiny_model)))
    given, wanted = ask(bent, requests), ask(own, requests)
    assert {name: c.raw for name, c in given.items()} == {name: c.raw for name, c in wanted.items()}
    assert [line.split(" = ")[0] for line in bent.neutralised] == sorted(active_settings)  # type: ignore[attr-defined]
    assert own.neutralised == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "nemotron_3_nano", "deepseek_r1_distill", "gptoss", "llama3"])
def test_a_form_holds_for_the_answer_and_not_for_what_the_template_writes_before_it(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    engine = open_engine(ModelConfig(model=str(with_template(tiny_model, tmp_path / "model", template(name)))))
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    asked = questions(3, "user")
    chosen = ask(engine, [replace(one, choices=["yes", "no"]) for one in asked])
    shaped = ask(engine, [replace(one, schema=schema, max_tokens=40) for one in asked])
    assert {answer.content for answer in chosen.values()} <= {"yes", "no"}
    assert {answer.content for answer in shaped.values()} <= {'{"a": true}', '{"a": false}'}
    free = ask(engine, asked)
    markup = engine._markup  # type: ignore[attr-defined]
    assert chosen["p0"].prompt_tokens - free["p0"].prompt_tokens == len(markup.lead)
    assert all(answer.reasoning is None for answer in (*chosen.values(), *shaped.values()))
