// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IDirectory, IMembership, ISigned, World} from "../base/World.sol";

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

    /// @dev What `proposeFor` takes.
    struct Draft {
        uint32 group;
        IMembership.Kind kind;
        uint64 subject;
        bytes data;
        uint256 deadline;
    }

    function draft() private view returns (Draft memory) {
        return draft(IMembership.Kind.EXPEL, bob.uid, "reason");
    }

    function draft(IMembership.Kind kind, uint64 subject, bytes memory data) private view returns (Draft memory) {
        return Draft(NETWORK, kind, subject, data, block.timestamp + 60);
    }

    /// @dev What a wallet shows of it, for ada to sign.
    function prompt(Draft memory d, string memory struct_, string memory members, string memory action)
        private
        view
        returns (Digests.Proposal memory)
    {
        return Digests.Proposal(struct_, members, action, "network", "", ada.uid, 0, d.deadline);
    }

    function promptOnMember(Draft memory d) private view returns (Digests.Proposal memory p) {
        string memory action = d.kind == IMembership.Kind.ADMIT ? "Admit a member" : "Expel a member";
        p = prompt(d, "Propose", "uint64 subject,string reason", action);
        p.words = abi.encode(d.subject, keccak256(d.data));
    }

    function digestOf(Digests.Proposal memory p) private view returns (bytes32) {
        return digests.propose(address(membership), p);
    }

    function digestOf(Draft memory d) private view returns (bytes32) {
        return digestOf(promptOnMember(d));
    }

    function submit(Draft memory d, address by, bytes memory signature) private returns (uint64) {
        return membership.proposeFor(d.group, d.kind, d.subject, d.data, by, d.deadline, signature);
    }

    function refuse(Draft memory d, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(d, ada.account, signature);
    }

    function test_forRevertsAfterTheDeadline() public {
        Draft memory d = draft();
        bytes memory signature = sign(ada.key, digestOf(d));
        vm.warp(d.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, d.deadline));
        submit(d, ada.account, signature);
    }

    function test_forRevertsForAnyoneButMembers() public {
        Draft memory d = draft();
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        submit(d, address(this), "");
        Digests.Proposal memory p = promptOnMember(d);
        p.proposer = eve.uid;
        bytes memory signature = sign(eve.key, digestOf(p));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotMember.selector, eve.uid));
        submit(d, eve.account, signature);
    }

    function test_forRevertsOnAnyAlteredPart() public {
        bytes memory signature = sign(ada.key, digestOf(draft()));
        vm.prank(ada.account);
        uint32 club = membership.createGroup("club", new uint64[](0), IMembership.Rules(HALF, WEEK));
        for (uint256 part = 0; part < 5; ++part) {
            Draft memory d = draft();
            if (part == 0) d.group = club;
            if (part == 1) d.kind = IMembership.Kind.ADMIT;
            if (part == 2) d.subject = ada.uid;
            if (part == 3) d.data = "another reason";
            if (part == 4) d.deadline += 1;
            refuse(d, signature);
        }
        for (uint256 part = 0; part < 4; ++part) {
            Digests.Proposal memory p = promptOnMember(draft());
            if (part == 0) p.proposer = bob.uid;
            if (part == 1) p.epoch = 1;
            if (part == 2) p.action = "Admit a member";
            if (part == 3) p.group = "club";
            refuse(draft(), sign(ada.key, digestOf(p)));
        }
        vm.assertEq(membership.proposalCount(), 0, "nothing opened");
    }

    function test_forRevertsOnReplay() public {
        Draft memory d = draft();
        bytes memory signature = sign(ada.key, digestOf(d));
        uint64 id = submit(d, ada.account, signature);
        voteOf(ada, id, false);
        assertState(id, IMembership.State.REJECTED, "one of two can no longer pass");
        vm.expectRevert(abi.encodeWithSelector(IMembership.SignatureUsed.selector));
        submit(d, ada.account, signature);
        // The same words from the other key of the same user are the same struct.
        bytes memory again = sign(ada.deviceKey, digestOf(d));
        vm.expectRevert(abi.encodeWithSelector(IMembership.SignatureUsed.selector));
        submit(d, ada.signer, again);
    }

    function testFuzz_opensBySignature(bool byDevice, bool expel, address carrier, bytes memory data) public {
        Draft memory d = draft();
        d.data = sized(data, 0, 1024);
        if (!expel) (d.kind, d.subject) = (IMembership.Kind.ADMIT, eve.uid);
        bytes memory signature = sign(byDevice ? ada.deviceKey : ada.key, digestOf(d));
        vm.expectEmit(address(membership));
        emit IMembership.Proposed(1, NETWORK, d.subject, d.kind, ada.uid, 2, uint64(NOW + WEEK), d.data);
        vm.prank(carrier);
        vm.assertEq(submit(d, byDevice ? ada.signer : ada.account, signature), 1, "id");
    }

    function opens(Draft memory d, Digests.Proposal memory p) private {
        bytes memory signature = sign(ada.key, digestOf(p));
        uint64 id = submit(d, ada.account, signature);
        vm.assertEq(membership.proposal(id).dataHash, keccak256(d.data), "data");
        d.data = bytes.concat(d.data, bytes32(0));
        refuse(d, signature);
        d.data = "";
        if (membership.proposal(id).kind == IMembership.Kind.SET_RELAYS) {
            d.data = abi.encode(new IDirectory.Relay[](0));
        }
        refuse(d, signature);
    }

    /// @dev The values stand in the struct by name, not as bytes, wherever they have a fixed size.
    function test_forShowsRulesAnchorerRewardsAndSuccessor() public {
        Draft memory d = draft(IMembership.Kind.SET_RULES, 0, abi.encode(IMembership.Policy.OPEN, 6700, 1 days));
        Digests.Proposal memory p =
            prompt(d, "ProposeRules", "bool onlyMembersSend,uint16 threshold,uint32 votingPeriod", "Change the rules");
        p.words = abi.encode(false, uint16(6700), uint32(1 days));
        opens(d, p);

        d = draft(IMembership.Kind.SET_ANCHORER, 0, abi.encode(eve.account, keccak256("log")));
        p = prompt(d, "ProposeAnchorer", "address anchorer,bytes32 logId", "Choose who anchors the log");
        p.words = abi.encode(eve.account, keccak256("log"));
        opens(d, p);

        d = draft(IMembership.Kind.SET_REWARDS, 0, abi.encode(eve.account));
        p = prompt(d, "ProposeRewards", "address setter", "Choose who publishes rewards");
        p.words = abi.encode(eve.account);
        opens(d, p);

        d = draft(IMembership.Kind.SUCCESSOR, 0, abi.encode(address(directory)));
        p = prompt(d, "ProposeSuccessor", "address successor", "Recommend another network");
        p.words = abi.encode(address(directory));
        opens(d, p);
    }

    function test_forShowsThePauseAndItsEnd() public {
        Draft memory d = draft(IMembership.Kind.PAUSE, 0, "a key leaked");
        Digests.Proposal memory p = prompt(d, "ProposePause", "string reason", "Pause the network for 7 days");
        p.words = abi.encode(keccak256("a key leaked"));
        bytes memory signature = sign(ada.key, digestOf(p));
        d.kind = IMembership.Kind.UNPAUSE;
        refuse(d, signature);
        p.action = "End the pause of the network";
        submit(d, ada.account, sign(ada.key, digestOf(p)));
        d.kind = IMembership.Kind.PAUSE;
        submit(d, ada.account, signature);
    }

    function test_forRevertsOnASubjectThatNobodySigned() public {
        Draft memory d = draft(IMembership.Kind.PAUSE, 0, "a key leaked");
        Digests.Proposal memory p = prompt(d, "ProposePause", "string reason", "Pause the network for 7 days");
        p.words = abi.encode(keccak256("a key leaked"));
        bytes memory signature = sign(ada.key, digestOf(p));
        d.subject = bob.uid;
        vm.expectRevert(abi.encodeWithSelector(IMembership.BadSubject.selector, bob.uid));
        submit(d, ada.account, signature);
    }

    function testFuzz_forShowsWitnesses(uint8 quorum, address[] memory people) public {
        Draft memory d = draft(IMembership.Kind.SET_WITNESSES, 0, abi.encode(quorum, people));
        vm.assume(d.data.length <= 4096);
        Digests.Proposal memory p =
            prompt(d, "ProposeWitnesses", "uint8 quorum,address[] witnesses", "Choose who witnesses the log");
        p.words = abi.encode(quorum, keccak256(abi.encodePacked(people)));
        opens(d, p);
    }

    /// @dev Other bytes that hold the same witnesses for one decoder, and would hold none for another.
    function test_forRevertsOnIrregularWitnesses() public {
        address[] memory people = new address[](2);
        (people[0], people[1]) = (ada.account, bob.account);
        bytes32 list = keccak256(abi.encodePacked(people));
        Draft memory d = draft(IMembership.Kind.SET_WITNESSES, 0, abi.encode(uint8(2), people));
        Digests.Proposal memory p =
            prompt(d, "ProposeWitnesses", "uint8 quorum,address[] witnesses", "Choose who witnesses the log");
        p.words = abi.encode(uint8(2), list);
        bytes memory signature = sign(ada.key, digestOf(p));
        (bytes32 one, bytes32 two) = (bytes32(uint256(uint160(people[0]))), bytes32(uint256(uint160(people[1]))));
        bytes[5] memory irregular = [
            abi.encode(2, 96, 2, one, two), // the list is said to begin elsewhere
            abi.encode(2, 64, 1, one, two),
            abi.encode(2, 64, 2 + (1 << 251), one, two), // times 32 this is 64 again
            bytes.concat(d.data, hex"00"),
            hex"02"
        ];
        for (uint256 i = 0; i < irregular.length; ++i) {
            d.data = irregular[i];
            refuse(d, signature);
        }
        d.data = abi.encode(uint8(2), people);
        submit(d, ada.account, signature);
    }

    function relays() private pure returns (IDirectory.Relay[] memory list) {
        list = new IDirectory.Relay[](2);
        list[0] = IDirectory.Relay("one.example:5555", keccak256("one"), bytes32(0));
        list[1] = IDirectory.Relay("two.example:443", keccak256("two"), keccak256("next"));
    }

    function hashOf(IDirectory.Relay memory one) private pure returns (bytes32) {
        bytes32 typeHash = keccak256("Relay(string endpoint,bytes32 spki,bytes32 nextSpki)");
        return keccak256(abi.encode(typeHash, keccak256(bytes(one.endpoint)), one.spki, one.nextSpki));
    }

    function promptOnRelays(Draft memory d) private view returns (Digests.Proposal memory p) {
        p = prompt(d, "ProposeRelays", "Relay[] relays", "Choose the relays");
        p.words = abi.encode(keccak256(abi.encode(hashOf(relays()[0]), hashOf(relays()[1]))));
    }

    function test_forShowsRelays() public {
        Draft memory d = draft(IMembership.Kind.SET_RELAYS, 0, abi.encode(relays()));
        opens(d, promptOnRelays(d));
    }

    function test_forRevertsOnIrregularRelays() public {
        Draft memory d = draft(IMembership.Kind.SET_RELAYS, 0, abi.encode(relays()));
        bytes memory signature = sign(ada.key, digestOf(promptOnRelays(d)));
        d.data = bytes.concat(abi.encode(relays()), bytes32(0)); // decodes to the same
        refuse(d, signature);
        d.data = "no relays at all";
        refuse(d, signature);
    }
}
