// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

/// @notice Keys besides the devices' own: addKey, updateKey, revokeKey.
contract KeysTest is Identities {
    IIdentityRegistry.KeyType private constant RSA = IIdentityRegistry.KeyType.RSA2048_OAEP;
    string private constant ADD =
        "AddKey(uint64 uid,uint32 epoch,string keyType,bytes key,uint256 nonce,uint256 deadline)";
    string private constant UPDATE =
        "UpdateKey(uint64 uid,uint32 epoch,uint32 keyId,uint32 version,bytes key,uint256 deadline)";
    string private constant REVOKE = "RevokeKey(uint64 uid,uint32 epoch,uint32 keyId,uint256 deadline)";

    function add(bytes memory key) private returns (uint32) {
        vm.prank(ada.account);
        return registry.addKey(RSA, key);
    }

    function update(uint32 id, uint32 version, bytes memory key) private {
        vm.prank(ada.account);
        registry.updateKey(id, version, key);
    }

    function revoke(uint32 id) private {
        vm.prank(ada.account);
        registry.revokeKey(id);
    }

    function assertKey(uint32 id, IIdentityRegistry.DeviceState state, uint32 version, bytes32 head) private view {
        (IIdentityRegistry.KeyType t, IIdentityRegistry.DeviceState s, uint32 v, bytes32 h) = registry.key(ada.uid, id);
        vm.assertTrue(t == RSA && s == state && v == version && h == head, "key");
        IIdentityRegistry.KeyInfo memory one = registry.keys(ada.uid)[id - 1];
        vm.assertTrue(one.keyType == RSA && one.state == state && one.version == version && one.head == head, "listed");
    }

    function test_revertsForAnyoneButTheAccount() public {
        add(rsa(1));
        bytes memory stranger_ = abi.encodeWithSelector(IIdentityRegistry.NotRegistered.selector, address(this));
        vm.expectRevert(stranger_);
        registry.addKey(RSA, rsa(2));
        vm.expectRevert(stranger_);
        registry.updateKey(1, 2, rsa(2));
        vm.expectRevert(stranger_);
        registry.revokeKey(1);
        bytes memory device = abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer);
        vm.expectRevert(device);
        vm.prank(ada.signer);
        registry.addKey(RSA, rsa(2));
        vm.expectRevert(device);
        vm.prank(ada.signer);
        registry.updateKey(1, 2, rsa(2));
        vm.expectRevert(device);
        vm.prank(ada.signer);
        registry.revokeKey(1);
    }

    /// @dev Any other byte outside the modulus, another length, a shorter or an even modulus.
    function testFuzz_revertsOnMalformedKeys(uint256 place, uint8 flip) public {
        bytes memory key = rsa(1);
        place = bound(place, 0, 37);
        place = place < 33 ? place : 289 + place - 33;
        vm.assume(flip != 0);
        key[place] ^= bytes1(flip);
        bytes memory malformed = abi.encodeWithSelector(IIdentityRegistry.MalformedKey.selector);
        vm.expectRevert(malformed);
        add(key);
        add(rsa(1));
        vm.expectRevert(malformed);
        update(1, 2, key);
    }

    function test_revertsOnMalformedKeys() public {
        bytes memory malformed = abi.encodeWithSelector(IIdentityRegistry.MalformedKey.selector);
        bytes memory short = rsa(1);
        short[33] &= 0x7f;
        bytes memory even = rsa(1);
        even[288] &= 0xfe;
        bytes[5] memory wrong = [bytes(""), RECORD, bytes.concat(rsa(1), hex"00"), short, even];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(malformed);
            add(wrong[i]);
        }
    }

    function test_revertsBeyondFourActiveKeys() public {
        for (uint32 i = 1; i <= 4; ++i) {
            vm.assertEq(add(rsa(i)), i, "key id");
        }
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.TooManyKeys.selector, 4));
        add(rsa(5));
        revoke(2);
        vm.assertEq(add(rsa(5)), 5, "a revoked key makes room and keeps its id");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.TooManyKeys.selector, 4));
        add(rsa(6));
    }

    function test_revertsForUnknownAndRevokedKeys() public {
        bytes memory unknown = abi.encodeWithSelector(IIdentityRegistry.UnknownKey.selector, ada.uid, 1);
        vm.expectRevert(unknown);
        update(1, 1, rsa(1));
        vm.expectRevert(unknown);
        revoke(1);
        add(rsa(1));
        revoke(1);
        bytes memory gone = abi.encodeWithSelector(IIdentityRegistry.KeyNotActive.selector, ada.uid, 1);
        vm.expectRevert(gone);
        update(1, 2, rsa(2));
        vm.expectRevert(gone);
        revoke(1);
        assertKey(1, IIdentityRegistry.DeviceState.REVOKED, 1, firstHead(rsa(1)));
    }

    function testFuzz_revertsOnEveryOtherVersion(uint32 version) public {
        add(rsa(1));
        vm.assume(version != 2);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.WrongVersion.selector, 2, version));
        update(1, version, rsa(2));
    }

    function testFuzz_lives(uint256 seed) public {
        unchecked {
            bytes memory key = rsa(seed);
            vm.expectEmit(address(registry));
            emit IIdentityRegistry.KeyAdded(ada.uid, 1, RSA, key);
            add(key);
            assertKey(1, IIdentityRegistry.DeviceState.ACTIVE, 1, firstHead(key));
            bytes memory other = rsa(seed + 1);
            vm.expectEmit(address(registry));
            emit IIdentityRegistry.KeyUpdated(ada.uid, 1, 2, other);
            update(1, 2, other);
            bytes32 head = nextHead(firstHead(key), 2, other);
            assertKey(1, IIdentityRegistry.DeviceState.ACTIVE, 2, head);
            vm.expectEmit(address(registry));
            emit IIdentityRegistry.KeyRevoked(ada.uid, 1);
            revoke(1);
            assertKey(1, IIdentityRegistry.DeviceState.REVOKED, 2, head);
            vm.assertEq(registry.keys(bob.uid).length, 0, "another's keys");
            vm.assertEq(registry.recoveryOf(ada.uid).recovery, keeper, "the slot's neighbour");
        }
    }

    // -------------------------------------------------------------------------------------- by signature

    function addDigest(uint64 uid, uint32 epoch, bytes memory key, uint256 nonce) private view returns (bytes32) {
        return digest(ADD, uid, epoch, abi.encode(keccak256("RSA2048_OAEP"), keccak256(key), nonce, deadline));
    }

    function updateDigest(uint32 epoch, uint32 id, uint32 version, bytes memory key) private view returns (bytes32) {
        return digest(UPDATE, ada.uid, epoch, abi.encode(id, version, keccak256(key), deadline));
    }

    function revokeDigest(uint32 epoch, uint32 id) private view returns (bytes32) {
        return digest(REVOKE, ada.uid, epoch, abi.encode(id, deadline));
    }

    function test_forRevertsAfterTheDeadlineAndForUnknownUsers() public {
        bytes memory unknown = abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1);
        vm.expectRevert(unknown);
        registry.addKeyFor(1, RSA, rsa(1), deadline, "");
        vm.expectRevert(unknown);
        registry.updateKeyFor(1, 1, 2, rsa(1), deadline, "");
        vm.expectRevert(unknown);
        registry.revokeKeyFor(1, 1, deadline, "");
        vm.warp(deadline + 1);
        bytes memory expired = abi.encodeWithSelector(ISigned.Expired.selector, deadline);
        vm.expectRevert(expired);
        registry.addKeyFor(ada.uid, RSA, rsa(1), deadline, "");
        vm.expectRevert(expired);
        registry.updateKeyFor(ada.uid, 1, 2, rsa(1), deadline, "");
        vm.expectRevert(expired);
        registry.revokeKeyFor(ada.uid, 1, deadline, "");
    }

    function test_forRevertsOnWrongSignatures() public {
        bytes memory bad = abi.encodeWithSelector(ISigned.BadSignature.selector);
        bytes[4] memory wrong = [
            sign(ada.deviceKey, addDigest(ada.uid, 0, rsa(1), 0)),
            sign(ada.key, addDigest(ada.uid, 1, rsa(1), 0)),
            sign(ada.key, addDigest(ada.uid, 0, rsa(1), 1)),
            sign(ada.key, addDigest(ada.uid, 0, rsa(2), 0))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(bad);
            registry.addKeyFor(ada.uid, RSA, rsa(1), deadline, wrong[i]);
        }
        add(rsa(1));
        wrong = [
            sign(ada.deviceKey, updateDigest(0, 1, 2, rsa(2))),
            sign(ada.key, updateDigest(1, 1, 2, rsa(2))),
            sign(ada.key, updateDigest(0, 1, 3, rsa(2))),
            sign(ada.key, updateDigest(0, 1, 2, rsa(3)))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(bad);
            registry.updateKeyFor(ada.uid, 1, 2, rsa(2), deadline, wrong[i]);
        }
        wrong = [
            sign(ada.deviceKey, revokeDigest(0, 1)),
            sign(ada.key, revokeDigest(1, 1)),
            sign(ada.key, revokeDigest(0, 2)),
            sign(bob.key, revokeDigest(0, 1))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(bad);
            registry.revokeKeyFor(ada.uid, 1, deadline, wrong[i]);
        }
    }

    function testFuzz_livesBySignatures(address carrier) public {
        bytes memory signature = sign(ada.key, addDigest(ada.uid, 0, rsa(1), 0));
        vm.prank(carrier);
        registry.addKeyFor(ada.uid, RSA, rsa(1), deadline, signature);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.addKeyFor(ada.uid, RSA, rsa(1), deadline, signature);

        signature = sign(ada.key, updateDigest(0, 1, 2, rsa(2)));
        vm.prank(carrier);
        registry.updateKeyFor(ada.uid, 1, 2, rsa(2), deadline, signature);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.WrongVersion.selector, 3, 2));
        registry.updateKeyFor(ada.uid, 1, 2, rsa(2), deadline, signature);

        signature = sign(ada.key, revokeDigest(0, 1));
        vm.prank(carrier);
        registry.revokeKeyFor(ada.uid, 1, deadline, signature);
        assertKey(1, IIdentityRegistry.DeviceState.REVOKED, 2, nextHead(firstHead(rsa(1)), 2, rsa(2)));
    }
}
