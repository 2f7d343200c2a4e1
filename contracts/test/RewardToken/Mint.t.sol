// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {World} from "../base/World.sol";
import {IRewardToken} from "../../src/interfaces/IRewardToken.sol";
import {RewardToken} from "../../src/RewardToken.sol";

contract MintTest is World {
    function testFuzz_revertsForAnyoneButTheMinter(address other, address to, uint256 amount) public {
        IRewardToken token = distributor.token();
        vm.assume(other != address(distributor));
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NotMinter.selector, other));
        vm.prank(other);
        token.mint(to, amount, type(uint256).max);
        vm.assertEq(token.totalSupply(), 0, "supply");
    }

    function testFuzz_revertsBeyondTheTotal(uint256 before, uint256 amount, uint256 total) public {
        RewardToken token = new RewardToken();
        token.mint(address(1), before, before);
        if (total < before) amount = bound(amount, 0, type(uint256).max - 1);
        else if (total - before == type(uint256).max) return;
        else amount = total - before + 1 + amount % (type(uint256).max - (total - before));
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.ExceedsTotal.selector, total, before, amount));
        token.mint(address(2), amount, total);
        vm.assertEq(token.totalSupply(), before, "supply");
    }

    function testFuzz_mints(address to, uint256 amount) public {
        vm.assume(to != address(0));
        RewardToken token = new RewardToken();
        token.mint(to, amount, amount);
        vm.assertEq(token.balanceOf(to), amount, "balance");
        vm.assertEq(token.totalSupply(), amount, "supply");
        vm.assertEq(token.minter(), address(this), "minter");
        vm.assertEq(token.symbol(), "CHAT", "symbol");
        vm.assertEq(token.decimals(), 18, "decimals");
    }
}
