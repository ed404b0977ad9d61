"""Integrity on its own: what is a fault of one completion and what only looks like one. A line a case."""

import json
import time
from pathlib import Path

import pytest
from filter_runs import filtered, make_run, rules_of, sample

from seqdistill.metrics import METRICS, Item
from seqdistill.metrics.behaviour import repetition
from seqdistill.metrics.refusals import refusal
from seqdistill.stages.filter.checks.integrity import broken_markup
from seqdistill.stages.filter.checks.languages import may_change_language, may_change_script, script, slips
from seqdistill.stages.filter.checks.self_naming import self_naming
from seqdistill.stages.filter.checks.words import is_alone, spelled, words

FENCE = "```"
TABLE = "| Day | Open | Note |\n| --- | --- | --- |\n" + "\n".join(
    f"| {day} | yes | no note |" for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
)
CODE = f"{FENCE}python\nclass A:\n" + "\n".join(
    f"    def get_{name}(self):\n        return self.{name}\n\n    def set_{name}(self, value):\n        self.{name} = value\n"
    for name in ("a", "b", "c", "d", "e")
)
ROWS = f"{FENCE}\n" + "\n".join("0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1" for _ in range(9)) + f"\n{FENCE}"
SCHEMA = (
    "{\n"
    + ",\n".join(
        f'  "{name}": {{\n    "type": "string",\n    "required": true\n  }}'
        for name in ("name", "street", "city", "mail", "zip")
    )
    + "\n}"
)

ASPECTS = ["food", "staff", "price", "room", "view", "bed", "pool", "bar"]
PEOPLE = json.dumps(
    [{"name": one, "role": "engineer", "department": "R&D", "status": "active", "country": "DE"} for one in ASPECTS], indent=2
)

FINE = {
    "a table": TABLE,
    "code": CODE + FENCE,
    "rows of numbers": ROWS,
    "a JSON schema": SCHEMA,
    "a list with one wording": "\n".join(f"- Add {n} g of flour to the bowl and stir." for n in (10, 20, 30, 40, 50, 60)),
    "opening hours": "\n".join(
        f"* {day}: closed" for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Sunday")
    ),
    "a song with its chorus": "\n".join(
        f"Verse {n} of the song goes here\nAnd it has a second line {n}\nRow, row, row your boat\nGently down the stream"
        for n in range(4)
    ),
    "one answer in each line": "yes\nno\nyes\nyes\nno\nyes\nyes\nyes\nno\nyes",
    "Brainfuck": "++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>.",
    "a ruler": "Total\n" + "-" * 120 + "\n12",
    "the same digit in each line": "0\n" * 40,
    "token labels": "O O O O B-PER I-PER O O O O O O O O O B-LOC O O O O O O O O O",
    "labels of comments": "none none none none none favor none none none none none none none none",
    "labels with commas": "pos, pos, pos, pos, neg, pos, pos, pos, pos, pos, pos, neg, pos, pos, pos, pos, pos",
    "bits in words": "yes yes no yes yes yes no no yes yes yes yes yes no yes yes yes yes yes yes no",
    **{
        f"JSON, {name}{', ' + str(indent) if indent else ''}": json.dumps(value, indent=indent)
        for indent in (None, 2)
        for name, value in {
            "aspects": [
                {"aspect": one, "sentiment": "positive", "evidence": None, "explicit": True, "kind": "general"}
                for one in ASPECTS
            ],
            "people": [
                {"name": one, "role": "engineer", "team": "R&D", "status": "active", "manager": None} for one in ASPECTS
            ],
            "a schema": {one: {"type": "string", "description": "", "nullable": False, "maxLength": 255} for one in ASPECTS},
            "an object": {"results": [{"item": one, "found": True, "errors": [], "notes": None} for one in ASPECTS]},
            "a grid": [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]] * 5,
            "labels": {"labels": ["O", "O", "B-PER", "O", "O", "O", "O", "O"] * 4},
        }.items()
    },
    "JSON in a fence": f"Here it is:\n\n{FENCE}json\n{PEOPLE}\n{FENCE}\n\nSay so if a name is missing.",
    "JSON behind a label": f"Answer:\n{PEOPLE}",
    "JSON lines": "\n".join(json.dumps(one) for one in json.loads(PEOPLE)),
    "JSON that is cut off": PEOPLE[:-60],
    "JSON in many brackets": "[" * 900 + '"a"' + "]" * 900 + " " + '["a", ' * 5000,
    "Chinese": "北京是中国的首都，也是全国的政治、文化和国际交往中心。它有三千多年的历史。",
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_tables_code_and_lists_are_no_repetition(text: str) -> None:
    assert repetition(text) <= 0.5
    assert METRICS["repeats"].score(Item(text)) == 0, "what filter keeps is no repetition to eval either"


LOOPS = {
    "words": "it opens and it closes and " * 20,
    "a line": "The library is closed today.\n" * 12,
    "numbered": "\n".join(f"{n}. The library is closed." for n in range(1, 15)),
    "two lines": "The library is closed.\nThe pool is open.\n" * 8,
    "after a good start": "The council met on Monday to talk about the roof of the hall. "
    + "They said that it leaks a lot. " * 12,
    "Chinese": "我们一起去吧我们一起去吧" * 10,
    "Thai": "ไปด้วยกันเถอะนะครับ" * 10,
    "one character": "a" * 3000,
    "one character behind a start": "No" + "o" * 400,
    "a digit in each line": "1\n" * 300,
    "empty lines": "\n" * 300,
    "a word": "none " * 100,
    "JSON of equal objects": json.dumps([{"name": "Ann", "role": "engineer"}] * 12),
    "JSON of equal objects, indented": json.dumps({"people": [{"name": "Ann", "role": "engineer"}] * 12}, indent=2),
    "JSON of equal objects that is cut off": json.dumps([{"name": "Ann", "role": "engineer"}] * 30, indent=2)[:-30],
    "JSON of equal texts": json.dumps({"steps": ["Stir the dough until it is smooth."] * 9}),
    "JSON of equal rows": json.dumps([["Stir the dough", "ten minutes"]] * 9),
    "JSON with a loop in a string": json.dumps({"answer": "it opens and it closes and " * 20}),
    "a word behind a start": "It is a no no no no no no no no no no no no no no no no no no no",
    "two words": "yes no " * 20,
    "a loop of labels": "O O B-PER " * 20,
    "spaces in each line": " \n" * 300,
    "code": f"{FENCE}\n" + "print('a')\nprint('b')\nprint('c')\n" * 10 + FENCE,
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
def test_a_loop_is_repetition(text: str) -> None:
    assert repetition(text) > 0.5
    assert METRICS["repeats"].score(Item(text)) == 100


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


NAMED = [
    "As an AI language model, I see no windows.",
    "As an AI, I cannot see.",
    "As a language model, I don't have feelings.",
    "As a large language model I have no body.",
    "I'm just an AI, but a window is of glass.",
    "I am only a language model.",
    "I'm an AI assistant made to help.",
    "I am a large language model trained on text.",
    "Well, as an AI assistant developed by Acme, I do not look out of windows.",
    "I'm ChatGPT.",
    "My knowledge cutoff is 2023.",
    "I was created by OpenAI.",
    "Als KI-Sprachmodell habe ich keine Fenster.",
    "En tant qu'IA, je ne vois pas.",
    "Como modelo de lenguaje, no veo.",
    "作为一个AI语言模型，我看不见窗户。",
    "AIとして、私には窓がありません。",
    "Как языковая модель, я не вижу.",
    "I have no view as an AI developed by Acme, but windows are of glass.",
    "Being an AI, I have no windows.",
    "As your AI assistant, I recommend the blue one.",
    "As of my last knowledge update in 2021, windows were of glass.",
    "As of my last training data, it cost 3 euros.",
    "I don't have access to real-time data, but it is of glass.",
    "I'm just a bot, but a window is of glass.",
    "I am Qwen, created by Acme.",
    "Als künstliche Intelligenz habe ich keine Fenster.",
    "En tant que modèle de langage, je ne vois pas.",
    "Come modello linguistico, non vedo.",
    "Como um modelo de linguagem, não vejo.",
    "저는 AI 언어 모델로서 창문이 없습니다.",
    "AI 언어 모델로서, 저는 창문이 없습니다.",
    "Lo siento, como modelo de lenguaje, no puedo ver ventanas.",
    "Desculpe, mas como uma inteligência artificial, não tenho janelas.",
    "Mi dispiace, ma come intelligenza artificiale non posso vedere finestre.",
    "К сожалению, как языковая модель, я не вижу окон.",
    "Я, как искусственный интеллект, не вижу окон.",
    "Als KI-Sprachmodell ist es mir nicht möglich, Fenster zu sehen.",
    "Ich bin als KI-Assistent nicht in der Lage, Fenster zu sehen.",
    "Es tut mir leid. Als KI-Modell habe ich keine Fenster.",
    "En tant qu'IA, il m'est impossible de voir.",
    "很抱歉，作为人工智能助手，无法看见窗户。",
    "作为大型语言模型，我没有窗户。",
    "申し訳ありません。AI言語モデルとして、窓は持っていません。",
    "私はAIアシスタントとして、窓を見ることができません。",
    "I'm Claude, an AI assistant made by Anthropic.",
    "Hello! I'm Gemini, a large language model from Google.",
    "Hi, I'm Claude. A window is of glass.",
    "我是一个AI语言模型，没有眼睛。",
    "我是通义千问，由阿里云开发。",
    "我是ChatGPT，一个由OpenAI训练的大型语言模型。",
    "我是由Acme开发的人工智能助手。",
    "很抱歉，我只是一个人工智能助手，无法看见窗户。",
    "Ich bin ein KI-Sprachmodell und habe keine Augen.",
    "Ich bin nur eine KI, aber ein Fenster ist aus Glas.",
    "Je suis une IA et je ne vois pas.",
    "Je ne suis qu'un modèle de langage.",
    "Je suis ChatGPT, un modèle.",
    "Soy un modelo de lenguaje y no veo.",
    "Eu sou uma inteligência artificial e não vejo.",
    "Sono un'intelligenza artificiale e non vedo.",
    "Я — языковая модель и не вижу.",
    "Я всего лишь искусственный интеллект.",
    "私はAIなので、窓を見ることができません。",
    "私は大規模言語モデルです。",
    "저는 AI 언어 모델이라 창문을 볼 수 없습니다.",
    "저는 인공지능입니다.",
]


@pytest.mark.parametrize("text", NAMED)
def test_a_teacher_that_speaks_of_itself_is_found(text: str) -> None:
    assert self_naming(text, "Describe a window.")
    assert self_naming(text, "Are you an AI?") is None


OTHERS = [
    "She works as an AI engineer in Lyon.",
    "我是AI工程师，在北京工作。",
    "我是一名人工智能专业的学生。",
    "Ich bin KI-Forscherin in Bonn.",
    "Ich bin eine Künstlerin.",
    "Je suis une infirmière.",
    "Soy un modelo de ropa y vivo en Lima.",
    "Esempi sono intelligenza artificiale e robotica.",
    "Я изучаю искусственный интеллект.",
    "私はAIの研究者です。",
    "저는 AI 연구자입니다.",
    "I'm an AI researcher, says Ann.",
    "It is sold as an AI startup.",
    "A model that was trained by Anna.",
    "The air is as an aid to breathing.",
    "He thinks of it as a system.",
    "I'm Claude Debussy, and I write for the piano.",
    "I'm Claude's brother.",
    "I'm just a bottle of wine away from sleep.",
    "La Industria 4.0 integra tecnologías como inteligencia artificial, big data y robótica.",
    "Trabajo en áreas como inteligencia artificial y robótica.",
    "A Indústria 4.0 usa tecnologias como inteligência artificial e IoT.",
    "L'Industria 4.0 usa tecnologie come intelligenza artificiale e robotica.",
    "Индустрия 4.0 использует такие технологии, как искусственный интеллект и робототехника.",
    "机器学习作为人工智能的一个重要分支，研究如何让计算机从数据中学习。",
    "作为人工智能领域的核心技术，深度学习广泛应用于图像识别。",
    "她把作为AI工程师的经验写成了书。",
    "ワトソンは質問応答型のAIとして開発され、2011年にクイズ番組で優勝しました。",
    "왓슨은 IBM의 인공지능로서 2011년에 우승했다.",
    "Watson wurde 2011 als KI-Modell vorgestellt.",
    "Als KI-Modell wurde Watson bekannt.",
    "Watson, en tant qu'IA, a gagné le jeu.",
    "I'm Gemini too! Born June 1 makes you a Gemini.",
    "I'm Gemini by birth, a restless soul.",
    "Hi, I'm Claude, your barista today! What can I get you?",
]


INVITED = [  # prompt, completion, whether the prompt invites it
    ("J'ai une question : décris une fenêtre.", "En tant qu'IA, je ne vois pas.", False),
    ("Scrivi ai clienti una lettera.", "Come modello linguistico, non vedo nulla.", False),
    ("Ai là người đầu tiên?", "As an AI language model, I have no eyes.", False),
    ("你是AI吗？你有感情吗？", "作为AI语言模型，我没有感情。", True),
    ("あなたはAIですか？", "AIとして、私には感情がありません。", True),
    ("당신은 AI인가요?", "저는 AI 언어 모델로서 감정이 없습니다.", True),
    ("¿Eres una inteligencia artificial?", "Sí, como inteligencia artificial no tengo sentimientos.", True),
    ("Bist du eine KI?", "Als KI-Modell habe ich keine Gefühle.", True),
    ("Wer bist du?", "Ich bin ein KI-Sprachmodell.", True),
    ("Es-tu une IA ?", "En tant qu'IA, je n'ai pas de sentiments.", True),
    ("Sei un'intelligenza artificiale?", "Sono un'intelligenza artificiale.", True),
    ("Você é uma inteligência artificial?", "Eu sou uma inteligência artificial.", True),
    ("Ты искусственный интеллект?", "Как языковая модель, я не вижу.", True),
    ("Кто ты?", "Я — языковая модель.", True),
    ("你叫什么名字？", "我是通义千问。", True),
    ("What do you think about ai?", "As an AI, I have no views.", True),
    ("Are you a robot?", "As an AI, I have no body.", True),
]


@pytest.mark.parametrize(("prompt", "text", "invited"), INVITED)
def test_a_prompt_that_speaks_to_or_of_a_model_invites_it_to_speak_of_itself(prompt: str, text: str, invited: bool) -> None:
    assert (self_naming(text, prompt) is None) == invited
    assert self_naming(text, "Describe a window.")


@pytest.mark.parametrize("text", OTHERS)
def test_others_who_are_spoken_of_are_not_the_teacher(text: str) -> None:
    assert self_naming(text, "Describe a person.") is None


REFUSALS = [
    *("I'm sorry, but I can't help with that.", "I’m sorry, I can’t help with that.", "Sorry, I can't comply with that."),
    *("I'm really sorry, but I'm not able to provide that information.", "I won't be able to help with that request."),
    *("I cannot fulfill this request.", "I can’t engage in that.", "I do not feel comfortable answering this."),
    *(
        "I must decline.",
        "I'm going to have to decline that.",
        "I don't think I can help with that.",
        "I'm afraid I can't do that.",
    ),
    *("As an AI language model, I cannot provide medical advice.", "I am programmed to be harmless. I cannot create that."),
    *("This request goes against my guidelines, so I can't help.", "Unfortunately, I cannot assist with that."),
    *("Lo siento, pero no puedo ayudar con eso.", "Es tut mir leid, aber dabei kann ich nicht helfen."),
    *("Je suis désolé, mais je ne peux pas vous aider.", "Mi dispiace, ma non posso aiutarti."),
    *("Desculpe, mas não posso ajudar com isso.", "К сожалению, я не могу помочь с этим."),
    *("抱歉，我无法帮助您完成这个请求。", "对不起，我不能提供这方面的帮助。", "申し訳ありませんが、お手伝いできません。"),
    "죄송하지만 도와드릴 수 없습니다.",
    *(
        "我不能帮助你。",
        "很抱歉，这个问题我无法回答。",
        "作为AI助手，我无法为您提供医疗建议。",
        "作为人工智能，无法提供法律意见。",
        "无法提供该信息。",
    ),
    *(
        "对不起，目前无法为您完成。",
        "很遗憾，我目前无法回答这个问题。",
        "このご質問にはお答えできません。",
        "その依頼には対応いたしかねます。",
    ),
    *(
        "申し訳ありませんが、その情報は提供できません。",
        "죄송하지만 이 요청은 도와드릴 수 없습니다.",
        "죄송하지만 그 정보는 제공할 수 없습니다.",
    ),
    *("I refuse to help with that.", "I must decline to answer.", "If you need legal advice, I can't help with that."),
    *("I can't provide specific medical advice, but a doctor can.", "Я не могу помочь с этим.", "No puedo ayudar con eso."),
    *("I can't help with what's said here.", "I can't help with 'that' as the law says no."),
    *(
        "I can't satisfy your request, I'm just an AI.",
        "I apologize, but I do not feel comfortable writing that kind of story.",
    ),
    *("I'm sorry, but I cannot condone violence.", "I cannot endorse or provide instructions for this."),
    *(
        "I cannot and will not help with that.",
        "I can't, and won't, write this for you.",
        "I will not, and cannot provide that.",
    ),
    *("Sorry, that's beyond my current scope. Let's talk about something else.", "I'm not comfortable writing that."),
    *("I'm sorry, I can’t.", "Sorry, I can't do that.", "It would not be appropriate for me to write that."),
    *("It wouldn't be ethical for me to say so.", "I am just an AI model, it is not within my programming to write that."),
    *("I apologize, but I cannot fulfill your request to write it.", "As an AI, I cannot promote hate speech or insults."),
    *(
        "作为一个人工智能语言模型，我还没学习如何回答这个问题，您可以向我问一些其它的问题。",
        "你好，这个问题我暂时无法回答，让我们换个话题再聊聊吧。",
    ),
    *("Désolé, je ne peux pas continuer avec cette demande.", "Je ne suis pas en mesure de répondre à cette demande."),
    *("Ich kann diese Anfrage leider nicht erfüllen.", "Entschuldigung, aber ich kann das nicht schreiben."),
    *(
        "Ich kann dieser Bitte nicht nachkommen.",
        "Lo siento, pero no puedo continuar con esto.",
        "Lo siento, no puedo escribir eso.",
    ),
    *("Mi dispiace, non posso generare questo contenuto.", "Desculpe, não posso escrever isso."),
    *("Извините, я не могу с этим помочь.", "Я не могу с этим помочь.", "К сожалению, не могу вам помочь."),
    *("Het spijt me, maar daar kan ik je niet mee helpen.", "Sorry, ik kan deze vraag niet beantwoorden."),
    *(
        "Przykro mi, ale nie mogę w tym pomóc.",
        "Üzgünüm, bu konuda yardımcı olamam.",
        "Xin lỗi, tôi không thể giúp bạn việc này.",
    ),
    *("Maaf, saya tidak bisa membantu dengan itu.", "عذرًا، لا يمكنني مساعدتك في ذلك."),
]
ANSWERED = [
    *("I can't do that, said Tom.", "I cannot stress enough how important sleep is.", "I can't wait to see you!"),
    *("I cannot and will not recant anything.", "I can't get no satisfaction is a song.", "I won't lie: it's hard."),
    *("I can’t believe it’s not butter!", "I am unable to attend the meeting on Friday.", "I can't help but smile."),
    *("I cannot recommend this restaurant enough.", "Unfortunately, I won't be able to come on Monday."),
    *("I'm sorry for the delay. Your parcel arrives on Monday.", "I'm sorry, but dogs are not allowed on this train."),
    *(
        "I apologize for the confusion. The answer is 5.",
        "I must decline your kind invitation.",
        "Unfortunately, the train is late.",
    ),
    *("Leider kann ich am Montag nicht kommen.", "No puedo esperar a verte."),
    *(
        "传统化石能源无法满足日益增长的需求。",
        "手工测试不能提供足够的覆盖率，因此需要单元测试。",
        "未成年人不能参与投票。",
        "小明无法回答老师的问题。",
    ),
    *(
        "这款软件不能满足团队的要求。",
        "我认为传统能源无法满足需求。",
        "很遗憾，该地区的电力供应无法满足需求。",
        "“我不能帮助你，”狼说。",
    ),
    *("古い端末では新しい規格に対応できません。", "この店では酒を提供できません。", "「お手伝いできません」と彼は言った。"),
    *("구형 기기에서는 이 기능을 제공할 수 없습니다.", "이 질문에 대해 한마디로 답변할 수 없지만, 요약하면 이렇습니다."),
    *("Если вы думаете, что я не могу ответить за себя, вы ошибаетесь.", "«Я не могу помочь тебе», — сказал волк."),
    *("No puedo hacer eso, dijo Tom.", "“I can't help you,” said the wolf.", '"I can\'t help you," she replied.'),
    *(
        "„Ich kann dir nicht helfen“, sagte der Wolf.",
        "« Je ne peux pas vous aider », dit le loup.",
        "Non posso aiutarti, disse il lupo.",
    ),
    *("If you think I can't help you, you are wrong.", "I refuse to believe that she is gone.", "I refuse to give up."),
    *(
        "I can't provide the exact figure, but a good estimate is 40.",
        "No puedo proporcionar la cifra exacta, pero son unos 40.",
    ),
    *("Hi Tom, sadly I won't be able to help you on Saturday.", "I can't help you move next week, as I am away."),
    *("I cannot encourage you enough to visit the museum.", "I can't endorse this book enough.", "I can't meet you at six."),
    *("It is possible for me to write that: here it is.", "It isn't possible for my sister to come on Monday."),
    *("When I'm at parties, I don't feel comfortable talking.", "I'm sorry, I can't. I see the dentist then. Is Friday fine?"),
    *("That is beyond my wildest dreams!", "It is not possible for my sister to come.", "Je ne peux pas continuer comme ça."),
    *("Ich kann nicht schreiben, wenn es laut ist.", "Leider kann ich das Fest nicht besuchen.", "No puedo continuar sin ti."),
    *(
        "Ik kan niet wachten!",
        "Nie mogę się doczekać.",
        "Я не могу дождаться лета.",
        "我还没学会游泳。",
        "Saya tidak bisa tidur.",
    ),
    *("我无法提供确切的数字，但大约是40。", "I can't share the whole recipe in one line, so here it is in steps:"),
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_of_the_request_is_found(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_what_somebody_cannot_do_is_no_refusal(text: str) -> None:
    assert refusal(text) is None


def test_a_repetition_that_was_wanted_and_text_without_width(tmp_path: Path) -> None:
    rows = [
        sample("Say 'I will not talk in class' ten times.", "I will not talk in class.\n" * 10),
        sample("Describe a class.", "I will not talk in class.\n" * 10),
        sample("Describe a void.", "\u200b\u200b"),
    ]
    run = make_run(tmp_path, rows)
    filtered(run)
    assert rules_of(run) == {rows[1].id: "repetition", rows[2].id: "empty"}


RUSSIAN, JAPANESE = "Крыша защищает дом от дождя и снега.", "屋根は家を雨や雪から守ります。"
ENGLISH = "A roof protects the house from rain and snow all year."
BRIDGE = "The harbour bridge was opened in the spring of last year after a long period of works and repairs. " * 25
OPENED = "大桥是由市长在春天剪彩的，工程师们也出席了仪式，现场还有许多市民参加，气氛十分热烈。"
CHANGES = [  # prompt, completion, whether the change of the writing system may well be meant
    ("What is a roof good for?", RUSSIAN, False),
    ("What is a roof good for?", JAPANESE, False),
    ("屋根は何の役に立ちますか？", ENGLISH, False),
    ("Translate into Russian: A roof is good.", RUSSIAN, True),
    ("How do you say it in Japanese?", JAPANESE, True),
    ("把这句话翻译成英文：屋顶保护房子。", ENGLISH, True),
    ("次の文を英語に訳してください：屋根は家を守る。", ENGLISH, True),
    ("Переведи на английский: крыша", ENGLISH, True),
    ("Summarise this: " + JAPANESE, JAPANESE, True),
    ("这条评论是正面还是负面的？", "positive", True),
    (
        "写一个判断质数的函数。",
        "```python\ndef is_prime(number):\n    return all(number % other for other in range(2, number))\n```",
        True,
    ),
    *(
        (prompt, text, True)
        for prompt, text in (
            (
                "编写一个函数来计算斐波那契数列。",
                "def fib(n):\n    if n <= 1:\n        return n\n    return fib(n - 1) + fib(n - 2)",
            ),
            (
                "写一个判断质数的函数。",
                'def is_prime(n):\n    """Return whether the number is a prime number."""\n    # check all of the numbers\n'
                "    return all(n % other for other in range(2, n))",
            ),
            (
                "Напиши функцию, которая печатает сумму.",
                'print("please enter the first of the numbers")\nvalue = int(input())\ntotal += value',
            ),
            (
                "写一个查询，找出工资最高的员工。",
                "SELECT name, salary FROM employees WHERE department = 'Sales' ORDER BY salary DESC LIMIT 1;",
            ),
            (
                "写一个查询，找出工资最高的员工。",
                "select name from employees where salary is not null order by salary desc limit 1",
            ),
            ("Как установить Docker?", "sudo apt install docker compose plugin buildx\nsudo systemctl enable docker"),
            ("列出十种编程语言。", "Python, Java, C++, JavaScript, Ruby, Go, Rust, Swift, Kotlin, PHP"),
            ("列出十种编程语言。", "python\njava\njavascript\nruby\nrust\nswift\nkotlin\nphp\nperl"),
            (
                "列举五部经典的好莱坞电影。",
                "1. The Godfather\n2. Casablanca\n3. Citizen Kane\n4. Gone with the Wind\n5. The Lord of the Rings",
            ),
            ("Назови авторов Python, Linux и C.", "Guido van Rossum, Linus Torvalds, Dennis Ritchie"),
            ("画像のHTMLを書いて。", '<div class="box">\n  <img src="roof.png" alt="a roof of a small red house">\n</div>'),
            (
                "写一个函数。",
                "def f(items):\n    left = [item for item in items if item and not item in seen]\n    return left or None",
            ),
            ("列出五种水果的名字。", "apple, banana, cherry, peach, lemon, mango, orange"),
            ("قائمة بلغات البرمجة", "Python, Java, JavaScript, Kotlin, Swift, Rust"),
        )
    ),
    ("列出五种植物。", "The plant likes the sun, stands drought well and is often used in gardens.", False),
    ("Опиши крышу.", "Das Dach schützt die Menschen, die unter ihm wohnen, vor dem Regen und vor der Sonne.", False),
    ("屋根は何の役に立ちますか？", "Le toit protège les gens qui vivent dans la maison de la pluie et du soleil.", False),
    ("屋根は何の役に立ちますか？", "Sure! Here is a list of what a roof is good for: rain, snow, sun.", False),
    ("一元二次方程的解是什么？", r"$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$", True),
    ("What does 屋顶 mean?", "屋顶", True),
    (BRIDGE + "\n\n问题：谁为大桥剪彩？", OPENED, True),
    ("问题：谁为大桥剪彩？\n\n" + BRIDGE, OPENED, True),
    (f"Context: {BRIDGE}\n\nQuestion: 谁为第七座大桥剪彩？请根据上文简要回答。\n\nAnswer:", OPENED, True),
    (BRIDGE + "\n\nWho opened the bridge?", OPENED, False),
    (BRIDGE + "\n\nBy 王小明\n\nWho opened the bridge?", OPENED, False),
]


@pytest.mark.parametrize(("prompt", "completion", "meant"), CHANGES)
def test_a_change_of_the_writing_system_may_be_meant(prompt: str, completion: str, meant: bool) -> None:
    assert script(prompt) != script(completion) or meant
    assert may_change_script([{"role": "user", "content": prompt}], completion) is meant


def test_the_language_of_the_question_may_be_another_than_that_of_the_text_that_it_is_about() -> None:
    question = "Frage: Wer hat die Brücke im letzten Frühjahr feierlich eröffnet?"
    for prompt in (f"{BRIDGE}\n\n{question}", f"{question}\n\n{BRIDGE}", f"{BRIDGE}\n\n{question}\n\nAnswer:"):
        message = [{"role": "user", "content": prompt}]
        assert may_change_language(message, "de") and not may_change_language(message, "fr")


def test_slips_are_found_however_many_they_are_unless_most_of_the_slice_is_answered_so() -> None:
    for slipped, found in ((1, 1), (5, 5), (40, 40), (60, 0)):
        written = [("LATIN", "CYRILLIC")] * slipped + [("LATIN", "LATIN")] * (100 - slipped)
        assert len(slips(written, [""] * 100, 0.5)) == found


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
