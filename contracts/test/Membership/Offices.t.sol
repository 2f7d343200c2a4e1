// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory, IMembership, IRewardDistributor, World} from "../base/World.sol";

/// @notice What group 0 alone votes on: every office of the network, and the pause.
contract OfficesTest is World {
    Person private ada;
    Person private bob;
    Person private cem;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(3);
        (ada, bob, cem) = (people[0], people[1], people[2]);
        seal();
    }

    function decide(uint64 id) private {
        voteOf(ada, id, true);
        voteOf(bob, id, true);
    }

    function enact(IMembership.Kind kind, bytes memory data, IMembership.State expected) private {
        uint64 id = proposeOffice(ada, kind, data);
        decide(id);
        assertState(id, expected, "state");
    }

    function relays(uint256 count) private pure returns (IDirectory.Relay[] memory list) {
        list = new IDirectory.Relay[](count);
        for (uint256 i = 0; i < count; ++i) {
            string memory host =
                string.concat("relay-", letters(i), ".a-rather-long-name.of-some-operator.example:5555");
            list[i] = IDirectory.Relay(host, keccak256(abi.encode(i)), keccak256(abi.encode(i, i)));
        }
    }

    function witnesses(uint256 count) private pure returns (address[] memory list) {
        list = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = address(uint160(0x1000 + i));
        }
    }

    // ------------------------------------------------------------------------------------------ reverts

    /// @dev A group of one cannot vote itself into the network's offices.
    function test_revertsForAnyGroupButTheNetwork() public {
        vm.prank(cem.account);
        uint32 club = membership.createGroup("club", new uint64[](0), IMembership.Rules(1, 60));
        for (uint256 kind = uint256(IMembership.Kind.SET_ANCHORER); kind <= uint256(IMembership.Kind.UNPAUSE); ++kind) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.NetworkOnly.selector, kind));
            vm.prank(cem.account);
            membership.propose(club, IMembership.Kind(kind), 0, abi.encode(cem.account));
        }
    }

    function test_revertsOnSubjects() public {
        for (uint256 kind = uint256(IMembership.Kind.SET_RULES); kind <= uint256(IMembership.Kind.UNPAUSE); ++kind) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.BadSubject.selector, bob.uid));
            vm.prank(ada.account);
            membership.propose(NETWORK, IMembership.Kind(kind), bob.uid, "");
        }
    }

    function test_revertsOnLongPayloads() public {
        proposeOffice(ada, IMembership.Kind.SET_RELAYS, new bytes(4096));
        vm.expectRevert(abi.encodeWithSelector(IMembership.DataTooLong.selector, 4097));
        proposeOffice(ada, IMembership.Kind.SET_RELAYS, new bytes(4097));
        vm.expectRevert(abi.encodeWithSelector(IMembership.DataTooLong.selector, 1025));
        proposeOffice(ada, IMembership.Kind.PAUSE, new bytes(1025));
        vm.expectRevert(abi.encodeWithSelector(IMembership.DataTooLong.selector, 1025));
        proposeOffice(ada, IMembership.Kind.UNPAUSE, new bytes(1025));
    }

    // ---------------------------------------------------------------------------------------- every role

    function test_anchorer() public {
        enact(IMembership.Kind.SET_ANCHORER, abi.encode(address(1), keccak256("log")), IMembership.State.PASSED);
        vm.assertEq(ledger.anchorer(), address(1), "anchorer");
        vm.assertEq(ledger.currentLog(), keccak256("log"), "log");
        enact(IMembership.Kind.SET_ANCHORER, abi.encode(address(2), keccak256("log")), IMembership.State.PASSED);
        vm.assertEq(ledger.anchorer(), address(2), "a lost or rogue one is replaced");
    }

    function test_witnesses() public {
        enact(IMembership.Kind.SET_WITNESSES, abi.encode(uint8(9), witnesses(16)), IMembership.State.PASSED);
        (uint8 quorum, address[] memory list) = ledger.witnesses();
        vm.assertTrue(quorum == 9 && list.length == 16, "nine of sixteen");
        enact(IMembership.Kind.SET_WITNESSES, abi.encode(uint8(1), witnesses(1)), IMembership.State.PASSED);
        (quorum, list) = ledger.witnesses();
        vm.assertTrue(quorum == 1 && list.length == 1, "one of one");
    }

    /// @dev The largest lists that fit, one after the other, within the gas that the call is given.
    function test_relays() public {
        uint64 id = proposeOffice(ada, IMembership.Kind.SET_RELAYS, abi.encode(relays(14)));
        voteOf(ada, id, true);
        uint256 before = gasleft();
        vm.expectEmit(address(directory));
        emit IDirectory.RelaysSet(relays(14));
        voteOf(bob, id, true);
        vm.assertLe(before - gasleft(), 5_000_000, "gas");
        vm.assertEq(abi.encode(directory.relays()), abi.encode(relays(14)), "relays");
        enact(IMembership.Kind.SET_RELAYS, abi.encode(relays(13)), IMembership.State.PASSED);
        vm.assertEq(abi.encode(directory.relays()), abi.encode(relays(13)), "relays");
    }

    function test_rewards() public {
        enact(IMembership.Kind.SET_REWARDS, abi.encode(address(1)), IMembership.State.PASSED);
        vm.assertEq(distributor.setter(), address(1), "setter");
        vm.prank(address(1));
        distributor.setRoot(keccak256("rogue"), 1, 10);
        enact(IMembership.Kind.SET_REWARDS, abi.encode(address(2)), IMembership.State.PASSED);
        vm.assertEq(distributor.setter(), address(2), "a rogue one is replaced");
        vm.assertEq(distributor.pending().epoch, 0, "and its root is gone");
    }

    function test_successor() public {
        enact(IMembership.Kind.SUCCESSOR, abi.encode(address(registry)), IMembership.State.PASSED);
        vm.assertEq(directory.successor(), address(registry), "successor");
        enact(IMembership.Kind.SUCCESSOR, abi.encode(address(0)), IMembership.State.PASSED);
        vm.assertEq(directory.successor(), address(0), "withdrawn");
    }

    function test_theEffectStandsBeforeTheVerdict() public {
        bytes memory data = abi.encode(address(1));
        uint64 id = proposeOffice(ada, IMembership.Kind.SET_REWARDS, data);
        vm.assertEq(membership.payload(id), data, "payload");
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Voted(id, bob.uid, true, 2, 0);
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.SetterSet(address(1));
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.PASSED);
        voteOf(bob, id, true);
    }

    // --------------------------------------------------------------------------------------------- void

    /// @dev Data that the contract concerned refuses, or that is none at all.
    function test_whatIsRefusedIsVoid() public {
        enact(IMembership.Kind.SET_ANCHORER, abi.encode(address(0), keccak256("log")), IMembership.State.VOID);
        enact(IMembership.Kind.SET_WITNESSES, abi.encode(uint8(2), witnesses(1)), IMembership.State.VOID);
        enact(IMembership.Kind.SET_RELAYS, abi.encode(relays(17)), IMembership.State.VOID);
        enact(IMembership.Kind.SET_REWARDS, abi.encode(address(0)), IMembership.State.VOID);
        enact(IMembership.Kind.SUCCESSOR, abi.encode(address(0xD1)), IMembership.State.VOID);
        vm.assertEq(directory.relays().length, 1, "nothing changed");
    }

    function testFuzz_garbageIsVoid(uint8 which, bytes memory data) public {
        IMembership.Kind kind = IMembership.Kind(bound(which, 3, 7));
        data = sized(data, 0, 31); // too short for any argument
        enact(kind, data, IMembership.State.VOID);
    }

    function test_beforeTheSealIsVoid() public {
        super.setUp();
        Person memory only = found(1)[0];
        uint64 id = proposeOffice(only, IMembership.Kind.SET_REWARDS, abi.encode(address(1)));
        voteOf(only, id, true);
        assertState(id, IMembership.State.VOID, "the deployer still fills the offices");
    }

    /// @dev Whoever casts the deciding vote cannot make it void by sending little gas.
    function test_revertsRatherThanStarveTheCall() public {
        uint64 id = proposeOffice(ada, IMembership.Kind.SET_REWARDS, abi.encode(address(1)));
        voteOf(ada, id, true);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotEnoughGas.selector, 1_000_000));
        vm.prank(bob.account);
        membership.vote{gas: 900_000}(id, true);
        assertState(id, IMembership.State.OPEN, "still open");
        vm.prank(bob.account);
        membership.vote{gas: 1_200_000}(id, true);
        assertState(id, IMembership.State.PASSED, "passed");

        id = proposeOffice(ada, IMembership.Kind.SET_RELAYS, abi.encode(relays(1)));
        voteOf(ada, id, true);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotEnoughGas.selector, 5_000_000));
        vm.prank(bob.account);
        membership.vote{gas: 4_900_000}(id, true);
    }

    // -------------------------------------------------------------------------------------------- rules

    function test_rulesRevertWhenUnsound() public {
        bytes[8] memory bad = [
            bytes(""),
            abi.encode(0, 5000),
            abi.encode(0, 0, 60),
            abi.encode(0, 10_000, 60),
            abi.encode(0, 5000, 0),
            abi.encode(0, 5000, 365 days + 1),
            abi.encode(2, 5000, 60),
            abi.encode(0, 5000, 60, 0)
        ];
        for (uint256 i = 0; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.BadRules.selector));
            proposeOffice(ada, IMembership.Kind.SET_RULES, bad[i]);
        }
    }

    function test_rulesOfAGroupHaveNoPolicy() public {
        vm.prank(ada.account);
        uint32 club = membership.createGroup("club", new uint64[](0), IMembership.Rules(HALF, 60));
        vm.expectRevert(abi.encodeWithSelector(IMembership.BadRules.selector));
        vm.prank(ada.account);
        membership.propose(club, IMembership.Kind.SET_RULES, 0, abi.encode(IMembership.Policy.VOTE, 5000, 60));
        vm.prank(ada.account);
        uint64 id =
            membership.propose(club, IMembership.Kind.SET_RULES, 0, abi.encode(IMembership.Policy.OPEN, 7000, 90));
        voteOf(ada, id, true);
        (,,,, uint16 t, uint32 v) = membership.group(club);
        vm.assertTrue(t == 7000 && v == 90, "the club's rules");
        (,,,, t, v) = membership.group(NETWORK);
        vm.assertTrue(t == HALF && v == WEEK, "the network's stay");
    }

    function testFuzz_rulesHoldForWhatOpensAfterwards(bool open, uint16 threshold, uint32 votingPeriod) public {
        threshold = uint16(bound(threshold, 1, 9999));
        votingPeriod = uint32(bound(votingPeriod, 1, 365 days));
        IMembership.Policy policy = open ? IMembership.Policy.OPEN : IMembership.Policy.VOTE;
        Person memory eve = join("eve");
        uint64 before = requestOf(eve);
        uint64 id = proposeOffice(ada, IMembership.Kind.SET_RULES, abi.encode(policy, threshold, votingPeriod));
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.PASSED);
        vm.expectEmit(address(membership));
        emit IMembership.RulesSet(NETWORK, policy, threshold, votingPeriod);
        voteOf(bob, id, true);
        (,,, IMembership.Policy p, uint16 t, uint32 v) = membership.group(NETWORK);
        vm.assertTrue(p == policy && t == threshold && v == votingPeriod, "rules");
        vm.assertEq(membership.maySend(eve.uid), open, "the policy holds at once");
        decide(before);
        assertState(before, IMembership.State.PASSED, "2 of 3 under the rules of before");
        id = proposeExpel(ada, cem.uid, "");
        vm.assertEq(membership.proposal(id).deadline, block.timestamp + votingPeriod, "deadline");
    }

    // -------------------------------------------------------------------------------------------- pause

    function test_aPauseStopsSendingAndLapses() public {
        uint64 id = proposeOffice(ada, IMembership.Kind.PAUSE, "a break-in");
        vm.assertEq(membership.payload(id).length, 0, "a reason is no payload");
        vm.assertTrue(membership.maySend(ada.uid), "before");
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.PASSED);
        vm.expectEmit(address(membership));
        emit IMembership.Paused(uint64(NOW) + 7 days);
        voteOf(bob, id, true);
        vm.assertEq(membership.pausedUntil(), NOW + 7 days, "until");
        vm.assertFalse(membership.maySend(ada.uid), "paused");
        vm.warp(NOW + 7 days);
        vm.assertFalse(membership.maySend(ada.uid), "last second");
        vm.warp(NOW + 7 days + 1);
        vm.assertTrue(membership.maySend(ada.uid), "lapsed");
    }

    function test_aPauseEndsByVote() public {
        enact(IMembership.Kind.PAUSE, "", IMembership.State.PASSED);
        uint64 id = proposeOffice(ada, IMembership.Kind.UNPAUSE, "");
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Unpaused();
        voteOf(bob, id, true);
        vm.assertTrue(membership.maySend(ada.uid), "at once");
    }

    function test_unpausingWhatIsNotPausedIsVoid() public {
        enact(IMembership.Kind.UNPAUSE, "", IMembership.State.VOID);
        enact(IMembership.Kind.PAUSE, "", IMembership.State.PASSED);
        vm.warp(NOW + 7 days + 1);
        enact(IMembership.Kind.UNPAUSE, "late", IMembership.State.VOID);
    }

    /// @dev Votes, departures, revocations and every office stay within the members' reach.
    function test_aPauseBlocksNothingThatProtects() public {
        Person memory eve = join("eve");
        enact(IMembership.Kind.PAUSE, "", IMembership.State.PASSED);
        decide(requestOf(eve));
        vm.assertTrue(isMember(eve.uid), "admitted");
        vm.prank(eve.account);
        registry.revokeDevice(1);
        vm.prank(eve.account);
        membership.leave(NETWORK);
        enact(IMembership.Kind.SET_REWARDS, abi.encode(address(1)), IMembership.State.PASSED);
        enact(IMembership.Kind.SET_ANCHORER, abi.encode(address(1), keccak256("log")), IMembership.State.PASSED);
        uint64 id = proposeExpel(ada, cem.uid, "");
        decide(id);
        vm.assertFalse(isMember(cem.uid), "expelled");
    }
}
