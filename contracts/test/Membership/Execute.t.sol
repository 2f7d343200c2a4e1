// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, World} from "../base/World.sol";

/// @notice What a deciding vote does, and what it no longer does.
contract ExecuteTest is World {
    Person private ada;
    Person private bob;
    Person private cem;
    Person private eve;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(3);
        (ada, bob, cem) = (people[0], people[1], people[2]);
        eve = join("eve");
    }

    function decide(uint64 id) private {
        voteOf(ada, id, true);
        voteOf(bob, id, true);
    }

    function turn(bytes32 roster, uint8 change, uint64 uid, uint32 sequence) private pure returns (bytes32) {
        return
            keccak256(bytes.concat(roster, bytes32(uint256(change)), bytes32(uint256(uid)), bytes32(uint256(sequence))));
    }

    function test_theDecidingVoteAdmits() public {
        uint64 id = requestOf(eve);
        (,, bytes32 before,,,) = membership.group(NETWORK);
        bytes32 roster = turn(before, 1, eve.uid, 4);
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Voted(id, bob.uid, true, 2, 0);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.PASSED);
        vm.expectEmit(address(membership));
        emit IMembership.MemberAdded(NETWORK, eve.uid, 4, 4, roster);
        voteOf(bob, id, true);

        (uint32 members, uint32 epoch, bytes32 hash,,,) = membership.group(NETWORK);
        vm.assertEq(members, 4, "members");
        vm.assertEq(epoch, 4, "epoch");
        vm.assertEq(hash, roster, "roster hash");
        (bool active, uint32 sequence) = membership.member(NETWORK, eve.uid);
        vm.assertTrue(active, "active");
        vm.assertEq(sequence, 4, "sequence");
    }

    function test_theDecidingVoteExpels() public {
        uint64 id = proposeExpel(ada, cem.uid, "spam");
        (,, bytes32 before,,,) = membership.group(NETWORK);
        bytes32 roster = turn(before, 2, cem.uid, 3);
        voteOf(ada, id, true);
        vm.expectEmit(address(membership));
        emit IMembership.Voted(id, bob.uid, true, 2, 0);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.PASSED);
        vm.expectEmit(address(membership));
        emit IMembership.MemberRemoved(NETWORK, cem.uid, 3, 4, roster);
        voteOf(bob, id, true);

        (uint32 members, uint32 epoch, bytes32 hash,,,) = membership.group(NETWORK);
        vm.assertEq(members, 2, "members");
        vm.assertEq(epoch, 4, "epoch");
        vm.assertEq(hash, roster, "roster hash");
        (bool active, uint32 sequence) = membership.member(NETWORK, cem.uid);
        vm.assertFalse(active, "active");
        vm.assertEq(sequence, 3, "the sequence stays");
    }

    function test_theSubjectOfAnExpulsionMayVote() public {
        uint64 id = proposeExpel(ada, cem.uid, "");
        voteOf(cem, id, false);
        voteOf(ada, id, true);
        voteOf(bob, id, true);
        assertState(id, IMembership.State.PASSED, "2 to 1");
    }

    function test_admittingAMemberIsVoid() public {
        uint64 first = proposeAdmit(ada, eve.uid, "one");
        uint64 second = proposeAdmit(ada, eve.uid, "two");
        decide(first);
        voteOf(ada, second, true);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(second, IMembership.State.VOID);
        voteOf(bob, second, true);
        assertState(second, IMembership.State.VOID, "second");
        (uint32 members, uint32 epoch,,,,) = membership.group(NETWORK);
        vm.assertEq(members, 4, "members");
        vm.assertEq(epoch, 4, "epoch");
    }

    function test_expellingOneWhoLeftIsVoid() public {
        uint64 first = proposeExpel(ada, cem.uid, "one");
        uint64 second = proposeExpel(ada, cem.uid, "two");
        decide(first);
        decide(second);
        assertState(second, IMembership.State.VOID, "second");
        (uint32 members, uint32 epoch,,,,) = membership.group(NETWORK);
        vm.assertEq(members, 2, "members");
        vm.assertEq(epoch, 4, "epoch");
    }

    /// @dev An old admission must not undo an expulsion that came in between.
    function test_admittingOneWhoCameAndWentIsVoid() public {
        uint64 old = proposeAdmit(ada, eve.uid, "old");
        decide(proposeAdmit(ada, eve.uid, "new"));
        uint64 expulsion = proposeExpel(ada, eve.uid, "");
        voteOf(cem, expulsion, true); // of four now
        decide(expulsion);
        vm.assertFalse(isMember(eve.uid), "came and went");
        voteOf(cem, old, true);
        voteOf(ada, old, true);
        assertState(old, IMembership.State.VOID, "old admission");
        vm.assertFalse(isMember(eve.uid), "stays outside");
    }

    /// @dev An old expulsion must not undo an admission that came in between.
    function test_expellingOneWhoWentAndCameIsVoid() public {
        uint64 old = proposeExpel(ada, cem.uid, "old");
        decide(proposeExpel(ada, cem.uid, "new"));
        uint64 again = requestOf(cem);
        decide(again);
        vm.assertTrue(isMember(cem.uid), "is back");
        decide(old);
        assertState(old, IMembership.State.VOID, "old expulsion");
        vm.assertTrue(isMember(cem.uid), "stays inside");
    }

    /// @dev One who left and came back has a new seat: no second vote, and none on older proposals.
    function test_rejoiningGivesNoVoteOnOlderProposals() public {
        Person memory dan = join("dan");
        seat(dan.uid); // four members, three votes decide
        uint64 id = requestOf(eve);
        voteOf(cem, id, true);
        uint64 expulsion = proposeExpel(ada, cem.uid, "");
        voteOf(dan, expulsion, true);
        decide(expulsion);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, cem.uid));
        voteOf(cem, id, true);
        vm.assertTrue(membership.hasVoted(id, cem.uid), "the vote of the old seat shows");
        decide(requestOf(cem));
        (, uint32 sequence) = membership.member(NETWORK, cem.uid);
        vm.assertEq(sequence, 5, "a new sequence");
        vm.expectRevert(abi.encodeWithSelector(IMembership.JoinedLater.selector, id, cem.uid));
        voteOf(cem, id, true);
        IMembership.ProposalInfo memory info = membership.proposal(id);
        vm.assertEq(info.yes, 1, "the first vote stays, no second");
        vm.assertEq(info.electorate, 4, "the electorate stays");
    }

    /// @dev Rules and roster at the opening decide, whatever the group is like at the end.
    function test_departuresChangeNeitherElectorateNorVotes() public {
        uint64 id = requestOf(eve);
        voteOf(cem, id, true);
        decide(proposeExpel(ada, cem.uid, ""));
        voteOf(ada, id, true);
        assertState(id, IMembership.State.PASSED, "2 of 3, one of them gone since");
    }

    /// @dev Two expulsions are open when the first of them leaves one member behind.
    function test_expellingTheLastMemberIsVoid() public {
        deploy(IMembership.Policy.VOTE, HALF, WEEK);
        Person[] memory two = found(2);
        uint64 first = proposeExpel(two[0], two[1].uid, "");
        uint64 second = proposeExpel(two[1], two[0].uid, "");
        voteOf(two[0], first, true);
        voteOf(two[0], second, true); // resigned to go too
        voteOf(two[1], second, true);
        assertState(second, IMembership.State.PASSED, "one of two may go");
        vm.assertFalse(isMember(two[0].uid), "went");
        assertState(first, IMembership.State.OPEN, "one yes of two");
        voteOf(two[1], first, true);
        assertState(first, IMembership.State.VOID, "the last one stays");
        vm.assertTrue(isMember(two[1].uid), "stayed");
    }

    /// @dev A proposal does not depend on whoever opened it.
    function test_aProposalOutlivesItsProposersSeat() public {
        uint64 id = proposeExpel(cem, ada.uid, "");
        decide(proposeExpel(ada, cem.uid, ""));
        assertState(id, IMembership.State.OPEN, "still open");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, cem.uid));
        voteOf(cem, id, true);
        decide(id);
        assertState(id, IMembership.State.PASSED, "2 of 3");
        vm.assertFalse(isMember(ada.uid), "expelled");
    }
}
