"""A hub in a process of its own, one inside the test, and what nodes and clients need to talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import wire
from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.core import Core
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from holdfast.hub.home import Home
from tests.flow.hubs import HubProcess
from tests.hub.lines import Line
from tests.hub.pens import Pen
from tests.hub.roles import BLOB, DIGEST, ROLES, House, furnish
from tests.services import shared_pgvector, shared_postgres


class Room:
    """A hub inside the test: `client` asks it over HTTP, `core` is what stands behind."""

    def __init__(self, client: TestClient, core: Core) -> None:
        self.client = client
        self.core = core

    def append(self, *segments: wire.Segment, gen: str = "", req: int = 7) -> wire.AppendAnswer:
        """Sends segments as a node would."""
        message = wire.Append(gen or self.core.home.gen, req, list(segments), "node-1")
        answer = self.client.post("/v1/append", content=wire.encode(message), headers={"Content-Type": wire.MEDIA})
        assert answer.status_code == 200, answer.text
        return wire.decode(wire.AppendAnswer, answer.content)

    def hello(self, message: wire.Hello) -> wire.HelloAnswer:
        """What the hub knows."""
        answer = self.client.post("/v1/hello", content=wire.encode(message))
        assert answer.status_code == 200, answer.text
        return wire.decode(wire.HelloAnswer, answer.content)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a read that must succeed."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def records(self) -> list[Any]:
        """Everything that the hub holds, in commit order."""
        return self.get("/v1/feed")["records"]  # type: ignore[no-any-return]


# Where it matters what the hub lies in: everything that one of these modules asks, and what is written in batches.
ON_BOTH = {
    *("test_ingest", "test_reads", "test_erasing", "test_sync_endpoints", "test_feed", "test_mail", "test_index"),
    *("test_search", "test_own_erasing", "test_audit"),
    *("test_storage_sessions", "test_storage_metrics", "test_storage_artifacts"),
}
ON_BOTH_TOO = {
    "test_a_batch_has_a_verdict_for_each_and_later_ones_see_what_earlier_ones_wrote",
    "test_a_batch_beyond_500_is_split_and_wholly_written",
    "test_repeating_an_operation_adds_no_record",
    "test_what_was_carried_out_without_a_record_is_not_carried_out_again_later",
    "test_a_msg_id_that_another_change_had_is_refused_and_never_answered_as_stored",
    "test_a_row_that_was_erased_may_be_written_again_and_holds_nothing_up",
    "test_requests_are_counted_by_route_and_outcome",
    "test_a_hub_scans_itself_and_says_what_it_found",
    "test_a_hub_tells_of_its_disk_only_where_it_has_one",
    "test_a_nodes_lag_is_the_age_of_its_oldest_record_until_that_is_here",
    "test_a_file_is_stored_and_comes_back",
    "test_the_same_bytes_are_stored_once_and_are_two_files",
    "test_a_known_msg_id_is_the_same_file_and_never_another",
    "test_a_deleted_file_is_gone_and_its_history_stays",
    "test_other_bytes_than_promised_are_refused",
    "test_ranges_and_conditions",
    "test_an_upload_is_resumed_where_it_stands_and_finished_once",
    "test_a_finish_proves_the_bytes",
    "test_an_upload_can_be_given_up",
    "test_harmless_statements_work",
    "test_the_views_tell_what_the_other_endpoints_tell",
    "test_a_scheduled_scan_stands_by_for_another_process",
    "test_what_is_deleted_is_in_records_alone",
    "test_what_the_storage_service_keeps_is_in_views_of_its_own",
    "test_the_page_about_sql_is_true",
    "test_answers_end_at_their_limits_and_say_so",
    "test_a_worker_that_died_is_replaced_unseen",
}
# Where the database may find near vectors itself.
ON_PGVECTOR = {
    "test_an_index_is_declared_filled_and_searched",
    "test_two_fillers_share_the_work_and_neither_harms_the_other",
    "test_what_the_function_fails_on_is_told_and_holds_nothing_up",
    "test_an_index_of_a_collection_with_a_slash_in_its_name",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test over a hub in a directory, and over one in a database where that may differ."""
    marked = any(mark.name == "parametrize" and mark.args[0] == "home" for mark in metafunc.definition.iter_markers())
    if "home" in metafunc.fixturenames and not marked:
        module, name = metafunc.module.__name__.rpartition(".")[2], metafunc.function.__name__
        both = module in ON_BOTH or name in ON_BOTH_TOO
        homes = ["directory", *(["database"] if both else []), *(["pgvector"] if name in ON_PGVECTOR else [])]
        metafunc.parametrize("home", homes, indirect=True)


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Home:
    """Where a hub lies: a directory whose disk is never too full, or a database, which may find near vectors itself."""
    if request.param == "database":
        return HubDatabase(shared_postgres().corpus(), settle="acked")
    if request.param == "pgvector":
        return HubDatabase(shared_pgvector().corpus(), settle="acked")
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    return HubDirectory(tmp_path / "hub", settle="acked", reserve=reserve)


@pytest.fixture
def room(home: Home) -> Iterator[Room]:
    """A hub, running inside the test."""
    app = create_app(home)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Room(client, app.state.core)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub in a process of its own."""
    process = HubProcess(tmp_path / "hub", fresh=True)
    yield process
    process.kill()


@pytest.fixture
def line(hub: HubProcess) -> Iterator[Line]:
    """A connection to it."""
    opened = Line(hub.url)
    yield opened
    opened.close()


@pytest.fixture
def pen() -> Pen:
    """An agent's hand."""
    return Pen()


@pytest.fixture
def house(home: HubDirectory) -> Iterator[House]:
    """A hub with a record of ada's, one of bob's, and a blob."""
    for opened in House(home).open():
        for name, pen in opened.pens.items():
            pen.put("k", 1)
            assert opened.append({"ada": "owner", "bob": "other"}[name], pen.segment()).verdicts[0].state == "ack"
        assert opened.ask("owner", "PUT", f"/v1/blobs/{DIGEST}", BLOB).status_code == 201
        yield opened


@pytest.fixture
def furnished(house: House) -> House:
    """The same hub with a session of ada's for each role to try."""
    for name in (*ROLES, "eves", "zoes"):
        furnish(house, name)
    return house
