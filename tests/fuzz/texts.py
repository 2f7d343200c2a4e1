"""What goes from hand to hand as text, and what people type."""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.client.handover import History, open_history
from chatchain.client.links import join_link, parse_join_link
from chatchain.crypto import card, linking, phrase, safety
from chatchain.crypto.attachments import Sealer
from chatchain.errors import BadRecord, MalformedName, MalformedUid, TooLarge, Undecryptable, UsageError
from chatchain.identity import keys, names
from chatchain.identity.admission import Invitation, parse_invitation
from tests.crypto.test_linking import ADMITTED, EPHEMERAL, REQUEST, answering
from tests.fuzz.target import cases, target, texts
from tests.identity.people import NETWORK, person

ADA, BOB = person("ada").user, person("bob").user
ANSWER: Final = answering()
INVITATION: Final = Invitation(ADA.uid, bytes(16), 1_700_000_000, bytes(range(65))).text()
LINK: Final = "chatchain://join?rpc=http://127.0.0.1:8545&chain=31337&directory=0x" + "d1" * 20


@target(BadRecord, seeds=[REQUEST.encode().encode(), *texts("link.json", "request")])
def link_request(data: bytes) -> None:
    """What a person brings from a new device."""
    text = data.decode("latin-1")
    parsed = linking.decode_request(text)
    assert parsed.encode() == "".join(text.split())
    linking.code(parsed)
    linking.verify_request(parsed, NETWORK, ADMITTED.user)


@target(BadRecord, seeds=[ANSWER.encode().encode(), *texts("link.json", "answer")])
def link_answer(data: bytes) -> None:
    """What a person brings back: nothing but the right answer opens."""
    text = data.decode("latin-1")
    parsed = linking.decode_answer(text)
    assert parsed.encode() == "".join(text.split())
    linking.open_answer(parsed, REQUEST, EPHEMERAL, NETWORK, ADMITTED.user)
    assert parsed == ANSWER


@target(Undecryptable, TooLarge, seeds=[msgspec.msgpack.encode(History(1, (), (), ()))])
def link_history(data: bytes) -> None:
    """What an old device hands over of the past."""
    sealer = Sealer(len(data))
    blob = sealer.update(data)
    end, file = sealer.finish()
    assert open_history(file, blob + end).format == 1


@target(BadRecord, seeds=texts("card.json", "card"))
def contact_card(data: bytes) -> None:
    """A card: whatever parses has one spelling, and only Ada's own is hers."""
    text = data.decode("latin-1")
    parsed = card.decode_card(text)
    assert card.encode_card(parsed) == "".join(text.split())
    card.verify_card(parsed, NETWORK, ADA)


@target(UsageError, seeds=[LINK.encode(), f"{LINK}&invitation={INVITATION}".encode()])
def join(data: bytes) -> None:
    """A link to a network."""
    parsed = parse_join_link(data.decode(errors="replace"))
    assert parse_join_link(join_link(parsed)) == parsed


@target(UsageError, seeds=[INVITATION.encode()])
def invitation(data: bytes) -> None:
    """A member's word for a newcomer."""
    text = data.decode("latin-1")
    assert parse_invitation(text).text() == "".join(text.split())


@target(BadRecord, seeds=[safety.qr_text(BOB, ADA).encode(), safety.qr_text(ADA, BOB).encode()])
def safety_code(data: bytes) -> None:
    """What a camera read: one text for one code, and only that of the two accounts matches."""
    text = data.decode("latin-1")
    matches = safety.qr_matches(safety.read_qr(text), ADA, BOB)
    assert matches == ("".join(text.split()) == safety.qr_text(BOB, ADA))


@target(UsageError, seeds=texts("phrase.json", "phrase"))
def recovery_phrase(data: bytes) -> None:
    """What somebody typed off a sheet of paper."""
    words = phrase.normalise_phrase(data.decode("latin-1"))
    entropy = phrase.entropy_of(words)
    assert phrase.phrase_of(entropy) == words


@target(MalformedName, seeds=[case["typed"].encode() for case in cases("names.json")])
def username(data: bytes) -> None:
    """A name that somebody typed or a chain holds."""
    name = names.normalise_username(data.decode(errors="replace"))
    assert names.normalise_username(name) == name


@target(MalformedUid, seeds=[names.uid_text(ADA.uid).encode()])
def uid(data: bytes) -> None:
    """An id that somebody typed."""
    text = data.decode(errors="replace")
    assert names.uid_text(names.uid_from_text(text)) == text.strip().replace(" ", "")


@target(UsageError, seeds=[keys.to_checksum(ADA.account).encode()])
def address(data: bytes) -> None:
    """An address that somebody typed."""
    text = data.decode(errors="replace")
    assert keys.to_checksum(keys.parse_address(text)).lower() == text.lower()
