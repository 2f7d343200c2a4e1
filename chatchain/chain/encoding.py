"""The contract ABI for the types that the contracts use: words, bytes, strings, arrays and tuples of them.

Our own, because importing eth_abi takes a third of a second (it brings pydantic along), which a program
that sends one line would spend each time; the tests hold this against eth_abi. Decoding is strict: an
offset or length outside the data, or a word too wide for its type, is refused. Values: `int`, `bool`,
`bytes` (an address is 20 of them), `str`, and lists and tuples of these. Source: Solidity's "Contract ABI
Specification".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

WORD = 32


class Malformed(ValueError):
    """Bytes that are not an encoding of the types asked for."""


class _Codec(NamedTuple):
    """How one type is written and read; `size` is that of its head, for a dynamic type an offset."""

    dynamic: bool
    size: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, int], Any]


def encode(types: tuple[str, ...], values: Sequence[object]) -> bytes:
    """Encodes values as the arguments of a function or the result of `abi.encode`."""
    return _tuple(types).encode(values)


def decode(types: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    """Decodes arguments or results; raises Malformed."""
    result: tuple[Any, ...] = _tuple(types).decode(data, 0)
    return result


def _word(data: bytes, at: int) -> int:
    word = data[at : at + WORD]
    if len(word) != WORD:
        raise Malformed("the data ends early")
    return int.from_bytes(word, "big")


def _uint(bits: int) -> _Codec:
    limit = 1 << bits

    def write(value: int) -> bytes:
        if not 0 <= value < limit:
            raise Malformed(f"{value} does not fit in {bits} bits")
        return value.to_bytes(WORD, "big")

    def read(data: bytes, at: int) -> int:
        value = _word(data, at)
        if value >= limit:
            raise Malformed(f"a number is wider than {bits} bits")
        return value

    return _Codec(False, WORD, write, read)


def _write_bool(value: bool) -> bytes:
    return int(bool(value)).to_bytes(WORD, "big")


def _read_bool(data: bytes, at: int) -> bool:
    value = _word(data, at)
    if value > 1:
        raise Malformed("a truth value is neither 0 nor 1")
    return value == 1


def _write_address(value: bytes) -> bytes:
    if len(value) != 20:
        raise Malformed("an address has 20 bytes")
    return bytes(12) + value


def _read_address(data: bytes, at: int) -> bytes:
    word = data[at : at + WORD]
    if len(word) != WORD or any(word[:12]):
        raise Malformed("a word is not an address")
    return word[12:]


def _fixed(length: int) -> _Codec:
    def write(value: bytes) -> bytes:
        if len(value) != length:
            raise Malformed(f"{len(value)} bytes stand where {length} belong")
        return value.ljust(WORD, b"\0")

    def read(data: bytes, at: int) -> bytes:
        word = data[at : at + WORD]
        if len(word) != WORD or any(word[length:]):
            raise Malformed(f"a word is not {length} bytes")
        return word[:length]

    return _Codec(False, WORD, write, read)


def _write_bytes(value: bytes) -> bytes:
    return len(value).to_bytes(WORD, "big") + value + bytes(-len(value) % WORD)


def _read_bytes(data: bytes, at: int) -> bytes:
    start = at + WORD
    length = _word(data, at)
    value = data[start : start + length]
    if len(value) != length:
        raise Malformed("the data ends early")
    return value


def _write_string(value: str) -> bytes:
    return _write_bytes(value.encode())


def _read_string(data: bytes, at: int) -> str:
    try:
        return _read_bytes(data, at).decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not UTF-8") from None


def _array(item: str) -> _Codec:
    element = _codec(item)

    def write(values: Sequence[object]) -> bytes:
        return len(values).to_bytes(WORD, "big") + _tuple((item,) * len(values)).encode(values)

    def read(data: bytes, at: int) -> list[Any]:
        length = _word(data, at)
        if length * element.size > len(data) - at - WORD:
            raise Malformed("an array is longer than the data")
        return list(_tuple((item,) * length).decode(data, at + WORD))

    return _Codec(True, WORD, write, read)


@lru_cache(maxsize=256)
def _tuple(types: tuple[str, ...]) -> _Codec:
    codecs = [_codec(name) for name in types]
    head = sum(codec.size for codec in codecs)
    dynamic = any(codec.dynamic for codec in codecs)

    def write(values: Sequence[object]) -> bytes:
        if len(values) != len(codecs):
            raise Malformed(f"{len(values)} values stand where {len(codecs)} belong")
        heads, tails, offset = [], [], head
        for codec, value in zip(codecs, values, strict=True):
            written = codec.encode(value)
            if codec.dynamic:
                heads.append(offset.to_bytes(WORD, "big"))
                tails.append(written)
                offset += len(written)
            else:
                heads.append(written)
        return b"".join(heads + tails)

    def read(data: bytes, base: int) -> tuple[Any, ...]:
        values, at = [], base
        for codec in codecs:
            # Offsets count from where the enclosing tuple starts.
            values.append(codec.decode(data, base + _word(data, at) if codec.dynamic else at))
            at += codec.size
        return tuple(values)

    return _Codec(dynamic, WORD if dynamic else head, write, read)


@lru_cache(maxsize=256)
def _codec(name: str) -> _Codec:
    if name.endswith("[]"):
        return _array(name[:-2])
    if name.startswith("("):
        return _tuple(split_types(name[1:-1]))
    if name.startswith("uint"):
        return _uint(int(name[4:]))
    plain = {
        "bool": _Codec(False, WORD, _write_bool, _read_bool),
        "address": _Codec(False, WORD, _write_address, _read_address),
        "bytes": _Codec(True, WORD, _write_bytes, _read_bytes),
        "string": _Codec(True, WORD, _write_string, _read_string),
    }
    return plain[name] if name in plain else _fixed(int(name.removeprefix("bytes")))


def split_types(text: str) -> tuple[str, ...]:
    """Splits "uint64,(string,bytes32)[]" at the commas that stand outside brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return (*parts, text[start:]) if text else ()
