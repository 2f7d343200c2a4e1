// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {Names} from "./Names.sol";
import {Signed} from "./Signed.sol";

/// @title Who is who: usernames, accounts, devices and their keys
contract IdentityRegistry is IIdentityRegistry, Signed {
    struct Principal {
        uint64 uid;
        uint32 deviceId; // 0: the account itself
        bool suspended; // an account while its user's recovery is pending: read with the rest, it costs nothing
    }

    struct User {
        // one slot: all that most changes read
        address account;
        uint32 epoch;
        uint24 nonce;
        uint16 deviceCount; // ever added
        uint8 activeDevices;
        bool recovering; // a recovery is proposed
        // the next
        bytes32 verifier;
        // a third, which a registration without a recovery address leaves alone
        address recovery;
        uint40 vetoedAt;
        uint16 keyCount; // ever added
        uint8 activeKeys;
        // and two that most users never have
        address nextRecovery;
        uint40 nextRecoveryAt; // not zero: from this second on, `nextRecovery` counts
        address nextAccount;
        uint40 nextAccountAt;
    }

    struct Device {
        address signer;
        uint32 version;
        DeviceState state;
        bytes32 head;
    }

    struct Key {
        KeyType keyType;
        DeviceState state;
        uint32 version;
        bytes32 head;
    }

    struct Commitment {
        uint64 number;
        uint64 time;
    }

    uint64 private constant RECOVERY_DELAY = 7 days;
    uint64 private constant VETO_INTERVAL = 30 days;
    uint64 private constant RECOVERY_CHANGE_DELAY = 21 days; // a recovery, once vetoed, takes 14 and somebody to notice
    uint64 private constant COMMITMENT_LIFE = 10 minutes;

    uint32 private constant MAX_DEVICES = 16;
    uint32 private constant MAX_KEYS = 4;
    uint256 private constant MAX_RECORD = 1024;
    uint256 private constant MAX_KDF = 64;
    uint256 private constant RESERVED = type(uint64).max;

    // A uid is 14 digits that run through all of 1e13 … 1e14 - 1 before one repeats, and a check digit. The multiplier
    // shares no factor with 9e13 (it is no multiple of 2, 3 or 5); both are digits of well-known numbers (golden
    // ratio, e).
    uint256 private constant UID_FIRST = 1e13;
    uint256 private constant UID_SPAN = 9e13;
    uint256 private constant UID_MULTIPLIER = 61_803_398_874_989;
    uint256 private constant UID_OFFSET = 27_182_818_284_590;

    bytes32 private constant REGISTER_TYPEHASH = keccak256(
        "Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,address signer,bytes record,uint256 deadline)"
    );
    bytes32 private constant ADD_DEVICE_TYPEHASH =
        keccak256("AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)");
    bytes32 private constant UPDATE_DEVICE_TYPEHASH = keccak256(
        "UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,address signer,bytes record,uint256 deadline)"
    );
    bytes32 private constant REVOKE_DEVICE_TYPEHASH =
        keccak256("RevokeDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint256 deadline)");
    bytes32 private constant SET_VERIFIER_TYPEHASH =
        keccak256("SetVerifier(uint64 uid,uint32 epoch,bytes32 verifier,bytes kdf,uint256 nonce,uint256 deadline)");

    bytes32 private constant ADD_KEY_TYPEHASH =
        keccak256("AddKey(uint64 uid,uint32 epoch,string keyType,bytes key,uint256 nonce,uint256 deadline)");
    bytes32 private constant RSA2048_OAEP_NAME = keccak256("RSA2048_OAEP"); // there is no other type yet
    bytes32 private constant UPDATE_KEY_TYPEHASH =
        keccak256("UpdateKey(uint64 uid,uint32 epoch,uint32 keyId,uint32 version,bytes key,uint256 deadline)");
    bytes32 private constant REVOKE_KEY_TYPEHASH =
        keccak256("RevokeKey(uint64 uid,uint32 epoch,uint32 keyId,uint256 deadline)");
    bytes32 private constant SET_RECOVERY_TYPEHASH =
        keccak256("SetRecovery(uint64 uid,uint32 epoch,address recovery,uint256 nonce,uint256 deadline)");
    bytes32 private constant PROPOSE_RECOVERY_TYPEHASH =
        keccak256("ProposeRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)");
    bytes32 private constant VETO_RECOVERY_TYPEHASH =
        keccak256("VetoRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)");
    bytes32 private constant FINALISE_RECOVERY_TYPEHASH =
        keccak256("FinaliseRecovery(uint64 uid,uint32 epoch,address account,uint256 deadline)");
    bytes32 private constant TRANSFER_TYPEHASH =
        keccak256("Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)");
    bytes32 private constant INVALIDATE_NONCE_TYPEHASH =
        keccak256("InvalidateNonce(uint64 uid,uint32 epoch,uint256 nonce,uint256 deadline)");

    // DER of a SubjectPublicKeyInfo with an RSA key of 2048 bits (RFC 8017, A.1.1; RFC 3279, 2.3.1): 32 bytes and a zero that
    // never differ, the modulus, and the exponent 65537.
    uint256 private constant RSA_LENGTH = 294;
    uint256 private constant RSA_MODULUS = 33;
    bytes32 private constant RSA_PREFIX = 0x30820122300d06092a864886f70d01010105000382010f003082010a02820101;
    bytes5 private constant RSA_EXPONENT = 0x0203010001;

    /// @inheritdoc IIdentityRegistry
    uint64 public userCount;
    /// @inheritdoc IIdentityRegistry
    uint64 public guardedUntil; // in the counter's slot, which a registration reads anyway

    mapping(address principal => Principal) private _principals;
    mapping(bytes32 nameKey => uint256 uid) private _uidOfName; // a whole word, to be written unread
    mapping(uint64 uid => User) private _users;
    mapping(uint64 uid => mapping(uint32 deviceId => Device)) private _devices;
    mapping(uint64 uid => mapping(uint32 keyId => Key)) private _keys;
    mapping(bytes32 commitment => Commitment) private _commitments;

    /// @param reservedNames well-formed names that nobody can register
    constructor(string[] memory reservedNames) {
        for (uint256 i = 0; i < reservedNames.length; ++i) {
            if (!Names.isWellFormed(reservedNames[i])) revert NameMalformed(reservedNames[i]);
            _uidOfName[keccak256(bytes(reservedNames[i]))] = RESERVED;
        }
    }

    /// @inheritdoc IIdentityRegistry
    function commit(bytes32 commitment) external {
        Commitment storage made = _commitments[commitment];
        if (made.time != 0 && block.timestamp <= made.time + COMMITMENT_LIFE) revert AlreadyCommitted(commitment);
        made.number = uint64(block.number);
        made.time = uint64(block.timestamp);
        uint64 until = uint64(block.timestamp) + COMMITMENT_LIFE;
        guardedUntil = until;
        emit Committed(commitment, until);
    }

    /// @inheritdoc IIdentityRegistry
    function register(
        string calldata username,
        bytes32 verifier,
        bytes calldata kdf,
        address recovery,
        address signer,
        bytes calldata record
    ) external returns (uint64 uid) {
        uid = _openUser(msg.sender, username, verifier, kdf, recovery);
        _openDevice(uid, 1, signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function registerFor(
        address account,
        string memory username, // in memory, for one word on the stack instead of two
        bytes32 verifier,
        bytes memory kdf,
        address recovery,
        address signer,
        bytes calldata record,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint64 uid) {
        _requireInTime(deadline);
        {
            // An array of words hashes like the struct, and keeps the stack within the compiler's reach.
            bytes32[9] memory words;
            words[0] = REGISTER_TYPEHASH;
            words[1] = keccak256(bytes(username));
            words[2] = _word(account);
            words[3] = verifier;
            words[4] = keccak256(kdf);
            words[5] = _word(recovery);
            words[6] = _word(signer);
            words[7] = keccak256(record);
            words[8] = bytes32(deadline);
            _requireSigned(account, keccak256(abi.encode(words)), signature);
        }
        uid = _openUser(account, username, verifier, kdf, recovery);
        _openDevice(uid, 1, signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function addDevice(address signer, bytes calldata record) external returns (uint32 deviceId) {
        return _addDevice(_uidOfAccount(msg.sender), signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function addDeviceFor(uint64 uid, address signer, bytes calldata record, uint256 deadline, bytes calldata signature)
        external
        returns (uint32 deviceId)
    {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash =
            keccak256(abi.encode(ADD_DEVICE_TYPEHASH, uid, who.epoch, signer, keccak256(record), who.nonce, deadline));
        _requireSigned(who.account, structHash, signature);
        ++who.nonce;
        return _addDevice(uid, signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function updateDevice(uint32 deviceId, uint32 version, address signer, bytes calldata record) external {
        Principal memory sender = _principals[msg.sender];
        if (sender.uid == 0) revert NotRegistered(msg.sender);
        if (sender.deviceId != 0 && sender.deviceId != deviceId) revert NotAuthorized(msg.sender);
        if (sender.suspended) revert RecoveryPending(sender.uid);
        _updateDevice(sender.uid, deviceId, version, signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function updateDeviceFor(
        uint64 uid,
        uint32 deviceId,
        uint32 version,
        address signer,
        bytes calldata record,
        uint256 deadline,
        address by,
        bytes calldata signature
    ) external {
        _requireInTime(deadline);
        uint32 epoch = _existing(uid).epoch;
        Principal memory actor = _principals[by];
        if (actor.uid != uid || (actor.deviceId != 0 && actor.deviceId != deviceId)) revert NotAuthorized(by);
        if (actor.suspended) revert RecoveryPending(uid);
        {
            bytes32[8] memory words;
            words[0] = UPDATE_DEVICE_TYPEHASH;
            words[1] = bytes32(uint256(uid));
            words[2] = bytes32(uint256(epoch));
            words[3] = bytes32(uint256(deviceId));
            words[4] = bytes32(uint256(version));
            words[5] = _word(signer);
            words[6] = keccak256(record);
            words[7] = bytes32(deadline);
            _requireSigned(by, keccak256(abi.encode(words)), signature);
        }
        _updateDevice(uid, deviceId, version, signer, record);
    }

    /// @inheritdoc IIdentityRegistry
    function revokeDevice(uint32 deviceId) external {
        _revokeDevice(_uidOfAccount(msg.sender), deviceId);
    }

    /// @inheritdoc IIdentityRegistry
    function revokeDeviceFor(uint64 uid, uint32 deviceId, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash = keccak256(abi.encode(REVOKE_DEVICE_TYPEHASH, uid, who.epoch, deviceId, deadline));
        _requireSigned(who.account, structHash, signature);
        _revokeDevice(uid, deviceId);
    }

    /// @inheritdoc IIdentityRegistry
    function setVerifier(bytes32 verifier, bytes calldata kdf) external {
        uint64 uid = _uidOfAccount(msg.sender);
        _setVerifier(uid, _users[uid], verifier, kdf);
    }

    /// @inheritdoc IIdentityRegistry
    function setVerifierFor(
        uint64 uid,
        bytes32 verifier,
        bytes calldata kdf,
        uint256 deadline,
        bytes calldata signature
    ) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash =
            keccak256(abi.encode(SET_VERIFIER_TYPEHASH, uid, who.epoch, verifier, keccak256(kdf), who.nonce, deadline));
        _requireSigned(who.account, structHash, signature);
        ++who.nonce;
        _setVerifier(uid, who, verifier, kdf);
    }

    /// @inheritdoc IIdentityRegistry
    function addKey(KeyType keyType, bytes calldata key_) external returns (uint32 keyId) {
        return _addKey(_uidOfAccount(msg.sender), keyType, key_);
    }

    /// @inheritdoc IIdentityRegistry
    function addKeyFor(uint64 uid, KeyType keyType, bytes calldata key_, uint256 deadline, bytes calldata signature)
        external
        returns (uint32 keyId)
    {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash = keccak256(
            abi.encode(ADD_KEY_TYPEHASH, uid, who.epoch, RSA2048_OAEP_NAME, keccak256(key_), who.nonce, deadline)
        );
        _requireSigned(who.account, structHash, signature);
        ++who.nonce;
        return _addKey(uid, keyType, key_);
    }

    /// @inheritdoc IIdentityRegistry
    function updateKey(uint32 keyId, uint32 version, bytes calldata key_) external {
        _updateKey(_uidOfAccount(msg.sender), keyId, version, key_);
    }

    /// @inheritdoc IIdentityRegistry
    function updateKeyFor(
        uint64 uid,
        uint32 keyId,
        uint32 version,
        bytes calldata key_,
        uint256 deadline,
        bytes calldata signature
    ) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash =
            keccak256(abi.encode(UPDATE_KEY_TYPEHASH, uid, who.epoch, keyId, version, keccak256(key_), deadline));
        _requireSigned(who.account, structHash, signature);
        _updateKey(uid, keyId, version, key_);
    }

    /// @inheritdoc IIdentityRegistry
    function revokeKey(uint32 keyId) external {
        _revokeKey(_uidOfAccount(msg.sender), keyId);
    }

    /// @inheritdoc IIdentityRegistry
    function revokeKeyFor(uint64 uid, uint32 keyId, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash = keccak256(abi.encode(REVOKE_KEY_TYPEHASH, uid, who.epoch, keyId, deadline));
        _requireSigned(who.account, structHash, signature);
        _revokeKey(uid, keyId);
    }

    /// @inheritdoc IIdentityRegistry
    function setRecovery(address recovery) external {
        _setRecovery(_uidOfAccount(msg.sender), recovery);
    }

    /// @inheritdoc IIdentityRegistry
    function setRecoveryFor(uint64 uid, address recovery, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash = keccak256(abi.encode(SET_RECOVERY_TYPEHASH, uid, who.epoch, recovery, who.nonce, deadline));
        _requireSigned(who.account, structHash, signature);
        ++who.nonce;
        _setRecovery(uid, recovery);
    }

    /// @inheritdoc IIdentityRegistry
    function proposeRecovery(uint64 uid, address account) external {
        if (msg.sender != _recoveryOf(_existing(uid))) revert NotAuthorized(msg.sender);
        _proposeRecovery(uid, account);
    }

    /// @inheritdoc IIdentityRegistry
    function proposeRecoveryFor(uint64 uid, address account, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash =
            keccak256(abi.encode(PROPOSE_RECOVERY_TYPEHASH, uid, who.epoch, account, who.nonce, deadline));
        _requireSigned(_recoveryOf(who), structHash, signature);
        ++who.nonce;
        _proposeRecovery(uid, account);
    }

    /// @inheritdoc IIdentityRegistry
    function vetoRecovery() external {
        _vetoRecovery(_uidOfAccount(msg.sender));
    }

    /// @inheritdoc IIdentityRegistry
    function vetoRecoveryFor(uint64 uid, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash =
            keccak256(abi.encode(VETO_RECOVERY_TYPEHASH, uid, who.epoch, who.nextAccount, who.nonce, deadline));
        _requireSigned(who.account, structHash, signature);
        ++who.nonce;
        _vetoRecovery(uid);
    }

    /// @inheritdoc IIdentityRegistry
    function finaliseRecovery(uint64 uid) external {
        User storage who = _recovering(uid);
        if (msg.sender != who.nextAccount) revert NotAuthorized(msg.sender);
        _finaliseRecovery(uid, who);
    }

    /// @inheritdoc IIdentityRegistry
    function finaliseRecoveryFor(uint64 uid, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _recovering(uid);
        address account = who.nextAccount;
        bytes32 structHash = keccak256(abi.encode(FINALISE_RECOVERY_TYPEHASH, uid, who.epoch, account, deadline));
        _requireSigned(account, structHash, signature);
        _finaliseRecovery(uid, who);
    }

    /// @inheritdoc IIdentityRegistry
    function transferFor(
        uint64 uid,
        address to,
        uint256 deadline,
        bytes calldata signature,
        bytes calldata signatureOfTaker
    ) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        _requireSettled(uid);
        address from = who.account;
        bytes32 structHash = keccak256(abi.encode(TRANSFER_TYPEHASH, uid, who.epoch, from, to, who.nonce, deadline));
        _requireSigned(from, structHash, signature);
        _requireSigned(to, structHash, signatureOfTaker);
        _replaceAccount(uid, who, to);
    }

    /// @inheritdoc IIdentityRegistry
    function invalidateNonce() external {
        _invalidateNonce(_uidOfAccount(msg.sender));
    }

    /// @inheritdoc IIdentityRegistry
    function invalidateNonceFor(uint64 uid, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        User storage who = _existing(uid);
        bytes32 structHash = keccak256(abi.encode(INVALIDATE_NONCE_TYPEHASH, uid, who.epoch, who.nonce, deadline));
        _requireSigned(who.account, structHash, signature);
        _invalidateNonce(uid);
    }

    /// @inheritdoc IIdentityRegistry
    function resolve(address principal) external view returns (uint64 uid, uint32 deviceId, uint32 epoch) {
        Principal storage found = _principals[principal];
        uid = found.uid;
        deviceId = found.deviceId;
        epoch = _users[uid].epoch;
    }

    /// @inheritdoc IIdentityRegistry
    function userOf(address principal) external view returns (uint64 uid) {
        return _principals[principal].uid;
    }

    /// @inheritdoc IIdentityRegistry
    function user(uint64 uid)
        external
        view
        returns (address account, uint32 epoch, uint32 deviceCount, uint32 nonce, bytes32 verifier, address recovery)
    {
        User storage who = _users[uid];
        return (who.account, who.epoch, who.deviceCount, who.nonce, who.verifier, _recoveryOf(who));
    }

    /// @inheritdoc IIdentityRegistry
    function device(uint64 uid, uint32 deviceId)
        external
        view
        returns (DeviceState state, uint32 version, address signer, bytes32 head)
    {
        Device storage one = _devices[uid][deviceId];
        return (one.state, one.version, one.signer, one.head);
    }

    /// @inheritdoc IIdentityRegistry
    function devices(uint64 uid) external view returns (DeviceInfo[] memory all) {
        all = new DeviceInfo[](_users[uid].deviceCount);
        for (uint32 i = 0; i < all.length; ++i) {
            Device storage one = _devices[uid][i + 1];
            all[i] = DeviceInfo(one.state, one.version, one.signer, one.head);
        }
    }

    /// @inheritdoc IIdentityRegistry
    function key(uint64 uid, uint32 keyId)
        external
        view
        returns (KeyType keyType, DeviceState state, uint32 version, bytes32 head)
    {
        Key storage one = _keys[uid][keyId];
        return (one.keyType, one.state, one.version, one.head);
    }

    /// @inheritdoc IIdentityRegistry
    function keys(uint64 uid) external view returns (KeyInfo[] memory all) {
        all = new KeyInfo[](_users[uid].keyCount);
        for (uint32 i = 0; i < all.length; ++i) {
            Key storage one = _keys[uid][i + 1];
            all[i] = KeyInfo(one.keyType, one.state, one.version, one.head);
        }
    }

    /// @inheritdoc IIdentityRegistry
    function recoveryOf(uint64 uid) external view returns (RecoveryInfo memory info) {
        User storage who = _users[uid];
        info.recovery = _recoveryOf(who);
        if (block.timestamp < who.nextRecoveryAt) {
            info.nextRecovery = who.nextRecovery;
            info.nextRecoveryAt = who.nextRecoveryAt;
        }
        info.nextAccount = who.nextAccount;
        info.nextAccountAt = who.nextAccountAt;
        if (who.vetoedAt != 0) info.vetoFrom = who.vetoedAt + VETO_INTERVAL;
    }

    /// @inheritdoc IIdentityRegistry
    function committedAt(bytes32 commitment) external view returns (uint64 number, uint64 time) {
        Commitment storage made = _commitments[commitment];
        return (made.number, made.time);
    }

    /// @inheritdoc IIdentityRegistry
    function uidOf(string calldata username) external view returns (uint64 uid) {
        uint256 holder = _uidOfName[keccak256(bytes(username))];
        if (holder != RESERVED) uid = uint64(holder);
    }

    /// @dev Takes the name and the account, gives the next uid, and counts the first device.
    function _openUser(address account, string memory username, bytes32 verifier, bytes memory kdf, address recovery)
        private
        returns (uint64 uid)
    {
        if (!Names.isWellFormed(username)) revert NameMalformed(username);
        bytes32 nameKey = keccak256(bytes(username));
        uint256 holder = _uidOfName[nameKey];
        if (holder == RESERVED) revert NameReserved(username);
        if (holder != 0) revert NameTaken(username);
        (uint64 count, uint64 guard) = (userCount + 1, guardedUntil);
        if (block.timestamp <= guard) _requireCommitted(keccak256(abi.encode(nameKey, account, verifier)));

        userCount = count;
        uid = _uidAt(count);
        _claim(account, uid, 0);
        _uidOfName[nameKey] = uid;
        User storage who = _users[uid];
        who.account = account;
        who.deviceCount = 1; // the first device follows in the same call
        who.activeDevices = 1;
        if (recovery != address(0)) who.recovery = recovery;
        emit Registered(uid, account, username, recovery);
        _setVerifier(uid, who, verifier, kdf);
    }

    function _setVerifier(uint64 uid, User storage who, bytes32 verifier, bytes memory kdf) private {
        if (verifier == bytes32(0)) revert EmptyVerifier();
        _requireLength(kdf.length, MAX_KDF);
        who.verifier = verifier;
        emit VerifierSet(uid, verifier, kdf);
    }

    function _addDevice(uint64 uid, address signer, bytes calldata record) private returns (uint32 deviceId) {
        _requireSettled(uid);
        User storage who = _users[uid];
        uint16 count = who.deviceCount + 1;
        uint8 active = who.activeDevices + 1;
        if (active > MAX_DEVICES) revert TooManyDevices(MAX_DEVICES);

        deviceId = count;
        who.deviceCount = count;
        who.activeDevices = active;
        _openDevice(uid, deviceId, signer, record);
    }

    /// @dev Brings a device that was counted to life.
    function _openDevice(uint64 uid, uint32 deviceId, address signer, bytes calldata record) private {
        _requireLength(record.length, MAX_RECORD);
        _claim(signer, uid, deviceId);
        Device storage one = _devices[uid][deviceId];
        one.state = DeviceState.ACTIVE; // first, so that one write serves the three
        one.signer = signer;
        one.version = 1;
        one.head = _grow(bytes32(0), 1, record);
        emit DeviceAdded(uid, deviceId, signer, record);
    }

    function _updateDevice(uint64 uid, uint32 deviceId, uint32 version, address signer, bytes calldata record) private {
        _requireLength(record.length, MAX_RECORD);
        Device storage one = _active(uid, deviceId);
        uint32 expected = one.version + 1;
        if (version != expected) revert WrongVersion(expected, version);

        address before = one.signer;
        if (signer != before) {
            _claim(signer, uid, deviceId);
            _release(before, uid, deviceId);
            one.signer = signer;
        }
        one.version = version;
        one.head = _grow(one.head, version, record);
        emit DeviceUpdated(uid, deviceId, signer, version, record);
    }

    function _revokeDevice(uint64 uid, uint32 deviceId) private {
        Device storage one = _active(uid, deviceId);
        one.state = DeviceState.REVOKED;
        _users[uid].activeDevices -= 1;
        _release(one.signer, uid, deviceId);
        emit DeviceRevoked(uid, deviceId);
    }

    function _addKey(uint64 uid, KeyType keyType, bytes calldata key_) private returns (uint32 keyId) {
        _requireSettled(uid);
        _requireRsa(key_);
        User storage who = _users[uid];
        uint8 active = who.activeKeys + 1;
        if (active > MAX_KEYS) revert TooManyKeys(MAX_KEYS);

        uint16 count = who.keyCount + 1;
        keyId = count;
        who.keyCount = count;
        who.activeKeys = active;
        Key storage one = _keys[uid][keyId];
        one.keyType = keyType;
        one.state = DeviceState.ACTIVE;
        one.version = 1;
        one.head = _grow(bytes32(0), 1, key_);
        emit KeyAdded(uid, keyId, keyType, key_);
    }

    function _updateKey(uint64 uid, uint32 keyId, uint32 version, bytes calldata key_) private {
        _requireSettled(uid);
        _requireRsa(key_);
        Key storage one = _activeKey(uid, keyId);
        uint32 expected = one.version + 1;
        if (version != expected) revert WrongVersion(expected, version);
        one.version = version;
        one.head = _grow(one.head, version, key_);
        emit KeyUpdated(uid, keyId, version, key_);
    }

    function _revokeKey(uint64 uid, uint32 keyId) private {
        Key storage one = _activeKey(uid, keyId);
        one.state = DeviceState.REVOKED;
        _users[uid].activeKeys -= 1;
        emit KeyRevoked(uid, keyId);
    }

    /// @dev A change waits, unless there is nobody yet who could recover, or it takes an announced change back.
    function _setRecovery(uint64 uid, address recovery) private {
        _requireSettled(uid);
        User storage who = _users[uid];
        address current = _recoveryOf(who);
        uint40 from = uint40(block.timestamp);
        if (current != address(0) && recovery != current) from += uint40(RECOVERY_CHANGE_DELAY);
        who.recovery = current;
        who.nextRecovery = recovery;
        who.nextRecoveryAt = from;
        emit RecoverySet(uid, recovery, from);
    }

    /// @dev Takes the place of an earlier proposal, and takes back a change of the recovery address that did not
    /// come into force: whoever proposes is not to be removed meanwhile.
    function _proposeRecovery(uint64 uid, address account) private {
        if (account == address(0)) revert ZeroAddress();
        Principal memory found = _principals[account];
        if (found.uid != 0 && found.deviceId == 0) revert AddressTaken(account);
        User storage who = _users[uid];
        uint40 from = uint40(block.timestamp + RECOVERY_DELAY);
        if (block.timestamp < who.nextRecoveryAt) {
            who.nextRecovery = address(0);
            who.nextRecoveryAt = 0;
            emit RecoverySet(uid, who.recovery, uint64(block.timestamp));
        }
        who.recovering = true;
        _principals[who.account].suspended = true;
        who.nextAccount = account;
        who.nextAccountAt = from;
        emit RecoveryProposed(uid, account, from);
    }

    function _vetoRecovery(uint64 uid) private {
        User storage who = _recovering(uid);
        uint64 vetoed = who.vetoedAt;
        if (vetoed != 0 && block.timestamp < vetoed + VETO_INTERVAL) revert VetoSpent(vetoed + VETO_INTERVAL);
        who.vetoedAt = uint40(block.timestamp);
        emit RecoveryVetoed(uid, who.nextAccount);
        _settle(who);
    }

    function _finaliseRecovery(uint64 uid, User storage who) private {
        if (block.timestamp < who.nextAccountAt) revert RecoveryNotReady(who.nextAccountAt);
        address account = who.nextAccount;
        _settle(who);
        _replaceAccount(uid, who, account);
    }

    /// @dev Ends a recovery, one way or the other.
    function _settle(User storage who) private {
        who.recovering = false;
        _principals[who.account].suspended = false;
        who.nextAccount = address(0);
        who.nextAccountAt = 0;
    }

    /// @dev The epoch rises, so that nothing counts any more that was signed before.
    function _replaceAccount(uint64 uid, User storage who, address account) private {
        _claim(account, uid, 0);
        address previous = who.account;
        delete _principals[previous];
        who.account = account;
        uint32 epoch = ++who.epoch;
        emit AccountReplaced(uid, account, previous, epoch);
    }

    function _invalidateNonce(uint64 uid) private {
        emit NonceInvalidated(uid, ++_users[uid].nonce);
    }

    /// @dev Makes an address act for a user. An account has agreed; a device's signer was only named, by whoever
    /// liked to, and so gives way to an account.
    function _claim(address principal, uint64 uid, uint32 deviceId) private {
        if (principal == address(0)) revert ZeroAddress();
        Principal storage slot = _principals[principal];
        if (slot.uid != 0 && (deviceId != 0 || slot.deviceId == 0)) revert AddressTaken(principal);
        slot.uid = uid;
        slot.deviceId = deviceId;
    }

    /// @dev Frees a device's signer, unless it gave way to an account.
    function _release(address signer, uint64 uid, uint32 deviceId) private {
        Principal memory found = _principals[signer];
        if (found.uid == uid && found.deviceId == deviceId) delete _principals[signer];
    }

    /// @dev The user whose account this is; a device signer is not enough.
    function _uidOfAccount(address caller) private view returns (uint64 uid) {
        Principal memory found = _principals[caller];
        if (found.uid == 0) revert NotRegistered(caller);
        if (found.deviceId != 0) revert NotAuthorized(caller);
        return found.uid;
    }

    function _existing(uint64 uid) private view returns (User storage who) {
        who = _users[uid];
        if (who.account == address(0)) revert UnknownUser(uid);
    }

    function _recovering(uint64 uid) private view returns (User storage who) {
        who = _existing(uid);
        if (!who.recovering) revert NoRecovery(uid);
    }

    /// @dev Nothing is added to a user whose account may be in the wrong hands.
    function _requireSettled(uint64 uid) private view {
        if (_users[uid].recovering) revert RecoveryPending(uid);
    }

    /// @dev The recovery address at this moment; an announced one counts from its second on, without a transaction.
    function _recoveryOf(User storage who) private view returns (address) {
        uint256 from = who.nextRecoveryAt;
        return from != 0 && block.timestamp >= from ? who.nextRecovery : who.recovery;
    }

    /// @dev A commitment counts from the next block on, for as long as it guards.
    function _requireCommitted(bytes32 commitment) private view {
        Commitment storage made = _commitments[commitment];
        uint256 time = made.time;
        if (time == 0 || block.timestamp > time + COMMITMENT_LIFE || block.number <= made.number) {
            revert CommitmentNeeded(guardedUntil);
        }
    }

    function _activeKey(uint64 uid, uint32 keyId) private view returns (Key storage one) {
        one = _keys[uid][keyId];
        DeviceState state = one.state;
        if (state == DeviceState.NONE) revert UnknownKey(uid, keyId);
        if (state == DeviceState.REVOKED) revert KeyNotActive(uid, keyId);
    }

    function _active(uint64 uid, uint32 deviceId) private view returns (Device storage one) {
        one = _devices[uid][deviceId];
        DeviceState state = one.state;
        if (state == DeviceState.NONE) revert UnknownDevice(uid, deviceId);
        if (state == DeviceState.REVOKED) revert DeviceNotActive(uid, deviceId);
    }

    function _grow(bytes32 head, uint32 version, bytes calldata record) private pure returns (bytes32) {
        return keccak256(abi.encode(head, uint256(version), keccak256(record)));
    }

    /// @dev Exactly 2048 bits: the highest bit is set; an even modulus is no RSA key.
    function _requireRsa(bytes calldata key_) private pure {
        bool good = key_.length == RSA_LENGTH && bytes32(key_[:32]) == RSA_PREFIX && key_[32] == 0
            && uint8(key_[RSA_MODULUS]) >= 0x80 && uint8(key_[RSA_LENGTH - 6]) & 1 == 1
            && bytes5(key_[RSA_LENGTH - 5:]) == RSA_EXPONENT;
        if (!good) revert MalformedKey();
    }

    function _requireLength(uint256 length, uint256 limit) private pure {
        if (length == 0 || length > limit) revert BadLength(length);
    }

    /// @dev Nothing here overflows: a counter of 64 bits times a number of 46, and a body of 14 digits times ten.
    function _uidAt(uint64 counter) private pure returns (uint64) {
        unchecked {
            uint256 body = UID_FIRST + (counter * UID_MULTIPLIER + UID_OFFSET) % UID_SPAN;
            return uint64(body * 10 + _checkDigit(body));
        }
    }

    /// @dev ISO 7064 MOD 11,10 of a number of 14 digits.
    function _checkDigit(uint256 body) private pure returns (uint256) {
        uint256 product = 10;
        // body * scale stays below 1e28, all else has at most two digits.
        unchecked {
            for (uint256 scale = 1; scale <= UID_FIRST; scale *= 10) {
                // The quotient's last digit is the next one of the body. A sum that is a multiple of ten counts as
                // ten: hence 9 before and 1 after the remainder.
                product = (((product + body * scale / UID_FIRST + 9) % 10 + 1) * 2) % 11;
            }
            return (11 - product) % 10;
        }
    }

    function _word(address a) private pure returns (bytes32) {
        return bytes32(uint256(uint160(a)));
    }
}
