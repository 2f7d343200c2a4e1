// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry} from "../../src/interfaces/IIdentityRegistry.sol";
import {IdentityRegistry} from "../../src/IdentityRegistry.sol";
import {Vm} from "../base/Vm.sol";

/// @notice For `make prove`: not samples but all callers, ids, versions, addresses and times. Each check states what
/// must hold if a call succeeds; whether calls do succeed is the other tests' business.
contract SymTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_TEST = true;

    uint256 private constant NOW = 1_800_000_000;
    uint256 private constant DELAY = 7 days;
    uint256 private constant INTERVAL = 30 days;
    address private constant ADA = address(0xADA);
    address private constant PHONE = address(0xADA1);
    address private constant LAPTOP = address(0xADA2);
    address private constant KEEPER = address(0x6EE);
    address private constant NEXT = address(0x4E07);
    address private constant BOB = address(0xB0B);
    bytes private constant RECORD = "record";

    IdentityRegistry private registry;
    uint64 private ada;
    uint64 private bob;

    function setUp() public {
        vm.warp(NOW);
        registry = new IdentityRegistry(new string[](0));
        vm.prank(ADA);
        ada = registry.register("ada", keccak256("a"), "kdf", KEEPER, PHONE, RECORD);
        vm.prank(ADA);
        registry.addDevice(LAPTOP, RECORD);
        vm.prank(BOB);
        bob = registry.register("bob", keccak256("b"), "kdf", KEEPER, address(0xB0B1), RECORD);
    }

    function attempt(address caller, bytes memory call) private returns (bool done) {
        vm.prank(caller);
        (done,) = address(registry).call(call);
    }

    function propose() private {
        vm.prank(KEEPER);
        registry.proposeRecovery(ada, NEXT);
    }

    /// @dev Nobody but the account, or the device for itself; the next version; of an active device.
    function check_updateDevice(address caller, uint32 id, uint32 version, address signer) public {
        (IIdentityRegistry.DeviceState state, uint32 before, address had,) = registry.device(ada, id);
        (,,, bytes32 other) = registry.device(bob, 1);
        if (!attempt(caller, abi.encodeCall(registry.updateDevice, (id, version, signer, RECORD)))) return;
        uint64 uid = registry.userOf(caller == had ? signer : caller);
        if (uid != ada) {
            (IIdentityRegistry.DeviceState s, uint32 v, address a,) = registry.device(ada, id);
            assert(s == state && v == before && a == had); // it was somebody else's own
            return;
        }
        assert(caller == ADA || caller == had);
        assert(state == IIdentityRegistry.DeviceState.ACTIVE);
        (, uint32 now_, address has,) = registry.device(ada, id);
        assert(version == before + 1 && now_ == version && has == signer);
        assert(signer == had || registry.userOf(had) == 0);
        (,,, bytes32 still) = registry.device(bob, 1);
        assert(still == other);
    }

    /// @dev REVOKED stays REVOKED, whoever tries whatever.
    function check_revokedIsTerminal(address caller, uint32 version, address signer, bool update) public {
        vm.prank(ADA);
        registry.revokeDevice(1);
        bytes memory call = update
            ? abi.encodeCall(registry.updateDevice, (1, version, signer, RECORD))
            : abi.encodeCall(registry.revokeDevice, (1));
        attempt(caller, call);
        (IIdentityRegistry.DeviceState state, uint32 v, address s,) = registry.device(ada, 1);
        assert(state == IIdentityRegistry.DeviceState.REVOKED && v == 1 && s == PHONE);
        assert(registry.userOf(PHONE) == 0 || signer == PHONE); // free, or taken anew for another device
    }

    function check_revokeDevice(address caller, uint32 id) public {
        (IIdentityRegistry.DeviceState before,, address had,) = registry.device(ada, id);
        attempt(caller, abi.encodeCall(registry.revokeDevice, (id)));
        (IIdentityRegistry.DeviceState state,,,) = registry.device(ada, id);
        if (state == before) return;
        assert(caller == ADA && state == IIdentityRegistry.DeviceState.REVOKED);
        assert(before == IIdentityRegistry.DeviceState.ACTIVE && registry.userOf(had) == 0);
    }

    /// @dev An address that acts for somebody cannot be given away a second time.
    function check_addDevice(address caller, address signer, bool pending) public {
        if (pending) propose();
        uint64 taken = registry.userOf(signer);
        (,, uint32 count,,,) = registry.user(ada);
        attempt(caller, abi.encodeCall(registry.addDevice, (signer, RECORD)));
        (,, uint32 counts,,,) = registry.user(ada);
        if (counts == count) {
            assert(taken != ada || registry.userOf(signer) == ada);
            return;
        }
        assert(caller == ADA && !pending && taken == 0 && counts == count + 1);
        assert(registry.userOf(signer) == ada);
    }

    function check_proposeRecovery(address caller, address account) public {
        uint64 taken = registry.userOf(account);
        attempt(caller, abi.encodeCall(registry.proposeRecovery, (ada, account)));
        IIdentityRegistry.RecoveryInfo memory info = registry.recoveryOf(ada);
        (address current, uint32 epoch,,,,) = registry.user(ada);
        assert(current == ADA && epoch == 0);
        if (info.nextAccountAt == 0) return;
        assert(caller == KEEPER && taken == 0 && account != address(0));
        assert(info.nextAccount == account && info.nextAccountAt == NOW + DELAY);
    }

    function check_finaliseRecovery(address caller, uint32 wait, bool proposed) public {
        if (proposed) propose();
        vm.warp(NOW + wait);
        attempt(caller, abi.encodeCall(registry.finaliseRecovery, (ada)));
        (address account, uint32 epoch,,,,) = registry.user(ada);
        if (account == ADA) {
            assert(epoch == 0 && registry.userOf(ADA) == ada);
            return;
        }
        assert(proposed && caller == NEXT && wait >= DELAY);
        assert(account == NEXT && epoch == 1);
        assert(registry.userOf(ADA) == 0 && registry.userOf(NEXT) == ada);
        assert(registry.recoveryOf(ada).nextAccountAt == 0);
    }

    function check_vetoRecovery(address caller, uint32 wait) public {
        propose();
        vm.prank(ADA);
        registry.vetoRecovery();
        propose();
        vm.warp(NOW + wait);
        attempt(caller, abi.encodeCall(registry.vetoRecovery, ()));
        if (registry.recoveryOf(ada).nextAccountAt != 0) return;
        assert(caller == ADA && wait >= INTERVAL);
    }

    /// @dev A change of the recovery address never overtakes a recovery.
    function check_setRecovery(address caller, address recovery, uint32 wait, bool pending) public {
        if (pending) propose();
        attempt(caller, abi.encodeCall(registry.setRecovery, (recovery)));
        vm.warp(NOW + wait);
        (,,,,, address current) = registry.user(ada);
        if (current == KEEPER) return;
        assert(caller == ADA && current == recovery && !pending && wait > DELAY);
    }
}
