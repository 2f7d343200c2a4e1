// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {Vm} from "../base/Vm.sol";
import {IIdentityRegistry, IMembership, IdentityRegistry, Membership, World} from "../base/World.sol";

/// @notice Eight users who do anything that the contracts offer, in their own and in others' names. Beside the
/// contracts it keeps what an observer knows: the fold of the events, and who asked for what.
contract Crowd is World {
    uint256 private constant PEOPLE = 8;
    uint256 private constant FOUNDERS = 4;

    Person[] private folk;

    uint256 public successes;
    uint256 public trespasses;
    uint256 public skippedVersions;
    uint256 public resurrections;
    uint32 public joinings;
    uint32 public departures;
    bytes32 public roster;
    mapping(uint64 uid => bool) public inside;
    mapping(uint64 id => mapping(uint64 uid => uint256)) public votesCast;
    mapping(uint64 uid => uint32) public deviceCount;
    mapping(uint64 uid => mapping(uint32 deviceId => IIdentityRegistry.DeviceInfo)) private _seen;
    mapping(uint64 id => IMembership.State) private _verdicts;

    function setUp() public override {
        super.setUp();
        vm.recordLogs();
        for (uint256 i = 0; i < PEOPLE; ++i) {
            folk.push(join(string.concat("folk-", letters(i))));
            vm.prank(folk[i].account); // a second device, for the first to meddle with
            registry.addDevice(address(uint160(0xE000 + i)), RECORD);
        }
        uint64[] memory uids = new uint64[](FOUNDERS);
        for (uint256 i = 0; i < FOUNDERS; ++i) {
            uids[i] = folk[i].uid;
        }
        membership.seat(uids);
        observe(0, 0, false);
    }

    // -------------------------------------------------------------------------------------------- views

    function theRegistry() external view returns (IdentityRegistry) {
        return registry;
    }

    function theMembership() external view returns (Membership) {
        return membership;
    }

    function people() external pure returns (uint256) {
        return PEOPLE;
    }

    function uidAt(uint256 i) external view returns (uint64) {
        return folk[i].uid;
    }

    function accountAt(uint256 i) external view returns (address) {
        return folk[i].account;
    }

    function seen(uint64 uid, uint32 id)
        external
        view
        returns (IIdentityRegistry.DeviceState, uint32, address, bytes32)
    {
        IIdentityRegistry.DeviceInfo memory one = _seen[uid][id];
        return (one.state, one.version, one.signer, one.head);
    }

    /// @dev Whether a proposal shows another state than the one that it was closed with.
    function reopened(uint64 id) external view returns (bool) {
        IMembership.State verdict = _verdicts[id];
        return verdict != IMembership.State.NONE && stateOf(id) != verdict;
    }

    function actions() external pure returns (bytes4[] memory all) {
        all = new bytes4[](9);
        all[0] = this.askToJoin.selector;
        all[1] = this.propose.selector;
        all[2] = this.vote.selector;
        all[3] = this.voteBySignature.selector;
        all[4] = this.voteAsOneBlock.selector;
        all[5] = this.close.selector;
        all[6] = this.addDevice.selector;
        all[7] = this.updateDevice.selector;
        all[8] = this.revokeDevice.selector;
    }

    // ------------------------------------------------------------------------------------------ actions

    function askToJoin(uint256 who) external {
        Person memory p = pick(who);
        vm.prank(p.account);
        try membership.request(NETWORK) {
            observe(p.uid, 0, true);
        } catch {}
    }

    function propose(uint256 who, uint256 about, bool expel, bool reason) external {
        Person memory p = pick(who);
        IMembership.Kind kind = expel ? IMembership.Kind.EXPEL : IMembership.Kind.ADMIT;
        vm.prank(p.account);
        try membership.propose(NETWORK, kind, pick(about).uid, reason ? bytes("reason") : bytes("")) {
            observe(p.uid, 0, true);
        } catch {}
    }

    function vote(uint256 who, uint256 which, bool support, bool byDevice) external {
        castBy(pick(who), pickProposal(which), support, byDevice);
    }

    function voteBySignature(uint256 who, uint256 which, bool support, bool byDevice, bool forged) external {
        Person memory p = pick(who);
        uint64 id = pickProposal(which);
        uint256 key = forged ? pick(who >> 128).key : byDevice ? p.deviceKey : p.key;
        bytes memory signature = sign(key, digests.vote(address(membership), id, p.uid, 0, support));
        try membership.voteBySig(id, support, byDevice ? p.signer : p.account, signature) {
            ++votesCast[id][p.uid];
            observe(p.uid, 0, true);
        } catch {}
    }

    /// @dev Everybody votes the same way, so that verdicts and changes of the roster are frequent.
    function voteAsOneBlock(uint256 which, bool support) external {
        uint64 id = pickProposal(which);
        for (uint256 i = 0; i < PEOPLE; ++i) {
            castBy(folk[i], id, support, false);
        }
    }

    function close(uint256 which, uint32 later) external {
        vm.warp(block.timestamp + later % (2 * WEEK));
        try membership.close(pickProposal(which)) {
            observe(0, 0, true);
        } catch {}
    }

    function addDevice(uint256 who, uint256 signer, bool bySigner) external {
        Person memory p = pick(who);
        vm.prank(bySigner ? p.signer : p.account);
        try registry.addDevice(anAddress(signer), abi.encode(signer)) {
            observe(bySigner ? 0 : p.uid, 0, true);
        } catch {}
    }

    /// @dev In the sender's own name; and by signature in the name of a third person, with the sender's key.
    function updateDevice(uint256 who, uint32 id, uint32 version, uint256 signer, bool bySigner, bool signed) external {
        Person memory p = pick(who);
        Digests.Update memory u;
        u.uid = signed ? pick(who >> 64).uid : p.uid;
        u.deviceId = id % (deviceCount[u.uid] + 2); // at times one that does not exist
        (, uint32 current,,) = registry.device(u.uid, u.deviceId);
        u.version = current + version % 3;
        u.signer = anAddress(signer);
        u.record = abi.encode(signer, version);
        u.deadline = block.timestamp;
        address by = bySigner ? p.signer : p.account;
        (uint64 owner, uint32 device,) = registry.resolve(by);
        if (signed) {
            bytes memory signature = sign(bySigner ? p.deviceKey : p.key, digests.updateDevice(address(registry), u));
            try registry.updateDeviceFor(u.uid, u.deviceId, u.version, u.signer, u.record, u.deadline, by, signature) {
                observe(owner, device, true);
            } catch {}
        } else {
            vm.prank(by);
            try registry.updateDevice(u.deviceId, u.version, u.signer, u.record) {
                observe(owner, device, true);
            } catch {}
        }
    }

    function revokeDevice(uint256 who, uint32 id, bool bySigner) external {
        Person memory p = pick(who);
        vm.prank(bySigner ? p.signer : p.account);
        try registry.revokeDevice(id % 4) {
            observe(bySigner ? 0 : p.uid, 0, true);
        } catch {}
    }

    // -------------------------------------------------------------------------------------------- parts

    function castBy(Person memory p, uint64 id, bool support, bool byDevice) private {
        vm.prank(byDevice ? p.signer : p.account);
        try membership.vote(id, support) {
            // A signer may have come to serve another user: the vote is that one's.
            ++votesCast[id][byDevice ? registry.userOf(p.signer) : p.uid];
            observe(p.uid, 0, true);
        } catch {}
    }

    function pick(uint256 who) private view returns (Person memory) {
        return folk[who % PEOPLE];
    }

    /// @dev One of the last few, so that votes meet; 0 and the next one do not exist.
    function pickProposal(uint256 which) private view returns (uint64) {
        uint64 count = membership.proposalCount();
        uint64 back = uint64(which % 6);
        return back > count ? 0 : count + 1 - back;
    }

    /// @dev A small world of addresses, so that takers meet those who let go.
    function anAddress(uint256 seed) private view returns (address) {
        uint256 choice = seed % 40;
        if (choice < PEOPLE) return folk[choice].signer;
        if (choice < 2 * PEOPLE) return folk[choice - PEOPLE].account;
        return address(uint160(0xD000 + choice));
    }

    /// @dev Folds the events of the last action, which `owner` asked for as account (device 0) or as that device.
    function observe(uint64 owner, uint32 device, bool acted) private {
        if (acted) ++successes;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            bytes32 kind = logs[i].topics[0];
            if (logs[i].emitter == address(membership)) {
                if (kind == IMembership.MemberAdded.selector) onMember(logs[i], true);
                if (kind == IMembership.MemberRemoved.selector) onMember(logs[i], false);
                if (kind == IMembership.Closed.selector) {
                    uint64 id = uint64(uint256(logs[i].topics[1]));
                    _verdicts[id] = abi.decode(logs[i].data, (IMembership.State));
                }
                continue;
            }
            bool isDevice = kind == IIdentityRegistry.DeviceAdded.selector
                || kind == IIdentityRegistry.DeviceUpdated.selector || kind == IIdentityRegistry.DeviceRevoked.selector;
            if (isDevice) onDevice(kind, logs[i], owner, device, acted);
        }
    }

    function onMember(Vm.Log memory log, bool added) private {
        uint64 uid = uint64(uint256(log.topics[2]));
        (uint32 sequence,,) = abi.decode(log.data, (uint32, uint32, bytes32));
        if (added) ++joinings;
        else ++departures;
        inside[uid] = added;
        roster = keccak256(
            bytes.concat(roster, bytes32(uint256(added ? 1 : 2)), bytes32(uint256(uid)), bytes32(uint256(sequence)))
        );
    }

    function onDevice(bytes32 kind, Vm.Log memory log, uint64 owner, uint32 device, bool acted) private {
        uint64 uid = uint64(uint256(log.topics[1]));
        uint32 id = uint32(uint256(log.topics[2]));
        IIdentityRegistry.DeviceInfo storage one = _seen[uid][id];
        bool update = kind == IIdentityRegistry.DeviceUpdated.selector;
        if (acted && (uid != owner || (device != 0 && !(update && device == id)))) ++trespasses;
        if (one.state == IIdentityRegistry.DeviceState.REVOKED) ++resurrections;
        if (kind == IIdentityRegistry.DeviceRevoked.selector) {
            one.state = IIdentityRegistry.DeviceState.REVOKED;
            return;
        }
        uint32 version = 1;
        bytes memory record;
        if (update) {
            (version, record) = abi.decode(log.data, (uint32, bytes));
        } else {
            record = abi.decode(log.data, (bytes));
            if (id != ++deviceCount[uid]) ++skippedVersions;
        }
        if (version != one.version + 1) ++skippedVersions;
        one.state = IIdentityRegistry.DeviceState.ACTIVE;
        one.version = version;
        one.signer = address(uint160(uint256(log.topics[3])));
        one.head = nextHead(one.head, version, record);
    }
}
