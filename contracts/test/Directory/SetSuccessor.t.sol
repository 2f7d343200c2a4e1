// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory, World} from "../base/World.sol";

contract SetSuccessorTest is World {
    function testFuzz_revertsForAnyoneButMembership(address other) public {
        vm.assume(other != address(membership));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NotMembership.selector, other));
        vm.prank(other);
        directory.setSuccessor(address(registry));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NotMembership.selector, address(this)));
        directory.setSuccessor(address(registry)); // nor the deployer before the seal
    }

    function test_revertsForWhatIsNoContract() public {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(0xD1)));
        vm.prank(address(membership));
        directory.setSuccessor(address(0xD1));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(directory)));
        vm.prank(address(membership));
        directory.setSuccessor(address(directory));
    }

    function test_recommendsAndWithdraws() public {
        address[2] memory all = [address(registry), address(0)];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectEmit(address(directory));
            emit IDirectory.SuccessorSet(all[i]);
            vm.prank(address(membership));
            directory.setSuccessor(all[i]);
            vm.assertEq(directory.successor(), all[i], "successor");
        }
    }
}
