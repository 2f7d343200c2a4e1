// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {World} from "../base/World.sol";
import {IRewardToken} from "../../src/interfaces/IRewardToken.sol";
import {RewardToken} from "../../src/RewardToken.sol";

contract MintTest is World {
    function testFuzz_revertsForAnyoneButTheMinter(address other, address to, uint256 cumulative) public {
        IRewardToken token = distributor.token();
        vm.assume(other != address(distributor));
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NotMinter.selector, other));
        vm.prank(other);
        token.mintUpTo(to, cumulative, type(uint128).max);
        vm.assertEq(token.totalSupply(), 0, "supply");
    }

    function test_revertsForTheZeroAddress() public {
        RewardToken token = new RewardToken();
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(0)));
        token.mintUpTo(address(0), 1, 1);
    }

    function testFuzz_revertsWhenNothingIsLeft(uint128 had, uint256 cumulative) public {
        RewardToken token = new RewardToken();
        if (had != 0) token.mintUpTo(address(1), had, had);
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NothingToClaim.selector, address(1)));
        token.mintUpTo(address(1), cumulative % (uint256(had) + 1), type(uint128).max);
        vm.assertEq(token.balanceOf(address(1)), had, "balance");
    }

    /// @dev Also where the total is below the supply already, and where the amount has more than 128 bits.
    function testFuzz_revertsBeyondTheTotal(uint128 before, uint256 amount, uint128 total) public {
        RewardToken token = new RewardToken();
        before = uint128(bound(before, 1, type(uint128).max));
        token.mintUpTo(address(1), before, before);
        uint256 room = total > before ? total - before : 0;
        amount = bound(amount, room + 1, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.ExceedsTotal.selector, total, before, amount));
        token.mintUpTo(address(2), amount, total);
        vm.assertEq(token.totalSupply(), before, "supply");
        vm.assertEq(token.earned(address(2)), 0, "earned");
    }

    function testFuzz_mints(address to, uint128 first, uint128 second) public {
        vm.assume(to != address(0));
        first = uint128(bound(first, 1, type(uint128).max - 1));
        second = uint128(bound(second, first + 1, type(uint128).max));
        RewardToken token = new RewardToken();
        vm.expectEmit(address(token));
        emit IERC20.Transfer(address(0), to, first);
        vm.assertEq(token.mintUpTo(to, first, first), first, "first amount");
        vm.assertEq(token.mintUpTo(to, second, second), second - first, "second amount");
        vm.assertEq(token.balanceOf(to), second, "balance");
        vm.assertEq(token.earned(to), second, "earned");
        vm.assertEq(token.totalSupply(), second, "supply");
        vm.assertEq(token.minter(), address(this), "minter");
        vm.assertEq(token.symbol(), "CHAT", "symbol");
        vm.assertEq(token.decimals(), 18, "decimals");
    }
}
