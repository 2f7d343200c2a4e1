// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IIdentityRegistry, World} from "../base/World.sol";

contract CommitTest is World {
    uint64 private constant LIFE = 10 minutes;
    Person private ada;
    bytes32 private commitment;

    function setUp() public override {
        super.setUp();
        ada = stranger("ada");
        commitment = keccak256(abi.encode(keccak256("ada"), ada.account, VERIFIER));
    }

    function enter(Person memory who, string memory name, bytes32 verifier) private {
        vm.prank(who.account);
        registry.register(name, verifier, KDF, address(0), who.signer, RECORD);
    }

    function expectNeeded() private {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.CommitmentNeeded.selector, NOW + LIFE));
    }

    function test_revertsWhileItStands() public {
        registry.commit(commitment);
        vm.warp(NOW + LIFE);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AlreadyCommitted.selector, commitment));
        registry.commit(commitment);
    }

    function test_guardsEveryNameForTenMinutes() public {
        registry.commit(commitment);
        vm.roll(block.number + 1);
        Person memory thief = stranger("thief");
        expectNeeded();
        enter(thief, "ada", VERIFIER);
        vm.warp(NOW + LIFE);
        expectNeeded();
        enter(thief, "thief", VERIFIER);
        vm.warp(NOW + LIFE + 1);
        enter(thief, "thief", VERIFIER);
    }

    function test_doesNotCountInItsOwnBlock() public {
        registry.commit(commitment);
        expectNeeded();
        enter(ada, "ada", VERIFIER);
        vm.roll(block.number + 1);
        enter(ada, "ada", VERIFIER);
        assertResolves(ada.account, registry.uidOf("ada"), 0);
    }

    function test_bindsNameAccountAndVerifier() public {
        registry.commit(commitment);
        vm.roll(block.number + 1);
        expectNeeded();
        enter(ada, "adb", VERIFIER);
        expectNeeded();
        enter(stranger("bob"), "ada", VERIFIER);
        expectNeeded();
        enter(ada, "ada", keccak256("other"));
        enter(ada, "ada", VERIFIER);
    }

    /// @dev One's own commitment has lapsed while another's guards.
    function test_lapses() public {
        registry.commit(commitment);
        vm.warp(NOW + LIFE + 1);
        vm.roll(block.number + 1);
        registry.commit(keccak256("another"));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.CommitmentNeeded.selector, NOW + 2 * LIFE + 1));
        enter(ada, "ada", VERIFIER);
        registry.commit(commitment); // may be renewed
        vm.roll(block.number + 1);
        enter(ada, "ada", VERIFIER);
    }

    function test_countsUntilItsLastSecond() public {
        registry.commit(commitment);
        vm.roll(block.number + 1);
        vm.warp(NOW + LIFE);
        enter(ada, "ada", VERIFIER);
    }

    function testFuzz_commits(bytes32 any, address sender, uint32 number, uint40 time) public {
        vm.roll(uint256(number) + 1);
        vm.warp(uint256(time) + 1);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.Committed(any, uint64(time) + 1 + LIFE);
        vm.prank(sender);
        registry.commit(any);
        (uint64 block_, uint64 second) = registry.committedAt(any);
        vm.assertEq(block_, uint256(number) + 1, "block");
        vm.assertEq(second, uint256(time) + 1, "second");
        vm.assertEq(registry.guardedUntil(), uint256(time) + 1 + LIFE, "guarded until");
    }

    function test_aSponsoredRegistrationNeedsItToo() public {
        Digests.Registration memory r =
            Digests.Registration("ada", ada.account, VERIFIER, KDF, RECOVERY, ada.signer, RECORD, NOW + 60);
        bytes memory signature = sign(ada.key, digests.register(address(registry), r));
        registry.commit(keccak256("another"));
        vm.roll(block.number + 1);
        expectNeeded();
        registry.registerFor(ada.account, "ada", VERIFIER, KDF, RECOVERY, ada.signer, RECORD, NOW + 60, signature);
        registry.commit(commitment);
        vm.roll(block.number + 1);
        registry.registerFor(ada.account, "ada", VERIFIER, KDF, RECOVERY, ada.signer, RECORD, NOW + 60, signature);
    }
}
