"""Files as a hub tells of them."""

from __future__ import annotations

from typing import Any

import msgspec


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file.

    Attributes:
        file_id: its name here, for ever.
        agent_id: whose it is.
        name, media_type, task_id, metadata: as its client said.
        size: in bytes.
        digest: the SHA-256 of its bytes, in hex.
        uploaded_at: when it was whole, ISO 8601 in UTC.
    """

    file_id: str
    agent_id: str
    name: str
    size: int
    media_type: str
    digest: str
    task_id: str | None
    metadata: dict[str, Any]
    uploaded_at: str


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an upload.

    Attributes:
        status: ``stored``; ``duplicate`` if its `msg_id` was known.
        file_id: the file's.
        name, size, digest: what was stored.
    """

    status: str
    file_id: str
    name: str
    size: int
    digest: str
