"""Takes obvious secrets out of what agents capture: keys, tokens and passwords that have a form of their own.

A help against carelessness, not a proof: a secret without a form stays where it is.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

GONE: Final = "[redacted: {}]"
_PATTERNS: Final = (
    ("private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)"),
    ("AWS key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})\b"),
    ("GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("API key", r"\bsk-(?:[A-Za-z0-9]+-)*[A-Za-z0-9_-]{20,}"),
    ("Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("Google key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("Holdfast token", r"\bhf_[a-z]+_[A-Za-z0-9]{6,}_[A-Za-z0-9]{20,}(?:_[0-9a-f]{8})?\b"),
    ("JSON web token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    ("bearer token", r"(?i:\bbearer\s+)(?P<bearer>[A-Za-z0-9._~+/-]{20,}=*)"),
    ("password", r"(?<=://)[^\s/:@]+:(?P<password>[^\s/@]+)(?=@)"),
)
_NAMED: Final = re.compile(
    r"(?i)(?:^|[_\-.])(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?token"
    r"|access[_-]?token|refresh[_-]?token|client[_-]?secret)$"
)
_ALL: Final = [(name, re.compile(pattern, re.DOTALL)) for name, pattern in _PATTERNS]


def redact_secrets(collection: str, key: str, value: Any) -> Any:
    """The value without API keys, tokens, private keys and passwords in it; for `Store(…, redact=redact_secrets)`.

    Texts are looked through wherever they stand in the value; what stands under a name such as ``api_key`` or
    ``password`` goes whole. Bytes are left alone, and so is a value without secrets: it is returned as it is.

    Args:
        collection, key: not looked at; a hook of your own may.
        value: what is about to be written.
    """
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {name: _under(name, each, collection, key) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_secrets(collection, key, each) for each in value]
    return value


def _under(name: Any, value: Any, collection: str, key: str) -> Any:
    if isinstance(name, str) and isinstance(value, str) and value and _NAMED.search(name):
        return GONE.format(name)
    return redact_secrets(collection, key, value)


def _clean(text: str) -> str:
    for name, pattern in _ALL:
        text = pattern.sub(functools.partial(_replaced, name), text)
    return text


def _replaced(name: str, found: re.Match[str]) -> str:
    whole, gone = found.group(), GONE.format(name)
    part = next((text for text in found.groupdict().values() if text), None)
    return gone if part is None else whole.replace(part, gone)
