"""`holdfast mcp` as assistants start it: the settings of docs/mcp.md, the SDK's own client, two machines, kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from holdfast import Store
from tests.flow.hubs import HubProcess, until
from tests.house.doc_blocks import blocks
from tests.integrations.mcp_places import TOOLS, Reference, call
from tests.integrations.places import LIMITS, MISSING
from tests.integrations.places import hub as hub

pytest.importorskip("mcp", reason=MISSING)

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

PAGE = Path(__file__).parents[2] / "docs" / "mcp.md"
DEADLINE_S = 30.0
ANNOTATED = {  # of the reference server: reads only, takes away, twice is as once
    **dict.fromkeys(("create_entities", "create_relations", "add_observations"), (False, False, False)),
    **dict.fromkeys(("delete_entities", "delete_observations", "delete_relations"), (False, True, True)),
    **dict.fromkeys(("read_graph", "search_nodes", "open_nodes"), (True, False, True)),
}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where `holdfast` is on the PATH."""
    return machine_at(tmp_path / "one")


def machine_at(home: Path) -> dict[str, str]:
    programs = home / "bin"
    programs.mkdir(parents=True)
    program = programs / "holdfast"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m holdfast "$@"\n')
    program.chmod(0o755)
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG") if name in os.environ}
    path = f"{programs}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(home), "HOLDFAST_STORE": str(home / "store")}


@contextlib.asynccontextmanager
async def client_of(environment: dict[str, str], *words: str, **more: Any) -> AsyncIterator[Client]:
    """A client of the SDK's own, and the server that it started."""
    command, *args = words or ("holdfast", "mcp")
    parameters = StdioServerParameters(command=command, args=args, env=environment)
    async with Client(stdio_client(parameters), **more) as client:
        yield client


async def ask(client: Client, tool: str, /, **arguments: Any) -> Any:
    """The structured answer of a tool, which the client has held against the tool's schema."""
    found = await client.call_tool(tool, arguments)
    assert not found.is_error, found.content
    return found.structured_content


async def soon(look: Callable[[], Awaitable[Any]], good: Callable[[Any], bool]) -> Any:
    """What a look gives once it is good."""
    end = time.monotonic() + DEADLINE_S
    while not good(found := await look()):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)
    return found


# -- the settings in the documentation --------


def settings_of(language: str, text: str) -> dict[str, Any] | None:
    """The server that a block of settings names."""
    if language == "sh":
        words = shlex.split(text)
        return {"command": words[words.index("--") + 1], "args": words[words.index("--") + 2 :]}
    if language == "json":
        whole = json.loads(text)
        return next(whole[name]["holdfast"] for name in ("mcpServers", "servers", "context_servers") if name in whole)
    if language == "toml":
        return tomllib.loads(text)["mcp_servers"]["holdfast"]
    if language == "yaml":
        return yaml.safe_load(text)["mcpServers"][0]
    return None


def settings() -> Iterator[tuple[int, dict[str, Any]]]:
    for block in blocks(PAGE.read_text("utf-8")):
        found = settings_of(block.language, block.text)
        if found is not None:
            yield block.line, found


def test_each_assistants_settings_start_a_server_that_remembers(machine: dict[str, str]) -> None:
    local = [(line, found) for line, found in settings() if "command" in found]
    assert len(local) == 6, "a block of docs/mcp.md is not tried"

    async def run() -> None:
        for line, found in local:
            environment = machine | found.get("env", {})
            async with client_of(environment, found["command"], *found["args"]) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names == {tool.name for tool in TOOLS}, line
                agent = found["args"][found["args"].index("--agent") + 1]
                made = await ask(client, "remember", text=f"the block at line {line} works", key=f"line-{line}")
                assert made["agent"] == agent, line
        async with client_of(machine) as client:
            found = await ask(client, "recall", query="block works", limit=50)
            assert {each["key"] for each in found["memories"]} == {f"line-{line}" for line, _ in local}

    asyncio.run(run())


# -- over HTTP --------


class Served:
    """`holdfast mcp --http` of a machine."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self.ready = Path(environment["HOME"]) / "ready.json"
        command = ["holdfast", "mcp", "--http", "--port", "0", "--ready-file", str(self.ready), *words]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        until(lambda: self.ready.exists() or self.process.poll() is not None, "the server listens")
        assert self.process.poll() is None
        self.port = json.loads(self.ready.read_text())["port"]

    def url(self, documented: str) -> str:
        """An address of the documentation, at this server's port."""
        parts = urlsplit(documented)
        return parts._replace(netloc=f"{parts.hostname}:{self.port}").geturl()

    def answers(self, method: str, path: str = "/mcp", **headers: str) -> tuple[int, Any]:
        """The status and the JSON of a plain request."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}) if method == "POST" else None
            shown = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            line.request(method, path, body, {**shown, **headers})
            found = line.getresponse()
            return found.status, json.loads(found.read() or b"null")
        finally:
            line.close()

    def end(self) -> int:
        """Ends it as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        assert self.process.stdout.read() == b""
        self.process.stdout.close()
        return code


@contextlib.asynccontextmanager
async def over_http(url: str, headers: dict[str, str] | None = None, **more: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers or {}, timeout=DEADLINE_S) as line,
        Client(streamable_http_client(url, http_client=line), **more) as client,
    ):
        yield client


def test_several_clients_over_http_each_by_its_token(machine: dict[str, str]) -> None:
    remote = [found for _, found in settings() if "url" in found]
    assert len(remote) == 3, "a block of docs/mcp.md is not tried"
    open_one = next(found["url"] for found in remote if "agent=" in found["url"])
    served = Served(machine)

    async def without_tokens() -> None:
        async with over_http(served.url(open_one)) as client, over_http(served.url(remote[1]["url"])) as other:
            assert (await ask(client, "remember", text="the tide turns", key="tide"))["agent"] == "vscode-laptop"
            assert [each["text"] for each in (await ask(other, "recall", query="tide"))["memories"]] == [
                "the tide turns"
            ]
            with pytest.raises(MCPError, match="no tool 'unknown'"):
                await other.call_tool("unknown", {})
            wrong = await other.call_tool("remember", {"text": ""})
            assert wrong.is_error
            assert "hint: " in wrong.content[0].text
            assert wrong.meta["holdfast/error"]["code"] == "usage"

    def tokens(do: str, *words: str) -> str:
        command = ["holdfast", "token", do, "--data", f"{machine['HOLDFAST_STORE']}/mcp", *words]
        return subprocess.run(command, env=machine, capture_output=True, text=True, check=True).stdout.strip()

    async def with_tokens() -> None:
        token, reader = (
            tokens("create", "--kind", "agent", "--name", "cursor-laptop"),
            tokens("create", "--kind", "service", "--name", "board"),
        )
        until(lambda: served.answers("POST")[0] == 401, "everybody needs a token")
        for found in remote:
            if "headers" in found:
                shown = {
                    name: value.replace("${HOLDFAST_MCP_TOKEN}", token) for name, value in found["headers"].items()
                }
            else:
                shown = {"Authorization": f"Bearer {token}"}
            async with over_http(served.url(found["url"].partition("?")[0]), shown) as client:
                assert (await ask(client, "remember", text="slack water", key="slack"))["agent"] == "cursor-laptop"
        only = {"Authorization": f"Bearer {reader}"}
        async with over_http(served.url(remote[1]["url"]), only, mode="legacy") as client:
            assert len((await ask(client, "recall", query="water"))["memories"]) == 1
            refused = await client.call_tool("remember", {"text": "x"})
            assert refused.is_error
            assert "records:write" in refused.content[0].text
        assert served.answers("POST", "/mcp?agent=other", Authorization=f"Bearer {token}")[0] == 403
        assert served.answers("POST", Authorization="Bearer hf_agent_x_y_z")[0] == 401
        tokens("revoke", reader.split("_")[2])
        until(lambda: served.answers("POST", **only)[0] == 401, "a revoked token opens nothing")
        assert served.answers("GET")[0] == 401

    try:
        asyncio.run(without_tokens())
        for method in ("GET", "POST"):
            assert served.answers(method, Origin="https://evil.example")[0] == 403
            assert served.answers(method, Host="evil.example")[0] == 421  # a name that was bound anew to this machine
        assert served.answers("POST", "/elsewhere")[0] == 404
        assert served.answers("POST", "/mcp?agent=hub")[0] == 400
        asyncio.run(with_tokens())
    finally:
        assert served.end() == 0


def test_beyond_this_machine_it_wants_tokens_and_tls(machine: dict[str, str]) -> None:
    command = ["holdfast", "mcp", "--http", "--host", "0.0.0.0", "--port", "0"]
    refused = subprocess.run(command, env=machine, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no token is set" in refused.stderr
    assert "holdfast token create --data" in refused.stderr
    assert refused.stdout == ""


# -- the protocol --------


def test_the_reference_servers_tools_resource_and_notices(machine: dict[str, str]) -> None:
    heard = asyncio.Queue[str]()

    async def handler(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/updated":
            heard.put_nowait(str(message.params.uri))

    def elsewhere(name: str) -> None:
        with Store(machine["HOLDFAST_STORE"], "claude", hub=[], limits=LIMITS) as store:
            call(store, "create_entities", entities=[{"name": name, "entityType": "t", "observations": ["o"]}])

    async def older() -> None:
        words = ("holdfast", "mcp", "--agent", "claude", "--tools", "graph")
        async with client_of(machine, *words, mode="legacy", message_handler=handler) as client:
            tools = (await client.list_tools()).tools
            hints = {tool.name: tool.annotations for tool in tools}
            shown = {n: (h.read_only_hint, h.destructive_hint, h.idempotent_hint) for n, h in hints.items()}
            assert shown == ANNOTATED
            schema = next(tool.input_schema for tool in tools if tool.name == "create_relations")
            each = schema["properties"]["relations"]["items"]
            assert (schema["required"], sorted(each["required"])) == (["relations"], ["from", "relationType", "to"])
            assert each["properties"]["to"] == {
                "type": "string",
                "description": "The name of the entity where the relation ends",
            }
            assert client.server_capabilities.resources.subscribe
            uri = "memory://knowledge-graph"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MCPDeprecationWarning)  # of the older protocol, which clients speak yet
                await client.subscribe_resource(uri)
            await asyncio.to_thread(elsewhere, "A")  # another process of this agent
            assert await asyncio.wait_for(heard.get(), DEADLINE_S) == uri
            oracle = Reference()
            oracle.create_entities([{"name": "A", "entityType": "t", "observations": ["o"]}])
            (content,) = (await client.read_resource(uri)).contents
            assert content.text == json.dumps(oracle.read_graph(), indent=2)
            found = await client.call_tool(
                "create_relations", {"relations": [{"from": "A", "to": "B", "relationType": "r"}]}
            )
            assert (found.is_error, found.content[0].text.splitlines()[0]) == (True, "Entity with name B not found")

    async def newer() -> None:
        async with client_of(machine, "holdfast", "mcp", "--agent", "claude") as client:
            uris = [str(each.uri_template) for each in (await client.list_resource_templates()).resource_templates]
            assert uris == ["holdfast://sessions/{id}", "holdfast://artifacts/{+name}"]
            await ask(client, "artifact_put", name="notes/a b.bin", base64="AAEC")
            listed = {str(each.uri) for each in (await client.list_resources()).resources}
            assert "holdfast://artifacts/notes/a%20b.bin" in listed
            (content,) = (await client.read_resource("holdfast://artifacts/notes/a%20b.bin")).contents
            assert content.blob == "AAEC"
            fetched = await client.call_tool("artifact_get", {"name": "notes/a b.bin"})
            assert fetched.content[1].resource.blob == "AAEC"
            with pytest.raises(MCPError, match="no resource"):
                await client.read_resource("holdfast://nothing")
            async with client.listen(resource_subscriptions=["memory://knowledge-graph"]) as listening:
                await asyncio.to_thread(elsewhere, "B")
                async with asyncio.timeout(DEADLINE_S):
                    async for event in listening:
                        assert event == ResourceUpdated("memory://knowledge-graph")
                        break
            prompts = {each.name for each in (await client.list_prompts()).prompts}
            assert prompts == {"brief", "handover"}
            said = await client.get_prompt("handover", {"task": "the keel"})
            assert "the keel" in said.messages[0].content.text

    asyncio.run(older())
    asyncio.run(newer())


def test_two_machines_share_a_memory_through_the_hub(hub: HubProcess, tmp_path: Path) -> None:
    one, other = machine_at(tmp_path / "one"), machine_at(tmp_path / "other")

    async def run() -> None:
        words = ("holdfast", "mcp", "--hub", hub.url, "--agent")
        async with client_of(one, *words, "claude-one") as here, client_of(other, *words, "claude-other") as there:
            kelp = {"name": "Kelp", "entityType": "alga", "observations": ["holds fast"]}
            await ask(here, "create_entities", entities=[kelp])
            await soon(lambda: ask(there, "read_graph"), lambda graph: graph["entities"] == [kelp])
            await ask(there, "add_observations", observations=[{"entityName": "Kelp", "contents": ["to rock"]}])
            query = {"query": "TO ROCK"}
            found = await soon(lambda: ask(here, "search_nodes", **query), lambda graph: graph["entities"])
            assert found["entities"][0]["observations"] == ["holds fast", "to rock"]
            await ask(there, "remember", text="storms come from the west", key="storms")
            recall = await soon(lambda: ask(here, "recall", query="storms west"), lambda found: found["memories"])
            assert (recall["scope"], recall["memories"][0]["agent"]) == ("everybody", "claude-other")

            hub.kill()
            try:
                away = await here.call_tool("read_graph", {})
                assert "the hub does not answer" in away.content[1].text
                await ask(here, "remember", text="said offline", key="offline")
            finally:
                hub.start()
            await soon(lambda: ask(there, "recall", key="offline"), lambda found: found["memories"])

    asyncio.run(run())


def test_nothing_acknowledged_is_lost_to_kill_9_and_only_the_protocol_is_on_stdout(machine: dict[str, str]) -> None:
    command = ["holdfast", "mcp", "-v", "--agent", "claude"]
    process = subprocess.Popen(
        command, env=machine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def say(**message: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()

    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    say(id=0, method="initialize", params=about)
    first = json.loads(process.stdout.readline())
    assert first["result"]["serverInfo"]["name"] == "holdfast"
    say(method="notifications/initialized")
    for number in range(1, 200):
        made = {"name": "remember", "arguments": {"text": f"number {number}", "key": f"n-{number}"}}
        say(id=number, method="tools/call", params=made)
    acknowledged = []
    while len(acknowledged) < 40:
        answer = json.loads(process.stdout.readline())
        assert answer["jsonrpc"] == "2.0"
        assert not answer["result"].get("isError"), answer
        acknowledged.append(answer["result"]["structuredContent"]["key"])
    process.kill()
    process.wait()
    process.stdin.close()
    acknowledged += [
        json.loads(line)["result"]["structuredContent"]["key"] for line in process.stdout if line[-1:] == b"\n"
    ]
    process.stdout.close()
    with Store(machine["HOLDFAST_STORE"], "claude", hub=[], limits=LIMITS) as store:
        kept = set(store.keys(collection="mcp-memory"))
        assert set(acknowledged) <= kept
        assert len(set(acknowledged)) == len(acknowledged) >= 40
        assert store.verify().findings == []
