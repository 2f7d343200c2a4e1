// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Vm} from "./Vm.sol";
import {Digests} from "./Digests.sol";
import {Directory} from "../../src/Directory.sol";
import {IdentityRegistry} from "../../src/IdentityRegistry.sol";
import {Membership} from "../../src/Membership.sol";
import {MessageLedger} from "../../src/MessageLedger.sol";
import {RewardDistributor} from "../../src/RewardDistributor.sol";
import {IDirectory} from "../../src/interfaces/IDirectory.sol";
import {IGoverned} from "../../src/interfaces/IGoverned.sol";
import {IIdentityRegistry} from "../../src/interfaces/IIdentityRegistry.sol";
import {IMembership} from "../../src/interfaces/IMembership.sol";
import {IMessageLedger} from "../../src/interfaces/IMessageLedger.sol";
import {IRewardDistributor} from "../../src/interfaces/IRewardDistributor.sol";
import {ISigned} from "../../src/interfaces/ISigned.sol";

/// @notice A network with all of its contracts, deployed by this contract as a deployer would, and people to act in it.
abstract contract World {
    /// @dev One user: account and first device, with the keys of both.
    struct Person {
        uint64 uid;
        uint256 key;
        address account;
        uint256 deviceKey;
        address signer;
    }

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_TEST = true;

    uint32 internal constant NETWORK = 0;
    uint16 internal constant HALF = 5000;
    uint32 internal constant WEEK = 7 days;
    uint256 internal constant NOW = 1_800_000_000;
    uint64 internal constant WINDOW = 3 days;
    uint128 internal constant CAP = 1000e18;
    bytes32 internal constant VERIFIER = keccak256("verifier");
    bytes internal constant KDF = hex"0102030405060708090a0b0c0d0e0f10";
    bytes internal constant RECORD = "a device record";
    address internal constant RECOVERY = address(0xBAC);

    Digests internal digests;
    IdentityRegistry internal registry;
    Membership internal membership;
    MessageLedger internal ledger;
    RewardDistributor internal distributor;
    Directory internal directory;

    function setUp() public virtual {
        vm.warp(NOW);
        digests = new Digests();
        deploy(IMembership.Policy.VOTE, HALF, WEEK);
    }

    function deploy(IMembership.Policy policy, uint16 threshold, uint32 votingPeriod) internal {
        string[] memory reserved = new string[](2);
        reserved[0] = "admin";
        reserved[1] = "chat-chain";
        registry = new IdentityRegistry(reserved);
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 3);
        membership = new Membership(registry, next, policy, IMembership.Rules(threshold, votingPeriod));
        ledger = new MessageLedger(next, membership);
        distributor = new RewardDistributor(next, membership, WINDOW, CAP);
        directory = new Directory(registry, membership, ledger, distributor);
    }

    /// @dev Enters a relay and ends this contract's role as the deployer; somebody must be seated.
    function seal() internal {
        IDirectory.Relay[] memory list = new IDirectory.Relay[](1);
        list[0] = IDirectory.Relay("relay.example:5555", keccak256("spki"), 0);
        directory.setRelays(list);
        directory.seal();
    }

    /// @dev Names the keys of a person without registering anybody.
    function stranger(string memory name) internal pure returns (Person memory p) {
        p.key = uint256(keccak256(bytes(name))) >> 8;
        p.account = vm.addr(p.key);
        p.deviceKey = uint256(keccak256(bytes.concat("device of ", bytes(name)))) >> 8;
        p.signer = vm.addr(p.deviceKey);
    }

    /// @dev Registers a person under a name, by the person's own transaction.
    function join(string memory name) internal returns (Person memory p) {
        p = stranger(name);
        vm.prank(p.account);
        p.uid = registry.register(name, VERIFIER, KDF, RECOVERY, p.signer, RECORD);
    }

    /// @dev Registers so many people, named member-0 and so on, and seats them in group 0.
    function found(uint256 count) internal returns (Person[] memory people) {
        people = new Person[](count);
        uint64[] memory uids = new uint64[](count);
        for (uint256 i = 0; i < count; ++i) {
            people[i] = join(string.concat("member-", letters(i)));
            uids[i] = people[i].uid;
        }
        membership.seat(uids);
    }

    function seat(uint64 uid) internal {
        uint64[] memory uids = new uint64[](1);
        uids[0] = uid;
        membership.seat(uids);
    }

    function voteOf(Person memory p, uint64 id, bool support) internal {
        vm.prank(p.account);
        membership.vote(id, support);
    }

    function requestOf(Person memory p) internal returns (uint64 id) {
        vm.prank(p.account);
        return membership.request(NETWORK);
    }

    /// @dev Opens a proposal about no user in group 0.
    function proposeOffice(Person memory by, IMembership.Kind kind, bytes memory data) internal returns (uint64 id) {
        vm.prank(by.account);
        return membership.propose(NETWORK, kind, 0, data);
    }

    function proposeExpel(Person memory by, uint64 subject, bytes memory data) internal returns (uint64 id) {
        vm.prank(by.account);
        return membership.propose(NETWORK, IMembership.Kind.EXPEL, subject, data);
    }

    function proposeAdmit(Person memory by, uint64 subject, bytes memory data) internal returns (uint64 id) {
        vm.prank(by.account);
        return membership.propose(NETWORK, IMembership.Kind.ADMIT, subject, data);
    }

    function stateOf(uint64 id) internal view returns (IMembership.State) {
        return membership.proposal(id).state;
    }

    function isMember(uint64 uid) internal view returns (bool active) {
        (active,) = membership.member(NETWORK, uid);
    }

    function nonceOf(uint64 uid) internal view returns (uint32 nonce) {
        (,,, nonce,,) = registry.user(uid);
    }

    /// @dev Raises a user's epoch by one, as nothing in the contracts does yet: straight in the storage.
    function raiseEpoch(uint64 uid) internal {
        bytes32 slot = keccak256(abi.encode(uid, uint256(3)));
        (address account, uint32 epoch,,,,) = registry.user(uid);
        vm.store(address(registry), slot, bytes32(uint256(vm.load(address(registry), slot)) + (1 << 160)));
        (address same, uint32 raised,,,,) = registry.user(uid);
        vm.assertEq(same, account, "the account stays");
        vm.assertEq(raised, epoch + 1, "the epoch rises");
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The EIP-2098 form of the same signature.
    function signShort(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    /// @dev The other signature that leads to the same key, which anybody can make from the first.
    function signMalleable(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        return abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
    }

    function assertState(uint64 id, IMembership.State expected, string memory label) internal view {
        vm.assertEq(uint256(stateOf(id)), uint256(expected), label);
    }

    /// @dev Compares all that the registry keeps of a device.
    function assertDevice(
        uint64 uid,
        uint32 deviceId,
        IIdentityRegistry.DeviceState state,
        uint32 version,
        address signer,
        bytes32 head
    ) internal view {
        (IIdentityRegistry.DeviceState s, uint32 v, address a, bytes32 h) = registry.device(uid, deviceId);
        vm.assertEq(uint256(s), uint256(state), "device state");
        vm.assertEq(v, version, "device version");
        vm.assertEq(a, signer, "device signer");
        vm.assertEq(h, head, "device head");
    }

    function assertResolves(address principal, uint64 uid, uint32 deviceId) internal view {
        (uint64 u, uint32 d, uint32 e) = registry.resolve(principal);
        vm.assertEq(u, uid, "resolved uid");
        vm.assertEq(d, deviceId, "resolved device");
        vm.assertEq(e, 0, "resolved epoch");
        vm.assertEq(registry.userOf(principal), uid, "userOf");
    }

    function firstHead(bytes memory record) internal pure returns (bytes32) {
        return nextHead(bytes32(0), 1, record);
    }

    function nextHead(bytes32 head, uint256 version, bytes memory record) internal pure returns (bytes32) {
        return keccak256(bytes.concat(head, bytes32(version), keccak256(record)));
    }

    /// @dev 0 -> "a", 25 -> "z", 26 -> "ba": digits in base 26.
    function letters(uint256 number) internal pure returns (string memory text) {
        do {
            text = string.concat(string(abi.encodePacked(bytes1(uint8(97 + number % 26)))), text);
            number /= 26;
        } while (number != 0);
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    /// @dev Cuts or fills fuzzed bytes to a length within the bounds.
    function sized(bytes memory data, uint256 low, uint256 high) internal pure returns (bytes memory out) {
        uint256 length = data.length < low ? low : data.length > high ? high : data.length;
        out = new bytes(length);
        for (uint256 i = 0; i < length && i < data.length; ++i) {
            out[i] = data[i];
        }
    }
}
