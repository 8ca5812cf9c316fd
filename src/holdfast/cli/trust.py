"""Commands that prove what is stored: verify, scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, seconds_text
from holdfast.clock import iso
from holdfast.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from holdfast.integrity.scan import Scan
    from holdfast.integrity.scanner import Progress

_HINT = "keep the directory as it is; the hub's copy of these records is whole as far as it has them"


@shell.command("verify")
@click.pass_obj
def verify_command(settings: Settings) -> int:
    """Read every record of this store anew and prove it: pages, links, payloads, blobs, and the anchor's word.

    Of all agents on this machine, or of --agent. It never writes: what is damaged stays as it was found. The exit code
    is 9 when anything is not what was recorded.
    """
    from holdfast.node.directory import agents_in
    from holdfast.node.proving import prove

    home = settings.need_store()
    agents = agents_in(home)
    if settings.agent:
        if settings.agent not in agents:
            raise NotFound(f"no agent {settings.agent} on this machine", hint="holdfast ls --agents")
        agents = [settings.agent]
    reports = [_report(agent, prove(home, agent)) for agent in agents]
    return told(settings, reports)


def _report(agent: str, scan: Scan) -> dict[str, Any]:
    return {
        "agent": agent,
        "records": scan.records,
        "findings": [str(finding) for finding in scan.findings],
        "seconds": scan.seconds,
        "details": [msgspec.structs.asdict(finding) for finding in scan.findings],
        "left_out": scan.left_out,
        "notes": [msgspec.structs.asdict(note) for note in scan.notes],
    }


def told(settings: Settings, reports: list[dict[str, Any]]) -> int:
    """Prints reports; returns the exit code that they deserve."""
    show = settings.show
    findings = sum(len(report["findings"]) + report["left_out"] for report in reports)
    if settings.as_json:
        show.document({"ok": not findings, "agents": reports})
    else:
        for report in reports:
            sign = show.paint("fail", "red") if report["findings"] else show.paint("ok  ", "green")
            checked = f"{count_text(report['records'], 'record')} in {seconds_text(report['seconds'])}"
            show.line(f"{sign}  {report['agent']}  {checked}")
            for finding in report["details"]:
                _print(settings, finding)
            if report["notes"]:
                show.line(f"      {count_text(len(report['notes']), 'blob')} without a record: no damage, only room")
    if findings:
        show.warn(f"{count_text(findings, 'finding')}: what is stored is not what was recorded", hint=_HINT)
    return IntegrityError.exit_code if findings else 0


def _print(settings: Settings, finding: dict[str, Any]) -> None:
    from holdfast.integrity.checks import Finding

    settings.show.line(f"      {Finding(**finding)}")
    if finding["expected"] or finding["actual"]:
        settings.show.line(f"          expected {finding['expected'] or '-'}, found {finding['actual'] or '-'}")
    if finding["hint"]:
        settings.show.line(f"          {finding['hint']}")


@shell.command("scan")
@click.option("--full", is_flag=True, help="everything, not only what is new and the next share of the rest")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="a hub's directory instead")
@click.option("--blobs", default="", help="with --data: the object store that holds the hub's blobs")
@click.pass_obj
def scan_command(settings: Settings, full: bool, data: Path | None, blobs: str) -> int:
    """Make a turn of the scan now: what is new, the next share of everything, and what was found so far.

    Every process that has a store open for five minutes does so by itself, in the background, and a hub does. What was
    found stays told, here and by holdfast status, until a later round no longer finds it. The exit code is 9 when
    anything is not what was recorded. With --data it reads a hub's whole directory, beside the hub, and keeps nothing.

    \b
      holdfast scan
      holdfast scan --full --json
      holdfast scan --data /srv/holdfast
    """
    if data is not None:
        settings.tell_outranked("serve.database", "--data")
        return told(settings, [_hub(data, blobs)])
    from holdfast.node.scanning import progress, turns

    with settings.directory() as directory:
        made = turns(directory, whole=full)
        missed = [agent for agent in directory.agents() if agent not in made]
        done = {**made, **{agent: progress(directory, agent) for agent in missed}}
    if missed:
        settings.show.warn(f"another process is scanning: shown is what is known of {', '.join(missed)}")
    return _told_scan(settings, done)


def _told_scan(settings: Settings, done: dict[str, Progress]) -> int:
    show = settings.show
    findings = sum(len(each.findings) + each.left_out for each in done.values())
    if settings.as_json:
        show.document({"ok": not findings, "agents": [_scanned(agent, each) for agent, each in sorted(done.items())]})
    else:
        for agent, each in sorted(done.items()):
            sign = show.paint("fail", "red") if each.findings else show.paint("ok  ", "green")
            whole = f"everything by {iso(each.round_ms)}" if each.round_ms else "not yet everything"
            show.line(f"{sign}  {agent}  new records up to {each.tip:,}, {whole}")
            for finding in each.findings:
                _print(settings, msgspec.structs.asdict(finding))
    if findings:
        show.warn(f"{count_text(findings, 'finding')}: what is stored is not what was recorded", hint=_HINT)
    return IntegrityError.exit_code if findings else 0


def _scanned(agent: str, done: Progress) -> dict[str, Any]:
    return {
        "agent": agent,
        "tip": done.tip,
        "last_turn": iso(done.at_ms) if done.at_ms else None,
        "last_round": iso(done.round_ms) if done.round_ms else None,
        "records": done.records,
        "pages": done.pages,
        "findings": [str(finding) for finding in done.findings],
        "details": [msgspec.structs.asdict(finding) for finding in done.findings],
        "left_out": done.left_out,
    }


def _hub(data: Path, address: str) -> dict[str, Any]:
    from holdfast.corpus import SqliteCorpus
    from holdfast.integrity.scan import Outside, verify_corpus
    from holdfast.objects import BlobFiles

    if not (data / "hub.db").is_file():
        raise NotFound(f"no hub in {data}", hint="--data DIR: where holdfast serve keeps its hub.db")
    blobs: Any = BlobFiles(data / "blobs")
    if address:
        from holdfast.objects.blobs.stored import StoredBlobs
        from holdfast.objects.opening import open_store

        blobs = StoredBlobs(open_store(address), blobs)
    corpus = SqliteCorpus(data / "hub.db", hub=True, read_only=True)
    try:
        outside = Outside(wal=corpus.engine.diagnosis, referred=())
        return _report("(hub)", verify_corpus(corpus, blobs, outside=outside))
    finally:
        corpus.close()
