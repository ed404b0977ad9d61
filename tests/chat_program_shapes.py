"""Chat programs' exports and collections of chats, with the prompts and answers that an import reads from them."""

from typing import Any

from recorded_parts import AFTER_CALL, ANSWER, ASKED, FIVE, LONGER, SUM, Cases


def node(name: str, parent: str | None, role: str, text: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "lang": "en", "rank": rank, **more}


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
HISTORY: dict[str, Any] = {
    "currentId": "b",
    "messages": {
        "a": {"parentId": None, "role": "user", "content": "2 + 3?"},
        "b": {"parentId": "a", "role": "assistant", "content": "5", "model": "m"},
        "c": {"parentId": "a", "role": "assistant", "content": "6", "model": "m"},
    },
}

CHAT_PROGRAMS: Cases = {
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
}
