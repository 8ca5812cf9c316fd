"""Objects as files in a readable tree: each whole or not there, safe when `put` returns, never returned when it rotted.

The order of a write: an unfinished file beside the tree, its description on it, fsync, rename under the key's lock,
fsync of the directory. Who reads takes no lock. A file that somebody dropped into the tree is an object too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from holdfast.errors import StorageError, StorageRefused
from holdfast.objects.files.names import MORE, PlainNames, TypedNames, type_of
from holdfast.objects.files.pieces import Pieces, corrupt
from holdfast.objects.files.sidecars import (
    ROTTEN,
    About,
    Sidecars,
    attach,
    attached,
    new_etag,
    packed,
    unpacked_or_rotten,
)
from holdfast.objects.files.tree import Entry, Where, entries, where_of
from holdfast.objects.files.workroom import Partial, Told, Workroom, failure
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.port import (
    SWAP_DELETE,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_expect,
    check_put,
    check_range,
    conflict,
    not_found,
)
from holdfast.objects.raw import LARGE_BYTES, PIECE_BYTES, beside, digest_of, pieces_of, write_at

Names = Literal["typed", "plain"]
_NOT_ONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EMLINK)
_TURNS: Final = 1000


class _Moved(Exception):
    """The file that was opened is not the one by this name any more."""


class FileStore(ObjectStore):
    """Objects in the files below a directory; any number of threads and processes may use it at once.

    Args:
        root: the directory; made, with mode 0700, if it is not there.
        names: ``typed``: a file has a suffix for its object's type (``ceo.json`` is the object ``ceo``); ``plain``:
            the key is the path.
        attributes: whether descriptions lie in extended attributes where the file system has them, or never.
        folding: whether the file system takes capitals and small letters for the same; None: it is tried out.

    Raises:
        StorageRefused: the directory was made where names are told apart that are the same here.
        StorageDenied: it cannot be made.
    """

    lists_all = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        names: Names = "typed",
        attributes: bool = True,
        folding: bool | None = None,
    ) -> None:
        super().__init__()
        if names not in ("typed", "plain"):
            raise StorageRefused(f"no way to name files: {names!r:.80}", hint="typed or plain")
        self.root = Path(os.path.abspath(root))
        self._attributes = attributes
        with Told(self.root):
            self._room = Workroom(self.root)
            folded = self._room.folds() if folding is None else folding
        self._names = (TypedNames if names == "typed" else PlainNames)(folded)
        self._sidecars = Sidecars(self._room.own / "about", self._room.publish)
        self._swept = False

    @property
    def name(self) -> str:
        return f"file:{self.root}"

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._open()
        check_key(key)
        kept = check_put(self, content_type, metadata, expect)
        if expect is not None:
            self._expected(key, expect)  # before anything is written; what counts is the look under the lock
        told = Told(self.root, key)
        with told:
            if not self._swept:
                self._swept = True
                self._room.sweep()
            partial = self._room.partial()
        with partial:
            fd = partial.fd
            size, digest = self._fill(fd, pieces_of(data), told)
            about = About(
                etag=new_etag(),
                size=size,
                at=time.time_ns() // 1000,
                sha256=digest,
                type=content_type,
                metadata=kept,
            )
            with told:
                raw = packed(about)
                aside = None if self._attributes and attach(fd, raw) else raw
                os.fsync(fd)
                self._settle(key, partial, about, expect, (os.fstat(fd).st_ino, aside) if aside else None)
        return about.info(key)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        check_key(key)
        check_range(start, stop)
        with Told(self.root, key):
            fd, about = self._reader(key)
            end = about.size if stop is None else min(stop, about.size)
            proof = about.sha256 if start == 0 and end == about.size else ""
            pieces = Pieces(self.name, key, fd, (start, max(start, end)), proof)
            try:
                pieces.check(about)
                if end - start > PIECE_BYTES:
                    return Content(about.info(key), pieces)
                piece = next(pieces, b"")
            except BaseException:
                pieces.close()
                raise
            pieces.close()
            return Content(about.info(key), [piece] if piece else ())

    def head(self, key: str) -> ObjectInfo:
        self._open()
        check_key(key)
        with Told(self.root, key):
            about = self._about(key)
        if about is None:
            raise not_found(self, key)
        if about is ROTTEN:
            raise corrupt(self.name, key, "its description was changed")
        return about.info(key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        self._room.look()
        return self._walk(prefix, after, limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        with Told(self.root, key):
            where = self._where(key)
            if not where.found()[0]:
                self._room.look()
                self._expected(key, expect)
                return False
            with self._room.lock(self._names.shared(key)):
                self._expected(key, expect)
                files = where.found()[0]
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{where.directory}/{file}")
                    if self._sidecars.used():
                        self._sidecars.drop(where.relative(file))
            self._room.prune(where.directory)
        return bool(files)

    def _look(self) -> None:
        self._room.look()
        with Told(self.root), os.scandir(self.root):
            pass

    # -- writing ------------------------------------------------------------------------------------------------

    def _fill(self, fd: int, pieces: Iterable[bytes], told: Told) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        for piece in pieces:  # the source's own errors stay its own
            if len(piece) < LARGE_BYTES:
                with told:
                    size = write_at(fd, piece, size)
                digest.update(piece)
                continue
            with told, beside(digest.update, piece):
                size = write_at(fd, piece, size)
                os.fdatasync(fd)  # while the digest is made; the description that needs it is synced after this
        return size, digest.hexdigest()

    def _settle(
        self, key: str, partial: Partial, about: About, expect: Expect, sidecar: tuple[int, bytes] | None
    ) -> None:
        """Gives a finished file its name, if what is there is what the writer expects, and makes that survive."""
        where = self._where(key)
        for _ in range(_TURNS):
            self._room.directory(where.names, self._in_the_way)
            try:
                directory = os.open(where.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                self._lost(where)
                continue
            try:
                with self._room.lock(self._names.shared(key)):
                    if expect is not None:
                        self._expected(key, expect)
                    named = self._name(where, directory, partial, about.type, sidecar)
                if named:
                    self._room.settle(where.directory, directory)
                    return
            finally:
                os.close(directory)
        raise StorageError(f"no place for {key!r:.200} in {self.name}: something is in the way of {where.directory}")

    def _name(
        self, where: Where, directory: int, partial: Partial, content_type: str, sidecar: tuple[int, bytes] | None
    ) -> bool:
        """Gives a finished file its name in an open directory; False: that is to be tried anew."""
        file = self._target(where, directory, content_type)
        relative = where.relative(file)
        try:
            if sidecar is not None:
                self._announce(f"{where.directory}/{file}", relative, sidecar)
            partial.become(file, directory)
        except (FileNotFoundError, NotADirectoryError):
            self._lost(where)
            return False
        except IsADirectoryError:
            return False  # made meanwhile; there is another name for us then
        if sidecar is not None:
            self._sidecars.put(relative, dict([sidecar]), durable=False)
        elif self._sidecars.used():
            self._sidecars.drop(relative)
        return True

    def _lost(self, where: Where) -> None:
        """A directory was empty when another key of it was deleted, and went with that."""
        self._room.look()
        self._room.forget(where.directory)

    def _announce(self, path: str, relative: str, sidecar: tuple[int, bytes]) -> None:
        """Says what the new file is before it is there, and again what the old one is."""
        held = dict([sidecar])
        try:
            inode = os.lstat(path).st_ino
        except FileNotFoundError:
            pass
        else:
            old = self._sidecars.get(relative, inode)
            if old:
                held[inode] = old
        self._sidecars.put(relative, held)

    def _target(self, where: Where, directory: int, content_type: str) -> str:
        """The name of the file that the object has, or gets."""
        files, taken = where.found(directory)
        if files:
            return files[0]
        # A directory in its place was dropped there, or is that of other keys where names have no suffix.
        first = self._names.name(where.stem, content_type)
        if first not in taken:
            return first
        return next((name for name in where.candidates if name not in taken), first)

    def _in_the_way(self, path: str) -> None:
        """Gives another name to a file whose name a directory needs: it has no suffix, or its key is its path."""
        relative = path[len(str(self.root)) + 1 :]
        segments: list[str | None] = []
        carried: tuple[str, ...] = ()
        for name in relative.split("/"):
            if name.endswith(MORE):
                carried = (*carried, name)
            else:
                segments.append(self._names.directory_segment(name, carried))
                carried = ()
        refused = StorageError(f"the file {path} is in the way of a directory", hint="rename it")
        if carried or None in segments:
            raise refused
        key = "/".join(segment for segment in segments if segment)
        where = self._where(key)
        with self._room.lock(self._names.shared(key)):
            file = path.rpartition("/")[2]
            files = where.found()[0]
            if file not in files:
                if os.path.isfile(path):
                    raise refused
                return
            if files != [file]:
                raise refused
            other = file + self._names.aside
            held = self._sidecars.get(relative, os.lstat(path).st_ino)
            if held:
                self._sidecars.put(where.relative(other), {os.lstat(path).st_ino: held})
            os.rename(path, f"{where.directory}/{other}")
            if held:
                self._sidecars.drop(relative)
        self._room.settle_path(where.directory)

    def _expected(self, key: str, expect: Expect) -> None:
        if expect is None:
            return
        with Told(self.root, key):
            about = self._about(key)
        if (about.etag if about else 0) != expect or about is ROTTEN:
            raise conflict(self, key, expect, about.etag if about else None)

    # -- reading ------------------------------------------------------------------------------------------------

    def _where(self, key: str) -> Where:
        return where_of(str(self.root), self._names, key)

    def _about(self, key: str) -> About | None:
        """What is known of an object; None if there is none, `ROTTEN` if it cannot be read."""
        where = self._where(key)
        for name in where.candidates:
            try:
                about = self._about_file(f"{where.directory}/{name}", where.relative(name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if about is not None:
                return about
        self._room.look()
        return None

    def _about_file(self, path: str, relative: str) -> About | None:
        """What is known of a file; None if it is no plain file."""
        raw = attached(path)
        if raw is not None:
            return unpacked_or_rotten(raw)
        found = self._opened(path, relative)
        if found is None:
            return None
        os.close(found[0])
        return found[1]

    def _reader(self, key: str) -> tuple[int, About]:
        where = self._where(key)
        for name in where.candidates:
            found = self._opened(f"{where.directory}/{name}", where.relative(name))
            if found is not None:
                return found
        self._room.look()
        raise not_found(self, key)

    def _opened(self, path: str, relative: str) -> tuple[int, About] | None:
        """A file and what is known of it, both of the same write; None if there is no plain file."""
        while True:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in _NOT_ONE:
                    return None
                raise
            try:
                about = self._describe(fd, path, relative)
                if about is not None:
                    kept, fd = fd, -1
                    return kept, about
                return None
            except _Moved:
                continue
            finally:
                if fd >= 0:
                    os.close(fd)

    def _describe(self, fd: int, path: str, relative: str) -> About | None:
        raw = attached(fd)
        if raw is not None:
            return unpacked_or_rotten(raw)
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            return None
        if self._sidecars.used():
            raw = self._sidecars.get(relative, state.st_ino)
            if raw is not None:
                return unpacked_or_rotten(raw)
            try:
                if os.lstat(path).st_ino != state.st_ino:
                    raise _Moved
            except (FileNotFoundError, NotADirectoryError):
                raise _Moved from None
        # Somebody dropped it here. Its etag is made of its bytes: inode numbers, times and sizes come again.
        digest = digest_of(fd).hex()
        name = path.rpartition("/")[2]
        return About(
            etag=digest[:32], size=state.st_size, at=state.st_mtime_ns // 1000, sha256=digest, type=type_of(name)
        )

    # -- listing ------------------------------------------------------------------------------------------------

    def _walk(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        """Directory by directory, each sorted: the order of keys, though not of paths (``a-b`` < ``a/b`` < ``a0``)."""
        base = prefix[: prefix.rfind("/") + 1]
        path = "/".join((str(self.root), *self._names.directories(base)))
        open_ = [self._entries(base, path, prefix, after)]
        left = -1 if limit is None else max(0, limit)
        top = len(str(self.root)) + 1
        while open_ and left:
            entry = next(open_[-1], None)
            self._open()
            if entry is None:
                open_.pop()
            elif entry.file:
                try:
                    about = self._about_file(entry.path, entry.path[top:])
                except FileNotFoundError:
                    continue  # deleted since its directory was read
                except StorageError:
                    raise
                except OSError as error:
                    raise failure(self.root, entry.key, error) from error
                if about is not None:
                    yield about.info(entry.key)
                    left -= 1
            else:
                open_.append(self._entries(entry.key, entry.path, prefix, after))

    def _entries(self, base: str, path: str, prefix: str, after: str) -> Iterator[Entry]:
        with Told(self.root, base):
            return entries(self._names, base, path, prefix, after)


def open_file(address: str, **options: Any) -> FileStore:
    """The opener of ``file:<directory>``, relative to the working directory or not; ``file:///…`` is taken too."""
    path = address.removeprefix("file:")
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise StorageRefused(f"not a directory of this machine: {address!r:.200}", hint="file:./data, file:/data")
    if not path or "\x00" in path:
        raise StorageRefused(f"not a directory: {address!r:.200}", hint="file:./data, file:/data")
    return FileStore(path, **options)
