"""The laws of a corpus that many use at once: transactions, threads, processes. See `holdfast.testing.corpus`."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from holdfast.corpus import Filter, SqlCorpus, Stored
from holdfast.integrity import verify_corpus
from holdfast.log import value
from holdfast.objects import BlobFiles
from holdfast.testing.corpus import CorpusContract, content, log_of, put, refused

_SPAWN: Final = multiprocessing.get_context("spawn")
_EACH: Final = 100


class _Abandon(Exception):
    """Raised by a job that must leave nothing behind."""


def _all(corpus: SqlCorpus) -> list[Stored]:
    out: list[Stored] = []
    while found := corpus.feed(out[-1].pos if out else 0, 500, 1 << 20):
        out += found
    return out


def _write_some(make: Callable[[Path], SqlCorpus], directory: Path, who: int) -> None:
    corpus = make(directory)
    log = log_of(corpus, directory)
    for number in range(_EACH):
        log.append([value("state", f"{who}/{number}", number), value("state", "shared", who)])
    corpus.close()


def _hold(make: Callable[[Path], SqlCorpus], directory: Path, held: Any, let_go: Any) -> None:
    corpus = make(directory)

    def job(tx: Any) -> None:
        tx.set_meta("held", 1)
        held.set()
        let_go.wait()

    corpus.write(job)
    corpus.close()


class Concurrency(CorpusContract):
    """Threads and processes may share a corpus; each waits its turn, and nobody fails."""

    def test_eight_threads_leave_no_gap_and_a_whole_chain(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)

            def work(who: int) -> list[int]:
                return [put(log, f"{who}/{n}", n, f"collection {n % 7}").pos for n in range(_EACH)]

            with ThreadPoolExecutor(8) as pool:
                positions = list(pool.map(work, range(8)))
            assert sorted(pos for each in positions for pos in each) == list(range(1, 8 * _EACH + 1))
            assert all(each == sorted(each) for each in positions)
            assert [stored.pos for stored in _all(corpus)] == list(range(1, 8 * _EACH + 1))
            assert [str(finding) for finding in verify_corpus(corpus).findings] == []

    def test_three_processes_share_one_chain(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log_of(corpus, tmp_path)
            started = [_SPAWN.Process(target=_write_some, args=(self.make, tmp_path, who)) for who in range(3)]
            for process in started:
                process.start()
            mine = log_of(corpus, tmp_path)
            for number in range(_EACH):
                put(mine, f"mine/{number}", number)
            for process in started:
                process.join()
            assert [process.exitcode for process in started] == [0, 0, 0]
            found = _all(corpus)
            assert [stored.pos for stored in found] == list(range(1, 7 * _EACH + 1))
            for who in range(3):
                keys = [stored.record.key for stored in found if stored.record.key.startswith(f"{who}/")]
                assert keys == [f"{who}/{number}" for number in range(_EACH)]
            versions = [stored.record.key_version for stored in mine.versions("state", "shared")]
            assert versions == list(range(3 * _EACH, 0, -1))
            assert [str(finding) for finding in verify_corpus(corpus).findings] == []

    def test_a_second_process_waits_for_the_first_and_does_not_fail(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)
            held, let_go = _SPAWN.Event(), _SPAWN.Event()
            process = _SPAWN.Process(target=_hold, args=(self.make, tmp_path, held, let_go))
            process.start()
            try:
                held.wait()
                with ThreadPoolExecutor(1) as pool:
                    writing = pool.submit(put, log, "k")
                    waits = threading.Event()
                    writing.add_done_callback(lambda _: waits.set())
                    assert not waits.wait(0.2), "it wrote beside another's transaction"
                    assert log.corpus.newest("ada", "state", "k") is None, "reads go on"
                    let_go.set()
                    assert writing.result().pos == 1
            finally:
                let_go.set()
                process.join()
            assert (process.exitcode, corpus.meta("held")) == (0, 1)

    def test_a_reader_never_sees_half_a_batch(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)
            done = threading.Event()
            wrong: list[str] = []

            def read() -> None:
                while not done.is_set():
                    found = corpus.page(Filter(limit=10))
                    values = {content(stored) for stored in found}
                    if len(values) > 1 or (found and len(found) != 10):
                        wrong.append(str(values))

            reader = threading.Thread(target=read)
            reader.start()
            for turn in range(100):
                log.append([value("state", f"{n}", turn) for n in range(10)])
            done.set()
            reader.join()
            assert wrong == []


class Transactions(CorpusContract):
    """A job is all or nothing, and what it learnt goes with it."""

    def test_a_job_that_raises_leaves_nothing(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)
            write = log.job([value("new", "k", 1)])

            def job(tx: Any) -> None:
                tx.set_meta("left", "behind")
                write(tx)
                raise _Abandon

            with refused(_Abandon):
                corpus.write(job)
            assert (corpus.last(), corpus.meta("left"), corpus.newest("ada", "new", "k")) == (0, None, None)
            assert corpus.collections("ada") == []

    def test_names_that_a_rollback_took_back_are_not_remembered(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)
            write = log.job([value("first", "k", 1), value("second", "k", 1)])

            def job(tx: Any) -> None:
                write(tx)
                raise _Abandon

            with refused(_Abandon):
                corpus.write(job)
            put(log, "k", "in third", "third")  # takes the number that `first` had for a moment
            put(log, "k", "in first", "first")
            put(log, "k", "in second", "second")
            for name in ("first", "second", "third"):
                assert content(corpus.newest("ada", name, "k")) == f"in {name}"
        with self.opened(tmp_path) as again:
            for name in ("first", "second", "third"):
                assert content(again.newest("ada", name, "k")) == f"in {name}"

    def test_a_name_that_another_process_has_made_is_found(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as one, self.opened(tmp_path) as other:
            first, second = log_of(one, tmp_path), log_of(other, tmp_path)
            put(first, "k", 1, "made by one")
            put(second, "k", 2, "made by one")
            put(second, "k", 1, "made by other")
            put(first, "k", 2, "made by other")
            for corpus in (one, other):
                assert content(corpus.newest("ada", "made by one", "k")) == 2
                assert content(corpus.newest("ada", "made by other", "k")) == 2
            assert verify_corpus(one, BlobFiles(tmp_path / "blobs")).sound

    def test_meta_is_written_with_the_records_and_read_back_as_it_was(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            for number, kept in enumerate((1, -(2**63), 2**63 - 1, "text", b"\0\xff", None)):

                def job(tx: Any, name: str = f"m{number}", kept: Any = kept) -> Any:
                    tx.set_meta(name, "before")
                    tx.set_meta(name, kept)
                    return tx.meta(name)

                assert corpus.write(job) == kept == corpus.meta(f"m{number}")

    def test_what_is_synced_and_closed_is_there_when_it_is_opened_again(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            put(log_of(corpus, tmp_path), "k", 1)
            corpus.sync()
        with self.opened(tmp_path) as corpus:
            assert content(corpus.newest("ada", "state", "k")) == 1
