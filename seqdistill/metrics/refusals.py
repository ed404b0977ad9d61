"""Refusals: the words in which an answer declines the request itself, in eleven languages.

What somebody else cannot do, what is only quoted, and an answer that is merely not exact are no refusals. Counts nothing.
"""

import re

_HELPING = (  # what a refusal is of: help with the request itself; "I can't wait" and "I cannot recommend it enough" are none
    r"(?:help(?! but\b)|assist|comply|fulfil+|engage|participate|discuss|respond|support|continue with"
    r"|(?:provide|give|offer|share|create|generate|write|produce|complete|answer|process)(?= (?:you|that|this|these|such|any"
    r"|the|your|an?|specific|medical|legal|financial|personal|advice|information|instructions|content|help|it)\b)"
    r"|do (?:that|this|so)(?= ?[.!;,]| for|\Z)(?!, ?(?:said|says|he|she)))"
)
_UNABLE = (
    r"(?:can(?:no|['’])t|can not|could not|won['’]t(?: be able to)?|will not(?: be able to)?|am (?:not able|unable) to"
    r"|['’]m (?:not able|unable|not going) to|am not going to|(?:don['’]t|do not) (?:think|believe) i (?:can|should))"
)
_KEEPING_ON = (  # "I refuse to believe it" is none
    r"(?:accept|acknowledge|admit|apologi[sz]e|be|believe|bow|die|forget|give (?:up|in)|go|leave|let|listen|live|lose|marry|pay"
    r"|see|stay|stop|surrender|think)"
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
    r"|(?:[^.!?\n]{0,60}?\b)?i ?(?:['’]m going to |must |have to |will |need to )?(?:have to )?(?:respectfully )?"
    r"(?:decline|refuse)"
    rf"(?= (?:this|that|to(?! {_KEEPING_ON}\b)|your request)\b|[.!,]|\Z)"
    r"|i (?:don['’]t|do not) feel comfortable|it['’]s not (?:appropriate|possible) for me"
    r"|i(?:['’]m| am) programmed to|[^.!?\n]{0,40}(?:goes|is) against my (?:guidelines|programming|policy|policies)"
    r"|(?:[^.!?\n]{0,60}?\b)?no puedo (?:ayudar|asistir|proporcionar|cumplir|responder a|generar|crear|hacer eso)"
    r"|(?:[^.!?\n]{0,60}?\b)?(?:kann ich|ich kann)\b[^.!?\n]{0,60}\bnicht (?:helfen|weiterhelfen|beantworten|behilflich)"
    r"|(?:[^.!?\n]{0,60}?\b)?je ne peux pas (?:vous |t['’])?(?:aider|répondre|fournir|faire cela|créer|générer)"
    r"|(?:[^.!?\n]{0,60}?\b)?non posso (?:aiutar|fornir|risponder|crear|soddisfar)"
    r"|(?:[^.!?\n]{0,60}?\b)?não posso (?:ajudar|fornecer|responder|criar|atender|te ajudar)"
    r"|(?:[^.!?\n]{0,60}?\b)?я не могу (?:вам |тебе )?(?:помочь|предоставить|ответить|выполнить|создать)"
    rf"|(?:[^。！？\n]{{0,12}}{_SORRY_ZH}[^。！？\n]{{0,20}}?|[^。！？\n]{{0,20}}?{_I_ZH})(?:无法|不能|無法|没办法){_HELP_ZH}"
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
    r"|disse|rispose|respondeu|сказал\w*|ответил\w*|говорит|сказав)"
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
    found = _REFUSAL.match(text[:400])
    if not found or _BY_OTHERS.search(text, 0, found.end() + 40) or _NOT_EXACT.search(text, 0, found.end() + 40):
        return None
    return found[0].strip()[:60]
