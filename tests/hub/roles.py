"""A hub that wants tokens, one of each kind that asks it, and what each of its routes is to answer to whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.testclient import TestClient

from holdfast import wire
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.tokens import SqliteTokens, Wish, create
from tests.hub.pens import Pen

ROLES = ("none", "reader", "other", "owner", "admin")
BLOB = b"a blob of ada's"
X = hashlib.sha256(b"x").hexdigest()
DIGEST = hashlib.sha256(BLOB).hexdigest()
CANARY = "canary"
"""Stands in everything that the reader of public collections must not learn."""


class House:
    """A hub that wants tokens, and one of each kind that asks it.

    Its agent ada writes; bob is another. The reader reads everything, `public` only what lies in public collections.
    """

    def __init__(self, home: HubDirectory) -> None:
        store = SqliteTokens(home.path)
        wishes = {
            "reader": Wish(kind="service", name="dashboard"),
            "other": Wish(kind="agent", name="bob"),
            "owner": Wish(kind="agent", name="ada"),
            "admin": Wish(kind="person", name="root", scopes=("admin",)),
            "public": Wish(kind="service", name="public", collections=("public", "public/*", "table/public-?")),
            "narrow": Wish(kind="node", name="narrow", agents=("ada", "eve-*"), collections=("public/*",)),
            "appender": Wish(kind="node", name="appender", agents=("*",), scopes=("records:append",)),
        }
        self.texts = {role: create(store, wish)[1] for role, wish in wishes.items()}
        store.close()
        self.home = home
        self.sessions = 0
        self.pens = {name: Pen(name) for name in ("ada", "bob")}

    def open(self) -> Iterator[House]:
        """The same, running."""
        app = create_app(self.home)
        self.operations = app.state.operations
        with TestClient(app, raise_server_exceptions=False) as client:
            self.client = client
            self.core = app.state.core
            yield self

    def session(self) -> str:
        """The number of a new session of ada's with a state, a message, an artifact and its content; a cached value."""
        self.sessions += 1
        number = f"{self.sessions}"
        of = {"session_id": f"session_{number}"}
        for method, path, body in (
            ("POST", "/storage/sessions", {"id": f"session_{number}", "agent_name": "ada"}),
            ("PUT", f"/storage/state/session_{number}", {"data": 1}),
            ("POST", "/storage/history", {**of, "role": "user", "content": "x"}),
            ("POST", "/storage/artifacts", {**of, "id": f"artifact_{number}", "name": "a", "type": "t"}),
            ("PUT", f"/storage/artifacts/artifact_{number}/content", b"content"),
            ("PUT", "/storage/cache/k", {"value": 1}),
        ):
            made = self.ask("admin", method, path, body)
            assert made.status_code in (200, 201), made.text
        return number

    def fresh(self, path: str, role: str) -> str:
        """What stands for ``{n}`` in a path: a session, an upload or a file of ada's that nobody has touched yet."""
        if path.startswith("/storage"):
            return self.session()
        if not path.startswith("/sync/") or "{n}" not in path:
            return role
        upload = str(self.ask("admin", "POST", "/sync/uploads").json()["upload_id"])
        begun = self.ask("admin", "PATCH", f"/sync/uploads/{upload}", b"x", Upload_Offset="0")
        assert begun.status_code == 200, begun.text
        if path.startswith("/sync/uploads"):
            return upload
        done = self.ask(
            "admin", "POST", f"/sync/uploads/{upload}/finish", {"agent_id": "ada", "name": "f", "sha256": X}
        )
        assert done.status_code == 200, done.text
        return str(done.json()["file_id"])

    def headers(self, role: str) -> dict[str, str]:
        """What this role shows."""
        return {"Authorization": f"Bearer {self.texts[role]}"} if role in self.texts else {}

    def ask(self, role: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer to what a role asks; bodies that are not bytes go as JSON."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if content is not body else {}
        sent = {**self.headers(role), **kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.client.request(method, path, content=content, headers=sent)

    def append(self, role: str, *segments: wire.Segment) -> wire.AppendAnswer:
        """What becomes of segments that a role appends."""
        message = wire.Append(self.core.home.gen, 7, list(segments), "node-1")
        answer = self.ask(role, "POST", "/v1/append", wire.encode(message), Content_Type=wire.MEDIA)
        assert answer.status_code == 200, answer.text
        return wire.decode(wire.AppendAnswer, answer.content)


# -- every route ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What is asked, and the status that each role gets; an item refused in a batch counts as its own status."""

    statuses: tuple[int, int, int, int, int]
    path: str
    body: Callable[[House, str], Any] = lambda house, role: None
    headers: Mapping[str, str] = MappingProxyType({})


OPEN = (200,) * 5
READING = (401, 200, 200, 200, 200)
WRITING = (401, 403, 403, 200, 200)
APPENDING = (401, 403, 200, 200, 200)
MEDIA = {"Content_Type": wire.MEDIA}


def message(house: House, role: str) -> Any:
    return {"msg_id": f"m-{role}", "sender": "ada", "content": 1}


def change(house: House, role: str) -> Any:
    return {"agent_id": "ada", "table": "t", "data": {"id": role, "n": 1}}


def decision(house: House, role: str) -> Any:
    return {"agent": "ada", "collection": "claims", "key": role, "value": 1}


def segment(house: House, role: str) -> bytes:
    pen = house.pens["ada"]
    pen.put(f"by-{role}", 1)
    return wire.encode(wire.Append(house.core.home.gen, 1, [pen.segment()], "node-1"))


def hello(house: House, role: str) -> bytes:
    return wire.encode(house.pens["ada"].hello())


def of_ada(house: House) -> str:
    pen = house.pens["ada"]
    return f"stream={pen.stream.hex()}&inc={pen.inc.hex()}"


EXPECTED: dict[str, Case] = {
    "GET /livez": Case(OPEN, "/livez"),
    "GET /readyz": Case(OPEN, "/readyz"),
    "GET /health": Case(OPEN, "/health"),
    "GET /version": Case(OPEN, "/version"),
    "GET /metrics": Case((401, 403, 403, 403, 200), "/metrics"),
    "GET /openapi.json": Case(OPEN, "/openapi.json"),
    "GET /docs": Case(OPEN, "/docs"),
    "GET /docs/{name}": Case(OPEN, "/docs/page.js"),
    "GET /v1/latest": Case(READING, "/v1/latest?agent=ada&key=k"),
    "GET /v1/history": Case(READING, "/v1/history?agent=ada&key=k"),
    "GET /v1/keys": Case(READING, "/v1/keys?agent=ada"),
    "GET /v1/records": Case(READING, "/v1/records"),
    "GET /v1/count": Case(READING, "/v1/count"),
    "GET /v1/search": Case(READING, "/v1/search?q=k"),
    "GET /v1/agents": Case(READING, "/v1/agents"),
    "GET /v1/heads": Case(READING, f"/v1/heads?nonce={'ab' * 16}"),
    "GET /v1/nodes": Case(READING, "/v1/nodes"),
    "GET /v1/feed": Case(READING, "/v1/feed"),
    "GET /query/messages": Case(READING, "/query/messages"),
    "POST /relay/query": Case(READING, "/relay/query", lambda house, role: {"table": "t"}),
    "HEAD /v1/blobs/{digest}": Case(READING, f"/v1/blobs/{DIGEST}"),
    "GET /v1/blobs/{digest}": Case(READING, f"/v1/blobs/{DIGEST}"),
    "PUT /v1/blobs/{digest}": Case(APPENDING, f"/v1/blobs/{DIGEST}", lambda house, role: BLOB),
    "POST /sync/message": Case(WRITING, "/sync/message", message),
    "POST /sync/messages": Case(
        WRITING, "/sync/messages", lambda house, role: {"messages": [message(house, f"batch-{role}")]}
    ),
    "POST /relay/immediate": Case(WRITING, "/relay/immediate", change),
    "POST /relay/batch": Case(WRITING, "/relay/batch", lambda house, role: [change(house, f"batch-{role}")]),
    "POST /v1/decide": Case(WRITING, "/v1/decide", decision),
    "POST /v1/hello": Case(APPENDING, "/v1/hello", hello, MEDIA),
    "POST /v1/append": Case(WRITING, "/v1/append", segment, MEDIA),
    "GET /v1/pull": Case(READING, "/v1/pull"),
}
MAKING = (401, 403, 403, 201, 201)
SOME = (401, 403, 200, 200, 200)
"""What is nobody's: the cache."""


def metric(n: str) -> dict[str, Any]:
    return {"entity_type": "agent", "entity_name": "ada", "metric_name": "m", "value": 1, "session_id": f"session_{n}"}


def deleted(house: House, n: str) -> None:
    assert house.ask("admin", "DELETE", f"/storage/sessions/session_{n}").status_code == 200


def of(**fields: Any) -> Callable[[House, str], Any]:
    return lambda house, n: {name: each.format(n=n) if isinstance(each, str) else each for name, each in fields.items()}


SESSION, ARTIFACT, CACHED = "/storage/sessions/session_{n}", "/storage/artifacts/artifact_{n}", "/storage/cache/k"
EXPECTED |= {
    "GET /": Case(OPEN, "/"),
    "POST /storage/sessions": Case(MAKING, "/storage/sessions", of(agent_name="ada")),
    "GET /storage/sessions": Case(READING, "/storage/sessions"),
    "GET /storage/sessions/{id}": Case(READING, SESSION),
    "PUT /storage/sessions/{id}": Case(WRITING, SESSION, of(status="paused")),
    "DELETE /storage/sessions/{id}": Case(WRITING, SESSION),
    "POST /storage/sessions/{id}/restore": Case(WRITING, f"{SESSION}/restore", deleted),
    "POST /storage/sessions/{id}/fork": Case(MAKING, f"{SESSION}/fork", of()),
    "GET /storage/sessions/{id}/export": Case(READING, f"{SESSION}/export"),
    "GET /storage/state/{session_id}": Case(READING, "/storage/state/session_{n}"),
    "PUT /storage/state/{session_id}": Case(WRITING, "/storage/state/session_{n}", of(data=2)),
    "DELETE /storage/state/{session_id}": Case(WRITING, "/storage/state/session_{n}"),
    "POST /storage/history": Case(MAKING, "/storage/history", of(session_id="session_{n}", role="user", content="x")),
    "GET /storage/history": Case(READING, "/storage/history?session_id=session_{n}"),
    "GET /storage/history/search": Case(READING, "/storage/history/search?session_id=session_{n}&q=x"),
    "DELETE /storage/history": Case(WRITING, "/storage/history?session_id=session_{n}"),
    "POST /storage/artifacts": Case(MAKING, "/storage/artifacts", of(session_id="session_{n}", name="a", type="t")),
    "GET /storage/artifacts": Case(READING, "/storage/artifacts?session_id=session_{n}"),
    "GET /storage/artifacts/{id}": Case(READING, ARTIFACT),
    "DELETE /storage/artifacts/{id}": Case(WRITING, ARTIFACT),
    "GET /storage/artifacts/{id}/content": Case(READING, f"{ARTIFACT}/content"),
    "PUT /storage/artifacts/{id}/content": Case(WRITING, f"{ARTIFACT}/content", lambda house, n: b"more"),
    "POST /storage/metrics": Case(MAKING, "/storage/metrics", lambda house, n: metric(n)),
    "POST /storage/metrics/batch": Case(MAKING, "/storage/metrics/batch", lambda house, n: {"metrics": [metric(n)]}),
    "GET /storage/metrics": Case(READING, "/storage/metrics"),
    "GET /storage/metrics/aggregate": Case(READING, "/storage/metrics/aggregate?metric_name=m"),
    "POST /storage/cache/cleanup": Case(SOME, "/storage/cache/cleanup"),
    "GET /storage/cache/{key}": Case(READING, CACHED),
    "PUT /storage/cache/{key}": Case(SOME, CACHED, of(value=1)),
    "DELETE /storage/cache/{key}": Case(SOME, CACHED),
}
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="agent_id"\r\n\r\nada\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n--b--\r\n'
)
UPLOAD, FILE = "/sync/uploads/{n}", "/sync/files/{n}"
EXPECTED |= {
    "POST /sync/files": Case(
        WRITING, "/sync/files", lambda house, n: FORM, {"Content_Type": "multipart/form-data; boundary=b"}
    ),
    "GET /sync/files": Case(READING, "/sync/files"),
    "GET /sync/files/{file_id}": Case(READING, FILE),
    "GET /sync/files/{file_id}/meta": Case(READING, f"{FILE}/meta"),
    "DELETE /sync/files/{file_id}": Case(WRITING, FILE),
    "POST /sync/uploads": Case((401, 403, 201, 201, 201), "/sync/uploads"),
    # An upload is nobody's until it is finished: whoever writes and knows its id goes on with it.
    "GET /sync/uploads/{upload_id}": Case(SOME, UPLOAD),
    "PATCH /sync/uploads/{upload_id}": Case(SOME, UPLOAD, lambda house, n: b"y", {"Upload_Offset": "1"}),
    "DELETE /sync/uploads/{upload_id}": Case(SOME, UPLOAD),
    "POST /sync/uploads/{upload_id}/finish": Case(WRITING, f"{UPLOAD}/finish", of(agent_id="ada", name="f", sha256=X)),
}
DENIED_BY_VERDICT = {"/sync/messages", "/relay/batch", "/v1/append"}
"""One item that is denied leaves the others: the answer is 200, and says so of the item."""
