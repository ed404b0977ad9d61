"""Secrets in text: keys in the shapes that their issuers document, passwords in URLs, values assigned to such a name."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from seqdistill.personal_data.finding import Finding

_ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:proj-|svcacct-|admin-|ant-|or-)?[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic, OpenRouter
    r"|A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}(?![A-Za-z0-9])"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"  # Slack, Google
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"  # Stripe, SendGrid
    r"|gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37}"  # Groq, xAI, Perplexity, Replicate
    r"|nvapi-[A-Za-z0-9_-]{40,}"  # NVIDIA
    r"|GOCSPX-[A-Za-z0-9_-]{28}|whsec_[A-Za-z0-9+/]{24,}|dckr_pat_[A-Za-z0-9_-]{27}"  # Google OAuth, Stripe webhooks, Docker
    r"|lin_api_[A-Za-z0-9]{40}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|sbp_[a-f0-9]{40}"  # Linear, Grafana, Supabase
    r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}|ATATT3[A-Za-z0-9_=-]{150,}"  # Shopify, Atlassian
    r"|hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{24}"
    r"|discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,}"
    r"|dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|\d{8,10}:AA[A-Za-z0-9_-]{33}"  # DigitalOcean, Databricks, Telegram
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"  # JSON Web Token (RFC 7519)
    r")"
)
_ISSUED_SIGNS = (
    *("sk-", "AKIA", "ASIA", "ABIA", "ACCA", "gh", "github_pat_", "glpat-", "hf_", "npm_", "pypi-", "xox", "AIza", "ya29."),
    *("k_live_", "k_test_", "SG.", "dop_v1_", "dapi", ":AA", "eyJ"),
    *("gsk_", "xai-", "pplx-", "r8_", "nvapi-", "GOCSPX-", "whsec_", "dckr_pat_", "lin_api_", "glsa_", "sbp_", "shp", "ATATT3"),
    *("hooks.slack.com/", "/api/webhooks/"),
)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL)
_IN_URL = re.compile(r"(?<=://)[^\s:/@'\"]{0,64}:[^\s:/@'\"]{3,128}(?=@[\w.\[-])")
_BEARER = re.compile(r"\b(?:Bearer|Authorization: Basic)\s+([A-Za-z0-9_.~+/=-]{20,})")
_ASSIGNED = re.compile(
    r"(?<![A-Za-z])(?P<name>(?:api|access|secret|private|auth|client|account|signing|encryption)"
    r"[_ -]?(?:key(?:[_ -]?id)?|token|secret)"
    r"|secret|token|apikey|passw(?:or)?d|passphrase|pwd|kennwort|passwort|contraseña|mot de passe)"
    r"[\"'`]?\s{0,3}(?::=|=>|=|:)\s{0,3}[\"'`]?(?P<value>[^\s\"'`<>(){}\[\],;]{8,256})",
    re.IGNORECASE,
)
_ASSIGNED_SIGNS = ("key", "secret", "token", "pass", "pwd", "kennwort", "contraseña")
_PLACEHOLDER = re.compile(
    r"x{4,}|\*{3,}|\.{3}|example|your|changeme|placeholder|redacted|^\$|^%|^[<{\[].*[>}\]]$|://"
    r"|^(?:user(?:name)?:)?(?:pass(?:word|wd)?|pwd|secret)$",
    re.IGNORECASE,
)


def secrets(text: str) -> Iterator[Finding]:
    """The keys, passwords and private keys in a text."""
    if "PRIVATE KEY" in text:
        yield from (_secret(match, 0) for match in _PEM.finditer(text))
    if any(sign in text for sign in _ISSUED_SIGNS):
        yield from (_secret(match, 0) for match in _ISSUED.finditer(text) if _looks_issued(match[0]))
    if "://" in text and "@" in text:
        found = (match for match in _IN_URL.finditer(text) if not _PLACEHOLDER.search(match[0].partition(":")[2]))
        yield from (_secret(match, 0) for match in found)
    if "Bearer" in text or "Basic" in text:
        yield from (_secret(match, 1) for match in _BEARER.finditer(text) if not _PLACEHOLDER.search(match[1]))
    lower = text.lower()
    if ("=" in text or ":" in text) and any(sign in lower for sign in _ASSIGNED_SIGNS):
        yield from (_secret(match, "value") for match in _ASSIGNED.finditer(text) if _looks_random(match))


def _secret(match: re.Match[str], group: int | str) -> Finding:
    return Finding("secret", match.start(group), match.end(group), match[group])


def _looks_issued(key: str) -> bool:
    """Whether a text in the shape of a key is no placeholder: it has a digit, or is of Hugging Face, whose keys have none."""
    has_digit = re.search(r"\d", key) is not None
    return (has_digit or (key.startswith("hf_") and entropy(key) >= 3.5)) and not _PLACEHOLDER.search(key)


def _looks_random(match: re.Match[str]) -> bool:
    """Whether an assigned value was drawn rather than written: letters and digits mixed, of high entropy, no placeholder."""
    value = match["value"].rstrip(".!?")
    is_password = match["name"].lower()[0] in "pkcm" and "key" not in match["name"].lower()
    if len(value) < (8 if is_password else 16) or _PLACEHOLDER.search(value):
        return False
    mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    return bool(mixed) and entropy(value) >= (2.5 if is_password else 3.2)


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
