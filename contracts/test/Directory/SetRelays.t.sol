// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory, World} from "../base/World.sol";

contract SetRelaysTest is World {
    function relays(uint256 count) private pure returns (IDirectory.Relay[] memory list) {
        list = new IDirectory.Relay[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = IDirectory.Relay(
                string.concat("relay-", letters(i), ".example:5555"), keccak256(abi.encode(i)), bytes32(i)
            );
        }
    }

    function assertRelays(IDirectory.Relay[] memory expected) private view {
        vm.assertEq(abi.encode(directory.relays()), abi.encode(expected), "relays");
    }

    function testFuzz_revertsForAnyoneButTheDeployer(address other) public {
        vm.assume(other != address(this));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NotDeployer.selector, other));
        vm.prank(other);
        directory.setRelays(relays(1));
    }

    function test_revertsForMembershipBeforeTheSeal() public {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.NotDeployer.selector, address(membership)));
        vm.prank(address(membership));
        directory.setRelays(relays(1));
    }

    function test_revertsAfterTheSealForAllButMembership() public {
        found(1);
        directory.setRelays(relays(1));
        directory.seal();
        vm.expectRevert(abi.encodeWithSelector(IDirectory.IsSealed.selector));
        directory.setRelays(relays(2));
        assertRelays(relays(1));
        vm.prank(address(membership));
        directory.setRelays(relays(3));
        assertRelays(relays(3));
    }

    function test_revertsOnTooMany() public {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.TooManyRelays.selector, 17));
        directory.setRelays(relays(17));
    }

    function test_revertsOnBadRelays() public {
        IDirectory.Relay[] memory list = relays(2);
        list[1].endpoint = "r:";
        vm.expectRevert(abi.encodeWithSelector(IDirectory.BadRelay.selector, "r:"));
        directory.setRelays(list);
        list[1].endpoint = string(new bytes(256));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.BadRelay.selector, list[1].endpoint));
        directory.setRelays(list);
        list[1].endpoint = "r:1";
        list[1].spki = 0;
        vm.expectRevert(abi.encodeWithSelector(IDirectory.BadRelay.selector, "r:1"));
        directory.setRelays(list);
        vm.assertEq(directory.relays().length, 0, "nothing of a failed call stays");
    }

    function testFuzz_replacesTheList(uint8 before, uint8 count, bytes memory endpoint, bytes32 spki, bytes32 next)
        public
    {
        vm.assume(spki != 0);
        directory.setRelays(relays(bound(before, 0, 16)));
        IDirectory.Relay[] memory list = relays(bound(count, 1, 16));
        list[list.length - 1] = IDirectory.Relay(string(sized(endpoint, 3, 255)), spki, next);
        vm.expectEmit(address(directory));
        emit IDirectory.RelaysSet(list);
        directory.setRelays(list);
        assertRelays(list);
    }

    /// @dev Whoever hashes a list that somebody encoded in another way hears of it.
    function test_hashesNoIrregularList() public {
        bytes memory call = abi.encodeCall(directory.hashRelays, (relays(2)));
        (bool done, bytes memory answer) = address(directory).staticcall(call);
        vm.assertTrue(done && answer.length == 32, "regular");
        (done, answer) = address(directory).staticcall(bytes.concat(call, hex"00"));
        vm.assertFalse(done, "a tail");
        vm.assertEq(bytes4(answer), IDirectory.IrregularData.selector, "named");
    }

    function test_emptiesTheList() public {
        directory.setRelays(relays(16));
        directory.setRelays(relays(0));
        assertRelays(relays(0));
    }
}
