// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Vm} from "../base/Vm.sol";
import {
    IDirectory,
    IMembership,
    IMessageLedger,
    IRewardDistributor,
    Membership,
    MessageLedger,
    RewardDistributor,
    World
} from "../base/World.sol";

/// @notice Seven users in a sealed network and in groups of their own who propose everything everywhere, sane or not,
/// vote one by one and in batches, leave, anchor and claim. Beside the contracts it keeps what an observer knows.
contract Assembly is World {
    uint256 private constant PEOPLE = 7;
    uint256 private constant FOUNDERS = 4;
    uint256 private constant WITNESS = uint256(keccak256("witness")) >> 8;

    Person[] private folk;

    uint256 public successes;
    uint256 public officesFilled;
    uint256 public trespasses;
    uint256 public shrunk;
    uint256 public minted;
    uint64 public epochs;
    mapping(uint32 group => uint256) private founderOf;
    mapping(uint32 group => uint32) public joinings;
    mapping(uint32 group => uint32) public departures;
    mapping(uint32 group => bytes32) public roster;
    mapping(uint64 id => mapping(uint64 uid => uint256)) public votesCounted;
    mapping(address account => uint256) public given;
    mapping(bytes32 logId => uint64) public size;

    function setUp() public override {
        super.setUp();
        vm.recordLogs();
        for (uint256 i = 0; i < PEOPLE; ++i) {
            folk.push(join(string.concat("folk-", letters(i))));
        }
        uint64[] memory uids = new uint64[](FOUNDERS);
        for (uint256 i = 0; i < FOUNDERS; ++i) {
            uids[i] = folk[i].uid;
        }
        membership.seat(uids);
        address[] memory witnesses = new address[](1);
        witnesses[0] = vm.addr(WITNESS);
        ledger.setWitnesses(1, witnesses);
        ledger.setAnchorer(folk[0].account, logIdAt(0));
        distributor.setSetter(folk[0].account);
        seal();
        vm.getRecordedLogs();
        for (uint256 i = 0; i < FOUNDERS; ++i) {
            ++joinings[NETWORK];
            roster[NETWORK] = turn(roster[NETWORK], 1, uids[i], uint32(i + 1));
        }
    }

    // -------------------------------------------------------------------------------------------- views

    function theMembership() external view returns (Membership) {
        return membership;
    }

    function theLedger() external view returns (MessageLedger) {
        return ledger;
    }

    function theDistributor() external view returns (RewardDistributor) {
        return distributor;
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

    function logIdAt(uint256 i) public pure returns (bytes32) {
        return keccak256(abi.encode("log", i));
    }

    function actions() external pure returns (bytes4[] memory all) {
        all = new bytes4[](9);
        all[0] = this.createGroup.selector;
        all[1] = this.leave.selector;
        all[2] = this.request.selector;
        all[3] = this.proposeOnMembers.selector;
        all[4] = this.proposeOnOffices.selector;
        all[5] = this.voteTogether.selector;
        all[6] = this.vote.selector;
        all[7] = this.anchor.selector;
        all[8] = this.earn.selector;
    }

    // ------------------------------------------------------------------------------------------ actions

    function createGroup(uint256 who, bool alone, uint16 threshold) external {
        uint64[] memory founders = new uint64[](alone ? 0 : 1);
        if (!alone) founders[0] = pick(who >> 64).uid;
        string memory name = string.concat("group-", letters(membership.groupCount()));
        vm.prank(pick(who).account);
        try membership.createGroup(name, founders, IMembership.Rules(threshold % 10_001, WEEK)) returns (uint32 id) {
            founderOf[id] = who;
            observe();
        } catch {
            forget();
        }
    }

    function leave(uint256 who, uint256 where) external {
        vm.prank(pick(who).account);
        try membership.leave(aGroup(where)) {
            observe();
        } catch {
            forget();
        }
    }

    function request(uint256 who, uint256 where) external {
        vm.prank(pick(who).account);
        try membership.request(aGroup(where)) {
            observe();
        } catch {
            forget();
        }
    }

    function proposeOnMembers(uint256 who, uint256 where, uint256 about, bool expel) external {
        IMembership.Kind kind = expel ? IMembership.Kind.EXPEL : IMembership.Kind.ADMIT;
        uint32 group = aGroup(where);
        vm.prank(insider(who, group).account);
        try membership.propose(group, kind, pick(about).uid, "") {
            observe();
        } catch {
            forget();
        }
    }

    /// @dev A fifth of the data is garbage.
    function proposeOnOffices(uint256 who, uint256 where, uint8 what, uint256 seed) external {
        IMembership.Kind kind = IMembership.Kind(bound(what, 2, 9));
        address holder = pick(seed).account;
        bytes memory data = abi.encode(seed);
        if (seed % 5 != 0) {
            if (kind == IMembership.Kind.SET_RULES) data = abi.encode(seed % 2, 4000 + seed % 2000, WEEK);
            if (kind == IMembership.Kind.SET_ANCHORER) data = abi.encode(holder, logIdAt(seed % 4));
            if (kind == IMembership.Kind.SET_WITNESSES) data = abi.encode(uint8(1), single(vm.addr(WITNESS)));
            if (kind == IMembership.Kind.SET_RELAYS) data = abi.encode(new IDirectory.Relay[](0));
            if (kind == IMembership.Kind.SET_REWARDS) data = abi.encode(holder);
            if (kind == IMembership.Kind.SUCCESSOR) data = abi.encode(address(registry));
        }
        uint32 group = aGroup(where);
        vm.prank(insider(who, group).account);
        try membership.propose(group, kind, 0, data) {
            observe();
        } catch {
            forget();
        }
    }

    /// @dev All sign, some badly, some twice; whether they may is the contract's to find out.
    function voteTogether(uint256 which, bool support, uint256 forged, uint32 later) external {
        if (later % 4 == 0) vm.warp(block.timestamp + later % (2 * WEEK));
        uint64 id = aProposal(which);
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](PEOPLE + 1);
        for (uint256 i = 0; i <= PEOPLE; ++i) {
            Person memory p = folk[i % PEOPLE];
            bytes32 digest = digests.vote(address(membership), id, p.uid, 0, support);
            bytes memory signature = sign((forged >> i) % 8 == 0 ? WITNESS : p.key, digest);
            items[i] = IMembership.SignedVote(id, support, p.account, signature);
        }
        uint256 counted = membership.voteBatch(items);
        if (counted != observe()) ++trespasses;
    }

    function vote(uint256 who, uint256 which, bool support) external {
        vm.prank(pick(who).account);
        try membership.vote(aProposal(which), support) {
            observe();
        } catch {
            forget();
        }
    }

    function anchor(uint256 who, uint256 which, uint64 leaves, bool forged) external {
        Person memory p = who % 2 == 0 ? pick(who) : folk[0];
        bytes32 logId = who % 3 == 0 ? logIdAt(which % 4) : ledger.currentLog();
        leaves = ledger.log(logId).size + leaves % 64;
        bytes32 root = keccak256(abi.encode(leaves));
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = sign(forged ? p.key : WITNESS, digests.treeHead(address(ledger), logId, leaves, root));
        vm.prank(p.account);
        try ledger.anchor(logId, leaves, root, signatures) {
            observe();
        } catch {
            forget();
        }
    }

    /// @dev Somebody publishes a root of one leaf, of any total, and claims it when its time has come.
    function earn(uint256 who, uint128 amount, uint128 total, uint32 later) external {
        Person memory p = who % 2 == 0 ? pick(who) : folk[0];
        IRewardDistributor.Epoch memory e = distributor.current();
        uint256 cumulative = distributor.claimed(p.account) + amount % CAP;
        bytes32 root = keccak256(bytes.concat(keccak256(abi.encode(p.account, cumulative))));
        vm.prank(p.account);
        try distributor.setRoot(root, e.epoch + 1, uint128(e.total + total % (CAP + CAP / 4))) {
            observe();
        } catch {
            forget();
        }
        vm.warp(block.timestamp + later % (2 * WINDOW));
        try distributor.claimFor(p.account, cumulative, root, new bytes32[](0)) {
            observe();
        } catch {
            forget();
        }
    }

    // -------------------------------------------------------------------------------------------- parts

    function pick(uint256 who) private view returns (Person memory) {
        return folk[who % PEOPLE];
    }

    /// @dev Most often the network; at times one that does not exist. What the runner draws is often a small number,
    /// hence the hash.
    function aGroup(uint256 where) private view returns (uint32) {
        where = uint256(keccak256(abi.encode(where)));
        return where % 2 == 0 ? NETWORK : uint32((where >> 8) % (membership.groupCount() + 1));
    }

    /// @dev Three times in four whoever founded the group, so that small groups decide things too.
    function insider(uint256 who, uint32 group) private view returns (Person memory) {
        return group == NETWORK || who % 4 == 0 ? pick(who) : pick(founderOf[group]);
    }

    /// @dev One of the last few, so that votes meet.
    function aProposal(uint256 which) private view returns (uint64) {
        uint64 count = membership.proposalCount();
        uint64 back = uint64(which % 4);
        return back >= count ? count : count - back;
    }

    function single(address one) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = one;
    }

    function turn(bytes32 before, uint8 change, uint64 uid, uint32 sequence) private pure returns (bytes32) {
        return
            keccak256(bytes.concat(before, bytes32(uint256(change)), bytes32(uint256(uid)), bytes32(uint256(sequence))));
    }

    /// @dev Drops the events of an action that was undone; the recorder keeps them too.
    function forget() private {
        vm.getRecordedLogs();
    }

    /// @dev Folds the events of the last action; gives how many votes were counted.
    function observe() private returns (uint256 votes) {
        ++successes;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 offices;
        bool byTheNetwork;
        for (uint256 i = 0; i < logs.length; ++i) {
            bytes32 kind = logs[i].topics[0];
            if (logs[i].emitter == address(membership)) {
                if (kind == IMembership.MemberAdded.selector) onMember(logs[i], true);
                if (kind == IMembership.MemberRemoved.selector) onMember(logs[i], false);
                if (kind == IMembership.Voted.selector) {
                    ++votesCounted[uint64(uint256(logs[i].topics[1]))][uint64(uint256(logs[i].topics[2]))];
                    ++votes;
                }
                if (kind == IMembership.Closed.selector) {
                    IMembership.ProposalInfo memory p = membership.proposal(uint64(uint256(logs[i].topics[1])));
                    bool passed = abi.decode(logs[i].data, (IMembership.State)) == IMembership.State.PASSED;
                    if (p.group != NETWORK && p.kind > IMembership.Kind.SET_RULES) ++trespasses;
                    byTheNetwork = byTheNetwork || (passed && p.kind >= IMembership.Kind.SET_RULES);
                }
                if (kind == IMembership.Paused.selector || kind == IMembership.Unpaused.selector) ++offices;
            } else if (kind == IMessageLedger.HeadAnchored.selector) {
                (uint64 leaves,) = abi.decode(logs[i].data, (uint64, bytes32));
                if (leaves <= size[logs[i].topics[1]]) ++shrunk;
                size[logs[i].topics[1]] = leaves;
            } else if (kind == IRewardDistributor.Claimed.selector) {
                (uint256 amount,) = abi.decode(logs[i].data, (uint256, uint256));
                given[address(uint160(uint256(logs[i].topics[1])))] += amount;
                minted += amount;
            } else if (kind == IRewardDistributor.RootSet.selector) {
                epochs = uint64(uint256(logs[i].topics[1]));
            } else if (isOffice(kind)) {
                ++offices;
            }
        }
        if (offices > 0 && !byTheNetwork) ++trespasses;
        officesFilled += offices;
    }

    function isOffice(bytes32 kind) private pure returns (bool) {
        return kind == IMessageLedger.AnchorerSet.selector || kind == IMessageLedger.WitnessesSet.selector
            || kind == IDirectory.RelaysSet.selector || kind == IDirectory.SuccessorSet.selector
            || kind == IRewardDistributor.SetterSet.selector;
    }

    function onMember(Vm.Log memory log, bool added) private {
        uint32 group = uint32(uint256(log.topics[1]));
        (uint32 sequence,,) = abi.decode(log.data, (uint32, uint32, bytes32));
        if (added) ++joinings[group];
        else ++departures[group];
        roster[group] = turn(roster[group], added ? 1 : 2, uint64(uint256(log.topics[2])), sequence);
    }
}
