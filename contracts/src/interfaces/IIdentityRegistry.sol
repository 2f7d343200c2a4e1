// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ISigned} from "./ISigned.sol";

/// @title Who is who: usernames, accounts, devices and their keys
/// @notice A user is a uid with one custody account, a unique name, a password verifier and up to sixteen active
/// devices. Nobody administers this contract: only a user's account, or a device for itself, changes that user's keys;
/// and the user's recovery address, if there is one, may put another account in the place of a lost or stolen one.
///
/// An address that acts for a user is a *principal*: either the account (device id 0) or the signer of one active
/// device. An address is principal of at most one user at any time. An account has agreed to be one; a signer was only
/// named, and gives way when its address becomes an account: the device stays, but cannot act by itself any more.
///
/// Every function that changes state has a twin ending in `For`, which anyone may send with an EIP-712 signature:
///
///     Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,address signer,bytes record,uint256 deadline)
///     AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)
///     UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,address signer,bytes record,uint256 deadline)
///     RevokeDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint256 deadline)
///     SetVerifier(uint64 uid,uint32 epoch,bytes32 verifier,bytes kdf,uint256 nonce,uint256 deadline)
///
///     AddKey(uint64 uid,uint32 epoch,string keyType,bytes key,uint256 nonce,uint256 deadline)
///         (the type by its name below)
///     UpdateKey(uint64 uid,uint32 epoch,uint32 keyId,uint32 version,bytes key,uint256 deadline)
///     RevokeKey(uint64 uid,uint32 epoch,uint32 keyId,uint256 deadline)
///     SetRecovery(uint64 uid,uint32 epoch,address recovery,uint256 nonce,uint256 deadline)
///     ProposeRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)
///     VetoRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)
///     FinaliseRecovery(uint64 uid,uint32 epoch,address account,uint256 deadline)
///     Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)
///     InvalidateNonce(uint64 uid,uint32 epoch,uint256 nonce,uint256 deadline)
///
/// A signature is single-use through the nonce, where the struct has one; else through the taken name and account
/// (Register), the version (updates), the terminal state (revocations) or the epoch (FinaliseRecovery, Transfer).
/// The epoch rises whenever the account is replaced, and every digest of a user carries it.
///
/// Recovery: the recovery address proposes a new account; the account may veto once in 30 days; 7 days after the
/// proposal the new account may take over. Meanwhile nothing can be added to the user, and the account cannot rewrite
/// devices. A change of the recovery address waits for 21 days, and a proposal takes it back.
interface IIdentityRegistry is ISigned {
    /// @notice A device's life: absent, in use, withdrawn for good. REVOKED never changes again.
    enum DeviceState {
        NONE,
        ACTIVE,
        REVOKED
    }

    /// @notice What the chain keeps of a device; the record's bytes are only in the events.
    /// @param state NONE, ACTIVE or REVOKED
    /// @param version 1 when added, one more with each update
    /// @param signer secp256k1 address that acts for the user while the device is ACTIVE
    /// @param head commitment to the device's whole history: from zero, keccak256(abi.encode(head, version,
    /// keccak256(record)))
    struct DeviceInfo {
        DeviceState state;
        uint32 version;
        address signer;
        bytes32 head;
    }

    /// @notice Kinds of public keys, besides devices, that a user may publish.
    /// @dev RSA2048_OAEP: DER SubjectPublicKeyInfo with a modulus of 2048 bits and the exponent 65537, 294 bytes.
    enum KeyType {
        RSA2048_OAEP
    }

    /// @notice What the chain keeps of a key; its bytes are only in the events.
    /// @param keyType what kind of key it is
    /// @param state NONE, ACTIVE or REVOKED, as with devices
    /// @param version 1 when added, one more with each update
    /// @param head as a device's, over the key's bytes
    struct KeyInfo {
        KeyType keyType;
        DeviceState state;
        uint32 version;
        bytes32 head;
    }

    /// @notice How a user's account may be replaced, as of now.
    /// @param recovery the address that may propose a new account, or zero
    /// @param nextRecovery the one that will take its place
    /// @param nextRecoveryAt from which second on; zero when no change waits
    /// @param nextAccount the account that was proposed, or zero
    /// @param nextAccountAt the second from which it may take over; zero when no recovery is pending
    /// @param vetoFrom the second from which the account may veto again; zero when it never did
    struct RecoveryInfo {
        address recovery;
        address nextRecovery;
        uint64 nextRecoveryAt;
        address nextAccount;
        uint64 nextAccountAt;
        uint64 vetoFrom;
    }

    /// @notice A user came to be. Emitted once per uid, before any other event of that uid.
    /// @dev Invariants: `uid` is the next in the sequence that the counter determines; `username` is well-formed, was
    /// never emitted before and differs from every reserved name; `account` was no user's account. VerifierSet and
    /// DeviceAdded (device 1) follow in the same transaction, in this order.
    event Registered(uint64 indexed uid, address indexed account, string username, address recovery);

    /// @notice The login verifier of a user is now this one.
    /// @dev Invariants: `uid` is registered; `verifier` is not zero; `kdf` has 1 to 64 bytes; the latest event equals
    /// what `user(uid)` returns. Also emitted at registration, after Registered.
    event VerifierSet(uint64 indexed uid, bytes32 verifier, bytes kdf);

    /// @notice A user has a new device, ACTIVE at version 1. Also emitted at registration, for device 1.
    /// @dev Invariants: `deviceId` is one more than the user's last; `signer` was no principal and is one now;
    /// `record` has 1 to 1024 bytes, and the device's head commits to it as version 1.
    event DeviceAdded(uint64 indexed uid, uint32 indexed deviceId, address indexed signer, bytes record);

    /// @notice A device has a new record, and perhaps a new signer.
    /// @dev Invariants: the device is ACTIVE; `version` is one more than in the device's event before; an address that
    /// was its signer and is not `signer` stopped to be a principal, unless it is an account by now; the head grew by exactly (version, record).
    event DeviceUpdated(
        uint64 indexed uid, uint32 indexed deviceId, address indexed signer, uint32 version, bytes record
    );

    /// @notice A device was withdrawn: last event that names this device.
    /// @dev Invariants: the device was ACTIVE; its signer stopped to be a principal, unless it is an account by now; version
    /// and head stay as they were.
    event DeviceRevoked(uint64 indexed uid, uint32 indexed deviceId);

    /// @notice A user publishes a key, ACTIVE at version 1.
    /// @dev Invariants: `keyId` is one more than the user's last; `key` is well-formed for its type; the key's head
    /// commits to it as version 1.
    event KeyAdded(uint64 indexed uid, uint32 indexed keyId, KeyType keyType, bytes key);

    /// @notice A key was replaced by another of the same type.
    /// @dev Invariants: the key is ACTIVE; `version` is one more than before; the head grew by exactly (version, key).
    event KeyUpdated(uint64 indexed uid, uint32 indexed keyId, uint32 version, bytes key);

    /// @notice A key was withdrawn: last event that names it.
    /// @dev Invariants: the key was ACTIVE; version and head stay as they were.
    event KeyRevoked(uint64 indexed uid, uint32 indexed keyId);

    /// @notice From the second `effectiveAt` on, this is the user's recovery address, unless another of these events
    /// follows before. Before that second, the one of the event before counts.
    /// @dev Invariants: no recovery is pending; `effectiveAt` is the block's time if the user had no recovery address
    /// or keeps it, else 21 days later. One that repeats the address in force precedes RecoveryProposed in the same
    /// transaction when that takes a waiting change back. Not emitted at registration.
    event RecoverySet(uint64 indexed uid, address recovery, uint64 effectiveAt);

    /// @notice The recovery address wants `account` to be the user's account, from the second `readyAt` on.
    /// @dev Invariants: `account` was no principal; `readyAt` is 7 days after the block's time; it takes the place of
    /// any earlier proposal. Until RecoveryVetoed or AccountReplaced follows, none of DeviceAdded, KeyAdded,
    /// KeyUpdated and RecoverySet does, and DeviceUpdated only by the device itself.
    event RecoveryProposed(uint64 indexed uid, address indexed account, uint64 readyAt);

    /// @notice The account refused the pending recovery.
    /// @dev Invariants: `account` is the latest proposal's; 30 days or more lie between two of a user.
    event RecoveryVetoed(uint64 indexed uid, address indexed account);

    /// @notice A user has another account: by recovery if one was pending, else by a transfer.
    /// @dev Invariants: `previous` was the account and stopped to be a principal; `account` was none, or a device's
    /// signer, and is one now, and agreed; `epoch` is one more than before.
    event AccountReplaced(uint64 indexed uid, address indexed account, address indexed previous, uint32 epoch);

    /// @notice Signatures with an earlier nonce than this one count no more.
    event NonceInvalidated(uint64 indexed uid, uint32 nonce);

    /// @notice Somebody committed to a registration; until the second `guardedUntil` every registration needs an
    /// earlier commitment.
    event Committed(bytes32 indexed commitment, uint64 guardedUntil);

    /// @notice A name has 3 to 32 of `a-z`, `0-9` and `-`, starts with a letter, ends without `-` and has no `--`.
    error NameMalformed(string username);

    /// @notice Another user has this name.
    error NameTaken(string username);

    /// @notice The name was set aside when the registry was deployed.
    error NameReserved(string username);

    /// @notice The address already acts for a user: as account, or as device signer where no account is to be.
    error AddressTaken(address principal);

    /// @notice The address acts for no user.
    error NotRegistered(address principal);

    /// @notice No user has this uid.
    error UnknownUser(uint64 uid);

    /// @notice The user never had a device with this id.
    error UnknownDevice(uint64 uid, uint32 deviceId);

    /// @notice The device was revoked.
    error DeviceNotActive(uint64 uid, uint32 deviceId);

    /// @notice The address may not do this: it needs the account, or for an update the device's own signer.
    error NotAuthorized(address caller);

    /// @notice An update names the version after the current one; somebody was faster, or it is a replay.
    error WrongVersion(uint32 expected, uint32 given);

    /// @notice The user has `limit` active devices and must revoke one first.
    error TooManyDevices(uint32 limit);

    /// @notice A record has 1 to 1024 bytes, a kdf description 1 to 64.
    error BadLength(uint256 length);

    /// @notice The zero address cannot act for anybody.
    error ZeroAddress();

    /// @notice The zero verifier would mean no password.
    error EmptyVerifier();

    /// @notice The user never had a key with this id.
    error UnknownKey(uint64 uid, uint32 keyId);

    /// @notice The key was revoked.
    error KeyNotActive(uint64 uid, uint32 keyId);

    /// @notice The user has `limit` active keys and must revoke one first.
    error TooManyKeys(uint32 limit);

    /// @notice An RSA2048_OAEP key is the DER SubjectPublicKeyInfo of 2048 bits with exponent 65537.
    error MalformedKey();

    /// @notice A recovery of this user is pending, and until it ends nothing can be added.
    error RecoveryPending(uint64 uid);

    /// @notice No recovery of this user is pending.
    error NoRecovery(uint64 uid);

    /// @notice The proposed account may take over from the second `readyAt` on.
    error RecoveryNotReady(uint64 readyAt);

    /// @notice The account vetoed less than 30 days ago and may again from the second `vetoFrom` on.
    error VetoSpent(uint64 vetoFrom);

    /// @notice Until the second `guardedUntil` a registration must have been committed to in an earlier block.
    error CommitmentNeeded(uint64 guardedUntil);

    /// @notice This commitment stands already.
    error AlreadyCommitted(bytes32 commitment);

    /// @notice Commits to a registration without telling the name, where others watch the mempool. Anyone may send it.
    /// For ten minutes, from the next block on, the registration can follow; and as long as any commitment stands,
    /// only registrations pass that were committed to in an earlier block. So nobody who learns the name from the
    /// waiting registration can be faster.
    /// @param commitment keccak256(abi.encode(keccak256(bytes(username)), account, verifier)); the verifier, which
    /// nobody can guess, hides the name
    function commit(bytes32 commitment) external;

    /// @notice Registers the sender as a new user with a first device.
    /// @param username the name, already normalised by the client
    /// @param verifier hash of the password-derived public key with its parameters; never a plain hash of a password
    /// @param kdf version, salt and parameters that lead from the password to the key, as the client reads them
    /// @param recovery address that may propose a new account later, or zero for none
    /// @param signer the first device's signer
    /// @param record the first device's public record
    /// @return uid the new user's 15 digits
    function register(
        string calldata username,
        bytes32 verifier,
        bytes calldata kdf,
        address recovery,
        address signer,
        bytes calldata record
    ) external returns (uint64 uid);

    /// @notice Registers `account` with its signature over Register; the sender pays and gains nothing else.
    /// @param account the new user's account, which signed
    /// @param username as in `register`
    /// @param verifier as in `register`
    /// @param kdf as in `register`
    /// @param recovery as in `register`
    /// @param signer as in `register`
    /// @param record as in `register`
    /// @param deadline last second in which the signature counts
    /// @param signature by `account`
    /// @return uid the new user's 15 digits
    function registerFor(
        address account,
        string calldata username,
        bytes32 verifier,
        bytes calldata kdf,
        address recovery,
        address signer,
        bytes calldata record,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint64 uid);

    /// @notice Adds a device to the user whose account is the sender.
    /// @param signer the device's signer, principal of nobody yet
    /// @param record the device's public record
    /// @return deviceId the new device's id
    function addDevice(address signer, bytes calldata record) external returns (uint32 deviceId);

    /// @notice Adds a device with the account's signature over AddDevice, which spends the user's nonce.
    /// @param uid the user
    /// @param signer as in `addDevice`
    /// @param record as in `addDevice`
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    /// @return deviceId the new device's id
    function addDeviceFor(uint64 uid, address signer, bytes calldata record, uint256 deadline, bytes calldata signature)
        external
        returns (uint32 deviceId);

    /// @notice Replaces a device's record, and its signer if another is given. By the account, or the device's own
    /// signer.
    /// @param deviceId a device of the sender's user
    /// @param version the current version plus one
    /// @param signer the signer from now on; the current one to keep it
    /// @param record the new public record
    function updateDevice(uint32 deviceId, uint32 version, address signer, bytes calldata record) external;

    /// @notice Replaces a device's record with a signature over UpdateDevice.
    /// @param uid the user
    /// @param deviceId as in `updateDevice`
    /// @param version as in `updateDevice`
    /// @param signer as in `updateDevice`
    /// @param record as in `updateDevice`
    /// @param deadline last second in which the signature counts
    /// @param by who signed: the user's account or the device's signer before this update
    /// @param signature by `by`
    function updateDeviceFor(
        uint64 uid,
        uint32 deviceId,
        uint32 version,
        address signer,
        bytes calldata record,
        uint256 deadline,
        address by,
        bytes calldata signature
    ) external;

    /// @notice Withdraws a device of the user whose account is the sender, for good.
    /// @param deviceId an active device
    function revokeDevice(uint32 deviceId) external;

    /// @notice Withdraws a device with the account's signature over RevokeDevice.
    /// @param uid the user
    /// @param deviceId an active device
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function revokeDeviceFor(uint64 uid, uint32 deviceId, uint256 deadline, bytes calldata signature) external;

    /// @notice Sets the login verifier of the user whose account is the sender.
    /// @param verifier as in `register`
    /// @param kdf as in `register`
    function setVerifier(bytes32 verifier, bytes calldata kdf) external;

    /// @notice Sets a login verifier with the account's signature over SetVerifier, which spends the user's nonce.
    /// @param uid the user
    /// @param verifier as in `register`
    /// @param kdf as in `register`
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function setVerifierFor(
        uint64 uid,
        bytes32 verifier,
        bytes calldata kdf,
        uint256 deadline,
        bytes calldata signature
    ) external;

    /// @notice Publishes a key of the user whose account is the sender.
    /// @param keyType what kind of key
    /// @param key_ its bytes, as the type says
    /// @return keyId the new key's id; counts from 1, apart from the devices'
    function addKey(KeyType keyType, bytes calldata key_) external returns (uint32 keyId);

    /// @notice Publishes a key with the account's signature over AddKey, which spends the user's nonce.
    /// @param uid the user
    /// @param keyType as in `addKey`
    /// @param key_ as in `addKey`
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    /// @return keyId as in `addKey`
    function addKeyFor(uint64 uid, KeyType keyType, bytes calldata key_, uint256 deadline, bytes calldata signature)
        external
        returns (uint32 keyId);

    /// @notice Replaces a key of the user whose account is the sender by another of its type.
    /// @param keyId an active key
    /// @param version the current version plus one
    /// @param key_ the new key's bytes
    function updateKey(uint32 keyId, uint32 version, bytes calldata key_) external;

    /// @notice Replaces a key with the account's signature over UpdateKey.
    /// @param uid the user
    /// @param keyId as in `updateKey`
    /// @param version as in `updateKey`
    /// @param key_ as in `updateKey`
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function updateKeyFor(
        uint64 uid,
        uint32 keyId,
        uint32 version,
        bytes calldata key_,
        uint256 deadline,
        bytes calldata signature
    ) external;

    /// @notice Withdraws a key of the user whose account is the sender, for good.
    /// @param keyId an active key
    function revokeKey(uint32 keyId) external;

    /// @notice Withdraws a key with the account's signature over RevokeKey.
    /// @param uid the user
    /// @param keyId an active key
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function revokeKeyFor(uint64 uid, uint32 keyId, uint256 deadline, bytes calldata signature) external;

    /// @notice Names another recovery address for the user whose account is the sender. It counts at once if there is
    /// none or if it is the present one (which takes a waiting change back), else 21 days later.
    /// @param recovery the recovery address to be, or zero for none
    function setRecovery(address recovery) external;

    /// @notice Names another recovery address with the account's signature over SetRecovery, which spends the nonce.
    /// @param uid the user
    /// @param recovery as in `setRecovery`
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function setRecoveryFor(uint64 uid, address recovery, uint256 deadline, bytes calldata signature) external;

    /// @notice Proposes another account for a user. By its recovery address; a repeat takes the place of the proposal
    /// before and starts the delay again.
    /// @param uid the user
    /// @param account the account to be, principal of nobody
    function proposeRecovery(uint64 uid, address account) external;

    /// @notice Proposes another account with the recovery address's signature over ProposeRecovery, which spends the
    /// user's nonce.
    /// @param uid the user
    /// @param account as in `proposeRecovery`
    /// @param deadline last second in which the signature counts
    /// @param signature by the recovery address
    function proposeRecoveryFor(uint64 uid, address account, uint256 deadline, bytes calldata signature) external;

    /// @notice Refuses the pending recovery of the user whose account is the sender; once in 30 days.
    function vetoRecovery() external;

    /// @notice Refuses the pending recovery with the account's signature over VetoRecovery (where `account` is the
    /// proposed one), which spends the user's nonce.
    /// @param uid the user
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function vetoRecoveryFor(uint64 uid, uint256 deadline, bytes calldata signature) external;

    /// @notice Makes the sender, the proposed account, the user's account; 7 days after the proposal or later.
    /// @param uid the user
    function finaliseRecovery(uint64 uid) external;

    /// @notice Ends a recovery with the proposed account's signature over FinaliseRecovery.
    /// @param uid the user
    /// @param deadline last second in which the signature counts
    /// @param signature by the proposed account
    function finaliseRecoveryFor(uint64 uid, uint256 deadline, bytes calldata signature) external;

    /// @notice Hands a user over to another account; both sign the same Transfer. Devices, keys and the recovery
    /// address stay: whoever takes over looks at them first.
    /// @param uid the user
    /// @param to the account to be, principal of nobody
    /// @param deadline last second in which the signatures count
    /// @param signature by the user's account
    /// @param signatureOfTaker by `to`
    function transferFor(
        uint64 uid,
        address to,
        uint256 deadline,
        bytes calldata signature,
        bytes calldata signatureOfTaker
    ) external;

    /// @notice Raises the nonce of the user whose account is the sender, so that signatures with the present one,
    /// which somebody may hold, count no more.
    function invalidateNonce() external;

    /// @notice Raises the nonce with the account's signature over InvalidateNonce.
    /// @param uid the user
    /// @param deadline last second in which the signature counts
    /// @param signature by the user's account
    function invalidateNonceFor(uint64 uid, uint256 deadline, bytes calldata signature) external;

    /// @notice For whom an address acts at this moment.
    /// @param principal any address
    /// @return uid the user, 0 when the address acts for nobody
    /// @return deviceId 0 for the account itself, else the device whose signer it is
    /// @return epoch the user's epoch, which every signed digest carries
    function resolve(address principal) external view returns (uint64 uid, uint32 deviceId, uint32 epoch);

    /// @notice The first part of `resolve`, for callers that need no epoch; it reads one slot instead of two.
    /// @param principal any address
    /// @return uid the user, 0 when the address acts for nobody
    function userOf(address principal) external view returns (uint64 uid);

    /// @notice What the chain keeps of a user; all zero when there is none.
    /// @param uid the user
    /// @return account the custody account, never zero for a user
    /// @return epoch counts replacements of the account
    /// @return deviceCount devices ever added, and so the highest device id
    /// @return nonce to put into the next signature whose struct has one
    /// @return verifier the login verifier
    /// @return recovery the recovery address in force, or zero
    function user(uint64 uid)
        external
        view
        returns (address account, uint32 epoch, uint32 deviceCount, uint32 nonce, bytes32 verifier, address recovery);

    /// @notice What the chain keeps of one device; state NONE when there is none.
    /// @param uid the user
    /// @param deviceId counts from 1
    /// @return state NONE, ACTIVE or REVOKED
    /// @return version 1 when added
    /// @return signer the signer, or for a revoked device its last one
    /// @return head commitment to all records
    function device(uint64 uid, uint32 deviceId)
        external
        view
        returns (DeviceState state, uint32 version, address signer, bytes32 head);

    /// @notice All devices that a user ever had, to compare a fold of the events with in one call.
    /// @param uid the user
    /// @return all index i holds device i + 1
    function devices(uint64 uid) external view returns (DeviceInfo[] memory all);

    /// @notice The user who has this name.
    /// @param username any text
    /// @return uid 0 when nobody has it, also when it is reserved
    function uidOf(string calldata username) external view returns (uint64 uid);

    /// @notice How many users were ever registered; users never go.
    function userCount() external view returns (uint64);

    /// @notice What the chain keeps of one key; state NONE when there is none.
    /// @param uid the user
    /// @param keyId counts from 1
    /// @return keyType what kind of key it is
    /// @return state NONE, ACTIVE or REVOKED
    /// @return version 1 when added
    /// @return head commitment to all its versions
    function key(uint64 uid, uint32 keyId)
        external
        view
        returns (KeyType keyType, DeviceState state, uint32 version, bytes32 head);

    /// @notice All keys that a user ever had.
    /// @param uid the user
    /// @return all entry i is key i + 1
    function keys(uint64 uid) external view returns (KeyInfo[] memory all);

    /// @notice How a user's account may be replaced, as of now.
    /// @param uid the user
    /// @return info all zero for a user without a recovery address, or for none
    function recoveryOf(uint64 uid) external view returns (RecoveryInfo memory info);

    /// @notice Until this second, and including it, registrations need a commitment.
    /// @return until zero when nobody ever committed
    function guardedUntil() external view returns (uint64 until);

    /// @notice When somebody committed to this registration.
    /// @param commitment as in `commit`
    /// @return number the block, zero for never
    /// @return time its second
    function committedAt(bytes32 commitment) external view returns (uint64 number, uint64 time);
}
