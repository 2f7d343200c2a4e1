// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry, ISigned, World} from "../base/World.sol";

contract RevokeDeviceTest is World {
    Person private ada;
    uint256 private deadline;

    function setUp() public override {
        super.setUp();
        ada = join("ada");
        deadline = block.timestamp + 60;
    }

    function revoke(uint32 deviceId) private {
        vm.prank(ada.account);
        registry.revokeDevice(deviceId);
    }

    function test_revertsForAnyoneButTheAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, address(this)));
        registry.revokeDevice(1);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.revokeDevice(1);
    }

    function test_revertsForUnknownAndRevokedDevices() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownDevice.selector, ada.uid, 2));
        revoke(2);
        revoke(1);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.DeviceNotActive.selector, ada.uid, 1));
        revoke(1);
    }

    function testFuzz_revokes(uint8 extra, uint8 which) public {
        extra = uint8(bound(extra, 0, 15));
        for (uint160 i = 0; i < extra; ++i) {
            vm.prank(ada.account);
            registry.addDevice(address(0xD000 + i), RECORD);
        }
        uint32 id = uint32(bound(which, 1, uint256(extra) + 1));
        (,, address signer,) = registry.device(ada.uid, id);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceRevoked(ada.uid, id);
        revoke(id);
        assertDevice(ada.uid, id, IIdentityRegistry.DeviceState.REVOKED, 1, signer, firstHead(RECORD));
        assertResolves(signer, 0, 0);
        assertResolves(ada.account, ada.uid, 0);
        (,, uint32 count,,,) = registry.user(ada.uid);
        vm.assertEq(count, uint32(extra) + 1, "ids are not given again");
    }

    /// @dev The signer that a revoked device had may serve a new device; revoking that one must not confuse the two.
    function test_aFreedSignerMayServeAgain() public {
        revoke(1);
        vm.prank(ada.account);
        vm.assertEq(registry.addDevice(ada.signer, RECORD), 2, "device id");
        assertResolves(ada.signer, ada.uid, 2);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.REVOKED, 1, ada.signer, firstHead(RECORD));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.DeviceNotActive.selector, ada.uid, 1));
        revoke(1);
        assertResolves(ada.signer, ada.uid, 2);
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, uint32 deviceId) private view returns (bytes32) {
        return digests.revokeDevice(address(registry), uid, epoch, deviceId, deadline);
    }

    function test_forRevertsAfterTheDeadline() public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, 1));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.revokeDeviceFor(ada.uid, 1, deadline, signature);
    }

    function test_forRevertsForUnknownUsers() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.revokeDeviceFor(1, 1, deadline, "");
    }

    function test_forRevertsOnWrongSignatures() public {
        bytes[4] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, 1)),
            sign(ada.key, digestOf(ada.uid, 1, 1)),
            sign(ada.key, digestOf(ada.uid, 0, 2)),
            sign(ada.key, digestOf(ada.uid + 1, 0, 1))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.revokeDeviceFor(ada.uid, 1, deadline, wrong[i]);
        }
        assertResolves(ada.signer, ada.uid, 1);
    }

    function testFuzz_revokesBySignatureOnce(address carrier) public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, 1));
        vm.prank(carrier);
        registry.revokeDeviceFor(ada.uid, 1, deadline, signature);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.REVOKED, 1, ada.signer, firstHead(RECORD));
        assertResolves(ada.signer, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.DeviceNotActive.selector, ada.uid, 1));
        registry.revokeDeviceFor(ada.uid, 1, deadline, signature);
    }
}
