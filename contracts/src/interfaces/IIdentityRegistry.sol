// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ISigned} from "./ISigned.sol";

/// @title Who is who: usernames, accounts, devices and their keys
/// @notice A user is a uid with one custody account, a unique name, a password verifier and up to sixteen active
/// devices. Nobody administers this contract: only a user's account, or a device for itself, changes that user's keys.
///
/// An address that acts for a user is a *principal*: either the account (device id 0) or the signer of one active
/// device. An address is principal of at most one user at any time.
///
/// Every function that changes state has a twin ending in `For`, which anyone may send with an EIP-712 signature:
///
///     Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,address signer,bytes record,uint256 deadline)
///     AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)
///     UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,address signer,bytes record,uint256 deadline)
///     RevokeDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint256 deadline)
///     SetVerifier(uint64 uid,uint32 epoch,bytes32 verifier,bytes kdf,uint256 nonce,uint256 deadline)
///
/// What makes each of them single-use: the taken name and account, the nonce, the version, the terminal state, the
/// nonce.
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

    /// @notice A user came to be. Emitted once per uid, before any other event of that uid.
    /// @dev Invariants: `uid` is the next in the sequence that the counter determines; `username` is well-formed, was
    /// never emitted before and differs from every reserved name; `account` was no principal. VerifierSet and
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
    /// was its signer and is not `signer` stopped to be a principal; the head grew by exactly (version, record).
    event DeviceUpdated(
        uint64 indexed uid, uint32 indexed deviceId, address indexed signer, uint32 version, bytes record
    );

    /// @notice A device was withdrawn: last event that names this device.
    /// @dev Invariants: the device was ACTIVE; its signer stopped to be a principal; version and head stay as they
    /// were.
    event DeviceRevoked(uint64 indexed uid, uint32 indexed deviceId);

    /// @notice A name has 3 to 32 of `a-z`, `0-9` and `-`, starts with a letter, ends without `-` and has no `--`.
    error NameMalformed(string username);

    /// @notice Another user has this name.
    error NameTaken(string username);

    /// @notice The name was set aside when the registry was deployed.
    error NameReserved(string username);

    /// @notice The address already acts for a user, as account or as device signer.
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
    /// @return nonce to put into the next AddDevice or SetVerifier signature
    /// @return verifier the login verifier
    /// @return recovery the recovery address or zero
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
}
