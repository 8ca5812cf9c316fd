"""LangChain's stores on a node or a hub: bytes by key, the history of a chat, the cache of model calls, and vectors.

    history = HoldfastChatMessageHistory("chat-1", "./node", agent="laptop")
    chain = RunnableWithMessageHistory(model, lambda session: history)

The one door to langchain-core.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import MissingExtra, UsageError
from holdfast.integrations.bodies import Bodies
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.log.drafts import new_id

try:
    from langchain_core._api import suppress_langchain_beta_warning
    from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.load import dumps, load
    from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
    from langchain_core.stores import BaseStore
    from langchain_core.vectorstores import VectorStore
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("langchain-core is not installed", hint="pip install 'holdfast[langchain]'") from error

HISTORY: Final = "langchain"
BYTES: Final = "langchain-bytes"
CACHE: Final = "langchain-cache"
VECTORS: Final = "langchain-vectors"


class HoldfastChatMessageHistory(BaseChatMessageHistory):
    """The messages of one chat. Forks, earlier states and what another machine began: `conversations`.

    Args:
        session_id: any text.
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
    """

    def __init__(
        self,
        session_id: str,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = HISTORY,
    ) -> None:
        self.session_id = session_id
        self.conversations = Conversations(Place(where, agent=agent, shared=shared), collection)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """All messages, oldest first."""
        return messages_from_dict(self.conversations.load((self.session_id,)) or [])

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages, all or none."""
        if messages:
            self.conversations.append((self.session_id,), [message_to_dict(each) for each in messages])

    def clear(self) -> None:
        """Takes all messages away."""
        self.conversations.delete((self.session_id,))

    async def aget_messages(self) -> list[BaseMessage]:
        """All messages, oldest first."""
        return await settled(lambda: self.messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages, all or none."""
        await settled(self.add_messages, messages)

    async def aclear(self) -> None:
        """Takes all messages away."""
        await settled(self.clear)

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.conversations.place.close()


class HoldfastByteStore(BaseStore[str, bytes]):
    """Bytes by key.

    Args:
        where, agent, shared: see `HoldfastChatMessageHistory`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = BYTES
    ) -> None:
        self.bodies = Bodies(Place(where, agent=agent, shared=shared), collection)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of their keys; None where there is none."""
        return [self.bodies.get(key) for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Stores each value, in the order in which they stand."""
        for key, value in key_value_pairs:
            self.bodies.put(key, value)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Takes values away; one that is not there is fine."""
        for key in keys:
            self.bodies.delete(key)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with `prefix`, sorted."""
        yield from self.bodies.list(prefix or "")

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.bodies.place.close()


class Answer(msgspec.Struct, kw_only=True):
    """What a model answered: LangChain's own JSON form of its generations."""

    prompt: str
    model: str
    generations: list[dict[str, Any]]


class HoldfastCache(BaseCache):
    """Answers of models by prompt and model. What is read back is one of langchain-core's own types, never code.

    Args:
        where, agent, shared: see `HoldfastChatMessageHistory`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = CACHE
    ) -> None:
        self._place = Place(where, agent=agent, shared=shared)
        self._answers: Collection[Answer] = self._place.collection(collection, Answer)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer of a model to a prompt, if it is known."""
        found = self._answers.get(_asked(prompt, llm_string), default=None)
        if found is None or (found.prompt, found.model) != (prompt, llm_string):
            return None
        with suppress_langchain_beta_warning():
            return [load(each, allowed_objects="core") for each in found.generations]

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keeps an answer."""
        generations = [json.loads(dumps(each)) for each in return_val]
        self._answers.put(_asked(prompt, llm_string), Answer(prompt=prompt, model=llm_string, generations=generations))

    def clear(self, **kwargs: Any) -> None:
        """Forgets all answers."""
        if kwargs:
            raise UsageError(f"an answer is not known by {', '.join(kwargs)}", hint="clear() forgets all of them")
        for item in list(self._place.every(self._answers)):
            self._place.take(self._answers, item.key)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer of a model to a prompt, if it is known."""
        return await settled(self.lookup, prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keeps an answer."""
        await settled(self.update, prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:
        """Forgets all answers."""
        await settled(self.clear, **kwargs)

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()


class Vector(msgspec.Struct, kw_only=True):
    """A document, and what its text was embedded as."""

    id: str
    text: str
    metadata: dict[str, Any] = {}
    vector: list[float]


class HoldfastVectorStore(VectorStore):
    """Documents found by what they mean: all vectors are compared, so what is found is exact.

    Args:
        embedding: makes vectors of texts; it is asked before anything is written.
        where, agent, shared: see `HoldfastChatMessageHistory`.
        collection: the name under which they are kept.
    """

    def __init__(
        self,
        embedding: Embeddings,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = VECTORS,
    ) -> None:
        self._embedding = embedding
        self._place = Place(where, agent=agent, shared=shared)
        self._vectors: Collection[Vector] = self._place.collection(collection, Vector)

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Stores documents, each in place of the one of the same id; returns their ids."""
        if ids is not None and len(ids) != len(documents):
            raise UsageError(f"{len(ids)} ids for {len(documents)} documents", hint="one each")
        names = [
            given or each.id or new_id("doc")
            for given, each in zip(ids or [""] * len(documents), documents, strict=True)
        ]
        vectors = self._embedding.embed_documents([each.page_content for each in documents])
        for name, document, vector in zip(names, documents, vectors, strict=True):
            made = Vector(id=name, text=document.page_content, metadata=document.metadata, vector=[*map(float, vector)])
            self._vectors.put(segment(name), made)
        return names

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Stores texts; see `add_documents`."""
        bodies = list(texts)
        about = metadatas if metadatas is not None else [{} for _ in bodies]
        if len(about) != len(bodies):
            raise UsageError(f"{len(about)} metadatas for {len(bodies)} texts", hint="one each")
        made = [Document(page_content=text, metadata=each) for text, each in zip(bodies, about, strict=True)]
        return self.add_documents(made, ids)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Takes documents away; None: all of them."""
        keys = (
            [segment(each) for each in ids]
            if ids is not None
            else [item.key for item in self._place.every(self._vectors)]
        )
        for key in keys:
            self._place.take(self._vectors, key)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids that there are."""
        found = [self._vectors.get(segment(each), default=None) for each in ids]
        return [_document(each) for each in found if each is not None]

    def history(self, id: str) -> list[Document]:
        """A document as it was each time it was stored, newest first; also of one that was taken away."""
        return [_document(each) for each, _ in self._place.past(self._vectors, segment(id))]

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Callable[[Document], bool] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The `k` documents nearest to a text, nearest first."""
        return [each for each, _ in self.similarity_search_with_score(query, k, filter=filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Callable[[Document], bool] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same, with the cosine of each."""
        return self._nearest(self._embedding.embed_query(query), k, filter)

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Callable[[Document], bool] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The `k` documents nearest to a vector, nearest first."""
        return [each for each, _ in self._nearest(embedding, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Callable[[Document], bool] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the `fetch_k` documents nearest to a text those `k` that are near to it and far from each other.

        Args:
            query: the text.
            k: how many.
            fetch_k: among how many.
            lambda_mult: 1 asks for the nearest alone, 0 for those that are least alike.
            filter: only documents of which it says so.
            kwargs: LangChain's; there are none.
        """
        wanted = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(wanted, k, fetch_k, lambda_mult, filter=filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Callable[[Document], bool] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The same for a vector."""
        left = self._scored(embedding, filter)[: max(fetch_k, 0)]
        chosen: list[Vector] = []
        while left and len(chosen) < k:

            def worth(scored: tuple[float, Vector]) -> float:
                alike = max((_cosine(scored[1].vector, each.vector) for each in chosen), default=0.0)
                return lambda_mult * scored[0] - (1 - lambda_mult) * alike

            best = max(range(len(left)), key=lambda place: worth(left[place]))
            chosen.append(left.pop(best)[1])
        return [_document(each) for each in chosen]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> HoldfastVectorStore:
        """A store with these texts in it; `where`, `agent`, `shared` and `collection` as the constructor takes them."""
        made = cls(embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (cosine + 1) / 2

    def _nearest(
        self, wanted: Sequence[float], k: int, filter: Callable[[Document], bool] | None
    ) -> list[tuple[Document, float]]:
        return [(_document(each), score) for score, each in self._scored(wanted, filter)[: max(k, 0)]]

    def _scored(self, wanted: Sequence[float], filter: Callable[[Document], bool] | None) -> list[tuple[float, Vector]]:
        """All documents that are asked for with the cosine of each, the nearest first."""
        scored = []
        for item in self._place.every(self._vectors):
            each = item.value
            if len(each.vector) != len(wanted):
                raise UsageError(
                    f"document {each.id} has a vector of {len(each.vector)} numbers, the query one of {len(wanted)}",
                    hint="one collection for each embedding model",
                )
            if filter is None or filter(_document(each)):
                scored.append((_cosine(each.vector, wanted), each))
        scored.sort(key=operator.itemgetter(0), reverse=True)
        return scored


def _asked(prompt: str, model: str) -> str:
    return hashlib.sha256(msgspec.json.encode([prompt, model])).hexdigest()


def _document(found: Vector) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=found.metadata)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norms = math.hypot(*one) * math.hypot(*other)
    return sum(map(operator.mul, one, other)) / norms if norms else 0.0
