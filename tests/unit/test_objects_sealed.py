"""Sealed objects: the form is frozen, nothing that was changed is data, and a rotation writes no object again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.errors import ObjectCorrupt, ObjectNotFound, StorageDenied, StorageRefused, StorageUnavailable
from holdfast.objects import MemoryStore
from holdfast.objects.layers import Layer, Sealed
from holdfast.objects.layers.sealed import RESERVED
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, Source
from holdfast.seal import KeyRing
from holdfast.seal.envelope import CHUNK, FULL, HEADER, DataKey, Sealer, new_header, plain_size, sealed_size, wrap

K1, K2, K3 = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
RING = KeyRing({"k1": K1})
TWO = bytes(range(251)) * 1100  # two chunks
GOLDEN = (
    "68667365616c0001000000126b31000000000000000000000000000000000000000000000000000000000000646566676869"
    "6a6b6c6d6e6f70717273c8c9cacbcccdcecfd0d1d2d387eff9421c5767bdeaa3bf1fbca54fb146204401aec0048943068b50"
    "68221f5cb07edf1290304bab22cd7ee8e37d2e4c000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d"
    "1e1f397c8bcc2ac54c89935520e1fcd43bbe2dcda625481689b9493046d174421043c18f25a1e8"
)
GOLDEN_LONG = "007451496cad2e5aa10fcae204bbef6b78d42df55baf582393450e31d84490e7"


class Counting(MemoryStore):
    """Counts the bytes that are put."""

    written = 0
    puts = 0

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        info = super().put(key, data, content_type=content_type, metadata=metadata, expect=expect)
        self.written += info.size
        self.puts += 1
        return info


def words(*each: str) -> bytes:
    """A binding, as additional data has it."""
    return b"".join(len(word.encode()).to_bytes(4, "big") + word.encode() for word in each)


def golden(plain: bytes) -> bytes:
    """What version 1 makes of this with nothing left to chance."""
    data = DataKey(bytes(range(100, 116)), bytes(range(150, 182)))
    header = new_header(wrap(data, RING, nonce=bytes(range(200, 212))), salt=bytes(range(32)))
    binding = ("ctx", "a/grüße", "text/plain", "who", "ada")
    return b"".join(Sealer(data, header, binding).seal((plain,)))


def by_the_book(sealed: bytes, key: bytes, binding: bytes) -> bytes:
    """The same form, read by another hand: from the words of the record, with another library's HKDF."""
    assert sealed[:12] == b"hfseal\x00\x01" + bytes([0, 0, 0, 18])
    assert hashlib.sha256(sealed[:152]).digest()[:8] == sealed[152:160]
    data_key = AESGCM(key).decrypt(sealed[60:72], sealed[72:120], sealed[:60])
    made = HKDF(SHA256(), 39, salt=sealed[120:152], info=b"hf/seal/1\x00").derive(data_key)
    aad = hashlib.sha256(b"hf/seal/aad/1\x00" + sealed[:160] + binding).digest()
    chunks = [sealed[at : at + 262_144 + 16] for at in range(160, len(sealed), 262_144 + 16)]
    plain = b""
    for number, chunk in enumerate(chunks):
        nonce = made[32:] + number.to_bytes(4, "big") + bytes([number == len(chunks) - 1])
        plain += AESGCM(made[:32]).decrypt(nonce, chunk, aad)
    return plain


def test_version_1_is_what_it_was() -> None:
    assert golden(b"the only copy").hex() == GOLDEN
    assert hashlib.sha256(golden(TWO)).hexdigest() == GOLDEN_LONG


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
def test_another_implementation_reads_it(size: int) -> None:
    below = MemoryStore()
    plain = os.urandom(size)
    with Sealed(below, RING, context="mine") as store:
        store.put("a/b", iter([plain[:5], plain[5:]]), content_type="x/y", metadata={"B": "2", "a": "1"})
        bound = words("mine", "a/b", "x/y", "a", "1", "b", "2")
        raw = below.read("a/b")
        assert by_the_book(raw, K1, bound) == plain
        assert len(raw) == sealed_size(size)
        assert plain_size(len(raw)) == size == store.head("a/b").size
    assert by_the_book(golden(plain), K1, words("ctx", "a/grüße", "text/plain", "who", "ada")) == plain


def test_sizes_that_no_sealed_object_has() -> None:
    assert [plain_size(size) for size in (0, HEADER, HEADER + 15, HEADER + FULL + 1, HEADER + FULL + 16)] == [None] * 5
    assert all(plain_size(sealed_size(size)) == size for size in range(2 * CHUNK - 20, 2 * CHUNK + 20))


def test_nothing_of_it_is_readable_and_no_two_are_alike() -> None:
    below = MemoryStore()
    store = Sealed(below, RING)
    store.put("a", b"secret " * 100)
    first = below.read("a")
    store.put("a", b"secret " * 100)
    assert b"secret" not in first
    assert first[160:] != below.read("a")[160:]


def tampered(change: Callable[[bytes], bytes], plain: bytes = b"the only copy") -> Sealed:
    """A store whose one object was changed below."""
    below = MemoryStore()
    store = Sealed(below, RING)
    store.put("one", plain)
    below.put("one", change(below.read("one")))
    return store


def corrupt(store: Sealed, key: str = "one", start: int = 0, stop: int | None = None) -> str:
    """What it says, having given nothing that was not sealed there."""
    with pytest.raises(ObjectCorrupt) as caught:
        store.read(key, start=start, stop=stop)
    assert key in str(caught.value)
    return str(caught.value)


def test_a_flipped_bit_anywhere_is_found() -> None:
    size = sealed_size(len(b"the only copy"))
    for at in range(size):
        corrupt(tampered(lambda raw, at=at: raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]))  # type: ignore[misc]


def test_a_flipped_bit_is_found_in_the_chunk_that_is_read() -> None:
    at = HEADER + FULL + 100
    store = tampered(lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], TWO)
    assert store.read("one", stop=CHUNK) == TWO[:CHUNK]
    corrupt(store)
    corrupt(store, start=CHUNK + 5, stop=CHUNK + 6)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: HEADER + FULL],
        lambda raw: raw[:HEADER],
        lambda raw: raw[:50],
        lambda raw: b"",
        lambda raw: raw + b"x",
        lambda raw: raw + raw[HEADER : HEADER + FULL],
        lambda raw: raw[:HEADER] + raw[HEADER + FULL :],
        lambda raw: raw[:HEADER] + raw[HEADER + FULL :] + raw[HEADER : HEADER + FULL],
        lambda raw: b"something else that is as long as a sealed object is " * 10,
    ],
)
def test_cut_longer_and_reordered_objects_are_found(change: Callable[[bytes], bytes]) -> None:
    corrupt(tampered(change, TWO))


@pytest.mark.parametrize("given", [HEADER + FULL, HEADER + FULL + 40, HEADER])
def test_a_store_that_gives_less_than_it_says_is_found_out(given: int) -> None:
    class Short(Layer):
        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            content = super().get(key, start=start, stop=stop)
            return Content(content.info, (content.read()[:given],))

    store = Sealed(Short(MemoryStore()), RING)
    store.put("one", TWO)
    corrupt(store)


def test_a_store_that_gives_more_than_was_asked_for_is_found_out() -> None:
    class Long(Layer):
        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            return super().get(key, start=start)

    store = Sealed(Long(MemoryStore()), RING)
    store.put("one", TWO)
    assert "behind" in corrupt(store, stop=5)


def test_an_object_cannot_be_passed_off_as_another() -> None:
    below = MemoryStore()
    with Sealed(below, RING, context="a") as store:
        store.put("one", b"1", metadata={"a": "1"})
        store.put("two", b"2", metadata={"a": "1"})
        one, two = below.read("one"), below.read("two")
        below.put("one", two, metadata={"a": "1"})
        corrupt(store)
        below.put("one", one, metadata={"a": "2"})
        corrupt(store)
        below.put("one", one, metadata={"a": "1"}, content_type="text/html")
        corrupt(store)
        below.put("one", one, metadata={"a": "1"})
        assert store.read("one") == b"1"
        corrupt(Sealed(below, RING, context="b"))


def test_a_key_that_is_not_in_the_ring_is_named() -> None:
    below = MemoryStore()
    Sealed(below, RING).put("one", b"1")
    for ring in (KeyRing({"k2": K2}), KeyRing({"k1": K2})):
        with pytest.raises(StorageDenied, match="'k1'") as caught:
            Sealed(below, ring).read("one")
        assert caught.value.context["key_id"] == "k1"
        assert "one" in str(caught.value)


def test_rotation_rewraps_and_writes_no_object() -> None:
    below = Counting()
    bodies = {f"n/{number}": os.urandom(CHUNK // 2) for number in range(6)}
    for key, body in bodies.items():
        if key in ("n/0", "n/3"):
            store = Sealed(below, RING)  # two processes: two data keys
        store.put(key, body)
    raw = {key: below.read(key) for key in bodies}
    both = RING.with_primary("k2", K2)
    assert both.ids == ("k2", "k1")
    mixed = Sealed(below, both)
    mixed.put("n/new", b"of the new key")
    below.written = below.puts = 0
    done = mixed.rotate()
    assert (done.objects, done.rewrapped, done.foreign) == (7, 2, 0)
    assert (below.written, below.puts) == (2 * 128, 2)
    assert mixed.rotate().rewrapped == 0, "a second time there is nothing to do"
    assert {key: below.read(key) for key in bodies} == raw
    for ring in (RING.with_primary("k2", K2), both.without("k1")):
        after = Sealed(below, ring)
        assert {key: after.read(key) for key in bodies} == bodies
        assert [info.key for info in after.list()] == [*sorted(bodies), "n/new"]
    assert {key: Sealed(below, RING).read(key) for key in bodies} == bodies, "the old ring still reads the old ones"
    with pytest.raises(StorageDenied, match="'k2'"):
        Sealed(below, RING).read("n/new")
    # And once more, from a ring that the objects' own headers know nothing of.
    third = both.without("k1").with_primary("k3", K3)
    assert Sealed(below, third).rotate().rewrapped == 3
    last = Sealed(below, third.without("k2"))
    assert {key: last.read(key) for key in bodies} == bodies
    assert last.read("n/new") == b"of the new key"


def test_a_rewrapped_key_is_of_the_form_of_the_record() -> None:
    below = MemoryStore()
    Sealed(below, RING).put("one", b"1")
    Sealed(below, RING.with_primary("k2", K2)).rotate()
    header = below.read("one")
    raw = below.read(".holdfast-sealed/" + header[44:60].hex())
    assert raw[:12] + raw[44:60] == header[:12] + header[44:60]
    assert (raw[12:44].rstrip(b"\x00"), raw[120:]) == (b"k2", hashlib.sha256(raw[:120]).digest()[:8])
    opened = [AESGCM(key).decrypt(each[60:72], each[72:120], each[:60]) for key, each in ((K1, header), (K2, raw))]
    assert opened[0] == opened[1]


def test_a_rotation_that_broke_off_goes_on() -> None:
    class Breaking(Counting):
        def put(self, key: str, data: Source, **more: object) -> ObjectInfo:  # type: ignore[override]
            if key.startswith(RESERVED) and self.puts == 4:
                raise StorageUnavailable("gone")
            return super().put(key, data, **more)  # type: ignore[arg-type]

    below = Breaking()
    for number in range(3):
        Sealed(below, RING).put(str(number), b"body")
    store = Sealed(below, RING.with_primary("k2", K2))
    with pytest.raises(StorageUnavailable):
        store.rotate()
    assert [Sealed(below, RING.with_primary("k2", K2)).read(str(number)) for number in range(3)] == [b"body"] * 3
    below.puts += 1
    assert store.rotate().rewrapped == 2
    assert [Sealed(below, KeyRing({"k2": K2})).read(str(number)) for number in range(3)] == [b"body"] * 3


def test_a_damaged_rewrapped_key_is_no_key() -> None:
    below = MemoryStore()
    Sealed(below, RING).put("one", b"1")
    Sealed(below, RING.with_primary("k2", K2)).rotate()
    (info,) = below.list(RESERVED)
    raw = below.read(info.key)
    for at in range(len(raw)):
        below.put(info.key, raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        corrupt(Sealed(below, KeyRing({"k2": K2})))


def test_rewrapped_keys_are_proven_and_of_their_objects() -> None:
    class Forgetful(MemoryStore):
        def put(self, key: str, data: Source, **more: object) -> ObjectInfo:  # type: ignore[override]
            info = super().put(key, data, **more)  # type: ignore[arg-type]
            if key.startswith(RESERVED) and self.forgets:
                self.delete(key)
            return info

        forgets = True

    below = Forgetful()
    for key in ("one", "two"):
        Sealed(below, RING).put(key, b"1")
    store = Sealed(below, RING.with_primary("k2", K2))
    with pytest.raises(ObjectCorrupt, match="reads back"):
        store.rotate()
    below.forgets = False
    assert store.rotate().rewrapped == 2
    first, other = below.list(RESERVED)
    below.put(first.key, below.read(other.key))
    below.put(other.key, below.read(other.key))
    after = Sealed(below, KeyRing({"k2": K2}))
    wrong = []
    for key in ("one", "two"):
        try:
            assert after.read(key) == b"1"
        except ObjectCorrupt as error:
            wrong.append(str(error))
    assert len(wrong) == 1
    assert "is another one" in wrong[0]


def test_the_layers_own_objects_are_nobodys() -> None:
    below = MemoryStore()
    store = Sealed(below, RING)
    for key in ("-", ".holdfast-sealed", ".holdfast-sealed0", "z"):
        store.put(key, b"1")
    store.rotate()
    Sealed(below, RING.with_primary("k2", K2)).rotate()
    assert [info.key for info in below.list(RESERVED)]
    everything = ["-", ".holdfast-sealed", ".holdfast-sealed0", "z"]
    assert [info.key for info in store.list()] == everything
    for limit in range(5):
        assert [info.key for info in store.list(limit=limit)] == everything[:limit]
    assert [info.key for info in store.list(".", after=".holdfast-sealed")] == [".holdfast-sealed0"]
    assert list(store.list(RESERVED)) == []
    for call in (store.read, store.head, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(StorageRefused, match="this layer's"):
            call(RESERVED + "x")


def test_a_range_reads_only_its_chunks_and_of_one_object() -> None:
    class Between(Layer):
        asked = 0
        then: Callable[[], object] | None = None

        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            content = super().get(key, start=start, stop=stop)
            body = content.read()
            self.asked += len(body)
            if self.then is not None:
                then, self.then = self.then, None
                then()
            return Content(content.info, (body,))

    below = Between(MemoryStore())
    store = Sealed(below, RING)
    body = os.urandom(5 * CHUNK)
    store.put("one", body)
    assert store.read("one", start=3 * CHUNK + 9, stop=3 * CHUNK + 12) == body[3 * CHUNK + 9 : 3 * CHUNK + 12]
    assert below.asked <= HEADER + FULL
    other = os.urandom(5 * CHUNK)
    below.then = lambda: store.put("one", other)  # between the header's request and the chunks'
    assert store.read("one", start=4 * CHUNK) == other[4 * CHUNK :]
    below.then = lambda: store.delete("one")
    with pytest.raises(ObjectNotFound):
        store.read("one", start=4 * CHUNK)


def test_fernet_is_read_when_asked_and_never_written() -> None:
    below = MemoryStore()
    old, older, foreign = (Fernet.generate_key() for _ in range(3))
    below.put("new", Fernet(old).encrypt(b"first"), metadata={"a": "1"})
    below.put("old", Fernet(older).encrypt(b"second" * 90_000))
    below.put("other", Fernet(foreign).encrypt(b"third"))
    plain = Sealed(below, RING)
    corrupt(plain, "new")
    store = Sealed(below, KeyRing({"k1": K1}, fernet=[old, older.decode()]))
    assert (store.read("new"), store.head("new").size, store.head("new").metadata) == (b"first", 5, {"a": "1"})
    assert store.read("old", start=300_000, stop=300_009) == (b"second" * 90_000)[300_000:300_009]
    with pytest.raises(StorageDenied, match="Fernet"):
        store.read("other")
    below.delete("other")
    store.put("sealed", b"gAAAAno token")
    assert store.read("sealed") == b"gAAAAno token"
    assert {info.key: info.size for info in store.list()} == {"new": 5, "old": 540_000, "sealed": 13}
    store.put("new", store.read("new"))
    assert Sealed(below, RING).read("new") == b"first"
    assert store.rotate().foreign == 1


def test_a_ring_is_kept_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    ring = KeyRing.generate("a").with_primary("b")
    ring.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    back = KeyRing.load(path)
    assert (back.ids, [back.key(each) for each in back.ids]) == (("b", "a"), [ring.key("b"), ring.key("a")])
    with pytest.raises(FileExistsError):
        ring.save(path)
    path.chmod(0o640)
    with pytest.raises(StorageDenied, match="others may read"):
        KeyRing.load(path)
    path.chmod(0o600)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for text in ("nonsense\n", "hf-key-1 a !!!\n", "hf-key-1 a QUJD\n", "# none\n", "", "".join(lines[:-1]), lines[-1]):
        path.write_text(text)
        with pytest.raises(StorageRefused):
            KeyRing.load(path)
    path.write_text("".join(lines[:2]) + lines[-1])
    with pytest.raises(StorageRefused, match="cut off"):
        KeyRing.load(path)
    path.write_text(whole)
    assert KeyRing.load(path).ids == ("b", "a")


def test_what_is_no_ring_is_refused_and_no_key_is_shown() -> None:
    for keys in ({}, {"k1": b"short"}, {"": K1}, {"k 1": K1}, {"x" * 33: K1}):
        with pytest.raises(StorageRefused) as caught:
            KeyRing(keys)
        assert "short" not in str(caught.value)
    with pytest.raises(StorageRefused):
        KeyRing({"k1": K1}, fernet=["short"])
    with pytest.raises(StorageRefused):
        RING.with_primary("k1", K2)
    for wrong in ("k1", "k9"):
        with pytest.raises(StorageRefused):
            RING.without(wrong)
    assert repr(RING) == "<KeyRing k1>"
    assert K1.hex() not in repr(vars(DataKey)) + repr(DataKey(b"id", K1))


def test_a_passphrase_makes_the_same_key_again() -> None:
    salt = b"0123456789abcdef"
    made = KeyRing.from_passphrase("correct horse", salt=salt)
    expected = hashlib.scrypt(b"correct horse", salt=salt, n=32768, r=8, p=1, maxmem=1 << 26, dklen=32)
    assert made.key("k1") == expected
    for phrase, grain in (("", salt), ("x", b"short")):
        with pytest.raises(StorageRefused):
            KeyRing.from_passphrase(phrase, salt=grain)
