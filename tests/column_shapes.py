"""Rows known by their columns, messages or template, whoever publishes them, with what an import reads from them."""

import json
from typing import Any

from recorded_parts import AFTER_CALL, ANSWER, ASKED, CALL, CHAT, LONGER, QA, REPLY, SUM, TASK, Cases

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

COLUMNS: Cases = {
    "answers of several models that nobody judged": (
        [{"prompt": "2 + 3?", "responses": [{"model": "m", "response": "5"}, {"model": "m", "response": "five"}]}],
        [SUM, (["2 + 3?"], "five")],
        0,
    ),
    "a passage beside the question": (
        [{"question": "Capital?", "passage": "Paris is the capital.", "answer": "Paris"}],
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
    "documents by their names": (
        [
            {"question": "2 + 3?", "documents": documents, "answer": "5"}
            for documents in (["doc_17", "a.pdf"], ["https://a.org/b", "Q42"], "reports/sums.pdf")
        ],
        [SUM, SUM, SUM],
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
    "several accepted answers": ([{"question": "2 + 3?", "answer": ["5", "five"]}], [SUM], 0),
    "a problem with its solution and its answer": (
        [{"problem": "2 + 3?", "solution": "So: 5", "answer": "5"}],
        [(["2 + 3?"], "So: 5")],
        0,
    ),
    "an Alpaca row with earlier turns": (
        [{"instruction": "2 + 3?", "input": "", "output": "5", "system": "S", "history": [["hi", "hello"]]}],
        [(["S", "hi", "hello", "2 + 3?"], "5")],
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
    "a text that only has such marks": (
        [{"prompt": "Continue.\nHuman: hi\nAssistant:", "completion": "5"}],
        [(["Continue.\nHuman: hi\nAssistant:"], "5")],
        0,
    ),
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
    "a label that is the answer's, or a class": (
        [
            {"prompt": "Is it 5?", "response": "No, it is 6.", "label": "no"},
            {"messages": [ASKED, ANSWER], "label": 0},
            {"question": "2 + 3?", "answer": "5", "label": 0},
        ],
        [(["Is it 5?"], "No, it is 6."), SUM, SUM],
        0,
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
}
