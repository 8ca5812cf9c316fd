"""Settings and charts over HTTP: secrets are shown once or never, figures survive a restart, forms lose nothing."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from holdfast.cli.serving import options_in
from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from holdfast.hub.figures import Figure, history, quantile
from holdfast.hub.meters import BOUNDS
from holdfast.hub.options import retold
from holdfast.node.configured import load
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import until
from tests.hub.receivers import Receiver
from tests.services import shared_postgres
from tests.ui.inside import Guarded, Inside

ROOT = Path(__file__).parents[2]
NOON_S = 1_795_348_800
"""2026-11-22 12:00 UTC."""


def fields_of(inside: Inside, path: str, what: str, **having: str) -> dict[str, str]:
    """The hidden fields of the form that does this."""
    found = [form for form in inside.forms(path) if form.get("what") == what and having.items() <= form.items()]
    assert found, f"no form to {what} {having}"
    return found[0]


# -- tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_the_first_closes_the_hub(inside: Inside) -> None:
    assert "This hub wants no token of anybody" in inside.good("/settings")
    form = fields_of(inside, "/settings", "create")
    wish = {**form, "kind": "person", "name": "root", "note": "<b>mine", "expires": "30"}
    for more, why in (
        ({}, "the first token closes this hub"),
        ({"close": "1"}, "the first token needs the scope admin"),
        ({"close": "1", "scope-admin": "1", "name": "a\0b"}, "a control character"),
        ({"close": "1", "scope-admin": "1", "expires": "7"}, "cannot end"),
    ):
        refused = inside.send("/settings/tokens", {**wish, **more})
        assert refused.status_code == 400, refused.text
        assert why in html.unescape(refused.text)
        assert 'value="&lt;b&gt;mine"' in refused.text, "what was typed is still there"
    assert inside.core.gate.tokens.every() == []
    made = inside.send("/settings/tokens", {**wish, "close": "1", "scope-admin": "1"})
    assert made.status_code == 200
    (text,) = set(re.findall(r"hf_person_\w+", made.text))
    assert made.headers["cache-control"] == "no-store"
    assert inside.page("/settings").status_code == 303, "it is closed"
    shown = inside.client.get("/settings.json", headers={"Authorization": f"Bearer {text}"})
    (token,) = shown.json()["tokens"]
    assert (token["name"], token["state"], token["scopes"]) == ("root", "valid", ["admin"])
    assert text not in shown.text


def test_tokens_are_made_once_listed_and_revoked_by_administrators_alone(guarded: Guarded) -> None:
    for role in ("reader", "writer"):
        guarded.sign_in(role)
        told = guarded.client.get("/settings.json").json()
        assert [told[name] for name in ("admin", "tokens", "notify", "configuration")] == [False, None, None, None]
        (foot, *_) = [form for form in guarded.forms("/settings") if "back" in form]
        wish = {"form_token": foot["form_token"], "what": "create", "kind": "person", "name": "x", "once": "1"}
        assert guarded.send("/settings/tokens", wish).status_code == 403
        assert guarded.send("/settings/notify", {**wish, "what": "retry"}).status_code == 403
    guarded.sign_in("admin")
    form = fields_of(guarded, "/settings", "create")
    wish = {**form, "kind": "node", "name": "laptop", "agents": "a-*, b-*", "collections": "state", "expires": ""}
    made = guarded.send("/settings/tokens", wish)
    (text,) = set(re.findall(r"hf_node_\w+", made.text))
    who = guarded.client.get("/v1/me", headers={"Authorization": f"Bearer {text}"})
    assert who.status_code == 200, who.text
    again = guarded.send("/settings/tokens", wish)
    assert (again.status_code, "was sent before" in again.text) == (409, True)
    page = guarded.good("/settings")
    assert text not in page
    tokens = guarded.client.get("/settings.json").json()["tokens"]
    (laptop,) = [each for each in tokens if each["name"] == "laptop"]
    assert (laptop["agents"], laptop["collections"]) == (["a-*", "b-*"], ["state"])
    form = fields_of(guarded, "/settings", "revoke", id=laptop["id"])
    gone = guarded.send("/settings/tokens", form)
    assert (gone.status_code, gone.headers["location"]) == (303, "/settings?done=revoked#tokens")
    assert guarded.client.get("/v1/me", headers={"Authorization": f"Bearer {text}"}).status_code == 401
    assert "laptop" not in guarded.good("/settings")
    states = {each["name"]: each["state"] for each in guarded.client.get("/settings.json?tokens=all").json()["tokens"]}
    assert states["laptop"] == "revoked"


# -- notifications ----------------------------------------------------------------------------------------------


def test_a_rule_is_made_tried_changed_silenced_and_removed(tmp_path: Path) -> None:
    receiver = Receiver()
    app = create_app(tmp_path / "hub", settle="acked", notify_hosts=("127.0.0.1",))
    with TestClient(app, raise_server_exceptions=False) as client:
        inside = Inside(client)
        assert "holdfast notify add" in inside.good("/settings"), "an empty state names the next command"
        form = fields_of(inside, "/settings", "put", was="")
        wish = {
            **form,
            "name": "ops",
            "style": "webhook",
            "address": f"{receiver.url}/T0P",
            "which": "needs",
            "rate": "20",
        }
        wish |= {"senders": "*", "to": "people", "zone": "UTC", "quiet": "", "kinds": "", "priority": "", "link": ""}
        for more, why in (
            ({"quiet": "22-7"}, "quiet hours cannot be"),
            ({"rate": "many"}, "a rate of 'many'"),
            ({"address": "ftp://x"}, "not one of http"),
            ({"name": "a b"}, "cannot be called"),
            ({"which": "some"}, "but which?"),
        ):
            refused = inside.send("/settings/notify", {**wish, **more})
            assert (refused.status_code, why in html.unescape(refused.text)) == (400, True), refused.text
            typed = {**wish, **more}
            for name in ("name", "address", "quiet", "rate"):
                assert f'name="{name}" value="{html.escape(typed[name])}"' in refused.text, "nothing typed is lost"
        made = inside.send("/settings/notify", wish)
        (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]+", html.unescape(made.text)))
        for page in (inside.good("/settings"), client.get("/settings.json").text):
            assert secret not in html.unescape(page)
            assert "T0P" not in page
        assert inside.send("/settings/notify", wish).status_code == 409, "one of that name is there"
        tried = inside.send("/settings/notify", fields_of(inside, "/settings", "test", name="ops"))
        assert "The test was taken" in tried.text
        receiver.answer = lambda number: (418, {})
        tried = inside.send("/settings/notify", fields_of(inside, "/settings", "test", name="ops"))
        assert "it answered 418" in tried.text
        receiver.answer = lambda number: (302, {})
        body = {"msg_id": "q", "sender": "<i>ada", "recipient": "people", "kind": "question", "content": 1}
        assert client.post("/sync/message", json=body).status_code == 200
        until(lambda: client.get("/settings.json").json()["notify"]["given_up"], "it is given up")
        until(lambda: 'href="/settings"><bdi>1 notification was given up' in inside.good("/"), "the Overview says so")
        receiver.answer = lambda number: (200, {})
        (letter,) = client.get("/settings.json").json()["notify"]["given_up"]
        again = inside.send("/settings/notify", fields_of(inside, "/settings", "retry", id=letter["id"]))
        assert again.headers["location"] == "/settings?done=retry#given-up"
        until(lambda: client.get("/settings.json").json()["notify"]["rules"][0]["sent"] == 1, "it is sent")
        change = fields_of(inside, "/settings", "put", was="ops")
        changed = inside.send("/settings/notify", {**wish, **change, "address": "", "which": "all", "body": "1"})
        assert changed.headers["location"] == "/settings?done=changed#notifications"
        inside.send("/settings/notify", fields_of(inside, "/settings", "off", name="ops"))
        (rule,) = client.get("/settings.json").json()["notify"]["rules"]
        assert (rule["on"], rule["kinds"], rule["body"], rule["where"]) == (False, ["*"], True, receiver.url)
        inside.send("/settings/notify", fields_of(inside, "/settings", "on", name="ops"))
        assert client.get("/settings.json").json()["notify"]["rules"][0]["on"]
        gone = inside.send("/settings/notify", fields_of(inside, "/settings", "remove", name="ops"))
        assert gone.status_code == 303
        assert client.get("/settings.json").json()["notify"]["rules"] == []
    receiver.close()


# -- configuration ----------------------------------------------------------------------------------------------


def test_the_configuration_says_who_said_what_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "holdfast.yaml").write_text(
        "serve:\n  rate: 5\n  notify_hosts: [ntfy.lan]\n  database: postgresql://holdfast:hunter2@db.lan/holdfast\n"
    )
    environ = {"HOLDFAST_SERVE_TOKEN_FILE": "/run/secrets/token", "HOLDFAST_BACKUP": "s3://key:hunter2@bucket"}
    found = load(directory=tmp_path, environ=environ, flags={"serve.port": 9})
    options = options_in(found, "hunter2")
    app = create_app(tmp_path / "hub", settle="acked", token="hunter2", told=options.told)
    head = {"Authorization": "Bearer hunter2"}
    with TestClient(app) as client:
        shown = client.get("/settings.json", headers=head)
        page = client.get("/settings", headers={**head, "Accept": "text/html"})
        told = {each["path"]: each for each in shown.json()["configuration"]}
        assert (told["serve.rate"]["value"], told["serve.port"]["origin"]) == ("5", "--port")
        assert told["serve.rate"]["origin"].endswith("holdfast.yaml:2:9")
        assert (told["serve.host"]["value"], told["serve.host"]["origin"]) == ("127.0.0.1", "")
        assert told["serve.token_file"]["origin"] == "$HOLDFAST_SERVE_TOKEN_FILE"
        for text in (shown.text, page.text):
            assert "hunter2" not in text
        (tmp_path / "holdfast.yaml").write_text("serve:\n  rate: 7\n  cache: redis://r.lan\n")
        again = options_in(load(directory=tmp_path, environ=environ, flags={"serve.port": 9}), "hunter2")
        client.portal.call(app.state.core.take_up, again)  # type: ignore[union-attr]
        told = {each["path"]: each for each in client.get("/settings.json", headers=head).json()["configuration"]}
        assert (told["serve.rate"]["value"], told["serve.rate"]["waits"]) == ("7", "")
        assert (told["serve.cache"]["value"], told["serve.cache"]["waits"]) == ("-", "redis://r.lan")
    assert retold((), again.told) == (), "what nobody told at the start is not made up"


# -- charts -----------------------------------------------------------------------------------------------------


class Placed:
    """Where a hub lies, to be opened again and again."""

    def __init__(self, path: Path, database: str) -> None:
        self._path, self._database = path, database
        self.clock = SettableClock(NOON_S * 1000)

    def open(self) -> Any:
        """The hub's home."""
        if self._database:
            return HubDatabase(self._database, settle="acked", wall=self.clock)
        return HubDirectory(self._path / "hub", settle="acked", wall=self.clock)


@pytest.fixture(params=["directory", "database"])
def placed(tmp_path: Path, request: pytest.FixtureRequest) -> Placed:
    """A place for a hub: a directory, and a database."""
    return Placed(tmp_path, shared_postgres().database() if request.param == "database" else "")


def test_figures_are_kept_over_a_restart_and_added_up(placed: Placed) -> None:
    def write(many: int) -> None:
        with TestClient(create_app(placed.open(), scan_s=0)) as client:
            core = client.app.state.core  # type: ignore[attr-defined]
            for number in range(many):
                body = {"sender": "ada", "content": number}
                assert client.post("/sync/message", json=body).status_code == 200
            assert client.get("/v1/latest?agent=nobody&key=k").status_code == 404
            core.figures._mono -= 30  # as if it had run for so long
            client.portal.call(core.figures.note)  # type: ignore[union-attr]

    write(30)
    placed.clock.advance(20)
    write(60)
    placed.clock.advance(3_600)
    with TestClient(create_app(placed.open(), scan_s=0)) as client:
        told = client.get("/charts.json?range=24h").json()
        charts = {each["id"]: {line["name"]: line["values"] for line in each["lines"]} for each in told["charts"]}
        at = [n for n, value in enumerate(charts["writes"]["records"]) if value is not None]
        assert len(at) == 1, "one point, and gaps"
        assert charts["writes"]["records"][at[0]] == pytest.approx(1.5, rel=0.1), "90 in 60 s"
        assert charts["errors"]["refused"][at[0]] == 2
        p50, p95 = charts["latency"]["p50"][at[0]], charts["latency"]["p95"][at[0]]
        assert 0 < p50 <= p95 < 5_000
        page = client.get("/charts", headers={"Accept": "text/html"}).text
        assert f"<td>{charts['writes']['records'][at[0]]:g}" in page, "the table says the same"
        assert client.get("/charts.json?range=1h").json()["empty"]
        assert client.get("/charts.json?range=2h").status_code == 400
        placed.clock.advance(91 * 86_400)
        core = client.app.state.core  # type: ignore[attr-defined]
        client.portal.call(core.figures.note)  # type: ignore[union-attr]
        assert core.corpus.one("SELECT count(*) FROM figure")[0] == 3, "what is old is gone"


def test_stretches_are_added_up_by_any_width(placed: Placed) -> None:
    home = placed.open()
    start = NOON_S // 86_400 * 86_400 - 86_400
    rows = []
    for number in range(48):
        for who in ("a", "b"):
            figure = Figure(seconds=1_800.0, records=900, buckets=[0] * 6 + [10] + [0] * 8, behind={"deck": number})
            rows.append((3_600, start + number * 3_600, who, json.dumps(as_written(figure))))
    rows.append((3_600, start, "c", "{"))  # damaged
    for row in rows:
        home.corpus.write(lambda tx, row=row: tx.sql("INSERT INTO figure VALUES(?,?,?,?)", row) and None)
    found = history(home.corpus, start, start + 2 * 86_400, 43_200, start + 30 * 3_600 + 900)
    assert [each.at for each in found if each] == [start + n * 43_200 for n in range(4)]
    first = found[0]
    assert first is not None
    assert (first.figure.records, first.seconds, first.figure.behind) == (21_600, 43_200.0, {"deck": 11})
    last = found[2]
    assert last is not None
    assert last.seconds == 6 * 3_600 + 900 + 5, "of an hour that has only begun, so much"
    home.close()


def as_written(figure: Figure) -> Any:
    """A figure as it is written down."""
    return msgspec.to_builtins(figure)


def test_quantiles_are_of_the_buckets() -> None:
    none = [0] * (len(BOUNDS) + 1)
    assert quantile(none, 0.5) is None
    at_5_ms = [*none]
    at_5_ms[BOUNDS.index(0.005)] = 100
    assert quantile(at_5_ms, 0.5) == pytest.approx(0.00375)
    assert quantile(at_5_ms, 1.0) == 0.005
    at_5_ms[-1] = 100
    assert quantile(at_5_ms, 0.95) == BOUNDS[-1], "at least"


def test_charts_are_for_whoever_may_see_everything(guarded: Guarded) -> None:
    guarded.sign_in("admin")
    assert guarded.page("/charts").status_code == 200
    guarded.sign_in("reader")
    assert guarded.page("/charts").status_code == 200
    guarded.sign_in("public")
    assert guarded.page("/charts").status_code == 403


def test_the_dashboard_that_is_served_is_the_one_that_is_deployed(inside: Inside) -> None:
    (link,) = re.findall(r'href="([^"]+)" download', inside.good("/charts"))
    served = inside.client.get(link)
    assert served.headers["content-type"] == "application/json"
    assert served.content == (ROOT / "deploy" / "grafana" / "holdfast.json").read_bytes()
