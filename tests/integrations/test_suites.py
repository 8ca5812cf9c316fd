"""How frameworks' own suites are fetched and judged: nothing that did not happen passes for something that did."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from tests.integrations.suites import run, sources
from tests.integrations.suites.run import SUITES, Suite, wrong

SUITE = Suite("a-framework", "plugin", ("tests",), least=100, made=7)


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (0, "100 passed, 3 skipped in 1.00s\nobjects of ours: 7\n", ""),
        (1, "1 failed, 120 passed in 1.00s\nobjects of ours: 7\n", "pytest ended with 1"),
        (0, "99 passed in 1.00s\nobjects of ours: 7\n", "99 of its tests passed"),
        (0, "no tests ran in 0.01s\n", "none of its tests passed"),
        (5, "no tests ran in 0.01s\nobjects of ours: 0\n", "pytest ended with 5"),
        (0, "100 passed in 1.00s\nobjects of ours: 6\n", "6 objects of ours were made"),
        (0, "100 passed in 1.00s\n", "no objects of ours were made"),
    ],
)
def test_neither_nothing_nor_somebody_elses_class_passes(code: int, said: str, why: str) -> None:
    assert wrong(SUITE, code, said).startswith(why)
    assert bool(wrong(SUITE, code, said)) == bool(why)


def test_every_suite_is_pinned_and_every_test_that_is_left_out_has_its_reason() -> None:
    lock = sources.LOCK.read_text()
    for name, suite in SUITES.items():
        lines = sources.pinned(suite.package, lock)
        assert lines.count("==") == 1, name
        assert "--hash=sha256:" in lines, name
        assert min(suite.least, suite.made) > 0, name
        assert all("::" in test and len(reason) > 10 for test, reason in suite.without), name
    with pytest.raises(LookupError, match="make lock"):
        sources.pinned("langgraph-", lock)


def test_a_source_is_what_the_lock_says_or_is_not_unpacked(tmp_path: Path) -> None:
    project = tmp_path / "a_framework-1.0"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "a-framework"\nversion = "1.0"\n'
        '[tool.hatch.build.targets.wheel]\nonly-include = ["pyproject.toml"]\n'
    )
    (project / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: a-framework\nVersion: 1.0\n")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    archive = shelf / "a_framework-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(project, arcname=project.name)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    given = f"a-framework==1.0 \\\n    --hash=sha256:{digest}\n"
    local = f"--no-index\n--find-links {shelf}\n"

    places = [tmp_path / "1", tmp_path / "2"]
    for place in places:
        place.mkdir()
    assert sources.fetched(local + given, places[0]).name == archive.name
    with pytest.raises(RuntimeError, match="DO NOT MATCH THE HASHES"):
        sources.fetched(local + given.replace(digest, "0" * 64), places[1])


@pytest.mark.parametrize("ci", [True, False])
def test_without_a_network_a_suite_is_skipped_here_and_fails_in_ci(
    ci: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "version", lambda package: "1.0")
    monkeypatch.setattr(sources, "pinned", lambda package, lock: f"a-framework==1.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(run, "KEPT", tmp_path / "kept")
    monkeypatch.setitem(SUITES, "theirs", SUITE)
    monkeypatch.setenv("CI", "true" if ci else "")
    for name, value in (("CONFIG_FILE", "/dev/null"), ("INDEX_URL", "http://127.0.0.1:9/simple"), ("RETRIES", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert run.main(["theirs"]) == int(ci)
    said = capsys.readouterr().out
    assert ("SKIPPED: no network" in said) != ci
    assert ("theirs: its source could not be fetched" in said) == ci
    assert not list((tmp_path / "kept").iterdir())


def test_a_suite_that_nobody_knows_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["langgraf"]) == 2
    assert "langgraph-saver" in capsys.readouterr().err
