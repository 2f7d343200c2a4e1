// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract ProposeRecoveryTest is Identities {
    string private constant TYPE =
        "ProposeRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)";

    function test_revertsForAnyoneButTheRecoveryAddress() public {
        address[4] memory others = [ada.account, ada.signer, bob.account, next];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, others[i]));
            vm.prank(others[i]);
            registry.proposeRecovery(ada.uid, next);
        }
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        vm.prank(keeper);
        registry.proposeRecovery(1, next);
    }

    function test_revertsForUsersWithoutRecovery() public {
        Person memory eve = stranger("eve");
        vm.prank(eve.account);
        uint64 uid = registry.register("eve", VERIFIER, KDF, address(0), eve.signer, RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, keeper));
        vm.prank(keeper);
        registry.proposeRecovery(uid, next);
        // Nobody signs for nobody: what recovers to the zero address is no signature.
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.proposeRecoveryFor(uid, next, deadline, new bytes(65));
    }

    function test_revertsForAFormerRecoveryAddress() public {
        vm.prank(ada.account);
        registry.setRecovery(next);
        vm.warp(NOW + CHANGE);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, keeper));
        propose(next);
    }

    function test_revertsOnBadAccounts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ZeroAddress.selector));
        propose(address(0));
        address[2] memory taken = [ada.account, bob.account];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, taken[i]));
            propose(taken[i]);
        }
    }

    function test_aSignerThatWasOnlyNamedIsNoObstacle() public {
        propose(bob.signer);
        vm.assertEq(registry.recoveryOf(ada.uid).nextAccount, bob.signer, "account");
        assertResolves(bob.signer, bob.uid, 1);
    }

    function testFuzz_proposes(address account) public {
        vm.assume(account != address(0) && registry.userOf(account) == 0);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.RecoveryProposed(ada.uid, account, uint64(NOW) + DELAY);
        propose(account);
        IIdentityRegistry.RecoveryInfo memory info = registry.recoveryOf(ada.uid);
        vm.assertEq(info.nextAccount, account, "account");
        vm.assertEq(info.nextAccountAt, NOW + DELAY, "from");
        vm.assertEq(accountOf(ada.uid), ada.account, "nothing changed yet");
        assertResolves(account, 0, 0);
    }

    function test_aSecondProposalStartsAnew() public {
        propose(next);
        vm.warp(NOW + DELAY);
        propose(address(0xF00));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, next));
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryNotReady.selector, NOW + 2 * DELAY));
        vm.prank(address(0xF00));
        registry.finaliseRecovery(ada.uid);
    }

    /// @dev Nothing is addable meanwhile; what withdraws, and what a device does for itself, goes on.
    function test_whilePendingNothingIsAdded() public {
        vm.prank(ada.account);
        registry.addKey(IIdentityRegistry.KeyType.RSA2048_OAEP, rsa(1));
        propose(next);
        bytes memory pending = abi.encodeWithSelector(IIdentityRegistry.RecoveryPending.selector, ada.uid);
        vm.expectRevert(pending);
        vm.prank(ada.account);
        registry.addDevice(address(0xD2), RECORD);
        vm.expectRevert(pending);
        vm.prank(ada.account);
        registry.updateDevice(1, 2, address(0xD2), RECORD);
        vm.expectRevert(pending);
        vm.prank(ada.account);
        registry.addKey(IIdentityRegistry.KeyType.RSA2048_OAEP, rsa(2));
        vm.expectRevert(pending);
        vm.prank(ada.account);
        registry.updateKey(1, 2, rsa(2));

        vm.prank(ada.signer);
        registry.updateDevice(1, 2, ada.signer, RECORD);
        vm.prank(ada.account);
        registry.setVerifier(keccak256("other"), KDF);
        vm.prank(ada.account);
        registry.revokeKey(1);
        vm.prank(ada.account);
        registry.revokeDevice(1);
        vm.prank(bob.account);
        registry.addDevice(address(0xD2), RECORD);
    }

    function test_whilePendingTheAccountsSignatureUpdatesNoDevice() public {
        propose(next);
        bytes memory words = abi.encode(uint32(1), uint32(2), ada.signer, keccak256(RECORD), deadline);
        bytes32 hash = digest(
            "UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,address signer,bytes record,uint256 deadline)",
            ada.uid,
            0,
            words
        );
        bytes memory byAccount = sign(ada.key, hash);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryPending.selector, ada.uid));
        registry.updateDeviceFor(ada.uid, 1, 2, ada.signer, RECORD, deadline, ada.account, byAccount);
        registry.updateDeviceFor(ada.uid, 1, 2, ada.signer, RECORD, deadline, ada.signer, sign(ada.deviceKey, hash));
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, uint256 nonce) private view returns (bytes32) {
        return digest(TYPE, uid, epoch, abi.encode(next, nonce, deadline));
    }

    function test_forReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.proposeRecoveryFor(1, next, deadline, "");
        bytes[4] memory wrong = [
            sign(ada.key, digestOf(ada.uid, 0, 0)),
            sign(KEEPER, digestOf(ada.uid, 1, 0)),
            sign(KEEPER, digestOf(ada.uid, 0, 1)),
            sign(KEEPER, digestOf(bob.uid, 0, 0))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.proposeRecoveryFor(ada.uid, next, deadline, wrong[i]);
        }
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.proposeRecoveryFor(ada.uid, next, deadline, wrong[0]);
    }

    /// @dev After a veto the same signature must not propose again.
    function testFuzz_proposesBySignatureOnce(address carrier) public {
        bytes memory signature = sign(KEEPER, digestOf(ada.uid, 0, 0));
        vm.prank(carrier);
        registry.proposeRecoveryFor(ada.uid, next, deadline, signature);
        vm.assertEq(registry.recoveryOf(ada.uid).nextAccount, next, "proposed");
        vm.prank(ada.account);
        registry.vetoRecovery();
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.proposeRecoveryFor(ada.uid, next, deadline, signature);
    }
}
