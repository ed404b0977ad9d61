"""Refusals: the words in which an answer declines the request itself, in sixteen languages.

What somebody else cannot do, what is only quoted, and an answer that is merely not exact are no refusals. Counts nothing.
"""

import re

_HELPING = (  # what a refusal is of: help with the request itself; "I can't wait" and "I cannot recommend it enough" are none
    r"(?:(?:help|assist)(?! but\b)(?!(?: you| out| him| her| them)?(?: move| out)? (?:(?:on|this|next) (?:\w+day|week\w*"
    r"|month|time)\b"
    r"|tomorrow|tonight|today))|comply|fulfil+|engage|participate|discuss|respond|support|continue with"
    r"|(?:satisfy|meet|honou?r|carry out)(?= (?:your|this|that|the|such an?) requests?\b)"
    r"|(?:endorse|condone|encourage|promote|facilitate)(?= (?:or|any|such|violen\w+|harm\w*|illegal\w*|hat(?:e|red)\w*"
    r"|dangerous|unethical"
    r"|discriminat\w*|self-harm|this (?:kind|type))\b)"
    r"|(?:provide|give|offer|share|create|generate|write|produce|complete|answer|process)(?= (?:you|that|this|these|such|any"
    r"|the|your|an?|specific|medical|legal|financial|personal|advice|information|instructions|content|help|it)\b)"
    r"|do (?:that|this|so)(?= ?[.!;,]| for|\Z)(?!, ?(?:said|says|he|she)))"
)
_UNABLE = (
    r"(?:(?:can(?:no|['’])t|can not)(?:,? (?:and|nor) (?:will not|won['’]t|should not),?)?|(?:will not|won['’]t),? (?:and"
    r"|nor) can(?:no|['’])t|could not|won['’]t(?: be able to)?|will not(?: be able to)?|am (?:not able|unable) to"
    r"|['’]m (?:not able|unable|not going) to|am not going to|(?:don['’]t|do not) (?:think|believe) i (?:can|should))"
)
_KEEPING_ON = (  # "I refuse to believe it" is none
    r"(?:accept|acknowledge|admit|apologi[sz]e|be|believe|bow|die|forget|give (?:up|in)|go|leave|let|listen|live|lose|marry|pay"
    r"|see|stay|stop|surrender|think)"
)
_REGRET = r"[^.!?\n]{0,20}\b(?:sorry|apologi[sz]e|apologies|afraid|unfortunately|as an ai)\b[^.!?\n]{0,60}?\b"
_OF_A_MODEL = (  # after an apology; what a person writes that they cannot do is to come, to find, to attend
    r"(?:access|browse|search|open|view|display|perform|execute|generate|create|write|draw|play|translate|predict|describe)\b"
)
_MAKING = r"(?:writ|provid|creat|generat|answer|discuss|assist|help|shar|engag|produc|continu|do|respond|giv)ing\b"
_ELSEWHERE = (  # es, de, fr, it, pt, ru, nl, pl, tr, vi, id, ar
    r"no puedo (?:ayudar|asistir|proporcionar|cumplir|responder a|generar|crear|hacer eso|satisfacer|escribir (?:eso|esto"
    r"|ese|este|esa|esta)"
    r"|continuar con (?:est|es[aeo])\w*)"
    r"|(?:kann ich|ich kann)\b[^.!?\n]{0,60}\bnicht (?:helfen|weiterhelfen|beantworten|behilflich|erfüllen|nachkommen"
    r"|unterstützen)"
    r"|(?:entschuldig\w*|leid|leider)\b[^.!?\n]{0,20}\b(?:kann ich|ich kann) (?:das|so etwas|diese[nrs]? \w+"
    r"|solche \w+) (?:leider )?nicht "
    r"(?:schreiben|erstellen|tun|machen|verfassen)"
    r"|je ne (?:peux|suis pas en mesure de|saurais) ?(?:pas )?(?:vous |te |t['’])?(?:aider|répondre|fournir|faire cela"
    r"|créer|générer|satisfaire"
    r"|accéder à (?:cette|votre|ta)|écrire (?:ce|cela|ça)|rédiger (?:ce|cela)|continuer (?:avec|cette|sur))"
    r"|non posso (?:aiutar|fornir|risponder|crear|soddisfar|generar|scrivere quest|continuare con quest)"
    r"|não posso (?:ajudar|fornecer|responder|criar|atender|te ajudar|gerar|cumprir|escrever iss|continuar com (?:ess|est|iss))"
    r"|(?:я|извините,?(?: но)?|к сожалению,?) (?:к сожалению,? )?не (?:могу|смогу) (?:\w+ ){0,3}(?:помочь|предоставить"
    r"|ответить|выполнить|создать)"
    r"|(?:kan ik|ik kan)\b[^.!?\n]{0,60}\bniet (?:mee |bij )?(?:helpen|beantwoorden|voldoen|verstrekken|meewerken)"
    r"|nie mogę (?:\w+ ){0,2}(?:pomóc|odpowiedzieć|udzielić|spełnić|dostarczyć|zrealizować)"
    r"|(?:size |sana )?(?:yardımcı olam(?:am|ıyorum)|(?:yanıt|cevap) verem(?:em|iyorum)|isteğ\w+ (?:yerine getirem"
    r"|karşılayam)\w+)"
    r"|tôi không thể (?:giúp|hỗ trợ|cung cấp|trả lời|thực hiện yêu cầu|đáp ứng)"
    r"|saya (?:tidak|tak) (?:bisa|dapat) (?:membantu|memberikan|menjawab|memenuhi|menyediakan)"
    r"|لا (?:أستطيع|يمكنني) (?:مساعدتك|المساعدة|تقديم|الإجابة|تلبية)"
)
_SORRY_ZH = r"(?:抱歉|对不起|對不起|不好意思)"
_I_ZH = (
    r"(?:(?:我们?|我們|本(?:模型|助手|系统|ai)|作为[^。！？，,\n]{0,20}[，,]?)"
    r"(?:恐怕|目前|暂时|现在|实在|真的|确实|也|还|并|，|,){0,3})"
)
_HELP_ZH = r"(?:为您|为你|帮助|协助|提供|回答|满足|完成您|参与)"
_REFUSAL = re.compile(
    r"\A\W*(?:"
    rf"(?:[^.!?\n]{{0,80}}?\b)?i ?{_UNABLE} (?:actually |currently |directly |really )?{_HELPING}"
    rf"|{_REGRET}i(?:['’]m| am) (?:not able|unable) to {_OF_A_MODEL}"
    rf"|(?:{_REGRET})?i(?: (?:don['’]t|do not|would not|wouldn['’]t) feel comfortable"
    rf"|(?:['’]m| am) not comfortable (?:with )?{_MAKING})"
    rf"|(?:{_REGRET})i (?:can(?:no|['’])t|won['’]t)(?: do (?:it|that|this|so))?[.!]?\s*\Z"
    r"|i(?:['’]m| am) programmed to|[^.!?\n]{0,40}(?:goes|is) against my (?:guidelines|programming|policy|policies)"
    r"|(?:[^.!?\n]{0,60}?\b)?(?:i ?(?:['’]m going to |must |have to |will |need to )?(?:have to )?(?:respectfully )?"
    r"(?:decline|refuse)"
    rf"(?= (?:this|that|to(?! {_KEEPING_ON}\b)|your request)\b|[.!,]|\Z)"
    r"|it(?:['’]s not| is not| isn['’]t| would not be| wouldn['’]t be) (?:appropriate|possible|ethical) for me"
    r"(?= to\b|[.,!]|\Z)"
    r"|(?:that|this|it)(?:['’]s| is) (?:(?:beyond|outside)(?: of)?|not (?:with)?in) my (?:current )?"
    r"(?:scope|capabilit\w+|programming|guidelines)"
    rf"|{_ELSEWHERE})"
    r")[^.!?\n]{0,80}",
    re.IGNORECASE,
)
_UNSPACED = re.compile(  # Chinese, Japanese, Korean
    r"\A\W*(?:"
    rf"(?:[^。！？\n]{{0,12}}{_SORRY_ZH}[^。！？\n]{{0,20}}?|[^。！？\n]{{0,20}}?{_I_ZH})(?:无法|不能|無法|没办法){_HELP_ZH}"
    r"|[^。！？\n]{0,24}我?[还還][没沒]有?[学學](?:习|習|会|會)(?:如何|怎么|怎樣)?回答"
    r"|(?:无法|無法|没办法)(?:为您|为你|帮助您|协助|提供|回答)"
    r"|[^。！？\n]{0,30}(?:お手伝い|お答え|お応え)(?:することは|すること|は)?(?:できません|できかねます|いたしかねます)"
    r"|[^。！？\n]{0,30}(?:提供|対応)(?:することは|すること|は)?(?:できかねます|いたしかねます)"
    r"|[^。！？\n]{0,12}(?:申し訳|すみません|ごめん|恐れ入り)[^。！？\n]{0,30}(?:提供|対応)(?:することは|すること|は)?できません"
    r"|[^.!?\n]{0,30}(?:도와|답변해? ?|제공해? ?)드릴 수 없|[^.!?\n]{0,12}(?:죄송|미안|유감)[^.!?\n]{0,30}(?:답변|제공)할 수 없"
    r")[^.!?\n]{0,80}",
    re.IGNORECASE,
)
_SPEAKS = (
    r"(?:said|says|replied|answered|whispered|shouted|cried|dijo|dice|respondió|contestó|sagte|sagt|antwortete|dit|répondit"
    r"|disse|rispose|respondeu|zei|antwoordde|powiedział\w*|dedi|сказал\w*|ответил\w*|говорит|сказав)"
)
_BY_OTHERS = re.compile(  # direct speech, and what somebody only thinks
    rf"(?:[,»”“\"]|[,.!?]['’])[\s,—–-]{{0,4}}(?:\w{{1,20}} )?{_SPEAKS}\b|[”」』][^。\n]{{0,8}}(?:说|道|と|라고)"
    r"|\A\W*(?:if|wenn|si|se|если) \w{1,8} (?:think|believe|say|glaubst|glauben|denkst|crees|piensas|penses|pensez|pensi"
    r"|думаешь|думаете)\b",
    re.IGNORECASE,
)
_NOT_EXACT = re.compile(  # what follows is the answer
    r"\b(?:exact\w*|precis\w*|genaue?\w*|esatt\w*|точн\w+|definit\w+)\b[^.!?\n]{0,60}, (?:but|pero|mais|aber|ma|mas|но)\b"
    r"|, so here\b|(?:确切|准确|精确)[^。！？\n]{0,30}[，,]但|正確な[^。\n]{0,30}が、|정확한[^.\n]{0,30}지만",
    re.IGNORECASE,
)


def refusal(text: str) -> str | None:
    """The words in which a completion refuses, when its first sentence does; None when it answers."""
    start = text[:400]
    found = _REFUSAL.match(start) or (None if start.isascii() else _UNSPACED.match(start))
    if not found or _BY_OTHERS.search(text, 0, found.end() + 40) or _NOT_EXACT.search(text, 0, found.end() + 40):
        return None
    return found[0].strip()[:60]
