// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract FinaliseRecoveryTest is Identities {
    string private constant TYPE = "FinaliseRecovery(uint64 uid,uint32 epoch,address account,uint256 deadline)";

    function test_revertsForAnyoneButTheProposedAccount() public {
        propose(next);
        vm.warp(NOW + DELAY);
        address[3] memory others = [keeper, ada.account, bob.account];
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, others[i]));
            vm.prank(others[i]);
            registry.finaliseRecovery(ada.uid);
        }
    }

    function test_revertsWithoutAProposal() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, ada.uid));
        registry.finaliseRecovery(ada.uid);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.finaliseRecovery(1);
    }

    function testFuzz_revertsBeforeTheDelay(uint256 wait) public {
        propose(next);
        vm.warp(NOW + bound(wait, 0, DELAY - 1));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryNotReady.selector, NOW + DELAY));
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
    }

    function test_revertsIfTheAccountBecameAnothersMeanwhile() public {
        propose(next);
        vm.prank(next);
        uint64 other = registry.register("eve", VERIFIER, KDF, address(0), address(0xD1), RECORD);
        vm.warp(NOW + DELAY);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, next));
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
        assertResolves(ada.account, ada.uid, 0);
        assertResolves(next, other, 0);
    }

    /// @dev Whoever names the proposed account as a device's signer has proved nothing, and holds nobody up.
    function test_aSignerThatWasOnlyNamedGivesWay() public {
        propose(next);
        vm.prank(bob.account);
        registry.addDevice(next, RECORD);
        finalise();
        vm.assertEq(accountOf(ada.uid), next, "account");
        assertIsAdas(next);
        assertDevice(bob.uid, 2, IIdentityRegistry.DeviceState.ACTIVE, 1, next, firstHead(RECORD));

        // What becomes of bob's device takes nothing from ada.
        vm.prank(bob.account);
        registry.updateDevice(2, 2, address(0xD2), RECORD);
        assertIsAdas(next);
        assertResolves(address(0xD2), bob.uid, 2);
    }

    function test_theStolenDeviceOfTheUserGivesWayToo() public {
        propose(next);
        vm.prank(ada.signer);
        registry.updateDevice(1, 2, next, RECORD);
        finalise();
        assertIsAdas(next);
        vm.prank(next);
        registry.revokeDevice(1);
        assertIsAdas(next);
        assertDevice(
            ada.uid,
            1,
            IIdentityRegistry.DeviceState.REVOKED,
            2,
            next,
            keccak256(abi.encode(firstHead(RECORD), uint256(2), keccak256(RECORD)))
        );
    }

    function assertIsAdas(address account) private view {
        (uint64 uid, uint32 device, uint32 epoch) = registry.resolve(account);
        vm.assertTrue(uid == ada.uid && device == 0 && epoch == 1, "ada's account of the next epoch");
    }

    function testFuzz_replacesTheAccount(uint256 wait) public {
        propose(next);
        vm.warp(NOW + DELAY + bound(wait, 0, 365 days));
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.AccountReplaced(ada.uid, next, ada.account, 1);
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);

        vm.assertEq(accountOf(ada.uid), next, "account");
        (uint64 uid, uint32 device, uint32 epoch) = registry.resolve(next);
        vm.assertTrue(uid == ada.uid && device == 0 && epoch == 1, "resolves");
        assertResolves(ada.account, 0, 0);
        assertDevice(ada.uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 1, ada.signer, firstHead(RECORD));
        IIdentityRegistry.RecoveryInfo memory info = registry.recoveryOf(ada.uid);
        vm.assertEq(info.recovery, keeper, "the recovery address stays");
        vm.assertTrue(info.nextAccount == address(0) && info.nextAccountAt == 0, "nothing is pending");

        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, ada.account));
        vm.prank(ada.account);
        registry.addDevice(address(0xD2), RECORD);
        vm.prank(next);
        registry.addDevice(address(0xD2), RECORD);
    }

    function test_nothingIsFinalisedTwice() public {
        propose(next);
        finalise();
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, ada.uid));
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
    }

    /// @dev What the account signed before is worth nothing, though its nonce stays.
    function test_signaturesOfTheOldEpochDie() public {
        uint256 late = NOW + 365 days;
        bytes32 hash = digest(
            "AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)",
            ada.uid,
            0,
            abi.encode(address(0xD2), keccak256(RECORD), uint256(0), late)
        );
        bytes memory signature = sign(ada.key, hash);
        propose(next);
        finalise();
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addDeviceFor(ada.uid, address(0xD2), RECORD, late, signature);
        bytes memory same = sign(NEXT, hash);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addDeviceFor(ada.uid, address(0xD2), RECORD, late, same);
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, address account) private view returns (bytes32) {
        return digest(TYPE, uid, epoch, abi.encode(account, deadline));
    }

    function test_forReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, ada.uid));
        registry.finaliseRecoveryFor(ada.uid, deadline, "");
        propose(next);
        vm.warp(NOW + DELAY);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.finaliseRecoveryFor(ada.uid, deadline, "");
        deadline = NOW + DELAY + 60;
        bytes[4] memory wrong = [
            sign(KEEPER, digestOf(ada.uid, 0, next)),
            sign(ada.key, digestOf(ada.uid, 0, next)),
            sign(NEXT, digestOf(ada.uid, 1, next)),
            sign(NEXT, digestOf(bob.uid, 0, next))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.finaliseRecoveryFor(ada.uid, deadline, wrong[i]);
        }
    }

    function testFuzz_finalisesBySignature(address carrier) public {
        deadline = NOW + DELAY + 60;
        bytes memory signature = sign(NEXT, digestOf(ada.uid, 0, next));
        propose(next);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryNotReady.selector, NOW + DELAY));
        registry.finaliseRecoveryFor(ada.uid, deadline, signature);
        vm.warp(NOW + DELAY);
        vm.prank(carrier);
        registry.finaliseRecoveryFor(ada.uid, deadline, signature);
        vm.assertEq(accountOf(ada.uid), next, "account");
        vm.assertEq(epochOf(ada.uid), 1, "epoch");
    }
}
