"""The tree of RFC 9162 as its section 2.1 defines it, and the vectors of ledger.json.

Recursive like the definitions, and slow: the reference that the contract's and the package's own code are
held against. `python -m tests.vectors.merkle`, from the top, writes the file.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("ledger.json")
SIZES: Final = 21

Case = dict[str, Any]


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one leaf."""
    return sha256(b"\x00" + entry).digest()


def tree_hash(entries: list[bytes]) -> bytes:
    """MTH(D[n]), section 2.1.1."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return leaf_hash(entries[0])
    k = split(len(entries))
    return sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), section 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), tree_hash(entries[k:])]
    return [*path(m - k, entries[k:]), tree_hash(entries[:k])]


def proof(m: int, entries: list[bytes], known: bool = True) -> list[bytes]:
    """PROOF(m, D[n]) as SUBPROOF(m, D[n], true), section 2.1.4.1."""
    if m == len(entries):
        return [] if known else [tree_hash(entries)]
    k = split(len(entries))
    if m <= k:
        return [*proof(m, entries[:k], known), tree_hash(entries[k:])]
    return [*proof(m - k, entries[k:], False), tree_hash(entries[:k])]


def split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def flipped(digest: bytes) -> bytes:
    """The same hash with its last bit turned."""
    return digest[:-1] + bytes([digest[-1] ^ 1])


def inclusion(name: str, leaf: bytes, index: int, size: int, root: bytes, hashes: list[bytes]) -> Case:
    """A case that holds unless it is said otherwise."""
    return {
        "name": name,
        "leaf": hexed(leaf),
        "index": index,
        "size": size,
        "root": hexed(root),
        "proof": [hexed(one) for one in hashes],
        "valid": True,
    }


def consistency(name: str, first: int, root1: bytes, second: int, root2: bytes, hashes: list[bytes]) -> Case:
    """A case that holds unless it is said otherwise."""
    return {
        "name": name,
        "size1": first,
        "root1": hexed(root1),
        "size2": second,
        "root2": hexed(root2),
        "proof": [hexed(one) for one in hashes],
        "valid": True,
    }


def hexed(value: bytes) -> str:
    """With the prefix that forge wants."""
    return f"0x{value.hex()}"


def vectors() -> dict[str, Any]:
    """The whole content of ledger.json."""
    entries = [sha256(number.to_bytes(4, "big")).digest() for number in range(SIZES)]
    roots = [tree_hash(entries[:size]) for size in range(SIZES + 1)]
    return {
        "about": "Merkle trees of RFC 9162; entry i is SHA-256 of i in four bytes, big-endian",
        "roots": [hexed(root) for root in roots],
        "inclusion": inclusion_cases(entries, roots),
        "consistency": consistency_cases(entries, roots),
    }


def inclusion_cases(entries: list[bytes], roots: list[bytes]) -> list[Case]:
    """Leaves at both ends and in the middle of some trees, then attacks."""
    cases = []
    for size in (1, 2, 3, 4, 5, 7, 8, 13, 16, 21):
        for index in sorted({0, size // 2, size - 1}):
            hashes = path(index, entries[:size])
            leaf = leaf_hash(entries[index])
            cases.append(inclusion(f"leaf {index} of {size}", leaf, index, size, roots[size], hashes))
    leaf, hashes, root = leaf_hash(entries[4]), path(4, entries[:7]), roots[7]
    bad = [
        inclusion("another leaf", leaf_hash(entries[3]), 4, 7, root, hashes),
        inclusion("another index", leaf, 3, 7, root, hashes),
        inclusion("index beyond the tree", leaf, 7, 7, root, hashes),
        inclusion("index far beyond the tree", leaf, 2**64 - 1, 7, root, hashes),
        inclusion("an empty tree", leaf, 0, 0, roots[0], []),
        inclusion("root of another tree", leaf, 4, 7, roots[8], hashes),
        inclusion("a hash too few", leaf, 4, 7, root, hashes[:-1]),
        inclusion("a hash too many", leaf, 4, 7, root, [*hashes, hashes[0]]),
        inclusion("hashes swapped", leaf, 4, 7, root, hashes[::-1]),
        inclusion("a bit turned", leaf, 4, 7, root, [flipped(hashes[0]), *hashes[1:]]),
        inclusion("no proof", leaf, 4, 7, root, []),
        inclusion("a proof for the only leaf", leaf_hash(entries[0]), 0, 1, roots[1], [roots[1]]),
    ]
    return cases + [case | {"valid": False} for case in bad]


def consistency_cases(entries: list[bytes], roots: list[bytes]) -> list[Case]:
    """Pairs of trees of every shape, then attacks."""
    pairs = [(1, 2), (1, 8), (2, 5), (3, 4), (3, 7), (4, 7), (4, 8), (5, 6), (6, 7), (6, 8), (7, 8)]
    pairs += [(7, 21), (8, 9), (8, 16), (11, 13), (12, 21), (16, 17), (16, 21), (17, 21), (20, 21)]
    cases = [consistency(f"{m} in {n}", m, roots[m], n, roots[n], proof(m, entries[:n])) for m, n in pairs]
    cases += [
        consistency("a tree in itself", 7, roots[7], 7, roots[7], []),
        consistency("the empty tree in itself", 0, roots[0], 0, roots[0], []),
        consistency("the empty tree in another", 0, roots[0], 7, roots[7], []),
    ]
    hashes = proof(6, entries[:13])
    args = (6, roots[6], 13, roots[13])
    other = tree_hash([b"another first entry", *entries[1:6]])
    bad = [
        consistency("a hash too few", *args, hashes[:-1]),
        consistency("a hash too many", *args, [*hashes, hashes[0]]),
        consistency("no proof", *args, []),
        consistency("a bit turned", *args, [flipped(hashes[0]), *hashes[1:]]),
        consistency("the last bit turned", *args, [*hashes[:-1], flipped(hashes[-1])]),
        consistency("hashes swapped", *args, hashes[::-1]),
        consistency("a rewritten beginning", 6, other, 13, roots[13], hashes),
        consistency("root of another later tree", 6, roots[6], 13, roots[12], hashes),
        consistency("a rollback", 13, roots[13], 6, roots[6], hashes),
        consistency("a fork of equal size", 7, roots[7], 7, roots[8], []),
        consistency("a proof for equal trees", 7, roots[7], 7, roots[7], [roots[7]]),
        consistency("a wrong empty tree", 0, roots[1], 7, roots[7], []),
        consistency("a proof from the empty tree", 0, roots[0], 7, roots[7], [roots[7]]),
        consistency("a wrong full tree", 4, roots[5], 8, roots[8], proof(4, entries[:8])),
        consistency("a full tree with no proof", 4, roots[4], 8, roots[8], []),
        consistency("a full tree, a hash too many", 4, roots[4], 8, roots[8], [roots[4], roots[4]]),
    ]
    return cases + [case | {"valid": False} for case in bad]


def render() -> str:
    """The text of the file."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
