"""Commands that prove what is stored: verify, scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, seconds_text
from holdfast.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from holdfast.integrity.scan import Scan

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
