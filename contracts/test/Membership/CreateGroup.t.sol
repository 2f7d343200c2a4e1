// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IMembership, ISigned, World} from "../base/World.sol";

contract CreateGroupTest is World {
    Person private ada;
    Person private bob;
    Person private eve;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(3);
        (ada, bob) = (people[0], people[1]);
        eve = join("eve");
    }

    function rules() private pure returns (IMembership.Rules memory) {
        return IMembership.Rules(6000, 3600);
    }

    function list(uint64 uid) private pure returns (uint64[] memory uids) {
        uids = new uint64[](1);
        uids[0] = uid;
    }

    function create(Person memory by, string memory name, uint64[] memory founders) private returns (uint32) {
        vm.prank(by.account);
        return membership.createGroup(name, founders, rules());
    }

    function test_revertsForTheUnregistered() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.createGroup("club", new uint64[](0), rules());
    }

    function test_policyVoteRevertsForThoseOutside() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotAdmitted.selector, eve.uid));
        create(eve, "club", new uint64[](0));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotAdmitted.selector, eve.uid));
        create(ada, "club", list(eve.uid));
        vm.assertEq(membership.groupCount(), 1, "groups");
    }

    function test_policyOpenLetsTheRegistered() public {
        deploy(IMembership.Policy.OPEN, HALF, WEEK);
        Person memory tom = join("tom");
        vm.assertEq(create(tom, "club", list(join("ida").uid)), 1, "id");
    }

    function test_revertsOnBadFounders() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownUser.selector, 7));
        create(ada, "club", list(7));
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, ada.uid));
        create(ada, "club", list(ada.uid)); // the creator is one anyway
        uint64[] memory twice = new uint64[](2);
        twice[0] = twice[1] = bob.uid;
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, bob.uid));
        create(ada, "club", twice);
        vm.expectRevert(abi.encodeWithSelector(IMembership.TooManyFounders.selector, 65));
        create(ada, "club", new uint64[](65));
    }

    function test_revertsOnBadRules() public {
        IMembership.Rules[4] memory bad = [
            IMembership.Rules(0, 60),
            IMembership.Rules(10_000, 60),
            IMembership.Rules(HALF, 0),
            IMembership.Rules(HALF, 365 days + 1)
        ];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.BadRules.selector));
            vm.prank(ada.account);
            membership.createGroup("club", new uint64[](0), bad[i]);
        }
    }

    function test_revertsOnMalformedNames() public {
        string[10] memory bad = [
            "",
            "ab",
            "abcdefghijklmnopqrstuvwxyz0123456",
            "1club",
            "-club",
            "club-",
            "cl--ub",
            "Club",
            "cl ub",
            unicode"clüb"
        ];
        for (uint256 i = 0; i < bad.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.NameMalformed.selector, bad[i]));
            create(ada, bad[i], new uint64[](0));
        }
    }

    function test_revertsOnTakenNames() public {
        create(ada, "club", new uint64[](0));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NameTaken.selector, "club"));
        create(bob, "club", new uint64[](0));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NameTaken.selector, "network"));
        create(bob, "network", new uint64[](0));
    }

    function test_revertsWhilePaused() public {
        uint64 id = proposeOffice(ada, IMembership.Kind.PAUSE, "");
        voteOf(ada, id, true);
        voteOf(bob, id, true);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NetworkPaused.selector, NOW + 7 days));
        create(ada, "club", new uint64[](0));
        vm.warp(NOW + 7 days + 1);
        create(ada, "club", new uint64[](0));
    }

    function testFuzz_creates(bool byDevice, bool alone, uint16 threshold, uint32 votingPeriod) public {
        threshold = uint16(bound(threshold, 1, 9999));
        votingPeriod = uint32(bound(votingPeriod, 1, 365 days));
        vm.expectEmit(address(membership));
        emit IMembership.GroupCreated(1, "club", IMembership.Policy.OPEN, threshold, votingPeriod);
        bytes32 roster = keccak256(abi.encode(bytes32(0), uint8(1), ada.uid, uint32(1)));
        vm.expectEmit(address(membership));
        emit IMembership.MemberAdded(1, ada.uid, 1, 1, roster);
        if (!alone) {
            roster = keccak256(abi.encode(roster, uint8(1), bob.uid, uint32(2)));
            vm.expectEmit(address(membership));
            emit IMembership.MemberAdded(1, bob.uid, 2, 2, roster);
        }
        vm.prank(byDevice ? ada.signer : ada.account);
        uint32 id = membership.createGroup(
            "club", alone ? new uint64[](0) : list(bob.uid), IMembership.Rules(threshold, votingPeriod)
        );

        vm.assertEq(id, 1, "id");
        vm.assertEq(membership.groupCount(), 2, "count");
        (bool exists, uint32 named) = membership.groupNamed("club");
        vm.assertTrue(exists && named == 1, "by name");
        (uint32 members, uint32 epoch, bytes32 hash,, uint16 t, uint32 v) = membership.group(1);
        vm.assertEq(members, alone ? 1 : 2, "members");
        vm.assertEq(epoch, members, "epoch");
        vm.assertEq(hash, roster, "roster hash");
        vm.assertEq(t, threshold, "threshold");
        vm.assertEq(v, votingPeriod, "voting period");
    }

    function test_namesLeadToTheirGroups() public {
        (bool exists, uint32 id) = membership.groupNamed("network");
        vm.assertTrue(exists && id == 0, "the network");
        (exists, id) = membership.groupNamed("club");
        vm.assertFalse(exists, "no such group");
        vm.assertEq(create(ada, "a-club", new uint64[](0)), 1, "first");
        vm.assertEq(create(ada, "b-club", new uint64[](0)), 2, "second");
        (exists, id) = membership.groupNamed("b-club");
        vm.assertTrue(exists && id == 2, "second");
    }

    /// @dev Groups have rosters, rules and proposals of their own.
    function test_groupsGovernThemselves() public {
        uint32 club = create(ada, "club", list(bob.uid));
        Person memory member = join("cleo");
        seat(member.uid);
        vm.prank(member.account);
        uint64 id = membership.request(club);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, member.uid));
        voteOf(member, id, true);
        voteOf(ada, id, true);
        assertState(id, IMembership.State.OPEN, "half is not six tenths");
        voteOf(bob, id, true);
        assertState(id, IMembership.State.PASSED, "both");
        (bool active, uint32 sequence) = membership.member(club, member.uid);
        vm.assertTrue(active && sequence == 3, "third seat of the club");
        (uint32 members,,,,,) = membership.group(NETWORK);
        vm.assertEq(members, 4, "the network's roster stays");
    }

    function test_policyVoteAdmitsToGroupsOnlyThoseInside() public {
        uint32 club = create(ada, "club", new uint64[](0));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotAdmitted.selector, eve.uid));
        vm.prank(eve.account);
        membership.request(club);
        seat(eve.uid);
        vm.prank(eve.account);
        uint64 id = membership.request(club);
        vm.prank(eve.account);
        membership.leave(NETWORK);
        voteOf(ada, id, true);
        assertState(id, IMembership.State.VOID, "left the network in the meantime");
    }

    // -------------------------------------------------------------------------------------- by signature

    function draft() private view returns (Digests.Creation memory c) {
        uint64[] memory founders = new uint64[](1);
        founders[0] = bob.uid;
        return Digests.Creation("club", founders, 6000, 3600, ada.uid, 0, block.timestamp + 60);
    }

    function submit(Digests.Creation memory c, address by, bytes memory signature) private returns (uint32) {
        IMembership.Rules memory r = IMembership.Rules(c.threshold, c.votingPeriod);
        return membership.createGroupFor(c.name, c.founders, r, by, c.deadline, signature);
    }

    function test_forRevertsAfterTheDeadline() public {
        Digests.Creation memory c = draft();
        bytes memory signature = sign(ada.key, digests.createGroup(address(membership), c));
        vm.warp(c.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, c.deadline));
        submit(c, ada.account, signature);
    }

    function test_forRevertsOnAnyAlteredPart() public {
        bytes memory signature = sign(ada.key, digests.createGroup(address(membership), draft()));
        for (uint256 change = 0; change < 6; ++change) {
            Digests.Creation memory c = draft();
            if (change == 0) c.name = "other";
            if (change == 1) c.founders = new uint64[](0);
            if (change == 2) c.founders[0] = ada.uid;
            if (change == 3) c.threshold = 1;
            if (change == 4) c.votingPeriod = 1;
            if (change == 5) c.deadline += 1;
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            submit(c, ada.account, signature);
        }
        raiseEpoch(ada.uid);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(draft(), ada.account, signature);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        submit(draft(), address(this), signature);
    }

    function test_forRevertsOnReplay() public {
        Digests.Creation memory c = draft();
        bytes memory signature = sign(ada.key, digests.createGroup(address(membership), c));
        submit(c, ada.account, signature);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NameTaken.selector, "club"));
        submit(c, ada.account, signature);
    }

    function testFuzz_createsBySignature(bool byDevice, address carrier, uint8 founders) public {
        Digests.Creation memory c = draft();
        c.founders = new uint64[](bound(founders, 0, 64));
        for (uint256 i = 0; i < c.founders.length; ++i) {
            c.founders[i] = join(string.concat("founder-", letters(i))).uid;
            seat(c.founders[i]);
        }
        bytes32 digest = digests.createGroup(address(membership), c);
        vm.prank(carrier);
        uint32 id = submit(c, byDevice ? ada.signer : ada.account, sign(byDevice ? ada.deviceKey : ada.key, digest));
        (uint32 members,,,,,) = membership.group(id);
        vm.assertEq(members, c.founders.length + 1, "members");
    }
}
