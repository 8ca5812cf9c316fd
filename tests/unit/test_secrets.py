"""The ready-made hook: what has the form of a secret goes, everything else stays."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import redact_secrets

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\nxyz==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("AWS AKIAABCDEFGHIJKLMNOP.", "AKIAABCDEFGHIJKLMNOP"),
        ("ghp_" + "a1" * 18, "ghp_" + "a1" * 18),
        ("x github_pat_" + "b2" * 35, "github_pat_" + "b2" * 35),
        ("sk-ant-api03-" + "c3" * 20 + " said", "c3" * 20),
        ("xoxb-1234567890-abcdef", "1234567890-abcdef"),
        ("AIza" + "d" * 35, "d" * 35),
        ("Authorization: Bearer " + "e5" * 16, "e5" * 16),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", "SflKxwRJSM"),
        ("postgres://me:hunter2@db/x", "hunter2"),
        (f"before {KEY} after", "MIIabc"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "cut off"),
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(text: str, secret: str) -> None:
    for value in (text, {"a": [text]}, [{"b": {"c": text}}]):
        told = str(redact_secrets("state", "k", value))
        assert secret not in told
        assert "[redacted: " in told


@pytest.mark.parametrize(
    "value",
    [
        "a sk-etch of a task-force",
        "see http://host:8084/path",
        {"tokens": 12, "secretary": "Ann"},
        7,
        None,
        b"AKIA",
        True,
    ],
)
def test_what_is_no_secret_stays(value: Any) -> None:
    assert redact_secrets("state", "k", value) == value


def test_names_tell_secrets_too() -> None:
    value = {"api_key": "abc", "db.password": "x", "OPENAI_API_KEY": "y", "password": ["kept"], "name": "z"}
    told = redact_secrets("state", "k", value)
    assert [told[name].startswith("[redacted") for name in ("api_key", "db.password", "OPENAI_API_KEY")] == [True] * 3
    assert (told["password"], told["name"]) == (["kept"], "z")
