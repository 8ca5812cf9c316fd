"""Backups of a node or a hub: made while it works, proven by restoring them, brought back to any moment.

`create` makes one, `verify` reads all of it, `drill` restores it for a trial, `restore` for good, `prune` lets old ones
go. Backup format v1 is docs/backup-v1.md. What a backup is made of comes from above: `Source`.
"""

from holdfast.integrity.backup.drilling import drill, settled_heads
from holdfast.integrity.backup.lending import BackupSource
from holdfast.integrity.backup.making import Created, create
from holdfast.integrity.backup.manifest import Drill, Drilled, Manifest
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.backup.restoring import Moment, Restored, restore
from holdfast.integrity.backup.retention import PRESETS, Policy, Pruned, prune
from holdfast.integrity.backup.source import AGENT, HUB, Part, Source
from holdfast.integrity.backup.verifying import Verified, verify

__all__ = [
    "AGENT",
    "HUB",
    "PRESETS",
    "BackupSource",
    "Created",
    "Drill",
    "Drilled",
    "Manifest",
    "Moment",
    "Part",
    "Policy",
    "Pruned",
    "Repository",
    "Restored",
    "Source",
    "Verified",
    "create",
    "drill",
    "prune",
    "restore",
    "settled_heads",
    "verify",
]
