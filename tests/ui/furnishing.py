"""A hub with something of everything that the pages show, some of it hostile."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from holdfast import records, wire
from holdfast.hub.directory import HubDirectory
from holdfast.hub.figures import Figure
from tests.hub.pens import Pen

HOSTILE = (
    "<script>window.owned=1</script>",
    '"><img src=x onerror=window.owned=1>',
    "'--><svg/onload=window.owned=1>",
    "javascript:window.owned=1",
    "{{7*7}}${7*7}<%=7*7%>",
    "<b hx-get=/livez hx-trigger=load hx-on:load=window.owned=1>x</b>",
    "<template hx type=partial hx-target=body>owned</template>",
    "</title></textarea></pre><script>window.owned=1</script>",
    "data:text/html,<script>window.owned=1</script>",
    "\u202egnp.exe",
    "a" * 200,
    "../../etc/passwd",
)
BRIEF = """# Build 17 is ready

It is **signed**, and *all tests pass*:

1. `make test`: 1,204 passed
2. the [changes](https://example.org/changes/17) since 16
   - faster search
   - no more locks

> Deploy it before Friday, please.

```python
deploy(17, where=["eu-1", "eu-2"])
```
"""
TASK = {"goal": "Find three Django developers", "steps": ["search", "call"], "done": False, "budget": {"eur": 400}}


class Furnisher:
    """Fills a hub over HTTP.

    Args:
        ask: `(method, path, body, media type)` to the hub's answer, as bytes; raises unless it is good.
    """

    def __init__(self, ask: Any) -> None:
        self._ask = ask
        self.session = ""
        self.digest = ""

    def json(self, method: str, path: str, body: Any) -> Any:
        """The JSON answer to a JSON request."""
        return json.loads(self._ask(method, path, json.dumps(body).encode(), "application/json"))

    def hello(
        self,
        node: str,
        pens: list[Pen],
        *,
        skew_s: float = 0.0,
        oldest_s: float = 0.0,
        report: wire.Report | None = None,
    ) -> wire.HelloAnswer:
        """What a node says of itself."""
        now = round(time.time() * 1000)
        streams = [each for pen in pens for each in pen.hello().streams]
        message = msgspec.structs.replace(
            pens[0].hello(),
            node=node,
            streams=streams,
            now_ms=now + round(skew_s * 1000),
            oldest_ms=now - round(oldest_s * 1000) if oldest_s else 0,
            report=report,
        )
        return wire.decode(wire.HelloAnswer, self._ask("POST", "/v1/hello", wire.encode(message), wire.MEDIA))

    def ship(self, node: str, pens: list[Pen]) -> None:
        """What a node's agents wrote, hello included."""
        gen = self.hello(node, pens).gen
        message = wire.Append(gen, 1, [pen.segment() for pen in pens], node)
        answer = wire.decode(wire.AppendAnswer, self._ask("POST", "/v1/append", wire.encode(message), wire.MEDIA))
        assert [each.state for each in answer.verdicts] == ["ack"] * len(pens), answer

    def ship_from(self, node: str, pen: Pen, first: int) -> None:
        """The records of one agent from a number on, and the word that they are here now."""
        gen = self.hello(node, [pen]).gen
        message = wire.Append(gen, 1, [pen.segment(first)], node)
        answer = wire.decode(wire.AppendAnswer, self._ask("POST", "/v1/append", wire.encode(message), wire.MEDIA))
        assert [each.state for each in answer.verdicts] == ["ack"], answer

    def everything(self) -> None:
        """Nodes in three states, agents, collections, a key with a past, a table, a session."""
        self.nodes()
        for number in range(1, 5):
            row = {"id": "acme", "name": "Acme GmbH", "open": number, "contact": {"who": "Ada", "calls": [1] * number}}
            self.json("POST", "/relay/immediate", {"agent_id": "recruiter-1", "table": "leads", "data": row})
        self.json("POST", "/v1/decide", {"agent": "commander", "collection": "claims", "key": "task-7", "value": TASK})
        self.json("POST", "/sync/message", {"sender": "recruiter-1", "recipient": "commander", "content": "HOT lead"})
        self.talk()

    def nodes(self) -> None:
        """A node in sync, one that is behind, one whose clock is off."""
        laptop = [_pen("recruiter-1"), _pen("reasoner-1")]
        for pen in laptop:
            for number in range(12):
                pen.put(f"plan/{number:02}", {**TASK, "step": number})
            pen.put("plan/00", {**TASK, "done": True})
        self.ship("laptop", laptop)
        deck = [_pen("coder-1")]
        deck[0].put("notes", "all is well")
        self.ship("deck", deck)
        for number in range(40):
            deck[0].put(f"later/{number}", number)
        self.hello("deck", deck, oldest_s=7_260)
        off = [_pen("synthesizer-1")]
        off[0].put("summary", {"text": "done"})
        off[0].put(
            "sealed", b"no one reads this", collection="vault", kid=b"k" * 16, flags=records.VALUE | records.SEALED
        )
        self.ship("htpc", off)
        self.hello("htpc", off, skew_s=-42)
        for node, pens, used, limit in (("laptop", laptop, 940 << 20, 1081 << 20), ("htpc", off, 81 << 20, 324 << 20)):
            caches = {pen.agent: wire.Cached(used, limit) for pen in pens}
            about = wire.Report(
                host=f"{node}.home", version="0.1.0", caches=caches, disk_free=210 << 30, disk_total=960 << 30
            )
            self.hello(node, pens, skew_s=-42 if node == "htpc" else 0.0, report=about)

    def talk(self) -> None:
        """A session with something said in it."""
        new = {"agent_name": "recruiter-1", "user_id": "ada", "metadata": {"about": "Acme"}}
        self.session = self.json("POST", "/storage/sessions", new)["id"]
        for role, content in (
            ("user", "Whom did you find?"),
            ("assistant", "Two so far.\nThe third answers tomorrow."),
            ("tool", {"tool": "search", "hits": [1, 2]}),
        ):
            said = {"session_id": self.session, "role": role, "content": content}
            self.json("POST", "/storage/history", said)

    def artifact(self) -> None:
        """Bytes that were uploaded in the session, and a call of a tool in it."""
        about = {"session_id": self.session, "name": "shortlist.csv", "type": "text/csv"}
        made = self.json("POST", "/storage/artifacts", about)
        rows = "name,place\n" + "Ada,London\n" * 9_000
        path = f"/storage/artifacts/{made['id']}/content"
        self.digest = json.loads(self._ask("PUT", path, rows.encode(), "text/csv"))["digest"]
        parts = [
            {"type": "text", "text": "I wrote the list down."},
            {"type": "tool_use", "name": "write_file", "input": {"path": "shortlist.csv", "rows": 9_000}},
        ]
        self.json("POST", "/storage/history", {"session_id": self.session, "role": "assistant", "content": parts})

    def rules(self) -> None:
        """Rules of notifications, one of which nobody takes."""
        rule = {"form": "ntfy", "quiet": "22:00-07:00", "zone": "Europe/Berlin", "address": "https://ntfy.invalid/team"}
        self.json("PUT", "/v1/notify/phone", {**rule, "on": False})
        rule = {"kinds": ["alert"], "priority": "high", "rate": 6, "address": "http://127.0.0.1:9/hook"}
        self.json("PUT", "/v1/notify/ops", rule)
        alert = {
            "sender": "coder-1",
            "recipient": "people",
            "kind": "alert",
            "priority": "hot",
            "content": "Disk is full",
        }
        self.json("POST", "/sync/message", alert)

    def send(self, msg_id: str, to: str | None = "people", **fields: Any) -> None:
        """One message."""
        message = {"msg_id": msg_id, "sender": "recruiter-1", "recipient": to, "content": f"about {msg_id}", **fields}
        if "dedupe_key" in fields:
            del message["msg_id"]  # it has the one that the key makes
        self.json("POST", "/sync/message", message)

    def mail(self) -> None:
        """What agents report and ask: something in every tab."""
        self.send("build-17", kind="question", content="Deploy build 17?", sender="coder-1", options=["yes", "no"])
        self.send("lead-acme", priority="hot", content="HOT lead: Acme needs three Django developers", task_id="t-17")
        self.send("disk", kind="alert", content={"subject": "htpc: 91 % of the disk is used"}, sender="synthesizer-1")
        for sender in ("coder-1", "recruiter-1", "reasoner-1"):
            self.send("", kind="alert", content="the model answers slowly", sender=sender, dedupe_key="slow")
        for number in range(1, 41):
            self.send(f"report-{number:02}", kind="report", content=f"Done with task {number}\nin {number} s.")
        self.send("cv", kind="report", content="The third CV", artifacts=["cv.pdf"], priority="low", task_id="t-17")
        for msg_id, state in (("report-01", "done"), ("report-02", "snoozed"), ("report-03", "archived")):
            self.json("POST", f"/v1/messages/{msg_id}/state", {"state": state, "reader": "people"})
        self.json("POST", "/v1/messages/report-04/state", {"state": "acknowledged", "reader": "people"})

    def letters(self) -> None:
        """A message that has everything a message can have, and what became of it."""
        now = round(time.time() * 1000)
        pen = _pen("coder-1")
        pen.stamp = (now - 400_000) << 16
        body = {"body": BRIEF, "to": "people", "priority": "high", "task": "t-17", "thread": "release-17"}
        offers = [
            {"name": "deploy", "title": "Deploy build 17", "args": {"build": 17, "where": ["eu-1", "eu-2"]}},
            {"name": "drop", "title": "Drop the old tables", "args": {"tables": ["leads_old"]}, "destructive": True},
        ]
        files = [{"digest": "0" * 64, "name": "coverage.html"}, "build-17.log"]
        pen.put("release-17", {**body, "actions": offers, "files": files}, collection="messages", kind="approval")
        pen.put("tests-17", {**body, "body": "All 1,204 tests pass."}, collection="messages", kind="report")
        self.ship("builder", [pen])
        self.send("asked-17", sender="commander", to="coder-1", thread="release-17", content="Is it *signed*?")
        told = {"hits": [{"file": "a.py", "line": 3}]}
        self.send("tool-17", sender="coder-1", to="commander", thread="release-17", role="tool", content=told)
        for reader, state in (("main", "read"), ("people", "read")):
            self.json("POST", "/v1/messages/release-17/state", {"state": state, "reader": reader})

    def hostile(self) -> None:
        """Every hostile text wherever a name or a value can stand."""
        names = [text for text in HOSTILE if text.isprintable()]
        pens = []
        for number, text in enumerate(HOSTILE):
            name = names[number % len(names)]
            pen = _pen(f"{name[:100]}{number}")
            pen.put(name, {text: [text, {text: text}]}, collection=f"{name[:100]}{number}")
            pens.append(pen)
        self.ship(names[0], pens)
        for text in names:
            row = {"id": text, text: text}
            self.json("POST", "/relay/immediate", {"agent_id": "hostile", "table": "hostile", "data": row})
            self.json("POST", "/relay/immediate", {"agent_id": "hostile", "table": "hostile", "data": {**row, "n": 1}})
            self.send(text, kind=text[:60], sender=text[:60], content=text, task_id=text, priority="hot")
            said = {"session_id": self.session, "role": "user", "content": text, "metadata": {text: text}}
            self.json("POST", "/storage/history", said)


def figures(directory: Path) -> None:
    """Figures of the last day, in place of those of a hub that does not run."""
    home = HubDirectory(directory, settle="acked")
    now, rows = int(time.time()), []
    for step, many in ((60, 60), (600, 144), (3_600, 160)):
        for back in range(many):
            at = (now // step - back) * step
            if step == 600 and 40 < back < 50:
                continue  # it was away
            wave = 1 + math.sin(back / 9) + back % 7 / 10
            buckets = [0, 0, 3, 8, 20, 40, 20 + back % 11, 6, 2, back % 3, 0, 0, 0, 0, 0]
            figure = Figure(seconds=step, records=round(wave * step * 4), requests=sum(buckets), buckets=buckets)
            figure.behind = {"laptop": back % 5 * 12, "deck": max(0, 40 - back)}
            figure.disk_free, figure.disk_total = (300 << 30) + back * (20 << 20), 960 << 30
            figure.on_disk, figure.refused, figure.failed = (4 << 30) - back * (9 << 20), back % 4, int(back % 17 == 0)
            figure.hits, figure.misses = 80 + back % 15, 20
            rows.append((step, at, "", msgspec.json.encode(figure).decode()))
    home.corpus.write(lambda tx: tx.execute("DELETE FROM figure"))
    home.corpus.write(lambda tx: tx.fill("figure", "step, at, who, data", rows))
    home.close()


def _pen(agent: str) -> Pen:
    pen = Pen(agent)
    pen.stamp = round((time.time() - 3_000) * 1000) << 16
    return pen


def hostile_places(furnisher: Furnisher) -> list[str]:
    """The pages on which hostile texts are shown."""
    names = [text for text in HOSTILE if text.isprintable()]
    places = [
        f"/nodes/{quote(names[0], safe='')}",
        "/data/table%2Fhostile?agent=hostile",
        f"/sessions/{furnisher.session}",
    ]
    for number, _ in enumerate(HOSTILE):
        name = names[number % len(names)]
        agent = quote(f"{name[:100]}{number}", safe="")
        places.append(f"/agents/{agent}")
        places.append(f"/data/{agent}?agent={agent}")
        places.append(f"/data/{agent}/{quote(name, safe='')}?agent={agent}")
    for text in names:
        places.append(f"/data/table%2Fhostile/{quote(text, safe='')}?agent=hostile&diff=1..2")
    return places
