"""What is shipped to run and watch a hub fits the hub: every metric, option, name and secret in it is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from holdfast.cli.commands import COMMANDS
from holdfast.hub.systemd import unit
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess, until
from tests.house.doc_blocks import blocks

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "holdfast-hub.service"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "holdfast.json"
PAGE = ROOT / "docs" / "operations.md"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
OURS = re.compile(
    r"\b(?:holdfast_\w+|cache_bytes_used|outbox_queue_depth|sync_lag_seconds|sync_failures_total|htpc_\w+)"
)
PROMETHEUS_OWN = {"up"}


def get(url: str) -> str:
    """What a hub answers."""
    response: HTTPResponse
    with urlopen(Request(url)) as response:
        return response.read().decode()


def families(text: str) -> dict[str, Any]:
    """Name -> family, by the name that a query uses for its plain samples."""
    found = {}
    for family in text_string_to_metric_families(text):
        found[family.name + ("_total" if family.type == "counter" else "")] = family
    return found


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Name -> labels and value of each sample."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


@pytest.fixture
def scrapes(hub: HubProcess, on_node: Callable[..., Store]) -> tuple[str, str]:
    """What a real hub and a real node tell after a little work."""
    store = on_node("node", "ada")
    store.put("a", 1)
    store.add_index("state", model="m")
    with Hub(hub.url) as client:
        client.add_index("state", model="m")
    assert store.flush(30)
    until(lambda: samples(store.metrics())["holdfast_sync_last_success_timestamp_seconds"][0][1], "a contact is told")
    return get(f"{hub.url}/metrics"), store.metrics()


def test_a_node_and_its_hub_agree_that_nothing_waits(scrapes: tuple[str, str]) -> None:
    at_hub, at_node = map(samples, scrapes)
    ((labels, lag),) = at_node["holdfast_sync_lag_seconds"]
    assert lag == 0
    assert at_hub["holdfast_node_sync_lag_seconds"] == [({"node": labels["node"]}, 0)]
    assert at_hub["holdfast_node_behind_records"] == [({"node": labels["node"], "agent": "ada"}, 0)]
    assert at_hub["holdfast_clock_skew_seconds"][0][0] == {"node": labels["node"]}
    assert ({"node": labels["node"]}, 1) in at_hub["holdfast_hub_ingest_records_total"]
    for name in ("records", "bytes", "oldest_record_timestamp_seconds"):
        assert [value for _, value in at_node[f"holdfast_outbox_{name}"]] == [0]
    assert [value for _, value in at_node["sync_failures_total"]] == [0]


def test_every_metric_that_is_watched_exists(scrapes: tuple[str, str]) -> None:
    live = {name for text in scrapes for name in samples(text)}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [rule["expr"] for rule in rules]
    queries += [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert all(query.count("(") == query.count(")") for query in queries)
    named = {name for query in queries for name in OURS.findall(query)}
    assert len(named) > 30
    assert named - live == set()
    for rule in rules:
        assert re.fullmatch(r"Holdfast[A-Z]\w+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
    kept = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][1]
    (pattern,) = [each["regex"] for each in kept["metric_relabel_configs"]]
    lost = [name for name in samples(scrapes[1]) if not re.fullmatch(pattern, name)]
    assert lost == [], "prometheus.yml drops what a node tells"


def test_rules_are_what_promtool_takes() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("there is no promtool on this machine")
    subprocess.run([tool, "check", "rules", RULES], check=True, capture_output=True)


def test_the_page_has_every_metric_and_no_other(scrapes: tuple[str, str]) -> None:
    """One row per metric: its name, its type, its labels."""
    rows = re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \| ([^|]*) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    live: dict[str, tuple[str, set[str]]] = {}
    for text in scrapes:
        for name, family in families(text).items():
            known = live.setdefault(name, (family.type, set()))[1]
            known |= {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == live


# -- systemd -----------------------------------------------------------------------------------------------------


def test_the_unit_is_what_serve_prints(tmp_path: Path) -> None:
    program = "import sys; from holdfast.cli import main; main()"
    printed = subprocess.run([sys.executable, "-c", program, "serve", "--print-unit"], capture_output=True, check=True)
    assert printed.stdout.decode() == UNIT.read_text()


def test_a_unit_takes_over_what_serve_was_told() -> None:
    words = ["serve", "--print-unit", "--host", "10.0.0.1", "--settle", "acked", "--log-level", "info"]
    program = f"import sys; from holdfast.cli import main; main({words!r})"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.decode()
    (line,) = [line for line in printed.splitlines() if line.startswith("ExecStart=")]
    assert "serve --data %S/holdfast " in line
    assert {"--host 10.0.0.1", "--settle acked", "--log-level info"} <= {
        " ".join(pair) for pair in zip(line.split(), line.split()[1:], strict=False)
    }
    database = unit(["--database", "postgresql://db/a%20b"])
    assert "--data " not in database
    assert "--database postgresql://db/a%%20b\n" in database


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("there is no systemd-analyze on this machine")
    # It looks whether the program is there: ours may be installed anywhere.
    path = tmp_path / UNIT.name
    path.write_text(unit(["--host", "0.0.0.0"], program=shutil.which("true") or "/bin/true"))
    done = subprocess.run([tool, "verify", "--man=no", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- containers --------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: (word, rest)."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_as_the_seed_and_the_page_say() -> None:
    found = instructions()
    last: dict[str, str] = dict(found)
    assert (last["EXPOSE"], last["VOLUME"]) == ("8084", "/data")
    assert last["USER"].split(":")[0] not in ("0", "root")
    entry, command = json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])
    assert (Path(entry[0]).name, command[0]) == ("holdfast", "serve")
    assert command[command.index("--data") + 1] == last["VOLUME"]
    assert command[command.index("--port") + 1] == last["EXPOSE"]
    for source in (rest for word, rest in found if word == "COPY" and not rest.startswith("--from")):
        assert all((ROOT / each).exists() for each in source.split()[:-1]), source
    wanted = re.search(r'"\.\[([\w,]+)\]"', DOCKERFILE.read_text())
    assert wanted
    assert set(wanted[1].split(",")) <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))


def test_the_images_health_check_knows_a_hub_that_takes_writes_from_none(hub: HubProcess) -> None:
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    _, flag, code = json.loads(check.partition("CMD ")[2])
    assert (flag, ":8084/" in code) == ("-c", True)
    there = [sys.executable, flag, code.replace(":8084/", f":{hub.port}/")]
    assert subprocess.run(there, stderr=subprocess.DEVNULL).returncode == 0
    hub.stop()
    assert subprocess.run(there, stderr=subprocess.DEVNULL).returncode != 0


def test_images_have_a_version_and_no_registry() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    images = [service["image"] for service in services.values()]
    images += [rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"]
    assert len(images) >= 5
    for image in images:
        name, _, tag = image.partition(":")
        assert re.search(r"\d", tag), image
        assert "." not in name, image


def test_compose_names_only_what_it_defines() -> None:
    told = yaml.safe_load(COMPOSE.read_text())
    for name, service in told["services"].items():
        assert set(service.get("secrets", ())) <= set(told["secrets"]), name
        assert set(service.get("depends_on", ())) <= set(told["services"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            there = source in told["volumes"] if source[0] != "." else (COMPOSE.parent / source).exists()
            assert there, f"{name}: {volume}"
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD$|TOKEN$|:[^/@]+@", f"{key}\n{value}"), f"{name}: {key} holds a secret"
    hub = told["services"]["hub"]
    assert hub["environment"]["HOLDFAST_DATABASE"].startswith("postgresql://")
    assert "--data" not in hub["command"], "a hub has a directory or a database"
    assert {word for word in hub["command"] if word.startswith("-")} <= options_of(hub["command"][0])
    assert (hub["command"][hub["command"].index("--port") + 1], hub["ports"]) == ("8084", ["8084:8084"])
    assert (COMPOSE.parent / hub["build"]["context"] / hub["build"]["dockerfile"]).resolve() == DOCKERFILE
    page = PAGE.read_text("utf-8")
    for secret in told["secrets"].values():
        assert Path(secret["file"]).name in page, f"docs/operations.md does not say how to make {secret['file']}"


# -- commands ----------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `holdfast …` command in a file."""
    for found in re.finditer(r"(?:^|[\s/`\"])holdfast(?=[\s`\"]) *(?P<rest>(?:\\\n|[^\n`#|>])*)", text):
        words = found["rest"].replace("\\\n", " ").split()
        if words and words[0] in COMMANDS.commands:
            yield words


def options_of(name: str) -> set[str]:
    """Every option of a command."""
    command = COMMANDS.commands[name]
    return {opt for param in command.params if isinstance(param, click.Option) for opt in (*param.opts, "--help")}


@pytest.mark.parametrize("path", [*FILES, PAGE], ids=lambda path: path.name)
def test_every_option_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    if path == DOCKERFILE:
        text = f"holdfast {' '.join(json.loads(dict(instructions())['CMD']))}"
    for words in commands(text):
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options_of(words[0]), f"{path.name}: holdfast {' '.join(words)}"


def test_there_are_commands_to_check() -> None:
    every = [words for path in (UNIT, PAGE) for words in commands(path.read_text("utf-8"))]
    assert {words[0] for words in every} >= {"serve", "metrics"}


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix in (".yml", ".yaml", ".json")], ids=str)
def test_it_can_be_read(path: Path) -> None:
    assert yaml.safe_load(path.read_text("utf-8"))


def test_the_pages_examples_of_configuration_can_be_read() -> None:
    found = [block for block in blocks(PAGE.read_text("utf-8")) if block.language in ("yaml", "json")]
    for block in found:
        assert yaml.safe_load(block.text), f"operations.md:{block.line}"
