"""Commands that tell how things stand: status, doctor, verify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, seconds_text, size_text
from holdfast.disk import replacing
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from holdfast.node.directory import Directory

_PING_S = 1.0


@shell.command("status")
@click.pass_obj
def status_command(settings: Settings) -> int:
    """What is on this machine, and what is not at the hub yet: what would be lost if this disk died now.

    It works without the hub. The exit code is 1 when something is wrong here, or a hub refused this node; that
    records wait for a hub that is away is not.
    """
    with settings.directory() as directory:
        hubs = list(settings.hub_urls)
        agents = [_agent(settings, directory, name, hubs) for name in directory.agents()]
        known = [_hub(settings, directory, url) for url in hubs]
        space = directory.reserve.state()
        told: dict[str, Any] = {
            "store": str(directory.path),
            "node": directory.node_id,
            "level": settings.level,
            "hubs": known,
            "agents": agents,
            "disk": {**msgspec.structs.asdict(space), "writable": space.writable},
        }
    problems = [problem for agent in agents for problem in agent["problems"]]
    problems += [f"{hub['url']}, when last asked: {hub['alert']}" for hub in known if hub["alert"]]
    if not space.writable:
        problems.append(f"the disk is full: {size_text(space.free)} free, writes are refused")
    told["problems"] = problems
    told["ok"] = not problems
    if settings.as_json:
        settings.show.document(told)
    else:
        _print_status(settings, told)
    return 1 if problems else 0


def _agent(settings: Settings, directory: Directory, name: str, hubs: list[str]) -> dict[str, Any]:
    from holdfast.node.health import health

    try:
        with settings.open_log(name) as opened:
            found = health(directory, opened, hubs)
            keys = sum(count for _, count in opened.corpus.collections(name))
    except HoldfastError as error:
        nothing = {"records": None, "keys": None, "bytes": None, "last_write": None, "outbox": None, "scan": None}
        return {"agent": name, **nothing, "problems": [f"{name}: {error.message}"]}
    problems = [f"{name}: {each['what']}: {each['detail']}" for each in found["log"]["incidents"]]
    scan = found["scan"]
    if scan["findings"]:
        problems.append(f"{name}: the scan found {len(scan['findings'])}: {scan['findings'][0]}")
    if found["log"]["trouble"]:
        problems.append(f"{name}: {found['log']['trouble']}")
    if found["refused"]:
        problems.append(f"{name}: {count_text(len(found['refused']), 'payload')} refused by a hub, kept here only")
    return {
        "agent": name,
        "records": found["head"]["seq"],
        "keys": keys,
        "bytes": found["log"]["bytes"],
        "last_write": found["head"]["time"],
        "outbox": max((each["depth"] for each in found["hubs"]), default=None),
        "scan": scan,
        "problems": problems,
    }


def _hub(settings: Settings, directory: Directory, url: str) -> dict[str, Any]:
    from holdfast.node.tally import hub_status

    last = hub_status(directory, url)
    pong = ping(url, settings)
    return {**last, "reachable": pong.ok, "ms": round(pong.seconds * 1000, 1), "why": pong.why}


class Pong(msgspec.Struct, frozen=True):
    """Whether a hub granted what was asked, how many seconds it took, why not, its own time, its status, its answer."""

    ok: bool
    seconds: float
    why: str = ""
    date: str = ""
    status: int = 0
    told: dict[str, Any] = {}


def ping(url: str, settings: Settings, path: str = "/livez") -> Pong:
    """Asks a hub for something small."""
    from holdfast.transport.client import HubClient

    begun = time.perf_counter()
    try:
        token = settings.token
    except UsageError as error:
        return Pong(False, 0.0, error.message)
    client = HubClient(url, token)
    try:
        answer = client.ask("GET", path, timeout=_PING_S)
    except HoldfastError as error:
        return Pong(False, time.perf_counter() - begun, error.message.removeprefix(f"{url} "))
    finally:
        client.close()
    took = time.perf_counter() - begun
    date = answer.headers.get("Date") or ""
    if not answer.ok:
        return Pong(False, took, str(answer.error()), date, answer.status)
    try:
        told = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        told = {}
    return Pong(True, took, "", date, answer.status, told)


def _print_status(settings: Settings, told: dict[str, Any]) -> None:
    show, disk = settings.show, told["disk"]
    free = f"disk {size_text(disk['free'])} of {size_text(disk['total'])} free"
    show.line(f"store  {told['store']}   level {told['level']}   {free}")
    for hub in told["hubs"]:
        state = show.paint("● reachable", "green") if hub["reachable"] else show.paint("▲ not reached", "yellow")
        show.line(
            f"hub    {hub['url']}   {state}   {seconds_text(hub['ms'] / 1000) if hub['reachable'] else hub['why']}"
        )
    if not told["hubs"]:
        show.line("hub    none: everything stays on this machine")
    rows = []
    for agent in told["agents"]:
        waits = "-" if agent["outbox"] is None else count_text(agent["outbox"], "record")
        at = agent["last_write"]
        written = clock_text(_seconds(at)) if at else "-"
        rows.append((agent["agent"], *(_number(agent[n]) for n in ("records", "keys")), waits, written))
    show.table(("AGENT", "RECORDS", "KEYS", "NOT AT THE HUB", "LAST WRITE"), rows)
    for problem in told["problems"]:
        show.warn(problem)


def _seconds(iso: str) -> float:
    from holdfast.clock import parse_time

    return parse_time(iso) / 1000


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


@shell.command("metrics")
@click.option("--output", type=click.Path(path_type=Path), help="a file, replaced as a whole")
@click.option(
    "--names", type=click.Choice(["all", "own"]), default="all", show_default=True, help="own: not those of the seeds"
)
@click.pass_obj
def metrics_command(settings: Settings, output: Path | None, names: str) -> None:
    """Print this node's figures, all its agents', in the form that Prometheus reads.

    With --output they go to a file, for the textfile collector of Prometheus' node_exporter: run it every minute.

    \b
      holdfast metrics
      holdfast metrics --output /var/lib/node_exporter/textfile/holdfast.prom
    """
    from holdfast.node.metrics import metrics

    with settings.directory() as directory:
        text = metrics(directory, settings.hub_urls or None, seed_names=names == "all")
    if output is None:
        settings.show.raw(text.encode())
        return
    with replacing(output, 0o644) as file:  # the collector is another user; no value of any record is in it
        file.write(text.encode())
    settings.show.result(f"written to {output}", {"output": str(output), "bytes": len(text)})


_SIGNS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("fail", "red")}


@shell.command("doctor")
@click.pass_obj
def doctor_command(settings: Settings) -> int:
    """Look at this machine's setup and say what to put right. The exit code is 1 when a check failed."""
    from holdfast.cli.checkup import checkup

    found = list(checkup(settings))
    failed = sum(check.state == "fail" for check in found)
    warned = sum(check.state == "warn" for check in found)
    if settings.as_json:
        checks = [msgspec.structs.asdict(check) for check in found]
        settings.show.document({"checks": checks, "failed": failed, "warnings": warned})
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            sign, color = _SIGNS[check.state]
            fix = f"   fix: {check.fix}" if check.fix else ""
            settings.show.line(f"{settings.show.paint(sign, color)}  {check.name:{width}}  {check.text}{fix}")
        settings.show.line(f"{failed} failed, {count_text(warned, 'warning')}")
    return 1 if failed else 0
