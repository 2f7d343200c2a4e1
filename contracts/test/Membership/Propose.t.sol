// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IMembership, ISigned, World} from "../base/World.sol";

contract ProposeTest is World {
    Person private ada;
    Person private bob;
    Person private eve;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(2);
        (ada, bob) = (people[0], people[1]);
        eve = join("eve");
    }

    function test_revertsForUnknownGroups() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownGroup.selector, 9));
        vm.prank(ada.account);
        membership.propose(9, IMembership.Kind.EXPEL, bob.uid, "");
    }

    function test_revertsForAnyoneButMembers() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.propose(NETWORK, IMembership.Kind.EXPEL, bob.uid, "");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        proposeExpel(eve, bob.uid, "");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        proposeAdmit(eve, eve.uid, ""); // only request() is open to those outside
    }

    function test_revertsOnSubjectsThatDoNotFit() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownUser.selector, 7));
        proposeAdmit(ada, 7, "");
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, bob.uid));
        proposeAdmit(ada, bob.uid, "");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        proposeExpel(ada, eve.uid, "");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, 7));
        proposeExpel(ada, 7, "");
    }

    function test_revertsOnLongData() public {
        proposeExpel(ada, bob.uid, new bytes(1024));
        vm.expectRevert(abi.encodeWithSelector(IMembership.DataTooLong.selector, 1025));
        proposeExpel(ada, bob.uid, new bytes(1025));
    }

    function test_revertsWhileTheSameIsOpen() public {
        uint64 id = proposeExpel(ada, bob.uid, "reason");
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyProposed.selector, id));
        proposeExpel(bob, bob.uid, "reason");
        uint64 other = proposeExpel(ada, bob.uid, "another reason");
        uint64 self = proposeExpel(ada, ada.uid, "reason");
        vm.assertTrue(other == id + 1 && self == id + 2, "other data or another subject is another proposal");
    }

    function test_revertsOnUnknownKinds() public {
        bytes memory call = abi.encodeCall(membership.propose, (NETWORK, IMembership.Kind.EXPEL, bob.uid, ""));
        call[67] = 0x0a; // the kind's last byte
        vm.prank(ada.account);
        (bool done,) = address(membership).call(call);
        vm.assertFalse(done, "there is no kind 10");
    }

    function testFuzz_opens(bool expel, bool byDevice, bytes memory data) public {
        data = sized(data, 0, 1024);
        IMembership.Kind kind = expel ? IMembership.Kind.EXPEL : IMembership.Kind.ADMIT;
        uint64 subject = expel ? bob.uid : eve.uid;
        vm.expectEmit(address(membership));
        emit IMembership.Proposed(1, NETWORK, subject, kind, ada.uid, 2, uint64(NOW + WEEK), data);
        vm.prank(byDevice ? ada.signer : ada.account);
        uint64 id = membership.propose(NETWORK, kind, subject, data);

        IMembership.ProposalInfo memory info = membership.proposal(id);
        vm.assertTrue(info.kind == kind, "kind");
        vm.assertEq(info.subject, subject, "subject");
        vm.assertEq(info.proposer, ada.uid, "proposer");
        vm.assertEq(info.electorate, 2, "electorate");
        vm.assertEq(info.dataHash, keccak256(data), "data hash");
        vm.assertFalse(membership.hasVoted(id, ada.uid), "proposing casts no vote");
    }

    // -------------------------------------------------------------------------------------- by signature

    function draft() private view returns (Digests.Proposal memory) {
        return Digests.Proposal(NETWORK, 1, bob.uid, "reason", ada.uid, 0, block.timestamp + 60);
    }

    function digestOf(Digests.Proposal memory p) private view returns (bytes32) {
        return digests.propose(address(membership), p);
    }

    function submit(Digests.Proposal memory p, address by, bytes memory signature) private returns (uint64) {
        return membership.proposeFor(p.group, IMembership.Kind(p.kind), p.subject, p.data, by, p.deadline, signature);
    }

    function test_forRevertsAfterTheDeadline() public {
        Digests.Proposal memory p = draft();
        bytes memory signature = sign(ada.key, digestOf(p));
        vm.warp(p.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, p.deadline));
        submit(p, ada.account, signature);
    }

    function test_forRevertsForAnyoneButMembers() public {
        Digests.Proposal memory p = draft();
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        submit(p, address(this), "");
        p.proposer = eve.uid;
        bytes memory signature = sign(eve.key, digestOf(p));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        submit(p, eve.account, signature);
    }

    function test_forRevertsOnAnyAlteredPart() public {
        bytes memory signature = sign(ada.key, digestOf(draft()));
        for (uint256 part = 0; part < 5; ++part) {
            Digests.Proposal memory p = draft();
            if (part == 0) p.group = 1;
            if (part == 1) p.kind = 0;
            if (part == 2) p.subject = ada.uid;
            if (part == 3) p.data = "another reason";
            if (part == 4) p.deadline += 1;
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            submit(p, ada.account, signature);
        }
        Digests.Proposal memory other = draft();
        other.proposer = bob.uid;
        bytes memory wrongProposer = sign(ada.key, digestOf(other));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(other, ada.account, wrongProposer);
        other = draft();
        other.epoch = 1;
        bytes memory wrongEpoch = sign(ada.key, digestOf(other));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(other, ada.account, wrongEpoch);
        vm.assertEq(membership.proposalCount(), 0, "nothing opened");
    }

    function test_forRevertsOnReplay() public {
        Digests.Proposal memory p = draft();
        bytes memory signature = sign(ada.key, digestOf(p));
        uint64 id = submit(p, ada.account, signature);
        voteOf(ada, id, false);
        assertState(id, IMembership.State.REJECTED, "one of two can no longer pass");
        vm.expectRevert(abi.encodeWithSelector(IMembership.SignatureUsed.selector));
        submit(p, ada.account, signature);
        // The same words from the other key of the same user are the same struct.
        bytes memory again = sign(ada.deviceKey, digestOf(p));
        vm.expectRevert(abi.encodeWithSelector(IMembership.SignatureUsed.selector));
        submit(p, ada.signer, again);
    }

    function testFuzz_opensBySignature(bool byDevice, bool expel, address carrier, bytes memory data) public {
        Digests.Proposal memory p = draft();
        p.data = sized(data, 0, 1024);
        if (!expel) (p.kind, p.subject) = (0, eve.uid);
        bytes memory signature = sign(byDevice ? ada.deviceKey : ada.key, digestOf(p));
        vm.expectEmit(address(membership));
        emit IMembership.Proposed(
            1, NETWORK, p.subject, IMembership.Kind(p.kind), ada.uid, 2, uint64(NOW + WEEK), p.data
        );
        vm.prank(carrier);
        vm.assertEq(submit(p, byDevice ? ada.signer : ada.account, signature), 1, "id");
    }
}
