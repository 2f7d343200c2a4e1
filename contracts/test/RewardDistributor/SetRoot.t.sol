// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IGoverned, IMembership, IRewardDistributor, RewardDistributor, World} from "../base/World.sol";

contract SetRootTest is World {
    address private constant SETTER = address(0x5E7);
    bytes32 private constant ROOT = keccak256("root");

    function setUp() public override {
        super.setUp();
        distributor.setSetter(SETTER);
    }

    function setRoot(bytes32 root, uint64 epoch, uint256 total) private {
        vm.prank(SETTER);
        distributor.setRoot(root, epoch, uint128(total));
    }

    function assertEpoch(IRewardDistributor.Epoch memory e, bytes32 root, uint64 epoch, uint256 total) private pure {
        vm.assertEq(e.root, root, "root");
        vm.assertEq(e.epoch, epoch, "epoch");
        vm.assertEq(e.total, total, "total");
    }

    // ------------------------------------------------------------------------------------- construction

    function test_constructionRevertsOnBadTerms() public {
        uint64[4] memory windows = [uint64(0), WINDOW, 365 days + 1, 0];
        uint128[4] memory caps = [CAP, 0, CAP, 0];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.BadTerms.selector));
            new RewardDistributor(address(directory), membership, windows[i], caps[i]);
        }
        RewardDistributor made = new RewardDistributor(address(directory), membership, 365 days, 1);
        vm.assertEq(made.challengeWindow(), 365 days, "window");
        vm.assertEq(made.epochCap(), 1, "cap");
        vm.assertEq(made.deployer(), address(this), "deployer");
        vm.assertEq(address(made.membership()), address(membership), "membership");
    }

    // ------------------------------------------------------------------------------------------- setter

    function testFuzz_setterRevertsForAnyoneButTheDeployerBeforeTheSeal(address other) public {
        vm.assume(other != address(this));
        vm.expectRevert(abi.encodeWithSelector(IGoverned.NotDeployer.selector, other));
        vm.prank(other);
        distributor.setSetter(other);
    }

    function test_setterRevertsForAllButMembershipAfterTheSeal() public {
        found(1);
        seal();
        vm.expectRevert(abi.encodeWithSelector(IGoverned.IsSealed.selector));
        distributor.setSetter(address(1));
        vm.prank(address(membership));
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.SetterSet(address(1));
        distributor.setSetter(address(1));
        vm.assertEq(distributor.setter(), address(1), "setter");
    }

    function test_setterRevertsOnZero() public {
        vm.expectRevert(abi.encodeWithSelector(IGoverned.ZeroAddress.selector));
        distributor.setSetter(address(0));
    }

    /// @dev How members challenge a root: they replace whoever set it.
    function test_anotherSetterDropsWhatDoesNotCountYet() public {
        setRoot(ROOT, 1, 10);
        vm.warp(NOW + WINDOW);
        setRoot(keccak256("rogue"), 2, 1000);
        vm.warp(NOW + 2 * WINDOW - 1);
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.RootDropped(2, keccak256("rogue"));
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.SetterSet(address(1));
        distributor.setSetter(address(1));
        vm.warp(NOW + 3 * WINDOW);
        assertEpoch(distributor.current(), ROOT, 1, 10);
        assertEpoch(distributor.pending(), 0, 0, 0);
        vm.prank(address(1));
        distributor.setRoot(keccak256("honest"), 2, 20);
        assertEpoch(distributor.pending(), keccak256("honest"), 2, 20);
    }

    function test_anotherSetterDropsTheVeryFirst() public {
        setRoot(ROOT, 1, 10);
        distributor.setSetter(address(1));
        vm.warp(NOW + WINDOW);
        assertEpoch(distributor.current(), 0, 0, 0);
    }

    function test_anotherSetterKeepsWhatCounts() public {
        setRoot(ROOT, 1, 10);
        vm.warp(NOW + WINDOW);
        vm.recordLogs();
        distributor.setSetter(address(1));
        vm.assertEq(vm.getRecordedLogs().length, 1, "nothing dropped");
        assertEpoch(distributor.current(), ROOT, 1, 10);
    }

    // --------------------------------------------------------------------------------------------- root

    function testFuzz_revertsForAnyoneButTheSetter(address other) public {
        vm.assume(other != SETTER);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.NotSetter.selector, other));
        vm.prank(other);
        distributor.setRoot(ROOT, 1, 10);
    }

    function test_revertsWhilePaused() public {
        Person memory ada = found(1)[0];
        voteOf(ada, proposeOffice(ada, IMembership.Kind.PAUSE, ""), true);
        vm.warp(NOW + 7 days);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.NetworkPaused.selector, NOW + 7 days));
        setRoot(ROOT, 1, 10);
        vm.warp(NOW + 7 days + 1);
        setRoot(ROOT, 1, 10);
    }

    function test_revertsOnAZeroRoot() public {
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.ZeroHash.selector));
        setRoot(0, 1, 10);
    }

    function testFuzz_revertsOnOtherEpochs(uint64 epoch) public {
        vm.assume(epoch != 1);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongEpoch.selector, 1, epoch));
        setRoot(ROOT, epoch, 10);
        setRoot(ROOT, 1, 10);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.WrongEpoch.selector, 1, 2));
        setRoot(ROOT, 2, 10); // the first does not count yet
    }

    function test_revertsOnTotalsOutOfBounds() public {
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.TotalOutOfBounds.selector, 0, CAP, CAP + 1));
        setRoot(ROOT, 1, CAP + 1);
        setRoot(ROOT, 1, 10);
        vm.warp(NOW + WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.TotalOutOfBounds.selector, 10, CAP + 10, 9));
        setRoot(ROOT, 2, 9);
        vm.expectRevert(abi.encodeWithSelector(IRewardDistributor.TotalOutOfBounds.selector, 10, CAP + 10, CAP + 11));
        setRoot(ROOT, 2, CAP + 11);
    }

    function testFuzz_countsAfterTheWindow(uint128 total, uint32 early) public {
        total = uint128(bound(total, 0, CAP));
        vm.expectEmit(address(distributor));
        emit IRewardDistributor.RootSet(1, ROOT, total, uint64(NOW) + WINDOW);
        setRoot(ROOT, 1, total);
        vm.warp(NOW + bound(early, 0, WINDOW - 1));
        assertEpoch(distributor.current(), 0, 0, 0);
        assertEpoch(distributor.pending(), ROOT, 1, total);
        vm.assertEq(distributor.pending().effectiveAt, NOW + WINDOW, "effective at");
        vm.warp(NOW + WINDOW);
        assertEpoch(distributor.current(), ROOT, 1, total);
        assertEpoch(distributor.pending(), 0, 0, 0);
    }

    /// @dev A mistaken root can be corrected, and the window begins again.
    function test_aRootTakesTheOldOnesPlaceAndWaitsAsLong() public {
        setRoot(ROOT, 1, 10);
        vm.warp(NOW + WINDOW - 1);
        setRoot(keccak256("corrected"), 1, 9);
        vm.warp(NOW + 2 * WINDOW - 2);
        assertEpoch(distributor.current(), 0, 0, 0);
        vm.warp(NOW + 2 * WINDOW - 1);
        assertEpoch(distributor.current(), keccak256("corrected"), 1, 9);
    }
}
