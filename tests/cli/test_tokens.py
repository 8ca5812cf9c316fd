"""`holdfast token`: made, shown once, used on a hub that runs, listed, revoked; and what is refused with which hint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.hub.tokens import SqliteTokens, Tokens
from tests.cli.conftest import Run, wait_for
from tests.cli.test_hub import Server, server

__all__ = ["server"]
TOKEN = re.compile(r"hf_(node|agent|service|person)_[0-9A-Za-z]{10}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}\n")


@pytest.fixture
def hub(home: Path) -> tuple[str, Path]:
    """The option that names a hub's directory, which nobody has made yet."""
    return "--data", home / "server" / "hub"


def test_a_token_is_shown_once_and_lies_nowhere(empty: Run, hub: tuple[str, Path]) -> None:
    made = empty("token", "create", *hub, "--kind", "agent", "--name", "ada", "--expires", "90d", "--note", "on trial")
    assert made.code == 0
    assert TOKEN.fullmatch(made.text), made.text
    _, _, token_id, secret, _ = made.text.strip().split("_")
    listed = empty("token", "ls", *hub)
    assert re.search(rf"{token_id}  agent  ada +valid  20\d\d-.* never +records:append,.* ada +\*$", listed.text, re.M)
    (told,) = empty("token", "ls", *hub, "--json").json["tokens"]
    assert (told["note"], told["used"], told["revoked"], told["agents"]) == ("on trial", None, None, ["ada"])
    files = b"".join(path.read_bytes() for path in hub[1].iterdir())
    assert token_id.encode() in files, "this is where it would lie"
    assert secret.encode() not in files
    assert secret not in listed.text + json.dumps(told) + made.err
    assert [path.stat().st_mode & 0o077 for path in (hub[1], hub[1] / "auth.db")] == [0, 0]


def test_a_token_works_on_a_running_hub_and_revoked_it_does_not(
    empty: Run, server: Server, home: Path, patient: Callable[[float], None]
) -> None:
    data = ("--data", server.home / "hub")
    server.start()
    assert empty("init", "--agent", "me", "--hub", server.url).code == 0
    patient(30.0)
    assert empty("put", "k", "1").text == "stored state/k v1; at the hub\n", "nobody needs a token yet"
    patient(1.0)
    made = empty("token", "create", *data, "--kind", "agent", "--name", "me", "--json").json
    (home / "token").write_text(made["token"])
    (home / "token").chmod(0o600)
    wait_for(lambda: empty("inbox").code == 4)
    assert empty("init", "--token-file", home / "token").code == 0
    assert empty("inbox").code == 0
    wait_for(lambda: empty("put", "k", "2").text.endswith("at the hub\n"))
    done = empty("token", "revoke", *data, made["id"])
    assert (done.code, done.text) == (0, f"revoked: token {made['id']} of agent me\n")
    wait_for(lambda: empty("inbox").code == 4)
    refused = empty("inbox", "--json").error
    assert (refused["code"], "revoked" in refused["hint"]) == ("unauthenticated", True)
    assert empty("put", "k", "3").code == 0, "the write is safe here all the same"
    status = empty("status")
    assert (status.code, "the hub answered 401: this node's credential is not accepted" in status.err) == (1, True)
    assert empty("token", "revoke", *data, made["token"]).text.startswith("was revoked before")
    assert empty("token", "ls", *data, "--json").json["tokens"] == []
    assert server.end() == 0
    (kept,) = empty("token", "ls", "--all", *data, "--json").json["tokens"]
    assert (kept["state"], kept["used"] is not None) == ("revoked", True)
    server.start("-v")
    assert empty("inbox").code == 4, "neither is the hub open again, nor has it taken this store's token for its own"
    assert server.end() == 0
    assert server.process is not None
    out, err = server.process.communicate()
    assert b"holdfast hub at" in out
    assert made["token"].split("_")[3].encode() not in out + err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "node", "--name", "n"), "--agent 'recruiter-*'"),
        (("--kind", "service", "--name", "s", "--scope", "records:write"), "--agent '*' for all"),
        (("--kind", "agent", "--name", "ada", "--agent", "bob"), "writes as ada alone"),
        (("--kind", "agent", "--name", "ada", "--scope", "admin"), "writes in every name"),
        (("--kind", "agent", "--name", "ada-*"), "is a glob"),
        (("--kind", "person", "--name", "p", "--scope", "root"), "known are records:read"),
        (("--kind", "person", "--name", "p", "--scope", "admin", "--collection", "a"), "knows no bounds"),
        (("--kind", "person", "--name", "p", "--expires", "soon"), "90d, 12h"),
        (("--kind", "person", "--name", "p", "--expires", "2020-01-01"), "in the past"),
        (("--kind", "person", "--name", "p", "--collection", "a[bc]"), "not a glob"),
        (("--kind", "robot", "--name", "p"), "robot"),
        (("--kind", "person", "--name", "p" * 300), "255"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    empty: Run, hub: tuple[str, Path], words: tuple[str, ...], said: str
) -> None:
    refused = empty("token", "create", *hub, *words)
    assert refused.code == 2
    assert said in refused.err
    assert refused.out == b""
    if hub[1].exists():
        assert empty("token", "ls", "--all", *hub, "--json").json == {"tokens": []}


def test_a_token_that_was_made_does_not_become_the_operators(
    empty: Run, hub: tuple[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = empty("token", "create", *hub, "--kind", "agent", "--name", "ada")
    (home / "token").write_text(made.text)
    (home / "token").chmod(0o600)
    monkeypatch.setenv("HOLDFAST_TOKEN_FILE", str(home / "token"))
    refused = empty("serve", *hub, "--port", "0")
    assert (refused.code, "the hub knows it already" in refused.err) == (2, True)


def test_a_standby_takes_over_tokens_and_revocations_without_secrets(empty: Run, home: Path) -> None:
    first, second = (("--data", home / name) for name in ("first", "second"))
    made = [empty("token", "create", *first, "--kind", "agent", "--name", name, "--json").json for name in ("a", "b")]
    told = empty("token", "export", *first)
    assert made[0]["token"].split("_")[3] not in told.text
    (home / "tokens").write_bytes(told.out)
    assert empty("token", "import", *second, home / "tokens").text == "2 new tokens, 0 revoked, of 2\n"
    assert empty("token", "ls", *second, "--json").json == empty("token", "ls", *first, "--json").json
    store = SqliteTokens(home / "second")
    assert [Tokens(store).look(each["token"].encode()) is not None for each in made] == [True, True]
    assert empty("token", "revoke", *first, made[0]["id"]).code == 0
    (home / "tokens").write_bytes(empty("token", "export", *first).out)
    for revoked in (1, 0):
        again = empty("token", "import", *second, home / "tokens", "--json").json
        assert again == {"tokens": 2, "new": 0, "revoked": revoked}
    assert [Tokens(store).look(each["token"].encode()) is not None for each in made] == [False, True]
    store.close()
    for bad in ("{}", "words", (home / "tokens").read_text().replace('"agent"', '"robot"')):
        (home / "tokens").write_text(bad)
        refused = empty("token", "import", "--data", home / "third", home / "tokens")
        assert (refused.code, "holdfast token export" in refused.err) == (2, True)


def test_a_wrong_directory_is_told(empty: Run, hub: tuple[str, Path], home: Path) -> None:
    for words in (("ls",), ("revoke", "x")):
        refused = empty("token", *words, *hub)
        assert (refused.code, "--data DIR" in refused.err) == (10, True)
    assert empty("init", home / "node").code == 0
    refused = empty("token", "create", "--data", home / "node", "--kind", "person", "--name", "p")
    assert (refused.code, "a node's directory" in refused.err) == (2, True)
    assert empty("--agent", "x", "token", "create", *hub, "--kind", "node", "--name", "n").code == 2


def test_a_directory_that_is_used_in_place_of_a_database_is_said(
    empty: Run, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE", "postgresql://nobody@127.0.0.1:9/none")
    data = ("--data", server.home / "hub")
    unused = "$HOLDFAST_DATABASE says serve.database, which is not used: --data is heard first"
    made = empty("token", "create", *data, "--kind", "node", "--name", "n", "--agent", "*")
    assert (made.code, unused in made.err) == (0, True)
    assert unused in empty("token", "ls", *data).err
    server.start()
    server.end()
    assert server.process is not None
    assert server.process.stderr is not None
    assert (
        "$HOLDFAST_DATABASE: serve.database: ignored: --data says serve.data" in server.process.stderr.read().decode()
    )
    for command in ("scan", "compact"):
        done = empty(command, *data)
        assert (done.code, unused in done.err) == (0, True), command
    (home / "holdfast.yaml").write_text("serve:\n  data: elsewhere\n")
    shown = empty("config", "show", "--json").json
    assert [(each["source"], each["path"]) for each in shown["ignored"]] == [
        (str(home / "holdfast.yaml"), "serve.data")
    ]
    assert "$HOLDFAST_DATABASE says serve.database in its place" in empty("config", "show").err
    monkeypatch.delenv("HOLDFAST_DATABASE")
    said = empty("token", "ls", *data).err
    assert "holdfast.yaml:2:" not in said, "both name a directory, and the option is heard first, as ever"
    both = empty("repair", "--plan", "--store", server.home / "hub", "--database", "postgresql://x/y")
    assert (both.code, "give --store or --database" in both.err) == (2, True)
