// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {World} from "../base/World.sol";
import {RewardToken} from "../../src/RewardToken.sol";

contract TransferTest is World {
    address private constant ADA = address(0xADA);
    RewardToken private token;

    function setUp() public override {
        token = new RewardToken();
    }

    function testFuzz_revertsOnMoreThanThereIs(uint128 had, uint256 value, address to) public {
        vm.assume(to != address(0));
        had = uint128(bound(had, 1, type(uint128).max));
        token.mintUpTo(ADA, had, had);
        value = bound(value, uint256(had) + 1, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, ADA, had, value));
        vm.prank(ADA);
        token.transfer(to, value);
    }

    function test_revertsToAndFromNobody() public {
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(0)));
        token.transfer(address(0), 0);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidSender.selector, address(0)));
        vm.prank(address(0));
        token.transfer(ADA, 0);
    }

    /// @dev What was earned stays with who earned it, so giving tokens away earns nothing anew; to oneself too.
    function testFuzz_movesTheBalanceAndNotWhatWasEarned(uint128 had, uint128 value, address to, bool allowed) public {
        vm.assume(to != address(0));
        had = uint128(bound(had, 1, type(uint128).max));
        value = uint128(bound(value, 0, had));
        token.mintUpTo(ADA, had, had);
        vm.prank(ADA);
        if (allowed) {
            token.approve(address(this), value);
            vm.expectEmit(address(token));
            emit IERC20.Transfer(ADA, to, value);
            token.transferFrom(ADA, to, value);
        } else {
            token.transfer(to, value);
        }
        vm.assertEq(token.balanceOf(ADA), to == ADA ? had : had - value, "ada's balance");
        if (to != ADA) vm.assertEq(token.balanceOf(to), value, "balance");
        vm.assertEq(token.earned(ADA), had, "earned");
        if (to != ADA) vm.assertEq(token.earned(to), 0, "the taker earned nothing");
        vm.assertEq(token.totalSupply(), had, "supply");
    }
}
