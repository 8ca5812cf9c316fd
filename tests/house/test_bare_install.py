"""The core needs no extra, and what needs one says which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_core_lives_without_extras() -> None:
    script = Path(__file__).with_name("bare_check.py")
    result = subprocess.run([sys.executable, "-I", str(script), "--block"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "bare install: ok" in result.stdout
