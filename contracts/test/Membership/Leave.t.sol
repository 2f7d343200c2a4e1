// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, ISigned, World} from "../base/World.sol";

contract LeaveTest is World {
    Person private ada;
    Person private bob;
    Person private eve;
    uint256 private deadline;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(2);
        (ada, bob) = (people[0], people[1]);
        eve = join("eve");
        deadline = block.timestamp + 60;
    }

    function digest(uint64 uid, uint32 sequence, uint32 epoch) private view returns (bytes32) {
        return digests.leave(address(membership), "network", uid, sequence, epoch, deadline);
    }

    function test_revertsForAnyoneButMembers() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.leave(NETWORK);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        vm.prank(eve.account);
        membership.leave(NETWORK);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, ada.uid));
        vm.prank(ada.account);
        membership.leave(9);
    }

    function test_revertsForTheLastMember() public {
        vm.prank(ada.account);
        membership.leave(NETWORK);
        vm.expectRevert(abi.encodeWithSelector(IMembership.LastMember.selector, NETWORK));
        vm.prank(bob.account);
        membership.leave(NETWORK);
        vm.expectRevert(abi.encodeWithSelector(IMembership.LastMember.selector, NETWORK));
        proposeExpel(bob, bob.uid, "");
        vm.assertTrue(isMember(bob.uid), "stays");
    }

    function test_leaves() public {
        (,, bytes32 before,,,) = membership.group(NETWORK);
        bytes32 roster = keccak256(abi.encode(before, uint8(2), ada.uid, uint32(1)));
        vm.expectEmit(address(membership));
        emit IMembership.MemberRemoved(NETWORK, ada.uid, 1, 3, roster);
        vm.prank(ada.signer);
        membership.leave(NETWORK);
        (uint32 members, uint32 epoch, bytes32 hash,,,) = membership.group(NETWORK);
        vm.assertEq(members, 1, "members");
        vm.assertEq(epoch, 3, "epoch");
        vm.assertEq(hash, roster, "roster hash");
        vm.assertFalse(isMember(ada.uid), "gone");
    }

    /// @dev Votes that were cast stay; the seat's later votes do not count.
    function test_castVotesStay() public {
        uint64 id = requestOf(eve);
        voteOf(ada, id, true);
        vm.prank(ada.account);
        membership.leave(NETWORK);
        voteOf(bob, id, true);
        assertState(id, IMembership.State.PASSED, "both of two");
    }

    // -------------------------------------------------------------------------------------- by signature

    function test_forRevertsAfterTheDeadline() public {
        bytes memory signature = sign(ada.key, digest(ada.uid, 1, 0));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        membership.leaveFor(NETWORK, ada.account, deadline, signature);
    }

    function test_forRevertsOnWrongSignatures() public {
        bytes[5] memory wrong = [
            sign(bob.key, digest(ada.uid, 1, 0)),
            sign(ada.key, digest(bob.uid, 1, 0)),
            sign(ada.key, digest(ada.uid, 2, 0)),
            sign(ada.key, digest(ada.uid, 1, 1)),
            sign(ada.key, digests.leave(address(membership), "club", ada.uid, 1, 0, deadline))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            membership.leaveFor(NETWORK, ada.account, deadline, wrong[i]);
        }
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.leaveFor(NETWORK, address(this), deadline, wrong[0]);
        vm.assertTrue(isMember(ada.uid), "stays");
    }

    function test_forRevertsInAnotherGroup() public {
        uint64[] memory founders = new uint64[](1);
        founders[0] = bob.uid;
        vm.prank(ada.account);
        uint32 club = membership.createGroup("club", founders, IMembership.Rules(HALF, WEEK));
        bytes memory signature = sign(ada.key, digest(ada.uid, 1, 0)); // her seat there has the same number
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.leaveFor(club, ada.account, deadline, signature);
    }

    /// @dev The seat's number is in the signature: one who came back is not sent away with the old one.
    function test_forRevertsOnReplay() public {
        bytes memory signature = sign(ada.key, digest(ada.uid, 1, 0));
        membership.leaveFor(NETWORK, ada.account, deadline, signature);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, ada.uid));
        membership.leaveFor(NETWORK, ada.account, deadline, signature);
        voteOf(bob, requestOf(ada), true);
        vm.assertTrue(isMember(ada.uid), "is back");
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.leaveFor(NETWORK, ada.account, deadline, signature);
    }

    function testFuzz_leavesBySignature(bool byDevice, address carrier) public {
        bytes memory signature = sign(byDevice ? ada.deviceKey : ada.key, digest(ada.uid, 1, 0));
        vm.prank(carrier);
        membership.leaveFor(NETWORK, byDevice ? ada.signer : ada.account, deadline, signature);
        vm.assertFalse(isMember(ada.uid), "gone");
    }
}
