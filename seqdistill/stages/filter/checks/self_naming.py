"""Self-naming: the words in which a completion mentions the model that wrote it: "as an AI", "I was created by".

Sayings that also speak of others ("technologies such as AI") count only where they are about the speaker. Judges nothing else.
"""

import re

_MODEL = (
    r"(?:(?:large |text-based |helpful |virtual |conversational )*(?:ai|artificial intelligence|language model|llm|chatbot)"
    r"(?: (?:language |based )?(?:model|assistant|system|chatbot|program))?)"
)
_START = r"(?:\A|(?<=[.!?。！？\n])|(?<=[.!?] ))[\"“«「*]{0,3}"
_MODEL_DE = r"(?:ki-?(?:sprach)?(?:modell|assistent)|künstliche intelligenz\b)"
_MODEL_FR = r"(?:ia|intelligence artificielle|assistant ia|modèle (?:de langage|d(?:'|’)ia))"
_MODEL_ROMANCE = (
    r"(?:modello linguistico|intelligenza artificiale|modelo de (?:linguagem|lenguaje)|intelig[êe]ncia artificial|ia)"
)
_I_ROMANCE = (
    r"(?:yo|puedo|tengo|veo|soy|mis?|me|eu|posso|tenho|vejo|consigo|sou|meus?|minhas?|io|ho|vedo|mio|mia|capacidad|capacidade)"
)
_MODEL_RU, _I_RU = r"(?:языковая модель|искусственный интеллект)", r"(?:я|мне|меня|мой|моя|у меня)"
_MODEL_ZH = r"(?:ai|人工智能)?(?:(?<=ai)|(?<=人工智能)|大?型?语言模型)(?:大?型?语言模型|助手|模型|程序|系统|机器人)?"
_MODEL_JA = r"(?:ai|人工知能|言語モデル)(?:アシスタント|言語モデル|モデル)?"
_MODEL_KO = r"(?:ai|인공지능) ?(?:언어 ?모델|어시스턴트|비서)?"
_SELF = re.compile(
    rf"\b(?:(?:as|being) (?:an?|your) {_MODEL}\b(?:,| (?:developed|created|trained|made|built) by|"
    r"[^.!?\n]{0,60}\bi\b|(?= (?:i|my)\b))"
    rf"|i(?:'|’| a)m (?:just |only |merely |simply |actually )?an? {_MODEL}\b"
    r"(?! (?:engineer|researcher|developer|scientist|expert))"
    r"|i(?:'|’| a)m (?:chatgpt|gpt-?\d|llama|qwen|mistral|deepseek|smollm)\w*(?!['’]s)(?-i:(?! [A-Z]))"
    r"|i(?:'|’| a)m (?:claude|gemini)(?=[.!?\n]|\Z"
    r"|,? (?:an?|the|your|here|ready|created|made|developed|trained|built|by|from)\b"
    r"[^.!?\n]{0,40}\b(?:ai|assistant|language model|llm|chatbot|anthropic|google|help|assist)\b)"
    r"|(?:my|i have a) (?:knowledge|training) cut-?off"
    r"|as of my (?:last |latest |most recent )?(?:(?:knowledge |training )?(?:update|cut-?off)|training data)"
    r"|i (?:don(?:'|’)t|do not) have (?:direct |live )?access to (?:real-time|current) (?:data|information)"
    r"|i(?:'|’| a)m (?:just |only |merely |simply )a (?:chat)?bot\b"
    r"|i(?:'|’| a)m (?:just |only |merely |simply )?a (?:text-based (?:model|program|system)|machine learning model"
    r"|computer program)\b"
    r"|my training data (?:only |also )?(?:include|contain|go|end|stop|cover|is limited|was last|does not|doesn(?:'|’)t)"
    r"|my training only goes"
    r"|\b(?:by my training data|(?:what|the data|data) i was trained on)\b"
    rf"|i (?:can(?:no|'|’)t|can not|am (?:not able|unable) to)\b[^.!?\n]{{0,80}} as an? {_MODEL}\b"
    r"(?=[^\w ]|\Z| (?:and|but|so|or|with|without|developed|created|trained|made|built)\b)"  # not: as a language model task
    r"|i was (?:trained|created|developed|made) by (?:openai|anthropic|google|meta|alibaba|mistral|deepseek|hugging ?face)\w*)",
    re.IGNORECASE,
)
_AS = ("als ", "en tant qu", "como ", "come ", "как ", "作为", "として", "로서", "이기 때문에")  # one is in each that follows
# In these languages "as an AI" is "such as AI" too: only at the start of a sentence, or beside a word for "I".
_SELF_ELSEWHERE = re.compile(
    rf"\bals (?:eine? )?{_MODEL_DE}[^.!?\n]{{0,40}}\b(?:ich|mir|mich|meine?)\b"
    rf"|\bich\b[^.!?\n]{{0,30}} als (?:eine? )?{_MODEL_DE}"
    rf"|\ben tant qu(?:'|’|e ){_MODEL_FR}\b[^.!?\n]{{0,60}}\b(?:(?:je|moi|mon|mes)\b|[jm]['’])"
    rf"|\bj(?:e|['’])\b[^.!?\n]{{0,30}}en tant qu(?:'|’|e ){_MODEL_FR}\b"
    rf"|{_START}com[oe] (?:una? |uma? )?{_MODEL_ROMANCE}\b"
    rf"|[,;:] (?:\w{{1,6}} )?com[oe] (?:una? |uma? )?{_MODEL_ROMANCE}\b[^.!?\n]{{0,60}}\b{_I_ROMANCE}\b"
    rf"|{_START}как {_MODEL_RU}\b|\bя, как {_MODEL_RU}\b"
    rf"|[,;] (?:\w{{1,9}} )?как {_MODEL_RU}(?:, \w+нн\w+ [^,.!?\n]{{1,30}})?,? {_I_RU}\b"
    rf"|作为(?:一个|一名|一款)?{_MODEL_ZH}[，,、]?\s*(?:我|本|无法|不能|不具备|没有)"
    rf"|{_START}(?:私は、?)?{_MODEL_JA}として[、,]|{_MODEL_JA}として[、,]?\s*(?:私|わたし|僕)|私(?:は|も|、)、?{_MODEL_JA}として"
    rf"|(?:{_START}|(?:저는|나는|제가|전) ?){_MODEL_KO}(?:로서|이기 때문에)|{_MODEL_KO}(?:로서|이기 때문에),? ?(?:저|제|나)",
    re.IGNORECASE,
)
_NAME = r"(?:chatgpt|gpt-?\d|qwen|deepseek|chatglm|llama[- ]?\d|vicuna)"
_NAME_ZH = rf"(?:{_NAME}|通义千问|文心一言|豆包|讯飞星火|智谱清言|kimi|claude|gemini)"
_IS = ("ich bin ", "je suis ", "je ne suis qu", "soy ", "sou ", "sono un", "языковая модель", "искусственный интеллект")
_IS_UNSPACED = ("我是", "我只是", "我就是", "我叫", "私は", "私も", "なので", "저는", "나는", "제가")
_SELF_PLAIN = re.compile(  # "I am an AI" in these languages
    rf"\bich bin (?:nur |bloß |lediglich )?(?:eine? (?:{_MODEL_DE}|(?:großes )?sprachmodell|ki\b(?!-)|ki-?system)|{_NAME})"
    rf"|\bje (?:suis (?:juste |simplement )?|ne suis qu['’])(?:une? {_MODEL_FR}\b|{_NAME})"
    rf"|\b(?:soy|sou) (?:solo |solamente |apenas |só )?(?:(?:una? |uma? )?{_MODEL_ROMANCE}\b|{_NAME})"
    rf"|\bsono (?:solo |soltanto )?(?:un(?:['’]|a? ){_MODEL_ROMANCE}\b|{_NAME})"
    rf"|\bя,? ?(?:[—–-] ?)?(?:(?:всего )?лишь |просто |это )?(?:большая |обученная )?{_MODEL_RU}\b"
    rf"|我(?:是|只是|就是|叫)(?:一个|一款|一名|一种|个)?(?:由[^，。！？\n]{{1,24}}的)?(?:{_NAME_ZH}"
    rf"|{_MODEL_ZH}(?!工程|研究|专家|专业|领域|从业|爱好|方向|产品|公司|开发|算法|学))"
    rf"|(?:私は|私も)、?(?:ただの|単なる)?(?:大規模)?{_MODEL_JA}(?:です|なので|であり|で、|だから)|{_START}{_MODEL_JA}なので"
    rf"|(?:저는|나는|제가|전) ?(?:그저 |단지 )?{_MODEL_KO}(?:입니다|이에요|예요|이라|이므로|이며|일 뿐)",
    re.IGNORECASE,
)
_ABOUT_IT = re.compile(
    r"\b(?:who are you|what are you|your name|are you (?:an? )?(?:ai|human|robot|bot|machine|real)|language models?"
    r"|chatgpt|llms?"
    r"|chatbots?|(?:about|an|the|of|is|are|with|using|generative|by|your) ai|ai (?:is|are|in|can|and|to|models?"
    r"|assistants?|tools?|systems?)"
    r"|artificial intelligence|sprachmodell\w*|künstliche\w* intelligenz|wer bist du|wie heißt du|(?-i:KI|IA)"
    r"|intelligence artificielle|modèles? de langage|qui es-tu|qui êtes-vous|comment t['’]appelles|es-tu (?:un )?(?:robot"
    r"|humain)"
    r"|int[ea]l+ig[eê]n[czt][^\W\d_]* artificial\w*|modelos? de (?:lenguaje|linguagem)|modell[oi] linguistic[oi]|quién eres"
    r"|cómo te llamas"
    r"|eres (?:un )?(?:robot|humano)|chi sei|come ti chiami|quem é você|seu nome|языков\w+ модел\w+|искусственн\w+ интеллект\w*"
    r"|нейросет\w+|(?-i:ИИ)|кто ты|ты (?:бот|робот|человек)|как тебя зовут)\b"
    r"|(?-i:(?<![A-Za-z'’])AI(?![A-Za-z]))|人工智能|语言模型|人工知能|言語モデル|인공지능|언어 ?모델"
    r"|你是谁|你叫什么|你的名字|你是(?:人|机器人)"
    r"|あなたは(?:誰|何|人間|ロボット)|(?:너는|당신은) 누구|이름이 뭐",
    re.IGNORECASE,
)


def self_naming(text: str, question: str) -> str | None:
    """The words in which a completion mentions the model that wrote it, unless the prompt invites it."""
    found = _SELF.search(text)
    if not found:
        folded = text.lower()
        if any(map(folded.__contains__, _AS)):
            found = _SELF_ELSEWHERE.search(text)
        if not found and any(map(folded.__contains__, _IS if folded.isascii() else (*_IS, *_IS_UNSPACED))):
            found = _SELF_PLAIN.search(text)
    return found[0][:80] if found and not _ABOUT_IT.search(question) else None
