"""The demo's readers: one process on each node, which sees what the other node writes, through the hub, and when."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from holdfast.cli.demo.child import Journal, Orders, digest, tell
from holdfast.node.store import Store

TELL_EVERY_S = 0.05


def _count(journal: Journal, orders: Orders) -> None:
    told = -1
    while not orders.stopped.wait(TELL_EVERY_S):
        if journal.records != told:
            told = journal.records
            tell(count=told)


def main(given: dict[str, Any]) -> None:
    """Journals every record of the feed until the driver says stop."""
    orders = Orders()
    journal = Journal(Path(given["journal"]))
    with Store(given["store"], agent=given["role"], hub=given["hub"]) as store:
        changes = store.changes(None)

        def end() -> None:
            orders.stopped.wait()
            changes.close()

        threading.Thread(target=end, name="end", daemon=True).start()
        tell(ready=True)
        threading.Thread(target=_count, args=(journal, orders), name="count", daemon=True).start()
        for version in changes:
            at = time.monotonic_ns()
            journal.note(
                what="saw",
                at=at,
                agent=version.agent,
                stream=version.stream,
                seq=version.seq,
                link=version.etag,
                digest=digest(version.value),
            )
        tell(done=True, count=journal.records)
        journal.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
