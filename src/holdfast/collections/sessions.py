"""Sessions: conversations of an agent with their messages, state and artifacts, as records of one collection.

Everything of a session lies in its agent's log under keys that begin with the session's id (`holdfast.log.marks`), so
one deletion by prefix hides all of it. Times are kept in the values, so that what is restored or copied keeps its own.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from holdfast import clock, codec
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotCached
from holdfast.log.drafts import Draft, new_id
from holdfast.log.marks import SESSIONS, inline, marks_of
from holdfast.log.reading import BlobReader, load
from holdfast.records import BLOB, VALUE, ZERO32, check_names, read_blob_reference

Status = Literal["active", "paused", "ended"]
Role = Literal["user", "assistant", "system", "tool"]
Content = str | list[Any] | dict[str, Any]

SESSION, STATE, MESSAGE, ARTIFACT, CONTENT = "session", "state", "message", "artifact", "content"
ROOT_BYTES_MAX: Final = 60 << 10
"""A session's own record stays inline: what it is found by is read out of it."""
ID_PATTERN: Final = "[A-Za-z0-9_.-]{1,100}"
_ROOT = re.compile(f"session_{ID_PATTERN}")
MISSING: Final = ("lost", "evicted", "quarantined", "redacted")


class SessionBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of a session."""

    agent_name: str
    status: Status
    created_at: str
    updated_at: str
    user_id: str | None = None
    metadata: dict[str, Any] = {}
    forked_from: str | None = None
    forked_at: str | None = None


class MessageBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of a message; parts stay as they came."""

    role: Role
    content: msgspec.Raw
    timestamp: str
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class StateBody(msgspec.Struct, kw_only=True):
    """What is kept of a state."""

    data: msgspec.Raw
    updated_at: str


class ArtifactBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of an artifact beside its bytes."""

    name: str
    type: str
    created_at: str
    path: str = ""
    size: int = 0
    metadata: dict[str, Any] = {}
    copy_of: str | None = None


class Session(msgspec.Struct, kw_only=True):
    """A conversation of an agent. `deleted_at` is there when it was deleted, `forked_from` when it began as a copy."""

    id: str
    agent_name: str
    user_id: str | None
    status: Status
    created_at: str
    updated_at: str
    metadata: dict[str, Any]
    version: int
    forked_from: str | UnsetType = UNSET
    forked_at: str | UnsetType = UNSET
    deleted_at: str | UnsetType = UNSET


class Message(msgspec.Struct, kw_only=True):
    """A message of a session. `missing` says why there is no content: blob, lost, evicted, quarantined, redacted."""

    id: str
    session_id: str
    role: Role | None
    content: Any
    timestamp: str
    metadata: Any
    missing: str | UnsetType = UNSET


class State(msgspec.Struct, kw_only=True):
    """What an agent remembers in a session."""

    session_id: str
    data: Any
    updated_at: str
    version: int


class Artifact(msgspec.Struct, kw_only=True):
    """Something that was made in a session: where it lies (`path`), and its bytes if they were uploaded (`digest`)."""

    id: str
    session_id: str
    name: str
    type: str
    path: str
    size: int
    created_at: str
    metadata: dict[str, Any]
    digest: str | None
    copy_of: str | UnsetType = UNSET


_DECODERS: Final = {
    kind: msgspec.json.Decoder(shape)
    for kind, shape in ((SESSION, SessionBody), (MESSAGE, MessageBody), (STATE, StateBody), (ARTIFACT, ArtifactBody))
}


def is_session_id(text: str) -> bool:
    """Whether it can name a session."""
    return bool(_ROOT.fullmatch(text))


def key_of(session: str, kind: str, id: str = "") -> str:
    """The key of a part of a session.

    Args:
        session: its id.
        kind: session, state, message, artifact or content.
        id: of the message, or of the artifact.
    """
    part = {
        SESSION: "session",
        STATE: "state",
        MESSAGE: f"msg/{id}",
        ARTIFACT: f"artifact/{id}/about",
        CONTENT: f"artifact/{id}/content",
    }
    return f"{session}/{part[kind]}"


def session_of(key: str) -> str:
    """The session that a key belongs to."""
    return key.partition("/")[0]


def id_of(key: str) -> str:
    """The message or artifact that a key belongs to."""
    return key.split("/")[2]


def draft(kind: str, key: str, content: Any, *, author: str = "", fresh: bool = False) -> Draft:
    """A draft of a part of a session.

    Args:
        kind: what it is.
        key: where it goes.
        content: one of the bodies, or the same as a dict.
        author: who writes it.
        fresh: whether the key was made up for it.

    Raises:
        UsageError: a value that JSON cannot say.
    """
    check_names(kind, SESSIONS, key, author)
    fmt, payload = codec.serialise(msgspec.to_builtins(content) if isinstance(content, msgspec.Struct) else content)
    return Draft(
        kind, SESSIONS, key, fmt, payload, VALUE, author, None, marks_of(SESSIONS, kind, key, payload), ZERO32, fresh
    )


def again(stored: Stored, key: str, *, author: str = "", payload: bytes | None = None) -> Draft:
    """A draft that says once more what a record says, perhaps under another key; a blob is only referenced again.

    Raises:
        IntegrityError: its bytes are not what was recorded, or not here.
    """
    record = stored.record
    body = stored.payload() if payload is None else payload
    found = inline(record.fmt, body, stored.is_blob)
    tags = marks_of(SESSIONS, record.kind, key, found)
    flags = VALUE | (record.flags & BLOB)
    return Draft(record.kind, SESSIONS, key, record.fmt, body, flags, author, None, tags)


def reference(session: str, artifact: str, payload: bytes, *, author: str = "") -> Draft:
    """A draft of an artifact's bytes: a reference to their blob."""
    return Draft(CONTENT, SESSIONS, key_of(session, CONTENT, artifact), codec.FMT_BYTES, payload, VALUE | BLOB, author)


def body_of(stored: Stored, blobs: BlobReader | None) -> Any:
    """What a record of this collection holds, as the body of its kind; None if it is not as it must be.

    Raises:
        IntegrityError: its bytes are not what was recorded, or are gone.
        NotCached: they are elsewhere.
    """
    decoder = _DECODERS.get(stored.record.kind)
    if decoder is None or stored.record.fmt != codec.FMT_JSON:
        return None
    payload = msgspec.json.encode(load(stored, blobs)) if stored.is_blob else stored.payload()
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def session_in(stored: Stored, tombstone: Stored | None = None, blobs: BlobReader | None = None) -> Session | None:
    """The session in its record; None if that is none."""
    body = body_of(stored, blobs)
    if not isinstance(body, SessionBody):
        return None
    return Session(
        id=session_of(stored.record.key),
        agent_name=stored.agent,
        user_id=body.user_id,
        status=body.status,
        created_at=body.created_at,
        updated_at=body.updated_at,
        metadata=body.metadata,
        version=stored.record.key_version,
        forked_from=body.forked_from or UNSET,
        forked_at=body.forked_at or UNSET,
        deleted_at=UNSET if tombstone is None else clock.to_iso(tombstone.record.hlc),
    )


def message_in(stored: Stored, blobs: BlobReader | None) -> Message | None:
    """The message in its record, or why it is not there; None if the record is none."""
    key = stored.record.key
    try:
        body = body_of(stored, blobs)
    except HoldfastError as error:
        why = "blob" if isinstance(error, NotCached) else MISSING[stored.why] if stored.body is None else "lost"
        return Message(
            id=id_of(key),
            session_id=session_of(key),
            role=None,
            content=None,
            timestamp=clock.to_iso(stored.record.hlc),
            metadata={},
            missing=why,
        )
    if not isinstance(body, MessageBody):
        return None
    return Message(
        id=id_of(key),
        session_id=session_of(key),
        role=body.role,
        content=body.content,
        timestamp=body.timestamp,
        metadata=body.metadata,
    )


def state_in(stored: Stored, blobs: BlobReader | None) -> State | None:
    """The state in its record; None if that is none."""
    body = body_of(stored, blobs)
    if not isinstance(body, StateBody):
        return None
    return State(
        session_id=session_of(stored.record.key),
        data=body.data,
        updated_at=body.updated_at,
        version=stored.record.key_version,
    )


def artifact_in(
    stored: Stored, content: tuple[bytes, int] | None = None, blobs: BlobReader | None = None
) -> Artifact | None:
    """The artifact in its record, with the (digest, size) of its bytes if they are here; None if it is none."""
    body = body_of(stored, blobs)
    if not isinstance(body, ArtifactBody):
        return None
    digest, size = content or (None, body.size)
    return Artifact(
        id=id_of(stored.record.key),
        session_id=session_of(stored.record.key),
        name=body.name,
        type=body.type,
        path=body.path,
        size=size,
        created_at=body.created_at,
        metadata=body.metadata,
        digest=digest.hex() if digest else None,
        copy_of=body.copy_of or UNSET,
    )


def reference_in(content: Stored | None) -> tuple[bytes, int] | None:
    """The (digest, size) of an artifact's bytes in their record; None if there is none, or it is not here."""
    if content is None or not content.is_blob or content.body is None:
        return None
    try:
        return read_blob_reference(content.payload())
    except HoldfastError:
        return None


def made_id(prefix: str) -> str:
    """A new id: ``session``, ``msg``, ``artifact`` or ``metric``, and what nobody can guess."""
    return new_id(prefix)
