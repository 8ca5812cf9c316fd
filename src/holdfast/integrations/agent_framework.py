"""Microsoft Agent Framework's `CheckpointStorage`: workflows that go on on another machine, without a pickle.

    storage = HoldfastCheckpointStorage("./node", agent="laptop", types=(MyState,))
    workflow = WorkflowBuilder(…, checkpoint_storage=storage).build()

The one door to the framework. Its own storages keep values as pickles, which may run code when they are read. Here
everything is JSON, and what is no JSON by itself names its class: one of the framework's, or one of `types`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import HoldfastError, MissingExtra, NotFound
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.query import where

try:
    from agent_framework import WorkflowCheckpoint
    from agent_framework.exceptions import WorkflowCheckpointException
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra(
        "the Agent Framework is not installed", hint="pip install 'holdfast[agent-framework]'"
    ) from error

COLLECTION: Final = "agent-framework"
TAG: Final = "$is"
VALUE: Final = "$of"
_FRAMEWORK: Final = "agent_framework"
_PLAIN: Final[dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "bytes": (bytes, lambda each: base64.b64encode(each).decode("ascii"), base64.b64decode),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "timedelta": (timedelta, lambda each: [each.days, each.seconds, each.microseconds], lambda each: timedelta(*each)),
    "uuid": (UUID, str, UUID),
    "decimal": (Decimal, str, Decimal),
}
_GROUPS: Final[dict[str, type]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


class Kept(msgspec.Struct, kw_only=True):
    """A checkpoint as JSON, and what it is found by."""

    id: str
    workflow: str
    timestamp: str
    checkpoint: dict[str, Any]


class HoldfastCheckpointStorage:
    """Checkpoints by id and workflow, in a node's log or at a hub.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
        types: classes of one's own whose instances are in states and messages: dataclasses, Pydantic models, enums, and
            what has `to_dict` and `from_dict`. No other class is ever made of what is read.
    """

    def __init__(
        self,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        types: Iterable[type] = (),
    ) -> None:
        self._place = Place(where, agent=agent, shared=shared)
        self._kept: Collection[Kept] = self._place.collection(collection, Kept, index=("workflow",))
        self._forms = Forms(types)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Stores a copy of a checkpoint; returns its id.

        Raises:
            WorkflowCheckpointException: it holds what could not be read again; nothing is stored.
        """
        plain = self._forms.plain(checkpoint.to_dict())
        self._forms.value(plain)  # what cannot be read is refused now, and not when it is needed
        kept = Kept(
            id=checkpoint.checkpoint_id,
            workflow=checkpoint.workflow_name,
            timestamp=checkpoint.timestamp,
            checkpoint=plain,
        )
        try:
            await settled(self._kept.put, segment(checkpoint.checkpoint_id), kept)
        except (HoldfastError, TypeError) as error:
            raise WorkflowCheckpointException(
                f"checkpoint {checkpoint.checkpoint_id} was not stored: {error}"
            ) from error
        return checkpoint.checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """A copy of a checkpoint.

        Raises:
            WorkflowCheckpointException: there is none of this id.
        """
        try:
            return self._checkpoint(await settled(self._kept.get, segment(checkpoint_id)))
        except NotFound as error:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}") from error

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Copies of the checkpoints of a workflow, in the order in which they were first saved."""
        return [self._checkpoint(each) for each in await settled(self._of, workflow_name)]

    async def delete(self, checkpoint_id: str) -> bool:
        """Takes a checkpoint away; False if there was none."""
        return await settled(self._place.take, self._kept, segment(checkpoint_id))

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """A copy of a workflow's newest checkpoint, by its timestamp; None if there is none."""
        found = await settled(self._of, workflow_name)
        newest = max(found, key=lambda each: datetime.fromisoformat(each.timestamp), default=None)
        return None if newest is None else self._checkpoint(newest)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """The ids of a workflow's checkpoints."""
        return [each.id for each in await settled(self._of, workflow_name)]

    async def history(self, checkpoint_id: str) -> list[WorkflowCheckpoint]:
        """A checkpoint as it was each time it was saved, newest first; also of one that was deleted."""
        key = segment(checkpoint_id)
        return [self._checkpoint(kept) for kept, _ in await settled(lambda: [*self._place.past(self._kept, key)])]

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()

    def _of(self, workflow: str) -> list[Kept]:
        return [item.value for item in self._place.every(self._kept, where("workflow") == workflow)]

    def _checkpoint(self, kept: Kept) -> WorkflowCheckpoint:
        return WorkflowCheckpoint.from_dict(self._forms.value(kept.checkpoint))


class Forms:
    """Python values as JSON and back, for the classes that are named and no others.

    Args:
        types: those beside the framework's own.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._types = {_name(each): each for each in types}

    def plain(self, value: Any) -> Any:
        """A value as JSON.

        Raises:
            WorkflowCheckpointException: it is of a class that is not named, or of none that can be taken apart.
        """
        kind = type(value)
        if value is None or kind in (str, int, float, bool):
            return value
        if kind is list:
            return [self.plain(each) for each in value]
        if kind is dict:
            if all(type(key) is str for key in value) and TAG not in value:
                return {key: self.plain(each) for key, each in value.items()}
            return {TAG: "dict", VALUE: [[self.plain(key), self.plain(each)] for key, each in value.items()]}
        for tag, group in _GROUPS.items():
            if kind is group:
                return {TAG: tag, VALUE: [self.plain(each) for each in value]}
        for tag, (simple, taken, _) in _PLAIN.items():
            if kind is simple:
                return {TAG: tag, VALUE: taken(value)}
        self._class(_name(kind))
        return {TAG: _name(kind), VALUE: self.plain(_taken_apart(value))}

    def value(self, plain: Any) -> Any:
        """The value of its JSON.

        Raises:
            WorkflowCheckpointException: it names a class that is not to be made.
        """
        if isinstance(plain, list):
            return [self.value(each) for each in plain]
        if not isinstance(plain, dict):
            return plain
        if TAG not in plain:
            return {key: self.value(each) for key, each in plain.items()}
        tag, of = plain[TAG], plain[VALUE]
        if tag == "dict":
            return {self.value(key): self.value(each) for key, each in of}
        if tag in _GROUPS:
            return _GROUPS[tag](self.value(each) for each in of)
        if tag in _PLAIN:
            return _PLAIN[tag][2](of)
        return _put_together(self._class(tag), self.value(of))

    def _class(self, name: str) -> type:
        if name in self._types:
            return self._types[name]
        module, _, path = name.partition(":")
        if module.partition(".")[0] == _FRAMEWORK:
            found: Any = None
            with contextlib.suppress(ImportError):
                found = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part, None)
            # By its own name and module alone: what a module of the framework has imported is not the framework's.
            if isinstance(found, type) and _name(found) == name:
                return found
        raise WorkflowCheckpointException(
            f"a checkpoint holds a {name}, which is not among the classes that may be stored: name it in types=(…,)"
        )


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _taken_apart(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "to_dict") and hasattr(type(value), "from_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump") and hasattr(type(value), "model_validate"):
        return value.model_dump()
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
    raise WorkflowCheckpointException(
        f"a checkpoint holds a {_name(type(value))}, which cannot be taken apart: give it to_dict and from_dict,"
        " or make it a dataclass"
    )


def _put_together(kind: Any, parts: Any) -> Any:
    try:
        if issubclass(kind, Enum):
            return kind(parts)
        if hasattr(kind, "from_dict"):
            return kind.from_dict(parts)
        if hasattr(kind, "model_validate"):
            return kind.model_validate(parts)
        if isinstance(parts, Mapping) and hasattr(kind, "__dataclass_fields__"):
            return kind(**parts)
    except Exception as error:
        raise WorkflowCheckpointException(f"a {_name(kind)} could not be made again: {error}") from error
    raise WorkflowCheckpointException(f"a {_name(kind)} could not be made again")
