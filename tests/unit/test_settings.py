"""What can be configured: units, files with every mistake in its place, precedence, the schema, the page."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.settings import seeds
from holdfast.settings.keys import KEYS, SECTIONS
from holdfast.settings.layers import LEVELS, Configuration, Layer, environment, strangers, told
from holdfast.settings.reading import FILE_BYTES_MAX, read
from holdfast.settings.said import Source
from holdfast.settings.schema import schema
from holdfast.settings.units import size_in, size_said, span_in, span_said
from tests.house.doc_blocks import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
VALID = jsonschema_rs.validator_for(schema())


def source(text: str, name: str = "f.yaml", folder: str = "/conf") -> Source:
    return read(text.encode(), name, folder)


def said(text: str) -> dict[str, Any]:
    """What a file says, by key; it must be in order."""
    found = source(text)
    assert found.problems == []
    return {path: each.value for path, each in found.said.items()}


def wrong(text: str) -> list[str]:
    return [str(each) for each in source(text).problems]


# -- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2147483648", 2 << 30),
        ("2 GB", 2 << 30),
        ("2GiB", 2 << 30),
        ("2g", 2 << 30),
        ("1.5 KiB", 1536),
        ("10_000", 10_000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert size_in(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 gigs", "1.5", "1e3", "1,5 GB", "2 GB 1 MB", "0x10", "1_0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|byte"):
        size_in(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("500 ms", 0.5),
        ("24h", 86_400),
        ("30 days", 2_592_000),
        ("1h 30m", 5400),
        ("2.5", 2.5),
        ("2 weeks", 1_209_600),
    ],
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    assert span_in(text) == seconds
    assert span_in("30", 86_400) == 2_592_000


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 fortnights", "1h 5", "5 5s", "1e3", "01:30"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        span_in(text)


@given(st.integers(0, 1 << 50), st.integers(0, 10**9))
def test_what_is_shown_is_read_back_as_the_same(size: int, milliseconds: int) -> None:
    assert size_in(size_said(size)) == size
    assert span_in(span_said(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_says_what_it_says() -> None:
    found = said(
        "store: {path: ./node, level: critical, cas: [locks]}\nagent: {id: 007, context_tokens: 128k}\n"
        "hub:\n  urls: http://a:1/ http://b:2\n  token_command: [pass, show, x y]\n  token_file:\n"
        "cache: {max_bytes: 2 GB, retention_days: 30, collection_days: {log-*: 7, mail: 2 weeks}}\n"
        "serve: {plain_http: yes, rate: 2.5, host_names: 'a, b'}\nbackup: {address: 'file:backups', every: 30m}\n"
    )
    assert found == {
        "store.path": "/conf/node",
        "store.level": "critical",
        "store.cas": ("locks",),
        "agent.id": "007",
        "agent.context_tokens": 128_000,
        "hub.urls": ("http://a:1", "http://b:2"),
        "hub.token_command": ("pass", "show", "x y"),
        "cache.max_bytes": 2 << 30,
        "cache.retention_days": 30 * 86_400,
        "cache.collection_days": {"log-*": 7 * 86_400, "mail": 14 * 86_400},
        "serve.plain_http": True,
        "serve.rate": 2.5,
        "serve.host_names": ("a", "b"),
        "backup.address": "file:/conf/backups",
        "backup.every": 1800.0,
    }


def test_every_mistake_is_told_at_once_with_its_line_and_column() -> None:
    text = (PAGE.read_text().split('agent_id: "recruiter-001"')[1].split("```")[0]).replace("retention", "retension")
    found = wrong('agent_id: "recruiter-001"' + text.replace("batch_size: 500", "batch_size: 0"))
    assert found == [
        "f.yaml:8:3: cache.retension_days: unknown key; did you mean 'retention_days'?",
        "f.yaml:12:15: sync.batch_size: must be between 1 and 10000, got '0'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hub:\n\turls: x", "f.yaml:2:1: a tab, where blanks are wanted"),
        ("- a", "f.yaml:1:1: a mapping of sections is wanted, and this is a list"),
        ("hub", "f.yaml:1:1: a mapping of sections is wanted, and this is one value"),
        ("hub: [1", "f.yaml:1:8: not YAML: while parsing a flow sequence"),
        ("x: 1\n---\ny: 2", "f.yaml:2:1: not YAML: expected a single document"),
        ("hub: x", "f.yaml:1:6: hub: a mapping is wanted, and this is one value"),
        ("hubs: {}", "f.yaml:1:1: hubs: unknown key; did you mean 'hub'?"),
        ("hub:\n  urls: http://a\n  urls: http://b", "f.yaml:3:3: hub.urls: said before, in line 2"),
        ("hub: {urls: [http://a, {b: 1}]}", "f.yaml:1:24: hub.urls: a text is wanted here"),
        ("hub: {urls: ftp://a}", "f.yaml:1:13: hub.urls: an address is wanted"),
        ("hub: {urls: !!python/name:os.system x}", "f.yaml:1:13: hub.urls: a tag (python/name:os.system)"),
        ("hub: {token: abc}", "f.yaml:1:7: hub.token: a secret does not belong in this file"),
        ("store: {<<: {level: basic}}", "f.yaml:1:9: store: merge keys (<<) are not read"),
        ("store: {level: advancd}", "f.yaml:1:16: store.level: one of basic, advanced, critical is wanted, got"),
        ("serve: {port: 99999}", "f.yaml:1:15: serve.port: must be between 0 and 65535, got '99999'"),
        ("serve: {port: 010}", "f.yaml:1:15: serve.port: a whole number without a leading 0"),
        ("serve: {host: {}}", "f.yaml:1:15: serve.host: one value is wanted, and this is a mapping"),
        ("serve: {host: [a]}", "f.yaml:1:15: serve.host: one value is wanted, and this is a list"),
        ("serve: {plain_http: perhaps}", "f.yaml:1:21: serve.plain_http: true or false is wanted, got 'perhaps'"),
        ("limits: {floor: 2 gigs}", "f.yaml:1:17: limits.floor: no unit of size: 'gigs'"),
        ("limits: {floor: 2000 TiB}", "f.yaml:1:17: limits.floor: must be between 0 B and 1024 TiB"),
        ("scan: {every: 5 fortnights}", "f.yaml:1:15: scan.every: no unit of time: 'fortnights'"),
        ("cache: {collection_days: {a: b}}", "f.yaml:1:30: cache.collection_days.a: not a length of time"),
        ("nodes: {}", "f.yaml:1:8: nodes: a list of machines is wanted"),
        ("nodes: [{id: a, role: storage}]", "f.yaml:1:9: nodes[0]: a machine that stores needs its host and port"),
        ("nodes: [{id: a}, {id: a}]", "f.yaml:1:23: nodes[1].id: another machine has it, in line 1"),
        ("nodes: [{id: a, prot: 1}]", "f.yaml:1:17: nodes[0].prot: unknown key; did you mean 'port'?"),
        ("cache: {max_bytes: 1 GB}\ncache_max_bytes: 2 GB", "f.yaml:2:18: cache_max_bytes: said before, otherwise: "),
        ("a: " + "[" * 5000, "f.yaml:1:1: not YAML that anybody would write: it is nested too deeply"),
    ],
)  # fmt: skip
def test_a_mistake_says_what_and_where(text: str, problem: str) -> None:
    (found,) = wrong(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hub:\n  urls: \xff", "f:2:9: not UTF-8"),
        (b"hub: \x00", "f:1:6: a character that cannot stand in YAML"),
        (b"#" * (FILE_BYTES_MAX + 1), "f:1:1: 65,537 bytes, the most is 65,536"),
    ],
)
def test_bytes_that_are_no_text_are_told(data: bytes, problem: str) -> None:
    (found,) = read(data, "f").problems
    assert str(found).startswith(problem)


@given(st.binary(max_size=200) | st.text(alphabet="ahub:urlst[]{}#&*!%@'\"|>- \n\t0", max_size=200).map(str.encode))
def test_no_text_whatever_breaks_the_reader(data: bytes) -> None:
    assert all(":" in str(each) for each in read(data, "f").problems)


def test_a_secret_in_an_address_is_never_repeated() -> None:
    found = source("serve: {database: 'postgresql://me:hunter2@db/x', follow: 'redis://:hunter2@c'}")
    assert "hunter2" not in str(found.problems)
    assert Configuration([Layer("user", found)]).shown("serve.database") == "postgresql://me:***@db/x"


def test_an_empty_file_says_nothing() -> None:
    for text in ("", "# nothing\n", "hub:\n", "---\n"):
        assert said(text) == {}


# -- the files of Commander OS ----------------------------------------------------------------------------------------


def documented() -> list[str]:
    return [block.text for block in blocks(PAGE.read_text()) if block.language == "yaml"]


def test_the_documented_files_are_in_order_and_keep_the_schema() -> None:
    texts = documented()
    assert len(texts) == 5
    for text in texts:
        assert wrong(text) == []
        assert [each.message for each in VALID.iter_errors(yaml.safe_load(text))] == []


def test_the_seeds_files_mean_what_they_meant() -> None:
    _, _, agent, relay, storage = documented()
    assert said(agent) | said(relay) == {
        "agent.id": "recruiter-001",
        "agent.role": "recruiter",
        "agent.node_id": "Gillsystems-Laptop",
        "agent.enabled": True,
        "cache.max_bytes": 2 << 30,
        "cache.retention_days": 30 * 86_400,
        "cache.compression": True,
        "sync.batch_size": 500,
        "sync.interval_seconds": 5,
        "sync.retry_max": 10,
        "sync.retry_backoff_base": 2,
        "hub.urls": ("http://10.0.0.42:8001",),
        "hub.enabled": True,
        "serve.port": 8001,
        "serve.data": "/gillsystems_zfs_pool/AI_storage/agent_storage",
    }
    assert said(storage)["store.path"] == "./data/agents", "as it was opened: from the working directory"
    assert said(storage)["hub.urls"] == ("http://10.0.0.42:8001",)


def test_what_has_no_meaning_here_is_listed_with_its_reason_and_harms_nothing() -> None:
    _, _, agent, _, storage = documented()
    names = {each.path: each.why for each in source(agent).ignored}
    assert set(names) == {
        "node_id", "sync.batch_size", "sync.interval_seconds", "sync.retry_max", "sync.retry_backoff_base",
    }  # fmt: skip
    assert names["sync.retry_max"] == "no record is ever given up"
    assert len(source(storage).ignored) == 5
    (off,) = source("agent_id: a\ncache: {compression: false}").ignored
    assert off.path == "cache.compression"


def test_what_is_commanders_own_is_left_to_it_and_a_slip_is_not() -> None:
    found = source("agent_id: a\nmodel: {name: llama}\nstorage: {vacuum: nightly}\n")
    assert [each.path for each in found.ignored] == ["model", "storage.vacuum"]
    assert found.problems == []
    assert wrong("agent_id: a\nrol: x") == ["f.yaml:2:1: rol: unknown key; did you mean 'role'?"]
    assert wrong("agent: {id: a}\ncolour: x") == ["f.yaml:2:1: colour: unknown key"], (
        "in a file of ours it is a mistake"
    )


def test_machines_that_store_are_hubs() -> None:
    text = "nodes:\n- {id: a, host: h1, port: 1, role: storage}\n- {id: b, host: h2, port: 2, role: storage}\n"
    assert said(text) == {"hub.urls": ("http://h1:1", "http://h2:2")}, "of two nobody knows which port is meant"
    off = "nodes: [{id: a, host: h, port: 1, role: storage, sync_enabled: false}, {id: b, host: i, role: worker}]"
    assert said(off) == {}
    assert said("nodes: [{sync_enabled: true, sync_endpoint: 'http://h:1/x/sync/message'}]")["hub.urls"] == (
        "http://h:1/x",
    )


# -- who is heard first -----------------------------------------------------------------------------------------------


def holding(**texts: str) -> Configuration:
    """What holds where each level's file says so."""
    return Configuration([Layer(level, source(text, f"{level}.yaml")) for level, text in texts.items()])  # type: ignore[arg-type]


def test_each_level_is_heard_before_the_next() -> None:
    texts = {level: f"agent: {{id: {level}}}" for level in LEVELS}
    while texts:
        found = holding(**dict(reversed(texts.items())))
        first = next(iter(texts))
        assert (found.get("agent.id"), found.level("agent.id")) == (first, first)
        assert str(found.place("agent.id")) == f"{first}.yaml:1:13"
        del texts[first]
    assert (holding().get("agent.id"), holding().level("agent.id")) == (None, "default")


def test_alternatives_are_heard_together_or_not_at_all() -> None:
    found = holding(user="hub: {token_file: f}", project="hub: {token_command: [c]}")
    assert (found.get("hub.token_command"), found.get("hub.token_file")) == (("c",), None)
    found = holding(user="serve: {data: d}", project="serve: {database: 'postgresql://x'}")
    assert not found.has("serve.data")
    both = holding(user="hub: {token_file: f, token_command: [c]}").problems
    assert [str(each) for each in both] == ["user.yaml:1:37: hub.token_command: give this or hub.token_file, not both"]


def test_a_hub_is_switched_off_by_whoever_named_it_or_outranks_him() -> None:
    on, off = "hub: {urls: http://a}", "hub: {enabled: false}"
    assert holding(project=on).hubs == ("http://a",)
    assert holding(project=off, user=on).hubs == ()
    assert holding(project="hub: {urls: http://a, enabled: false}").hubs == ()
    assert holding(environment=on, project=off).hubs == ("http://a",)


def test_every_key_has_its_variable_and_the_older_names_go_on() -> None:
    older = {
        "HOLDFAST_STORE": ("store.path", "s", "s"),
        "HOLDFAST_HUB": ("hub.urls", "http://a http://b", ("http://a", "http://b")),
        "HOLDFAST_AGENT": ("agent.id", "x", "x"),
        "HOLDFAST_TOKEN_FILE": ("serve.token_file", "t", "t"),
        "HOLDFAST_DATABASE": ("serve.database", "postgresql://x", "postgresql://x"),
        "HOLDFAST_BACKUP": ("backup.address", "file:b", "file:b"),
        "HOLDFAST_BACKUP_FROM": ("backup.source", "d", "d"),
        "HOLDFAST_KEY_FILE": ("store.key_file", "k", "k"),
        "HOLDFAST_PASSPHRASE": ("store.passphrase", "p q", "p q"),
        "COMMANDER_STORAGE_DIR": ("store.path", "c", "c"),
        "HOLDFAST_SERVE_PORT": ("serve.port", "1", 1),
        "HOLDFAST_CACHE_MAX_BYTES": ("cache.max_bytes", "1 GB", 1 << 30),
        "HOLDFAST_CACHE_COLLECTION_DAYS": ("cache.collection_days", "a=1 b=2", {"a": 86_400, "b": 172_800}),
        "HOLDFAST_HUB_TOKEN_COMMAND": ("hub.token_command", "pass show 'a b'", ("pass", "show", "a b")),
    }
    for variable, (path, text, value) in older.items():
        found = Configuration(environment({variable: text}))
        assert (found.get(path), str(found.place(path)), found.problems) == (value, f"${variable}", [])
    assert (
        Configuration(environment({"HOLDFAST_STORE_PATH": "new", "HOLDFAST_STORE": "old"})).get("store.path") == "new"
    )
    assert not Configuration(environment({"HOLDFAST_STORE": ""})).has("store.path")
    (problem,) = Configuration(environment({"HOLDFAST_SERVE_PORT": "x"})).problems
    assert str(problem) == "$HOLDFAST_SERVE_PORT: serve.port: a whole number is wanted, got 'x'"


def test_what_commanders_variables_say_of_a_hub_counts_last() -> None:
    old = environment({"COMMANDER_STORAGE_DIR": "/zfs/", "COMMANDER_DB_URL": "sqlite:///commander_memory.db"})
    alone = Configuration(old)
    assert (alone.get("store.path"), alone.get("serve.data")) == ("/zfs/", "/zfs/hub")
    assert [each.path for each in alone.ignored] == ["serve.database"]
    system = Layer("system", source("serve: {data: /srv/hub}"))
    assert Configuration([*old, system]).get("serve.data") == "/srv/hub", "a hub never begins an empty directory for it"
    base = Configuration(environment({"COMMANDER_DB_URL": "postgresql://db/x", "COMMANDER_STORAGE_DIR": "/zfs"}))
    assert (base.get("serve.database"), base.has("serve.data")) == ("postgresql://db/x", False)


def test_a_variable_that_nobody_reads_is_noticed() -> None:
    names = ["HOLDFAST_SERV_PORT", "HOLDFAST_STORAGE_BUCKET", "HOLDFAST_CONFIG", "HOLDFAST_HUB", "PATH"]
    (found,) = strangers(names)
    assert str(found) == "$HOLDFAST_SERV_PORT: nothing reads this variable; did you mean 'HOLDFAST_SERVE_PORT'?"


def test_all_problems_are_one_error_and_flags_say_who_they_are() -> None:
    found = Configuration([Layer("project", source("a: 1\nserve: {port: x}")), Layer("flags", told({"serve.port": 5}))])
    assert str(found.place("serve.port")) == "--port"
    with pytest.raises(UsageError) as caught:
        found.check()
    assert caught.value.message.splitlines() == [
        "the configuration has 2 problems",
        "f.yaml:1:1: a: unknown key",
        "f.yaml:2:15: serve.port: a whole number is wanted, got 'x'",
    ]
    assert [each["at"] for each in caught.value.context["problems"]] == ["f.yaml:1:1", "f.yaml:2:15"]


def test_secrets_are_told_to_be_set_and_no_more() -> None:
    found = Configuration(
        [
            *environment({"HOLDFAST_TOKEN": "hunter2"}),
            Layer("user", source("store: {passphrase_command: [x, hunter2]}")),
        ]
    )
    assert found.get("hub.token") == "hunter2"
    assert (found.shown("hub.token"), found.shown("store.passphrase_command")) == ("set", "set")


# -- the schema and the page ------------------------------------------------------------------------------------------

SAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    # kind: what is in order, and what is not
    "text": (["a", 7], [["a"], {"a": 1}]),
    "choice": ([], ["nonsense", 1.5]),
    "flag": ([True, "yes"], ["perhaps", ["x"]]),
    "whole": ([1, "1k"], [-5, "many", 1.5]),
    "number": ([1, 0.5], ["many", -1]),
    "size": (["2 GB", "64MiB", 1 << 20], ["2 apples", -1]),
    "span": (["5s", 60, "1m 30s"], ["soon", -1]),
    "days": ([30, "2 weeks"], ["soon", -1]),
    "days_by_name": ([{"a": 1, "b": "2w"}], [{"a": "soon"}, ["a"]]),
    "path": (["./x"], [["x"]]),
    "address": (["s3://b"], [["x"]]),
    "url": (["http://h:1"], ["h:1", ["http://h"]]),
    "urls": (["http://h:1", ["http://h:1", "https://i"]], ["h:1", [["http://h"]]]),
    "words": ([["a", "b"], "a b"], [{"a": 1}, [["a"]]]),
    "command": ([["a", "b"], "a b"], [[], {"a": 1}]),
}


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if key.kind != "secret"])
def test_the_schema_and_the_reader_agree(path: str) -> None:
    key = KEYS[path]
    good, bad = SAMPLES[key.kind]
    if key.kind == "span" and key.least is not None and key.least > 5:
        good = ["2h"]
    for value in [*good, *key.choices]:
        document = {key.section: {key.name: value}}
        assert wrong(yaml.safe_dump(document)) == [], value
        assert VALID.is_valid(document), value
    for value in bad:
        document = {key.section: {key.name: value}}
        assert wrong(yaml.safe_dump(document)), value
        assert not VALID.is_valid(document), value


def test_the_schema_knows_slips_and_no_secret_may_stand_in_a_file() -> None:
    for document in (
        {"hubs": {}},
        {"hub": {"url": "http://a"}},
        {"hub": {"token": "x"}},
        {"store": {"passphrase": "x"}},
    ):
        assert not VALID.is_valid(document), document
        assert wrong(yaml.safe_dump(document)), document
    assert VALID.is_valid({"agent_id": "a", "model": "llama"})
    names = {*seeds.TOP.values(), *seeds.IN_STORAGE.values(), *seeds.SYNC.values(), *seeds.RETRY.values()}
    assert names <= set(KEYS)


TAKES = {
    **{"text": "text", "flag": "true, false", "whole": "whole number", "number": "number", "size": "size"},
    **{"span": "time", "days": "days", "days_by_name": "days by name", "path": "path", "address": "address"},
    **{"url": "URL", "urls": "URLs", "words": "list", "command": "command", "secret": "only a variable"},
}


def tables() -> str:
    """Every key, as the page shows it."""
    defaults = Configuration([])
    lines = []
    for section, keys in SECTIONS.items():
        lines += ["", f"### `{section}`", "", "| key | takes | default | meaning |", "| --- | --- | --- | --- |"]
        for key in keys.values():
            takes = " \\| ".join(key.choices) or TAKES[key.kind]
            default = re.sub("^-$", "", defaults.text(key.path))
            more = f" ({', '.join(f'`{each}`' for each in key.variables)})" if key.variables else ""
            why = f". Ignored: {key.ignored}" if key.ignored else ""
            live = " ⟳" if key.live else ""
            lines.append(f"| `{key.path}`{live} | {takes} | {default} | {key.says}{more}{why} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_every_key_as_it_is() -> None:
    """With HOLDFAST_SNAPSHOT=1 the tables are written anew."""
    head, rest = PAGE.read_text().split("<!-- keys -->\n")
    shown, tail = rest.split("<!-- end of keys -->")
    if os.environ.get("HOLDFAST_SNAPSHOT"):
        PAGE.write_text(f"{head}<!-- keys -->\n{tables()}<!-- end of keys -->{tail}")
        return
    assert shown == tables()
