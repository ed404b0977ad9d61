"""What it means when an endpoint does not answer: for this try, for its request, for the endpoint. Sends nothing.

The rules are tables of statuses and of what providers were seen to write; a new provider's wording is one more alternative.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from seqdistill.engines.dialect import WRONG_SCHEMA
from seqdistill.engines.pace import spoken_pause
from seqdistill.engines.replies import as_dict, as_list, choices_in, error_of, has_answer, has_error
from seqdistill.engines.usage import usage_of
from seqdistill.errors import SeqdistillError, UsageError

PERHAPS_BILLED = (408, 499, 504, 524)  # a gateway gave up waiting: the model behind it may have answered
FOR_LOAD = (429, 498)  # the second is Groq's, for its flex tier: https://console.groq.com/docs/flex-processing
PASSES = (409, 424, 425)  # 424 is TGI's and Bedrock's, where the model behind them failed
JUDGING = (400, 403, 422, 424, 446, 451)  # may be about a prompt; 424 is Cloudflare's for a guardrail, 446 is Portkey's
LONGEST_PAUSE_SECONDS = 900.0
SHOWN = 300  # characters of what an endpoint said
READ = {429: 4000}  # characters that are read of a message; other refusals may repeat the prompt in theirs, which says nothing
READ_OF_OTHERS = 500

# Azure may bill what it refuses for a filter, at the length of an answer, or for its length:
# https://learn.microsoft.com/azure/ai-foundry/openai/how-to/manage-costs
AZURE = re.compile(r"\.azure\.(?:com|us|cn)\b", re.IGNORECASE)

Scope = Literal["try", "request", "endpoint"]


@dataclass
class Failure(Exception):
    """One try's failure."""

    kind: str
    message: str
    scope: Scope = "try"  # what it ends: another try may help, or none of this request, or none at this endpoint
    is_rate_limited: bool = False  # the endpoint refused for load
    is_down: bool = False  # the endpoint, or the model that it forwards to, does not work at present
    is_unreachable: bool = False  # the request never reached the endpoint
    may_be_billed: bool = False  # the request was sent, and perhaps billed, but its answer did not arrive: its hold stays
    is_permanent: bool = False  # the same request would fail again
    is_content_filtered: bool = False  # on this prompt, by a content filter: an answer
    is_adapted: bool = False  # the request will be sent in another form
    is_loading: bool = False  # it says that it is loading its model, which takes minutes
    pause: float | None = None  # seconds, from Retry-After or in words
    hint: str = ""  # the next action, where all requests fail so
    reply: dict[str, Any] = field(default_factory=dict)

    def fatal(self, count: int = 0, *, proven: bool = False) -> SeqdistillError:
        """The error that ends the run, when no endpoint is left.

        `count` requests failed so, one after the other, where one proves nothing; `proven`: after others were answered.
        """
        message, later = self.message, proven or self.is_down or self.is_rate_limited or self.kind in ("no money", "long wait")
        if count:
            message += f"; the {'last' if proven else 'first'} {count} requests all failed so"
        return (SeqdistillError if later else UsageError)(
            message, self.hint or "fix the cause and run again; no answer is lost"
        )


# --- what providers write -------------------------------------------------------------------------------------------------

CONTENT_FILTER = re.compile(  # on a prompt
    r"content[_ -]?(?:filter|policy|moderation)|contentfilter|invalid_prompt|responsible ?ai ?policy|policy[_ -]?violation"
    r"|data_?inspection_?failed|inappropriate content|content exists risk|high risk|risk control|sensitive (?:content|word)"
    r"|\bflagged\b|usage polic(?:y|ies)|violat\w+ .{0,60}(?:polic|guideline|terms)"
    r"|safety (?:system|filter|guideline|polic|reason|check)|\bblock_?reason|prohibited_content|unsafe[_ ]content"
    r"|(?:moderation|prompt|response)[_ ]block|content[_-]blocked|guardrail checks .{0,40}failed"
    r"|blocked by .{0,40}(?:safety|filter|guard)"
    r"|guardrails? (?:intervened|blocked|triggered|violat)|(?:for|due to) safety"
    r"|unsafe[_ ](?:prompt|input|message)|harmful content|敏感|不安全|违规"
    r"|(?<![\w-])sensitive (?:information|input|prompt)|sensitive_?content|in the blocked list"
    r"|censorship|content .{0,40}(?:is|was) blocked|request blocked: .{0,40}(?:prompt|injection|policy|content [a-z]+ detected)"
    r"|prompt (?:is|was) blocked|model armor",
    re.IGNORECASE,
)
OF_THE_ACCOUNT = re.compile(
    r"\b(?:account|organi[sz]ation|api key|project|billing)\b.{0,60}(?:flagged|violat|suspend|block|disabl)"
    r"|\b(?:access|api key|account)\b.{0,20}(?:terminated|revoked|suspended|banned)",
    re.I,
)
CONTENT_FILTER_CODES = ("safety", "sensitive", "blocked", "recitation", "1301", "cyber_policy_violation")
NO_MONEY = re.compile(
    r"insufficient[_ ](?:\w+[_ ])?(?:quota|balance|credit|fund)|credit balance|billing[_ ](?:hard[_ ]limit|not[_ ]active)"
    r"|account.{0,30}(?:not active|suspended|overdue|arrears|deactivated|balance)|arrearage|out of credits|payment required"
    r"|exceeded[_ ](?:your[_ ])?current[_ ]quota|no (?:remaining )?credits|not enough (?:credit|balance|quota)|quota_not_enough"
    r"|(?:spend|spending|monthly|billing|usage) (?:limit|cap|budget).{0,40}(?:reached|exceeded)|余额不足|欠费|额度不足"
    r"|(?:reached|exceeded) your .{0,30}(?:usage|spend\w*) limit|(?:budget|key limit) (?:has been )?exceeded|budget_exceeded"
    r"|credit limit exceeded|free ?tier ?only|out of funds|reached the set .{0,20}limit|SetLimitExceeded"
    r"|(?:reaching|reached) (?:the|your|its) (?:monthly )?spending limit|used all available credits|have any credits"
    r"|free allocated quota exceeded|额度(?:已用尽|失败)|剩余额度",
    re.IGNORECASE,
)
BAD_KEY = re.compile(  # where it does not come with a 401
    r"api[ _-]?key.{0,20}(?:not valid|invalid|not found|expired|incorrect)|(?:incorrect|invalid|expired) api[ _-]?key", re.I
)
NO_MODEL = re.compile(
    r"\bmodel\b.{0,80}(?:not exist|not found|not a valid|no longer available|has been (?:retired|deprecated|decommissioned))"
    r"|(?:invalid|unknown|no such) model\b|not a valid model",
    re.IGNORECASE,
)
STARTING = re.compile(r"\b(?:loading|starting up|warming up|cold[ -]start|initiali[sz]ing|scaling up)\b", re.I)
A_DAY = re.compile(  # or a month
    r"(?:per[ _-]?|/ ?|a )(?:day|month)\b|PerDay|ByDay|\b(?:daily|monthly|[RT]PD)\b", re.IGNORECASE
)
SOONER = re.compile(r"per[ _-]?(?:second|minute|hour)|\b[RT]PM\b", re.IGNORECASE)
COMES_BACK = re.compile(r"(?:retry|try again) (?:in|after) \d|per[ _-]?(?:second|minute|hour|day)", re.IGNORECASE)
A_MINUTE_S = re.compile(  # Alibaba's, under the code of an empty account: https://help.aliyun.com/en/model-studio/rate-limit
    r"(?:aliyun|alibabacloud)\.com/\S*error-code|(?<!free )allocated quota exceeded|current requests list", re.IGNORECASE
)
TOO_LONG = re.compile(
    r"context.{0,12}(?:length|window|size|limit)|max(?:imum)?[ _](?:input|model|prompt|sequence|seq|allowed input)[ _]?len"
    r"|(?:prompt|input|request|messages?|conversation)s? (?:is |are |was )?too (?:long|large|big)|longer than the (?:max|model)"
    r"|exceeds? (?:the |its |this )?(?:available |maximum |model'?s? )*(?:context|number of (?:input )?tokens|token limit)"
    r"|`?inputs`? (?:tokens \+|must have less than)|too many (?:input |prompt )?tokens|reduce the length"
    r"|token count.{0,40}exceed|string_above_max_length|max_prompt_tokens|n_ctx|number of tokens to keep"
    r"|range of input length|超长|过长"
    r"|exceed\w* (?:the |its )?(?:model )?(?:max\w* )?(?:allowed )?(?:token limit|message tokens|length\b)"
    r"|token length exceed",
    re.IGNORECASE,
)
OVER_LIMIT = re.compile(
    r"request (?:is )?too large|limit\D{0,3}(?P<limit>[\d,]+)\b.{0,80}?requested\D{0,3}(?P<requested>[\d,]+)", re.I | re.S
)
REJECTED_ANSWER = re.compile(  # what the model wrote, and not the request: Groq's codes, and OpenAI's words
    r"\b(?:json_validate_failed|tool_use_failed)\b|max_tokens or model output limit was reached", re.IGNORECASE
)
STREAM_ONLY = re.compile(
    r"only supports? stream|streaming is (?:required|strongly)|stream.{0,30}(?:must be|to) (?:set to )?true"
    r"|non-?stream\w* .{0,30}(?:not|n't)|not support non-?stream|false for non-?stream|must have stream"
    r"|enable the stream",
    re.IGNORECASE,
)
STATUS_OF_CODE = {  # where an error comes with a 200, or with a word only
    **dict.fromkeys(
        ("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "resource_exhausted", "throttlingexception"), 429
    ),
    **dict.fromkeys(("insufficient_quota", "rate_limit_reached", "throttling", "rate_limited"), 429),
    **dict.fromkeys(
        ("invalid_api_key", "authentication_error", "unauthenticated", "unauthorized", "invalid_authentication"), 401
    ),
    **dict.fromkeys(("permission_denied", "permission_error", "forbidden"), 403),
    **dict.fromkeys(("model_not_found", "not_found_error", "not_found"), 404),
    **dict.fromkeys(("payment_required", "billing_error", "insufficient_balance", "insufficient_credits"), 402),
    **dict.fromkeys(("overloaded_error", "overloaded", "engine_overloaded"), 529),
    **dict.fromkeys(("unavailable", "service_unavailable", "service_unavailable_error"), 503),
    **dict.fromkeys(("server_error", "api_error", "internal_error", "internal", "internal_server_error"), 500),
    **dict.fromkeys(("timeout", "timeout_error", "deadline_exceeded", "gateway_timeout"), 504),
    **dict.fromkeys(
        ("invalid_request_error", "invalid_argument", "context_length_exceeded", "bad_request", "badrequesterror"), 400
    ),
    **dict.fromkeys(("content_filter", "content_policy_violation", "invalid_prompt", "datainspectionfailed", "sensitive"), 400),
}
DOWN = (500, 502, 503, *range(520, 524), 525, 526, 527, 529, 530)
TOP_UP = "top up the account or raise its limit, then run again; nothing that was answered is lost"
NO_V1 = "check the base URL: it often ends in /v1"


@dataclass(frozen=True)
class Who:
    """Endpoint, model and key of a refusal, for its message."""

    endpoint: str
    model: str | None
    key_env: str


def refusal(
    who: Who, status: int, error: Mapping[str, Any], pause: float | None, *, proven: bool, is_page: bool = False
) -> Failure:
    """What an HTTP status outside 2xx means. `error` is `replies.error_in` it, `pause` Retry-After in seconds.

    `proven` is whether this endpoint has answered a request before; `is_page`, whether a web page came: it judges no prompt.
    """
    message = str(error.get("message") or "")
    text, whole = message[:READ_OF_OTHERS], message[: READ.get(status, READ_OF_OTHERS)]
    shown = f"{who.endpoint} says {status}: {text}"
    codes = [str(error.get(key) or "").lower() for key in ("code", "type", "status", "reason")]
    further = [json.dumps(error[key])[:2000] for key in ("metadata", "innererror", "details") if error.get(key)]
    everything = " ".join([*codes, whole, *further])
    pause = spoken_pause(everything) if pause is None and status in (*FOR_LOAD, 503) else pause

    def failure(kind: str = f"http {status}", scope: Scope = "try", **more: Any) -> Failure:
        return Failure(kind, shown, scope, reply={**error, "message": text}, **more)

    if status in (400, 422) and WRONG_SCHEMA.search(everything):  # LiteLLM calls it a content policy's violation
        return failure(scope="request", hint="change the schema, or the choices, as the endpoint says")
    judged = CONTENT_FILTER.search(everything) or any(code in CONTENT_FILTER_CODES for code in codes)
    if status in JUDGING and judged and not is_page and not OF_THE_ACCOUNT.search(text):
        return failure("content filter", "request", is_content_filtered=True, may_be_billed=True)  # Azure and xAI bill it
    if _no_money(status, codes, everything, pause):
        return failure("no money", "endpoint", hint=TOP_UP)
    if status == 401 or (not proven and status in (400, 403) and BAD_KEY.search(everything)):
        return failure(scope="endpoint", hint=f"check the key in the environment variable {who.key_env}")
    if status == 407:
        return failure(scope="endpoint", hint="check the proxy that HTTP_PROXY or HTTPS_PROXY names, and its password")
    if status in (429, 413) and _over_limit(text):
        return failure("over limit", "request", hint="shorten the prompt or lower --max-tokens")
    if status == 413 or (status in (400, 422, 500) and TOO_LONG.search(everything)):
        hint = "shorten the prompts, or lower --max-tokens: both count"
        return failure("too long", "request", hint=hint, may_be_billed=AZURE.search(who.endpoint) is not None)
    if pause is not None and pause > LONGEST_PAUSE_SECONDS and (status in (408, 409, *FOR_LOAD) or status >= 500):
        wait = f"{who.endpoint} answered {status}: wait {pause / 3600:.1f} hours: {text}"
        return Failure("long wait", wait, "endpoint", hint="run again then; nothing that was answered is lost")
    if status == 429 and _is_of_a_day(everything, pause):
        return failure("long wait", "endpoint", hint="run again when that limit is over; nothing that was answered is lost")
    if status in FOR_LOAD or (status == 402 and pause is not None):
        return failure(is_rate_limited=True, pause=pause)
    if status in PERHAPS_BILLED:
        return failure(is_down=True, may_be_billed=True, pause=pause)
    if status in DOWN:
        return failure(
            is_down=True,
            is_rate_limited=status != 500,
            pause=pause,
            is_loading=status == 503 and STARTING.search(text) is not None,
        )
    if status in PASSES or status >= 500:
        return failure(is_down=status >= 500, pause=pause)
    if not proven and (status == 404 or (status in (400, 403) and NO_MODEL.search(text))):
        return failure(scope="endpoint", hint=f"check the model name {who.model!r} and the base URL (it often ends in /v1)")
    if status == 404:
        return failure(hint=f"earlier requests worked: is {who.model!r} still served?")
    if status == 400 and ("failed_generation" in error or REJECTED_ANSWER.search(everything)):
        return failure("broken off", may_be_billed=True, hint="raise --max-tokens, or simplify the schema")
    if STREAM_ONLY.search(everything):
        return failure(scope="request", hint="set stream = true in the model's table (--teacher-stream)")
    hint = "check [generate] and the model's options against what the endpoint says"
    if status in (403, 405):
        hint = f"check the model name {who.model!r}, what the key may do, and the base URL (it often ends in /v1)"
    return failure(scope="request", hint=hint)


def _no_money(status: int, codes: list[str], everything: str, pause: float | None) -> bool:
    """Whether the account is empty. Some call a minute's limit a quota, too: that one comes back."""
    if status == 402:
        return pause is None  # with one, it is for what is under way: OpenRouter's in-flight budget
    if status == 429 and A_MINUTE_S.search(everything):
        return False
    if "insufficient_quota" in codes:
        return status in (400, 403, 429)
    if status == 429 and (pause is not None or COMES_BACK.search(everything)):
        return False
    return status in (400, 403, 412, 429) and NO_MONEY.search(everything) is not None


def _is_of_a_day(everything: str, pause: float | None) -> bool:
    """Whether a day's or a month's limit is used up. Gemini requests half a minute's pause even then, and names the quota."""
    named = A_DAY.search(everything) is not None and not SOONER.search(everything)
    return "PerDay" in everything or (pause is None and named)


def _over_limit(text: str) -> bool:
    """Whether one request is larger than a minute's limit: it never fits."""
    match = OVER_LIMIT.search(text)
    if match is None or match["limit"] is None:
        return match is not None
    return int(match["requested"].replace(",", "")) > int(match["limit"].replace(",", ""))


# --- replies of status 200 that hold no answer -----------------------------------------------------------------------------


def status_of(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error in a reply means; None where it does not say."""
    for key in ("code", "status", "status_code", "http_code", "type"):
        value = error.get(key)
        if isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch(r"[45]\d\d", str(value)):
            return int(value)
        if isinstance(value, str) and (status := STATUS_OF_CODE.get(value.lower())):
            return status
    message = str(error.get("message") or "").lower()
    if re.search(r"rate limit|too many requests|\bqps\b|request limit", message):
        return 429
    return 503 if re.search(r"overloaded|\bbusy\b|at capacity|capacity (?:temporarily )?exceeded", message) else None


def no_answer(who: Who, reply: Any, *, proven: bool) -> Failure:
    """What a JSON reply of status 200 without a choice means."""
    body = as_dict(reply)
    of_choice = _error_of_choice(body)
    beside = error_of(body) if has_error(body) else {}
    error = of_choice or beside
    code = error_of(body) if not error and "choices" not in body and status_of(body) else error
    began = any(has_answer(choice["message"]) for choice in choices_in(body))
    billed = bool(usage_of(body).completion or began or (body.get("choices") and not beside))
    if code and (status := status_of(code)):
        failure = refusal(who, status, code, None, proven=proven)
        failure.may_be_billed = failure.may_be_billed or billed
        failure.kind = "no answer" if of_choice else failure.kind  # it had begun one
        return failure
    shown = str(error.get("message") or json.dumps(body or reply))[:SHOWN]
    message = f"{who.endpoint} answered without a choice: {shown}"
    hint = f"{NO_V1}; or look into what the endpoint says"
    return Failure("no answer", message, may_be_billed=billed or not error, is_permanent=True, hint=hint, reply=body)


def _error_of_choice(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The error in a choice that ended by one, as routers write it."""
    errors = [as_dict(as_dict(choice).get("error")) for choice in as_list(reply.get("choices"))]
    return next((error_of(error) for error in errors if error), {})


def is_blocked(reply: Mapping[str, Any]) -> bool:
    """Whether a reply without choices says that a safety filter took them: it says so, or it counts a prompt and no answer."""
    if reply.get("choices"):
        return False
    if re.search(
        r'"(?:block_?reason|native_finish_reason)": "\w+|"(?:filtered|blocked|flagged|input_sensitive|output_sensitive)": true',
        json.dumps(reply),
        re.I,
    ):
        return True
    usage = usage_of(reply)
    return bool(usage.prompt) and not usage.completion and not has_error(reply)


def not_json(who: Who, content: bytes, why: str) -> Failure:
    """What a reply of status 200 means that is not JSON."""
    start = content[:2000].lstrip().lower()
    if start.startswith((b"data:", b"event:", b":")) or b"data: [done]" in content[-100:].lower():
        return Failure(
            "event stream",
            f"{who.endpoint} answered with an event stream, though none was requested",
            may_be_billed=True,
            is_permanent=True,
            hint="set stream = true in the model's table (--teacher-stream)",
        )
    if not start:
        return Failure(
            "empty reply", f"{who.endpoint} answered with nothing", may_be_billed=True, is_permanent=True, hint=NO_V1
        )
    if start.startswith(b"<"):
        return Failure(
            "web page",
            f"{who.endpoint} answered with a web page instead of JSON",
            may_be_billed=True,
            is_permanent=True,
            hint=NO_V1,
        )
    return Failure(
        "malformed reply",
        f"{who.endpoint} answered something that is not JSON: {why}",
        may_be_billed=True,
        hint="check the base URL and what is between here and the endpoint",
    )
