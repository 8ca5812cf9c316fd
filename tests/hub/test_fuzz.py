"""Whatever is sent to the hub, its answer is one that the OpenAPI document names: schemathesis, with all checks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.hubs import HubProcess

TOKEN = "s3cret"
HOOKS = "tests.hub.fuzz_hooks"
ROOT = Path(__file__).parents[2]

BEYOND_SCHEMA = {
    # What a JSON schema cannot say, so a request that keeps to it may still be refused, with these statuses.
    "GET /v1/latest": ([400], "a version and a time at once"),
    "GET /v1/inbox": ([400], "a cursor's generations are this hub's own"),
    "POST /v1/messages/{id}/state": (
        [400],
        "only what is snoozed has an end, and what is done a result; names have bytes, not letters; undo needs a word",
    ),
    "GET /v1/search": ([400], "what a word is, is for Unicode to say; at most 32 of them"),
    "POST /v1/search": ([400], "what a word is, is for Unicode to say; what a condition is; vectors have an index"),
    "PUT /v1/indexes/{name}": ([400], "names have bytes, not letters; what a field is; a piece has 100 letters"),
    "GET /v1/indexes/{name}": ([400], "names have bytes, not letters"),
    "DELETE /v1/indexes/{name}": ([400], "names have bytes, not letters"),
    "POST /v1/indexing/pending/{name}": ([400], "names have bytes, not letters"),
    "POST /v1/indexing/rebuild/{name}": ([400], "names have bytes, not letters"),
    "POST /v1/indexing/vectors/{name}": ([400], "vectors of what was given, as long as those that are there"),
    "GET /storage/metrics/aggregate": ([400], "samples may add up to more than a number can say"),
    "GET /query/messages": ([400], "page × limit is at most 10,000"),
    "GET /v1/feed": ([400], "a cursor's generations are this hub's own"),
    "GET /v1/blobs/{digest}": ([400, 416], "a range within the blob"),
    "PUT /v1/blobs/{digest}": ([400, 413, 422], "the bytes have the digest in the path; the parts follow each other"),
    "POST /v1/hello": ([400], "a message of the protocol, in msgpack"),
    "POST /v1/append": ([400], "a message of the protocol, in msgpack"),
    "POST /relay/immediate": ([400], "an update names its row; names have bytes, not letters; 1.0 is no whole number"),
    "POST /relay/query": ([400], "names have bytes, not letters; 1.0 is no whole number"),
    "POST /sync/files": ([400, 413, 415, 422], "a form of one file; what its metadata and its digest are"),
    "PATCH /sync/uploads/{upload_id}": ([400, 413], "the parts of an upload follow each other"),
    "POST /sync/uploads/{upload_id}/finish": ([400, 422], "names have bytes, not letters; a digest is that"),
    "GET /sync/files": ([400], "1.0 is no whole number"),
    "GET /sync/files/{file_id}": ([206, 304, 400, 416], "a range within the file"),
    "POST /sync/message": ([400], "names have bytes, not letters; a time has days that are"),
    "GET /storage/history/search": ([400], "what a word is, is for Unicode to say; at most 32 of them"),
    "POST /storage/sessions": ([400, 413], "the hub's own name; metadata has at most 60 KiB"),
    "POST /storage/artifacts": ([400], "1.0 is no whole number"),
    "PUT /storage/artifacts/{id}/content": ([400, 413, 422], "the bytes have the digest; the parts follow each other"),
    "GET /storage/artifacts/{id}/content": ([206, 304, 400, 416], "a range within the bytes"),
    "POST /storage/history": ([400], "whole numbers in metadata go from -2^63 to 2^63-1"),
    "PUT /storage/state/{session_id}": ([400], "whole numbers in the data go from -2^63 to 2^63-1"),
    "PUT /storage/sessions/{id}": ([400, 413], "whole numbers go from -2^63 to 2^63-1; metadata has at most 60 KiB"),
    "POST /storage/sessions/{id}/fork": (
        [400, 413],
        "whole numbers go from -2^63 to 2^63-1; metadata has at most 60 KiB",
    ),
    "PUT /storage/cache/{key}": ([400], "1.0 is no whole number"),
    "POST /storage/metrics": ([400], "the names of agents have bytes, not letters"),
    "POST /storage/metrics/batch": ([400], "the names of agents have bytes, not letters"),
    "POST /v1/erase": ([400], "exactly one of subject, session and agent; names have bytes, not letters"),
    "POST /v1/decide": ([400], "names have bytes, not letters; 1.0 is no whole number"),
    "PUT /v1/notify/{name}": ([400], "a new rule has an address, which is a URL; zones and hours are those there are"),
    "PUT /v1/collections/{name}/schema": ([400], "names have bytes, not letters; an index names fields that there are"),
    "POST /v1/collections/{name}/find": ([400], "what a condition is; a cursor is that of the same question"),
    "POST /v1/collections/{name}/count": ([400], "what a condition is"),
    "POST /v1/collections/{name}/aggregate": ([400], "what a condition is"),
    "POST /v1/collections/{name}/search": ([400], "what a word is, is for Unicode to say; at most 32 of them"),
    "PUT /v1/collections/{name}/items/{key}": ([400], "names have bytes, not letters; what the schema says"),
    "DELETE /v1/collections/{name}/items/{key}": ([400], "names have bytes, not letters"),
    "GET /v1/collections/{name}/items/{key}": ([400], "names have bytes, not letters"),
    "GET /v1/collections/{name}/schema": ([400], "names have bytes, not letters"),
}
VERDICTS = ["POST /sync/messages", "POST /relay/batch"]
"""A wrong item of theirs gets its own verdict, in a 200; too many are 413."""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with a token, and what the document's examples name."""
    hub = HubProcess(tmp_path / "hub", TOKEN)
    message = {"msg_id": "plan", "sender": "recruiter-1", "recipient": "commander", "content": "call her"}
    row = {"agent_id": "recruiter-1", "table": "candidates", "data": {"id": "c-1", "age": 36}}
    decision = {"agent": "recruiter-1", "collection": "state", "key": "plan", "value": {"step": 1}}
    session = {"agent_name": "recruiter-1", "id": "session_1"}
    message_of_it = {"session_id": "session_1", "role": "user", "content": "hello", "id": "msg_1"}
    artifact = {"session_id": "session_1", "name": "a.pdf", "type": "pdf", "id": "artifact_1"}
    schema = {"version": 1, "index": ["skills", "experience_years"], "text": ["bio"], "expires": True}
    candidate = {"value": {"skills": ["Python"], "experience_years": 5, "bio": "python engines"}}
    for method, path, body in (
        ("PUT", "/v1/collections/candidates/schema?agent=recruiter-1", json.dumps(schema).encode()),
        ("PUT", "/v1/collections/candidates/items/ada?agent=recruiter-1", json.dumps(candidate).encode()),
        ("POST", "/storage/sessions", json.dumps(session).encode()),
        ("POST", "/storage/history", json.dumps(message_of_it).encode()),
        ("POST", "/storage/artifacts", json.dumps(artifact).encode()),
        ("PUT", "/storage/artifacts/artifact_1/content", b"hello"),
        ("POST", "/sync/message", json.dumps(message).encode()),
        ("POST", "/relay/immediate", json.dumps(row).encode()),
        ("POST", "/v1/decide", json.dumps(decision).encode()),
        ("PUT", f"/v1/blobs/{hashlib.sha256(b'hello').hexdigest()}", b"hello"),
    ):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(hub.url + path, body, headers, method=method)) as answer:
            assert answer.status in (200, 201)
    yield hub
    hub.kill()


def config(examples: int) -> str:
    """The settings of a run, for its file."""
    lines = [f'[generation]\nmax-examples = {examples}\ndeterministic = true\ndatabase = "none"\n']
    for name in sorted({*BEYOND_SCHEMA, *VERDICTS}):
        lines.append(f'[[operations]]\ninclude-name = "{name}"')
        if name == "GET /v1/feed":
            # It would wait, and a stream never ends: neither is what is looked for here (tests/hub/test_feed.py).
            lines.append('max-stream-events = 1\nparameters = { "query.wait" = 0 }')
        if name in BEYOND_SCHEMA:
            statuses = json.dumps(["2xx", "401", "403", "404", "409", *map(str, BEYOND_SCHEMA[name][0])])
            lines.append(f"[operations.checks]\npositive_data_acceptance.expected-statuses = {statuses}")
        if name in VERDICTS:
            lines.append('[operations.checks]\nnegative_data_rejection.expected-statuses = ["200", "4xx"]')
    return "\n".join(lines)


def fuzz(hub: HubProcess, tmp_path: Path, examples: int, *options: str) -> None:
    """Runs schemathesis against a hub; fails with its report."""
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(config(examples))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", "--checks", "all"]
    command += ["--continue-on-failure", "--request-timeout", "60", *options]
    command += ["--header", f"Authorization: Bearer {TOKEN}"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": HOOKS,
        "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    run = subprocess.run(
        [*command, f"{hub.url}/openapi.json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]


@pytest.mark.timeout(300)
def test_what_the_document_says_holds(busy: HubProcess, tmp_path: Path) -> None:
    fuzz(busy, tmp_path, 10, "--phases", "examples,fuzzing")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_the_document_says_holds_at_every_edge(busy: HubProcess, tmp_path: Path) -> None:
    fuzz(busy, tmp_path, 60, "--phases", "examples,coverage,fuzzing,stateful")
