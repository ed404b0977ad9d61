"""Which answers refuse the request, and which only speak of what cannot be done. A line a case."""

import pytest

from seqdistill.metrics.refusals import refusal

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
    *("I'm sorry, but I am unable to browse the internet.", "I'm sorry, I am not able to generate images."),
    *("I apologize, but I am unable to access the link you provided.", "Sorry, but I'm unable to write lyrics to a pop song."),
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
    *("I'm sorry, but I am unable to come on Friday.", "I'm sorry, I'm not able to find my glasses anywhere."),
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
