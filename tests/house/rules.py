"""The house rules as pure functions: source text in, findings out. It knows no file system.

Each rule takes a `Source` and yields `Finding`s. `test_tidy.py` runs them over the tree and also
feeds each one a sample that breaks it, so a rule that has gone blind is noticed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 6
VAGUE_NAMES = {"utils", "helpers", "common", "base", "manager"}
SEED_NAMES = {"src/holdfast/objects/manager.py"}  # StorageManager: a seed's own public name
CODEC = "src/holdfast/codec.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """One broken rule at one place."""

    rule: str
    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} [{self.rule}]"


@dataclass(frozen=True)
class Source:
    """One text file, by its path from the top of the repository."""

    path: str
    text: str
    rooms: frozenset[str] = frozenset()
    """The modules that lie directly in `holdfast`."""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_shipped(self) -> bool:
        return self.is_python and self.path.startswith("src/")

    def finding(self, rule: Callable[..., object], node: ast.AST | int, what: str) -> Finding:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Finding(rule.__name__, self.path, line, what)


def module_length(source: Source) -> Iterator[Finding]:
    """A module fits in a head."""
    lines = len(source.text.splitlines())
    if source.is_python and lines > MODULE_LINES_MAX:
        yield source.finding(module_length, lines, f"{lines} lines, {MODULE_LINES_MAX} are allowed: split it")


def function_length(source: Source) -> Iterator[Finding]:
    """A function fits on a screen."""
    for node in source.nodes if source.is_python else ():
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                what = f"{node.name}() has {lines} lines, {FUNCTION_LINES_MAX} are allowed"
                yield source.finding(function_length, node, what)


def parameters(source: Source) -> Iterator[Finding]:
    """A public call can be read without counting on fingers; a command's options are not a call."""
    for function, owner in public_functions(source, dunders=("__init__", "__call__", "__new__")):
        if any(".command(" in ast.unparse(d) + "(" for d in function.decorator_list):
            continue
        args = function.args
        names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
        names += [a.arg for a in (args.vararg, args.kwarg) if a]
        if owner and names and names[0] in {"self", "cls"}:
            del names[0]
        if len(names) > PARAMETERS_MAX:
            what = f"{function.name}() takes {len(names)} parameters, {PARAMETERS_MAX} are allowed"
            yield source.finding(parameters, function, what)


def vague_name(source: Source) -> Iterator[Finding]:
    """A module's name says what lies in it."""
    path = PurePosixPath(source.path)
    vague = VAGUE_NAMES & {path.stem, *path.parts[:-1]}
    if source.is_python and vague and source.path not in SEED_NAMES:
        yield source.finding(vague_name, 1, f"{vague.pop()!r} says nothing: name what it holds")


def docstring(source: Source) -> Iterator[Finding]:
    """Every public name makes a promise; a method of a derived class inherits one."""
    if not source.is_shipped:
        return
    if not ast.get_docstring(source.tree):
        yield source.finding(docstring, 1, "the module has no docstring")
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and is_public(node) and not ast.get_docstring(node):
            yield source.finding(docstring, node, f"class {node.name} has no docstring")
    for function, owner in public_functions(source):
        ports = {"ABC", "Exception", "Generic", "NamedTuple", "Protocol", "TypedDict", "object"}
        inherits = owner and any(ast.unparse(b).split("[")[0] not in ports for b in owner.bases)
        decorators = {ast.unparse(d).split(".")[-1] for d in function.decorator_list}
        exempt = inherits or decorators & {"overload", "setter", "deleter"}
        if not exempt and not ast.get_docstring(function):
            yield source.finding(docstring, function, f"{function.name}() has no docstring")


def code_from_data(source: Source) -> Iterator[Finding]:
    """Data never turns into code."""
    for node in source.nodes if source.is_python else ():
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {a.name for a in node.names} | {getattr(node, "module", "")}
            if "pickle" in modules:
                yield source.finding(code_from_data, node, "pickle runs code when it reads")
        elif isinstance(node, ast.Call):
            name = called(node)
            if name in {"eval", "builtins.eval", "yaml.load", "yaml.unsafe_load"}:
                yield source.finding(code_from_data, node, f"{name}() may run what it reads")


def one_decompressor(source: Source) -> Iterator[Finding]:
    """Every decompression goes through the capped reader in codec.py."""
    if not source.is_shipped or source.path == CODEC:
        return
    for node in source.nodes:
        if isinstance(node, ast.Call) and called(node).split(".")[-1] == "decompress":
            what = "a bomb of 32 KB becomes 1 GiB here: use codec.inflate"
            yield source.finding(one_decompressor, node, what)


def front_door(source: Source) -> Iterator[Finding]:
    """Rooms call rooms; only users come in by `from holdfast import Store`."""
    if not source.is_shipped:
        return
    for node in source.nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "holdfast" and not node.level:
            names = {a.name for a in node.names} - source.rooms - {"__version__"}
            if names:
                what = f"{', '.join(sorted(names))}: import it from the room where it lives"
                yield source.finding(front_door, node, what)


# The patterns are written in two pieces so that this file does not find itself.
HOSTS = re.compile("py" + r"pi\.org|python" + r"hosted\.org|npm" + r"js\.org|deb\." + "debian")
PLACES = re.compile(r"(?<![\w.])/(?:wo" + r"rk|ro" + "ot)/")
PROMISES = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|X" + r"XX)\b")


def no_trace(source: Source) -> Iterator[Finding]:
    """The repository names no machine, no registry, and no work that somebody might do one day."""
    reasons = {
        HOSTS: "names a package registry's host",
        PLACES: "names a path of one machine",
        PROMISES: "a wish is an issue, not a comment",
    }
    for number, line in enumerate(source.text.splitlines(), start=1):
        for pattern, what in reasons.items():
            if pattern.search(line):
                yield source.finding(no_trace, number, what)


RULES: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    module_length,
    function_length,
    parameters,
    vague_name,
    docstring,
    code_from_data,
    one_decompressor,
    front_door,
    no_trace,
)


def findings(source: Source) -> list[Finding]:
    """All that is wrong with one file."""
    return [finding for rule in RULES for finding in rule(source)]


def is_public(node: Function | ast.ClassDef) -> bool:
    """No leading underscore."""
    return not node.name.startswith("_")


def public_functions(source: Source, dunders: tuple[str, ...] = ()) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    """The shipped functions that others may call, each with its class; `dunders` are public too."""
    if not source.is_shipped:
        return
    for node in source.tree.body:
        if isinstance(node, Function) and is_public(node):
            yield node, None
        elif isinstance(node, ast.ClassDef) and is_public(node):
            for item in node.body:
                if isinstance(item, Function) and (is_public(item) or item.name in dunders):
                    yield item, node


def called(call: ast.Call) -> str:
    """What is called, with its dots; ``?`` where it hangs on something that is no name."""
    names, node = list[str](), call.func
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    else:
        names.append("?")
    return ".".join(reversed(names))
