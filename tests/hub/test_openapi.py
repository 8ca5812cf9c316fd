"""The document and its page: made of the declared operations, complete, offline; and what they declare is enforced."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.hub import routes_docs
from holdfast.hub.api import Call, Operation, errors_of, typed
from holdfast.hub.principal import SCOPES, WRITE
from tests.flow.hubs import HubProcess
from tests.hub.conftest import Room

OTHER_HOST = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w+", re.ASCII)

UNTYPED: dict[str, str] = {
    # What decodes its request itself, and why.
    "POST /sync/message": "hot: the body goes through a decoder that keeps unknown fields",
    "POST /sync/files": "streams a form",
    "GET /sync/files/{file_id}": "streams bytes",
    "PATCH /sync/uploads/{upload_id}": "streams bytes",
    "POST /relay/immediate": "hot: decoded where a batch's items are",
    "GET /v1/feed": "streams",
    "POST /v1/hello": "msgpack of the wire protocol",
    "POST /v1/append": "msgpack of the wire protocol; hot",
    "GET /v1/pull": "answers msgpack of the wire protocol",
    "HEAD /v1/blobs/{digest}": "streams bytes",
    "GET /v1/blobs/{digest}": "streams bytes",
    "PUT /v1/blobs/{digest}": "streams bytes",
    "GET /storage/sessions/{id}/export": "streams lines",
    "GET /storage/artifacts/{id}/content": "streams bytes",
    "PUT /storage/artifacts/{id}/content": "streams bytes",
    "GET /livez": "a probe may carry any parameter, such as one against caches",
    "GET /readyz": "a probe may carry any parameter, such as one against caches",
    "GET /health": "a probe may carry any parameter, such as one against caches",
    "GET /version": "a probe may carry any parameter, such as one against caches",
}

BODILESS: dict[str, str] = {
    # What takes no body though its method has one, and why.
    "POST /storage/sessions/{id}/restore": "its path and query say it all",
    "POST /storage/cache/cleanup": "there is nothing to say",
    "POST /sync/uploads": "it only begins one",
    "POST /v1/notify/{name}/test": "its path says it all",
    "POST /v1/indexing/rebuild/{name}": "its path says it all",
}


def listed(room: Room) -> list[Operation]:
    return list(room.client.app.state.operations)  # type: ignore[attr-defined]


def label(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def faults(operation: Operation) -> list[str]:
    """What an operation's declaration lacks."""
    found = []
    if not operation.summary or operation.summary.endswith(".") or not operation.tag:
        found.append("a summary (one line, no full stop) and a tag")
    if operation.needs not in ("", *SCOPES):
        found.append("a scope that there is")
    if operation.method in ("POST", "PUT", "PATCH") and operation.body is None and label(operation) not in BODILESS:
        found.append("a body, or a reason in BODILESS")
    if operation.answer is None and operation.method != "HEAD" and operation.status != 204:
        found.append("an answer")
    if set(re.findall(r"\{(\w+)(?::\w+)?\}", operation.path)) != set(operation.where):
        found.append("the parameters of its path, in `where`")
    if len(operation.says) < 10:
        found.append("a docstring of what answers it")
    if not hasattr(operation.endpoint, "work") and label(operation) not in UNTYPED:
        found.append("typed(), or a reason in UNTYPED")
    return found


def test_every_operation_declares_what_it_takes_and_gives(room: Room) -> None:
    lacking = {label(each): faults(each) for each in listed(room)}
    assert {name: found for name, found in lacking.items() if found} == {}
    assert {*UNTYPED, *BODILESS} <= set(lacking)
    nothing = Operation(method="POST", path="/x/{id}", endpoint=lambda *_: None, needs="all")  # type: ignore[arg-type, return-value]
    assert len(faults(nothing)) == 7


def test_the_document_shows_every_operation_with_its_errors_and_scope(room: Room) -> None:
    answer = room.client.get("/openapi.json")
    document = answer.json()
    assert (document["openapi"], answer.headers["content-type"]) == ("3.1.0", "application/json")
    shown = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert sorted(shown) == sorted(label(each) for each in listed(room))
    assert len({each["operationId"] for each in shown.values()}) == len(shown)
    for each in listed(room):
        operation = shown[label(each)]
        assert {str(status) for status in errors_of(each)} <= set(operation["responses"])
        assert operation["security"] == ([{"token": [each.needs]}] if each.needs else [])
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{label(each)}: say what {parameter['name']} means"
    for target in re.findall(r'"\$ref":"#/([^"]+)"', answer.text):
        place: Any = document
        for name in target.split("/"):
            place = place[name]
    assert len(answer.content) < 500_000


def test_parameters_and_bodies_are_described_as_they_are_decoded(room: Room) -> None:
    document = room.client.get("/openapi.json").json()
    (limit,) = [p for p in document["paths"]["/v1/records"]["get"]["parameters"] if p["name"] == "limit"]
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (1, 1000, 100)
    assert room.client.get("/v1/records?limit=1001").status_code == 400
    body = document["paths"]["/sync/message"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    message = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert message["required"] == ["content"]
    assert set(message["properties"]) >= {"msg_id", "sender", "recipient", "role", "task_id", "timestamp"}
    batch = document["paths"]["/sync/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    items = document["components"]["schemas"][batch["$ref"].rpartition("/")[2]]["properties"]["messages"]["items"]
    assert items == body


def test_the_document_is_open_where_the_hub_wants_a_token(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from holdfast.hub.app import create_app

    with TestClient(create_app(tmp_path / "hub", token="s3cret")) as client:
        for path in ("/openapi.json", "/docs", "/docs/page.js"):
            assert client.get(path).status_code == 200
        assert client.get("/docs/page.php").status_code == 404


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("GET", "/v1/records?limti=3"), "unknown parameter 'limti'"),
        (("GET", "/v1/keys"), "the parameter 'agent' is missing"),
        (("GET", "/v1/records?limit=0"), "the parameter limit is not as it must be: expected `int` >= 1, got '0'"),
        (
            ("GET", "/v1/feed?format=xml"),
            "the parameter format is not as it must be: invalid enum value 'xml', got 'xml'",
        ),
        (("POST", "/relay/query", {"table": "t", "limt": 3}), "unknown field 'limt'"),
        (("POST", "/relay/query", {"table": 7}), "table is not as it must be: expected `str`, got `int`, got 7"),
        (("POST", "/relay/query", {}), "'table' is missing"),
        (("POST", "/relay/query", []), "the body is not as it must be: expected `object`, got `array`, got []"),
        (
            ("POST", "/sync/messages", {"messages": 1}),
            "messages is not as it must be: expected `array`, got `int`, got 1",
        ),
    ],
)
def test_what_is_not_as_declared_is_refused_by_its_name(room: Room, request_: tuple[Any, ...], message: str) -> None:
    method, path, *body = request_
    answer = room.client.request(method, path, json=body[0] if body else None)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (400, "usage", message)
    assert error["hint"]


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/sync/message", "application/json; charset=utf-8", 200),
        ("/sync/message", "Application/JSON", 200),
        ("/sync/message", "", 200),
        ("/sync/message", "text/plain", 415),
        ("/sync/message", "application/x-www-form-urlencoded", 415),
        ("/v1/append", "application/json", 415),
        ("/relay/query", "multipart/form-data; boundary=x", 415),
    ],
)
def test_another_media_type_than_the_declared_is_refused(room: Room, path: str, kind: str, status: int) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert room.client.post(path, content=b'{"content":1}', headers=headers).status_code == status


def test_another_method_is_told_all_that_there_are(room: Room) -> None:
    for path, allowed in (("/v1/feed", "GET, HEAD"), ("/v1/decide", "POST"), ("/v1/blobs/00", "GET, HEAD, PUT")):
        answer = room.client.delete(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "usage")
        assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed
    assert room.client.head("/v1/agents").status_code == 200


def test_a_blob_of_no_bytes_is_stored_and_a_wrong_one_is_not(room: Room) -> None:
    empty = f"/v1/blobs/{hashlib.sha256(b'').hexdigest()}"
    assert room.client.put(empty).status_code == 201
    assert room.client.get(empty).content == b""
    assert room.client.put("/v1/blobs/" + "0" * 64).status_code == 422


def test_an_operation_that_declares_another_body_than_it_decodes_is_refused() -> None:
    class One(msgspec.Struct):
        """A body."""

    async def work(_: Call) -> None: ...

    whole = {"method": "POST", "path": "/x", "needs": WRITE}
    declared = Operation(**whole, endpoint=typed(work, body=One), status=201)  # type: ignore[arg-type]
    assert (declared.body, declared.endpoint._status) == (One, 201)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="declares another body"):
        Operation(**whole, endpoint=typed(work, body=One), body=Call)  # type: ignore[arg-type]


def test_the_page_asks_nothing_of_other_hosts(room: Room) -> None:
    page = room.client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    parts = {name: room.client.get(f"/docs/{name}") for name in list(routes_docs.KINDS)[1:]}
    for name, answer in parts.items():
        assert (answer.status_code, answer.headers["content-type"]) == (200, routes_docs.KINDS[name])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert f"docs/{name}" in page.text
    for text in (page.text, *(answer.text for answer in parts.values())):
        assert OTHER_HOST.findall(text) == []
        assert not re.search(r"\binnerHTML|\beval\(|localStorage|document\.cookie", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page.text)


def test_the_page_shows_every_operation_in_a_browser(hub: HubProcess, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        assert not os.environ.get("CI"), "no Chromium to look at the page with: .ci/run installs it"
        pytest.skip("no Chromium to look at the page with")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    run = subprocess.run([browser, *options, f"{hub.url}/docs#post_relay_batch"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3_000:]
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    cards = re.findall(r'<details class="operation" id="(\w+)"( open="")?', run.stdout)
    assert ("post_relay_batch", ' open=""') in cards
    assert f'data-operations="{len(cards)}"' in run.stdout
    assert len(cards) > 25
    for shown in ("RowVerdicts", "the row's fields by name", "curl -X POST", "Bearer $HOLDFAST_TOKEN"):
        assert shown in run.stdout
