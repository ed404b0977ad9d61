"""Reasoning in a reply goes to its own field, in whichever markup it comes; what is left in an answer is named."""

import pytest

from seqdistill.engines.replies import chosen, finish_reason, parse_choice
from seqdistill.errors import UsageError
from seqdistill.fences import unfenced
from seqdistill.reasoning import leftover_reasoning, split_reasoning

FINAL = "<|start|>assistant<|channel|>final<|message|>yes<|return|>"
SPLIT = [  # text, answer, reasoning
    ("<think>\nhm\n</think>\n\nyes", "yes", "hm"),
    ("\n<THINK>hm</THINK>yes", "yes", "hm"),
    ("hm\n</think>\n\nyes", "yes", "hm"),
    ("<think>hm", "", "hm"),
    ("<think>\n\n</think>\n\nyes", "yes", None),
    ("<thinking>hm</thinking>yes", "yes", "hm"),
    ("<thought>hm</thought>yes", "yes", "hm"),
    ("<reasoning>hm</reasoning>yes", "yes", "hm"),
    ("[THINK]hm[/THINK]yes", "yes", "hm"),
    ("◁think▷hm◁/think▷yes", "yes", "hm"),
    ("<seed:think>hm</seed:think>yes", "yes", "hm"),
    ("<mm:think>hm</mm:think>yes", "yes", "hm"),
    ("hm</mm:think>\n\nyes", "yes", "hm"),
    ("<think:opensource>\nhm\n</think:opensource>\nyes", "yes", "hm"),
    ("<ifm|think_fast>hm</ifm|think_fast>yes", "yes", "hm"),
    ("hm<|think:end|>yes", "yes", "hm"),
    ("<|plamo:begin_think:plamo|>hm<|plamo:end_think:plamo|>yes", "yes", "hm"),
    ("<|inner_prefix|>hm<|inner_suffix|>yes", "yes", "hm"),
    ("<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>yes<|end_of_solution|>", "yes", "hm"),
    ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>yes<|END_RESPONSE|>", "yes", "hm"),
    ("<think>hm</think><response>yes</response>", "yes", "hm"),
    ("hm\n</think>\n\n<response>\nyes\n</response>\n", "yes", "hm"),
    ("<think>hm</think>\n<Response>yes", "yes", "hm"),
    ("<Thought>\nhm\n</Thought>\n\n<Output>\nyes\n</Output>", "yes", "hm"),
    ("<think>hm</think><response>a</response> and <response>b</response>", "a</response> and <response>b", "hm"),
    ("Here is my thought process: hm Here is my response: yes", "yes", "hm"),
    (f"<|channel|>analysis<|message|>hm<|end|>{FINAL}", "yes", "hm"),
    (
        f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>so<|end|>{FINAL}",
        "yes",
        "hm\nso",
    ),
    ("<|channel|>analysis<|message|>hm", "", "hm"),
    ("analysisWe think.assistantfinalyes", "yes", "We think."),
    ("<think>a</think><thought>b</thought>yes", "yes", "a\nb"),
    ("<think>a<think>b</think>c</think>yes", "yes", "a<think>b</think>c"),
    ("<think>write <think> first</think>yes", "yes", "write <think> first"),
]
TEXT = [
    "yes",
    " yes \n",
    "",
    "Use `</think>` to close the block.",
    'The tag "</think>" ends it.',
    "```html\n<thinking>x\n</thinking>\n```",
    "<response>yes</response>",
    "<output>yes</output>",
    "<answer>yes</answer>",
    "<b>x</b><reasoning>because</reasoning>",
    "The <thought> element is defined in the schema.",
    "analysis of the final figures by the assistant",
    "He said: what are you thinking?",
    "Here is my thought process: 2 and 3 make 5.\n\nThe answer is 5.",
    "Here is my thought process:",
]
BESIDE = [  # text, reasoning beside it, answer, reasoning
    ("R1 writes its thoughts, then the </think> tag, then the answer.", "The user wonders.", None, "The user wonders."),
    ("<think> is the tag that R1 opens with.", "The user wonders.", None, "The user wonders."),
    ("<thought> is an element.", "hm", None, "hm"),
    ("hm\n</think>\n\nyes", "well, hm", "yes", "well, hm\nhm"),
    ("</think>\n\nyes", "hm", "yes", "hm"),
    ("<think>hm</think>yes", "hm", "yes", "hm"),
    ("<think>so</think>yes", "hm", "yes", "hm\nso"),
    ("<think>hm", "hm", "", "hm"),
    ("Here is my thought process: hm Here is my response: yes", "hm", "yes", "hm"),
]


@pytest.mark.parametrize(("text", "answer", "reasoning"), SPLIT)
def test_reasoning_before_an_answer_is_taken_out_of_it(text: str, answer: str, reasoning: str | None) -> None:
    assert split_reasoning(text) == (answer, reasoning)
    assert leftover_reasoning(answer) is None


@pytest.mark.parametrize(("text", "beside", "answer", "reasoning"), BESIDE)
def test_reasoning_beside_the_text_tells_its_own_from_text_about_it(
    text: str, beside: str, answer: str | None, reasoning: str
) -> None:
    assert split_reasoning(text, beside) == (text if answer is None else answer, reasoning)


@pytest.mark.parametrize("text", TEXT)
def test_text_about_such_markup_is_text(text: str) -> None:
    assert split_reasoning(text) == (text, None)


def test_tags_of_one_s_own_replace_the_common_ones() -> None:
    assert split_reasoning("<plan>hm</plan>yes", None, ["<plan>...</plan>"]) == ("yes", "hm")
    assert split_reasoning("<think>hm</think>yes", None, ["<plan>...</plan>"]) == ("<think>hm</think>yes", None)
    with pytest.raises(UsageError, match="'<plan>' is not a pair of tags"):
        split_reasoning("yes", None, ["<plan>"])


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Well. <think>hm</think> yes", "<think>"),
        ("yes </THINK>", "</THINK>"),
        ("yes [/THINK]", "[/THINK]"),
        ("yes <|channel|>final", "<|channel|>"),
        ("yes <thought> and so on", "<thought>"),
        ("<a><reasoning>because</reasoning></a>", None),
        ('<details type="reasoning" done="true">\n> hm\n</details>\nyes', "<details type="),
        ("<details><summary>More</summary>yes</details>", None),
        ("Use `</think>` to close the block.", None),
        ("```\n<think>\n```", None),
        ("I think so.", None),
        ("<answer>\nyes\n</answer>\n", "<answer>"),
        ("The <answer>yes</answer>", None),
    ],
)
def test_markup_that_is_left_in_an_answer_is_named(answer: str, left: str | None) -> None:
    assert leftover_reasoning(answer) == left


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}
MESSAGES = [
    {"content": "yes", "reasoning": "hm"},
    {"content": "yes", "reasoning_content": "hm"},
    {"content": "yes", "thinking": "hm"},
    {"content": [THINKING, {"type": "text", "text": "yes"}]},
    {"content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "yes"}]},
    {"content": [{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "yes"}]},
    {
        "content": "yes",
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted", "data": "x"}],
    },
    {"content": "yes", "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    {"content": "yes", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
    {"content": "yes", "reasoning": {"summary": [{"type": "summary_text", "text": "hm"}]}},
    {"content": "yes", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"content": "yes", "reasoning": "", "reasoning_content": "hm"},
    {"content": "<think>hm</think>yes", "reasoning": None},
    {"content": "<think>hm</think>yes", "reasoning": "hm"},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_reasoning_beside_an_answer_is_read_whatever_holds_it(message: dict[str, object]) -> None:
    completion = parse_choice("p", {"choices": [{"message": message, "finish_reason": "stop"}]}, 0, 1.0)
    assert (completion.content, completion.reasoning) == ("yes", "hm")


@pytest.mark.parametrize(
    "content",
    [
        ["y", "es"],
        {"type": "text", "text": "yes"},
        [{"type": "text", "text": {"value": "yes", "annotations": []}}],
        [{"type": "output_text", "text": "y"}, "es", None, {"type": "image_url"}],
        "yes",
    ],
)
def test_the_text_of_an_answer_is_read_whatever_holds_it(content: object) -> None:
    raw = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    assert parse_choice("p", raw, 0, 1.0).content == "yes"


@pytest.mark.parametrize(
    ("choice", "content", "reason"),
    [
        ({"message": "yes"}, "yes", "stop"),
        ({"text": "yes"}, "yes", "stop"),  # of /v1/completions
        ({"delta": {"content": "yes"}}, "yes", "stop"),
        ({"message": {"content": {"a": [1], "b": "ü"}}}, '{"a": [1], "b": "ü"}', "stop"),  # JSON that the server parsed
        ({"message": {"content": 42}}, "42", "stop"),
        ({"message": {"content": False}}, "false", "stop"),
        ({"message": {"content": None, "refusal": "no"}}, "no", "refusal"),
        ({"message": {"content": [{"type": "refusal", "refusal": "no"}]}}, "no", "refusal"),
    ],
)
def test_an_answer_is_read_in_whatever_form_it_comes(choice: dict[str, object], content: str, reason: str) -> None:
    completion = parse_choice("p", {"choices": [{**choice, "finish_reason": "stop"}]}, 0, 1.0)
    assert (completion.content, completion.finish_reason) == (content, reason)


@pytest.mark.parametrize(
    ("usage", "hidden"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 18, "total_tokens": 638}, 600),
        ({"prompt_tokens": 20, "completion_tokens": 18, "completion_tokens_details": {"reasoning_tokens": 600}}, 600),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 18,
                "total_tokens": 38,
                "completion_tokens_details": {"reasoning_tokens": 600},
            },
            600,
        ),
        ({"prompt_tokens": 20, "completion_tokens": 618, "completion_tokens_details": {"reasoning_tokens": 600}}, 0),
        ({"prompt_tokens": 20, "completion_tokens": 18, "total_tokens": 5}, 0),
        ({"prompt_tokens": 20, "completion_tokens": 18, "total_tokens": 38, "reasoning_tokens": 600}, 600),  # Perplexity
        ({"input_tokens": 20, "output_tokens": 18, "output_tokens_details": {"reasoning_tokens": 600}}, 600),
        ({"prompt_tokens": 20, "completion_tokens": 618, "total_tokens": 638, "reasoning_tokens": 600}, 0),  # Together
        ({"promptTokenCount": 20, "candidatesTokenCount": 18, "thoughtsTokenCount": 600}, 600),  # Gemini
    ],
)
def test_reasoning_tokens_that_are_not_among_the_completion_s_are_counted_beside_them(
    usage: dict[str, object], hidden: int
) -> None:
    raw = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": usage}
    assert parse_choice("p", raw, 0, 1.0).hidden_tokens == hidden


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        *[
            (word, "stop")
            for word in ("stop", "STOP", "FINISH_REASON_STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE")
        ],
        *[(word, "stop") for word in ("endTurn", "FinishReason.STOP", "stop sequence", "eot")],
        *[(word, "length") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens")],
        *[(word, "length") for word in ("max-tokens", "maxTokens", "FinishReason.MAX_TOKENS", "not_finished")],
        *[(word, "content_filter") for word in ("content-filter", "contentFilter")],
        *[(word, "tool_calls") for word in ("tool-calls", "toolUse")],
        ("MALFORMED_FUNCTION_CALL", "error"),
        *[
            (word, "content_filter")
            for word in ("content_filter", "SAFETY", "RECITATION", "content_filter: PROHIBITED_CONTENT")
        ],
        *[(word, "tool_calls") for word in ("tool_calls", "tool_use", "function_call")],
        *[(word, "error") for word in ("abort", "error", "insufficient_system_resource", "cancelled")],
        *[(word, "stop") for word in ("StopSequence", "EndOfText", "<|im_end|>", "<|endoftext|>", "end_of_message")],
        *[(word, "length") for word in ("length_capped", "out_of_tokens", "max_context_length")],
        *[(word, "length") for word in ("max_output", "pause_turn")],  # MiniMax, Anthropic
        *[(word, "content_filter") for word in ("MODEL_ARMOR", "LANGUAGE")],  # Gemini
        *[(word, "error") for word in ("UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "interrupted")],
        *[(word, "error") for word in ("function_call_filter: MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE")],  # Gemini
        ("repetition", "length"),  # vLLM
        ("normal", "stop"),  # Qianfan
        *[(word, "error") for word in ("load", "unload", "malformed_model_output", "USER_CANCEL")],  # Ollama, Bedrock, Cohere
        ({"type": "length", "length": 10}, "length"),  # SGLang
        ("refusal", "refusal"),
        *[(word, "unknown") for word in (None, "", "OTHER", 7, ["stop"])],
    ],
)
def test_finish_reasons_have_one_set_of_values(reported: object, reason: str) -> None:
    assert finish_reason(reported) == reason


@pytest.mark.parametrize(
    ("content", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('\n```\n{"a": 1}\n```\n', '{"a": 1}'),
        ("~~~json\n[1]\n~~~", "[1]"),
        ("Here:\n```json\n{}\n```", "Here:\n```json\n{}\n```"),
        ("```\na\n```\nand\n```\nb\n```", "```\na\n```\nand\n```\nb\n```"),
        ("{}", "{}"),
    ],
)
def test_an_answer_that_is_one_code_fence_is_what_is_in_it(content: str, inside: str) -> None:
    assert unfenced(content) == inside


@pytest.mark.parametrize("content", ['{"choice": "yes"}', '```json\n{"choice": "yes"}\n```', '"yes"', "```\nyes\n```", "yes"])
def test_a_choice_is_read_in_whatever_form_it_comes(content: str) -> None:
    assert chosen(content) == "yes"
