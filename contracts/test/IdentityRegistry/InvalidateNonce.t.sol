// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract InvalidateNonceTest is Identities {
    string private constant TYPE = "InvalidateNonce(uint64 uid,uint32 epoch,uint256 nonce,uint256 deadline)";

    function test_revertsForAnyoneButTheAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, keeper));
        vm.prank(keeper);
        registry.invalidateNonce();
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.invalidateNonce();
    }

    function test_killsWhatWasSigned() public {
        bytes32 hash = digest(
            "SetRecovery(uint64 uid,uint32 epoch,address recovery,uint256 nonce,uint256 deadline)",
            ada.uid,
            0,
            abi.encode(next, uint256(0), deadline)
        );
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.NonceInvalidated(ada.uid, 1);
        vm.prank(ada.account);
        registry.invalidateNonce();
        vm.assertEq(nonceOf(ada.uid), 1, "nonce");
        vm.assertEq(nonceOf(bob.uid), 0, "another's nonce");
        bytes memory signature = sign(ada.key, hash);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.setRecoveryFor(ada.uid, next, deadline, signature);
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, uint256 nonce) private view returns (bytes32) {
        return digest(TYPE, uid, epoch, abi.encode(nonce, deadline));
    }

    function test_forReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.invalidateNonceFor(1, deadline, "");
        bytes[4] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, 0)),
            sign(ada.key, digestOf(ada.uid, 1, 0)),
            sign(ada.key, digestOf(ada.uid, 0, 1)),
            sign(ada.key, digestOf(bob.uid, 0, 0))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.invalidateNonceFor(ada.uid, deadline, wrong[i]);
        }
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.invalidateNonceFor(ada.uid, deadline, "");
    }

    function testFuzz_invalidatesBySignatureOnce(address carrier) public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, 0));
        vm.prank(carrier);
        registry.invalidateNonceFor(ada.uid, deadline, signature);
        vm.assertEq(nonceOf(ada.uid), 1, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.invalidateNonceFor(ada.uid, deadline, signature);
    }
}
