// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, World} from "../base/World.sol";

contract ReadTest is World {
    function testFuzz_theUnknownReadsAsZero(uint64 id, uint64 uid, uint32 groupId) public view {
        IMembership.ProposalInfo memory info = membership.proposal(id);
        IMembership.ProposalInfo memory nothing;
        vm.assertEq(abi.encode(info), abi.encode(nothing), "proposal");
        vm.assertFalse(membership.hasVoted(id, uid), "has voted");
        (bool active, uint32 sequence) = membership.member(groupId, uid);
        vm.assertFalse(active, "active");
        vm.assertEq(sequence, 0, "sequence");
        (uint32 members, uint32 epoch, bytes32 roster,, uint16 threshold, uint32 period) = membership.group(groupId);
        vm.assertEq(uint256(members) + epoch + uint256(roster), 0, "no members, epoch or roster");
        vm.assertEq(threshold, groupId == NETWORK ? HALF : 0, "threshold");
        vm.assertEq(period, groupId == NETWORK ? WEEK : 0, "voting period");
        vm.assertFalse(membership.maySend(uid), "may send");
    }

    function test_policyVoteLetsMembersSend() public {
        Person[] memory people = found(2);
        Person memory member = people[0];
        Person memory ada = join("ada");
        vm.assertTrue(membership.maySend(member.uid), "member");
        vm.assertFalse(membership.maySend(ada.uid), "registered only");
        vm.prank(member.account);
        membership.leave(NETWORK);
        vm.assertFalse(membership.maySend(member.uid), "left");
    }

    function test_policyOpenLetsTheRegisteredSend() public {
        deploy(IMembership.Policy.OPEN, HALF, WEEK);
        Person memory ada = join("ada");
        vm.assertTrue(membership.maySend(ada.uid), "registered");
        vm.assertFalse(membership.maySend(ada.uid + 1), "unknown");
    }
}
