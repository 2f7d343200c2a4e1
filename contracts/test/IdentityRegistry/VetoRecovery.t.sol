// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract VetoRecoveryTest is Identities {
    string private constant TYPE =
        "VetoRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)";

    function veto() private {
        vm.prank(ada.account);
        registry.vetoRecovery();
    }

    function test_revertsForAnyoneButTheAccount() public {
        propose(next);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, keeper));
        vm.prank(keeper);
        registry.vetoRecovery();
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.vetoRecovery();
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, bob.uid));
        vm.prank(bob.account);
        registry.vetoRecovery();
    }

    function testFuzz_onceInThirtyDays(uint256 wait) public {
        wait = bound(wait, 0, INTERVAL - 1);
        propose(next);
        veto();
        vm.warp(NOW + wait);
        propose(next);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.VetoSpent.selector, NOW + INTERVAL));
        veto();
        vm.warp(NOW + INTERVAL);
        veto();
        vm.assertEq(registry.recoveryOf(ada.uid).vetoFrom, NOW + 2 * INTERVAL, "veto from");
    }

    function test_vetoes() public {
        vm.assertEq(registry.recoveryOf(ada.uid).vetoFrom, 0, "never vetoed");
        propose(next);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoveryVetoed(ada.uid, next);
        veto();
        IIdentityRegistry.RecoveryInfo memory info = registry.recoveryOf(ada.uid);
        vm.assertEq(info.nextAccount, address(0), "no account");
        vm.assertEq(info.nextAccountAt, 0, "no time");
        vm.warp(NOW + DELAY);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, ada.uid));
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
        vm.prank(ada.account);
        registry.addDevice(address(0xD2), RECORD);
        vm.prank(ada.account);
        registry.updateDevice(1, 2, ada.signer, RECORD);
    }

    /// @dev Who has stolen the account delays its owner once.
    function test_aThiefVetoesInVain() public {
        propose(next);
        vm.warp(NOW + DELAY - 1);
        veto();
        propose(next);
        finalise();
        vm.assertEq(accountOf(ada.uid), next, "recovered");
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, address account, uint256 nonce) private view returns (bytes32) {
        return digest(TYPE, uid, epoch, abi.encode(account, nonce, deadline));
    }

    function test_forReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.vetoRecoveryFor(1, deadline, "");
        bytes memory early = sign(ada.key, digestOf(ada.uid, 0, address(0), 0));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NoRecovery.selector, ada.uid));
        registry.vetoRecoveryFor(ada.uid, deadline, early);
        propose(next);
        bytes[4] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, next, 0)),
            sign(ada.key, digestOf(ada.uid, 1, next, 0)),
            sign(ada.key, digestOf(ada.uid, 0, next, 1)),
            sign(ada.key, digestOf(ada.uid, 0, keeper, 0)) // a veto against another account
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.vetoRecoveryFor(ada.uid, deadline, wrong[i]);
        }
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.vetoRecoveryFor(ada.uid, deadline, wrong[0]);
    }

    function testFuzz_vetoesBySignatureOnce(address carrier) public {
        propose(next);
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, next, 0));
        vm.prank(carrier);
        registry.vetoRecoveryFor(ada.uid, deadline, signature);
        vm.assertEq(nonceOf(ada.uid), 1, "nonce spent");
        vm.assertEq(registry.recoveryOf(ada.uid).nextAccount, address(0), "vetoed");
        propose(next);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.vetoRecoveryFor(ada.uid, deadline, signature);
    }
}
