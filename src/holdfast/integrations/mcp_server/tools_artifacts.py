"""artifact_put, artifact_get, artifact_list: files that assistants hand on to later conversations, on any machine."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast import clock
from holdfast.errors import UsageError
from holdfast.integrations.mcp_server.artifacts import COLLECTION, Artifact
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.tools import Answer, Binary, Tool
from holdfast.integrations.mcp_server.uris import artifact_uri
from holdfast.node.objects import INFO, OBJECTS

THEME: Final = "artifacts"
PAGE_MAX: Final = 500

Name = Annotated[str, Meta(min_length=1, description="Its name, with slashes for folders: reports/june.md")]


class Put(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    name: Name
    text: Annotated[str | None, Meta(description="The content of a text file; or give base64")] = None
    base64: Annotated[str | None, Meta(description="The content of any other file, base64-encoded")] = None
    mediaType: Annotated[str, Meta(description="Such as text/markdown; guessed from the name if left out")] = ""
    description: Annotated[str, Meta(description="What it is, in a sentence; it is found by these words")] = ""


class Get(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    name: Name


class List(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    prefix: Annotated[str, Meta(description="Only names that begin so, such as reports/")] = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="The most that is returned")] = 100
    after: Annotated[str, Meta(description="Only names behind this one: the next of the answer before")] = ""


class Shown(msgspec.Struct):
    """A file in an answer."""

    name: str
    uri: str
    mediaType: str
    size: int
    sha256: str
    agent: Annotated[str, Meta(description="Who wrote it")]
    version: int
    time: str
    description: str


class Fetched(Shown, kw_only=True):
    """Answer."""

    text: Annotated[str | None, Meta(description="Its content, if it is text; else it comes as a resource")] = None


class Listing(msgspec.Struct):
    """Answer."""

    artifacts: list[Shown]
    next: Annotated[str | None, Meta(description="What goes into after for more; none at the end")] = None


def artifact_put(desk: Desk, given: Put) -> Answer:
    """See its description."""
    if (given.text is None) == (given.base64 is None):
        raise UsageError(f"the content of {given.name!r:.200}: text, or base64, and not both", hint="give one of them")
    if given.text is not None:
        data = given.text.encode()
    else:
        try:
            data = base64.b64decode(given.base64 or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"base64 that is none: {error}", hint="text: takes plain text") from error
    made = desk.artifacts.put(given.name, data, media_type=given.mediaType, description=given.description)
    return Answer(shown(made), f"kept {made.name}, {made.size:,} bytes, version {made.version}")


def artifact_get(desk: Desk, given: Get) -> Answer:
    """See its description."""
    found, data = desk.artifacts.get(given.name)
    told = shown(found)
    if (text := text_of(found, data)) is not None:
        return Answer({**told, "text": text}, text or "(empty)")
    return Answer(told, binary=Binary(told["uri"], found.mediaType, data))


def artifact_list(desk: Desk, given: List) -> Answer:
    """See its description."""
    found = [each for each in desk.artifacts.find(given.prefix) if each.name > given.after]
    more = {"next": found[given.limit - 1].name} if len(found) > given.limit else {}
    return Answer({"artifacts": [shown(each) for each in found[: given.limit]], **more})


def shown(artifact: Artifact) -> dict[str, Any]:
    """A file as JSON values."""
    return {
        "name": artifact.name,
        "uri": artifact_uri(artifact.name),
        "mediaType": artifact.mediaType,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "agent": artifact.agent,
        "version": artifact.version,
        "time": clock.iso(round(artifact.time * 1000)),
        "description": artifact.description,
    }


def text_of(artifact: Artifact, data: bytes) -> str | None:
    """The text that a file holds; None if it is none."""
    if not artifact.is_text:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


TOOLS: Final = (
    Tool(
        name="artifact_put",
        title="Keep a file",
        description="Keep a file that you made, such as a report, code or a picture, for later conversations, and"
        " for agents on other machines. A name that is taken gets a new version; earlier ones stay.",
        theme=THEME,
        arguments=Put,
        result=Shown,
        run=artifact_put,
        writes=True,
        collections=(COLLECTION, OBJECTS, INFO),
    ),
    Tool(
        name="artifact_get",
        title="Fetch a file",
        description="Fetch a file that was kept, here or on another machine, by its name. Its bytes are proven to be"
        " those that were put.",
        theme=THEME,
        arguments=Get,
        result=Fetched,
        run=artifact_get,
        collections=(COLLECTION, OBJECTS),
    ),
    Tool(
        name="artifact_list",
        title="List files",
        description="List the files that were kept on all machines, by name, with who wrote them and when.",
        theme=THEME,
        arguments=List,
        result=Listing,
        run=artifact_list,
        collections=(COLLECTION,),
    ),
)
