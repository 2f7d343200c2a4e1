"""The reference tree is RFC 9162's, and ledger.json is what it gives."""

from __future__ import annotations

from tests.vectors import merkle

# Entries and roots known from the first implementations of Certificate Transparency.
KNOWN_ENTRIES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
KNOWN_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def test_the_reference_gives_roots_that_are_known() -> None:
    """Not only consistent with itself."""
    entries = [bytes.fromhex(entry) for entry in KNOWN_ENTRIES]
    for size, root in KNOWN_ROOTS.items():
        assert merkle.tree_hash(entries[:size]).hex() == root


def test_the_file_is_what_the_reference_gives() -> None:
    """Nobody edited it by hand."""
    assert merkle.FILE.read_text(encoding="utf-8") == merkle.render()


def test_every_name_is_given_once() -> None:
    """A failure names one case."""
    content = merkle.vectors()
    for kind in ("inclusion", "consistency"):
        names = [case["name"] for case in content[kind]]
        assert len(names) == len(set(names))
        assert {case["valid"] for case in content[kind]} == {True, False}
