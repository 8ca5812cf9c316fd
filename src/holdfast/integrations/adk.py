"""Google ADK's services: sessions, artifacts and memory, on a node or at a hub.

    runner = Runner(
        agent=agent, app_name="app", session_service=HoldfastSessionService("./node", agent="laptop"), …
    )

The one door to the ADK.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import Conflict, MissingExtra, NotFound
from holdfast.integrations.bodies import Bodies
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Conversation, Name
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.query import where

try:
    from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
    from google.adk.errors._stale_session_error import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.input_validation_error import InputValidationError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events.event import Event
    from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
    from google.adk.memory.memory_entry import MemoryEntry
    from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
    from google.adk.sessions.session import Session
    from google.adk.sessions.state import State
    from google.genai import types
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the Google ADK is not installed", hint="pip install 'holdfast[adk]'") from error

SESSIONS: Final = "adk"
ARTIFACTS: Final = "adk-artifacts"
MEMORY: Final = "adk-memory"
