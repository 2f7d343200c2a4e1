// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Wallet} from "../base/Wallet.sol";
import {IMembership, World} from "../base/World.sol";

/// @dev Spends all gas that it gets.
contract Burner {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        while (true) {}
        return 0x1626ba7e;
    }
}

/// @dev Answers with as much as its gas allows.
contract Flooder {
    function isValidSignature(bytes32, bytes calldata) external pure {
        assembly ("memory-safe") {
            return(0, 150000)
        }
    }
}

contract VoteBatchTest is World {
    Person[] private members;
    Person private eve;
    uint64 private id;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(9);
        for (uint256 i = 0; i < 9; ++i) {
            members.push(people[i]);
        }
        eve = join("eve");
        id = requestOf(eve);
    }

    function voteFrom(Person memory p, uint64 proposal, bool support)
        private
        view
        returns (IMembership.SignedVote memory)
    {
        bytes32 digest = digests.vote(address(membership), proposal, p.uid, 0, support);
        return IMembership.SignedVote(proposal, support, p.account, sign(p.key, digest));
    }

    /// @dev Registers a contract as an account, and seats it before the next proposal opens.
    function walletMember(string memory name, address wallet) private returns (uint64 uid) {
        vm.prank(wallet);
        uid = registry.register(name, VERIFIER, KDF, RECOVERY, stranger(name).signer, RECORD);
        seat(uid);
    }

    function assertVotes(uint64 proposal, uint32 yes, uint32 no) private view {
        IMembership.ProposalInfo memory info = membership.proposal(proposal);
        vm.assertEq(info.yes, yes, "yes");
        vm.assertEq(info.no, no, "no");
    }

    function test_countsNothingOfNothing() public {
        vm.assertEq(membership.voteBatch(new IMembership.SignedVote[](0)), 0, "counted");
    }

    /// @dev One of each kind that does not count, each between two that do.
    function test_skipsWhatDoesNotCount() public {
        Person memory late = join("late");
        seat(late.uid);
        uint64 lapsed = proposeExpel(members[0], members[8].uid, "");
        vm.warp(NOW + WEEK + 1);
        uint64 rejected = proposeExpel(members[0], members[8].uid, "rejected");
        for (uint256 i = 0; i < 5; ++i) {
            voteOf(members[i], rejected, false);
        }
        id = requestOf(eve);
        Person memory later = join("later");
        seat(later.uid);

        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](13);
        items[0] = voteFrom(members[0], id, true);
        items[1] = voteFrom(members[0], id, false); // counted before
        items[2] = voteFrom(members[1], id, false);
        items[3] = voteFrom(eve, id, true); // no member
        items[4] = voteFrom(later, id, true); // joined later
        items[5] = voteFrom(stranger("mallory"), id, true); // not registered
        items[6] = voteFrom(members[2], lapsed, true);
        items[7] = voteFrom(members[2], rejected, true);
        items[8] = voteFrom(members[2], 99, true); // no such proposal
        items[9] = voteFrom(members[2], id, true);
        items[9].support = false; // a yes turned into a no
        items[10] = voteFrom(members[3], id, true);
        items[10].signature = "garbage";
        items[11] = items[0]; // a replay
        items[12] = voteFrom(members[2], id, true);
        vm.assertEq(membership.voteBatch(items), 3, "counted");
        assertVotes(id, 2, 1);
        vm.assertFalse(membership.hasVoted(id, members[3].uid), "a bad signature leaves the vote unspent");
        vm.assertEq(membership.voteBatch(items), 0, "again");
        assertVotes(id, 2, 1);
    }

    function test_wrongEpochsAndRevokedDevicesAreSkipped() public {
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](2);
        items[0] = voteFrom(members[0], id, true);
        raiseEpoch(members[0].uid);
        bytes32 digest = digests.vote(address(membership), id, members[1].uid, 0, true);
        items[1] = IMembership.SignedVote(id, true, members[1].signer, sign(members[1].deviceKey, digest));
        vm.prank(members[1].account);
        registry.revokeDevice(1);
        vm.assertEq(membership.voteBatch(items), 0, "counted");
    }

    /// @dev The vote that decides executes; what comes after it is late.
    function test_decidesInTheMiddle() public {
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](9);
        for (uint256 i = 0; i < 9; ++i) {
            items[i] = voteFrom(members[i], id, true);
        }
        vm.assertEq(membership.voteBatch(items), 5, "counted");
        assertState(id, IMembership.State.PASSED, "passed");
        vm.assertTrue(isMember(eve.uid), "admitted");
    }

    function test_countsOverManyProposals() public {
        uint64 second = proposeExpel(members[0], members[8].uid, "");
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](4);
        items[0] = voteFrom(members[0], id, true);
        items[1] = voteFrom(members[0], second, false);
        items[2] = voteFrom(members[1], second, true);
        items[3] = voteFrom(members[1], id, false);
        vm.assertEq(membership.voteBatch(items), 4, "counted");
        assertVotes(id, 1, 1);
        assertVotes(second, 1, 1);
    }

    function test_countsForAContractWallet() public {
        Person memory owner = stranger("owner");
        address wallet = address(new Wallet(owner.account));
        uint64 uid = walletMember("wallet", wallet);
        id = proposeExpel(members[0], members[8].uid, "");
        bytes memory signature = sign(owner.key, digests.vote(address(membership), id, uid, 0, true));
        bytes memory wrong = sign(owner.deviceKey, digests.vote(address(membership), id, uid, 0, true));
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](2);
        items[0] = IMembership.SignedVote(id, true, wallet, wrong);
        items[1] = IMembership.SignedVote(id, true, wallet, signature);
        vm.assertEq(membership.voteBatch(items), 1, "counted");
        vm.assertTrue(membership.hasVoted(id, uid), "has voted");
        vm.assertTrue(
            membership.isSignedBy(
                members[0].account, VERIFIER, sign(members[0].key, digests.seal(address(membership), VERIFIER))
            ),
            "anyone may ask whether a signature counts"
        );
    }

    /// @dev Wallets that burn all gas or answer with floods spoil none of the others, and cost what they may.
    function test_poisonSpoilsNothingElse() public {
        address[3] memory poison = [address(new Burner()), address(new Flooder()), address(registry)];
        for (uint256 i = 0; i < 3; ++i) {
            walletMember(string.concat("poison-", letters(i)), poison[i]);
        }
        id = proposeExpel(members[0], members[8].uid, "");
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](9);
        for (uint256 i = 0; i < 9; ++i) {
            items[i] = i % 3 == 1
                ? IMembership.SignedVote(id, true, poison[i / 3], "poison")
                : voteFrom(members[i], id, i % 2 == 0);
        }
        uint256 before = gasleft();
        vm.assertEq(membership.voteBatch(items), 6, "counted");
        vm.assertLe(before - gasleft(), 3 * 110_000 + 6 * 40_000, "gas");
    }

    /// @dev Its copies alone cost more than a wallet's answer may.
    function test_anOversizedSignatureIsSkipped() public {
        address wallet = address(new Wallet(members[0].account));
        walletMember("wallet", wallet);
        id = proposeExpel(members[0], members[8].uid, "");
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](2);
        items[0] = IMembership.SignedVote(id, true, wallet, new bytes(300_000));
        items[1] = voteFrom(members[0], id, true);
        vm.assertEq(membership.voteBatch(items), 1, "counted");
    }

    /// @dev With too little gas to ask a wallet properly, nothing counts, so a carrier cannot leave one out unseen.
    function test_revertsRatherThanStarveAWallet() public {
        Person memory owner = stranger("owner");
        address wallet = address(new Wallet(owner.account));
        uint64 uid = walletMember("wallet", wallet);
        id = proposeExpel(members[0], members[8].uid, "");
        bytes memory signature = sign(owner.key, digests.vote(address(membership), id, uid, 0, true));
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](1);
        items[0] = IMembership.SignedVote(id, true, wallet, signature);
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotEnoughGas.selector, 100_000));
        membership.voteBatch{gas: 120_000}(items);
        vm.assertEq(membership.voteBatch{gas: 250_000}(items), 1, "counted");
    }

    function testFuzz_countsLikeSingleVotes(uint16 votes, uint16 present, uint8 threshold) public {
        deploy(IMembership.Policy.VOTE, uint16(bound(threshold, 1, 99)) * 100, WEEK);
        Person[] memory people = found(9);
        Person memory subject = join("subject");
        uint64 batched = requestOf(subject);
        uint64 single = proposeAdmit(people[0], subject.uid, "by single votes");
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](9);
        for (uint256 i = 0; i < 9; ++i) {
            bool support = (votes >> i) & 1 == 1;
            items[i] = voteFrom(people[i], batched, support);
            if ((present >> i) & 1 == 0) items[i].signature = "";
            if ((present >> i) & 1 == 0 || stateOf(single) != IMembership.State.OPEN) continue;
            voteOf(people[i], single, support);
        }
        membership.voteBatch(items);
        IMembership.ProposalInfo memory a = membership.proposal(batched);
        IMembership.ProposalInfo memory b = membership.proposal(single);
        vm.assertEq(a.yes, b.yes, "yes");
        vm.assertEq(a.no, b.no, "no");
        bool void = a.state == IMembership.State.VOID; // the other admitted the subject first
        vm.assertTrue(a.state == b.state || (void && b.state == IMembership.State.PASSED), "state");
    }

    function test_gasOf27() public {
        deploy(IMembership.Policy.VOTE, 9000, WEEK);
        Person[] memory people = found(31);
        id = requestOf(join("subject"));
        IMembership.SignedVote[] memory items = new IMembership.SignedVote[](27);
        voteOf(people[27], id, true);
        for (uint256 i = 0; i < 27; ++i) {
            items[i] = voteFrom(people[i], id, true);
        }
        uint256 before = gasleft();
        membership.voteBatch(items);
        vm.assertLe(before - gasleft(), 440_000, "execution gas, to which come some 85,000 for the transaction");
    }
}
