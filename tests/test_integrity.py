"""Broken markup: what is a fault of one completion's text and what only looks like one. A line a case."""

import time

import pytest

from seqdistill.metrics.behaviour import repetition
from seqdistill.stages.filter.checks.integrity import broken_markup
from seqdistill.stages.filter.checks.languages import may_change_script
from seqdistill.stages.filter.checks.self_naming import self_naming
from seqdistill.stages.filter.checks.words import is_alone, spelled, words

FENCE = "```"
ANSWERS = [  # text, prompt
    ("Use `${{ secrets.TOKEN }}` here.", ""),
    ("run: echo ${{ secrets.TOKEN }} > file", ""),
    ("Dear {{ name }},\n\nthank you for your letter.", "Write a letter."),
    ("Write `{% if user %}` in the template.", ""),
    ("<p>It costs <s>20</s> 15 euros.</p>", ""),
    (f"{FENCE}html\n<s>old\n{FENCE}", ""),
    ("BERT puts a [CLS] token before and a [SEP] token after each sentence.", "What is [CLS]?"),
    ("BERT puts [CLS] before a sentence and [SEP] after it, then pads.", "Explain BERT."),
    ("Llama 2 wraps it in `[INST]` and `[/INST]`.", "How does Llama 2 mark turns?"),
    (f"{FENCE}\n<|im_start|>user\nHi<|im_end|>\n{FENCE}", "Show the ChatML format."),
    ("The mark is <|im_end|>.", "What does <|im_end|> mean?"),
    ("<answer>Umbrella</answer>", "Put the answer between <answer> and </answer>."),
    ("<reasoning>It rains.</reasoning><answer>Umbrella</answer>", "Answer with <reasoning> and <answer> tags."),
    ("U+FFFD is \ufffd.", "Which character is \ufffd?"),
    ("<analysis>It rains.</analysis> Umbrella", "Write your analysis between <analysis> tags, then the answer."),
    (f"{FENCE}python\nprint(1)\n{FENCE}\nand\n{FENCE}\n2\n{FENCE}", ""),
    (f"- {FENCE}bash\n  npm install\n  {FENCE}\n- Done.", ""),
    (f"1. {FENCE}bash\n   npm install\n   {FENCE}\n2. Run it.", ""),
    (f"Here is the code:{FENCE}python\nprint(1)\n{FENCE}", ""),
    (f"**Answer:** {FENCE}sql\nSELECT 1;\n{FENCE}\nIt selects one.", ""),
    (f"> {FENCE}\n> x\n> {FENCE}\n", ""),
    (f"Answer: {FENCE}python\nx = 1\n{FENCE}\nThen:\n{FENCE}\n2\n{FENCE}", ""),
    (f"Use {FENCE}code{FENCE} in one line.", ""),
    ("- ~~~\n  x\n  ~~~", ""),
    ("Usage\n~~~~~\n\nCall `main()`.", "Write the page in reStructuredText."),
    ("Usage\n\n~~~~\nx\n~~~~", ""),
    ("Usage:\n~~~~~~~~\nmain(1, 2)\n~~~~~~~~\nThen call it.", ""),
    (f"Like this:{FENCE}html\n<s>old\n{FENCE}", ""),
    (
        f"## POST /users\n\n### Request:\n\n{FENCE}json\n{{}}\n{FENCE}\n\n### Response:\n\n{FENCE}json\n{{}}\n{FENCE}",
        "Document it.",
    ),
    ("Assistant: Good morning, how may I help you?\nCustomer: I need a refund.", "Write a dialogue in a shop."),
    ("The <s> element draws a line through text.", "Which HTML element draws a line through text?"),
    ("<s>", "Which HTML tag strikes text through?"),
    ("用户：椅子呢？\n助手：它有腿。", "写一段对话。"),
    ("She is the manager's assistant", ""),
    ("He works as an assistant\n\nin a shop.", ""),
    ("The roles:\nuser\nadmin\nassistant\nowner", ""),
    ("The array is [|a|, |b|], the norm [|x|].", ""),
    (f"````markdown\n{FENCE}python\nprint(1)\n{FENCE}\n````", ""),
    (f"{FENCE}markdown\n# Title\n{FENCE}bash\npip install x\n{FENCE}\n{FENCE}", ""),
    ("Use ```` ``` ```` to begin a block.", ""),
    ("### Human: rights\nare for all".replace("Human:", "Human"), ""),
    ("Vector a[i] < b[i] and <s, t> are pairs", ""),
    ("{{ user.name }}", "Which variable holds the name in Handlebars?"),
    ("<|im_start|>user\nHi<|im_end|>", "Show me a ChatML prompt."),
    ("It is <|endoftext|>, token 50256.", "What is the end token of GPT-2?"),
    ("### Instruction:\nDo it.\n\n### Response:\nDone.", "What is the Alpaca prompt format?"),
    ("The character \ufffd (U+FFFD) stands for bytes that could not be decoded.", ""),
    ("UTF-8 é read as Latin-1 looks like Ã©.", ""),
    ("CafÃ© becomes Café, MÃ¼nchen becomes München.", "Correct the encoding: CafÃ© MÃ¼nchen"),
    ("« L’ÉTÉ », « CAFÉ », « NOËL » : ÑANDÚ, MAÑANA, NÃO, São Tomé.", ""),
    ("Ġimgħa tajba, ħabib.", "Translate to Maltese."),
    ("User: How are you?\nAssistant: Fine.", "Write a dialogue."),
    ("User: the person who signs in.\nAdmin: the person who grants it.", ""),
    ('{"error": "none", "rows": 3}', ""),
    ("Error: the third argument must be a number.", "What does it print?"),
    ("[Your name] goes at the bottom of the letter.", ""),
    ("{x}", "Which set has only x?"),
    ("In Elm, f <| g x |> h is an error.", ""),
    ("502 Bad Gateway means that a server in between received no valid response.", ""),
    ("502 Bad Gateway means that a server in between received no valid response.", "What does HTTP status 502 mean?"),
    ("429 Too Many Requests", "Which HTTP code means too many requests?"),
    ("503 Service Unavailable", "Which code does a server send that is overloaded?"),
    ("RateLimitError is raised; catch it and back off.", "What does the client raise on too many requests?"),
    ("openai.RateLimitError is raised; catch it and back off.", "What does the client raise on too many requests?"),
    ("RateLimitError: too many requests were sent.", "What does the OpenAI SDK raise on status 429?"),
    ("La letra “Ñ” nació en la Edad Media. La “Ñ” es la abreviatura de una doble n.", "¿De dónde viene la letra eñe?"),
    ("«\u00a0L’ÉTÉ\u00a0», «\u00a0CAFÉ\u00a0»\u00a0: «\u00a0le café\u00a0», «\u00a0voilà\u00a0», «\u00a0après…\u00a0»", ""),
    ("Er sagte: „Das macht Spaß“, und sie: „Wie groß!“ – „Nur Spaß…“ ‚Spaß‘", ""),
    ("The surface is 60 Å² and 140 Å², the volume 250 Å³; 2×½ and 4×¼ of it.", ""),
    ("«Più», «perché», «città» – così è… «No, è», disse: «Però».", ""),
    ("L’été\u00a0… «\u00a0Où\u00a0?\u00a0» «\u00a0À\u00a0», É\u00a0! Noël\u00a0– Noël\u00a0—", ""),
    ("Die Buchstaben „Ã“ und „Ñ“ gibt es im Deutschen nicht, „Ð“ auch nicht.", "Welche Buchstaben fehlen?"),
]


MISREAD = {
    "Polish": "Właśnie się zdarzyło, że książka była żółta i leżała na stole.",
    "Turkish": "Değil, yapılan işler şöyle: kış ayında başladı.",
    "Czech": "Ještě jsem neviděl žádného člověka, který by to řekl.",
    "Greek": "Η βιβλιοθήκη είναι κλειστή τη Δευτέρα.",
    "Hebrew": "הספרייה סגורה ביום שני.",
    "Arabic": "المكتبة مغلقة يوم الاثنين.",
    "Korean": "도서관은 월요일에 문을 닫습니다.",
    "Bengali": "গ্রন্থাগার সোমবার বন্ধ।",
    "Tamil": "நூலகம் திங்கட்கிழமை மூடப்பட்டுள்ளது.",
    "Thai": "ห้องสมุดปิดวันจันทร์",
    "Hindi": "पुस्तकालय सोमवार को बंद है।",
    "Russian": "Библиотека закрыта в понедельник.",
    "Vietnamese": "Thư viện đóng cửa vào thứ hai.",
    "Hungarian": "A könyvtár hétfőn zárva, őszintén.",
    "Romanian": "Biblioteca este închisă și țara.",
    "pounds and degrees": "It costs £20, or £30 at weekends; the water is at 20 °C to 25 °C.",
    "spaces": "Open\u00a0daily from 9\u00a0to 5, all\u00a0year.",
    "emoji": "Great job! 😀🎉 See you there 👍",
    "arrows": "A → B → C",
    "Chinese": "图书馆星期一关门。",
    "Japanese": "図書館は月曜日に閉まります。",
    "German": "Die Tür ist für Gäste geöffnet.",
    "French": "« L’été, » dit-elle, « c’est fini… »",
    "Portuguese": "A estação está fechada até à manhã.",
}


def misread(text: str, encoding: str) -> str:
    """A text in UTF-8 as read in this encoding; bytes that it has no character for are control characters."""
    return "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("language", MISREAD)
def test_text_that_was_read_in_another_encoding_is_named_in_every_language(language: str, encoding: str) -> None:
    text = misread(MISREAD[language], encoding)
    assert "in another encoding" in (broken_markup(text, "Describe it.") or "")
    assert broken_markup(text, text) is None, "the prompt has such too"
    assert broken_markup(MISREAD[language], "Describe it.") is None


@pytest.mark.parametrize(("text", "prompt"), ANSWERS)
def test_markup_that_is_the_answer_is_no_fault(text: str, prompt: str) -> None:
    assert broken_markup(text, prompt) is None


FAULTS = [  # text, what is named
    ("A table is flat.<|im_end|>\n<|im_start|>user", "<|im_end|>"),
    ("A table is flat.</s>", "</s>"),
    ("<s> A table is flat.", "<s>"),
    ("[INST] What? [/INST] A table.", "[INST]"),
    ("A table is flat. [PAD]", "[PAD]"),
    ("<pad><pad>A table", "<pad>"),
    ("A table.\n### Instruction:\nDescribe a chair.", "### Instruction:"),
    ("<think>Hm. A table is flat.", "1 reasoning tags are opened and 0 closed"),
    ("Hm.</think>A table is flat.", "0 reasoning tags are opened and 1 closed"),
    ("<answer>\nA table is flat.\n</answer>", "reasoning is left in the answer: '<answer>'"),
    ("<thought>What is flat?</thought>A table is flat.", "reasoning is left in the answer: '<thought>'"),
    ("<Reasoning>\nWhat?\n</Reasoning>\nA table.", "reasoning is left in the answer: '<Reasoning>'"),
    ("<thinking>What?</thinking> A table.", "reasoning is left in the answer"),
    ("<analysis>What is flat?</analysis>A table is flat.", "reasoning is left in the answer: '<analysis>'"),
    ("A table is flat.</analysis>", "0 reasoning tags are opened and 1 closed"),
    ("<scratchpad>flat: table</scratchpad>\nA table.", "reasoning is left in the answer: '<scratchpad>'"),
    ("<inner_monologue>Hm.</inner_monologue> A table.", "reasoning is left in the answer: '<inner_monologue>'"),
    (f"Do this:\n{FENCE}python\nprint(1)", "a code fence is not closed"),
    ("{{ answer }}", "a template variable was not filled"),
    ("half \ud83d of it", "a broken character is in the text: '\\ud83d'"),
    ("Gr\ufffd\ufffde aus Bonn", "a broken character is in the text: '\ufffd'"),
    ("A\x00 table", "a broken character is in the text: '\\x00'"),
    ("CafÃ© MÃ¼nchen ist schÃ¶n.", "UTF-8 that was read in another encoding"),
    ("Itâ€™s flat, isnâ€™t it?", "UTF-8 that was read in another encoding"),
    ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "UTF-8 that was read in another encoding"),
    ("ä½\u00a0å¥½", "UTF-8 that was read in another encoding"),
    ("caf<0xC3><0xA9>", "<0xC3>"),
    ("Ġthe Ġcat Ġsat Ċ", "a tokenizer's pieces are not joined"),
    ("▁the ▁cat ▁sat", "a tokenizer's pieces are not joined"),
    ("◁think▷hm◁/think▷A table", "◁think▷"),
    ("Assistant: A table is flat.", "Assistant:"),
    ("A table.\n\nUser: And a chair?\nAssistant: It has legs.", "further turns follow the answer"),
    ("It is flat. USER: And a chair? ASSISTANT: It has legs.", "further turns follow the answer"),
    ("It is flat.\nUSER: And a chair?\nASSISTANT: It has legs.", "further turns follow the answer"),
    ("It is flat.assistant\n\nA table, on four legs.", "further turns follow the answer"),
    ("It is flat.assistant", "further turns follow the answer"),
    ("It is flat.\nuser\nAnd a chair?\nassistant\nIt has legs.", "further turns follow the answer"),
    ("It is flat.\nuser\nAnd a chair?\nmodel\nIt has legs.", "further turns follow the answer"),
    ("桌子是平的。\n\n用户：椅子呢？\n助手：它有腿。", "further turns follow the answer"),
    ("It is flat.[|endofturn|]", "[|endofturn|]"),
    ("It is flat.<extra_id_1>User", "<extra_id_1>"),
    ("[gMASK]<sop>It is flat.", "[gMASK]"),
    ("It is flat.<eod>", "<eod>"),
    ("It is flat.<reserved_106>", "<reserved_106>"),
    ("### Response:\nIt is flat.", "### Response:"),
    ("It is flat.\n\n### Response:\nYes.\n\n### Instruction:\nDescribe a chair.", "### Instruction:"),
    (f"Do this:{FENCE}python\nprint(1)", "a code fence is not closed"),
    (f"- {FENCE}bash\n  npm install", "a code fence is not closed"),
    ("[object Object]", "a template variable was not filled"),
    ("{completion}", "a template variable was not filled"),
    ("[Insert description here]", "a template variable was not filled"),
    ("Error code: 429 - {'error': {'message': 'Rate limit reached'}}", "an API's error is in the place of an answer"),
    ('{"error": {"message": "Rate limit reached"}}', "an API's error"),
    ("openai.RateLimitError: slow down", "an API's error"),
    ("RateLimitError", "an API's error"),
    ("APIConnectionError: Connection error.", "an API's error"),
    ("429 Too Many Requests", "an API's error"),
    ("502 Bad Gateway\n<hr>nginx", "an API's error"),
    ("Error: 503 Service Unavailable. Please try again later.", "an API's error"),
    ("<html>\n<head><title>502 Bad Gateway</title></head>", "an API's error"),
]


@pytest.mark.parametrize(("text", "named"), FAULTS)
def test_broken_markup_is_named(text: str, named: str) -> None:
    assert named in (broken_markup(text, "Describe a table.") or "")


PARTS = ["<s>", "```\n", "`", "{{ ", "<think>", "~~~", "[CLS]", "<|", "| a ", "a\n", "as an ai ", " ", "\n", " \n", "- ", "1. "]
BETWEEN = [  # what comes before and after such a part
    *((part, "", "") for part in PARTS),
    *(
        (" ", '{"a": 1,', "x"),
        ("[\n", "", '"'),
        ('{"a": 1,\n', "", ""),
        ("\n", "Human: x", ""),
        ("\n", "Human: x\ny", "x"),
        ("\t", "as an ai", "x"),
    ),
    *((" ", "<s>", "x"), ("\u3000", "、", "x"), (" ", "[PAD]", "x"), (" ", "```", "x"), ("\n", "```", "x")),
]


@pytest.mark.parametrize(("part", "before", "after"), BETWEEN)
def test_no_text_makes_a_check_slow(part: str, before: str, after: str) -> None:
    text = before + part * 60_000 + after
    began = time.process_time()  # not the clock on the wall: other processes may be busy
    broken_markup(text)
    repetition(text)
    self_naming(text, "")
    may_change_script([{"role": "user", "content": text}], text)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "text",
    [
        "It's 3 o'clock: über-Größe, café!",
        "北京是a中国 12のカ ไทยดี x+y=√2",
        "a\u0301e ﬁn ½ ① \ud800",
        "",
        "-7 −7 (-x) !a",
        "(a + b) * −3 − é",
    ],
)
def test_words_are_spelled_as_they_are_hashed(text: str) -> None:
    assert len(spelled(text)) == len(words([text]).hashes)
    assert [bool(flag) for flag in words([text]).alone] == [is_alone(word) for word in spelled(text)]
