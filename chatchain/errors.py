"""The tree of failures, split first by whose hands hold the remedy.

    ChatchainError
    ├── UsageError            (2) what was typed cannot be meant
    │   ├── MalformedName, MalformedUid, AmbiguousName, MissingInput, BadText, BadFile, BadConfig
    ├── AuthenticationError   (3) who you say you are was not shown
    │   ├── WrongPassword, LoginRefused
    ├── NetworkError          (4) the relay, or the way to it
    │   ├── RelayUnreachable, CertificateMismatch, ProtocolViolation, RelayFailure, NoTick, StoreUnavailable
    ├── ChainError            (5) the chain, or an endpoint that speaks for it
    │   ├── ChainUnreachable, WrongChain, NoContract, EndpointsDisagree, FoldMismatch,
    │   │   Reverted, NoEther, TransactionPending,
    │   │   SponsorUnavailable
    ├── NotFoundError         (6) the thing named does not exist
    │   ├── UnknownUser, UnknownProposal, UnknownMessage, UnknownDevice, NoSuchFile, NoAccount
    ├── RefusedError          (7) understood, and not allowed
    │   ├── NameUnavailable, NotAMember, KeyChanged, TooLarge, LimitReached, AlreadyVoted,
    │   │   CommitmentNeeded, CommitmentPending, InvitationRefused, VotingClosed, HomeBusy, AlreadyDone,
    │   │   AccountKeyElsewhere
    └── VerificationError     (8) a proof or a signature that does not hold
        ├── ForgedMessage, Undecryptable, BadRecord, Replayed, MissingSenderKey, WrongEpoch

The number is the exit code of a program that ends with such an error. Every error carries a sentence for a
person (`message`), the next step (`hint`) and a stable word for programs (`code`).
"""

from __future__ import annotations

from typing import ClassVar


class ChatchainError(Exception):
    """Something failed in a way that a person can be told about."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return self.message


# --- 2: usage -------------------------------------------------------------------------------------------


class UsageError(ChatchainError):
    """The command, a flag or a value cannot be understood."""

    code = "usage"
    exit_code = 2


class MalformedName(UsageError):
    """A username breaks the rules of usernames."""

    code = "malformed_name"
    default_hint = (
        "A username has 3 to 32 characters: a-z, 0-9 and single hyphens; "
        "it starts with a letter and does not end with a hyphen."
    )


class MalformedUid(UsageError):
    """A 15-digit id has the wrong length or check digit."""

    code = "malformed_uid"
    default_hint = "Compare the 15 digits with the original; one digit is mistyped or two are swapped."


class AmbiguousName(UsageError):
    """A name stands for more than one thing."""

    code = "ambiguous_name"


class MissingInput(UsageError):
    """Something needed was not given and there is nobody to ask."""

    code = "missing_input"


class BadText(UsageError):
    """A message text is empty or is not text."""

    code = "bad_text"


class BadFile(UsageError):
    """A file cannot be sent (it is empty, unreadable, or no file), or not be written where it was wanted."""

    code = "bad_file"


class BadConfig(UsageError):
    """A setting is missing or malformed."""

    code = "bad_config"


# --- 3: authentication ----------------------------------------------------------------------------------


class AuthenticationError(ChatchainError):
    """Identity was claimed and not shown."""

    code = "authentication"
    exit_code = 3


class WrongPassword(AuthenticationError):
    """The password does not open this account."""

    code = "wrong_password"
    default_hint = "Check the keyboard layout and try again; nothing was changed."


class LoginRefused(AuthenticationError):
    """The relay did not accept the login proof."""

    code = "login_refused"


# --- 4: network and relay -------------------------------------------------------------------------------


class NetworkError(ChatchainError):
    """The relay, or the way to it, failed."""

    code = "network"
    exit_code = 4


class RelayUnreachable(NetworkError):
    """No relay of this network answers."""

    code = "relay_unreachable"
    default_hint = (
        "Check that the relay runs and that this machine reaches it; what you send meanwhile waits here."
    )


class CertificateMismatch(NetworkError):
    """The relay's certificate is not the one that the chain names."""

    code = "certificate_mismatch"
    default_hint = (
        "Do not go on: somebody may be standing in the middle. "
        "Ask the operator, over another channel, for the fingerprint."
    )


class ProtocolViolation(NetworkError):
    """The peer sent bytes that the protocol does not allow."""

    code = "protocol_violation"


class RelayFailure(NetworkError):
    """The relay answered that it cannot do this now."""

    code = "relay_failure"

    def __init__(self, message: str, hint: str = "", *, retry_after_ms: int = 0) -> None:
        super().__init__(message, hint)
        self.retry_after_ms = retry_after_ms


class NoTick(NetworkError):
    """The relay has not confirmed a message in time; it stays queued."""

    code = "no_tick"
    default_hint = "The message is kept; the next command that connects sends it."


class StoreUnavailable(NetworkError):
    """A database does not answer."""

    code = "store_unavailable"


# --- 5: chain -------------------------------------------------------------------------------------------


class ChainError(ChatchainError):
    """The chain, or an endpoint that speaks for it, failed."""

    code = "chain"
    exit_code = 5


class ChainUnreachable(ChainError):
    """No RPC endpoint answers."""

    code = "chain_unreachable"
    default_hint = "Check --rpc (RPC_URL) and that the chain's node runs."


class WrongChain(ChainError):
    """The endpoint serves another chain than the one this home belongs to."""

    code = "wrong_chain"


class NoContract(ChainError):
    """There is no chatchain contract at the address given."""

    code = "no_contract"
    default_hint = (
        "Check --directory (CONTRACT_ADDRESS) against the line that deploy.py or devnet.py printed."
    )


class EndpointsDisagree(ChainError):
    """Too few RPC endpoints tell the same story."""

    code = "endpoints_disagree"


class FoldMismatch(ChainError):
    """The events an endpoint served do not add up to the state that the contracts hold."""

    code = "fold_mismatch"


class Reverted(ChainError):
    """A contract refused the transaction for a reason that has no narrower class here."""

    code = "reverted"

    def __init__(
        self, message: str, hint: str = "", *, error: str = "", values: tuple[object, ...] = ()
    ) -> None:
        super().__init__(message, hint)
        self.error = error
        self.values = values


class SponsorUnavailable(ChainError):
    """The relay does not pay now, because of the chain's node and not because of who asks."""

    code = "sponsor_unavailable"
    default_hint = "Try again later, or put ether on the account and send it yourself."

    def __init__(self, message: str, hint: str = "", *, retry_after_ms: int = 0) -> None:
        super().__init__(message, hint)
        self.retry_after_ms = retry_after_ms


class NoEther(ChainError):
    """The account cannot pay for the transaction."""

    code = "no_ether"
    default_hint = "Send ether to the account, or let the relay's sponsor pay."


class TransactionPending(ChainError):
    """A transaction was sent and is not mined yet."""

    code = "transaction_pending"
    default_hint = "It may still be mined: before you repeat it, see later whether it has had its effect."


# --- 6: not found ---------------------------------------------------------------------------------------


class NotFoundError(ChatchainError):
    """The thing named does not exist."""

    code = "not_found"
    exit_code = 6


class UnknownUser(NotFoundError):
    """Nobody is registered under this name, id or address."""

    code = "unknown_user"


class UnknownProposal(NotFoundError):
    """There is no proposal with this number."""

    code = "unknown_proposal"


class UnknownMessage(NotFoundError):
    """There is no message with this id here."""

    code = "unknown_message"


class UnknownDevice(NotFoundError):
    """The user has no such device."""

    code = "unknown_device"


class NoSuchFile(NotFoundError):
    """There is no file where one was named, or not any more."""

    code = "no_such_file"


class NoAccount(NotFoundError):
    """There is no account in this home yet."""

    code = "no_account"
    default_hint = "Create one with `chatchain register NAME`."


# --- 7: refused -----------------------------------------------------------------------------------------


class RefusedError(ChatchainError):
    """The request was understood and is not allowed."""

    code = "refused"
    exit_code = 7


class NameUnavailable(RefusedError):
    """The username is taken or reserved."""

    code = "name_unavailable"
    default_hint = "Choose another name."


class NotAMember(RefusedError):
    """Only admitted members may do this."""

    code = "not_a_member"
    default_hint = "Ask to join with `chatchain request`; the members vote on it."


class KeyChanged(RefusedError):
    """A contact that you verified has other keys than then."""

    code = "key_changed"


class TooLarge(RefusedError):
    """The thing is larger than what is carried."""

    code = "too_large"


class LimitReached(RefusedError):
    """A rate, quota or spending limit is reached."""

    code = "limit_reached"

    def __init__(self, message: str, hint: str = "", *, retry_after_ms: int = 0) -> None:
        super().__init__(message, hint)
        self.retry_after_ms = retry_after_ms


class CommitmentNeeded(RefusedError):
    """A name is given only to whoever has committed to it in an earlier block."""

    code = "commitment_needed"


class InvitationRefused(RefusedError):
    """An invitation that is used, expired or nobody's."""

    code = "invitation_refused"
    default_hint = "Ask a member for another: `chatchain invite` makes one."


class CommitmentPending(LimitReached):
    """The sponsor has committed to a registration, and pays for it once that is mined."""

    code = "commitment_pending"


class AlreadyVoted(RefusedError):
    """A vote of this user on this proposal already counts."""

    code = "already_voted"


class VotingClosed(RefusedError):
    """The proposal takes no more votes."""

    code = "voting_closed"


class AlreadyDone(RefusedError):
    """What was asked for is already so."""

    code = "already_done"


class AccountKeyElsewhere(RefusedError):
    """This device was linked, so it does not hold the account's key."""

    code = "account_key_elsewhere"
    default_hint = "Do this on the device that was registered, or on one restored from the recovery phrase."


class SecretElsewhere(RefusedError):
    """The account secret, without which no password of an account holds, is not where its key is."""

    code = "account_secret_elsewhere"


class HomeBusy(RefusedError):
    """Another chatchain process is using this home."""

    code = "home_busy"


# --- 8: does not verify ---------------------------------------------------------------------------------


class VerificationError(ChatchainError):
    """A proof or signature does not hold."""

    code = "not_verified"
    exit_code = 8


class ForgedMessage(VerificationError):
    """A message is not from whom it claims to be."""

    code = "forged_message"


class RevokedSender(ForgedMessage):
    """A message names a device as its sender that has been revoked since, whenever it was sent."""

    code = "revoked_sender"


class Undecryptable(VerificationError):
    """A ciphertext was altered, or is for another device."""

    code = "undecryptable"


class BadRecord(VerificationError):
    """A device record, key bundle or contact card does not hold together."""

    code = "bad_record"


class Replayed(VerificationError):
    """A message was opened before."""

    code = "replayed"


class MissingSenderKey(VerificationError):
    """A group message came before the key that its sender gave out for it."""

    code = "missing_sender_key"


class WrongEpoch(VerificationError):
    """A group key belongs to another state of the group than the chain's."""

    code = "wrong_epoch"
