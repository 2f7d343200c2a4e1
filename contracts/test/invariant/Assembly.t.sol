// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership, IMessageLedger, IRewardDistributor, World} from "../base/World.sol";
import {Assembly} from "./Assembly.sol";

/// @notice What must hold in a sealed network after anything that its users can do.
contract AssemblyInvariants is World {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Assembly private crowd;

    function setUp() public override {
        vm.warp(NOW);
        crowd = new Assembly();
        crowd.setUp();
        membership = crowd.theMembership();
        ledger = crowd.theLedger();
        distributor = crowd.theDistributor();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(crowd);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(crowd), crowd.actions());
    }

    /// @dev Singly or in batches, in every group: the ghost counts the events of votes by voter.
    function invariant_oneCountedVotePerVoterAndProposal() public view {
        for (uint64 id = 1; id <= membership.proposalCount(); ++id) {
            IMembership.ProposalInfo memory info = membership.proposal(id);
            uint256 counted;
            for (uint256 i = 0; i < crowd.people(); ++i) {
                uint256 votes = crowd.votesCounted(id, crowd.uidAt(i));
                vm.assertLe(votes, 1, "votes of one user on one proposal");
                counted += votes;
            }
            vm.assertEq(uint256(info.yes) + info.no, counted, "the totals are the counted votes");
            vm.assertLe(counted, info.electorate, "votes within the electorate");
        }
    }

    function invariant_everyRosterIsItsEventsAndNeverEmpty() public view {
        for (uint32 id = 0; id < membership.groupCount(); ++id) {
            (uint32 members, uint32 epoch, bytes32 roster,,,) = membership.group(id);
            vm.assertEq(members, crowd.joinings(id) - crowd.departures(id), "admissions less departures");
            vm.assertEq(epoch, crowd.joinings(id) + crowd.departures(id), "epoch");
            vm.assertEq(roster, crowd.roster(id), "roster hash");
            vm.assertGe(members, 1, "somebody stays");
            uint256 active;
            for (uint256 i = 0; i < crowd.people(); ++i) {
                (bool inside,) = membership.member(id, crowd.uidAt(i));
                if (inside) ++active;
            }
            vm.assertEq(members, active, "count of active seats");
        }
    }

    function invariant_logsOnlyGrowAndOneIsOpen() public view {
        vm.assertEq(crowd.shrunk(), 0, "heads that were no larger than the one before");
        for (uint256 i = 0; i < 4; ++i) {
            IMessageLedger.Log memory l = ledger.log(crowd.logIdAt(i));
            vm.assertEq(l.size, crowd.size(crowd.logIdAt(i)), "the last head");
            vm.assertEq(l.open, ledger.currentLog() == crowd.logIdAt(i), "open if and only if current");
        }
    }

    function invariant_mintedWithinTheCaps() public view {
        IRewardDistributor.Epoch memory e = distributor.current();
        vm.assertEq(distributor.token().totalSupply(), crowd.minted(), "supply");
        vm.assertLe(crowd.minted(), e.total, "minted within the total");
        vm.assertLe(e.total, uint256(e.epoch) * CAP, "total within the caps");
        for (uint256 i = 0; i < crowd.people(); ++i) {
            address account = crowd.accountAt(i);
            vm.assertEq(distributor.claimed(account), crowd.given(account), "claimed");
            vm.assertEq(distributor.token().balanceOf(account), crowd.given(account), "balance");
        }
    }

    /// @dev No office changes but in the transaction in which a proposal of group 0 passes.
    function invariant_onlyTheNetworkFillsOffices() public view {
        vm.assertEq(crowd.trespasses(), 0, "offices filled by anyone else");
    }

    function afterInvariant() public view {
        vm.assertGe(crowd.successes(), 1, "some action succeeded");
    }
}
