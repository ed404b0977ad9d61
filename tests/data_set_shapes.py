"""Rows of public data sets and of other tools' exports, each with the prompts and answers that an import reads from them."""

import json
from collections.abc import Sequence
from typing import Any

from log_shapes import ANSWER, ASKED, CALL, CHAT, GEMINI, PROMPTFOO, REPLY


def node(name: str, parent: str | None, role: str, text: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "lang": "en", "rank": rank, **more}


def span(kind: str, put: Any, got: Any, **more: Any) -> dict[str, Any]:
    facts = {"mlflow.spanType": kind, "mlflow.spanInputs": put, "mlflow.spanOutputs": got, **more}
    return {"name": "x", "parent_id": None, "attributes": {key: json.dumps(value) for key, value in facts.items()}}


def otlp(**facts: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for key, v in facts.items()
    ]


OASST = [
    node("a", None, "prompter", "2 + 3?"),
    node("b", "a", "assistant", "6", 1),
    node("c", "a", "assistant", "5", 0),
    node("d", "c", "prompter", "And 1?"),
    node("e", "d", "assistant", "6"),
]
BELOW = {"role": "prompter", "text": "And 1?", "replies": [{"role": "assistant", "text": "6", "replies": []}]}
TREE = {
    "message_tree_id": "a",
    "tree_state": "ready_for_export",
    "prompt": {
        "message_id": "a",
        "role": "prompter",
        "text": "2 + 3?",
        "replies": [
            {"role": "assistant", "text": "6", "rank": 1, "replies": []},
            {"role": "assistant", "text": "5", "rank": 0, "replies": [BELOW]},
        ],
    },
}
LONGER = [(["2 + 3?"], "5"), (["2 + 3?", "5", "And 1?"], "6")]
TASK = (["Add.\n\n2 + 3?"], "5")
BEFORE: dict[str, dict[str, Any]] = {
    "pairs": {"history": [["2 + 3?", "5"]]},
    "messages": {"history": [ASKED, ANSWER]},
    "messages with the question": {"history": [ASKED, ANSWER, {**ASKED, "content": "And 1?"}]},
    "messages of ShareGPT": {"history": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]},
    "objects": {"history": [{"question": "2 + 3?", "answer": "5"}]},
    "input and output": {"history": [{"input": "2 + 3?", "output": "5"}]},
    "a transcript": {"history": "Human: 2 + 3?\n\nAssistant: 5"},
    "JSON": {"history": json.dumps([["2 + 3?", "5"]])},
    "chat_history": {"chat_history": [{"type": "human", "content": "2 + 3?"}, {"type": "ai", "content": "5"}]},
    "the first is empty": {"history": [], "conversation_history": [ASKED, ANSWER]},
}
EARLIER = {"messages": [ASKED, ANSWER, {**ASKED, "content": "And 1?"}]}
WITH_CALL = [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "5"}, ANSWER]
AFTER_CALL = (
    ["2 + 3?", '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>', "<tool_response>\n5\n</tool_response>"],
    "5",
)
QA = (["Capital?\n\nParis is the capital."], "Paris")
RATED = [
    {"model": "x", "response": "6", "overall_score": 4.0, "annotations": {"helpfulness": {"Rating": "4"}}},
    {"model": "m", "response": "5", "overall_score": 8.0, "annotations": {}},
]
MAPPING = {
    "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["2 + 3?"]}}, "parent": None},
    "b": {
        "message": {"author": {"role": "assistant"}, "recipient": "python", "content": {"content_type": "code", "text": "2+3"}},
        "parent": "a",
    },
    "c": {"message": {"author": {"role": "tool"}, "content": {"content_type": "execution_output", "text": "5"}}, "parent": "b"},
    "d": {
        "message": {
            "author": {"role": "assistant"},
            "content": {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "hm"}]},
        },
        "parent": "c",
    },
    "e": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["It is 5."]}}, "parent": "d"},
}
PYTHON = '<tool_call>\n{"name": "python", "arguments": "2+3"}\n</tool_call>'
FIVE = "<tool_response>\n5\n</tool_response>"
HISTORY: dict[str, Any] = {
    "currentId": "b",
    "messages": {
        "a": {"parentId": None, "role": "user", "content": "2 + 3?"},
        "b": {"parentId": "a", "role": "assistant", "content": "5", "model": "m"},
        "c": {"parentId": "a", "role": "assistant", "content": "6", "model": "m"},
    },
}
SUM = (["2 + 3?"], "5")

GLAIVE = (
    "USER: 2 + 3?\n\n\nASSISTANT: <functioncall> add <|endoftext|>\n\n\nFUNCTION RESPONSE: 5\n\n\nASSISTANT: 5 <|endoftext|>"
)

CASES: dict[
    str, tuple[Sequence[Any], Sequence[tuple[list[str], str]], int]
] = {  # rows; prompts and answers; how many are skipped
    "OpenAssistant's messages": (OASST, LONGER, 1),
    "OpenAssistant's messages, the children first": (OASST[::-1], LONGER[::-1], 1),
    "OpenAssistant's messages without ranks": (
        [{key: one[key] for key in ("message_id", "parent_id", "text", "role")} for one in OASST[:3]],
        [(["2 + 3?"], "6"), SUM],
        0,
    ),
    "a message that was deleted": ([OASST[0], {**OASST[2], "deleted": True}, OASST[1] | {"rank": 0}], [(["2 + 3?"], "6")], 1),
    "OpenAssistant's trees": ([TREE], LONGER, 1),
    "a thread of OpenAssistant's": ([{"thread_id": "c", "thread": [OASST[0], OASST[2]]}], [SUM], 0),
    "UltraFeedback": ([{"source": "s", "instruction": "2 + 3?", "models": ["x", "m"], "completions": RATED}], [SUM], 1),
    "UltraFeedback, whose principle was sent": (
        [{"instruction": "2 + 3?", "completions": [{**RATED[1], "custom_system_prompt": "Be kind."}]}],
        [(["Be kind.", "2 + 3?"], "5")],
        0,
    ),
    "Nectar": (
        [
            {
                "prompt": "\n\nHuman: 2 + 3?\n\nAssistant: ",
                "answers": [{"answer": "5", "model": "m", "rank": 1.0}, {"answer": "6", "model": "x", "rank": 2.0}],
            }
        ],
        [SUM],
        1,
    ),
    "answers of several models that nobody judged": (
        [{"prompt": "2 + 3?", "responses": [{"model": "m", "response": "5"}, {"model": "m", "response": "five"}]}],
        [SUM, (["2 + 3?"], "five")],
        0,
    ),
    "SQuAD": (
        [
            {
                "id": "1",
                "title": "France",
                "context": "Paris is the capital.",
                "question": "Capital?",
                "answers": {"text": ["Paris", "paris"], "answer_start": [0]},
            }
        ],
        [QA],
        0,
    ),
    "SQuAD's own file": (
        [
            {
                "title": "France",
                "paragraphs": [
                    {
                        "context": "Paris is the capital.",
                        "qas": [{"id": "1", "question": "Capital?", "answers": [{"text": "Paris", "answer_start": 0}]}],
                    }
                ],
            }
        ],
        [QA],
        0,
    ),
    "a passage beside the question": (
        [{"question": "Capital?", "passage": "Paris is the capital.", "answer": "Paris"}],
        [QA],
        0,
    ),
    "HotpotQA": (
        [
            {
                "question": "Capital?",
                "context": {"title": ["a"], "sentences": [["Paris ", "is the capital."]]},
                "answer": "Paris",
            }
        ],
        [QA],
        0,
    ),
    "Ragas": (
        [
            {
                "user_input": "Capital?",
                "retrieved_contexts": ["Paris is the capital."],
                "response": "Paris",
                "reference": "Paris",
            }
        ],
        [QA],
        0,
    ),
    "Ragas, older": (
        [{"question": "Capital?", "contexts": ["Paris is the capital."], "answer": "Paris", "ground_truth": "Paris"}],
        [QA],
        0,
    ),
    "DeepEval": (
        [{"input": "Capital?", "actual_output": "Paris", "retrieval_context": ["Paris is the capital."]}],
        [QA],
        0,
    ),
    **{
        f"{key} beside the question": ([{"question": "Capital?", key: value, "response": "Paris"}], [QA], 0)
        for key, value in [
            ("documents", ["Paris is the capital."]),
            ("source_documents", [{"page_content": "Paris is the capital.", "metadata": {}}]),
            ("retrieved_documents", json.dumps([{"text": "Paris is the capital."}])),
            ("document", "Paris is the capital."),
        ]
    },
    "MS MARCO": (
        [
            {
                "query": "Capital?",
                "passages": {"is_selected": [1], "passage_text": ["Paris is the capital."]},
                "answers": ["Paris"],
            }
        ],
        [QA],
        0,
    ),
    "a system message without text": (
        [
            {"messages": [{"role": "system", "content": ""}, ASKED, ANSWER]},
            {
                "conversations": [
                    {"from": "system", "value": ""},
                    {"from": "human", "value": "2 + 3?"},
                    {"from": "gpt", "value": "5"},
                ]
            },
            {"request": {"messages": [{"role": "developer", "content": " "}, ASKED]}, "response": REPLY},
        ],
        [SUM, SUM, SUM],
        0,
    ),
    "MS MARCO, passages of one word": (
        [{"query": "Who?", "passages": {"is_selected": [1, 0], "passage_text": ["Bob", "x"]}, "answers": ["Bob"]}],
        [(["Who?\n\nBob\n\nx"], "Bob")],
        0,
    ),
    "documents by their names": (
        [
            {"question": "2 + 3?", "documents": documents, "answer": "5"}
            for documents in (["doc_17", "a.pdf"], ["https://a.org/b", "Q42"], "reports/sums.pdf")
        ],
        [SUM, SUM, SUM],
        0,
    ),
    "LIMA": ([{"conversations": ["2 + 3?", "5"], "source": "s"}, {"conversations": ["2 + 3?", "5", "And 1?"]}], [SUM, SUM], 0),
    "UltraChat": ([{"id": "0", "data": ["2 + 3?", "5", "And 1?", "6"]}], [LONGER[1]], 0),
    "ShareGPT in pairs": (
        [{"conversation": [{"human": "2 + 3?", "assistant": "5"}, {"human": "And 1?", "assistant": "6"}]}],
        [LONGER[1]],
        0,
    ),
    "a column that is called message": (
        [
            {"prompt": "2 + 3?", "completion": "5", "message": "feat: x"},
            {"messages": [ASKED, ANSWER], "message": "feat: x"},
        ],
        [SUM, SUM],
        0,
    ),
    "HelpSteer2": (
        [{"prompt": "2 + 3?\n<extra_id_1>Assistant\n5\n<extra_id_1>User\nAnd 1?", "response": "6"}],
        [(["2 + 3?", "5", "And 1?"], "6")],
        0,
    ),
    "NeMo's template": (
        [
            {
                "prompt": "<extra_id_0>System\n\n<extra_id_1>User\n2 + 3?\n<extra_id_1>Assistant\n",
                "completion": "5",
            }
        ],
        [SUM],
        0,
    ),
    "TriviaQA": ([{"question": "2 + 3?", "answer": {"value": "5", "aliases": ["five"]}}], [SUM], 0),
    "several accepted answers": ([{"question": "2 + 3?", "answer": ["5", "five"]}], [SUM], 0),
    "a problem with its solution and its answer": (
        [{"problem": "2 + 3?", "solution": "So: 5", "answer": "5"}],
        [(["2 + 3?"], "So: 5")],
        0,
    ),
    "Natural Instructions": ([{"definition": "Add.", "inputs": "2 + 3?", "targets": "5"}], [(["Add.\n\n2 + 3?"], "5")], 0),
    "an Alpaca row with earlier turns": (
        [{"instruction": "2 + 3?", "input": "", "output": "5", "system": "S", "history": [["hi", "hello"]]}],
        [(["S", "hi", "hello", "2 + 3?"], "5")],
        0,
    ),
    "OpenOrca": ([{"system_prompt": "S", "question": "2 + 3?", "response": "5"}], [(["S", "2 + 3?"], "5")], 0),
    "a system prompt of Cohere's": (
        [{"request": {"message": "2 + 3?", "preamble": "S"}, "response": {"text": "5"}}],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    "OpenAI's evals, what is ideal": ([{"input": [ASKED], "ideal": "5"}], [SUM], 0),
    "an item of a data set of Langfuse": (
        [{"id": "i", "datasetId": "d", "input": {"question": "2 + 3?"}, "expectedOutput": "5"}],
        [SUM],
        0,
    ),
    "an item of a data set of Braintrust": ([{"input": "2 + 3?", "expected": "5", "metadata": {}}], [SUM], 0),
    "Firefly": ([{"kind": "Sum", "input": "2 + 3?", "target": "5"}], [SUM], 0),
    "two conversations and a vote": (
        [
            {
                "model_a": "x",
                "model_b": "m",
                "winner": "model_b",
                "conversation_a": [ASKED, {**ANSWER, "content": "6"}],
                "conversation_b": [ASKED, ANSWER],
            },
            {
                "model_a": "x",
                "model_b": "m",
                "winner": "tie",
                "conversation_a": [ASKED, ANSWER],
                "conversation_b": [ASKED, ANSWER],
            },
        ],
        [SUM],
        1,
    ),
    "Glaive with a function's result": (
        [{"chat": GLAIVE}],
        [(["2 + 3?", "<functioncall> add", FIVE], "5")],
        0,
    ),
    "Hermes' tool turns, in their tags already": (
        [
            {
                "conversations": [
                    {"from": "human", "value": "2 + 3?"},
                    {"from": "gpt", "value": "<tool_call>\n{}\n</tool_call>"},
                    {"from": "tool", "value": FIVE},
                    {"from": "gpt", "value": "5"},
                ]
            }
        ],
        [(["2 + 3?", "<tool_call>\n{}\n</tool_call>", FIVE], "5")],
        0,
    ),
    "Llama 2's template as one text": (
        [{"text": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n2 + 3? [/INST] 5 </s>"}],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    "Llama 3's template as one text": (
        [
            {
                "text": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n5<|eot_id|>"
            }
        ],
        [SUM],
        0,
    ),
    "Gemma's template as one text": (
        [{"text": "<bos><start_of_turn>user\n2 + 3?<end_of_turn>\n<start_of_turn>model\n5<end_of_turn>"}],
        [SUM],
        0,
    ),
    "Alpaca as one text": (
        [{"text": "Below is an instruction.\n\n### Instruction:\nAdd.\n\n### Input:\n2 + 3?\n\n### Response:\n5"}],
        [(["Add.\n\n2 + 3?"], "5")],
        0,
    ),
    "a prompt as Claude's older API had it": (
        [{"recordId": "1", "modelInput": {"prompt": "\n\nHuman: 2 + 3?\n\nAssistant:"}, "modelOutput": {"completion": "5"}}],
        [SUM],
        0,
    ),
    "a prompt in Llama's template": (
        [
            {
                "prompt": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                "completion": "5",
            }
        ],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    "a prompt in Mistral's template": ([{"prompt": "<s>[INST] 2 + 3? [/INST]", "completion": "5"}], [SUM], 0),
    "a prompt in DeepSeek's template, with the beginning of its thoughts": (
        [{"prompt": "<｜begin▁of▁sentence｜>S<｜User｜>2 + 3?<｜Assistant｜><think>\n", "completion": "hm\n</think>\n\n5"}],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    "Zephyr's template as one text": (
        [{"text": "<|system|>\nS</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n5</s>"}],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    "BELLE": ([{"instruction": "Human:2 + 3?\nAssistant:", "input": "", "output": "5"}], [SUM], 0),
    "a text that only has such marks": (
        [{"prompt": "Continue.\nHuman: hi\nAssistant:", "completion": "5"}],
        [(["Continue.\nHuman: hi\nAssistant:"], "5")],
        0,
    ),
    "MLflow's trace": (
        [{"info": {"request_id": "t"}, "data": {"spans": [span("CHAIN", {"q": "x"}, "y"), span("CHAT_MODEL", CHAT, REPLY)]}}],
        [SUM],
        1,
    ),
    "MLflow's span": ([span("TOOL", "x", "y"), span("LLM", CHAT, REPLY)], [SUM], 1),
    "MLflow's trace of a function": ([{"data": {"spans": [span("UNKNOWN", {"question": "2 + 3?"}, "5")]}}], [SUM], 0),
    "MLflow's span of messages": ([span("LLM", {"messages": [ASKED]}, {"messages": [ASKED, ANSWER]})], [SUM], 0),
    "MLflow's span of LangChain": (
        [
            span(
                "CHAT_MODEL", [[{"type": "human", "content": "2 + 3?"}]], {"generations": [[{"text": "5"}]], "llm_output": None}
            )
        ],
        [SUM],
        0,
    ),
    "MLflow's table of traces": (
        [{"request_id": "t", "request": json.dumps(CHAT), "spans": [span("CHAT_MODEL", CHAT, REPLY)]}],
        [SUM],
        0,
    ),
    "a collector's file of OpenTelemetry": (
        [
            {
                "resourceSpans": [
                    {
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "name": "chat m",
                                        "attributes": otlp(
                                            **{
                                                "gen_ai.request.model": "m",
                                                "gen_ai.prompt.0.role": "user",
                                                "gen_ai.prompt.0.content": "2 + 3?",
                                                "gen_ai.completion.0.role": "assistant",
                                                "gen_ai.completion.0.content": "5",
                                                "gen_ai.usage.input_tokens": 7,
                                            }
                                        ),
                                    }
                                ]
                            }
                        ]
                    }
                ]
            }
        ],
        [SUM],
        0,
    ),
    "Vercel's AI SDK": (
        [
            {
                "name": "ai.generateText.doGenerate",
                "attributes": {
                    "ai.prompt.messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": "2 + 3?"}]}]),
                    "ai.response.text": "5",
                    "ai.response.finishReason": "stop",
                },
            }
        ],
        [SUM],
        0,
    ),
    "Logfire": (
        [{"attributes": {"request_data": json.dumps(CHAT), "response_data": json.dumps({"message": ANSWER})}}],
        [SUM],
        0,
    ),
    "Logfire's events": (
        [
            {
                "attributes": {
                    "events": json.dumps(
                        [
                            {"event.name": "gen_ai.user.message", **ASKED},
                            {"event.name": "gen_ai.choice", "index": 0, "message": ANSWER, "finish_reason": "stop"},
                        ]
                    )
                }
            }
        ],
        [SUM],
        0,
    ),
    "Opik": (
        [
            {"trace_id": "t", "type": "llm", "input": {"messages": [ASKED]}, "output": {"choices": REPLY["choices"]}},
            {"trace_id": "t", "type": "tool", "input": {"a": 1}, "output": {"b": 2}},
        ],
        [SUM],
        1,
    ),
    "LangWatch": (
        [
            {
                "trace_id": "t",
                "type": "llm",
                "input": {"type": "chat_messages", "value": [ASKED]},
                "output": {"type": "chat_messages", "value": [ANSWER]},
            }
        ],
        [SUM],
        0,
    ),
    "Datadog": ([{"span_id": "s", "meta": {"input": {"messages": [ASKED]}, "output": {"messages": [ANSWER]}}}], [SUM], 0),
    "OpenAI's Agents SDK": (
        [
            {"object": "trace.span", "span_data": {"type": "generation", "input": [ASKED], "output": [ANSWER], "model": "m"}},
            {"object": "trace.span", "span_data": {"type": "function", "input": "x", "output": "y"}},
        ],
        [SUM],
        1,
    ),
    "an HTTP archive": (
        [
            {
                "log": {
                    "entries": [
                        {"request": {"method": "GET", "url": "x"}, "response": {"status": 200, "content": {"text": "<html>"}}},
                        {
                            "request": {"method": "POST", "postData": {"text": json.dumps(CHAT)}},
                            "response": {"status": 200, "content": {"text": json.dumps(REPLY)}},
                        },
                    ]
                }
            }
        ],
        [SUM],
        0,
    ),
    "Vertex's log of requests": ([{"full_request": {"contents": "2 + 3?"}, "full_response": GEMINI}], [SUM], 0),
    "the command llm, a later turn": (
        [
            {
                "prompt": "And 1?",
                "prompt_json": {"messages": [ASKED, ANSWER, {**ASKED, "content": "And 1?"}]},
                "response": "6",
                "response_json": {"content": "6", "finish_reason": "stop"},
            }
        ],
        [(["2 + 3?", "5", "And 1?"], "6")],
        0,
    ),
    "Argilla 2": ([{"fields": {"prompt": "2 + 3?"}, "responses": {"answer": [{"value": "5", "user_id": "u"}]}}], [SUM], 0),
    "Argilla's feedback": (
        [{"fields": {"prompt": "2 + 3?"}, "responses": [{"values": {"answer": {"value": "5"}}, "status": "submitted"}]}],
        [SUM],
        0,
    ),
    "OpenInference with no more than input and output": (
        [{"attributes": {"openinference": {"span": {"kind": "LLM"}}, "input": {"value": "2 + 3?"}, "output": {"value": "5"}}}],
        [SUM],
        0,
    ),
    "OpenInference with a whole request": (
        [
            {
                "attributes.openinference.span.kind": "LLM",
                "attributes.input.value": json.dumps(CHAT),
                "attributes.output.value": json.dumps(REPLY),
            }
        ],
        [SUM],
        0,
    ),
    "Braintrust's spans of scores": (
        [
            {"span_id": "s", "input": [ASKED], "output": "5", "span_attributes": {"type": "llm"}},
            {"span_id": "t", "input": "x", "output": 0.5, "span_attributes": {"type": "score"}},
        ],
        [SUM],
        1,
    ),
    "Langfuse's CSV, whose texts are JSON": (
        [{"traceId": "t", "type": "GENERATION", "input": '"2 + 3?"', "output": '"5"'}],
        [SUM],
        0,
    ),
    "the marks of sources in ChatGPT's export": (
        [
            {
                "current_node": "b",
                "mapping": {
                    "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["2 + 3?"]}}, "parent": None},
                    "b": {
                        "message": {"author": {"role": "assistant"}, "content": {"parts": [text]}},
                        "parent": "a",
                    },
                },
            }
            for text in ("5\ue200cite\ue202turn0search1\ue202turn0search2\ue201", "5【6†source】", "5【4:0†a.pdf】")
        ],
        [SUM, SUM, SUM],
        0,
    ),
    "ChatGPT's export with a tool": (
        [{"current_node": "e", "mapping": MAPPING}],
        [(["2 + 3?", PYTHON, FIVE], "It is 5.")],
        0,
    ),
    "Claude's export with what was attached": (
        [
            {
                "chat_messages": [
                    {"sender": "human", "text": "Add.", "attachments": [{"file_name": "a", "extracted_content": "2 + 3?"}]},
                    {"sender": "assistant", "text": "5"},
                ]
            }
        ],
        [(["Add.\n\n2 + 3?"], "5")],
        0,
    ),
    "Open WebUI's history": ([{"id": "x", "chat": {"models": ["m"], "history": HISTORY}}], [SUM], 0),
    "Open WebUI's thoughts and calls of tools": (
        [
            {
                "chat": {
                    "messages": [
                        ASKED,
                        {
                            "role": "assistant",
                            "content": '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds'
                            "</summary>\n&gt; first\n&gt; then\n</details>\n"
                            '<details type="tool_calls" done="true" id="c1" name="add" arguments="{&quot;a&quot;: 2}" '
                            'result="&quot;5&quot;" files="">\n<summary>Tool Executed</summary>\n</details>\n'
                            '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n&gt; hm\n'
                            "</details>\n5",
                        },
                    ]
                }
            }
        ],
        [AFTER_CALL],
        0,
    ),
    "what was rated before the chat went on in Open WebUI": (
        [
            {
                "data": {"rating": rating},
                "meta": {"message_id": "b"},
                "snapshot": {
                    "chat": {
                        "chat": {
                            "history": {
                                "currentId": "d",
                                "messages": {
                                    **HISTORY["messages"],
                                    "c": {"parentId": "b", **ASKED},
                                    "d": {"parentId": "c", "role": "assistant", "content": "not rated"},
                                },
                            }
                        }
                    }
                },
            }
            for rating in (1, -1)
        ],
        [SUM],
        1,
    ),
    "an answer that is marked as bad in Open WebUI": (
        [{"chat": {"messages": [ASKED, {**ANSWER, "annotation": {"rating": rating}}]}} for rating in (1, -1)],
        [SUM],
        1,
    ),
    "what people rated in Open WebUI": (
        [
            {"data": {"rating": rating}, "snapshot": {"chat": {"chat": {"messages": [ASKED, {**ANSWER, "content": text}]}}}}
            for rating, text in ((1, "5"), (-1, "6"))
        ],
        [SUM],
        1,
    ),
    "Llama Stack's log": ([{"messages": [ASKED], "completion_message": {**ANSWER, "stop_reason": "end_of_turn"}}], [SUM], 0),
    "a column that says whether there is reasoning": ([{"input": [ASKED], "output": "5", "reasoning": "off"}], [SUM], 0),
    **{
        f"an answer that {key} marks as bad, as {bad!r}": (
            [{"prompt": "2 + 3?", "response": "6", key: bad}, {"prompt": "2 + 3?", "response": "5", key: good}],
            [SUM],
            1,
        )
        for key, bad, good in [
            *[("label", bad, good) for bad, good in ((False, True), (0, 1), ("False", "True"), ("0", "1"), (0.0, 1.0))],
            *[("label", "bad", "good"), ("label", "no", "yes"), ("is_correct", False, True), ("correct", 0, 1)],
            *[("rating", -1, 1), ("feedback", "thumbs_down", "thumbs_up"), ("thumbs", "down", "up"), ("vote", "-1", "1")],
        ]
    },
    **{
        f"an answer that {mark} marks as wrong, {name}": ([{**row, **mark}, {**row, **dict.fromkeys(mark, 1)}], [SUM], 1)
        for mark in ({"is_correct": False}, {"correctness": 0}, {"rating": -1})
        for name, row in {
            "in a conversation": {"messages": [ASKED, ANSWER]},
            **({"as an output": {"input": "2 + 3?", "output": "5"}} if "rating" not in mark else {}),
            **({"as a solution": {"question": "2 + 3?", "generated_solution": "5"}} if "rating" not in mark else {}),
        }.items()
    },
    "Promptfoo's and OpenAI's evaluations, whose failed answers are not learnt": (
        [
            *[{**PROMPTFOO, "success": passed, "response": {"output": text}} for passed, text in ((False, "6"), (True, "5"))],
            {
                "object": "eval.run.output_item",
                "status": "fail",
                "datasource_item": {"input": "2 + 3?"},
                "sample": {"input": [ASKED], "output": [{**ANSWER, "content": "6"}], "model": "m"},
            },
        ],
        [SUM],
        2,
    ),
    "Promptfoo's prompts in YAML, or as a request to Gemini": (
        [
            {**PROMPTFOO, "prompt": {"raw": raw, "label": "x"}}
            for raw in (
                "- role: system\n  content: S\n- role: user\n  content: 2 + 3?\n",
                json.dumps({"contents": [{"role": "user", "parts": [{"text": "2 + 3?"}]}]}),
                "- role: of a prompt",
            )
        ],
        [(["S", "2 + 3?"], "5"), SUM, (["- role: of a prompt"], "5")],
        0,
    ),
    "preference data beside all answers, or beside the conversation as it was": (
        [
            {"input": "2 + 3?", "chosen": "5", "rejected": "6", "generations": ["6", "5"], "rating": [1.0, 9.0]},
            {
                "conversation": [{"input": "2 + 3?", "output": "6"}],
                "prompt": "### User: ...",
                "chosen": [ASKED, ANSWER],
                "rejected": [ASKED, {**ANSWER, "content": "6"}],
            },
        ],
        [SUM, SUM],
        0,
    ),
    "NuminaMath's solutions that are not valid": (
        [
            {"problem": "2 + 3?", "solution": "So: 5", "answer": "5", "solution_is_valid": mark}
            for mark in ("No", "Incomplete", "Yes")
        ],
        [(["2 + 3?"], "So: 5")],
        2,
    ),
    "KTO as a conversation": (
        [{"messages": [ASKED, {**ANSWER, "content": "6"}], "label": False}, {"messages": [ASKED, ANSWER], "label": "true"}],
        [SUM],
        1,
    ),
    "a label that is the answer's, or a class": (
        [
            {"prompt": "Is it 5?", "response": "No, it is 6.", "label": "no"},
            {"messages": [ASKED, ANSWER], "label": 0},
            {"question": "2 + 3?", "answer": "5", "label": 0},
        ],
        [(["Is it 5?"], "No, it is 6."), SUM, SUM],
        0,
    ),
    "OpenR1": (
        [
            {
                "problem": "2 + 3?",
                "solution": "So: 5",
                "answer": "5",
                "generations": ["It is 5.", "It is 6.", "5"],
                "correctness_math_verify": [True, False, None],
                "finish_reasons": ["stop", "stop", "stop"],
            }
        ],
        [(["2 + 3?"], "It is 5."), SUM],
        1,
    ),
    "OpenR1, not verified": (
        [{"problem": "2 + 3?", "solution": "So: 5", "answer": "5", "generations": ["It is 5.", "Five"]}],
        [(["2 + 3?"], "It is 5."), (["2 + 3?"], "Five")],
        0,
    ),
    "s1K with answers that were verified": (
        [{"question": "2 + 3?", "solution": "So: 5", "generations": ["6", "5"], "correctness_math_verify": [False, True]}],
        [SUM],
        1,
    ),
    "distilabel with ratings": (
        [
            {"instruction": "2 + 3?", "generations": ["6", "5"], "generation_models": ["x", "m"], "ratings": [1, 5]},
            {"instruction": "2 + 3?", "generations": ["5", "5."], "ratings": [4.0, 4.0]},
            {"instruction": "2 + 3?", "generations": ["5", "five"], "ratings": [None, None]},
        ],
        [SUM, SUM, (["2 + 3?"], "5."), SUM, (["2 + 3?"], "five")],
        1,
    ),
    **{
        f"a preference whose last question follows an exchange, {name}": ([{**EARLIER, **chosen}], [LONGER[1]], 0)
        for name, chosen in {
            "the answer a message of ShareGPT": {
                "chosen": {"from": "gpt", "value": "6"},
                "rejected": {"from": "gpt", "value": "7"},
            },
            "a message": {"chosen": {"role": "assistant", "content": "6"}, "rejected": "7"},
            "a message of Gemini": {"output": {"role": "model", "parts": [{"text": "6"}]}},
            "a text": {"chosen": "6", "rejected": "7"},
            "a list of one": {"chosen": [{**ANSWER, "content": "6"}]},
            "an output": {"output": "6"},
            "what was expected": {"ideal": "6"},
            "the whole conversation again": {"chosen": [*EARLIER["messages"], {**ANSWER, "content": "6"}]},
            "its last turn again": {"chosen": [EARLIER["messages"][-1], {**ANSWER, "content": "6"}]},
        }.items()
    },
    "a preference of LLaMA-Factory": (
        [
            {
                "conversations": [{"from": "human", "value": "2 + 3?"}],
                "chosen": {"from": "gpt", "value": "5"},
                "rejected": {"from": "gpt", "value": "6"},
            }
        ],
        [SUM],
        0,
    ),
    "a preference whose system message is beside what was chosen": (
        [{"prompt": [{"role": "system", "content": "S"}, ASKED], "chosen": [ASKED, ANSWER]}],
        [(["S", "2 + 3?"], "5")],
        0,
    ),
    **{
        f"an answer with a call of a tool and its result before it, {name}": ([row], [AFTER_CALL], 0)
        for name, row in {
            "prompt and completion": {"prompt": [ASKED], "completion": WITH_CALL},
            "a text and its completion": {"prompt": "2 + 3?", "completion": WITH_CALL},
            "chosen": {"prompt": [ASKED], "chosen": WITH_CALL, "rejected": [ANSWER]},
            "a preference line": {
                "input": {"messages": [ASKED]},
                "preferred_output": WITH_CALL,
                "non_preferred_output": [ANSWER],
            },
            "a request and the messages of its response": {"request": CHAT, "response": {"messages": [ASKED, *WITH_CALL]}},
            "a graph of LangGraph": {
                "inputs": {"messages": [{"type": "human", "content": "2 + 3?"}]},
                "outputs": {
                    "messages": [
                        {"type": "human", "content": "2 + 3?", "id": "1"},
                        {"type": "ai", "content": "", "tool_calls": [CALL]},
                        {"type": "tool", "content": "5", "tool_call_id": "c1"},
                        {"type": "ai", "content": "5"},
                    ]
                },
            },
        }.items()
    },
    **{
        f"earlier turns in a column of their own, {name}": ([{**row, **BEFORE[key]}], [LONGER[1]], 0)
        for name, row, key in [
            *[(f"{key}", {"prompt": "And 1?", "response": "6"}, key) for key in BEFORE],
            ("of ms-swift", {"query": "And 1?", "response": "6"}, "pairs"),
            ("of a question", {"question": "And 1?", "answer": "6"}, "chat_history"),
            ("of an instruction", {"instruction": "And 1?", "output": "6"}, "messages"),
        ]
    },
    "earlier turns behind the system message": (
        [{"system": "S", "query": "And 1?", "response": "6", "history": [["2 + 3?", "5"]]}],
        [(["S", "2 + 3?", "5", "And 1?"], "6")],
        0,
    ),
    "columns whose names or texts only look like an image": (
        [
            {"prompt": "2 + 3?", "completion": "5", "image": "a cat on a mat", "images": [], "video": None, "audio": ""},
            {"prompt": "2 + 3?", "completion": "5", "image_url": "https://a.b/product/12.jpg", "image": {"text": "none"}},
            {"prompt": "Read <image> of the feed.", "completion": "5", "imagery": "1.png"},
        ],
        [SUM, SUM, (["Read <image> of the feed."], "5")],
        0,
    ),
    "a file in Claude's export whose text is there": (
        [
            {
                "chat_messages": [
                    {
                        "sender": "human",
                        "text": "Sum?",
                        "attachments": [{"file_name": "a.txt", "extracted_content": "2 + 3"}],
                        "files": [{"file_name": "a.txt"}],
                    },
                    {"sender": "assistant", "text": "5", "files": []},
                ]
            }
        ],
        [(["Sum?\n\n2 + 3"], "5")],
        0,
    ),
    "an earlier call of Gemini's with its result": (
        [
            {
                "request": {
                    "contents": [
                        {"role": "user", "parts": [{"text": "2 + 3?"}]},
                        {"role": "model", "parts": [{"functionCall": {"name": "add", "args": {"a": 2}}}]},
                        {"role": "user", "parts": [{"functionResponse": {"name": "add", "response": {"sum": 5}}}]},
                    ]
                },
                "response": GEMINI,
            }
        ],
        [([*AFTER_CALL[0][:2], '<tool_response>\n{"sum": 5}\n</tool_response>'], "5")],
        0,
    ),
    "an earlier turn of Converse with its reasoning": (
        [
            {
                "request": {
                    "messages": [
                        {"role": "user", "content": [{"text": "2 + 3?"}]},
                        {
                            "role": "assistant",
                            "content": [{"reasoningContent": {"reasoningText": {"text": "x"}}}, {"text": "5"}],
                        },
                        {"role": "user", "content": [{"text": "And 1?"}]},
                    ]
                },
                "response": {
                    "output": {"message": {"role": "assistant", "content": [{"text": "6"}]}},
                    "stopReason": "end_turn",
                },
            }
        ],
        [LONGER[1]],
        0,
    ),
    **{
        f"an earlier call, {name}": ([{"messages": [ASKED, call, {"role": "tool", "content": "5"}, ANSWER]}], [AFTER_CALL], 0)
        for name, call in {
            "LangChain's": {
                "type": "ai",
                "role": "assistant",
                "content": "",
                "tool_calls": [{"name": "add", "args": {"a": 2}}],
            },
            "OpenInference's": {"role": "assistant", "tool_calls": [{"tool_call": CALL}]},
            "in its content and beside it": {
                "role": "assistant",
                "content": [{"type": "tool_use", "name": "add", "input": {"a": 2}}],
                "tool_calls": [{"name": "add", "args": {"a": 2}}],
            },
            "Gemini's": {"role": "model", "parts": [{"functionCall": {"name": "add", "args": {"a": 2}}}]},
            "OpenTelemetry's": {"role": "assistant", "parts": [{"type": "tool_call", "name": "add", "arguments": {"a": 2}}]},
            "Vercel's": {"role": "assistant", "content": [{"type": "tool-call", "toolName": "add", "input": {"a": 2}}]},
        }.items()
    },
    **{
        f"an instruction and what it is about, in {key}": ([{"instruction": "Add.", key: "2 + 3?", "output": "5"}], [TASK], 0)
        for key in ("input", "question", "query", "text", "sentence", "context")
    },
    "an instruction whose text or question repeats it": (
        [
            {"instruction": "2 + 3?", "output": "5", "text": "### Instruction:\n2 + 3?\n\n### Response:\n5"},
            {"instruction": "2 + 3?", "input": "", "output": "5", "text": "Below is an instruction."},
            {"instruction": "2 + 3?", "question": "2 + 3?", "answer": "5"},
            {"instruction": "2 + 3?", "text": "5", "output": "5"},
        ],
        [SUM] * 4,
        0,
    ),
    "a prompt and what it is about, in input": ([{"prompt": "Add.", "input": "2 + 3?", "output": "5"}], [TASK], 0),
    "a prompt that holds its input, or is a template of it": (
        [
            {"prompt": "Add.\n\n2 + 3?", "input": "2 + 3?", "output": "5"},
            {"prompt": "2 + 3?", "input": "Q: 2 + 3?", "output": "5"},
            {"prompt": "2 + 3?", "input": "", "output": "5"},
        ],
        [TASK, SUM, SUM],
        0,
    ),
    "the prompt in front of a pipeline's text": (
        [
            {"prompt": "What is 2 + 3? Add.", "generated_text": "What is 2 + 3? Add. 5"},
            {"prompt": "5", "generated_text": "5 + 5"},
        ],
        [(["What is 2 + 3? Add."], " 5"), (["5"], "5 + 5")],
        0,
    ),
    "Stack Exchange, the selected answer or else the best": (
        [
            {
                "question": "2 + 3?",
                "answers": [{"text": "6", "pm_score": 9, "selected": False}, {"text": "5", "selected": True}],
            },
            {"question": "2 + 3?", "answers": [{"text": "6", "pm_score": 1}, {"text": "5", "pm_score": 2}]},
        ],
        [SUM, SUM],
        0,
    ),
}
