// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory, World} from "../base/World.sol";

contract SealTest is World {
    function setRelay() private {
        IDirectory.Relay[] memory list = new IDirectory.Relay[](1);
        list[0] = IDirectory.Relay("relay.example:5555", keccak256("spki"), 0);
        directory.setRelays(list);
    }

    function testFuzz_revertsForAnyoneButTheDeployer(address other) public {
        vm.assume(other != address(this));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NotDeployer.selector, other));
        vm.prank(other);
        directory.seal();
    }

    function test_revertsWithoutFounders() public {
        setRelay();
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NoFounders.selector));
        directory.seal();
    }

    function test_revertsWithoutRelays() public {
        found(1);
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NoRelays.selector));
        directory.seal();
        vm.assertFalse(directory.isSealed(), "sealed");
    }

    function test_revertsOnTheSecondTime() public {
        found(1);
        setRelay();
        directory.seal();
        vm.expectRevert(abi.encodeWithSelector(IDirectory.IsSealed.selector));
        directory.seal();
    }

    function test_seals() public {
        found(1);
        setRelay();
        vm.expectEmit(address(directory));
        emit IDirectory.Sealed();
        directory.seal();
        vm.assertTrue(directory.isSealed(), "sealed");
    }
}
