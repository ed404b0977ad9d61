"""Rows of public data sets, with the prompts and answers that an import reads from them."""

from recorded_parts import ANSWER, ASKED, FIVE, LONGER, QA, SUM, Cases

RATED = [
    {"model": "x", "response": "6", "overall_score": 4.0, "annotations": {"helpfulness": {"Rating": "4"}}},
    {"model": "m", "response": "5", "overall_score": 8.0, "annotations": {}},
]
GLAIVE = (
    "USER: 2 + 3?\n\n\nASSISTANT: <functioncall> add <|endoftext|>\n\n\nFUNCTION RESPONSE: 5\n\n\nASSISTANT: 5 <|endoftext|>"
)

DATA_SETS: Cases = {
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
    "MS MARCO, passages of one word": (
        [{"query": "Who?", "passages": {"is_selected": [1, 0], "passage_text": ["Bob", "x"]}, "answers": ["Bob"]}],
        [(["Who?\n\nBob\n\nx"], "Bob")],
        0,
    ),
    "LIMA": ([{"conversations": ["2 + 3?", "5"], "source": "s"}, {"conversations": ["2 + 3?", "5", "And 1?"]}], [SUM, SUM], 0),
    "UltraChat": ([{"id": "0", "data": ["2 + 3?", "5", "And 1?", "6"]}], [LONGER[1]], 0),
    "ShareGPT in pairs": (
        [{"conversation": [{"human": "2 + 3?", "assistant": "5"}, {"human": "And 1?", "assistant": "6"}]}],
        [LONGER[1]],
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
    "Natural Instructions": ([{"definition": "Add.", "inputs": "2 + 3?", "targets": "5"}], [(["Add.\n\n2 + 3?"], "5")], 0),
    "OpenOrca": ([{"system_prompt": "S", "question": "2 + 3?", "response": "5"}], [(["S", "2 + 3?"], "5")], 0),
    "Firefly": ([{"kind": "Sum", "input": "2 + 3?", "target": "5"}], [SUM], 0),
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
    "BELLE": ([{"instruction": "Human:2 + 3?\nAssistant:", "input": "", "output": "5"}], [SUM], 0),
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
