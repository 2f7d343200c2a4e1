"""A relay process with real TLS, a real chain and each real database: what clients see of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import struct
import time
from collections.abc import Callable

import msgspec
import pytest

from chatchain import transport
from chatchain.chain.rpc import hexed
from chatchain.errors import NetworkError
from chatchain.identity.keys import address_of, new_secret
from chatchain.identity.record import RECORD_BYTES
from chatchain.model import Call, Copy
from chatchain.relay.sponsoring import GUESTS_AT_ONCE
from chatchain.transport import dial
from chatchain.wire.connection import frame
from chatchain.wire.messages import (
    Acknowledge,
    Done,
    Failed,
    FetchKeys,
    Goodbye,
    Keys,
    Login,
    Message,
    PublishKeys,
    Receive,
    Refused,
    Resumed,
    Sponsored,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)
from tests.relay.stage import PATIENCE, Account, Device, Stage

Someone = Callable[[], Account]


async def closing(*devices: Device) -> None:
    for device in devices:
        await device.close()


def rss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


# --- messages -----------------------------------------------------------------------------------------------


async def test_a_message_is_ticked_and_delivered(stage: Stage, someone: Someone) -> None:
    """The tick names the message, and the online recipient gets exactly what was sent."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    envelope = sender.envelope(bob, b"opaque bytes")
    assert await sender.submit(envelope) == Tick(envelope.id)
    (delivery,) = await recipient.receive(1)
    assert (delivery.id, delivery.body, delivery.header) == (envelope.id, b"opaque bytes", b"header")
    assert (delivery.sender, delivery.sender_device, delivery.recipient) == (ada.uid, 1, bob.uid)
    await closing(sender, recipient)


async def test_what_waits_is_counted_and_delivered_in_order(stage: Stage, someone: Someone) -> None:
    """Sent while the recipient was away, more than a window of it, and acknowledged once."""
    ada, bob = someone(), someone()
    sender = await Device(stage, ada).connect()
    count = 1200
    envelopes = [sender.envelope(bob, str(number).encode()) for number in range(count)]
    for envelope in envelopes:
        await sender.say(Submit(envelope))
    ticks = [await sender.expect(Tick) for _ in range(count)]
    assert [tick.id for tick in ticks] == [envelope.id for envelope in envelopes]
    recipient = await Device(stage, bob).begin()
    assert recipient.welcome is not None
    assert recipient.welcome.waiting == count
    delivered = await recipient.receive(count)
    assert [delivery.body for delivery in delivered] == [str(number).encode() for number in range(count)]
    assert len({delivery.sequence for delivery in delivered}) == count
    await recipient.say(FetchKeys(1, (bob.uid,)))  # answered after the acknowledgements were taken in
    await recipient.expect(Keys)
    await recipient.close()
    again = await Device(stage, bob).connect()
    assert again.welcome is not None
    assert again.welcome.waiting == 0
    await closing(sender, again)


async def test_what_was_not_acknowledged_comes_again(stage: Stage, someone: Someone) -> None:
    """On the next connection, until it is acknowledged, whatever `after` says."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    for number in range(3):
        await sender.send(bob, bytes([number]))
    first = await recipient.receive(3, acknowledge=False)
    await recipient.say(Acknowledge((first[1].sequence,)))
    await recipient.close()
    again = await Device(stage, bob).connect()
    await again.say(Receive(first[2].sequence))
    assert await again.receive(3, acknowledge=False) == first, "a gap keeps what comes after it"
    await again.say(Acknowledge((first[0].sequence, first[1].sequence)))
    assert isinstance(await again.send(ada), Tick), "committed, and the deletion with it"
    await again.close()
    last = await Device(stage, bob).begin()
    assert await last.receive(1) == first[2:]
    await closing(sender, last)


async def test_who_resumes_gets_the_rest_exactly(stage: Stage, someone: Someone) -> None:
    """Behind the last sequence that it has stored, though no acknowledgement came; the rest is deleted."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    space = (await recipient.resume(0, 0)).space
    for number in range(4):
        await sender.send(bob, bytes([number]))
    first = await recipient.receive(4, acknowledge=False)
    await recipient.close()
    for _ in range(2):
        again = await Device(stage, bob).connect()
        assert await again.resume(space, first[1].sequence) == Resumed(space, first[1].sequence)
        assert await again.receive(2, acknowledge=False) == first[2:]
        await again.close()
    assert isinstance(await sender.send(ada), Tick), "committed, and the deletion with it"
    whole = await Device(stage, bob).connect()
    assert await whole.resume(space ^ 1, first[3].sequence) == Resumed(space, 0), "of another space"
    assert await whole.receive(2) == first[2:], "what was stored is deleted"
    await closing(sender, whole)


async def test_a_relay_that_was_restarted_starts_from_the_start(stage: Stage, someone: Someone) -> None:
    """It cannot know that nobody has put an older database in place of the one that it left."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    space = (await recipient.resume(0, 0)).space
    await sender.send(bob)
    first = await recipient.receive(1, acknowledge=False)
    await closing(sender, recipient)
    stage.stop()
    stage.start()
    again = await Device(stage, bob).connect()
    resumed = await again.resume(space, first[0].sequence)
    assert (resumed.space != space, resumed.after) == (True, 0)
    assert await again.receive(1) == first
    await again.close()


async def test_a_replayed_message_is_stored_once(stage: Stage, someone: Someone) -> None:
    """The same envelope is ticked again and not delivered again, on another connection too."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    envelope = sender.envelope(bob)
    for _ in range(3):
        assert await sender.submit(envelope) == Tick(envelope.id)
    await sender.close()
    sender = await Device(stage, ada).connect()
    assert await sender.submit(envelope) == Tick(envelope.id)
    last = sender.envelope(bob, b"last")
    await sender.submit(last)
    assert [delivery.id for delivery in await recipient.receive(2)] == [envelope.id, last.id]
    await closing(sender, recipient)


async def test_an_id_is_not_used_for_two_messages(stage: Stage, someone: Someone) -> None:
    """Another content under a known id is refused; another sender may use the id."""
    ada, bob, eve = someone(), someone(), someone()
    sender = await Device(stage, ada).connect()
    envelope = sender.envelope(bob)
    await sender.submit(envelope)
    refusal = await sender.submit(msgspec.structs.replace(envelope, body=b"another"))
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.retry_after_ms) == ("id_reused", 0)
    other = await Device(stage, eve).connect()
    assert isinstance(await other.submit(other.envelope(bob, id=envelope.id)), Tick)
    await closing(sender, other)


async def test_a_message_to_oneself_arrives(stage: Stage, someone: Someone) -> None:
    """Sender and recipient may be one."""
    ada = someone()
    device = await Device(stage, ada).begin()
    await device.send(ada, b"note")
    (delivery,) = await device.receive(1)
    assert delivery.body == b"note"
    await device.close()


async def test_unknown_recipients_and_wrong_copies_are_refused(stage: Stage, someone: Someone) -> None:
    """One by one; what is right between them is taken, unless it overtakes what is to come again."""
    ada, bob, eve = someone(), someone(), someone()
    sender = await Device(stage, ada).connect()
    nobody = Account("nobody")
    nobody.uid = 123_456_789_012_345
    answers = [
        await sender.send(nobody),
        await sender.send(bob),
        await sender.send(bob, copies=(Copy(bob.uid, 1, b""), Copy(eve.uid, 1, b""))),
        await sender.send(bob, copies=(Copy(ada.uid, 1, b""),)),
        await sender.send(bob, recipient_version=9),
        await sender.submit(last := sender.envelope(bob)),
        await sender.submit(last),
    ]
    told = [answer.code if isinstance(answer, Refused) else type(answer).__name__ for answer in answers]
    later = ["relay_behind", "relay_behind", "Tick"]
    assert told == ["unknown_user", "Tick", "bad_copies", "StaleDevices", *later]
    await sender.close()


# --- devices ------------------------------------------------------------------------------------------------


def second_device(stage: Stage, account: Account) -> Account:
    """The same user on a device of its own."""
    other = Account(account.name, key=account.key, login_key=account.login_key, kdf=account.kdf)
    other.uid, other.device = account.uid, 2
    record = other.record(stage.world, device=2, uid=account.uid)
    stage.world.fund(account.address)
    stage.world.writer.send(stage.world.calls.add_device(address_of(other.signer), record), account.key)
    account.devices = other.devices = account.devices + 1
    return other


async def test_a_new_device_makes_old_lists_stale(stage: Stage, someone: Someone) -> None:
    """The relay names user, version and block; with every device covered each online one gets its copy."""
    ada, bob = someone(), someone()
    sender, first = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    await sender.send(bob)
    (delivery,) = await first.receive(1)
    phone = second_device(stage, bob)
    second = await Device(stage, phone).begin()
    stale = await sender.send(bob, recipient_version=1)
    assert isinstance(stale, StaleDevices)
    assert (stale.uid, stale.version) == (bob.uid, 2)
    assert stale.block == int(str(stage.world.rpc.call("eth_blockNumber")), 16)
    copies = (Copy(bob.uid, 1, b"to one"), Copy(bob.uid, 2, b"to two"))
    partial = await sender.send(bob, copies=copies[:1])
    assert isinstance(partial, StaleDevices)
    assert isinstance(await sender.send(bob, copies=copies, id=stale.id), Tick)
    assert (await first.receive(1))[0].header == b"to one"
    assert (await second.receive(1))[0].header == b"to two"
    own = await first.send(ada, copies=(Copy(ada.uid, 1, b"a"), Copy(bob.uid, 2, b"synced")))
    assert isinstance(own, Tick)
    assert (await second.receive(1))[0].header == b"synced"
    del delivery
    await closing(sender, first, second)


async def test_a_revoked_device_is_cut_off_and_its_mail_deleted(stage: Stage, someone: Someone) -> None:
    """While the user's other device goes on; and it cannot log in again."""
    ada, bob = someone(), someone()
    phone = second_device(stage, bob)
    sender, first = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    second = await Device(stage, phone).connect()
    copies = (Copy(bob.uid, 1, b"1"), Copy(bob.uid, 2, b"2"))
    await sender.send(bob, copies=copies)
    stage.world.writer.send(stage.world.calls.revoke_device(2), bob.key)
    goodbye = await second.expect(Goodbye)
    assert goodbye.code == "revoked"
    bob.devices += 1
    refused = Device(stage, phone)
    with pytest.raises(AssertionError, match="login_refused"):
        await refused.connect()
    assert isinstance(await sender.send(bob, copies=copies[:1]), Tick)
    assert [delivery.header for delivery in await first.receive(2)] == [b"1", b"1"]
    stale = await sender.send(bob, copies=copies, recipient_version=2)
    assert isinstance(stale, StaleDevices)
    await closing(sender, first, second, refused)


async def test_a_device_has_one_connection(stage: Stage, someone: Someone) -> None:
    """The newer one stays."""
    bob = someone()
    old = await Device(stage, bob).begin()
    new = await Device(stage, bob).begin()
    assert (await old.expect(Goodbye)).code == "replaced"
    assert isinstance(await new.send(bob), Tick)
    await closing(old, new)


# --- key bundles --------------------------------------------------------------------------------------------


async def test_published_keys_are_given_to_whoever_asks(stage: Stage, someone: Someone) -> None:
    """Those of active devices, and of nobody who published nothing."""
    ada, bob = someone(), someone()
    one, two = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    bundle = two.bundle()
    await two.say(PublishKeys(5, bundle))
    assert await two.next() == Done(5)
    await one.say(FetchKeys(6, (bob.uid, ada.uid)))
    assert await one.next() == Keys(6, (bundle,))
    await closing(one, two)


async def test_keys_that_do_not_fit_the_chain_are_not_kept(stage: Stage, someone: Someone) -> None:
    """Another's, another key, another version; the good one stays."""
    ada, bob = someone(), someone()
    one = await Device(stage, ada).connect()
    good = one.bundle()
    await one.say(PublishKeys(1, good))
    assert await one.next() == Done(1)
    for change, code in (
        ({"uid": bob.uid}, "refused"),
        ({"device": 2}, "refused"),
        ({"kem_public": bytes(1216)}, "bad_record"),
        ({"version": 2}, "bad_record"),
    ):
        await one.say(PublishKeys(2, one.bundle(**change)))
        failed = await one.expect(Failed)
        assert (failed.ref, failed.code) == (2, code)
    await one.say(FetchKeys(3, (ada.uid,)))
    assert await one.next() == Keys(3, (good,))
    await one.close()


# --- login --------------------------------------------------------------------------------------------------


async def refusal(device: Device, login: Login) -> Message:
    """What the relay says to a login on a new connection."""
    device.link = await dial(device.stage.relays)
    await device.say(login)
    said = await device.next()
    with pytest.raises(NetworkError):
        await device.next()
    await device.close()
    return said


async def test_a_replayed_login_is_refused(stage: Stage, someone: Someone) -> None:
    """The same bytes that logged in on one connection do nothing on another."""
    ada = someone()
    device = await Device(stage, ada).connect()
    assert device.link is not None
    bytes_of_login = device.proof()
    said = await refusal(Device(stage, ada), bytes_of_login)
    assert isinstance(said, Goodbye)
    assert said.code == "login_refused"
    assert isinstance(await device.send(ada), Tick)
    await device.close()


async def test_wrong_logins_are_answered_alike(stage: Stage, someone: Someone) -> None:
    """A wrong password, a wrong device key and an unknown user hear the same."""
    ada = someone()
    said = set()
    for change in ({"login_key": new_secret()}, {"signer": new_secret()}, {"uid": 123_456_789_012_345}):
        liar = Account(ada.name, key=ada.key, login_key=ada.login_key, signer=ada.signer, kdf=ada.kdf)
        liar.uid = ada.uid
        for name, value in change.items():
            setattr(liar, name, value)
        device = Device(stage, liar)
        device.link = await dial(stage.relays)
        await device.say(device.proof())
        said.add(await device.next())
        await device.close()
    assert len(said) == 1
    (goodbye,) = said
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code == "login_refused"


async def test_a_second_login_on_a_connection_is_a_violation(stage: Stage, someone: Someone) -> None:
    """Each nonce serves once."""
    ada = someone()
    device = await Device(stage, ada).connect()
    assert device.link is not None
    device.link._writer.write(frame(device.proof()))
    assert (await device.expect(Goodbye)).code == "protocol_violation"
    await device.close()


async def test_nothing_is_taken_before_login(stage: Stage, someone: Someone) -> None:
    """Messages, acknowledgements and keys of a stranger end the connection."""
    ada = someone()
    for message in (
        Submit(Device(stage, ada).envelope(ada)),
        Receive(0),
        Acknowledge((1,)),
        FetchKeys(1, (ada.uid,)),
    ):
        device = Device(stage, ada)
        device.link = await dial(stage.relays)
        device.link._writer.write(frame(message))
        assert (await device.expect(Goodbye)).code == "protocol_violation"
        await device.close()


# --- bad frames ---------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": b"\x00\x00\x00\x00",
    "negative": b"\x80\x00\x00\x00",
    "minus one": b"\xff\xff\xff\xff",
    "oversized": struct.pack(">I", 256 * 1024 + 1),
    "garbage": struct.pack(">I", 100) + secrets.token_bytes(100),
    "unknown tag": b"\x00\x00\x00\x03\x92\x63\x01",
    "relay's own": frame(Welcome(123_456_789_012_345, 0, 0)),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_bad_frames_end_one_connection_only(stage: Stage, someone: Someone, data: bytes) -> None:
    """Before and after login the sender is told and cut off; the relay lives, and the others notice
    nothing.
    """
    bob = someone()
    other = await Device(stage, bob).begin()
    stranger = Device(stage, bob)
    stranger.link = await dial(stage.relays)
    member = await Device(stage, someone()).connect()
    for device in (stranger, member):
        assert device.link is not None
        device.link._writer.write(data)
        assert (await device.expect(Goodbye)).code == "protocol_violation"
        with pytest.raises(NetworkError):
            await device.next()
        await device.close()
    assert isinstance(await other.send(bob), Tick)
    assert stage.process is not None
    assert stage.process.running
    await other.close()


async def test_truncated_frames_leave_nothing_behind(stage: Stage, someone: Someone) -> None:
    """A connection that ends within a frame stores nothing."""
    ada, bob = someone(), someone()
    sender = await Device(stage, ada).connect()
    assert sender.link is not None
    sender.link._writer.write(frame(Submit(sender.envelope(bob)))[:-1])
    await sender.link._writer.drain()
    sender.link._writer.transport.abort()
    recipient = await Device(stage, bob).begin()
    assert recipient.welcome is not None
    assert recipient.welcome.waiting == 0
    await recipient.close()


async def test_a_large_message_before_login_is_refused_by_its_length(stage: Stage) -> None:
    """4 KiB and a byte are announced, and that is enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, ssl=transport.client_context())
    writer.write(struct.pack(">I", 4097))
    async with asyncio.timeout(PATIENCE):
        said = await reader.read()
    assert b"protocol_violation" in said
    writer.close()


# --- load ---------------------------------------------------------------------------------------------------


async def test_a_stalled_reader_costs_the_relay_no_memory(stage: Stage, someone: Someone) -> None:
    """40 MB for somebody who reads nothing wait in the database, and arrive when they read again."""
    ada, bob = someone(), someone()
    sender, stalled = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    assert stalled.link is not None
    stalled.link._reader._transport.pause_reading()  # type: ignore[attr-defined]
    assert stage.process is not None
    before = rss_kib(stage.process.pid)
    body, count = os.urandom(150_000), 270
    for _ in range(count):
        assert isinstance(await sender.send(bob, body), Tick)
    assert rss_kib(stage.process.pid) - before < 16 * 1024
    stalled.link._reader._transport.resume_reading()  # type: ignore[attr-defined]
    received = await stalled.receive(count)
    assert all(delivery.body == body for delivery in received)
    await closing(sender, stalled)


async def test_a_flood_is_slowed_then_refused(stage: Stage, someone: Someone) -> None:
    """What an account may send at once is ticked, in order; beyond it the relay says how long to wait."""
    ada, bob = someone(), someone()
    sender = await Device(stage, ada).connect()
    envelopes = [sender.envelope(bob, bytes(4000)) for _ in range(5000)]

    async def pour() -> None:
        for envelope in envelopes:
            await sender.say(Submit(envelope))

    began = time.monotonic()
    pouring = asyncio.create_task(pour())
    told = [await sender.next() for _ in envelopes]
    await pouring
    passed = time.monotonic() - began
    ticks = [answer.id for answer in told if isinstance(answer, Tick)]
    refused = [answer for answer in told if isinstance(answer, Refused)]
    assert 2000 <= len(ticks) <= 2000 + 500 * passed
    assert len(ticks) + len(refused) == len(envelopes)
    assert ticks[:2000] == [envelope.id for envelope in envelopes[:2000]]
    assert {answer.code for answer in refused} == {"limit_reached"}
    assert all(answer.retry_after_ms > 0 for answer in refused)
    await sender.close()


# --- the sponsor --------------------------------------------------------------------------------------------


async def test_a_sponsored_newcomer_registers_and_logs_in_at_once(stage: Stage) -> None:
    """On one connection, without ether, before the relay's next look at the chain."""
    newcomer = Account(f"new{secrets.token_hex(4)}")
    device = Device(stage, newcomer)
    device.link = await dial(stage.relays)
    paid = await device.sponsor(newcomer.registration(stage.world), ref=7)
    assert isinstance(paid, Sponsored)
    assert paid.ref == 7
    stage.world.writer.wait(paid.tx_hash)
    stage.settle(newcomer)
    await device.say(device.proof())
    await device.expect(Welcome)
    assert isinstance(await device.send(newcomer), Tick)
    await device.close()


async def test_one_failing_call_spoils_no_other(stage: Stage, someone: Someone) -> None:
    """Names that are taken or malformed, bad signatures and garbage fail with their reason; the good ones
    between pass.
    """
    ada = someone()
    good = [Account(f"good{secrets.token_hex(4)}") for _ in range(3)]
    taken = Account(ada.name)
    bad = Account(f"bad{secrets.token_hex(4)}")
    spoilt = bad.registration(stage.world)
    calls = [
        good[0].registration(stage.world),
        taken.registration(stage.world),
        good[1].registration(stage.world),
        Call(spoilt.contract, spoilt.data[:-40] + bytes(40)),
        Call("identity", secrets.token_bytes(300)),
        Account("Not--a-name").registration(stage.world),
        good[2].registration(stage.world),
    ]
    device = Device(stage, ada)
    device.link = await dial(stage.relays)
    for ref, call in enumerate(calls):
        await device.say(device.request(call, ref))
    answers = [await device.next() for _ in calls]
    assert [answer.ref for answer in answers] == list(range(len(calls)))  # type: ignore[attr-defined]
    told = [answer.code if isinstance(answer, Failed) else "paid" for answer in answers]
    assert told[:3] == ["paid", "name_unavailable", "paid"]
    assert told[4:] == ["refused", "malformed_name", "paid"]
    assert told[3] != "paid"
    for account, answer in zip(good, (answers[0], answers[2], answers[6]), strict=True):
        assert isinstance(answer, Sponsored)
        stage.world.writer.wait(answer.tx_hash)
        stage.settle(account)
    await device.close()


async def test_the_sponsor_pays_for_nobody_else_s_signature(stage: Stage, someone: Someone) -> None:
    """A logged-in user cannot have another's vote sent."""
    ada, bob = someone(), someone()
    device = await Device(stage, ada).connect()
    failed = await device.sponsor(bob.vote(stage.world, 1, True))
    assert isinstance(failed, Failed)
    assert failed.code == "refused"
    unknown = await device.sponsor(ada.vote(stage.world, 999, True))
    assert isinstance(unknown, Failed)
    assert unknown.code in ("unknown_proposal", "not_a_member")
    await device.close()


async def test_f4_a_contract_is_not_registered_before_login(stage: Stage) -> None:
    """Its code would run on the node for whoever connects."""
    newcomer = Account(f"new{secrets.token_hex(4)}")
    code = "0x631626ba7e60e01b5f5260205ff3"  # accepts every signature
    stage.world.rpc.call("anvil_setCode", hexed(newcomer.address), code)
    device = Device(stage, newcomer)
    device.link = await dial(stage.relays)
    failed = await device.sponsor(newcomer.registration(stage.world))
    assert isinstance(failed, Failed)
    assert (failed.code, "contract" in failed.message) == ("refused", True)
    await device.close()


async def test_calldata_with_more_behind_it_is_not_paid_for(stage: Stage) -> None:
    """Bytes that say nothing would cost the sponsor gas."""
    newcomer = Account(f"new{secrets.token_hex(4)}")
    call = newcomer.registration(stage.world)
    device = Device(stage, newcomer)
    device.link = await dial(stage.relays)
    failed = await device.sponsor(Call(call.contract, call.data + b"\xff" * 2_000))
    assert isinstance(failed, Failed)
    assert failed.code == "refused"
    assert isinstance(await device.sponsor(call, ref=2), Sponsored)
    await device.close()


async def test_f4_strangers_of_one_address_are_paid_for_a_few_at_a_time(stage: Stage) -> None:
    """They do not keep the sponsor from everybody else."""
    people = [Account(f"new{secrets.token_hex(4)}") for _ in range(3 * GUESTS_AT_ONCE)]
    devices = [Device(stage, account) for account in people]
    calls = [account.registration(stage.world) for account in people]
    for device, link in zip(
        devices, await asyncio.gather(*(dial(stage.relays) for _ in people)), strict=True
    ):
        device.link = link
    requests = [device.request(call) for device, call in zip(devices, calls, strict=True)]
    stage.world.chain.process.pause()  # so that they meet, however slowly they come
    try:
        for device, request in zip(devices, requests, strict=True):
            await device.say(request)
        first = [asyncio.create_task(device.next()) for device in devices]
        while sum(task.done() for task in first) < 2 * GUESTS_AT_ONCE:
            await asyncio.wait([task for task in first if not task.done()], return_when="FIRST_COMPLETED")
    finally:
        stage.world.chain.process.resume()
    answers = await asyncio.gather(*first)
    refused = [answer for answer in answers if isinstance(answer, Failed)]
    assert len(refused) == 2 * GUESTS_AT_ONCE
    assert all(answer.code == "limit_reached" and answer.retry_after_ms > 0 for answer in refused)
    again = await devices[answers.index(refused[0])].sponsor(
        people[answers.index(refused[0])].registration(stage.world), ref=2
    )
    assert isinstance(again, Sponsored)
    for device in devices:
        await device.close()


# --- watching the relay -------------------------------------------------------------------------------------


def page(stage: Stage, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", stage.metrics_port, timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


async def test_health_and_metrics_are_shown(stage: Stage, someone: Someone) -> None:
    """A healthy relay says so, counts what it did, and names no one."""
    ada = someone()
    device = await Device(stage, ada).begin()
    await device.send(ada)
    await device.receive(1)
    status, text = await asyncio.to_thread(page, stage, "/health")
    assert status == 200
    state = json.loads(text)
    assert (state["ok"], state["database"], state["chain"]) == (True, True, True)
    status, text = await asyncio.to_thread(page, stage, "/metrics")
    assert status == 200
    assert "chatchain_messages_stored_total" in text
    assert str(ada.uid) not in text
    assert (await asyncio.to_thread(page, stage, "/"))[0] == 404
    await device.close()


def test_the_log_is_json_and_holds_no_secret(stage: Stage, someone: Someone) -> None:
    """One object a line, and no key of anybody in it."""
    ada = someone()
    lines = [
        line for line in stage.log.read_text().splitlines() if not line.startswith("Server is running on")
    ]
    assert len(lines) > 3
    for line in lines:
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()
    text = stage.log.read_text()
    for secret in (ada.key, ada.login_key, ada.signer, bytes.fromhex(stage.world.chain.keys[1][2:])):
        assert secret.hex() not in text


async def test_users_are_cached_in_the_database(stage: Stage, someone: Someone) -> None:
    """The table that operators look at holds the chain's users, with the verifier for a password."""
    from sqlalchemy import create_engine, text

    ada = someone()
    await closing(await Device(stage, ada).connect())
    engine = create_engine(stage.database)
    with engine.connect() as connection:
        query = text("SELECT uid, password, pub_key, update_time, block FROM users WHERE username = :name")
        row = connection.execute(query, {"name": ada.name}).one()
    engine.dispose()
    assert (row.uid, bytes(row.password)) == (ada.uid, ada.verifier)
    assert ada.kem_public not in bytes(row.pub_key)
    assert len(row.pub_key) == RECORD_BYTES
    assert row.update_time > 1_600_000_000


async def test_an_idle_relay_is_small(stage: Stage) -> None:
    """At most 150 MB resident, after everything that the tests above asked of it."""
    assert stage.process is not None
    assert rss_kib(stage.process.pid) <= 150_000
