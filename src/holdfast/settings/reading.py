"""The text of a configuration file becomes what it says, and all that is wrong with it, each with line and column.

YAML is composed and never constructed: nothing in a file can name a Python object. Anchors may be used; merge keys and
tags may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import yaml

from holdfast.settings import seeds
from holdfast.settings.keys import KEYS, SECTIONS, Key
from holdfast.settings.said import Ignored, Place, Problem, Source
from holdfast.settings.values import Wrong, days_of, nearest, value_in

FILE_BYTES_MAX: Final = 64 << 10
PROBLEMS_MAX: Final = 100
_YAML: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset(_YAML + each for each in ("str", "int", "float", "bool", "null", "timestamp", "value"))
_MERGE: Final = _YAML + "merge"
_LIKE: Final = 0.6
_SLIP: Final = 0.75
_NO_SECRETS: Final = {
    "hub.token": "token_file",
    "store.passphrase": "passphrase_file",
    "serve.token": "token_file",
}
_WHAT: Final = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "one value"}


def read(data: bytes, name: str, folder: str = "") -> Source:
    """What a file says.

    Args:
        data: its bytes.
        name: its path, for messages.
        folder: what paths in it are relative to; empty: they stay as they are.
    """
    source = Source(name)
    root = _compose(data, source)
    if root is not None:
        _File(source, root, folder).walk()
    source.problems.sort(key=lambda each: (each.place.line, each.place.column))
    if len(source.problems) > PROBLEMS_MAX:
        more = len(source.problems) - PROBLEMS_MAX
        source.problems[PROBLEMS_MAX:] = [Problem(Place(name), "", f"and {more} more problems")]
    return source


def _compose(data: bytes, source: Source) -> yaml.MappingNode | None:
    """The document's nodes; None if it is empty, or no mapping (which is a problem then)."""
    name = source.name

    def wrong(what: str, line: int = 1, column: int = 1) -> None:
        source.problems.append(Problem(Place(name, line, column), "", what))

    if len(data) > FILE_BYTES_MAX:
        wrong(f"{len(data):,} bytes, the most is {FILE_BYTES_MAX:,}: is this a configuration file?")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        wrong(f"not UTF-8: {error.reason}", before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        return None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        before_text = text[: error.position]
        line, column = before_text.count("\n") + 1, error.position - (before_text.rfind("\n") + 1) + 1
        wrong(f"a character that cannot stand in YAML: {text[error.position : error.position + 1]!a}", line, column)
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(str(each) for each in (error.context, error.problem) if each)
        tab = "'\\t'" in what
        wrong("a tab, where blanks are wanted" if tab else f"not YAML: {what}", *_at(mark))
        return None
    except RecursionError:
        wrong("not YAML that anybody would write: it is nested too deeply")
        return None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _YAML + "null"):
        return None
    if not isinstance(root, yaml.MappingNode):
        wrong(f"a mapping of sections is wanted, and this is {_WHAT[type(root)]}", *_at(root.start_mark))
        return None
    return root


def _at(mark: yaml.Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


class _File:
    """One file on its way to a `Source`."""

    def __init__(self, source: Source, root: yaml.MappingNode, folder: str) -> None:
        self._source = source
        self._root = root
        self._folder = folder
        names = {key.value for key, _ in root.value if isinstance(key, yaml.ScalarNode)}
        self._seed = not names.isdisjoint(seeds.MARKS)

    def walk(self) -> None:
        """Takes in the whole file."""
        for name, place, node in self._pairs(self._root, ""):
            if name in seeds.TOP:
                self._value(seeds.TOP[name], name, node)
            elif name == seeds.NODES:
                self._nodes(node, place)
            elif name == seeds.STORAGE:
                self._names(node, name, seeds.IN_STORAGE, seeds.INNER)
            elif name == seeds.RETRY_SECTION:
                self._names(node, name, seeds.RETRY)
            elif name in SECTIONS:
                self._names(node, name, {each: key.path for each, key in SECTIONS[name].items()})
            else:
                known = (*SECTIONS, *seeds.MARKS, seeds.RETRY_SECTION)
                self._unknown(name, name, place, known, "" if name not in KEYS else "write section and key apart")

    def _names(
        self,
        node: yaml.Node,
        section: str,
        known: Mapping[str, str],
        inner: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Takes in the names of one section."""
        for name, place, value in self._pairs(node, section):
            path = f"{section}.{name}"
            if path in _NO_SECRETS:
                what = f"a secret does not belong in this file; name its file: {_NO_SECRETS[path]}"
                self._wrong(place, path, what)
            elif name in known:
                self._value(known[name], path, value)
            elif inner and name in inner:
                self._names(value, path, inner[name])
            else:
                self._unknown(name, path, place, (*known, *(inner or ())), "")

    def _pairs(self, node: yaml.Node, path: str) -> list[tuple[str, Place, yaml.Node]]:
        """The names in a mapping with their places and values; what is no mapping, or stands twice, is a problem."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _YAML + "null":
            return []
        if not isinstance(node, yaml.MappingNode):
            self._wrong(self._place(node), path, f"a mapping is wanted, and this is {_WHAT[type(node)]}")
            return []
        found: dict[str, tuple[str, Place, yaml.Node]] = {}
        for key, value in node.value:
            place = self._place(key)
            if key.tag == _MERGE:
                self._wrong(place, path, "merge keys (<<) are not read: write it out")
            elif not isinstance(key, yaml.ScalarNode):
                self._wrong(place, path, f"a name is wanted, and this is {_WHAT[type(key)]}")
            elif key.value in found:
                where = f"{path}.{key.value}" if path else key.value
                self._wrong(place, where, f"said before, in line {found[key.value][1].line}")
            else:
                found[key.value] = key.value, place, value
        return list(found.values())

    def _value(self, path: str, name: str, node: yaml.Node) -> None:
        """Takes in the value of a key, under the name that it has in the file."""
        key, place = KEYS[path], self._place(node)
        if key.kind == "secret":
            self._wrong(place, name, "a secret does not belong in a file")
            return
        if key.kind == "days_by_name":
            self._days(key, name, node)
            return
        raw = self._raw(node, name)
        if raw is None:
            return
        from_file = name.rpartition(".")[2] not in seeds.FROM_WHERE_IT_RUNS
        try:
            value = value_in(key, raw, self._folder if from_file else "")
        except Wrong as error:
            self._wrong(place, name, str(error))
            return
        if path == "hub.urls" and name == "storage.htpc_url":
            value = tuple(seeds.hub_of(url) for url in value)
        self._source.say(path, value, place, name)
        if why := _ignored(key, value):
            self._source.ignored.append(Ignored(place, name, why))

    def _days(self, key: Key, name: str, node: yaml.Node) -> None:
        found: dict[str, float] = {}
        for each, _, value in self._pairs(node, name):
            raw = self._raw(value, f"{name}.{each}")
            try:
                if isinstance(raw, str):
                    found[each] = days_of(key, raw)
                elif raw is not None:
                    raise Wrong("one value is wanted, and this is a list")
            except Wrong as error:
                self._wrong(self._place(value), f"{name}.{each}", str(error))
        if found:
            self._source.say(key.path, found, self._place(node), name)

    def _raw(self, node: yaml.Node, name: str) -> str | list[str] | None:
        """The text of a value, or the texts of a list; None where nothing is said, or something impossible."""
        if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            members: list[str] = []
            for each in node.value:
                if not isinstance(each, yaml.ScalarNode) or each.tag not in _PLAIN:
                    self._wrong(self._place(each), name, "a text is wanted here")
                    return None
                members.append("" if each.tag == _YAML + "null" else each.value)
            return members
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _YAML + "null":
                return None
            if node.tag in _PLAIN:
                return str(node.value)
        elif isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            self._wrong(self._place(node), name, "one value is wanted, and this is a mapping")
            return None
        self._wrong(self._place(node), name, f"a tag ({node.tag.removeprefix(_YAML)[:40]}), which are not read")
        return None

    def _nodes(self, node: yaml.Node, place: Place) -> None:
        """Takes in the machines of a relay.yaml: those that store are hubs."""
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(self._place(node), seeds.NODES, f"a list of machines is wanted, not {_WHAT[type(node)]}")
            return
        urls: list[str] = []
        ids: dict[str, Place] = {}
        for number, each in enumerate(node.value):
            url = self._machine(each, f"{seeds.NODES}[{number}]", ids)
            if url:
                urls.append(url)
        if urls:
            self._source.say("hub.urls", tuple(dict.fromkeys(urls)), place, seeds.NODES)
        port = seeds.port_of(urls[0]) if len(urls) == 1 else None
        if port is not None:
            self._source.say("serve.port", port, place, seeds.NODES)

    def _machine(self, node: yaml.Node, path: str, ids: dict[str, Place]) -> str:
        """The address of one machine, if others sync to it; else empty."""
        found: dict[str, str | bool] = {}
        for name, place, value in self._pairs(node, path):
            if name not in _MACHINE:
                self._unknown(name, f"{path}.{name}", place, seeds.NODE_FIELDS, "")
                continue
            raw = self._raw(value, f"{path}.{name}")
            if raw is None:
                continue
            try:
                found[name] = value_in(_MACHINE[name], raw)
            except Wrong as error:
                self._wrong(self._place(value), f"{path}.{name}", str(error))
            if name == "id" and isinstance(raw, str):
                if raw in ids:
                    self._wrong(self._place(value), f"{path}.id", f"another machine has it, in line {ids[raw].line}")
                ids[raw] = self._place(value)
        if not seeds.stores(found):
            return ""
        if "sync_endpoint" in found:
            return seeds.hub_of(str(found["sync_endpoint"]))
        if "host" not in found:
            self._wrong(self._place(node), path, "a machine that stores needs its host and port, or sync_endpoint")
            return ""
        return f"http://{found['host']}" + (f":{found['port']}" if "port" in found else "")

    def _unknown(self, name: str, path: str, place: Place, known: tuple[str, ...], hint: str) -> None:
        # Among Commander's own names some are a little like ours: model, nodes.
        near = nearest(name, known, _SLIP if self._seed else _LIKE)
        if self._seed and not near and not hint:
            self._source.ignored.append(Ignored(place, path, seeds.NOT_OURS))
        else:
            self._source.problems.append(Problem(place, path, "unknown key" + (f": {hint}" if hint else ""), near))

    def _wrong(self, place: Place, path: str, what: str) -> None:
        self._source.problems.append(Problem(place, path, what))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._source.name, *_at(node.start_mark))


def _ignored(key: Key, value: object) -> str:
    if key.path == "cache.compression" and value is True:
        return ""  # as it is
    return key.ignored


_MACHINE: Final = {
    "id": Key(path="nodes.id", kind="text", says="its name"),
    "host": Key(path="nodes.host", kind="text", says="its address"),
    "port": Key(path="nodes.port", kind="whole", least=1, most=65_535, says="its port"),
    "role": Key(path="nodes.role", kind="text", says="storage: others sync to it"),
    "sync_enabled": Key(path="nodes.sync_enabled", kind="flag", says="whether others sync to it"),
    "sync_endpoint": Key(path="nodes.sync_endpoint", kind="url", says="where others sync to"),
}
