// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IIdentityRegistry, ISigned} from "../base/World.sol";

contract TransferTest is Identities {
    string private constant TYPE =
        "Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)";

    function digestOf(uint64 uid, uint32 epoch, address from, address to, uint256 nonce)
        private
        view
        returns (bytes32)
    {
        return digest(TYPE, uid, epoch, abi.encode(from, to, nonce, deadline));
    }

    function good() private view returns (bytes32) {
        return digestOf(ada.uid, 0, ada.account, next, 0);
    }

    function test_reverts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.UnknownUser.selector, 1));
        registry.transferFor(1, next, deadline, "", "");
        bytes32[5] memory wrong = [
            digestOf(ada.uid, 1, ada.account, next, 0),
            digestOf(ada.uid, 0, ada.account, next, 1),
            digestOf(ada.uid, 0, bob.account, next, 0),
            digestOf(ada.uid, 0, ada.account, keeper, 0),
            digestOf(bob.uid, 0, ada.account, next, 0)
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            bytes memory mine = sign(ada.key, wrong[i]);
            bytes memory theirs = sign(NEXT, wrong[i]);
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            registry.transferFor(ada.uid, next, deadline, mine, theirs);
        }
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        registry.transferFor(ada.uid, next, deadline, "", "");
    }

    function test_revertsUnlessBothSign() public {
        bytes memory mine = sign(ada.key, good());
        bytes memory theirs = sign(NEXT, good());
        bytes memory device = sign(ada.deviceKey, good());
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.transferFor(ada.uid, next, deadline, mine, mine);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.transferFor(ada.uid, next, deadline, theirs, theirs);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.transferFor(ada.uid, next, deadline, device, theirs);
        vm.assertEq(accountOf(ada.uid), ada.account, "nothing moved");
    }

    function test_revertsForTakenAccounts() public {
        bytes32 hash = digestOf(ada.uid, 0, ada.account, bob.account, 0);
        bytes memory mine = sign(ada.key, hash);
        bytes memory theirs = sign(bob.key, hash);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, bob.account));
        registry.transferFor(ada.uid, bob.account, deadline, mine, theirs);
    }

    function test_revertsWhileARecoveryIsPending() public {
        bytes memory mine = sign(ada.key, good());
        bytes memory theirs = sign(NEXT, good());
        propose(address(0xF00));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.RecoveryPending.selector, ada.uid));
        registry.transferFor(ada.uid, next, deadline, mine, theirs);
    }

    function testFuzz_transfersOnce(address carrier) public {
        bytes memory mine = sign(ada.key, good());
        bytes memory theirs = sign(NEXT, good());
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.AccountReplaced(ada.uid, next, ada.account, 1);
        vm.prank(carrier);
        registry.transferFor(ada.uid, next, deadline, mine, theirs);
        vm.assertEq(accountOf(ada.uid), next, "account");
        vm.assertEq(epochOf(ada.uid), 1, "epoch");
        vm.assertEq(registry.recoveryOf(ada.uid).recovery, keeper, "the recovery address stays");
        assertResolves(ada.account, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.transferFor(ada.uid, next, deadline, mine, theirs);
    }

    function test_goesBackAndForth() public {
        registry.transferFor(ada.uid, next, deadline, sign(ada.key, good()), sign(NEXT, good()));
        bytes32 back = digestOf(ada.uid, 1, next, ada.account, 0);
        registry.transferFor(ada.uid, ada.account, deadline, sign(NEXT, back), sign(ada.key, back));
        vm.assertEq(accountOf(ada.uid), ada.account, "account");
        vm.assertEq(epochOf(ada.uid), 2, "epoch");
        vm.assertEq(registry.userOf(next), 0, "free again");
        bytes memory mine = sign(ada.key, good());
        bytes memory theirs = sign(NEXT, good());
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        registry.transferFor(ada.uid, next, deadline, mine, theirs);
    }
}
