// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry, World} from "../base/World.sol";
import {Custody} from "./Custody.sol";

/// @notice Whatever a dozen addresses try: who acts for whom, and which keys a user has, is what the rules allow.
contract CustodyInvariants is World {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Custody private custody;

    function setUp() public override {
        vm.warp(NOW);
        custody = new Custody();
        custody.setUp();
        registry = custody.theRegistry();
    }

    /// @dev The runner asks for these two by name.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(custody);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(custody), custody.actions());
    }

    /// @dev The ghost's own counters: nobody but the account, the device for itself, or a finished recovery.
    function invariant_onlyThoseWhoMayChangeKeys() public view {
        vm.assertEq(custody.trespasses(), 0, "calls that the rules forbid");
        vm.assertEq(custody.additionsWhilePending(), 0, "additions while a recovery was pending");
        vm.assertEq(custody.resurrections(), 0, "changes to what was revoked");
        vm.assertEq(custody.skippedVersions(), 0, "versions that did not rise by one");
    }

    function invariant_theRegistryIsTheModel() public view {
        for (uint256 i = 0; i < custody.people(); ++i) {
            uint64 uid = custody.uidAt(i);
            Custody.Model memory m = custody.model(uid);
            (address account, uint32 epoch, uint32 count,,, address recovery) = registry.user(uid);
            vm.assertEq(account, m.account, "account");
            vm.assertEq(epoch, m.epoch, "epoch");
            vm.assertEq(count, custody.deviceCount(uid), "devices");
            vm.assertEq(recovery, m.recovery, "recovery");
            vm.assertEq(registry.recoveryOf(uid).nextAccount, m.pending, "pending");
            for (uint32 id = 1; id <= count; ++id) {
                Custody.Thing memory one = custody.deviceSeen(uid, id);
                (IIdentityRegistry.DeviceState state, uint32 version, address signer,) = registry.device(uid, id);
                vm.assertTrue(state == one.state && version == one.version && signer == one.signer, "device");
            }
            IIdentityRegistry.KeyInfo[] memory keys = registry.keys(uid);
            vm.assertEq(keys.length, custody.keyCount(uid), "keys");
            for (uint32 id = 1; id <= keys.length; ++id) {
                Custody.Thing memory one = custody.keySeen(uid, id);
                vm.assertTrue(keys[id - 1].state == one.state && keys[id - 1].version == one.version, "key");
            }
        }
    }

    /// @dev Counted over the model, an address acts for at most one user in one role, and the registry agrees.
    function invariant_anAddressActsForOneUser() public view {
        for (uint256 a = 0; a < custody.poolSize(); ++a) {
            address who = custody.pool(a);
            (uint64 uid, uint32 device,) = registry.resolve(who);
            uint256 roles;
            for (uint256 i = 0; i < custody.people(); ++i) {
                uint64 other = custody.uidAt(i);
                if (custody.model(other).account == who) {
                    ++roles;
                    vm.assertTrue(uid == other && device == 0, "resolves to the account's user");
                }
                for (uint32 id = 1; id <= custody.deviceCount(other); ++id) {
                    Custody.Thing memory one = custody.deviceSeen(other, id);
                    bool acts = one.state == IIdentityRegistry.DeviceState.ACTIVE && !one.mute;
                    if (one.signer != who || !acts) continue;
                    ++roles;
                    vm.assertTrue(uid == other && device == id, "resolves to the device");
                }
            }
            vm.assertEq(roles, uid == 0 ? 0 : 1, "one role, or none and unknown");
        }
    }
}
