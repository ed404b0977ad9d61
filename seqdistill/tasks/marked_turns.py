"""Conversations that are one text, with a mark before each turn: transcripts, chat templates, Alpaca's and NeMo's forms.

Does not know rows or files; `messages` reads what is a list of messages.
"""

import re
from collections.abc import Iterable

from seqdistill.records import Message
from seqdistill.tasks.messages import ROLES

_TURN_MARKS = (  # with a text that is in every conversation of the kind; chat templates by the models that have them
    (re.compile(r"(?:\A|\n)\s*### (Human|Assistant|System):|### (Human|Assistant):"), "### "),
    (re.compile(r"(?:\A|\n\n)(Human|Assistant|System): ?"), "Human:"),
    (re.compile(r"<\|im_start\|>(user|assistant|system|tool)(?:\n|<\|im_sep\|>)"), "<|im_start|>"),
    (re.compile(r"<\|start_header_id\|>(user|assistant|system|ipython)<\|end_header_id\|>"), "<|start_header_id|>"),
    (re.compile(r"<\|header_start\|>(user|assistant|system|ipython)<\|header_end\|>"), "<|header_start|>"),  # Llama 4
    (re.compile(r"<\|(user|assistant|system|observation)\|>\n?"), "<|user|>"),  # Phi, Zephyr, GLM
    (re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(USER|CHATBOT|SYSTEM)_TOKEN\|>"), "<|START_OF_TURN_TOKEN|>"),  # Command R
    (re.compile(r"<\|start_of_role\|>(user|assistant|system)<\|end_of_role\|>"), "<|start_of_role|>"),  # Granite
    (re.compile(r"<｜(User|Assistant)｜>"), "<｜User｜>"),  # DeepSeek
    (re.compile(r"<start_of_turn>(user|model)\n"), "<start_of_turn>"),
    (re.compile(r"<\|turn>(user|model|system)\n"), "<|turn>"),  # Gemma 4
    (re.compile(r"<\|im_(user|assistant|system)\|>\w+<\|im_middle\|>"), "<|im_middle|>"),  # Kimi
    (re.compile(r"<SPECIAL_1[01]>(System|User|Assistant)\n"), "<SPECIAL_11>"),  # Nemotron Nano
    (re.compile(r"(?:\A|\n)\s*(USER|ASSISTANT|SYSTEM|FUNCTION RESPONSE): ?"), "USER:"),
)
_NEMO = re.compile(r"(?:\A|\n)<extra_id_[01]>(System|User|Assistant)\n")
_OPEN_TURN_MARKS = (*_TURN_MARKS, (re.compile(r"(?:\A|\n)(Human|Assistant|System): ?"), "Human:"))  # a prompt, ends with a mark
_TEXT_START = re.compile(r"\A\s*(?:<s>|<bos>|<BOS_TOKEN>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|\[gMASK\]<sop>)\s*")
_TURN_END = re.compile(
    r"\s*(?:<\|(?:im_end|endoftext|eot_id|eot|end_of_text|end|END_OF_TURN_TOKEN)\|>|</s>|<end_of_turn>|<turn\|>|<SPECIAL_12>"
    r"|<｜end▁of▁sentence｜>)?\s*\Z"
)
_NO_THOUGHT = re.compile(r"<think>\s*</think>\s*|<\|channel>thought\s*<channel\|>\s*")  # what templates put before an answer
_OPEN_ANSWER = re.compile(r"(?:<think>)?")  # an answer that is to come


def marked_turns(text: str) -> list[Message]:
    """The turns of a conversation that is one text with a mark before each: `### Human:`, `Human:`, `USER:`, a chat template's.

    Empty unless the text begins with a mark and has turns of both sides.
    """
    turns = _first_turns(text, _TURN_MARKS)
    return turns if all(turn["content"] for turn in turns) else []


def prompted_turns(text: str) -> list[Message]:
    """The turns of a prompt that is one text, as a chat template or the older APIs have it, up to the mark of the answer.

    Empty for a prompt that does not end with that mark, which NeMo's form may leave out.
    """
    if _NEMO.search(text):  # the first user's mark and the answer's may be missing, as in HelpSteer2
        begun = text if text.startswith("<extra_id_") else f"<extra_id_1>User\n{text}"
        turns = _turns_of(
            begun.removesuffix("<extra_id_1>Assistant\n").rstrip("\n") + "\n<extra_id_1>Assistant\n", _NEMO, "<extra_id_1>"
        )
    else:
        turns = _first_turns(text, _OPEN_TURN_MARKS)
    is_open = bool(turns) and turns[-1]["role"] == "assistant" and _OPEN_ANSWER.fullmatch(turns[-1]["content"])
    return turns[:-1] if is_open and all(turn["content"] for turn in turns[:-1]) else []


def _first_turns(text: str, marks: Iterable[tuple[re.Pattern[str], str]]) -> list[Message]:
    text = _TEXT_START.sub("", text)
    found = (_turns_of(text, mark, sign) for mark, sign in marks)
    return next((turns for turns in (*found, _bracketed_turns(text), _instructed_turns(text)) if turns), [])


def _bracketed_turns(text: str) -> list[Message]:
    """The turns of Llama 2's and Mistral's templates: each user's in [INST] and [/INST], the system's within the first."""
    if not text.startswith("[INST]"):
        return []
    turns: list[Message] = []
    for part in re.split(r"(?:</s>)?\s*(?:<s>)?\s*\[INST\]", text)[1:]:
        prompt, closed, answer = part.partition("[/INST]")
        if not closed:
            return []
        if not turns and (system := re.match(r"\s*<<SYS>>(.*?)<</SYS>>", prompt, re.DOTALL)):
            turns.append({"role": "system", "content": system[1].strip()})
            prompt = prompt[system.end() :]
        turns.append({"role": "user", "content": prompt.strip()})
        turns.append({"role": "assistant", "content": _TURN_END.sub("", answer).strip()})
    return turns


def _instructed_turns(text: str) -> list[Message]:
    """The turns of a row of Alpaca that is one text: its instruction and input, and the response."""
    if (match := _INSTRUCTED.fullmatch(text)) is None:
        return []
    prompt = "\n\n".join(part.strip() for part in (match["a"], match["b"]) if part and part.strip())
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": _TURN_END.sub("", match["c"]).strip()}]


_INSTRUCTED = re.compile(
    r"(?:Below is an instruction[^\n]*)?\s*"
    r"### Instruction:\n(?P<a>(?:(?!\n### ).)*)(?:\n### Input:\n(?P<b>(?:(?!\n### ).)*))?"
    r"\n### Response:(?P<c>(?:(?!\n### ).)*)",
    re.DOTALL,
)


def _turns_of(text: str, mark: re.Pattern[str], sign: str) -> list[Message]:
    if sign not in text or not (first := mark.search(text)):
        return []
    system = text[: first.start()].strip()
    if system and sign != "<｜User｜>":  # only DeepSeek's system text has no mark
        return []
    marks = list(mark.finditer(text))
    ends = [*(one.start() for one in marks[1:]), len(text)]
    turns = [{"role": "system", "content": system}] if system else []
    for one, end in zip(marks, ends, strict=True):
        role = ROLES[(one[1] or one[one.lastindex or 1]).lower().replace("function response", "tool")]
        content = _TURN_END.sub("", text[one.end() : end]).strip()
        if role == "assistant" and (empty := _NO_THOUGHT.match(content)):
            content = content[empty.end() :]
        if content or role != "system":
            turns.append({"role": role, "content": content})
    return turns if {"user", "assistant"} <= {turn["role"] for turn in turns} else []
