"""A fuzz target for every parser of bytes or text that somebody else wrote.

A target takes any bytes, and only the errors that its parser documents may come out of it; where a parser can
write what it read, the target holds both against each other. The same targets run in two ways:

    python -m tests.fuzz                    every target under atheris, FUZZ_SECONDS (20) each: `make fuzz`
    python -m tests.fuzz suite2.bundle …    one of them, with libFuzzer's options
    pytest tests/fuzz                       a few hundred alterations of each target's seeds, without atheris

Seeds are right inputs, made of fixed keys or read from the vectors; `found.json` keeps what once crashed.

Who writes what:

- a client or a relay: frames, batches of prekeys, calls to be paid for, login proofs (wire, relay)
- a proxy before a relay (wire.proxy), and whoever speaks on its bus (relay.woken)
- a peer, through the relay: bundles, handshakes, messages, group keys, content, files, the older suite
  (suite2, groups, content, files, envelopes)
- a person, by hand: links, cards, invitations, codes, phrases, names, RSA messages (texts, envelopes)
- an endpoint of the chain, or anybody on the chain: answers, logs, records, proposals, reasons (chain)
- a disk: sessions and prekeys, the vault, a keystore, a home's files (suite2, groups, homes)
"""
