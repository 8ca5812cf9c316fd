"""The tree keeps the house rules, and each rule is shown to catch what it forbids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.rules import RULES, Finding, Source, findings

ROOT = Path(__file__).parents[2]
PLACES = ("src", "tests", "bench", "deploy", "docs", "changes", "examples", "requirements", ".ci")
TEXT = re.compile(r"\.(css|html|js|json|md|py|sh|service|sql|toml|txt|ya?ml)$|^(Dockerfile|Makefile|NOTICE|run)$")

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (path, rule): "why this one place may",
    ("src/holdfast/node/store.py", "parameters"): "a store's and a message's fields are what users name; all optional",
    ("src/holdfast/node/aio.py", "parameters"): "the same signatures as node/store.py",
    ("src/holdfast/node/mailing.py", "parameters"): "a message's fields are what users name; all optional",
    ("src/holdfast/node/aio_mail.py", "parameters"): "the same signatures as node/mailing.py",
    ("src/holdfast/corpus/search/words.py", "parameters"): "a search's filters are what a client names; all optional",
    ("src/holdfast/node/searching.py", "parameters"): "a search's filters are what users name; all optional",
    ("src/holdfast/node/aio_searching.py", "parameters"): "the same signatures as node/searching.py",
    ("src/holdfast/node/hub_searching.py", "parameters"): "the same signatures as node/searching.py",
    ("src/holdfast/node/hub.py", "parameters"): "messages() has the same filters as Store.messages",
    ("src/holdfast/node/aio_hub.py", "parameters"): "the same signatures as node/hub.py",
    ("src/holdfast/agents/recruiter.py", "parameters"): "a search's criteria are what a recruiter names; all optional",
    (
        "tests/flow/test_aos_seed.py",
        "code_from_data",
    ): "the specification pickles, and saves the bytes; nothing is read",
    ("tests/unit/test_objects_pickles.py", "code_from_data"): "makes old pickles for the reader; it reads none itself",
}


def sources() -> Iterator[Source]:
    """Every text file that is ours."""
    package = ROOT / "src" / "holdfast"
    rooms = frozenset(p.stem for p in package.iterdir() if p.is_dir() or p.suffix == ".py")
    files = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    for path in sorted([*files, *ROOT.iterdir()]):
        if path.is_file() and TEXT.search(path.name):
            yield Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"), rooms)


def test_every_file_keeps_every_rule_and_every_exception_is_still_needed() -> None:
    found = [f for source in sources() for f in findings(source)]
    left = [f"\n{f}" for f in found if (f.path, f.rule) not in EXCEPTIONS]
    assert not left, "".join(left) + "\n(an exception is a line with its reason in EXCEPTIONS)"
    assert set(EXCEPTIONS) <= {(f.path, f.rule) for f in found}
    assert all(len(reason) > 10 for reason in EXCEPTIONS.values())


def check(text: str, path: str = "src/holdfast/sample.py") -> list[Finding]:
    """What the rules say about a sample that is otherwise in order."""
    return findings(Source(path, '"""A sample."""\n' + text, frozenset({"errors", "codec"})))


def function_of(lines: int) -> str:
    """A public function of exactly so many lines."""
    return 'def f():\n    """Promise."""\n' + "    x = 1\n" * (lines - 2)


BROKEN = {
    "a module of 501 lines": ("module_length", "x = 1\n" * 500),
    "a function of 71 lines": ("function_length", function_of(71)),
    "seven parameters": ("parameters", 'def f(a, b, c, d, e, f, g):\n    """P."""\n'),
    "seven with stars": ("parameters", 'def f(a, b, c, d, e, *f, **g):\n    """P."""\n'),
    "seven to build": (
        "parameters",
        'class C:\n    """P."""\n    def __init__(self, a, b, c, d, e, f, g): ...\n',
    ),
    "no docstring on a function": ("docstring", "def f(): ...\n"),
    "no docstring on a class": ("docstring", "class C: ...\n"),
    "no docstring on a method": ("docstring", 'class C:\n    """P."""\n    def f(self): ...\n'),
    "an import of pickle": ("code_from_data", "import pickle\n"),
    "a name from pickle": ("code_from_data", "from pickle import loads\n"),
    "an unsafe yaml": ("code_from_data", "yaml.load(text)\n"),
    "an eval": ("code_from_data", "eval(text)\n"),
    "an uncapped decompression": ("one_decompressor", "zlib.decompress(data)\n"),
    "the front door from inside": ("front_door", "from holdfast import Store\n"),
    "a registry's host": ("no_trace", "# see py" + "pi.org\n"),
    "a machine's path": ("no_trace", "# look in /wo" + "rk/x\n"),
    "a wish": ("no_trace", "# TO" + "DO: later\n"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_catches(case: str) -> None:
    rule, text = BROKEN[case]
    assert [rule] == [f.rule for f in check(text)]


@pytest.mark.parametrize("name", ["utils.py", "common/x.py", "manager.py"])
def test_a_vague_name_is_caught(name: str) -> None:
    assert [f.rule for f in check("", f"src/holdfast/{name}")] == ["vague_name"]


def test_a_module_without_a_docstring_is_caught() -> None:
    assert [f.rule for f in findings(Source("src/holdfast/x.py", "x = 1\n"))] == ["docstring"]


def test_every_rule_has_a_sample() -> None:
    assert {r.__name__ for r in RULES} == {rule for rule, _ in BROKEN.values()} | {"vague_name"}


@pytest.mark.parametrize(
    "text",
    [
        function_of(70),
        'class C:\n    """P."""\n    def f(self, a, b, c, d, e, f):\n        """P."""\n',
        'class C(Port):\n    """P."""\n    def put(self): ...\n',
        '@app.command()\ndef f(a, b, c, d, e, f, g):\n    """P."""\n',
        "def _private(a, b, c, d, e, f, g): ...\n",
        "from holdfast import __version__, codec, errors\n",
        "yaml.safe_load(text)\n",
        "# (mktemp -d /tmp/h.XXXX" + "XX), and https://a.example/wo" + "rk/\n",
    ],
)
def test_what_is_in_order_passes(text: str) -> None:
    assert check(text) == []


def test_only_codec_may_decompress() -> None:
    assert check("zlib.decompress(data)\n", "src/holdfast/codec.py") == []


def test_seed_names_may_stay() -> None:
    assert check("", "src/holdfast/objects/manager.py") == []
