"""Rows that hold no more than a prompt and its answer, in the shapes in which people have them."""

import json

from recorded_parts import ANSWER, ASKED, CHAT, Rows

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
