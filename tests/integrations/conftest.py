"""Where every framework must be there (`make test-integrations`), one that is not is a failure and not a skip."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped" and os.environ.get("HOLDFAST_FRAMEWORKS") == "all":
        report.outcome = "failed"
    return report
