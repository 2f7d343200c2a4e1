// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory, IMembership, World} from "../base/World.sol";

contract SeatTest is World {
    function one(uint64 uid) private pure returns (uint64[] memory uids) {
        uids = new uint64[](1);
        uids[0] = uid;
    }

    function test_revertsForAnyoneButTheDeployer() public {
        Person memory ada = join("ada");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotDeployer.selector, ada.account));
        vm.prank(ada.account);
        membership.seat(one(ada.uid));
    }

    function test_revertsAfterTheSeal() public {
        found(1);
        IDirectory.Relay[] memory relays = new IDirectory.Relay[](1);
        relays[0] = IDirectory.Relay("r:1", keccak256("spki"), 0);
        directory.setRelays(relays);
        directory.seal();
        Person memory ada = join("ada");
        vm.expectRevert(abi.encodeWithSelector(IMembership.IsSealed.selector));
        membership.seat(one(ada.uid));
    }

    function test_revertsForUnknownUsers() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownUser.selector, 7));
        membership.seat(one(7));
    }

    function test_revertsOnTheSecondTime() public {
        Person memory ada = join("ada");
        membership.seat(one(ada.uid));
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, ada.uid));
        membership.seat(one(ada.uid));

        Person memory bob = join("bob");
        uint64[] memory twice = new uint64[](2);
        (twice[0], twice[1]) = (bob.uid, bob.uid);
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, bob.uid));
        membership.seat(twice);
        vm.assertFalse(isMember(bob.uid), "nothing of a failed call stays");
    }

    function testFuzz_seats(uint8 count) public {
        count = uint8(bound(count, 0, 20));
        uint64[] memory uids = new uint64[](count);
        for (uint256 i = 0; i < count; ++i) {
            uids[i] = join(string.concat("user-", letters(i))).uid;
        }
        bytes32 roster = bytes32(0);
        for (uint32 i = 0; i < count; ++i) {
            roster = keccak256(
                bytes.concat(roster, bytes32(uint256(1)), bytes32(uint256(uids[i])), bytes32(uint256(i + 1)))
            );
            vm.expectEmit(address(membership));
            emit IMembership.MemberAdded(0, uids[i], i + 1, i + 1, roster);
        }
        membership.seat(uids);
        (uint32 members, uint32 epoch, bytes32 hash,,,) = membership.group(0);
        vm.assertEq(members, count, "members");
        vm.assertEq(epoch, count, "epoch");
        vm.assertEq(hash, roster, "roster hash");
        for (uint256 i = 0; i < count; ++i) {
            (bool active, uint32 sequence) = membership.member(0, uids[i]);
            vm.assertTrue(active, "active");
            vm.assertEq(sequence, i + 1, "sequence");
        }
    }
}
