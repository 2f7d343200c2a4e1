// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IIdentityRegistry, ISigned, World} from "../base/World.sol";

contract UpdateDeviceTest is World {
    Person private ada;
    Person private bob;
    uint256 private second = 0x5EC;
    address private secondSigner;

    function setUp() public override {
        super.setUp();
        ada = join("ada");
        bob = join("bob");
        secondSigner = vm.addr(second);
        vm.prank(ada.account);
        registry.addDevice(secondSigner, RECORD);
    }

    function update(address by, uint32 deviceId, uint32 version, address signer, bytes memory record) private {
        vm.prank(by);
        registry.updateDevice(deviceId, version, signer, record);
    }

    function test_revertsForStrangersAndOtherDevices() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, address(this)));
        registry.updateDevice(1, 2, ada.signer, RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, secondSigner));
        update(secondSigner, 1, 2, ada.signer, RECORD);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 1, ada.signer, firstHead(RECORD));
    }

    function test_revertsForUnknownAndRevokedDevices() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownDevice.selector, ada.uid, 3));
        update(ada.account, 3, 1, address(0xD3), RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownDevice.selector, ada.uid, 0));
        update(ada.account, 0, 1, address(0xD3), RECORD);
        vm.prank(ada.account);
        registry.revokeDevice(2);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.DeviceNotActive.selector, ada.uid, 2));
        update(ada.account, 2, 2, secondSigner, RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, secondSigner));
        update(secondSigner, 2, 2, secondSigner, RECORD);
    }

    function test_revertsOnBadValues() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 0));
        update(ada.account, 1, 2, ada.signer, "");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 1025));
        update(ada.account, 1, 2, ada.signer, new bytes(1025));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ZeroAddress.selector));
        update(ada.account, 1, 2, address(0), RECORD);
        address[4] memory taken = [ada.account, secondSigner, bob.account, bob.signer];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, taken[i]));
            update(ada.account, 1, 2, taken[i], RECORD);
        }
    }

    function testFuzz_revertsOnEveryOtherVersion(uint32 version) public {
        vm.assume(version != 2);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.WrongVersion.selector, 2, version));
        update(ada.account, 1, version, ada.signer, RECORD);
    }

    function testFuzz_updates(bool byDevice, bool sameSigner, address signer, bytes memory record) public {
        if (sameSigner) signer = ada.signer;
        (uint64 taken,,) = registry.resolve(signer);
        vm.assume(signer != address(0) && (sameSigner || taken == 0));
        record = sized(record, 1, 1024);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceUpdated(ada.uid, 1, signer, 2, record);
        update(byDevice ? ada.signer : ada.account, 1, 2, signer, record);

        bytes32 head = nextHead(firstHead(RECORD), 2, record);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 2, signer, head);
        assertDevice(ada.uid, 2, IIdentityRegistry.DeviceState.ACTIVE, 1, secondSigner, firstHead(RECORD));
        assertResolves(signer, ada.uid, 1);
        if (!sameSigner) assertResolves(ada.signer, 0, 0);
    }

    function test_aFreedSignerMayServeAnother() public {
        update(ada.account, 1, 2, address(0xD3), RECORD);
        update(bob.account, 1, 2, ada.signer, RECORD);
        assertResolves(ada.signer, bob.uid, 1);
        assertResolves(bob.signer, 0, 0);
    }

    function test_versionsCountUp() public {
        bytes32 head = firstHead(RECORD);
        for (uint32 version = 2; version < 9; ++version) {
            bytes memory record = abi.encode(version);
            update(ada.signer, 1, version, ada.signer, record);
            head = nextHead(head, version, record);
            assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, version, ada.signer, head);
        }
    }

    // -------------------------------------------------------------------------------------- by signature

    function change() private view returns (Digests.Update memory) {
        return Digests.Update(ada.uid, 0, 1, 2, ada.signer, "new record", block.timestamp + 60);
    }

    function digestOf(Digests.Update memory u) private view returns (bytes32) {
        return digests.updateDevice(address(registry), u);
    }

    function submit(Digests.Update memory u, address by, bytes memory signature) private {
        registry.updateDeviceFor(u.uid, u.deviceId, u.version, u.signer, u.record, u.deadline, by, signature);
    }

    function test_forRevertsAfterTheDeadline() public {
        Digests.Update memory u = change();
        bytes memory signature = sign(ada.key, digestOf(u));
        vm.warp(u.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, u.deadline));
        submit(u, ada.account, signature);
    }

    function test_forRevertsForUnknownUsers() public {
        Digests.Update memory u = change();
        u.uid = 1;
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        submit(u, ada.account, "");
    }

    function test_forRevertsForThoseWhoMayNot() public {
        Digests.Update memory u = change();
        address[4] memory others = [secondSigner, bob.account, bob.signer, address(this)];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, others[i]));
            submit(u, others[i], "");
        }
    }

    function test_forRevertsOnAnyAlteredPart() public {
        bytes memory signature = sign(ada.key, digestOf(change()));
        for (uint256 part = 0; part < 5; ++part) {
            Digests.Update memory u = change();
            if (part == 0) u.deviceId = 2;
            if (part == 1) u.version = 3;
            if (part == 2) u.signer = address(0xD3);
            if (part == 3) u.record = "another record";
            if (part == 4) u.deadline += 1;
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            submit(u, ada.account, signature);
        }
        Digests.Update memory later = change();
        later.epoch = 1;
        bytes memory wrongEpoch = sign(ada.key, digestOf(later));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(later, ada.account, wrongEpoch);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(change(), ada.signer, signature); // signed by the account, claimed for the device
    }

    function test_forRevertsOnReplay() public {
        Digests.Update memory u = change();
        bytes memory signature = sign(ada.deviceKey, digestOf(u));
        submit(u, ada.signer, signature);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.WrongVersion.selector, 3, 2));
        submit(u, ada.signer, signature);
    }

    function test_forRevertsForTheSignerBefore() public {
        update(ada.account, 1, 2, address(0xD3), RECORD);
        Digests.Update memory u = change();
        u.version = 3;
        bytes memory signature = sign(ada.deviceKey, digestOf(u));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        submit(u, ada.signer, signature);
    }

    function testFuzz_updatesBySignature(bool byDevice, address carrier, address signer, bytes memory record) public {
        (uint64 taken,,) = registry.resolve(signer);
        vm.assume(signer != address(0) && taken == 0);
        Digests.Update memory u = change();
        u.signer = signer;
        u.record = sized(record, 1, 1024);
        bytes memory signature = sign(byDevice ? ada.deviceKey : ada.key, digestOf(u));
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceUpdated(ada.uid, 1, signer, 2, u.record);
        vm.prank(carrier);
        submit(u, byDevice ? ada.signer : ada.account, signature);
        bytes32 head = nextHead(firstHead(RECORD), 2, u.record);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 2, signer, head);
        assertResolves(signer, ada.uid, 1);
        assertResolves(ada.signer, 0, 0);
        vm.assertEq(nonceOf(ada.uid), 0, "an update spends no nonce");
    }
}
