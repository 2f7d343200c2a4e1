// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract SetRecoveryTest is Identities {
    string private constant TYPE =
        "SetRecovery(uint64 uid,uint32 epoch,address recovery,uint256 nonce,uint256 deadline)";

    function set(address recovery) private {
        vm.prank(ada.account);
        registry.setRecovery(recovery);
    }

    function assertRecovery(address now_, address later, uint256 from) private view {
        IIdentityRegistry.RecoveryInfo memory info = registry.recoveryOf(ada.uid);
        vm.assertEq(info.recovery, now_, "recovery");
        vm.assertEq(info.nextRecovery, later, "next recovery");
        vm.assertEq(info.nextRecoveryAt, from, "from");
        (,,,,, address recovery) = registry.user(ada.uid);
        vm.assertEq(recovery, now_, "recovery of user");
    }

    function test_revertsForAnyoneButTheAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, keeper));
        vm.prank(keeper);
        registry.setRecovery(next);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.setRecovery(next);
    }

    function test_revertsWhileARecoveryIsPending() public {
        propose(next);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryPending.selector, ada.uid));
        set(next);
    }

    function testFuzz_waitsLongerThanARecovery(address recovery) public {
        vm.assume(recovery != keeper);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoverySet(ada.uid, recovery, uint64(NOW) + CHANGE);
        set(recovery);
        assertRecovery(keeper, recovery, NOW + CHANGE);
        vm.warp(NOW + CHANGE - 1);
        assertRecovery(keeper, recovery, NOW + CHANGE);
        vm.warp(NOW + CHANGE);
        assertRecovery(recovery, address(0), 0);
    }

    function test_countsAtOnceWhereThereIsNone() public {
        set(address(0));
        vm.warp(NOW + CHANGE);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoverySet(ada.uid, next, uint64(NOW) + CHANGE);
        set(next);
        assertRecovery(next, address(0), 0);
    }

    function test_aChangeIsTakenBack() public {
        set(next);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoverySet(ada.uid, keeper, uint64(NOW));
        set(keeper);
        vm.warp(NOW + CHANGE);
        assertRecovery(keeper, address(0), 0);
    }

    function test_aSecondChangeTakesThePlaceOfTheFirst() public {
        set(next);
        vm.warp(NOW + CHANGE - 1);
        set(address(0xF00));
        assertRecovery(keeper, address(0xF00), NOW + 2 * CHANGE - 1);
        vm.warp(NOW + CHANGE);
        assertRecovery(keeper, address(0xF00), NOW + 2 * CHANGE - 1);
        vm.warp(NOW + 2 * CHANGE);
        set(next);
        assertRecovery(address(0xF00), next, NOW + 3 * CHANGE);
    }

    function test_aProposalTakesAWaitingChangeBack() public {
        set(next);
        vm.warp(NOW + CHANGE - 1);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoverySet(ada.uid, keeper, uint64(NOW) + CHANGE - 1);
        propose(next);
        vm.warp(NOW + 2 * CHANGE);
        assertRecovery(keeper, address(0), 0);
    }

    function test_aProposalLeavesAChangeThatCounts() public {
        set(next);
        vm.warp(NOW + CHANGE);
        vm.prank(next);
        registry.proposeRecovery(ada.uid, address(0xF00));
        assertRecovery(next, address(0), 0);
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, address recovery, uint256 nonce) private view returns (bytes32) {
        return digest(TYPE, uid, epoch, abi.encode(recovery, nonce, deadline));
    }

    function test_forReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.setRecoveryFor(1, next, deadline, "");
        bytes[4] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, next, 0)),
            sign(KEEPER, digestOf(ada.uid, 0, next, 0)),
            sign(ada.key, digestOf(ada.uid, 1, next, 0)),
            sign(ada.key, digestOf(ada.uid, 0, next, 1))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.setRecoveryFor(ada.uid, next, deadline, wrong[i]);
        }
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.setRecoveryFor(ada.uid, next, deadline, wrong[0]);
    }

    function testFuzz_setsBySignatureOnce(address carrier, address recovery) public {
        vm.assume(recovery != keeper);
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, recovery, 0));
        vm.prank(carrier);
        registry.setRecoveryFor(ada.uid, recovery, deadline, signature);
        assertRecovery(keeper, recovery, NOW + CHANGE);
        vm.assertEq(nonceOf(ada.uid), 1, "nonce spent");
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.setRecoveryFor(ada.uid, recovery, deadline, signature);
    }
}
