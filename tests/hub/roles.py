"""A hub that wants tokens, one of each kind that asks it, and what each of its routes is to answer to whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.testclient import TestClient

from holdfast import wire
from holdfast.corpus.search.indexes import declared
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.tokens import SqliteTokens, Wish, create
from tests.hub.pens import Pen

ROLES = ("none", "reader", "other", "owner", "admin")
BLOB = b"a blob of ada's"
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
            "eves": Wish(kind="node", name="eves", agents=("eve-*",)),
            "zoes": Wish(kind="service", name="zoes", agents=("zoe",), scopes=("records:read", "records:write")),
            "keeper": Wish(kind="node", name="keeper", agents=("*",), collections=("public/*",)),
            "sql": Wish(kind="service", name="sql", scopes=("records:read", "sql:read")),
            "sql-narrow": Wish(
                kind="service", name="sql-narrow", scopes=("records:read", "sql:read"), collections=("public/*",)
            ),
            "blind": Wish(kind="agent", name="zoe", scopes=("records:write", "records:append")),
        }
        self.texts = {role: create(store, wish)[1] for role, wish in wishes.items()}
        store.close()
        self.home = home
        self.pens = {name: Pen(name) for name in ("ada", "bob")}
        self.files: dict[str, str] = {}
        """What files and uploads are called here."""

    def open(self) -> Iterator[House]:
        """The same, running."""
        app = create_app(self.home)
        self.operations = app.state.operations
        with TestClient(app, raise_server_exceptions=False) as client:
            self.client = client
            self.core = app.state.core
            yield self

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


def form(name: str, agent: str) -> bytes:
    """A file in a form."""
    return (
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n{name}\r\n'
        f'--x\r\nContent-Disposition: form-data; name="agent_id"\r\n\r\n{agent}\r\n--x--\r\n'
    ).encode()


FORM = {"Content_Type": "multipart/form-data; boundary=x"}


def furnish(house: House, name: str, agent: str = "ada") -> None:
    """A session of this name with a message, a state, an artifact and its bytes, a metric of it, and a file."""
    session, artifact = f"session_{name}", f"artifact_{name}"
    for method, path, body in (
        ("POST", "sessions", {"id": session, "agent_name": agent, "metadata": {"about": name}}),
        ("POST", "history", {"session_id": session, "role": "user", "content": name, "id": f"msg_{name}"}),
        ("PUT", f"state/{session}", {"data": name}),
        ("POST", "artifacts", {"session_id": session, "name": name, "type": "t", "id": artifact}),
        ("PUT", f"artifacts/{artifact}/content", name.encode()),
        ("POST", "metrics", figure(session)),
        ("PUT", f"cache/{name}", {"value": name}),
    ):
        answer = house.ask("admin", method, f"/storage/{path}", body)
        assert answer.status_code in (200, 201), answer.text
    stored = house.ask("admin", "POST", "/sync/files", form(name, agent), **FORM)
    assert stored.status_code == 200, stored.text
    house.files[name] = stored.json()["file_id"]
    # The upload is the owner's whoever asks for it; a second one, to be given up.
    for which in ("up", "dropped"):
        house.files[f"{which}-{name}"] = house.ask("owner", "POST", "/sync/uploads").json()["upload_id"]


def figure(session: str) -> dict[str, Any]:
    """A metric of a session."""
    return {"entity_type": "tool", "entity_name": "t", "metric_name": "n", "value": 1, "session_id": session}


# -- every route ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What is asked, and the status that each role gets; an item refused in a batch counts as its own status.

    In the path `*` stands for the role, and `<…>` for a file or an upload of that name.
    """

    statuses: tuple[int, int, int, int, int]
    path: str
    body: Callable[[House, str], Any] = lambda house, role: None
    headers: Mapping[str, str] = MappingProxyType({})


OPEN = (200,) * 5
READING = (401, 200, 200, 200, 200)
WRITING = (401, 403, 403, 200, 200)
APPENDING = (401, 403, 200, 200, 200)
ADMINS = (401, 403, 403, 403, 200)
CREATING = (401, 403, 403, 201, 201)
UPLOADING = (401, 403, 404, 200, 200)
"""To others an upload is not there."""
SHARED = APPENDING
"""What any writer may change, as it is no agent's."""
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


def new_session(house: House, role: str) -> Any:
    return {"agent_name": "ada", "metadata": {"by": role}}


def new_message(house: House, role: str) -> Any:
    return {"session_id": f"session_{role}", "role": "user", "content": role}


def new_artifact(house: House, role: str) -> Any:
    return {"session_id": f"session_{role}", "name": "n", "type": "t"}


def new_metric(house: House, role: str) -> Any:
    return figure(f"session_{role}")


def new_metrics(house: House, role: str) -> Any:
    about = {"entity_type": "agent", "entity_name": "ada", "metric_name": "n", "value": 1}
    return {"metrics": [about, figure(f"session_{role}")]}


def filler(house: House, role: str) -> Any:
    return {"identity": declared("m").identity, "filler": "one"}


EXPECTED: dict[str, Case] = {
    "GET /": Case(OPEN, "/"),
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
    "POST /v1/search": Case(READING, "/v1/search", lambda house, role: {"q": "k", "collection": "state"}),
    "GET /v1/agents": Case(READING, "/v1/agents"),
    "GET /v1/audit": Case(READING, "/v1/audit"),
    "GET /v1/heads": Case(READING, f"/v1/heads?nonce={'ab' * 16}"),
    "GET /v1/nodes": Case(READING, "/v1/nodes"),
    "GET /v1/me": Case(READING, "/v1/me"),
    "GET /v1/feed": Case(READING, "/v1/feed"),
    "GET /query/messages": Case(READING, "/query/messages"),
    "GET /v1/inbox": Case(READING, "/v1/inbox?for=ada"),
    "POST /relay/query": Case(READING, "/relay/query", lambda house, role: {"table": "t"}),
    "HEAD /v1/blobs/{digest}": Case(READING, f"/v1/blobs/{DIGEST}"),
    "GET /v1/blobs/{digest}": Case(READING, f"/v1/blobs/{DIGEST}"),
    "PUT /v1/blobs/{digest}": Case(APPENDING, f"/v1/blobs/{DIGEST}", lambda house, role: BLOB),
    "POST /sync/message": Case(WRITING, "/sync/message", message),
    "POST /sync/messages": Case(
        WRITING, "/sync/messages", lambda house, role: {"messages": [message(house, f"batch-{role}")]}
    ),
    "GET /v1/messages/{id}": Case(READING, "/v1/messages/m-owner"),
    "GET /v1/messages/{id}/delivery": Case(READING, "/v1/messages/m-owner/delivery"),
    "POST /v1/messages/{id}/state": Case(
        WRITING, "/v1/messages/m-owner/state", lambda house, role: {"state": "read", "reader": "ada"}
    ),
    "POST /relay/immediate": Case(WRITING, "/relay/immediate", change),
    "POST /relay/batch": Case(WRITING, "/relay/batch", lambda house, role: [change(house, f"batch-{role}")]),
    "POST /v1/decide": Case(WRITING, "/v1/decide", decision),
    "POST /v1/hello": Case(APPENDING, "/v1/hello", hello, MEDIA),
    "POST /v1/append": Case(WRITING, "/v1/append", segment, MEDIA),
    "GET /v1/pull": Case(READING, "/v1/pull"),
    "PUT /v1/collections/{name}/schema": Case(
        WRITING, "/v1/collections/people/schema?agent=ada", lambda house, role: {"version": 1, "index": ["age"]}
    ),
    "PUT /v1/collections/{name}/items/{key}": Case(
        WRITING, "/v1/collections/people/items/a/*?agent=ada", lambda house, role: {"value": {"age": 1}}
    ),
    "GET /v1/collections": Case(READING, "/v1/collections"),
    "GET /v1/collections/{name}/schema": Case(READING, "/v1/collections/people/schema"),
    "GET /v1/collections/{name}/items/{key}": Case(READING, "/v1/collections/people/items/a/owner?agent=ada"),
    "POST /v1/collections/{name}/find": Case(READING, "/v1/collections/people/find", lambda house, role: {}),
    "POST /v1/collections/{name}/count": Case(READING, "/v1/collections/people/count", lambda house, role: {}),
    "POST /v1/collections/{name}/aggregate": Case(
        READING, "/v1/collections/people/aggregate", lambda house, role: {"of": "age"}
    ),
    "POST /v1/collections/{name}/search": Case(
        READING, "/v1/collections/people/search", lambda house, role: {"words": "a"}
    ),
    "DELETE /v1/collections/{name}/items/{key}": Case(WRITING, "/v1/collections/people/items/a/*?agent=ada"),
    "PUT /v1/indexes/{name}": Case(SHARED, "/v1/indexes/state", lambda house, role: {"model": "m"}),
    "GET /v1/indexes": Case(READING, "/v1/indexes"),
    "GET /v1/indexes/{name}": Case(READING, "/v1/indexes/state"),
    "POST /v1/indexing/pending/{name}": Case(SHARED, "/v1/indexing/pending/state", filler),
    "POST /v1/indexing/vectors/{name}": Case(SHARED, "/v1/indexing/vectors/state", filler),
    "POST /v1/indexing/rebuild/{name}": Case(SHARED, "/v1/indexing/rebuild/state"),
    "DELETE /v1/indexes/{name}": Case(SHARED, "/v1/indexes/state"),
    "POST /storage/sessions": Case(CREATING, "/storage/sessions", new_session),
    "GET /storage/sessions": Case(READING, "/storage/sessions"),
    "GET /storage/sessions/{id}": Case(READING, "/storage/sessions/session_*"),
    "GET /storage/sessions/{id}/export": Case(READING, "/storage/sessions/session_*/export"),
    "PUT /storage/sessions/{id}": Case(
        WRITING, "/storage/sessions/session_*", lambda house, role: {"metadata": {"changed": role}}
    ),
    "POST /storage/sessions/{id}/fork": Case(
        CREATING, "/storage/sessions/session_*/fork", lambda house, role: {"metadata": {"fork": role}}
    ),
    "POST /storage/history": Case(CREATING, "/storage/history", new_message),
    "GET /storage/history": Case(READING, "/storage/history?session_id=session_*"),
    "GET /storage/history/search": Case(READING, "/storage/history/search?session_id=session_*&q=a"),
    "PUT /storage/state/{session_id}": Case(
        WRITING, "/storage/state/session_*", lambda house, role: {"data": f"changed by {role}"}
    ),
    "GET /storage/state/{session_id}": Case(READING, "/storage/state/session_*"),
    "POST /storage/artifacts": Case(CREATING, "/storage/artifacts", new_artifact),
    "GET /storage/artifacts": Case(READING, "/storage/artifacts?session_id=session_*"),
    "GET /storage/artifacts/{id}": Case(READING, "/storage/artifacts/artifact_*"),
    "GET /storage/artifacts/{id}/content": Case(READING, "/storage/artifacts/artifact_*/content"),
    "PUT /storage/artifacts/{id}/content": Case(
        WRITING, "/storage/artifacts/artifact_*/content", lambda house, role: f"bytes of {role}".encode()
    ),
    "POST /storage/metrics": Case(CREATING, "/storage/metrics", new_metric),
    "POST /storage/metrics/batch": Case(CREATING, "/storage/metrics/batch", new_metrics),
    "GET /storage/metrics": Case(READING, "/storage/metrics"),
    "GET /storage/metrics/aggregate": Case(READING, "/storage/metrics/aggregate"),
    "PUT /storage/cache/{key}": Case(SHARED, "/storage/cache/by-*", lambda house, role: {"value": role}),
    "GET /storage/cache/{key}": Case(READING, "/storage/cache/owner"),
    "DELETE /storage/cache/{key}": Case(SHARED, "/storage/cache/*"),
    "POST /storage/cache/cleanup": Case(SHARED, "/storage/cache/cleanup"),
    "POST /sync/files": Case(WRITING, "/sync/files", lambda house, role: form(f"by {role}", "ada"), FORM),
    "GET /sync/files": Case(READING, "/sync/files"),
    "GET /sync/files/{file_id}": Case(READING, "/sync/files/<*>"),
    "GET /sync/files/{file_id}/meta": Case(READING, "/sync/files/<*>/meta"),
    "POST /sync/uploads": Case((401, 403, 201, 201, 201), "/sync/uploads"),
    "GET /sync/uploads/{upload_id}": Case(UPLOADING, "/sync/uploads/<up-*>"),
    "PATCH /sync/uploads/{upload_id}": Case(
        UPLOADING, "/sync/uploads/<up-*>", lambda house, role: BLOB, {"Upload_Offset": "0"}
    ),
    "POST /sync/uploads/{upload_id}/finish": Case(
        WRITING, "/sync/uploads/<up-*>/finish", lambda house, role: {"agent_id": "ada", "sha256": DIGEST}
    ),
    "DELETE /sync/uploads/{upload_id}": Case(UPLOADING, "/sync/uploads/<dropped-*>"),
    "DELETE /sync/files/{file_id}": Case(WRITING, "/sync/files/<*>"),
    "GET /v1/notify": Case(ADMINS, "/v1/notify"),
    "PUT /v1/notify/{name}": Case(
        (401, 403, 403, 403, 201), "/v1/notify/phone", lambda house, role: {"address": "http://127.0.0.1:9/hook"}
    ),
    "POST /v1/notify/{name}/test": Case(ADMINS, "/v1/notify/phone/test"),
    "POST /v1/letters": Case(ADMINS, "/v1/letters", lambda house, role: {"what": "retry"}),
    "DELETE /v1/notify/{name}": Case(ADMINS, "/v1/notify/phone"),
    "POST /v1/nodes/{node}": Case((401, 403, 403, 403, 404), "/v1/nodes/ghost", lambda house, role: {"what": "pause"}),
    "DELETE /v1/nodes/{node}": Case((401, 403, 403, 403, 404), "/v1/nodes/ghost"),
    # What takes away comes last, each before that which it lies in.
    "POST /v1/erase": Case(ADMINS, "/v1/erase", lambda house, role: {"agent": "hub", "collection": "claims"}),
    "DELETE /storage/state/{session_id}": Case(WRITING, "/storage/state/session_*"),
    "DELETE /storage/artifacts/{id}": Case(WRITING, "/storage/artifacts/artifact_*"),
    "DELETE /storage/history": Case(WRITING, "/storage/history?session_id=session_*"),
    "DELETE /storage/sessions/{id}": Case(WRITING, "/storage/sessions/session_*"),
    "POST /storage/sessions/{id}/restore": Case(WRITING, "/storage/sessions/session_*/restore"),
}
READS_BY_POST = {
    *("POST /relay/query", "POST /v1/search"),
    *(f"POST /v1/collections/{{name}}/{what}" for what in ("find", "count", "aggregate", "search")),
}
NOBODYS = {
    *("POST /v1/hello", "PUT /v1/blobs/{digest}"),
    *("POST /sync/uploads", "PATCH /sync/uploads/{upload_id}", "DELETE /sync/uploads/{upload_id}"),
    *("PUT /v1/indexes/{name}", "DELETE /v1/indexes/{name}"),
    *(f"POST /v1/indexing/{what}/{{name}}" for what in ("pending", "vectors", "rebuild")),
    *("PUT /storage/cache/{key}", "DELETE /storage/cache/{key}", "POST /storage/cache/cleanup"),
}
"""What is written in no agent's name."""
IN_A_NAME = [name for name in EXPECTED if not name.startswith(("GET", "HEAD")) and name not in READS_BY_POST | NOBODYS]
DENIED_BY_VERDICT = {"/sync/messages", "/relay/batch", "/v1/append"}
"""One item that is denied leaves the others: the answer is 200, and says so of the item."""
