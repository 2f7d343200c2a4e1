// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry, World} from "../base/World.sol";

contract ReadTest is World {
    function testFuzz_theUnknownReadsAsZero(address principal, uint64 uid, uint32 deviceId, string memory name)
        public
        view
    {
        assertResolves(principal, 0, 0);
        (address account, uint32 epoch, uint32 count, uint32 nonce, bytes32 verifier, address recovery) =
            registry.user(uid);
        vm.assertEq(account, address(0), "account");
        vm.assertEq(uint256(epoch) + count + nonce, 0, "epoch, count, nonce");
        vm.assertEq(verifier, bytes32(0), "verifier");
        vm.assertEq(recovery, address(0), "recovery");
        assertDevice(uid, deviceId, IIdentityRegistry.DeviceState.NONE, 0, address(0), 0);
        vm.assertEq(registry.devices(uid).length, 0, "devices");
        vm.assertEq(registry.uidOf(name), 0, "uid of an unknown or reserved name");
        vm.assertEq(registry.userCount(), 0, "user count");
    }

    function testFuzz_devicesListsWhatDeviceTells(uint8 count, uint16 revoked) public {
        Person memory ada = join("ada");
        count = uint8(bound(count, 1, 16));
        for (uint160 i = 1; i < count; ++i) {
            vm.prank(ada.account);
            registry.addDevice(address(0xD000 + i), abi.encode(i));
        }
        for (uint32 id = 1; id <= count; ++id) {
            if ((revoked >> (id - 1)) & 1 == 0) continue;
            vm.prank(ada.account);
            registry.revokeDevice(id);
        }
        IIdentityRegistry.DeviceInfo[] memory all = registry.devices(ada.uid);
        vm.assertEq(all.length, count, "length");
        for (uint32 id = 1; id <= count; ++id) {
            IIdentityRegistry.DeviceInfo memory one = all[id - 1];
            assertDevice(ada.uid, id, one.state, one.version, one.signer, one.head);
            bool gone = (revoked >> (id - 1)) & 1 == 1;
            vm.assertEq(one.state == IIdentityRegistry.DeviceState.REVOKED, gone, "revoked");
        }
    }

    function test_theDomainIsTheOneThatClientsSign() public view {
        (, string memory name, string memory version, uint256 chainId, address verifier,,) = registry.eip712Domain();
        vm.assertEq(name, "chatchain", "name");
        vm.assertEq(version, "1", "version");
        vm.assertEq(chainId, block.chainid, "chain");
        vm.assertEq(verifier, address(registry), "contract");
        (,,,, verifier,,) = membership.eip712Domain();
        vm.assertEq(verifier, address(membership), "the other contract");
    }
}
