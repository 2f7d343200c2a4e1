// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Wallet} from "../base/Wallet.sol";
import {IMembership, ISigned, World} from "../base/World.sol";

contract VoteTest is World {
    Person[] private members;
    Person private eve;
    uint64 private id;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(5);
        for (uint256 i = 0; i < 5; ++i) {
            members.push(people[i]);
        }
        eve = join("eve");
        id = requestOf(eve);
    }

    function assertVotes(uint32 yes, uint32 no) private view {
        IMembership.ProposalInfo memory info = membership.proposal(id);
        vm.assertEq(info.yes, yes, "yes");
        vm.assertEq(info.no, no, "no");
    }

    function test_revertsForUnknownProposals() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownProposal.selector, 2));
        voteOf(members[0], 2, true);
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownProposal.selector, 0));
        voteOf(members[0], 0, true);
    }

    function test_revertsForAnyoneButMembers() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.vote(id, true);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        voteOf(eve, id, true);
    }

    function test_revertsForThoseWhoJoinedLater() public {
        Person memory late = join("late");
        seat(late.uid);
        vm.expectRevert(abi.encodeWithSelector(IMembership.JoinedLater.selector, id, late.uid));
        voteOf(late, id, true);
        assertVotes(0, 0);
    }

    function test_revertsOnTheSecondVote() public {
        voteOf(members[0], id, true);
        bytes memory already = abi.encodeWithSelector(IMembership.AlreadyVoted.selector, id, members[0].uid);
        vm.expectRevert(already);
        voteOf(members[0], id, true);
        vm.expectRevert(already);
        voteOf(members[0], id, false);
        vm.expectRevert(already);
        vm.prank(members[0].signer); // the device votes for the same user
        membership.vote(id, true);
        assertVotes(1, 0);
    }

    function test_revertsAfterTheDeadline() public {
        vm.warp(NOW + WEEK);
        voteOf(members[0], id, true);
        vm.warp(NOW + WEEK + 1);
        vm.expectRevert(abi.encodeWithSelector(IMembership.VotingEnded.selector, id, NOW + WEEK));
        voteOf(members[1], id, true);
    }

    function test_revertsOnceClosed() public {
        for (uint256 i = 0; i < 3; ++i) {
            voteOf(members[i], id, true);
        }
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotOpen.selector, id, IMembership.State.PASSED));
        voteOf(members[3], id, true);
    }

    function test_revertsForARevokedDevice() public {
        vm.prank(members[0].account);
        registry.revokeDevice(1);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, members[0].signer));
        vm.prank(members[0].signer);
        membership.vote(id, true);
    }

    function testFuzz_counts(bool byDevice, bool support) public {
        vm.expectEmit(address(membership));
        emit IMembership.Voted(id, members[2].uid, support, support ? 1 : 0, support ? 0 : 1);
        vm.prank(byDevice ? members[2].signer : members[2].account);
        membership.vote(id, support);
        assertVotes(support ? 1 : 0, support ? 0 : 1);
        vm.assertTrue(membership.hasVoted(id, members[2].uid), "has voted");
        vm.assertFalse(membership.hasVoted(id, members[1].uid), "has not voted");
        vm.assertFalse(membership.hasVoted(id, eve.uid), "is no member");
        vm.assertFalse(membership.hasVoted(id + 1, members[2].uid), "no such proposal");
    }

    /// @dev The verdict falls with the first vote that settles it, for every size, threshold and order of votes.
    function testFuzz_settlesExactlyWhenItMust(uint8 size, uint16 threshold, uint32 votes) public {
        size = uint8(bound(size, 1, 12));
        threshold = uint16(bound(threshold, 1, 9999));
        deploy(IMembership.Policy.VOTE, threshold, WEEK);
        Person[] memory people = found(size);
        Person memory subject = join("subject");
        id = requestOf(subject);
        uint256 yes;
        uint256 no;
        for (uint256 i = 0; i < size; ++i) {
            bool support = (votes >> i) & 1 == 1;
            voteOf(people[i], id, support);
            if (support) ++yes;
            else ++no;
            bool passed = yes * 10_000 > uint256(size) * threshold;
            bool hopeless = (uint256(size) - no) * 10_000 <= uint256(size) * threshold;
            IMembership.State expected = IMembership.State.OPEN;
            if (passed) expected = IMembership.State.PASSED;
            else if (hopeless) expected = IMembership.State.REJECTED;
            assertState(id, expected, "state after the vote");
            vm.assertEq(isMember(subject.uid), passed, "member if and only if it passed");
            if (expected != IMembership.State.OPEN) return;
        }
        vm.assertTrue(false, "all voted and nothing was settled");
    }

    function test_halfIsNotEnough() public {
        deploy(IMembership.Policy.VOTE, HALF, WEEK);
        Person[] memory people = found(4);
        id = requestOf(join("subject"));
        voteOf(people[0], id, true);
        voteOf(people[1], id, true);
        assertState(id, IMembership.State.OPEN, "2 of 4");
        voteOf(people[2], id, false);
        voteOf(people[3], id, false);
        assertState(id, IMembership.State.REJECTED, "2 to 2");
    }

    /// @dev Seats beyond the first page of 256 have their own bits.
    function test_pagesOfBallotsDoNotOverlap() public {
        deploy(IMembership.Policy.VOTE, 9999, WEEK);
        Person[] memory people = found(600);
        id = requestOf(join("subject"));
        for (uint256 i = 0; i < 600; i += 37) {
            voteOf(people[i], id, true);
        }
        for (uint256 i = 0; i < 600; ++i) {
            vm.assertEq(membership.hasVoted(id, people[i].uid), i % 37 == 0, "has voted");
        }
        voteOf(people[255], id, true); // sequence 256, the first of the second page
        voteOf(people[511], id, true);
        vm.assertFalse(membership.hasVoted(id, people[256].uid), "neighbour");
    }

    /// @dev The first seats' marks stand elsewhere than those of later seats: both are spent once, up to the border.
    function test_neitherEarlyNorLateSeatsVoteTwice() public {
        deploy(IMembership.Policy.VOTE, 9999, WEEK);
        Person[] memory people = found(60);
        id = requestOf(join("subject"));
        for (uint256 i = 50; i < 60; ++i) {
            voteOf(people[i], id, true); // sequences 51 to 60
            vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyVoted.selector, id, people[i].uid));
            voteOf(people[i], id, true);
        }
        for (uint256 i = 0; i < 60; ++i) {
            vm.assertEq(membership.hasVoted(id, people[i].uid), i >= 50, "has voted");
        }
        assertVotes(10, 0);
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(uint64 proposal, uint64 voter, uint32 epoch, bool support) private view returns (bytes32) {
        return digests.vote(address(membership), proposal, voter, epoch, support);
    }

    function test_sigRevertsForTheUnregistered() public {
        Person memory mallory = stranger("mallory");
        bytes memory signature = sign(mallory.key, digestOf(id, 0, 0, true));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, mallory.account));
        membership.voteBySig(id, true, mallory.account, signature);
    }

    function test_sigRevertsForNonMembers() public {
        bytes memory signature = sign(eve.key, digestOf(id, eve.uid, 0, true));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        membership.voteBySig(id, true, eve.account, signature);
    }

    function test_sigRevertsOnWrongSignatures() public {
        Person memory ada = members[0];
        uint64 second = proposeExpel(members[1], members[4].uid, "");
        bytes32 foreign = digests.vote(address(registry), id, ada.uid, 0, true);
        bytes[7] memory wrong = [
            sign(members[1].key, digestOf(id, ada.uid, 0, true)), // another member
            sign(ada.deviceKey, digestOf(id, ada.uid, 0, true)), // the device, claimed for the account
            sign(ada.key, digestOf(id, members[1].uid, 0, true)), // voter
            sign(ada.key, digestOf(id, ada.uid, 1, true)), // epoch
            sign(ada.key, digestOf(id, ada.uid, 0, false)), // a no turned into a yes
            sign(ada.key, digestOf(second, ada.uid, 0, true)), // proposal
            sign(ada.key, foreign) // contract
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            membership.voteBySig(id, true, ada.account, wrong[i]);
        }
        assertVotes(0, 0);
    }

    function test_sigRevertsOnReplay() public {
        Person memory ada = members[0];
        bytes memory signature = sign(ada.key, digestOf(id, ada.uid, 0, true));
        membership.voteBySig(id, true, ada.account, signature);
        bytes memory already = abi.encodeWithSelector(IMembership.AlreadyVoted.selector, id, ada.uid);
        vm.expectRevert(already);
        membership.voteBySig(id, true, ada.account, signature);
        bytes memory malleable = signMalleable(ada.key, digestOf(id, ada.uid, 0, true));
        vm.expectRevert(already);
        membership.voteBySig(id, true, ada.account, malleable);
        bytes memory other = sign(ada.deviceKey, digestOf(id, ada.uid, 0, false));
        vm.expectRevert(already);
        membership.voteBySig(id, false, ada.signer, other);
        assertVotes(1, 0);
    }

    function test_sigRevertsForARevokedDevice() public {
        Person memory ada = members[0];
        bytes memory signature = sign(ada.deviceKey, digestOf(id, ada.uid, 0, true));
        vm.prank(ada.account);
        registry.revokeDevice(1);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, ada.signer));
        membership.voteBySig(id, true, ada.signer, signature);
    }

    /// @dev A signer that served one user and serves another now cannot carry the first one's vote over.
    function test_sigRevertsAfterTheSignerChangedHands() public {
        Person memory ada = members[0];
        bytes memory signature = sign(ada.deviceKey, digestOf(id, ada.uid, 0, true));
        vm.prank(ada.account);
        registry.revokeDevice(1);
        vm.prank(members[1].account);
        registry.addDevice(ada.signer, RECORD);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.voteBySig(id, true, ada.signer, signature);
    }

    function testFuzz_countsBySignature(bool byDevice, bool support, bool short, address carrier) public {
        Person memory ada = members[0];
        uint256 key = byDevice ? ada.deviceKey : ada.key;
        bytes32 digest = digestOf(id, ada.uid, 0, support);
        vm.expectEmit(address(membership));
        emit IMembership.Voted(id, ada.uid, support, support ? 1 : 0, support ? 0 : 1);
        vm.prank(carrier);
        membership.voteBySig(id, support, vm.addr(key), short ? signShort(key, digest) : sign(key, digest));
        assertVotes(support ? 1 : 0, support ? 0 : 1);
    }

    function test_countsForAContractWallet() public {
        Person memory owner = stranger("owner");
        address wallet = address(new Wallet(owner.account));
        vm.prank(wallet);
        uint64 uid = registry.register("wallet", VERIFIER, KDF, RECOVERY, owner.signer, RECORD);
        seat(uid);
        uint64 next = proposeExpel(members[0], members[4].uid, "");
        bytes memory wrong = sign(owner.deviceKey, digestOf(next, uid, 0, true));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.voteBySig(next, true, wallet, wrong);
        membership.voteBySig(next, true, wallet, sign(owner.key, digestOf(next, uid, 0, true)));
        vm.assertTrue(membership.hasVoted(next, uid), "has voted");
    }

    /// @dev An account that delegated to code (EIP-7702) still acts by its own key.
    function test_countsForAKeyWhoseAddressHasCode() public {
        Person memory ada = members[0];
        vm.etch(ada.account, hex"fe"); // code that answers nothing
        membership.voteBySig(id, true, ada.account, sign(ada.key, digestOf(id, ada.uid, 0, true)));
        assertVotes(1, 0);
    }
}
