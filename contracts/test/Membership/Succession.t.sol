// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Identities} from "../base/Identities.sol";
import {IMembership, ISigned} from "../base/World.sol";

/// @notice Votes of a user whose account was replaced: the seat belongs to the user, and has one vote.
contract SuccessionTest is Identities {
    string private constant TRANSFER =
        "Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)";

    Person private cem;
    uint64 private voted; // ada voted on it before
    uint64 private waiting; // and did not on this

    function setUp() public override {
        super.setUp();
        deploy(IMembership.Policy.VOTE, HALF, 30 days); // longer than a recovery takes
        (ada, bob, cem) = (kept("ada"), kept("bob"), kept("cem"));
        (Person memory eve, Person memory dan) = (kept("eve"), kept("dan"));
        seat(ada.uid);
        seat(bob.uid);
        seat(cem.uid);
        (voted, waiting) = (requestOf(eve), requestOf(dan));
        voteOf(ada, voted, false);
    }

    function transfer() private {
        bytes32 hash = digest(TRANSFER, ada.uid, 0, abi.encode(ada.account, next, 0, deadline));
        registry.transferFor(ada.uid, next, deadline, sign(ada.key, hash), sign(NEXT, hash));
    }

    function recover() private {
        propose(next);
        finalise();
    }

    /// @dev The signature of a vote, by whichever key, in whichever epoch.
    function signed(uint256 key, uint64 id, uint32 epoch) private view returns (bytes memory) {
        return sign(key, digests.vote(address(membership), id, ada.uid, epoch, true));
    }

    function refuse(address by, uint64 id, bytes memory why) private {
        vm.expectRevert(why);
        vm.prank(by);
        membership.vote(id, true);
    }

    function refuseSigned(address by, uint64 id, bytes memory signature, bytes memory why) private {
        vm.expectRevert(why);
        membership.voteBySig(id, true, by, signature);
        IMembership.SignedVote[] memory votes = new IMembership.SignedVote[](1);
        votes[0] = IMembership.SignedVote(id, true, by, signature);
        vm.assertEq(membership.voteBatch(votes), 0, "nor in a batch");
    }

    function assertCount(uint64 id, uint32 yes, uint32 no) private view {
        IMembership.ProposalInfo memory info = membership.proposal(id);
        vm.assertEq(info.yes, yes, "yes");
        vm.assertEq(info.no, no, "no");
    }

    function assertSameSeat() private view {
        (bool active, uint32 sequence) = membership.member(NETWORK, ada.uid);
        vm.assertTrue(active && sequence == 1, "the seat stays");
        (uint32 members, uint32 epoch,,,,) = membership.group(NETWORK);
        vm.assertTrue(members == 3 && epoch == 3, "so does the roster");
    }

    /// @dev What the old account can still do: nothing, be it by transaction or with what it signed before.
    function assertOldAccountHasNoVote(bytes memory stale) private {
        bytes memory nobody = abi.encodeWithSelector(IMembership.NotRegistered.selector, ada.account);
        refuse(ada.account, voted, nobody);
        refuse(ada.account, waiting, nobody);
        refuseSigned(ada.account, waiting, stale, nobody);
        refuseSigned(ada.account, waiting, signed(ada.key, waiting, 1), nobody);
        bytes memory bad = abi.encodeWithSelector(ISigned.BadSignature.selector);
        refuseSigned(next, waiting, stale, bad);
        refuseSigned(ada.signer, waiting, signed(ada.deviceKey, waiting, 0), bad);
        assertCount(waiting, 0, 0);
    }

    /// @dev Neither account nor device adds a vote to one that the user cast.
    function assertNoSecondVote(uint64 id, uint32 yes, uint32 no) private {
        bytes memory already = abi.encodeWithSelector(IMembership.AlreadyVoted.selector, id, ada.uid);
        refuse(next, id, already);
        refuse(ada.signer, id, already);
        refuseSigned(next, id, signed(NEXT, id, 1), already);
        refuseSigned(ada.signer, id, signed(ada.deviceKey, id, 1), already);
        assertCount(id, yes, no);
    }

    function assertOneVote(bytes memory stale) private {
        assertSameSeat();
        assertOldAccountHasNoVote(stale);
        assertNoSecondVote(voted, 0, 1);

        membership.voteBySig(waiting, true, next, signed(NEXT, waiting, 1));
        assertNoSecondVote(waiting, 1, 0);

        vm.prank(next);
        uint64 later = membership.propose(NETWORK, IMembership.Kind.EXPEL, cem.uid, "");
        vm.prank(next);
        membership.vote(later, true);
        assertNoSecondVote(later, 1, 0);
        voteOf(bob, later, true);
        assertState(later, IMembership.State.PASSED, "two of three");
    }

    function test_aVoteAfterATransfer() public {
        bytes memory stale = signed(ada.key, waiting, 0);
        transfer();
        assertOneVote(stale);
    }

    function test_aVoteAfterARecovery() public {
        bytes memory stale = signed(ada.key, waiting, 0);
        recover();
        assertOneVote(stale);
    }

    /// @dev A second account changes nothing either: there and back again.
    function test_aVoteAfterTheAccountCameBack() public {
        transfer();
        bytes32 hash = digest(TRANSFER, ada.uid, 1, abi.encode(next, ada.account, 0, deadline));
        registry.transferFor(ada.uid, ada.account, deadline, sign(NEXT, hash), sign(ada.key, hash));
        bytes memory already = abi.encodeWithSelector(IMembership.AlreadyVoted.selector, voted, ada.uid);
        refuse(ada.account, voted, already);
        refuse(next, voted, abi.encodeWithSelector(IMembership.NotRegistered.selector, next));
        assertCount(voted, 0, 1);
        assertSameSeat();
    }
}
