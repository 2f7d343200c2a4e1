// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry, IMembership, World} from "../base/World.sol";
import {Crowd} from "./Crowd.sol";

/// @notice What must hold after any sequence of actions by a crowd of honest, careless and hostile users.
contract NetworkInvariants is World {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Crowd private crowd;

    function setUp() public override {
        vm.warp(NOW);
        crowd = new Crowd();
        crowd.setUp();
        registry = crowd.theRegistry();
        membership = crowd.theMembership();
    }

    /// @dev The runner asks for these two by name.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(crowd);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(crowd), crowd.actions());
    }

    /// @dev The ghost counts the calls that succeeded, apart from the contract's own marks.
    function invariant_nobodyIsCountedTwice() public view {
        for (uint64 id = 1; id <= membership.proposalCount(); ++id) {
            IMembership.ProposalInfo memory info = membership.proposal(id);
            uint256 counted;
            for (uint256 i = 0; i < crowd.people(); ++i) {
                uint256 votes = crowd.votesCast(id, crowd.uidAt(i));
                vm.assertLe(votes, 1, "votes of one user on one proposal");
                counted += votes;
            }
            vm.assertEq(uint256(info.yes) + info.no, counted, "every counted vote was cast by somebody");
            vm.assertLe(counted, info.electorate, "votes within the electorate");
        }
    }

    function invariant_theRosterIsAdmissionsLessExpulsions() public view {
        (uint32 members, uint32 epoch, bytes32 roster,,,) = membership.group(NETWORK);
        vm.assertEq(members, crowd.joinings() - crowd.departures(), "members");
        vm.assertEq(epoch, crowd.joinings() + crowd.departures(), "epoch");
        vm.assertEq(roster, crowd.roster(), "roster hash, rebuilt from the events");
        uint256 active;
        for (uint256 i = 0; i < crowd.people(); ++i) {
            uint64 uid = crowd.uidAt(i);
            vm.assertEq(isMember(uid), crowd.inside(uid), "membership, rebuilt from the events");
            if (isMember(uid)) ++active;
        }
        vm.assertEq(members, active, "count of active seats");
    }

    function invariant_everySeatHasItsOwnSequence() public view {
        for (uint256 i = 0; i < crowd.people(); ++i) {
            (bool active, uint32 mine) = membership.member(NETWORK, crowd.uidAt(i));
            vm.assertLe(mine, crowd.joinings(), "sequence within the joinings");
            vm.assertTrue(!active || mine > 0, "an active seat has a sequence");
            for (uint256 j = 0; j < i; ++j) {
                (, uint32 other) = membership.member(NETWORK, crowd.uidAt(j));
                vm.assertTrue(mine == 0 || mine != other, "sequence given once");
            }
        }
    }

    function invariant_aVerdictIsTheArithmeticOfItsVotes() public view {
        for (uint64 id = 1; id <= membership.proposalCount(); ++id) {
            IMembership.ProposalInfo memory info = membership.proposal(id);
            uint256 bar = uint256(info.electorate) * HALF;
            bool passed = info.yes * uint256(10_000) > bar;
            bool hopeless = uint256(info.electorate - info.no) * 10_000 <= bar;
            bool done = info.state == IMembership.State.PASSED || info.state == IMembership.State.VOID;
            vm.assertEq(done, passed, "passed or void if and only if the yes votes suffice");
            vm.assertEq(info.state == IMembership.State.REJECTED, hopeless, "rejected if and only if hopeless");
            vm.assertFalse(crowd.reopened(id), "what was closed stays closed, in the same state");
        }
    }

    function invariant_oneOpenProposalPerMatter() public view {
        uint64 count = membership.proposalCount();
        for (uint64 a = 1; a <= count; ++a) {
            IMembership.ProposalInfo memory first = membership.proposal(a);
            if (first.state != IMembership.State.OPEN) continue;
            for (uint64 b = a + 1; b <= count; ++b) {
                IMembership.ProposalInfo memory second = membership.proposal(b);
                bool same =
                    first.kind == second.kind && first.subject == second.subject && first.dataHash == second.dataHash;
                vm.assertFalse(same && second.state == IMembership.State.OPEN, "two open at once");
            }
        }
    }

    /// @dev Versions, heads and states as an observer has them who only follows the events.
    function invariant_devicesAreWhatTheEventsTell() public view {
        for (uint256 i = 0; i < crowd.people(); ++i) {
            uint64 uid = crowd.uidAt(i);
            IIdentityRegistry.DeviceInfo[] memory all = registry.devices(uid);
            vm.assertEq(all.length, crowd.deviceCount(uid), "device count");
            uint256 active;
            for (uint32 id = 1; id <= all.length; ++id) {
                IIdentityRegistry.DeviceInfo memory one = all[id - 1];
                (IIdentityRegistry.DeviceState state, uint32 version, address signer, bytes32 head) =
                    crowd.seen(uid, id);
                vm.assertEq(uint256(one.state), uint256(state), "state");
                vm.assertEq(one.version, version, "version");
                vm.assertEq(one.signer, signer, "signer");
                vm.assertEq(one.head, head, "head");
                if (one.state == IIdentityRegistry.DeviceState.ACTIVE) {
                    ++active;
                    assertResolves(one.signer, uid, id);
                }
            }
            vm.assertLe(active, 16, "active devices");
            assertResolves(crowd.accountAt(i), uid, 0);
        }
    }

    function invariant_onlyTheOwnerChangedKeys() public view {
        vm.assertEq(crowd.trespasses(), 0, "key changes by somebody else");
        vm.assertEq(crowd.skippedVersions(), 0, "updates that were not the next version");
        vm.assertEq(crowd.resurrections(), 0, "events of a device after its revocation");
    }

    /// @dev Not vacuous: the crowd reaches every kind of outcome.
    function afterInvariant() public view {
        vm.assertGe(crowd.successes(), 1, "some action succeeded");
    }
}
