// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry, ISigned, World} from "../base/World.sol";

contract SetVerifierTest is World {
    Person private ada;
    uint256 private deadline;
    bytes32 private constant OTHER = keccak256("other");

    function setUp() public override {
        super.setUp();
        ada = join("ada");
        deadline = block.timestamp + 60;
    }

    function set(bytes32 verifier, bytes memory kdf) private {
        vm.prank(ada.account);
        registry.setVerifier(verifier, kdf);
    }

    function assertVerifier(bytes32 expected) private view {
        (,,,, bytes32 verifier,) = registry.user(ada.uid);
        vm.assertEq(verifier, expected, "verifier");
    }

    function test_revertsForAnyoneButTheAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, address(this)));
        registry.setVerifier(OTHER, KDF);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.setVerifier(OTHER, KDF);
        assertVerifier(VERIFIER);
    }

    function test_revertsOnBadValues() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.EmptyVerifier.selector));
        set(0, KDF);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 0));
        set(OTHER, "");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 65));
        set(OTHER, new bytes(65));
        assertVerifier(VERIFIER);
    }

    function testFuzz_sets(bytes32 verifier, bytes memory kdf) public {
        vm.assume(verifier != 0);
        kdf = sized(kdf, 1, 64);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.VerifierSet(ada.uid, verifier, kdf);
        set(verifier, kdf);
        assertVerifier(verifier);
        vm.assertEq(nonceOf(ada.uid), 0, "the account's own transaction spends no nonce");
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 uid, uint32 epoch, bytes32 verifier, uint256 nonce) private view returns (bytes32) {
        return digests.setVerifier(address(registry), uid, epoch, verifier, KDF, nonce, deadline);
    }

    function test_forRevertsAfterTheDeadline() public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, OTHER, 0));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, signature);
    }

    function test_forRevertsForUnknownUsers() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.setVerifierFor(1, OTHER, KDF, deadline, "");
    }

    function test_forRevertsOnWrongSignatures() public {
        bytes[5] memory wrong = [
            sign(ada.deviceKey, digestOf(ada.uid, 0, OTHER, 0)),
            sign(ada.key, digestOf(ada.uid, 1, OTHER, 0)),
            sign(ada.key, digestOf(ada.uid, 0, OTHER, 1)),
            sign(ada.key, digestOf(ada.uid, 0, VERIFIER, 0)),
            sign(ada.key, digestOf(ada.uid + 1, 0, OTHER, 0))
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, wrong[i]);
        }
        bytes memory good = sign(ada.key, digestOf(ada.uid, 0, OTHER, 0));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.setVerifierFor(ada.uid, OTHER, hex"00", deadline, good);
        assertVerifier(VERIFIER);
    }

    /// @dev An old password's signature must not come back after the next change.
    function test_forRevertsOnReplay() public {
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, OTHER, 0));
        registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, signature);
        set(keccak256("third"), KDF);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, signature);
        assertVerifier(keccak256("third"));
    }

    function testFuzz_setsBySignature(bytes32 verifier, address carrier) public {
        vm.assume(verifier != 0);
        bytes memory signature = sign(ada.key, digestOf(ada.uid, 0, verifier, 0));
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.VerifierSet(ada.uid, verifier, KDF);
        vm.prank(carrier);
        registry.setVerifierFor(ada.uid, verifier, KDF, deadline, signature);
        assertVerifier(verifier);
        vm.assertEq(nonceOf(ada.uid), 1, "nonce spent");
    }

    /// @dev One nonce orders both kinds: a verifier's signature waits for the device's before it.
    function test_theNonceIsSharedWithAddDevice() public {
        bytes memory device =
            sign(ada.key, digests.addDevice(address(registry), ada.uid, 0, address(0xD2), RECORD, 0, deadline));
        bytes memory next = sign(ada.key, digestOf(ada.uid, 0, OTHER, 1));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, next);
        registry.addDeviceFor(ada.uid, address(0xD2), RECORD, deadline, device);
        registry.setVerifierFor(ada.uid, OTHER, KDF, deadline, next);
        vm.assertEq(nonceOf(ada.uid), 2, "nonce");
    }
}
