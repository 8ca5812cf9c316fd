"""What a collection is made of: a type, its indexes, how its older values become newer ones, and how long they stay.

    Schema(Candidate, index=("skills", "experience_years"), version=2, migrations={1: split_name}, ttl_s=30 * 86_400)

Beside its own fields a stored value holds what readers of all versions must know: ``$v``, the version that wrote it
(none: 1), and ``$ends``, when it is gone (ms since 1970). A plain `Store.get` shows them; a collection does not.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from holdfast import codec
from holdfast.collections.typed.fields import Fields
from holdfast.errors import UsageError
from holdfast.query import check_field

VERSION: Final = "$v"
ENDS: Final = "$ends"
OURS: Final = (VERSION, ENDS)
SCHEMAS: Final = "schemas"
"""The collection in which each agent says what its collections are; the key is the collection's name."""
_TAKEN: Final = ("messages", "sessions", "metrics", "files", "objects", "tables", SCHEMAS)
FIELDS_MAX: Final = 32
SCHEMA_BYTES_MAX: Final = 32 << 10
"""A schema's record stays inline, and is read by whoever wants to know what a collection is."""
_PATH: Final = re.compile(r" - at `(\$.*?)`$")

T = TypeVar("T")
Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


class Schema(msgspec.Struct, Generic[T], frozen=True):
    """What the values of a collection are, and how they are kept. Safe to share.

    Attributes:
        type: a msgspec Struct or a dataclass; None: any JSON object.
        index: fields that `find` looks up instead of reading every value; lists by their members.
        text: fields whose words `search` looks for.
        version: of the type, from 1; a change that older values do not fit makes a new one.
        migrations: for each older version what makes its values (JSON objects) those of the next; None: they fit.
        conflict: ``private``: each agent has keys of its own; ``cas``: the hub decides every write, for all of them.
        ttl_s: seconds after which a value is gone, unless its `put` says otherwise; None: never.
        expires: whether a `put` may say so although there is no `ttl_s`.
        sealed: encrypted before it is written; found by decrypting, never by an index.
        local: never leaves this machine.
        keep_versions, keep_days: what retention is to leave of a key's past; None: all of it.
    """

    type: type[T] | None = None
    index: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    version: int = 1
    migrations: Mapping[int, Migration | None] = {}
    conflict: Literal["private", "cas"] = "private"
    ttl_s: float | None = None
    expires: bool = False
    sealed: bool = False
    local: bool = False
    keep_versions: int | None = None
    keep_days: float | None = None

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        for name in ("index", "text"):
            given = getattr(self, name)
            force(self, name, (given,) if isinstance(given, str) else tuple(given))
        if self.ttl_s is not None:
            force(self, "expires", True)
        _check(self)

    def upgrade(self, value: Mapping[str, Any], version: int) -> dict[str, Any]:
        """A stored JSON object of an older version as one of this version; the given one stays as it is.

        Raises:
            UsageError: that is no version before this one, or a migration failed.
        """
        if not 1 <= version <= self.version:
            raise UsageError(
                f"a value of version {version} cannot become one of version {self.version}",
                hint="versions begin with 1; values of newer versions need the newer schema",
            )
        made = copy.deepcopy(dict(value))
        for step in range(version, self.version):
            change = self.migrations[step]
            if change is None:
                continue
            try:
                made = change(made)
            except Exception as error:
                raise UsageError(
                    f"the migration from version {step} failed: {type(error).__name__}: {error}",
                    hint="Schema.upgrade(value, version) tries it alone",
                    version=step,
                ) from error
            if not isinstance(made, dict):
                raise UsageError(f"the migration from version {step} returned {made!r:.80}", hint="return the object")
        return made

    def json_schema(self) -> dict[str, Any] | None:
        """The type as a JSON Schema; None where any JSON object will do."""
        return None if self.type is None else msgspec.json.schema(self.type)


class Declared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schema as it is told to hubs and other nodes: the value of its record, all of it plain JSON."""

    version: int
    index: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    conflict: Literal["private", "cas"] = "private"
    ttl_s: float | None = None
    expires: bool = False
    sealed: bool = False
    keep_versions: int | None = None
    keep_days: float | None = None


def declared(schema: Schema[Any]) -> Declared:
    """What is told of a schema."""
    same = {name: getattr(schema, name) for name in Declared.__struct_fields__ if name != "schema"}
    return Declared(schema=schema.json_schema(), **same)


def indexed(told: Declared) -> list[str]:
    """The fields that an index of a collection holds: those that were named, and ours."""
    ours = ([VERSION] if told.version > 1 else []) + ([ENDS] if told.expires else [])
    return [*told.index, *ours]


def schema_of(what: Any, index: Sequence[str] = ()) -> Schema[Any]:
    """The schema that a type, a schema or nothing stands for, with these fields indexed as well."""
    found = what if isinstance(what, Schema) else Schema(what)
    more = (index,) if isinstance(index, str) else tuple(index)
    return msgspec.structs.replace(found, index=tuple(dict.fromkeys(found.index + more))) if more else found


class Shape:
    """From values to what is stored and back, as one schema says; for one collection.

    Args:
        name: the collection's.
        schema: its schema.
    """

    def __init__(self, name: str, schema: Schema[Any]) -> None:
        self.name = name
        self.schema = schema
        self.fields = Fields(schema.json_schema())

    def write(self, value: Any, ends_ms: int | None = None) -> dict[str, Any]:
        """A value as it is stored.

        Raises:
            UsageError: it does not fit; ``context["field"]`` says where.
        """
        kind = self.schema.type
        # An object with the right fields will do for a type, and keeps what else it has.
        if kind is not None and not isinstance(value, kind | Mapping):
            raise self._unfit("$", f"expected {kind.__name__}, got {type(value).__name__}")
        made = _plain(value, self.name)
        if not isinstance(made, dict):
            raise self._unfit("$", f"expected an object, got {type(value).__name__}")
        for name in OURS:
            if name in made:
                raise self._unfit(f"$.{name}", "the name is taken: names that begin with $ are Holdfast's")
        fit = self._convert(made)
        if kind is not None and isinstance(value, Mapping):
            made = {**made, **_plain(fit, self.name)}  # with its defaults, so that it is found by them too
        if self.schema.version > 1:
            made[VERSION] = self.schema.version
        if ends_ms is not None:
            made[ENDS] = ends_ms
        return made

    def read(self, raw: Any) -> Any:
        """The value of something stored; an older one as its migrations make it.

        Raises:
            UsageError: it does not fit.
        """
        if not isinstance(raw, dict):
            raise self._unfit("$", f"expected an object, got {type(raw).__name__}")
        return self._convert(self.current(raw))

    def current(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The fields of a stored object, as they are in this version; of a newer one, as they are."""
        version = version_of(raw)
        bare = {name: each for name, each in raw.items() if name not in OURS} if raw.keys() & set(OURS) else raw
        return self.schema.upgrade(bare, version) if version < self.schema.version else bare

    def check_not_newer(self, key: str, raw: Any) -> None:
        """Returns only if a stored value may be written over.

        Raises:
            UsageError: a newer schema wrote it, and what this one does not know of it would be lost.
        """
        check_not_newer(self.name, key, version_of(raw), self.schema.version)

    def _convert(self, bare: dict[str, Any]) -> Any:
        if self.schema.type is None:
            return bare
        try:
            return msgspec.convert(bare, codec.ready(self.schema.type))
        except msgspec.ValidationError as error:
            text = str(error)
            place = _PATH.search(text)
            says = text[: place.start()] if place else text
            path = place[1] if place else "$"
            missing = re.fullmatch(r"Object missing required field `(.*)`", says)
            unknown = re.fullmatch(r"Object contains unknown field `(.*)`", says)
            if missing or unknown:
                path, says = f"{path}.{(missing or unknown)[1]}", "missing" if missing else "unknown field"  # type: ignore[index]
            raise self._unfit(path, (says[:1].lower() + says[1:]).replace("`", "")) from error

    def _unfit(self, path: str, says: str) -> UsageError:
        return UsageError(f"{self.name}: {path}: {says}", hint="see the schema of the collection", field=path)


def check_not_newer(name: str, key: str, found: int, known: int) -> None:
    """Returns only if what a version of a schema wrote may be written over by who knows another version.

    Raises:
        UsageError: it is a newer one, and what is not known of it would be lost.
    """
    if found > known:
        raise UsageError(
            f"{name}/{key} was written by version {found} of its schema, this is version {known}: "
            "writing it would lose what this version does not know",
            hint=f"open the collection with version {found} of its schema, or delete the key first",
            version=found,
            known=known,
        )


def version_of(raw: Any) -> int:
    """The version of the schema that wrote a stored value."""
    found = raw.get(VERSION, 1) if isinstance(raw, dict) else 1
    return found if isinstance(found, int) and not isinstance(found, bool) else 1


def ends_of(raw: Any) -> float:
    """When a stored value is gone, in ms since 1970; infinite if never."""
    found = raw.get(ENDS) if isinstance(raw, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else math.inf


def _plain(value: Any, name: str) -> Any:
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: cannot store this {type(value).__name__}: {error}", field="$") from error


def is_ours(name: str) -> bool:
    """Whether a collection of this name is filled by Holdfast itself, or cannot be named in a URL."""
    return not name or name in _TAKEN or "/" in name


def check_declared(told: Declared) -> None:
    """Returns only if what somebody says of a collection can be gone by.

    Raises:
        UsageError: it cannot.
    """
    fields = Fields(told.schema)
    for what in ("index", "text"):
        _check_fields(getattr(told, what), fields, what)
    _check_numbers(told)
    if told.schema is not None and len(msgspec.json.encode(told.schema)) > SCHEMA_BYTES_MAX:
        raise UsageError(f"a JSON Schema of more than {SCHEMA_BYTES_MAX} bytes", hint="leave descriptions out")


def _check_fields(paths: Sequence[str], fields: Fields, what: str) -> None:
    for path in paths:
        check_field(path)
    fields.check(paths, f"{what}=")
    if len(paths) > FIELDS_MAX:
        raise UsageError(f"{len(paths)} fields in {what}=, the most is {FIELDS_MAX}")


def _check_numbers(said: Schema[Any] | Declared) -> None:
    if isinstance(said.version, bool) or not isinstance(said.version, int) or not 1 <= said.version < 1 << 31:
        raise UsageError(f"no version: {said.version!r:.80}", hint="1, 2, 3…")
    for name in ("ttl_s", "keep_versions", "keep_days"):
        given = getattr(said, name)
        if given is not None and (
            isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1e10
        ):
            raise UsageError(f"{name}={given!r:.80}", hint="a number above 0, or None")


def _check(schema: Schema[Any]) -> None:
    kind: Any = schema.type
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    is_dataclass = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    if kind is not None and not is_struct and not is_dataclass:
        raise UsageError(f"not a type of values: {kind!r:.80}", hint="a msgspec Struct, a dataclass, or None")
    try:
        fields = Fields(schema.json_schema())
    except TypeError as error:
        raise UsageError(f"{kind.__name__} holds what JSON cannot say: {error}") from error
    if is_struct and kind.__struct_config__.array_like:
        raise UsageError(f"{kind.__name__} is array_like: its fields have no names when stored", hint="leave it out")
    for what in ("index", "text"):
        _check_fields(getattr(schema, what), fields, what)
    _check_numbers(schema)
    older = set(range(1, schema.version))
    if set(schema.migrations) != older:
        lack = ", ".join(map(str, sorted(older - set(schema.migrations)))) or "none"
        more = ", ".join(map(repr, set(schema.migrations) - older)) or "none"
        raise UsageError(
            f"version={schema.version} has a migration from each version before it; missing: {lack}, too many: {more}",
            hint="migrations={1: change}; None where the values of a version fit the next as they are",
        )
    if schema.conflict not in ("private", "cas"):
        raise UsageError(f"conflict={schema.conflict!r:.80}", hint="private or cas")
    if schema.conflict == "cas" and (schema.sealed or schema.local):
        raise UsageError("a cas collection is the hub's to decide, and so neither sealed nor local", hint="choose one")
