"""Where the teacher speaks of itself in an answer, uninvited. A line a case."""

import pytest

from seqdistill.stages.filter.checks.self_naming import self_naming

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
    "I am a text-based model.",
    "I'm just a computer program, so I don't have feelings.",
    "I apologize but I am a machine learning model that was last updated in 2021.",
    "It is possible that my training data includes such windows.",
    "My training only goes up until 2021.",
    "My knowledge is limited to what I was trained on.",
    "I cannot draw a window as a text-based AI language model.",
    "I cannot draw a window as an AI developed by Acme.",
    "My training data was last updated in 2021.",
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
    "My training includes a run on Sundays.",
    "My training data was imbalanced, writes Ann, so she used class weights.",
    "I cannot treat this as a language model task.",
    "I can't see it as an AI problem.",
    "As a machine learning model, XGBoost is hard to beat.",
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
