// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, Membership, World} from "../base/World.sol";

contract ConstructTest is World {
    function build(uint16 threshold, uint32 votingPeriod) private returns (Membership) {
        return
            new Membership(registry, address(0xD1), IMembership.Policy.OPEN, IMembership.Rules(threshold, votingPeriod));
    }

    function test_revertsOnRulesOutOfBounds() public {
        uint16[4] memory thresholds = [uint16(0), 10_000, 10_001, HALF];
        uint32[4] memory periods = [WEEK, WEEK, WEEK, 0];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.BadRules.selector));
            build(thresholds[i], periods[i]);
        }
        vm.expectRevert(abi.encodeWithSelector(IMembership.BadRules.selector));
        build(HALF, 365 days + 1);
    }

    function testFuzz_foundsTheNetwork(bool open, uint16 threshold, uint32 votingPeriod) public {
        threshold = uint16(bound(threshold, 1, 9999));
        votingPeriod = uint32(bound(votingPeriod, 1, 365 days));
        IMembership.Policy policy = open ? IMembership.Policy.OPEN : IMembership.Policy.VOTE;
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)));
        vm.expectEmit(next);
        emit IMembership.GroupCreated(0, "network", policy, threshold, votingPeriod);
        Membership made = new Membership(registry, address(0xD1), policy, IMembership.Rules(threshold, votingPeriod));

        vm.assertEq(address(made.registry()), address(registry), "registry");
        vm.assertEq(made.directory(), address(0xD1), "directory");
        vm.assertEq(made.deployer(), address(this), "deployer");
        (uint32 members, uint32 epoch, bytes32 roster, IMembership.Policy p, uint16 t, uint32 v) = made.group(0);
        vm.assertEq(uint256(members) + epoch, 0, "no members, no epoch");
        vm.assertEq(roster, bytes32(0), "roster");
        vm.assertTrue(p == policy, "policy");
        vm.assertEq(t, threshold, "threshold");
        vm.assertEq(v, votingPeriod, "voting period");
    }
}
