"""Every error keeps its code, its status, its exit code, and what it is to Python, also across the wire."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.errors import HoldfastError, HubError, from_wire

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "from_wire"]
named = pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))

BUILTIN = {
    errors.UsageError: ValueError,
    errors.MissingExtra: ImportError,
    errors.Denied: PermissionError,
    errors.NotFound: LookupError,
    errors.CapacityError: OSError,
    errors.NoStore: FileNotFoundError,
    errors.HubUnavailable: ConnectionError,
    errors.ObjectNotFound: KeyError,
    errors.StorageUnavailable: ConnectionError,
}


@named
def test_an_error_survives_the_wire(error: type[HoldfastError]) -> None:
    sent = error("version 6 of notes/plan is gone", hint="holdfast history", current_version=7)
    body = sent.to_wire()
    assert body["error"]["code"] == error.code
    assert body["error"]["exit"] == error.exit_code
    back = from_wire(body)
    assert type(back) is error
    assert (str(back), back.hint, back.context) == (str(sent), "holdfast history", {"current_version": 7})


@named
def test_an_error_says_its_message_and_nothing_else(error: type[HoldfastError]) -> None:
    # OSError and ImportError have ideas of their own about str().
    assert str(error("no room on /x")) == "no room on /x"
    assert error("a").hint == ""
    assert error("a").to_wire()["error"].get("context") is None


def test_every_code_is_one_class() -> None:
    assert len({error.code for error in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize(("ours", "theirs"), BUILTIN.items(), ids=lambda cls: cls.__name__)
def test_an_error_is_also_pythons_own(ours: type[HoldfastError], theirs: type[Exception]) -> None:
    assert issubclass(ours, theirs)
    with pytest.raises(theirs):
        raise ours("x")


@named
def test_statuses_and_exit_codes_are_among_those_documented(error: type[HoldfastError]) -> None:
    assert 400 <= error.status < 600
    assert error.exit_code in {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    parent = error.__mro__[1]
    assert issubclass(parent, HoldfastError) or error is HoldfastError


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    line = re.compile(r"(\w+)\s+(?:\([\w, ]+\)\s+)?([a-z_]+)\s+(\d+)\s+(\d+)(?:\s|$)")
    shown = {found[1]: found.groups()[1:] for found in line.finditer(errors.__doc__ or "")}
    real = {error.__name__: (error.code, str(error.status), str(error.exit_code)) for error in CLASSES}
    del real["HoldfastError"]  # the root stands in the heading
    assert shown == real


@pytest.mark.parametrize("body", [None, [], "x", {}, {"error": "x"}, {"error": {}}, {"error": {"code": 5}}])
def test_an_answer_that_is_not_of_our_form_is_a_hub_error(body: object) -> None:
    back = from_wire(body, status=418)
    assert type(back) is HubError
    assert "418" in str(back)


def test_a_code_of_a_newer_hub_is_a_hub_error_that_keeps_its_words() -> None:
    back = from_wire({"error": {"code": "from_the_future", "message": "m", "hint": "h", "context": [1]}})
    assert type(back) is HubError
    assert (str(back), back.hint, back.context) == ("m", "h", {})


def test_no_message_in_the_pure_rooms_begins_with_a_capital() -> None:
    """A message continues the sentence «holdfast: …», so it begins in lower case, or with a name."""
    root = Path(errors.__file__).parent
    names = {"NaN", "PRAGMA"}
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                first = node.exc.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    word = first.value.split()[0]
                    assert word in names or word[0] == word[0].lower(), f"{path.name}:{node.lineno}: {first.value}"
