// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IRewardDistributor, World} from "../base/World.sol";
import {IRewardToken} from "../../src/interfaces/IRewardToken.sol";

contract ClaimTest is World {
    address private constant SETTER = address(0x5E7);
    address private constant ADA = address(0xADA);
    address private constant BOB = address(0xB0B);
    IRewardToken private token;

    function setUp() public override {
        super.setUp();
        distributor.setSetter(SETTER);
        token = distributor.token();
    }

    function leaf(address account, uint256 cumulative) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(account, cumulative))));
    }

    function node(bytes32 a, bytes32 b) private pure returns (bytes32) {
        return a < b ? keccak256(bytes.concat(a, b)) : keccak256(bytes.concat(b, a));
    }

    function list(bytes32 one) private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](1);
        proof[0] = one;
    }

    /// @dev Publishes what ada and bob earned, and lets the window pass.
    function publish(uint64 epoch, uint256 ofAda, uint256 ofBob, uint256 total) private returns (bytes32 root) {
        root = node(leaf(ADA, ofAda), leaf(BOB, ofBob));
        vm.prank(SETTER);
        distributor.setRoot(root, epoch, uint128(total));
        vm.warp(block.timestamp + WINDOW);
    }

    function test_revertsWithoutRoot() public {
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongRoot.selector, 0));
        distributor.claimFor(ADA, 5, 0, new bytes32[](0));
        bytes32 root = leaf(ADA, 5);
        vm.prank(SETTER);
        distributor.setRoot(root, 1, 5);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongRoot.selector, 0));
        distributor.claimFor(ADA, 5, root, new bytes32[](0)); // it does not count yet
    }

    function test_revertsForTheRootOfAnotherEpoch() public {
        bytes32 old = publish(1, 5, 7, 12);
        bytes32 root = publish(2, 6, 7, 13);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongRoot.selector, root));
        distributor.claimFor(ADA, 5, old, list(leaf(BOB, 7)));
    }

    function test_revertsOnBadProofs() public {
        bytes32 root = publish(1, 5, 7, 12);
        bytes32[] memory proof = list(leaf(BOB, 7));
        bytes memory bad = abi.encodeWithSelector(IRewardDistributor.BadProof.selector);
        vm.expectRevert(bad);
        distributor.claimFor(ADA, 6, root, proof); // more than earned
        vm.expectRevert(bad);
        distributor.claimFor(SETTER, 5, root, proof); // somebody else
        vm.expectRevert(bad);
        distributor.claimFor(ADA, 5, root, new bytes32[](0));
        vm.expectRevert(bad);
        distributor.claimFor(ADA, 5, root, list(root));
        vm.expectRevert(bad);
        distributor.claim(5, root, proof); // sent by another than ada
        vm.assertEq(token.totalSupply(), 0, "nothing minted");
    }

    /// @dev An inner node is the hash of 64 bytes too, but hashed once: it is no leaf.
    function test_revertsOnANodePassedOffAsALeaf() public {
        bytes32 left = bytes32(uint256(uint160(ADA)));
        bytes32 right = bytes32(uint256(1000));
        bytes32 root = keccak256(bytes.concat(left, right)); // = keccak256(abi.encode(ADA, 1000))
        vm.prank(SETTER);
        distributor.setRoot(root, 1, uint128(CAP));
        vm.warp(NOW + WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.BadProof.selector));
        distributor.claimFor(ADA, 1000, root, new bytes32[](0));
    }

    function test_revertsOnTheSecondTime() public {
        bytes32 root = publish(1, 5, 7, 12);
        distributor.claimFor(ADA, 5, root, list(leaf(BOB, 7)));
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NothingToClaim.selector, ADA));
        distributor.claimFor(ADA, 5, root, list(leaf(BOB, 7)));
        root = publish(2, 4, 8, 13); // less than she was given
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NothingToClaim.selector, ADA));
        distributor.claimFor(ADA, 4, root, list(leaf(BOB, 8)));
        vm.assertEq(token.balanceOf(ADA), 5, "balance");
    }

    function test_revertsOnNothing() public {
        bytes32 root = publish(1, 0, 7, 12);
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.NothingToClaim.selector, ADA));
        distributor.claimFor(ADA, 0, root, list(leaf(BOB, 7)));
    }

    /// @dev A root whose leaves add up to more than its total mints no more than the total.
    function testFuzz_revertsBeyondTheTotal(uint256 greedy, uint128 total) public {
        total = uint128(bound(total, 5, CAP));
        greedy = bound(greedy, uint256(total) - 4, type(uint256).max - 5);
        bytes32 root = publish(1, 5, greedy, total);
        distributor.claimFor(ADA, 5, root, list(leaf(BOB, greedy)));
        vm.expectRevert(abi.encodeWithSelector(IRewardToken.ExceedsTotal.selector, total, 5, greedy));
        distributor.claimFor(BOB, greedy, root, list(leaf(ADA, 5)));
        vm.assertEq(token.totalSupply(), 5, "supply");
        vm.assertEq(distributor.claimed(BOB), 0, "claimed");
    }

    function testFuzz_gives(uint128 ofAda, uint128 more, bool byHerself, address anyone) public {
        ofAda = uint128(bound(ofAda, 1, 1e18));
        more = uint128(bound(more, 1, 1e18));
        bytes32 root = publish(1, ofAda, 7, uint256(ofAda) + 7);
        vm.prank(byHerself ? ADA : anyone);
        if (byHerself) distributor.claim(ofAda, root, list(leaf(BOB, 7)));
        else distributor.claimFor(ADA, ofAda, root, list(leaf(BOB, 7)));
        root = publish(2, uint256(ofAda) + more, 7, uint256(ofAda) + more + 7);
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.Claimed(ADA, more, uint256(ofAda) + more);
        distributor.claimFor(ADA, uint256(ofAda) + more, root, list(leaf(BOB, 7)));
        distributor.claimFor(BOB, 7, root, list(leaf(ADA, uint256(ofAda) + more)));

        vm.assertEq(token.balanceOf(ADA), uint256(ofAda) + more, "ada's balance");
        vm.assertEq(token.balanceOf(BOB), 7, "bob's balance");
        vm.assertEq(distributor.claimed(ADA), uint256(ofAda) + more, "claimed");
        vm.assertEq(token.totalSupply(), uint256(ofAda) + more + 7, "supply");
    }

    function test_theRootBeforeCountsUntilTheNextDoes() public {
        bytes32 root = publish(1, 5, 7, 12);
        vm.prank(SETTER);
        distributor.setRoot(keccak256("next"), 2, 20);
        vm.warp(block.timestamp + WINDOW - 1);
        distributor.claimFor(ADA, 5, root, list(leaf(BOB, 7)));
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongRoot.selector, keccak256("next")));
        distributor.claimFor(BOB, 7, root, list(leaf(ADA, 5)));
    }
}
