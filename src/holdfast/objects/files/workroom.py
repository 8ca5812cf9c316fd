"""Beside the objects of a file store, in ``<root>/.holdfast``: files that are not finished, locks, directories known.

Nothing in here is needed to read the tree, and nothing in here is an object. Who writes an unfinished file holds its
flock, which ends with the process: what nobody holds is rubbish, and `sweep` collects it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from holdfast.disk import sync_directory
from holdfast.errors import StorageDenied, StorageError, StorageFull, StorageRefused, StorageUnavailable
from holdfast.objects.raw import write_at

OWN: Final = ".holdfast"
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_TURNS: Final = 1000
_LOCKS: Final = 16
"""Few, because the first to need one makes its file, which takes half as long as a put."""
_KNOWN_MAX: Final = 10_000


# The contexts of a put are classes: Python makes and leaves one in a third of the time that it takes for a generator.


class Partial:
    """A file that is not finished; made by `Workroom.partial`. A context: if it was not renamed, it is removed then."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        """Empty once it has a name of its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
        finally:
            os.close(self.fd)

    def become(self, name: str, directory: int | None = None) -> None:
        """Takes this name, in place of whoever has it.

        Args:
            name: in the directory, or a path.
            directory: open.

        Raises:
            FileNotFoundError: there is no directory for it.
            NotADirectoryError: nor is there here.
            IsADirectoryError: a directory has the name.
        """
        os.rename(self.path, name, dst_dir_fd=directory)
        self.path = ""


class Workroom:
    """The bookkeeping of one root; any number of threads, processes and forked children may have one.

    Args:
        root: the store's directory; made if it is not there, its parents too. One that may only be read is read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.own = root / OWN
        self._partial = self.own / "partial"
        self._partial_text = str(self._partial)
        self._locks = self.own / "locks"
        self._locks_text = str(self._locks)
        self._root_text = str(root)
        self._known: dict[str, int] = {}
        self._denied: OSError | None = None
        try:
            for path in (self._partial, self._locks):
                make_all(path)
        except OSError as error:
            if error.errno not in _DENIED or not root.is_dir():
                raise
            self._denied = error
        self._seen = self.own.is_dir()

    def look(self) -> None:
        """Whether the store's directory is there; what is not found in one that is not there is no answer.

        Raises:
            StorageUnavailable: it went away.
        """
        if not (self.own if self._seen else self.root).is_dir():
            raise gone(self.root)

    def partial(self) -> Partial:
        """A new file, ours alone until its block ends.

        Raises:
            PermissionError: there may be none in this directory.
            StorageUnavailable: the store's directory went away.
        """
        if self._denied is not None:
            raise self._denied
        path = f"{self._partial_text}/{os.getpid():x}-{os.urandom(8).hex()}"
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                raise gone(self.root) from None
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return Partial(fd, path)
            os.close(fd)  # somebody swept it before it was locked

    def publish(self, path: Path, data: bytes, durable: bool) -> None:
        """Writes a small file of our own, whole; when it returns, it survives a power cut if that was asked for."""
        with self.partial() as partial:
            write_at(partial.fd, data, 0)
            if durable:
                os.fsync(partial.fd)
            try:
                partial.become(str(path))
            except FileNotFoundError:
                make_all(path.parent)
                partial.become(str(path))
        if durable:
            sync_directory(path.parent)

    def lock(self, name: str) -> _Lock:
        """Ours alone until the block ends: all that goes by this name, in every thread and process."""
        if self._denied is not None:
            raise self._denied
        return _Lock(f"{self._locks_text}/{zlib.crc32(name.encode()) % _LOCKS:02x}", self.root)

    def sweep(self) -> int:
        """Removes unfinished files of processes that are no more; returns how many."""
        if self._denied is not None:
            return 0
        swept = 0
        for name in os.listdir(self._partial):
            path = self._partial / name
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    swept += 1
                finally:
                    os.close(fd)
        return swept

    def folds(self) -> bool:
        """Whether names that differ in case, or in how an accent is written, are one name here; the answer is kept.

        Raises:
            StorageRefused: names were made where they are not one, and here they are.
        """
        record = self.own / "names"
        if self._denied is not None:
            name = self.root.name
            return name.swapcase() != name and os.path.lexists(self.root.with_name(name.swapcase()))
        folded = os.path.lexists(self.root / OWN.upper())
        try:
            said = record.read_text("ascii").strip()
        except FileNotFoundError:
            said = ""
        if not said:
            with self._named("\u00e9") as other:
                folded = folded or os.path.lexists(other)
            said = "folded" if folded else "exact"
            self.publish(record, said.encode() + b"\n", True)
        if said == "exact" and folded:
            raise StorageRefused(
                f"{self.root} was made where capitals have names of their own, and here they have not",
                hint="copy its objects into a new store instead of its files",
            )
        return said == "folded"

    @contextlib.contextmanager
    def _named(self, sign: str) -> Iterator[Path]:
        """The path of a file that was made with this sign in its name, with another form of the sign."""
        name = f"{os.getpid():x}-{os.urandom(8).hex()}-"
        path = self.own / (name + sign)
        path.touch(0o600)
        try:
            yield self.own / (name + unicodedata.normalize("NFD", sign))
        finally:
            path.unlink(missing_ok=True)

    # -- directories of the tree --------------------------------------------------------------------------------

    def directory(self, names: list[str], in_the_way: Callable[[str], None]) -> str:
        """The path of a directory of the tree, made if need be, whose name survives a power cut.

        Args:
            names: below the root, in order.
            in_the_way: told of a file that has the name of a directory; returns when it has another.
        """
        path = "/".join((self._root_text, *names))
        if path in self._known:
            return path
        for _ in range(_TURNS):
            try:
                return self._make(names, in_the_way)
            except (FileNotFoundError, NotADirectoryError):
                self.look()
                self._known.clear()  # somebody removed one that was empty, while we walked
        raise StorageError(f"{path} cannot be made: what is above it comes and goes")

    def _make(self, names: list[str], in_the_way: Callable[[str], None]) -> str:
        path = self._root_text
        for name in names:
            parent, path = path, f"{path}/{name}"
            if path in self._known:
                continue
            for turn in range(_TURNS):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    mode = os.lstat(path).st_mode
                    if stat.S_ISREG(mode) and turn < _TURNS - 1:
                        in_the_way(path)
                        continue
                    if not stat.S_ISDIR(mode):
                        raise StorageError(
                            f"{path} is no directory", hint="a link or a device cannot be part of a store"
                        ) from None
                break
            # Whoever made it may not have come to that yet, and we build on it.
            sync_directory(Path(parent))
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[path] = os.lstat(path).st_ino
        return path

    def forget(self, path: str) -> None:
        """A directory is not where it was; nor is what was below it."""
        for known in [known for known in [*self._known] if known == path or known.startswith(f"{path}/")]:
            self._known.pop(known, None)

    def settle(self, path: str, directory: int) -> None:
        """Makes the names in a directory of the tree, which is open, survive a power cut."""
        os.fsync(directory)
        if path != self._root_text and self._known.get(path) != os.fstat(directory).st_ino:
            # Removed and made again by others since we knew it: its own name may not be safe yet.
            self.forget(path)
            while path != self._root_text:
                path = os.path.dirname(path)
                with contextlib.suppress(FileNotFoundError):
                    sync_directory(Path(path))

    def settle_path(self, path: str) -> None:
        """The same of a directory that is not open."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # our file was removed, and the directory after it: there is no name left to keep
        try:
            self.settle(path, fd)
        finally:
            os.close(fd)

    def prune(self, path: str) -> None:
        """Removes a directory of the tree if it is empty, and those above it; makes what was removed stay so."""
        while path != self._root_text:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                break
            self.forget(path)
            path = os.path.dirname(path)
        with contextlib.suppress(FileNotFoundError):
            sync_directory(Path(path))


class _Lock:
    """What `Workroom.lock` gives."""

    def __init__(self, path: str, root: Path) -> None:
        self._path, self._root = path, root
        self._fd = -1

    def __enter__(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise gone(self._root) from None
        try:
            # A lock per open file, not per process: threads keep each other out too.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(self._fd)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            # By name, for a child forked meanwhile has the same open file and does not close it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            os.close(self._fd)


def make_all(path: Path) -> None:
    """Makes a directory and those above it that are missing, for the owner alone, to survive a power cut."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_directory(each.parent)


def gone(root: Path) -> StorageUnavailable:
    """The error of a store whose directory went away: a disk was taken off, or somebody removed it."""
    return StorageUnavailable(f"the directory {root} of this store is not there any more", hint="is its disk mounted?")


class Told:
    """Says in our words what the system says in its own; a context that may be entered again.

    Args:
        where: the store's directory.
        what: the object's key.
    """

    def __init__(self, where: Path, what: str = "") -> None:
        self._where, self._what = where, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise failure(self._where, self._what, error) from error


def failure(where: Path, what: str, error: OSError) -> StorageError:
    """The error of ours for one of the system's."""
    why = f"{what or 'object store'} in {where}: {error.strerror or error}"
    if error.errno in NO_ROOM:
        return StorageFull(why, hint="free space on this disk; reads go on")
    if error.errno in _DENIED:
        return StorageDenied(why, hint=f"this process may not write or read there: {error.filename}")
    if error.errno == errno.EXDEV:
        return StorageError(why, hint=f"all of {where} must be on one file system")
    return StorageError(why)
