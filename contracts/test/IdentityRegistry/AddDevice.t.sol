// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Wallet} from "../base/Wallet.sol";
import {Digests} from "../base/Digests.sol";
import {IIdentityRegistry, ISigned, World} from "../base/World.sol";

contract AddDeviceTest is World {
    Person private ada;
    uint256 private deadline;
    address private constant NEW = address(0xD2);

    function setUp() public override {
        super.setUp();
        ada = join("ada");
        deadline = block.timestamp + 60;
    }

    function add(address signer, bytes memory record) private returns (uint32) {
        vm.prank(ada.account);
        return registry.addDevice(signer, record);
    }

    function test_revertsForAnyoneButTheAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, address(this)));
        registry.addDevice(NEW, RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.addDevice(NEW, RECORD);
    }

    function test_revertsOnBadSigners() public {
        Person memory bob = join("bob");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ZeroAddress.selector));
        add(address(0), RECORD);
        address[4] memory taken = [ada.account, ada.signer, bob.account, bob.signer];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, taken[i]));
            add(taken[i], RECORD);
        }
    }

    function test_revertsOnBadRecords() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 0));
        add(NEW, "");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 1025));
        add(NEW, new bytes(1025));
    }

    function test_revertsBeyondSixteenActiveDevices() public {
        for (uint160 i = 2; i <= 16; ++i) {
            vm.assertEq(add(address(0xD000 + i), RECORD), uint32(i), "device id");
        }
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.TooManyDevices.selector, 16));
        add(NEW, RECORD);
        vm.prank(ada.account);
        registry.revokeDevice(7);
        vm.assertEq(add(NEW, RECORD), 17, "a revoked device makes room and keeps its id");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.TooManyDevices.selector, 16));
        add(address(0xD3), RECORD);
    }

    function testFuzz_adds(address signer, bytes memory record) public {
        vm.assume(signer != address(0) && signer != ada.account && signer != ada.signer);
        record = sized(record, 1, 1024);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceAdded(ada.uid, 2, signer, record);
        vm.assertEq(add(signer, record), 2, "device id");
        assertDevice(ada.uid, 2, IIdentityRegistry.DeviceState.ACTIVE, 1, signer, firstHead(record));
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 1, ada.signer, firstHead(RECORD));
        assertResolves(signer, ada.uid, 2);
        (,, uint32 count, uint32 nonce,,) = registry.user(ada.uid);
        vm.assertEq(count, 2, "device count");
        vm.assertEq(nonce, 0, "the account's own transaction spends no nonce");
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, address signer, uint256 nonce) private view returns (bytes32) {
        return digests.addDevice(address(registry), uid, epoch, signer, RECORD, nonce, deadline);
    }

    function test_forRevertsAfterTheDeadline() public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, NEW, 0));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.addDeviceFor(ada.uid, NEW, RECORD, deadline, signature);
    }

    function test_forRevertsForUnknownUsers() public {
        bytes memory signature = sign(ada.key, digestOf(1, 0, NEW, 0));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.addDeviceFor(1, NEW, RECORD, deadline, signature);
    }

    function test_forRevertsOnWrongSignatures() public {
        Person memory bob = join("bob");
        bytes[6] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, NEW, 0)), // a device may not
            sign(bob.key, digestOf(ada.uid, 0, NEW, 0)), // another's account
            sign(ada.key, digestOf(ada.uid, 1, NEW, 0)), // epoch
            sign(ada.key, digestOf(ada.uid, 0, NEW, 1)), // nonce
            sign(ada.key, digestOf(bob.uid, 0, NEW, 0)), // user
            sign(ada.key, digestOf(ada.uid, 0, address(0xD9), 0)) // signer
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.addDeviceFor(ada.uid, NEW, RECORD, deadline, wrong[i]);
        }
        bytes memory good = sign(ada.key, digestOf(ada.uid, 0, NEW, 0));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addDeviceFor(ada.uid, NEW, "another record", deadline, good);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addDeviceFor(ada.uid, NEW, RECORD, deadline + 1, good);
        vm.assertEq(nonceOf(ada.uid), 0, "no attempt spent the nonce");
    }

    /// @dev After the device's revocation its signer is free again; the old signature must not bring it back.
    function test_forRevertsOnReplay() public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, NEW, 0));
        registry.addDeviceFor(ada.uid, NEW, RECORD, deadline, signature);
        vm.prank(ada.account);
        registry.revokeDevice(2);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addDeviceFor(ada.uid, NEW, RECORD, deadline, signature);
    }

    function testFuzz_addsBySignature(address carrier) public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, NEW, 0));
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceAdded(ada.uid, 2, NEW, RECORD);
        vm.prank(carrier);
        vm.assertEq(registry.addDeviceFor(ada.uid, NEW, RECORD, deadline, signature), 2, "device id");
        vm.assertEq(nonceOf(ada.uid), 1, "nonce spent");
        assertResolves(NEW, ada.uid, 2);
    }

    function test_addsForAContractWallet() public {
        Person memory owner = stranger("owner");
        address wallet = address(new Wallet(owner.account));
        vm.prank(wallet);
        uint64 uid = registry.register("wallet", VERIFIER, KDF, RECOVERY, owner.signer, RECORD);
        bytes memory signature = sign(owner.key, digestOf(uid, 0, NEW, 0));
        vm.assertEq(registry.addDeviceFor(uid, NEW, RECORD, deadline, signature), 2, "device id");
    }
}
