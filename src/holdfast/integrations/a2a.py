"""A2A's `TaskStore`: tasks of an agent's server, found by whichever server is asked next.

    tasks = HoldfastTaskStore("http://hub:8084", agent="server-1")
    handler = DefaultRequestHandler(agent_executor, task_store=tasks, …)

The one door to the SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import MissingExtra
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.query import Condition, where

try:
    from a2a.server.owner_resolver import OwnerResolver, resolve_user_scope
    from a2a.server.tasks.task_store import TaskStore
    from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task
    from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
    from a2a.utils.errors import InvalidParamsError
    from a2a.utils.task import decode_page_token, encode_page_token
    from google.protobuf.json_format import MessageToDict, ParseDict
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the A2A SDK is not installed", hint="pip install 'holdfast[a2a]'") from error

if TYPE_CHECKING:
    from a2a.server.context import ServerCallContext

COLLECTION: Final = "a2a"


class Kept(msgspec.Struct, kw_only=True):
    """A task as A2A's own JSON, and what tasks are found by."""

    owner: str
    id: str
    context: str
    task: dict[str, Any]


class HoldfastTaskStore(TaskStore):
    """Tasks by owner and id; every state that a task went through stays (`history`).

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
        owner_resolver: says whose a call is; the SDK's own by default.
    """

    def __init__(
        self,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        owner_resolver: OwnerResolver = resolve_user_scope,
    ) -> None:
        self._place = Place(where, agent=agent, shared=shared)
        self._tasks: Collection[Kept] = self._place.collection(collection, Kept, index=("owner", "context"))
        self.owner_resolver = owner_resolver

    async def save(self, task: Task, context: ServerCallContext | None = None) -> None:
        """Stores a task in place of the one of the same id."""
        owner = self.owner_resolver(context)
        kept = Kept(owner=owner, id=task.id, context=task.context_id, task=MessageToDict(task))
        await settled(self._tasks.put, _key(owner, task.id), kept)

    async def get(self, task_id: str, context: ServerCallContext | None = None) -> Task | None:
        """The task of this id, of whoever asks; None if there is none."""
        found = await settled(self._tasks.get, _key(self.owner_resolver(context), task_id), default=None)
        return None if found is None else _task(found)

    async def list(self, params: ListTasksRequest, context: ServerCallContext | None = None) -> ListTasksResponse:
        """The tasks of whoever asks that meet what he asks for, the newest first.

        Raises:
            InvalidParamsError: no page begins where he says.
        """
        condition = where("owner") == self.owner_resolver(context)
        wanted: Condition = condition & (where("context") == params.context_id) if params.context_id else condition
        tasks = [task for task in await settled(self._all, wanted) if _meets(task, params)]
        tasks.sort(key=_newness, reverse=True)
        first = 0
        if params.page_token:
            names = [task.id for task in tasks]
            with_that = decode_page_token(params.page_token)
            if with_that not in names:
                raise InvalidParamsError(f"Invalid page token: {params.page_token}")
            first = names.index(with_that)
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        after = first + size
        return ListTasksResponse(
            next_page_token=encode_page_token(tasks[after].id) if after < len(tasks) else None,
            tasks=tasks[first:after],
            total_size=len(tasks),
            page_size=size,
        )

    async def delete(self, task_id: str, context: ServerCallContext | None = None) -> None:
        """Takes a task away; one that is not there is fine."""
        await settled(self._place.take, self._tasks, _key(self.owner_resolver(context), task_id))

    async def history(self, task_id: str, context: ServerCallContext | None = None) -> list_of_tasks:
        """A task as it was after each save, newest first."""
        key = _key(self.owner_resolver(context), task_id)
        return await settled(lambda: [_task(kept) for kept, _ in self._place.past(self._tasks, key)])

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()

    def _all(self, condition: Condition) -> list_of_tasks:
        return [_task(item.value) for item in self._place.every(self._tasks, condition)]


# In the class, `list` is the method.
list_of_tasks = list[Task]


def _key(owner: str, task: str) -> str:
    return f"{segment(owner)}/{segment(task)}"


def _task(found: Kept) -> Task:
    return ParseDict(found.task, Task())


def _meets(task: Task, params: ListTasksRequest) -> bool:
    if params.status and task.status.state != params.status:
        return False
    if not params.HasField("status_timestamp_after"):
        return True
    since = params.status_timestamp_after.ToNanoseconds()
    return _stamped(task) and task.status.timestamp.ToNanoseconds() >= since


def _stamped(task: Task) -> bool:
    return bool(task.HasField("status") and task.status.HasField("timestamp"))


def _newness(task: Task) -> tuple[bool, int, str]:
    stamped = _stamped(task)
    return stamped, task.status.timestamp.ToNanoseconds() if stamped else 0, task.id
