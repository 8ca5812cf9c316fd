"""What people install: a wheel with everything that the pages are made of, and the licences of what is not ours."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATIC = "holdfast/hub/ui/static"
PAGES_BYTES_MAX = 400_000


def test_the_wheel_holds_all_of_the_pages_and_their_licences(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        for shipped in tomllib.loads(wheel.read(f"{STATIC}/vendor/VENDOR.toml").decode())["file"]:
            data = wheel.read(f"{STATIC}/vendor/{shipped['path']}")
            assert hashlib.sha256(data).hexdigest() == shipped["sha256"], shipped
            licence = f"{STATIC}/vendor/{shipped['path'].partition('.')[0].replace('hx-sse', 'htmx')}.LICENSE.txt"
            assert licence in names, shipped
        ours = {str(each.relative_to(ROOT / "src")) for each in (ROOT / "src/holdfast/hub/ui").rglob("*")}
        wanted = {each for each in ours if not each.endswith(".pyc") and Path(ROOT / "src" / each).is_file()}
        assert wanted <= names
        size = sum(info.compress_size for info in wheel.infolist() if info.filename.startswith("holdfast/hub/ui/"))
        assert size < PAGES_BYTES_MAX
        assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
