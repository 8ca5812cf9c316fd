"""Sealing, handing keys over and erasing, as a shell would see it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from holdfast.node.hub import Hub
from tests.cli.conftest import Run
from tests.flow.hubs import HubProcess


def test_a_subject_is_sealed_handed_over_and_erased(hf: Run, home: Path) -> None:
    hf("keys", "seal", "patients")
    hf("put", "plan", '{"note": "rest"}', "-c", "patients", "--subject", "p-17")
    assert hf("ls", "-c", "patients", "--names").text == "plan\n"
    assert json.loads(hf("get", "plan", "-c", "patients").text) == {"note": "rest"}
    listed = hf("keys", "ls", "--json").json["keys"]
    assert [(key["collection"], key["subject"], key["erased"]) for key in listed] == [("patients", "p-17", None)]
    hf("keys", "export", "p.json", "-c", "patients")
    assert stat.S_IMODE((home / "p.json").stat().st_mode) == 0o600
    assert hf("keys", "export", "p.json", "-c", "patients").code != 0, "an older export may be the only copy"
    assert hf("--store", "two", "init").code == 0
    assert hf("--store", "two", "keys", "import", "p.json", "--json").json == {"keys": 1}
    (home / "bad.json").write_text('{"holdfast": "keys", "format": 1, "index": {"a": "AAAA"}, "keys": []}')
    assert hf("keys", "import", "bad.json").code == 2
    assert hf("keys", "rotate", "--json").json == {"keys": 2}
    lines = [json.loads(line) for line in hf("export").text.splitlines()]
    assert [line["missing"] for line in lines if line.get("collection") == "patients" and "key" in line] == ["sealed"]
    assert "names the subject" in hf("erase", "--subject", "p-17", "--reason", "p-17 asked").err
    assert hf("erase").code == hf("erase", "--subject", "a", "--key", "b").code == 2
    done: Any = hf("erase", "--subject", "p-17", "--reason", "asked", "--json").json
    assert (done["records"], done["keys"], done["left"]) == (1, 1, [])
    assert hf("get", "plan", "-c", "patients", "--json").code == 5
    assert "(redacted)" in hf("history", "plan", "-c", "patients").text
    assert hf("verify").code == 0
    assert hf("erase", "--subject", "p-17").code == 5
    assert hf("keys", "import", "p.json", "--json").json == {"keys": 0}, "what was erased here stays so"


def test_an_import_takes_secrets_out_where_it_is_asked_to(hf: Run, home: Path) -> None:
    chat = [{"role": "user", "content": "my key is sk-proj-abcdefghijklmnopqrstuv0123456789"}]
    (home / "chat.json").write_text(json.dumps({"messages": chat}))
    assert hf("import", "--redact", "chat.json").code == 0
    text = hf("export").text
    assert "my key is [redacted: API key]" in text
    assert "sk-proj" not in text


def test_keys_are_wrapped_by_the_passphrase_in_a_file_from_then_on(hf: Run, home: Path) -> None:
    hf("keys", "seal", "notes")
    hf("put", "k", "1", "-c", "notes")
    (home / "words").write_text("right words\n")
    (home / "words").chmod(0o600)
    assert hf("keys", "rotate", "--passphrase-file", "none").code == 2
    assert hf("keys", "rotate", "--passphrase-file", home / "words").code == 0
    assert hf("get", "k", "-c", "notes").code == 4
    (home / "holdfast.yaml").write_text("store: {passphrase_file: ./words}")
    assert hf("get", "k", "-c", "notes").text == "1\n"


def test_what_plain_clients_wrote_of_a_subject_goes_with_what_is_sealed_here(hf: Run, home: Path) -> None:
    process = HubProcess(home / "hub", token="operators-secret-token", scan_s=0)
    here = ("--hub", process.url, "--token-file", home / "token")
    (home / "token").write_text("operators-secret-token")
    (home / "token").chmod(0o600)
    (home / "other").write_text("nobodys-secret-token")
    (home / "other").chmod(0o600)
    try:
        with Hub(process.url, "operators-secret-token") as hub:
            for user, name in (("p-17", "session_a"), ("p-18", "session_b"), ("p-18", "session_c")):
                hub.sessions.create("clinic", id=name, user_id=user)
        hf("keys", "seal", "patients")
        hf("put", "plan", "rest", "-c", "patients", "--subject", "p-17", *here)
        done: Any = hf("erase", "--subject", "p-17", "--json", *here)
        assert done.code == 0, done.err
        assert (done.json["keys"], done.json["hub"]["records"], done.json["left"]) == (1, 2, [])
        assert hf("erase", "--subject", "p-17", *here).code == 5, "there is nothing of it anywhere"
        # Nothing was ever sealed for the other: the hub alone has something of it.
        denied: Any = hf("erase", "--subject", "p-18", "--json", "--hub", process.url, "--token-file", home / "other")
        assert (denied.code, "hub" in denied.json, len(denied.json["left"])) == (3, False, 1)
        assert hf("erase", "--session", "session_b", "--json", *here).json["hub"]["records"] == 2
        assert hf("erase", "--subject", "p-18", "--json", *here).json["hub"]["records"] == 2
    finally:
        process.kill()
