// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IIdentityRegistry, ISigned, World} from "../base/World.sol";

/// @notice What was signed before the epoch rose is worth nothing afterwards, and what is signed for it works.
contract EpochTest is World {
    Person private ada;
    uint256 private deadline;
    bytes private stale; // a signature for epoch 0

    function setUp() public override {
        super.setUp();
        ada = join("ada");
        deadline = block.timestamp + 60;
    }

    /// @dev Signs the digest for epoch 0, raises the epoch, expects the next call to fail, and gives the signature for
    /// epoch 1.
    function around(bytes32 old, bytes32 current) private returns (bytes memory) {
        stale = sign(ada.key, old);
        raiseEpoch(ada.uid);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        return sign(ada.key, current);
    }

    function test_addDevice() public {
        address signer = address(0xD2);
        bytes memory fresh = around(
            digests.addDevice(address(registry), ada.uid, 0, signer, RECORD, 0, deadline),
            digests.addDevice(address(registry), ada.uid, 1, signer, RECORD, 0, deadline)
        );
        registry.addDeviceFor(ada.uid, signer, RECORD, deadline, stale);
        registry.addDeviceFor(ada.uid, signer, RECORD, deadline, fresh);
        (uint64 uid, uint32 device, uint32 epoch) = registry.resolve(signer);
        vm.assertTrue(uid == ada.uid && device == 2 && epoch == 1, "resolved with the epoch");
    }

    function test_updateDevice() public {
        bytes memory fresh = around(
            digests.updateDevice(address(registry), Digests.Update(ada.uid, 0, 1, 2, ada.signer, RECORD, deadline)),
            digests.updateDevice(address(registry), Digests.Update(ada.uid, 1, 1, 2, ada.signer, RECORD, deadline))
        );
        registry.updateDeviceFor(ada.uid, 1, 2, ada.signer, RECORD, deadline, ada.account, stale);
        registry.updateDeviceFor(ada.uid, 1, 2, ada.signer, RECORD, deadline, ada.account, fresh);
        (, uint32 version,,) = registry.device(ada.uid, 1);
        vm.assertEq(version, 2, "version");
    }

    function test_revokeDevice() public {
        bytes memory fresh = around(
            digests.revokeDevice(address(registry), ada.uid, 0, 1, deadline),
            digests.revokeDevice(address(registry), ada.uid, 1, 1, deadline)
        );
        registry.revokeDeviceFor(ada.uid, 1, deadline, stale);
        registry.revokeDeviceFor(ada.uid, 1, deadline, fresh);
        (IIdentityRegistry.DeviceState state,,,) = registry.device(ada.uid, 1);
        vm.assertTrue(state == IIdentityRegistry.DeviceState.REVOKED, "revoked");
    }

    function test_setVerifier() public {
        bytes32 verifier = keccak256("other");
        bytes memory fresh = around(
            digests.setVerifier(address(registry), ada.uid, 0, verifier, KDF, 0, deadline),
            digests.setVerifier(address(registry), ada.uid, 1, verifier, KDF, 0, deadline)
        );
        registry.setVerifierFor(ada.uid, verifier, KDF, deadline, stale);
        registry.setVerifierFor(ada.uid, verifier, KDF, deadline, fresh);
        (,,,, bytes32 now_,) = registry.user(ada.uid);
        vm.assertEq(now_, verifier, "verifier");
    }
}
