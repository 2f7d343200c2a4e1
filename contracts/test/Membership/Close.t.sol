// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, World} from "../base/World.sol";

contract CloseTest is World {
    Person private ada;
    uint64 private id;

    function setUp() public override {
        super.setUp();
        ada = found(2)[0];
        id = requestOf(join("eve"));
    }

    function test_revertsForUnknownProposals() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownProposal.selector, 2));
        membership.close(2);
    }

    function testFuzz_revertsWhileTheVotingPeriodRuns(uint32 passed) public {
        vm.warp(NOW + bound(passed, 0, WEEK));
        vm.expectRevert(abi.encodeWithSelector(IMembership.StillOpen.selector, id));
        membership.close(id);
        assertState(id, IMembership.State.OPEN, "state");
    }

    function test_revertsOnceClosed() public {
        voteOf(ada, id, false);
        vm.warp(NOW + WEEK + 1);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotOpen.selector, id, IMembership.State.REJECTED));
        membership.close(id);
    }

    function testFuzz_closes(address anyone, uint32 late) public {
        vm.warp(NOW + WEEK + 1 + late);
        assertState(id, IMembership.State.EXPIRED, "reads expired before anybody closed it");
        vm.expectEmit(address(membership));
        emit IMembership.Closed(id, IMembership.State.EXPIRED);
        vm.prank(anyone);
        membership.close(id);
        assertState(id, IMembership.State.EXPIRED, "state");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotOpen.selector, id, IMembership.State.EXPIRED));
        membership.close(id);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotOpen.selector, id, IMembership.State.EXPIRED));
        voteOf(ada, id, true);
    }
}
