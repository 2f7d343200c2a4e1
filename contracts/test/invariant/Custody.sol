// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, IdentityRegistry} from "../base/World.sol";

/// @notice A dozen addresses that try everything on three users, whoever they are. Beside the registry it keeps a model
/// made of the rules alone: who is account, signer and recovery address of whom, and what is pending. A call that
/// succeeds though the model forbids it is a trespass.
contract Custody is Identities {
    uint256 private constant PEOPLE = 3;
    uint256 private constant POOL = 12;

    struct Model {
        address account;
        uint32 epoch;
        address recovery;
        address laterRecovery;
        uint256 laterAt;
        address pending;
        uint256 pendingAt;
        uint256 vetoedAt;
    }

    struct Thing {
        IIdentityRegistry.DeviceState state;
        uint32 version;
        address signer;
        bool mute; // the signer gave way to an account
    }

    uint64[] private uids;
    uint256[] private keysOf;
    address[] private addresses;
    mapping(address who => uint256) private keyOf;
    mapping(uint64 uid => Model) private _models;
    mapping(uint64 uid => mapping(uint32 id => Thing)) private _devices;
    mapping(uint64 uid => mapping(uint32 id => Thing)) private _keys;
    mapping(uint64 uid => uint32) public deviceCount;
    mapping(uint64 uid => uint32) public keyCount;

    uint256 public trespasses;
    uint256 public additionsWhilePending;
    uint256 public resurrections;
    uint256 public skippedVersions;
    uint256 public replacements;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < POOL; ++i) {
            keysOf.push(0xC0DE + i);
            addresses.push(vm.addr(0xC0DE + i));
            keyOf[addresses[i]] = 0xC0DE + i;
        }
        for (uint256 i = 0; i < PEOPLE; ++i) {
            (address account, address signer, address guard) = (pool(2 * i), pool(2 * i + 1), pool(6 + i));
            vm.prank(account);
            uint64 uid = registry.register(string.concat("who-", letters(i)), VERIFIER, KDF, guard, signer, RECORD);
            uids.push(uid);
            _models[uid].account = account;
            _models[uid].recovery = guard;
            _devices[uid][1] = Thing(IIdentityRegistry.DeviceState.ACTIVE, 1, signer, false);
            deviceCount[uid] = 1;
        }
    }

    // -------------------------------------------------------------------------------------------- views

    function theRegistry() external view returns (IdentityRegistry) {
        return registry;
    }

    function people() external pure returns (uint256) {
        return PEOPLE;
    }

    function uidAt(uint256 i) public view returns (uint64) {
        return uids[i % PEOPLE];
    }

    function poolSize() external pure returns (uint256) {
        return POOL;
    }

    function pool(uint256 i) public view returns (address) {
        return addresses[i % POOL];
    }

    function model(uint64 uid) external view returns (Model memory m) {
        m = _models[uid];
        m.recovery = recoveryNow(_models[uid]);
    }

    function deviceSeen(uint64 uid, uint32 id) external view returns (Thing memory) {
        return _devices[uid][id];
    }

    function keySeen(uint64 uid, uint32 id) external view returns (Thing memory) {
        return _keys[uid][id];
    }

    function actions() external pure returns (bytes4[] memory all) {
        all = new bytes4[](12);
        all[0] = this.addDevice.selector;
        all[1] = this.updateDevice.selector;
        all[2] = this.revokeDevice.selector;
        all[3] = this.addKey.selector;
        all[4] = this.updateKey.selector;
        all[5] = this.revokeKey.selector;
        all[6] = this.setRecovery.selector;
        all[7] = this.proposeRecovery.selector;
        all[8] = this.vetoRecovery.selector;
        all[9] = this.finaliseRecovery.selector;
        all[10] = this.transfer.selector;
        all[11] = this.pass.selector;
    }

    // ------------------------------------------------------------------------------------------ actions

    function addDevice(uint256 who, uint256 signer) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        vm.prank(by);
        try registry.addDevice(pool(signer), RECORD) returns (uint32 id) {
            account(by, uid);
            adding(uid);
            if (id != ++deviceCount[uid]) ++skippedVersions;
            _devices[uid][id] = Thing(IIdentityRegistry.DeviceState.ACTIVE, 1, pool(signer), false);
        } catch {}
    }

    function updateDevice(uint256 who, uint32 id, uint32 version, uint256 signer) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        id = id % (deviceCount[uid] + 2);
        Thing storage one = _devices[uid][id];
        version = one.version + version % 3;
        vm.prank(by);
        try registry.updateDevice(id, version, pool(signer), RECORD) {
            if (by != one.signer) {
                account(by, uid);
                adding(uid);
            }
            next_(one, version);
            if (pool(signer) != one.signer) one.mute = false;
            one.signer = pool(signer);
        } catch {}
    }

    function revokeDevice(uint256 who, uint32 id) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        id = id % (deviceCount[uid] + 2);
        vm.prank(by);
        try registry.revokeDevice(id) {
            account(by, uid);
            withdrawn(_devices[uid][id]);
        } catch {}
    }

    function addKey(uint256 who, uint256 seed) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        vm.prank(by);
        try registry.addKey(IIdentityRegistry.KeyType.RSA2048_OAEP, rsa(seed)) returns (uint32 id) {
            account(by, uid);
            adding(uid);
            if (id != ++keyCount[uid]) ++skippedVersions;
            _keys[uid][id] = Thing(IIdentityRegistry.DeviceState.ACTIVE, 1, address(0), false);
        } catch {}
    }

    function updateKey(uint256 who, uint32 id, uint32 version, uint256 seed) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        id = id % (keyCount[uid] + 2);
        version = _keys[uid][id].version + version % 3;
        vm.prank(by);
        try registry.updateKey(id, version, rsa(seed)) {
            account(by, uid);
            adding(uid);
            next_(_keys[uid][id], version);
        } catch {}
    }

    function revokeKey(uint256 who, uint32 id) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        id = id % (keyCount[uid] + 2);
        vm.prank(by);
        try registry.revokeKey(id) {
            account(by, uid);
            withdrawn(_keys[uid][id]);
        } catch {}
    }

    function setRecovery(uint256 who, uint256 recovery) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        vm.prank(by);
        try registry.setRecovery(pool(recovery)) {
            account(by, uid);
            adding(uid);
            Model storage m = _models[uid];
            m.recovery = recoveryNow(m);
            m.laterRecovery = pool(recovery);
            m.laterAt = block.timestamp + CHANGE;
        } catch {}
    }

    function proposeRecovery(uint256 who, uint256 of_, uint256 to) external {
        uint64 uid = uidAt(of_);
        address by = mostly(recoveryNow(_models[uid]), who);
        vm.prank(by);
        try registry.proposeRecovery(uid, pool(to)) {
            Model storage m = _models[uid];
            if (by != recoveryNow(m)) ++trespasses;
            m.recovery = recoveryNow(m);
            m.laterAt = 0;
            m.pending = pool(to);
            m.pendingAt = block.timestamp + DELAY;
        } catch {}
    }

    function vetoRecovery(uint256 who) external {
        address by = pool(who);
        uint64 uid = registry.userOf(by);
        vm.prank(by);
        try registry.vetoRecovery() {
            account(by, uid);
            Model storage m = _models[uid];
            if (m.vetoedAt != 0 && block.timestamp < m.vetoedAt + INTERVAL) ++trespasses;
            m.vetoedAt = block.timestamp;
            m.pending = address(0);
        } catch {}
    }

    function finaliseRecovery(uint256 who, uint256 of_) external {
        uint64 uid = uidAt(of_);
        address by = mostly(_models[uid].pending, who);
        vm.prank(by);
        try registry.finaliseRecovery(uid) {
            Model storage m = _models[uid];
            if (by != m.pending || block.timestamp < m.pendingAt) ++trespasses;
            replaced(m, by);
        } catch {}
    }

    function transfer(uint256 of_, uint256 from, uint256 to, uint256 signer) external {
        uint64 uid = uidAt(of_);
        Model storage m = _models[uid];
        bytes32 hash = digest(
            "Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)",
            uid,
            m.epoch,
            abi.encode(m.account, pool(to), uint256(nonceOf(uid)), block.timestamp)
        );
        address giver = mostly(m.account, from);
        address taker = mostly(pool(to), signer);
        bytes memory given = sign(keyOf[giver], hash);
        bytes memory taken = sign(keyOf[taker], hash);
        try registry.transferFor(uid, pool(to), block.timestamp, given, taken) {
            if (giver != m.account || taker != pool(to)) ++trespasses;
            adding(uid);
            replaced(m, pool(to));
        } catch {}
    }

    function pass(uint32 time) external {
        vm.warp(block.timestamp + time % CHANGE);
    }

    // -------------------------------------------------------------------------------------------- parts

    /// @dev The one who may, three times in four, so that much happens; else anybody.
    function mostly(address rightful, uint256 seed) private view returns (address) {
        return rightful == address(0) || seed % 4 == 0 ? pool(seed >> 2) : rightful;
    }

    function account(address by, uint64 uid) private {
        if (by != _models[uid].account) ++trespasses;
    }

    function adding(uint64 uid) private {
        if (_models[uid].pending != address(0)) ++additionsWhilePending;
    }

    function next_(Thing storage one, uint32 version) private {
        if (one.state != IIdentityRegistry.DeviceState.ACTIVE) ++resurrections;
        if (version != one.version + 1) ++skippedVersions;
        one.version = version;
    }

    function withdrawn(Thing storage one) private {
        if (one.state != IIdentityRegistry.DeviceState.ACTIVE) ++resurrections;
        one.state = IIdentityRegistry.DeviceState.REVOKED;
    }

    function replaced(Model storage m, address by) private {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            for (uint32 id = 1; id <= deviceCount[uids[i]]; ++id) {
                Thing storage one = _devices[uids[i]][id];
                if (one.signer == by) one.mute = true;
            }
        }
        m.account = by;
        ++m.epoch;
        m.pending = address(0);
        ++replacements;
    }

    function recoveryNow(Model storage m) private view returns (address) {
        return m.laterAt != 0 && block.timestamp >= m.laterAt ? m.laterRecovery : m.recovery;
    }
}
