"""Values to bytes and back: JSON, text or bytes; compressed when that pays; never pickled.

What is hashed is the serialised value *before* compression, so that a body may be recompressed anywhere and
still be checked. Every decompression in Holdfast goes through `inflate`, which stops at a cap: one-shot
decompressors believe the size a frame declares (32 KB became 1 GiB in our tests).
"""

from __future__ import annotations

import _thread
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from holdfast.errors import IntegrityError, UsageError

T = TypeVar("T")
JsonValue: TypeAlias = Any
"""None, bool, int, float, str, list or dict with text keys: what JSON can say."""

FMT_BYTES: Final = 0
FMT_TEXT: Final = 1
FMT_JSON: Final = 2

RAW: Final = 0
ZSTD: Final = 1
# Codec ids 16 and above are reserved for dictionaries: a trained one holds users' text, which an erasure could
# not reach, so none is used yet.

COMPRESS_MIN: Final = 512
"""Below this a frame costs 4–6 of a put's 35 µs and saves 16 to 40 %: 75 % of 2,000 real messages are shorter, and with
their rows and indexes all of them take 6 % more for it (bodies of 430 bytes on average instead of 387)."""
ZSTD_LEVEL: Final = 3
ZSTD_LEVEL_SHORT: Final = 1
SHORT_BYTES: Final = 16 << 10
"""Up to here level 1 packs real messages as small as level 3 does, in 9 µs for 2 KB instead of 13."""
INFLATE_BYTES_MAX: Final = 64 << 20
_WINDOW_MAX: Final = 1 << 23
_SLICE: Final = 1 << 10
_GUNZIP_BYTES: Final = 1 << 20

_BINARY = (bytes, bytearray, memoryview)
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode
_zstd: Any = None
_compressors: list[Any] = []  # of level 1, of level 3
_decompressor: Any = None
_ready: dict[int, Any] = {}
_lock = _thread.allocate_lock()
"""A zstd context must not be used by two threads at once (the library says so); ours are shared."""


def ready(kind: T) -> T:
    """The type itself, once msgspec has made out what it is: to be asked by whoever decodes into structs of structs.

    Two threads that are the first to use the same struct of structs kill the process (msgspec 0.22: the second one sees
    what the first has half made; our tests hit it). What is made here is made by one thread, and looked up by others.
    """
    try:
        known = hash(kind)
    except TypeError:  # a type with annotations in dicts: one of a module's own, which stays where it is
        known = id(kind)
    if known not in _ready:
        with _lock:
            msgspec.msgpack.Decoder(kind)
            _ready[known] = kind
    return kind


def serialise(value: JsonValue) -> tuple[int, bytes]:
    """The bytes that stand for `value` for ever, and their format.

    Args:
        value: bytes, text, or anything JSON can say.

    Returns:
        The format (`FMT_BYTES`, `FMT_TEXT` or `FMT_JSON`) and the bytes.

    Raises:
        UsageError: JSON cannot say it, or says something else (NaN, dates, sets, bytes within).
    """
    if isinstance(value, _BINARY):
        return FMT_BYTES, bytes(value)
    try:
        if isinstance(value, str):
            return FMT_TEXT, value.encode()
        data = _encode(value)
        # The encoder would write null for NaN, text for bytes and dates, a list for a set: what reads back is not what
        # was put. One decoding (2 % of a put) finds all of them, and whatever else it may learn to say.
        back = _decode(data)
        if back != value and not _alike(back, value):
            raise ValueError("it would not read back as it was put")
    except UnicodeEncodeError as error:
        raise UsageError("text holds half a surrogate pair", hint="store bytes instead") from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        hint = "store JSON values, text or bytes; NaN, dates, sets, objects and bytes within need a form of yours"
        raise UsageError(f"cannot store this {type(value).__name__}: {error}", hint=hint) from error
    return FMT_JSON, data


def _alike(back: Any, value: Any) -> bool:
    """Whether `value` reads back as `back`, with tuples as the lists that JSON has for them."""
    if isinstance(value, dict) and isinstance(back, dict):
        return value.keys() == back.keys() and all(_alike(back[key], each) for key, each in value.items())
    if isinstance(value, list | tuple) and isinstance(back, list):
        return len(value) == len(back) and all(map(_alike, back, value))
    return bool(back == value)


def deserialise(fmt: int, payload: bytes) -> JsonValue:
    """The value that `payload` stands for.

    Raises:
        UsageError: a format this version does not know, or bytes that are not of their format.
    """
    try:
        if fmt == FMT_JSON:
            return _decode(payload)
        if fmt == FMT_TEXT:
            return payload.decode()
        if fmt == FMT_BYTES:
            return payload
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"payload is not of format {fmt}: {error}") from error
    raise UsageError(f"unknown payload format {fmt}", hint="written by a newer Holdfast? update")


def pack(payload: bytes) -> tuple[int, bytes]:
    """What to store for `payload`: its codec and bytes, compressed only where that makes it smaller."""
    if len(payload) < COMPRESS_MIN:
        return RAW, payload
    compressors = _compressors or _make_compressors()
    with _lock:
        squeezed: bytes = compressors[len(payload) > SHORT_BYTES].compress(payload)
    return (ZSTD, squeezed) if len(squeezed) < len(payload) else (RAW, payload)


def _make_compressors() -> list[Any]:
    global _compressors
    make, levels = _library().ZstdCompressor, (ZSTD_LEVEL_SHORT, ZSTD_LEVEL)
    _compressors = [make(level=level, write_checksum=False, write_content_size=True) for level in levels]
    return _compressors


def unpack(codec: int, stored: bytes, payload_len: int) -> bytes:
    """The payload behind stored bytes; exactly `payload_len` bytes of it.

    Raises:
        IntegrityError: damaged bytes, or another length than was recorded.
        UsageError: an unknown codec.
    """
    if codec == RAW:
        payload = stored
    elif codec == ZSTD:
        if payload_len > INFLATE_BYTES_MAX:
            # The reader allocates what it is asked for, and the length comes from whoever wrote the header.
            raise IntegrityError(f"a compressed body of {payload_len} bytes; the most is {INFLATE_BYTES_MAX}")
        try:
            payload = _read_capped(stored, payload_len)
        except UsageError as error:
            raise IntegrityError(f"stored body: {error}") from error
    else:
        raise UsageError(f"unknown codec {codec}", hint="written by a newer Holdfast? update")
    if len(payload) != payload_len:
        raise IntegrityError(f"stored body holds {len(payload)} bytes, {payload_len} were recorded")
    return payload


def deflate(encoding: str, data: bytes) -> bytes:
    """`data` in an HTTP content coding: ``zstd``, ``gzip`` or ``identity``."""
    if encoding == "zstd":
        return bytes(_library().ZstdCompressor(level=1).compress(data))
    if encoding == "gzip":
        maker = zlib.compressobj(1, wbits=31)
        return maker.compress(data) + maker.flush()
    return data


def inflate(encoding: str, data: bytes, cap: int = INFLATE_BYTES_MAX) -> bytes:
    """The bytes behind an HTTP content coding, refused as soon as they exceed `cap` bytes.

    Args:
        encoding: ``zstd``, ``gzip``, ``identity`` or empty.
        data: the coded bytes.
        cap: the most bytes that may come out.

    Raises:
        UsageError: an unknown coding, damaged or cut bytes, or more than `cap`.
    """
    if encoding in ("", "identity"):
        if len(data) > cap:
            raise UsageError(f"body is {len(data)} bytes, the most is {cap}", limit=cap)
        return data
    if encoding == "gzip":
        return _gunzip(data, cap)
    if encoding == "zstd":
        return _unzstd(data, cap)
    raise UsageError(f"unknown content encoding {encoding!r}", hint="use zstd, gzip or identity")


def squeezed(pieces: Iterable[bytes], *, size: int = -1) -> Iterator[bytes]:
    """One zstd frame of all the pieces, with a checksum, as it is made.

    Args:
        pieces: what to compress.
        size: how many bytes they are, if that is known; it must be true.
    """
    maker = _library().ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj(size=size)
    for piece in pieces:
        if made := maker.compress(piece):
            yield made
    yield maker.flush()


def expanded(encoding: str, pieces: Iterable[bytes], cap: int) -> Iterator[bytes]:
    """The bytes behind an HTTP content coding, as they come; no more than 32 MiB of them are held at a time.

    Args:
        encoding: ``zstd`` (one frame) or ``gzip`` (one member or several).
        pieces: the coded bytes, of any lengths.
        cap: the most bytes that may come out.

    Raises:
        UsageError: damaged or cut bytes, bytes behind their end, or more than `cap`; what came before may be damaged.
    """
    left = cap
    for out in (_unzstd_pieces if encoding == "zstd" else _gunzip_pieces)(pieces):
        left -= len(out)
        if left < 0:
            raise _too_much(cap)
        yield out


def _unzstd_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    maker = _library().ZstdDecompressor(max_window_size=_WINDOW_MAX).decompressobj()
    try:
        for piece in pieces:
            # This object alone tells where a frame ends, but gives all that its input makes: a block of 4 bytes can
            # make 128 KiB, so it gets 1 KiB at a time.
            for at in range(0, len(piece), _SLICE):
                if maker.eof:
                    raise UsageError("damaged zstd body: bytes behind its end")
                if out := maker.decompress(piece[at : at + _SLICE]):
                    yield out
    except _zstd.ZstdError as error:
        raise UsageError(f"damaged zstd body: {error}") from error
    if not maker.eof or maker.unused_data:
        raise UsageError("damaged zstd body: cut short, or bytes behind its end")


def _gunzip_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    maker, fed = zlib.decompressobj(31), False
    try:
        for piece in pieces:
            held = piece
            while held:
                if maker.eof:
                    maker = zlib.decompressobj(31)
                fed = True
                if out := maker.decompress(held, _GUNZIP_BYTES):
                    yield out
                held = maker.unconsumed_tail or maker.unused_data
        while not maker.eof and (out := maker.decompress(b"", _GUNZIP_BYTES)):
            yield out
    except zlib.error as error:
        raise UsageError(f"damaged gzip body: {error}") from error
    if not fed or not maker.eof:
        raise UsageError("damaged gzip body: cut short")


def _too_much(cap: int) -> UsageError:
    return UsageError(f"body inflates to more than {cap} bytes", hint="send less at once", limit=cap)


def _gunzip(data: bytes, cap: int) -> bytes:
    maker = zlib.decompressobj(31)
    try:
        out = maker.decompress(data, cap + 1)
    except zlib.error as error:
        raise UsageError(f"damaged gzip body: {error}") from error
    if len(out) > cap:
        raise _too_much(cap)
    if not maker.eof or maker.unused_data:
        raise UsageError("damaged gzip body: cut short, or bytes behind its end")
    return out


def _unzstd(data: bytes, cap: int) -> bytes:
    library = _library()
    try:
        if 0 < library.frame_content_size(data) <= cap:
            # Makes room for what the frame declares, and refuses a frame that holds more or less, or bytes behind it.
            maker = library.ZstdDecompressor(max_window_size=_WINDOW_MAX)
            return bytes(maker.decompress(data, allow_extra_data=False))
    except library.ZstdError as error:
        raise UsageError(f"damaged zstd body: {error}") from error
    out = _read_capped(data, cap)
    # Only now, with the size known to be within the cap, is the whole-frame decoder allowed to look: it tells
    # a frame that was cut short, and bytes behind its end, which the stream reader passes over in silence.
    whole = library.ZstdDecompressor(max_window_size=_WINDOW_MAX).decompressobj()
    whole.decompress(data)
    if not whole.eof or whole.unused_data:
        raise UsageError("damaged zstd body: cut short, or bytes behind its end")
    return out


def _read_capped(data: bytes, cap: int) -> bytes:
    global _decompressor
    if _decompressor is None:
        _decompressor = _library().ZstdDecompressor(max_window_size=_WINDOW_MAX)
    with _lock:
        try:
            # The one-shot decoder makes room for what the frame declares: 3 µs less, where that is what may come.
            if 0 < _zstd.frame_content_size(data) <= cap:
                out: bytes = _decompressor.decompress(data)
            else:
                out = _decompressor.stream_reader(data).read(cap + 1)
        except _zstd.ZstdError as error:
            raise UsageError(f"damaged zstd body: {error}") from error
    if len(out) > cap:
        raise _too_much(cap)
    return out


def _after_fork() -> None:
    # Another thread of the parent may have held the lock, in the middle of a context: the child begins with new ones.
    global _lock, _compressors, _decompressor
    _lock, _compressors, _decompressor = _thread.allocate_lock(), [], None


os.register_at_fork(after_in_child=_after_fork)


def _library() -> Any:
    # Lazy: 7 ms of every command that never meets a body over 128 bytes.
    global _zstd
    if _zstd is None:
        import zstandard

        _zstd = zstandard
    return _zstd
