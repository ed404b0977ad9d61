"""What endpoints reply where they refuse, as providers were seen to write it: one line a case."""

from typing import Any

from chat_server import Wire


def error(status: int, message: str, **more: Any) -> Wire:
    return Wire(status, {"error": {"message": message, **more}})


FILTERED = {
    "OpenAI": error(
        400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", code="invalid_prompt"
    ),
    "OpenAI policy": error(400, "Your request was rejected by our safety system.", code="content_policy_violation"),
    "Azure": error(
        400, "The response was filtered", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}
    ),
    "OpenRouter": error(
        403, "Your input was flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "question"}
    ),
    "DashScope": error(400, "Input data may contain inappropriate content.", code="data_inspection_failed"),
    "DashScope in words": Wire(
        400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}
    ),
    "DeepSeek": error(400, "Content Exists Risk", type="invalid_request_error"),
    "Gemini": Wire(400, [{"error": {"code": 400, "message": "blockReason: PROHIBITED_CONTENT", "status": "INVALID_ARGUMENT"}}]),
    "Zhipu": error(400, "系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301"),
    "Bedrock": error(403, "blocked by the content guardrail"),
    "StepFun": error(451, "The content you provided or machine outputted is blocked.", type="censorship_blocked"),
    "OpenRouter, a guardrail": error(403, "Request blocked: prompt injection patterns detected", code=403),
    "OpenRouter before Model Armor": error(403, "Blocked by Google Model Armor", code=403),
    "Vertex": Wire(400, {"error": {"message": "Prompt is blocked", "status": "INVALID_ARGUMENT"}}),
    "a prompt that was blocked": error(400, "Your prompt was blocked by the provider"),
    "Volcengine": error(400, "The input text may contain sensitive information.", code="InputTextSensitiveContentDetected"),
    "xAI": Wire(
        403,
        {"code": "no permission", "error": "Content violates usage guidelines. API key ID: 1a2, Failed check: SAFETY_CHECK"},
    ),
    "Bedrock, enabled": error(400, "Guardrail was enabled and input is in the blocked list: BLOCKED"),
    "MiniMax": Wire(200, {"choices": None, "base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}),
    "in a 200": Wire(200, {"error": {"code": 400, "message": "flagged by the safety system"}}),
    "no choices, and why": Wire(200, {"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}),
    "no choices, but tokens": Wire(
        200, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}}
    ),
    "a choice without a message": Wire(200, {"choices": [{"index": 0, "message": None, "finish_reason": "content_filter"}]}),
    "Cloudflare": Wire(
        424,
        {"success": False, "result": [], "error": [{"code": 2016, "message": "Prompt blocked due to security configurations"}]},
    ),
    "Cloudflare, the answer": Wire(
        424, {"error": [{"code": 2017, "message": "Response blocked due to security configurations"}]}
    ),
    "Portkey": error(446, "The guardrail checks defined in the config failed.", type="hooks_failed"),
    "new-api": error(400, "request rejected", code="content-blocked", type="new_api_error"),
}

TOO_LONG = {
    "OpenAI": error(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
    "vLLM": error(
        400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096.", type="BadRequestError"
    ),
    "vLLM max_tokens": error(
        400, "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096"
    ),
    "llama.cpp": error(
        400, "the request exceeds the available context size, try increasing it", type="exceed_context_size_error"
    ),
    "llama.cpp, as 500": error(500, "the request exceeds the available context size. try increasing the context size"),
    "TGI": Wire(
        422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs`"}
    ),
    "TGI inputs": Wire(422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}),
    "Ollama": error(400, "the input length exceeds the context length"),
    "OpenRouter": error(400, "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000"),
    "Anthropic": Wire(
        400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 > 200000"}}
    ),
    "Gemini": Wire(
        400, [{"error": {"code": 400, "message": "The input token count (12) exceeds the maximum number of tokens"}}]
    ),
    "SGLang": error(400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    "Mistral": error(400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
    "Cohere": Wire(400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4096"}),
    "Bedrock": error(400, "Input is too long for requested model."),
    "DashScope": error(400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"),
    "Moonshot": error(400, "Invalid request: Your request exceeded model token limit: 8192"),
    "Volcengine": error(400, "Total tokens of image and text exceed max message tokens. Request id: 021"),
    "SGLang, as length": error(400, "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)."),
    "Zhipu": error(400, "Prompt 超长", code="1261"),
    "DashScope, all messages": error(400, "Total message token length exceed model limit (10000000 tokens)."),
    "nginx": Wire(413, b"<html>413 Request Entity Too Large</html>"),
}

LARGER_THAN_THE_LIMIT = {
    "OpenAI": error(
        429, "Request too large for gpt-x on tokens per min (TPM): Limit 30000, Requested 45210.", code="rate_limit_exceeded"
    ),
    "Groq": error(413, "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7,500"),
    "plain": error(429, "limit: 30000, requested: 45210"),
}

NO_MONEY = {
    "402": error(402, "Payment Required"),
    "OpenRouter": error(402, "Insufficient credits", code=402),
    "OpenAI": error(429, "You exceeded your current quota, please check your plan", code="insufficient_quota"),
    "Anthropic": Wire(400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access"}}),
    "one-api": error(403, "user quota is not enough: insufficient quota", code="insufficient_user_quota"),
    "DashScope": Wire(
        400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}
    ),
    "DeepSeek": error(402, "Insufficient Balance"),
    "Moonshot": error(429, "Your account is suspended, check your balance", type="exceeded_current_quota_error"),
    "in a 200": Wire(200, {"error": {"code": 402, "message": "Insufficient credits"}}),
    "MiniMax": Wire(200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    "LiteLLM": error(400, "Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", type="budget_exceeded"),
    "OpenRouter, of a key": error(403, "Key limit exceeded (total limit).", code=403),
    "Anthropic, a month's": error(
        400, "You have reached your specified API usage limits. You will regain access on 2026-12-01."
    ),
    "Fireworks": error(
        412,
        "Account x is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.",
        code="PRECONDITION_FAILED",
    ),
    "DashScope, a free tier": error(
        403, "The free tier of the model has been exhausted.", code="AllocationQuota.FreeTierOnly", type="AllocationQuota"
    ),
    "Together": error(403, "Credit limit exceeded, please navigate to https://api.together.xyz/settings/billing"),
    "Nebius": Wire(403, {"detail": "Your account is out of funds"}),
    "Volcengine": error(
        429, "Your account [x] has reached the set inference limit for the [y] model.", code="SetLimitExceeded"
    ),
    "DashScope, a free quota": error(
        429, "Free allocated quota exceeded.", code="insufficient_quota", type="Throttling.AllocationQuota"
    ),
    "xAI": Wire(
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team 16f has either used all available credits or reached its monthly spending limit. To continue "
            "making API requests, please purchase more credits or raise your spending limit.",
        },
    ),
    "xAI, a new team": Wire(
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created team doesn't have any credits or licenses yet. You can purchase those on x.ai",
        },
    ),
    "Zhipu": error(429, "余额不足或无可用资源包,请充值。", code="1113"),
    "new-api": error(403, "该令牌额度已用尽", type="new_api_error"),
    "new-api, before it sends": error(403, "预扣费额度失败, 用户剩余额度: ¥0.1, 需要预扣费额度: ¥0.2", type="new_api_error"),
}

A_DAY = {
    "Cohere, a month's": Wire(429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
    "Mistral, a month's": Wire(429, {"message": "You have exceeded your monthly token quota"}),
    "Hugging Face, a month's": Wire(429, {"error": "You have reached the free monthly usage limit for x. Subscribe to PRO"}),
    "a month's": error(429, "Too many requests: 1000 requests per month"),
    "Moonshot, a day's": error(429, "Your account org-x request reached TPD rate limit, current: 1500001, limit: 1500000"),
    "GitHub": error(
        429, "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 41234 seconds before retrying."
    ),
    "Bedrock": Wire(429, {"message": "Too many tokens per day, please wait before trying again."}),
    "Groq": error(
        429, "Rate limit reached on tokens per day (TPD): Limit 100000, Used 100000. Please try again in 9h3m38.016s."
    ),
    "OpenRouter": error(
        429, "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 requests per day", code=429
    ),
    "Gemini": Wire(
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota. Please retry in 37.5s.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}, {"retryDelay": "37s"}],
                }
            }
        ],
    ),
}

BAD_START = {  # a refusal of everything, and what its hint names
    "Gemini's key": (Wire(400, [{"error": {"message": "API key not valid. Please pass a valid API key."}}]), "OPENAI_API_KEY"),
    "xAI's key": (Wire(400, {"code": "invalid argument", "error": "Incorrect API key provided: xa***12."}), "OPENAI_API_KEY"),
    "a gateway's key": (Wire(403, {"error": "Invalid API key"}), "OPENAI_API_KEY"),
    "MiniMax's key": (Wire(200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}), "OPENAI_API_KEY"),
    "NestJS": (Wire(401, {"statusCode": 401, "message": "token expired at noon", "error": "Unauthorized"}), "OPENAI_API_KEY"),
    "NIM": (Wire(401, {"type": "about:blank", "title": "Bad bearer", "status": 401}), "OPENAI_API_KEY"),
    "Apigee": (Wire(401, {"fault": {"faultstring": "Invalid ApiKey"}}), "OPENAI_API_KEY"),
    "DeepSeek's model": (error(400, "Model Not Exist"), "model name"),
    "OpenRouter's model": (error(400, "teacher is not a valid model ID", code=400), "model name"),
}

SET_ASIDE: dict[str, Wire] = {
    "a wrong key": error(401, "Incorrect API key provided"),
    "a wrong key in a 200": Wire(200, {"error": {"code": "invalid_api_key", "message": "no such key"}}),
    "an empty account": error(402, "Insufficient credits"),
    "an hour's wait": Wire(429, {"error": {"message": "come back"}}, {"Retry-After": "3600"}),
    "an unknown model": error(404, "The model does not exist", code="model_not_found"),
    "no access": error(403, "Forbidden"),
    "a web page": Wire(200, b"<!doctype html><html>Welcome</html>", {"Content-Type": "text/html"}),
    "a bad request": error(400, "something here is wrong"),
    "a day's limit": error(429, "Rate limit exceeded: free-models-per-day"),
    "a wrong key as a 400": error(400, "API key not valid. Please pass a valid API key."),
}

SSE = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n'

NONSENSE = {
    "a stream": (Wire(200, SSE, {"Content-Type": "text/event-stream"}), "event stream", "stream = true"),
    "JSON, then the end of a stream": (Wire(200, b'{"choices": []}\n\ndata: [DONE]\n\n'), "event stream", "stream = true"),
    "a web page": (Wire(200, b"<!doctype html>\n<html>Welcome", {"Content-Type": "text/html"}), "web page", "/v1"),
    "LM Studio": (
        Wire(200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
        "Unexpected endpoint",
        "/v1",
    ),
    "no choices": (Wire(200, {"id": "x", "choices": []}), "without a choice", "/v1"),
    "no message": (Wire(200, {"choices": [{"message": None, "finish_reason": None}]}), "without a choice", "/v1"),
    "blocked without a word": (Wire(200, {"choices": [], "usage": {"prompt_tokens": 9}}), "without a choice", "safety filter"),
    "accepted for later": (Wire(202, b""), "answered with nothing", "fetched later"),
    "half of JSON": (Wire(200, b'{"choices": [{"mess'), "not JSON", "base URL"),
    "a bad request": (error(400, "nope"), "nope", "what the endpoint says"),
    "forbidden": (error(403, "nope"), "nope", "what the key may do"),
    "DashScope, a model that thinks": (
        error(400, "parameter.enable_thinking must be set to false for non-streaming calls", code="invalid_parameter_error"),
        "non-streaming",
        "stream = true",
    ),
    "Fireworks": (error(400, "Requests with max_tokens > 4096 must have stream=true"), "must have stream", "stream = true"),
    "no answer in one": (error(400, "This model does not support non-streaming output."), "streaming", "stream = true"),
    "stream only": (
        error(400, "This model only support stream mode, please enable the stream parameter"),
        "stream mode",
        "stream = true",
    ),
}

IN_A_200 = {  # what says no more than words
    "Qianfan": {"error_code": 18, "error_msg": "Open api qps request limit reached"},
    "overloaded": {"error": "The model is overloaded. Please try again later."},
    "error true": {"error": True, "message": "Server is busy, please try again later", "code": 503},
    "Cloudflare": {"success": False, "errors": [{"code": 3040, "message": "Capacity temporarily exceeded"}], "result": None},
    "MiniMax": {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    "an empty choice": {"choices": [{"message": {"content": None}}], "error": {"message": "Rate limit exceeded", "code": 429}},
}
