"""Rows of tools that trace, evaluate and annotate, and of logs of APIs, with what an import reads from them."""

import json
from typing import Any

from recorded_parts import AFTER_CALL, ANSWER, ASKED, CHAT, GEMINI, LONGER, PROMPTFOO, QA, REPLY, SUM, Cases


def span(kind: str, put: Any, got: Any, **more: Any) -> dict[str, Any]:
    facts = {"mlflow.spanType": kind, "mlflow.spanInputs": put, "mlflow.spanOutputs": got, **more}
    return {"name": "x", "parent_id": None, "attributes": {key: json.dumps(value) for key, value in facts.items()}}


def otlp(**facts: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for key, v in facts.items()
    ]


TOOLS: Cases = {
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
    "a prompt as Claude's older API had it": (
        [{"recordId": "1", "modelInput": {"prompt": "\n\nHuman: 2 + 3?\n\nAssistant:"}, "modelOutput": {"completion": "5"}}],
        [SUM],
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
    "Llama Stack's log": ([{"messages": [ASKED], "completion_message": {**ANSWER, "stop_reason": "end_of_turn"}}], [SUM], 0),
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
}
