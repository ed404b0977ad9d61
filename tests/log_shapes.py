"""Rows of logs, in the shapes in which people have them: with model, tokens and the end of an answer."""

import base64
import json

from recorded_parts import (
    ANSWER,
    ASKED,
    CHAT,
    CHOICE,
    CHUNKS,
    CLAUDE,
    CLAUDE_EVENTS,
    CONVERSE,
    GEMINI,
    GEMINI_CHUNKS,
    GEMINI_DUMP,
    LANGFUSE,
    OLLAMA,
    OLLAMA_CHUNKS,
    OPEN_AI_EVENTS,
    PROMPTFOO,
    REPLY,
    RESPONSE,
    SSE,
    USAGE_DUMP,
    Rows,
    chunk,
    with_usage,
)

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
