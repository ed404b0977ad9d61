"""Rows of logs and data sets, in the shapes in which people have them."""

import base64
import json
from collections.abc import Sequence
from typing import Any

ASKED = {"role": "user", "content": "2 + 3?"}
ANSWER = {"role": "assistant", "content": "5"}
CHAT = {"model": "m", "messages": [ASKED]}
CHOICE = {"index": 0, "message": ANSWER, "finish_reason": "stop"}
REPLY = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [CHOICE]}
REPLY["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}

RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "5", "annotations": []}]},
    ],
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "5"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
OLLAMA = {"model": "m", "created_at": "t", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "5"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3},
    "modelVersion": "m",
}
CONVERSE = {"output": {"message": {"role": "assistant", "content": [{"text": "5"}]}}, "stopReason": "end_turn"}
CONVERSE["usage"] = {"inputTokens": 7, "outputTokens": 3}


def chunk(delta: dict[str, Any], reason: str | None = None, name: str = "chatcmpl-1") -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": name, "object": "chat.completion.chunk", "model": "m", "choices": choices}


def with_usage(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "choices": [{**one["choices"][0], "usage": REPLY["usage"]}]}


USAGE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": REPLY["usage"]}
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "h"}),
    chunk({"reasoning_content": "m"}),
    chunk({"content": "5"}),
    chunk({}, "stop"),
    USAGE,
]
SSE = "".join(f"data: {json.dumps(one)}\n\n" for one in CHUNKS) + "data: [DONE]\n\n"
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None, "usage": {"input_tokens": 7}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "5"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
GEMINI_DUMP = {  # as Google's package for Python prints it
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [{"text": "hm", "thought": True, "function_call": None}, {"text": "5", "inline_data": None}],
            },
            "finish_reason": "STOP",
            "citation_metadata": None,
        }
    ],
    "model_version": "m",
    "usage_metadata": {"prompt_token_count": 7, "candidates_token_count": 3, "thoughts_token_count": None},
    "prompt_feedback": None,
}
USAGE_DUMP = {**GEMINI_DUMP, "candidates": [{"content": {"parts": None, "role": None}, "finish_reason": "STOP"}]}
GEMINI_CHUNKS = [
    {**GEMINI, "candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}}]},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "5"}]}, "index": 0}]},
    {**GEMINI, "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP"}]},
]
OLLAMA_CHUNKS = [
    {"model": "m", "message": {"role": "assistant", "content": "5"}, "done": False},
    {**OLLAMA, "message": {"role": "assistant", "content": ""}},
]
LANGFUSE = {"id": "o1", "traceId": "t1", "type": "GENERATION", "name": "add", "level": "DEFAULT", "model": "m"}
PROMPTFOO = {
    "provider": {"id": "m", "label": ""},
    "prompt": {"raw": "2 + 3?", "label": "{{q}}"},
    "vars": {"q": "2 + 3?"},
    "response": {"output": "5", "tokenUsage": {"total": 10, "prompt": 7, "completion": 3}, "finishReason": "stop"},
    "testCase": {"vars": {"q": "2 + 3?"}, "assert": [{"type": "equals", "value": "5"}]},
    "success": True,
}
OPEN_AI_EVENTS = [{"type": "response.created", "response": {"status": "in_progress"}}, {"type": "response.output_text.delta"}]
OPEN_AI_EVENTS.append({"type": "response.completed", "response": RESPONSE})

Rows = dict[str, Sequence[Any]]

FULL: Rows = {  # model, tokens, finish reason and everything else: "m", 7 + 3, stop
    "a request and its response": [{"request": CHAT, "response": REPLY}],
    "with the body and status of HTTP": [{"request": {"body": CHAT}, "response": {"status_code": 200, "body": REPLY}}],
    "flat": [{**CHAT, "response": REPLY}],
    "a stored completion with its messages": [{**REPLY, "messages": [ASKED]}],
    "a stored completion and its list of messages": [REPLY, {**ASKED, "id": "chatcmpl-1-0", "name": None}],
    "a stored completion whose message is in parts": [
        REPLY,
        {"id": "chatcmpl-1-0", "role": "user", "content": None, "content_parts": [{"type": "text", "text": "2 + 3?"}]},
    ],
    "pages of stored completions, one a line": [
        {"object": "list", "data": [REPLY], "first_id": "chatcmpl-1", "has_more": False},
        {"object": "list", "data": [{**ASKED, "id": "chatcmpl-1-0", "name": None}], "has_more": False},
    ],
    "the older text completions": [
        {"request": {"prompt": "2 + 3?"}, "response": {**REPLY, "choices": [{"text": "5", "finish_reason": "stop"}]}}
    ],
    "a request before its reply": [{"id": "a", **CHAT}, REPLY],
    "LiteLLM": [
        {"id": "x", "call_type": "acompletion", "status": "success", "model": "m", "messages": [ASKED], "response": REPLY}
    ],
    "Helicone": [
        {"request_id": "x", "request_body": CHAT, "response_body": REPLY, "response_status": 200, "request_model": "m"}
    ],
    "Helicone's CSV": [{"request_id": "x", "request_body": json.dumps(CHAT), "response_body": json.dumps(REPLY)}],
    "Responses": [{"request": {"model": "m", "input": "2 + 3?"}, "response": RESPONSE}],
    "Responses with items and instructions": [
        {"request": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "2 + 3?"}]}]}, "response": RESPONSE}
    ],
    "Responses with their input": [{**RESPONSE, "input": [{"type": "message", **ASKED}]}],
    "a Responses batch": [
        {"custom_id": 7, "method": "POST", "url": "/v1/responses", "body": {"model": "m", "input": "2 + 3?"}},
        {"id": "b", "custom_id": "7", "response": {"status_code": 200, "body": RESPONSE}, "error": None},
    ],
    "a chat batch": [
        {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
        {"id": "b", "custom_id": "r", "response": {"status_code": 200, "request_id": "q", "body": REPLY}, "error": None},
    ],
    "Anthropic": [{"request": {**CHAT, "max_tokens": 9}, "response": CLAUDE}],
    "Anthropic, flat": [{**CLAUDE, "messages": [ASKED]}],
    "an Anthropic batch": [
        {"custom_id": "r", "params": {**CHAT, "max_tokens": 9}},
        {"custom_id": "r", "result": {"type": "succeeded", "message": CLAUDE}},
    ],
    "Ollama chat": [{"request": {**CHAT, "stream": False}, "response": {**OLLAMA, "message": ANSWER}}],
    "Ollama chat, flat": [{**CHAT, **OLLAMA, "message": {**ANSWER, "thinking": "hm"}}],
    "Ollama generate": [{"request": {"model": "m", "prompt": "2 + 3?"}, "response": {**OLLAMA, "response": "5"}}],
    "Ollama generate, flat": [{**OLLAMA, "prompt": "2 + 3?", "response": "5", "context": [1, 2]}],
    "Ollama's chunks": [
        {
            "request": CHAT,
            "response": OLLAMA_CHUNKS,
        }
    ],
    "Ollama's chunks as text": [{"request": CHAT, "response": "".join(json.dumps(one) + "\n" for one in OLLAMA_CHUNKS)}],
    "Ollama's reply as text": [{"request": CHAT, "response": json.dumps({**OLLAMA, "message": ANSWER})}],
    "Ollama's chunks as text, flat": [{**CHAT, "response": "\n".join(json.dumps(one) for one in OLLAMA_CHUNKS)}],
    "Gemini's chunks": [{"request": {"contents": "2 + 3?"}, "response": GEMINI_CHUNKS}],
    "Gemini's chunks as text": [{"request": {"contents": "2 + 3?"}, "response": json.dumps(GEMINI_CHUNKS, indent=1)}],
    "Gemini's event stream": [
        {
            "request": {"contents": "2 + 3?"},
            "response": "".join(f"data: {json.dumps(one)}\r\n\r\n" for one in GEMINI_CHUNKS),
        }
    ],
    "an event stream that begins with a comment": [{"request": CHAT, "response": f": PROCESSING\n\n{SSE}"}],
    "an event stream, flat": [{**CHAT, "response": SSE}],
    "Anthropic's event stream as text": [
        {"request": CHAT, "response": "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in CLAUDE_EVENTS)}
    ],
    "Gemini as its package for Python prints it": [{"request": {"contents": "2 + 3?"}, "response": GEMINI_DUMP}],
    "Gemini's chunks as its package for Python prints them": [
        {
            "request": {"contents": "2 + 3?"},
            "response": [{**GEMINI_DUMP, "candidates": [{**GEMINI_DUMP["candidates"][0], "finish_reason": None}]}, USAGE_DUMP],
        }
    ],
    "Gemini": [{"request": {"contents": [{"parts": [{"text": "2 + 3?"}]}]}, "response": GEMINI}],
    "a Gemini batch": [
        {"key": "r", "request": {"contents": [{"role": "user", "parts": [{"text": "2 + 3?"}]}]}},
        {"key": "r", "response": GEMINI},
    ],
    "Bedrock Converse": [
        {"model": "m", "request": {"messages": [{"role": "user", "content": [{"text": "2 + 3?"}]}]}, "response": CONVERSE}
    ],
    "Bedrock Converse with cache points and an earlier turn's reasoning": [
        {
            "model": "m",
            "request": {
                "system": [{"cachePoint": {"type": "default"}}],
                "messages": [{"role": "user", "content": [{"text": "2 + 3?"}, {"cachePoint": {"type": "default"}}]}],
            },
            "response": CONVERSE,
        }
    ],
    "an HTTP archive whose response is in base64": [
        {
            "log": {
                "entries": [
                    {
                        "request": {"method": "POST", "postData": {"text": json.dumps(CHAT)}},
                        "response": {
                            "status": 200,
                            "content": {"encoding": "base64", "text": base64.b64encode(json.dumps(REPLY).encode()).decode()},
                        },
                    }
                ]
            }
        }
    ],
    "a Bedrock batch": [{"recordId": "r", "modelInput": {**CHAT, "anthropic_version": "x"}, "modelOutput": CLAUDE}],
    "Responses as text": [{"request": {"model": "m", "input": "2 + 3?"}, "response": json.dumps(RESPONSE)}],
    "Anthropic's own tools": [
        {
            "request": CHAT,
            "response": {
                **CLAUDE,
                "content": [
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                    {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
                    {"type": "bash_code_execution_tool_result", "content": {"type": "bash_code_execution_result"}},
                    {"type": "text", "text": "5", "citations": []},
                ],
            },
        }
    ],
    "Bedrock Converse with reasoning": [
        {
            "model": "m",
            "request": CHAT,
            "response": {
                **CONVERSE,
                "output": {
                    "message": {
                        "role": "assistant",
                        "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "5"}],
                    }
                },
            },
        }
    ],
    "a part whose text has annotations": [
        {
            "request": CHAT,
            "response": {
                **REPLY,
                "choices": [{**CHOICE, "message": {"content": [{"type": "text", "text": {"value": "5", "annotations": []}}]}}],
            },
        }
    ],
    "chunks in a response": [{"request": {**CHAT, "stream": True}, "response": CHUNKS}],
    "an event stream in a response": [{"request": {**CHAT, "stream": True}, "response": SSE}],
    "chunks with the usage in a choice": [
        {"request": CHAT, "response": [*CHUNKS[:-2], with_usage(chunk({}, "stop"))]},
    ],
    "a message that is a text": [{"request": CHAT, "response": {**REPLY, "choices": [{**CHOICE, "message": "5"}]}}],
    "JSON that the server parsed": [
        {"request": CHAT, "response": {**REPLY, "choices": [{**CHOICE, "message": {"content": 5}}]}}
    ],
    "a prompt's tokens in a cache": [
        {
            "request": CHAT,
            "response": {**CLAUDE, "usage": {"input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 3}},
        }
    ],
    "chunks behind their request": [{**CHAT, "stream": True}, *CHUNKS],
    "an event stream behind its request": [json.dumps(CHAT), *SSE.splitlines()],
    "a chunk a line with its request": [{"request": CHAT, "response": one} for one in CHUNKS],
    "Anthropic's events": [{"request": CHAT, "response": CLAUDE_EVENTS}],
    "Anthropic's event stream": [
        json.dumps(CHAT),
        *(f"event: {one['type']}\ndata: {json.dumps(one)}\n" for one in CLAUDE_EVENTS),
    ],
    "events of Responses": [{"request": {"input": "2 + 3?"}, "response": OPEN_AI_EVENTS}],
    "Langfuse": [
        {**LANGFUSE, "input": [ASKED], "output": {**ANSWER, "finish_reason": "stop"}, "usage": {"input": 7, "output": 3}}
    ],
    "Langfuse with whole requests": [{**LANGFUSE, "input": CHAT, "output": REPLY}],
    "Langfuse's CSV": [{**LANGFUSE, "input": json.dumps(CHAT), "output": json.dumps(REPLY)}],
    "Promptfoo": [PROMPTFOO],
    "Promptfoo with messages": [{**PROMPTFOO, "prompt": {"raw": json.dumps([ASKED]), "label": "x"}}],
    "an item of an OpenAI eval": [
        {
            "object": "eval.run.output_item",
            "status": "pass",
            "datasource_item": {"input": "2 + 3?", "ground_truth": "5"},
            "results": [{"name": "grader", "passed": True, "score": 1.0}],
            "sample": {"input": [ASKED], "output": [ANSWER], "finish_reason": "stop", "model": "m", "usage": REPLY["usage"]},
        }
    ],
    "LangSmith": [
        {"run_type": "llm", "inputs": CHAT, "outputs": REPLY},
        {"run_type": "tool", "inputs": {"q": "x"}, "outputs": {"output": "y"}},
    ],
    "LangSmith with LangChain's messages": [
        {
            "run_type": "llm",
            "inputs": {"messages": [[{"lc": 1, "id": ["langchain", "HumanMessage"], "kwargs": {"content": "2 + 3?"}}]]},
            "outputs": {
                "generations": [[{"text": "5", "generation_info": {"finish_reason": "stop"}}]],
                "llm_output": {"token_usage": REPLY["usage"], "model_name": "m"},
            },
        }
    ],
    "LangChain's messages with what is known beside them": [
        {
            "messages": [
                {"type": "human", "content": "2 + 3?"},
                {
                    "type": "ai",
                    "content": "5",
                    "response_metadata": {"finish_reason": "stop", "model_name": "m", "token_usage": REPLY["usage"]},
                    "usage_metadata": {"input_tokens": 7, "output_tokens": 3},
                },
            ]
        }
    ],
    "LangSmith, whose facts are in the message": [
        {
            "run_type": "llm",
            "inputs": {"messages": [[{"lc": 1, "id": ["langchain", "HumanMessage"], "kwargs": {"content": "2 + 3?"}}]]},
            "outputs": {
                "generations": [
                    [
                        {
                            "text": "5",
                            "generation_info": None,
                            "message": {
                                "lc": 1,
                                "id": ["langchain", "AIMessage"],
                                "kwargs": {
                                    "content": "5",
                                    "response_metadata": {
                                        "finish_reason": "stop",
                                        "model_name": "m",
                                        "token_usage": REPLY["usage"],
                                    },
                                },
                            },
                        }
                    ]
                ],
                "llm_output": None,
            },
        }
    ],
    "MLflow": [
        {
            "data": {
                "spans": [
                    {
                        "attributes": {
                            "mlflow.spanType": '"CHAT_MODEL"',
                            "mlflow.spanInputs": json.dumps(CHAT),
                            "mlflow.spanOutputs": json.dumps(REPLY),
                        }
                    }
                ]
            }
        }
    ],
    "a message with its own model, tokens and end": [
        {"messages": [ASKED, {**ANSWER, "stop_reason": "end_turn", "model": "m", "usage": RESPONSE["usage"]}]}
    ],
    "Cohere's first chat API": [
        {
            "request": {"message": "2 + 3?", "model": "m"},
            "response": {"text": "5", "finish_reason": "COMPLETE", "meta": {"tokens": {"input_tokens": 7, "output_tokens": 3}}},
        }
    ],
    "Titan on Bedrock": [
        {
            "recordId": "r",
            "model": "m",
            "modelInput": {"inputText": "2 + 3?"},
            "modelOutput": {
                "inputTextTokenCount": 7,
                "results": [{"tokenCount": 3, "outputText": "5", "completionReason": "FINISH"}],
            },
        }
    ],
    "OpenInference as a table": [
        {"attributes.openinference.span.kind": "TOOL", "attributes.input.value": "x"},
        {
            "attributes.openinference.span.kind": "LLM",
            "attributes.llm.model_name": "m",
            "attributes.llm.input_messages": [{"message.role": "user", "message.content": "2 + 3?"}],
            "attributes.llm.output_messages": [
                {"message.role": "assistant", "message.content": "5", "message.finish_reason": "stop"}
            ],
            "attributes.llm.token_count.prompt": 7,
            "attributes.llm.token_count.completion": 3,
        },
    ],
    "OpenTelemetry's GenAI conventions": [
        {
            "attributes": {
                "gen_ai.response.model": "m",
                "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "2 + 3?"}]}]),
                "gen_ai.output.messages": json.dumps(
                    [{"role": "assistant", "parts": [{"type": "text", "content": "5"}], "finish_reason": "stop"}]
                ),
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 3,
            }
        }
    ],
    "OpenLLMetry, one attribute a field": [
        {
            "attributes": {
                "gen_ai.request.model": "m",
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "2 + 3?",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "5",
                "gen_ai.completion.0.finish_reason": "stop",
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 3,
            }
        }
    ],
    "Braintrust": [
        {"span_id": "s", "input": [ASKED], "output": [CHOICE], "metadata": {"model": "m"}, "metrics": REPLY["usage"]}
    ],
    "Bedrock's invocation log": [
        {"schemaType": "ModelInvocationLog", "input": {"inputBodyJson": CHAT}, "output": {"outputBodyJson": CLAUDE}}
    ],
    "llama.cpp's own API": [
        {
            "request": {"prompt": "2 + 3?"},
            "response": {
                "content": "5",
                "stop": True,
                "stop_type": "eos",
                "model": "m",
                "tokens_evaluated": 7,
                "tokens_predicted": 3,
                "generation_settings": {},
                "prompt": "2 + 3?",
                "truncated": False,
                "timings": {},
                "has_new_line": False,
            },
        }
    ],
    "watsonx": [
        {
            "request": {"input": "2 + 3?"},
            "response": {
                "model_id": "m",
                "results": [
                    {
                        "generated_text": "5",
                        "generated_token_count": 3,
                        "input_token_count": 7,
                        "stop_reason": "eos_token",
                    }
                ],
            },
        }
    ],
    "Llama on Bedrock": [
        {
            "recordId": "r",
            "model": "m",
            "modelInput": {"prompt": "2 + 3?"},
            "modelOutput": {"generation": "5", "prompt_token_count": 7, "generation_token_count": 3, "stop_reason": "stop"},
        }
    ],
    "Cohere": [
        {
            "request": CHAT,
            "response": {
                "finish_reason": "COMPLETE",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "5"}]},
                "usage": {"tokens": {"input_tokens": 7, "output_tokens": 3}},
            },
        }
    ],
    "a Gemini batch with its key among the metadata": [
        {"request": {"contents": [{"parts": [{"text": "2 + 3?"}]}]}, "metadata": {"key": "k"}},
        {"response": GEMINI, "metadata": {"key": "k"}},
    ],
    "an inspect log": [
        {
            "id": 1,
            "input": "2 + 3?",
            "target": "5",
            "messages": [ASKED, ANSWER],
            "output": {"model": "m", "choices": [{"message": ANSWER, "stop_reason": "stop"}], "usage": RESPONSE["usage"]},
        }
    ],
    "PromptLayer": [{"request_id": 1, "function_kwargs": CHAT, "request_response": REPLY}],
    "a row within another": [{"properties": {"requestBody": json.dumps(CHAT), "responseBody": json.dumps(REPLY)}}],
    "our own samples": [
        {
            "id": "x:m:0",
            "prompt_id": "x",
            "sample": 0,
            "teacher": "m",
            "prompt": [ASKED],
            "completion": [ANSWER],
            "reasoning": None,
        }
        | {
            "finish_reason": "stop",
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "reference": None,
            "slice": None,
            "tool_calls": None,
        }
    ],
}

PLAIN: Rows = {  # no more than prompt and answer
    "prompt and completion": [{"prompt": "2 + 3?", "completion": "5"}],
    "prompt and completion as messages": [{"prompt": [ASKED], "completion": [ANSWER]}],
    "prompt and response": [{"prompt": "2 + 3?", "response": "5"}],
    "instruction and response": [{"instruction": "2 + 3?", "response": "5"}],
    "question and answer": [{"question": "2 + 3?", "answer": "5"}],
    "input and output": [{"input": "2 + 3?", "output": "5"}],
    "messages": [{"messages": [ASKED, ANSWER]}],
    "messages as text": [{"messages": json.dumps([ASKED, ANSWER])}],
    "messages as Python prints them": [{"messages": str([ASKED, ANSWER])}],
    "messages that end with another question": [{"messages": [ASKED, ANSWER, ASKED]}],
    "a request and the text of its response": [{"request": CHAT, "response": "5"}],
    "messages and the text of their response": [{"messages": [ASKED], "response": "5"}],
    "ShareGPT": [{"id": "s1", "conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}],
    "ShareGPT with roles": [{"conversations": [ASKED, ANSWER]}],
    "Alpaca": [{"instruction": "2 + 3?", "input": "", "output": "5", "text": "Below is ..."}],
    "Dolly": [{"instruction": "2 + 3?", "context": "", "response": "5", "category": "open_qa"}],
    "a fine-tuning line": [{"messages": [ASKED, {**ANSWER, "weight": 1}], "tools": []}],
    "a fine-tuning line of Vertex": [
        {"contents": [{"role": "user", "parts": [{"text": "2 + 3?"}]}, {"role": "model", "parts": [{"text": "5"}]}]}
    ],
    "a fine-tuning line of Bedrock": [
        {"messages": [{"role": "user", "content": [{"text": "2 + 3?"}]}, {"role": "assistant", "content": [{"text": "5"}]}]}
    ],
    "a fine-tuning line of Cohere": [
        {"messages": [{"role": "User", "content": "2 + 3?"}, {"role": "Chatbot", "content": "5"}]},
    ],
    "a preference line": [
        {"input": {"messages": [ASKED]}, "preferred_output": [ANSWER], "non_preferred_output": [{**ANSWER, "content": "6"}]}
    ],
    "preference data": [{"prompt": "2 + 3?", "chosen": [ASKED, ANSWER], "rejected": [ASKED, {**ANSWER, "content": "6"}]}],
    "a Langfuse trace": [{"id": "t", "traceId": "t", "name": "add", "input": "2 + 3?", "output": "5"}],
    "a preference with its conversation": [{"chosen": [ASKED, ANSWER], "rejected": [ASKED, {**ANSWER, "content": "6"}]}],
    "LLaMA-Factory": [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "2 + 3?"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "5"}], "loss_weight": 1.0},
            ]
        }
    ],
    "TGI": [
        {"inputs": "2 + 3?", "generated_text": "5"},
    ],
    "a pipeline's conversation": [{"messages": [ASKED], "output": [{"generated_text": [ASKED, ANSWER]}]}],
    "what was requested with echo": [
        {"request": {"prompt": "2 + 3?", "echo": True}, "response": {"choices": [{"text": "2 + 3?5", "index": 0}]}}
    ],
    "TGI's full text": [
        {"request": {"inputs": "2 + 3?", "parameters": {"return_full_text": True}}, "response": [{"generated_text": "2 + 3?5"}]}
    ],
    "an event of openai/evals": [
        {"spec": {"eval_name": "sums"}},
        {"run_id": "r", "event_id": 0, "type": "sampling", "data": {"prompt": [ASKED], "sampled": ["5"]}},
        {"run_id": "r", "event_id": 1, "type": "match", "data": {"correct": True, "sampled": "5"}},
        {"final_report": {"accuracy": 1.0}},
    ],
    "an example of LangSmith": [{"inputs": {"question": "2 + 3?"}, "outputs": {"answer": "5"}}],
    "LangChain's messages": [{"messages": [{"type": "human", "content": "2 + 3?"}, {"type": "ai", "content": "5"}]}],
    "LangChain's messages in objects": [
        {"messages": [{"type": "human", "data": {"content": "2 + 3?"}}, {"type": "ai", "data": {"content": "5"}}]}
    ],
    "lm-eval's samples": [
        {"doc_id": 0, "target": "5", "arguments": {"gen_args_0": {"arg_0": "2 + 3?", "arg_1": {}}}, "resps": [["5"]]}
    ],
    "TensorZero": [{"input": {"messages": [ASKED]}, "output": [{"type": "text", "text": "5"}]}],
    "Label Studio": [
        {
            "id": 1,
            "data": {"prompt": "2 + 3?"},
            "annotations": [{"result": [{"type": "textarea", "from_name": "r", "value": {"text": ["5"]}}]}],
        }
    ],
    "Argilla": [{"prompt": "2 + 3?", "response": [{"user_id": "u", "value": "5", "status": "submitted"}]}],
    "Open WebUI": [{"id": "x", "title": "t", "chat": {"messages": [ASKED, ANSWER]}}],
    "Claude's export": [
        {"name": "n", "chat_messages": [{"sender": "human", "text": "2 + 3?"}, {"sender": "assistant", "text": "5"}]}
    ],
    "ChatGPT's export": [
        {
            "title": "t",
            "current_node": "b",
            "mapping": {
                "r": {"message": None, "parent": None},
                "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["2 + 3?"]}}, "parent": "r"},
                "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["5"]}}, "parent": "a"},
                "c": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["6"]}}, "parent": "a"},
            },
        }
    ],
    "HH-RLHF": [{"chosen": "\n\nHuman: 2 + 3?\n\nAssistant: 5", "rejected": "\n\nHuman: 2 + 3?\n\nAssistant: 6"}],
    "Guanaco": [{"text": "### Human: 2 + 3?### Assistant: 5"}],
    "Glaive": [{"chat": "USER: 2 + 3?\n\n\nASSISTANT: 5 <|endoftext|>"}],
    "ChatML as one text": [{"text": "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n5<|im_end|>"}],
    "pairs of input and output": [{"source": "s", "conversation": [{"input": "2 + 3?", "output": "5"}]}],
    "distilabel": [{"instruction": "2 + 3?", "generations": ["5"]}],
    "Code Alpaca, whose prompt holds the answer": [
        {"instruction": "2 + 3?", "input": "", "output": "5", "prompt": "### Instruction:\n2 + 3?\n\n### Output:\n5"}
    ],
    "problem and solution": [{"problem": "2 + 3?", "solution": "5", "level": "1"}],
    "FLAN": [{"inputs": "2 + 3?", "targets": "5"}],
    "a number as the answer": [{"question": "2 + 3?", "answer": 5}],
    "an answer alone in a list": [{"prompt": "2 + 3?", "completion": ["5"]}],
    "KTO, whose bad answers are not learnt": [
        {"prompt": [ASKED], "completion": [ANSWER], "label": True},
        {"prompt": [ASKED], "completion": [{**ANSWER, "content": "6"}], "label": False},
    ],
    "upper case": [{"Prompt": "2 + 3?", " Completion": "5"}],
}
