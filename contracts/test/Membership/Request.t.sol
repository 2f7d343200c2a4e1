// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Wallet} from "../base/Wallet.sol";
import {IMembership, ISigned, World} from "../base/World.sol";

contract RequestTest is World {
    Person[] private founders;
    Person private ada;
    uint256 private deadline;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(3);
        for (uint256 i = 0; i < 3; ++i) {
            founders.push(people[i]);
        }
        ada = join("ada");
        deadline = block.timestamp + 60;
    }

    function test_revertsForUnknownGroups() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.UnknownGroup.selector, 1));
        vm.prank(ada.account);
        membership.request(1);
    }

    function test_revertsForTheUnregistered() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, address(this)));
        membership.request(NETWORK);
    }

    function test_revertsForMembers() public {
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyMember.selector, founders[0].uid));
        requestOf(founders[0]);
    }

    function test_revertsWhileNobodyCouldVote() public {
        deploy(IMembership.Policy.VOTE, HALF, WEEK);
        Person memory first = join("ada");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NoMembers.selector, NETWORK));
        requestOf(first);
    }

    function test_revertsWhileTheSameIsOpen() public {
        uint64 id = requestOf(ada);
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyProposed.selector, id));
        requestOf(ada);
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyProposed.selector, id));
        proposeAdmit(founders[0], ada.uid, ""); // equals the request, whoever proposes
        vm.warp(block.timestamp + WEEK); // the last second
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyProposed.selector, id));
        requestOf(ada);
    }

    function testFuzz_opensTheProposal(bool byDevice) public {
        vm.expectEmit(address(membership));
        emit IMembership.Proposed(
            1, NETWORK, ada.uid, IMembership.Kind.ADMIT, ada.uid, 3, uint64(block.timestamp + WEEK), ""
        );
        vm.prank(byDevice ? ada.signer : ada.account);
        uint64 id = membership.request(NETWORK);
        vm.assertEq(id, 1, "the first id");
        vm.assertEq(membership.proposalCount(), 1, "count");

        IMembership.ProposalInfo memory info = membership.proposal(id);
        vm.assertEq(info.group, NETWORK, "group");
        vm.assertTrue(info.kind == IMembership.Kind.ADMIT, "kind");
        vm.assertEq(info.subject, ada.uid, "subject");
        vm.assertEq(info.proposer, ada.uid, "proposer");
        vm.assertEq(info.electorate, 3, "electorate");
        vm.assertEq(uint256(info.yes) + info.no, 0, "votes");
        vm.assertEq(info.deadline, NOW + WEEK, "deadline");
        vm.assertTrue(info.state == IMembership.State.OPEN, "state");
        vm.assertEq(info.dataHash, keccak256(""), "data hash");
    }

    /// @dev An equal proposal that lapsed is closed on the way.
    function test_aLapsedProposalMakesRoom() public {
        uint64 old = requestOf(ada);
        vm.warp(block.timestamp + WEEK + 1);
        vm.expectEmit(address(membership));
        emit IMembership.Closed(old, IMembership.State.EXPIRED);
        uint64 id = requestOf(ada);
        assertState(old, IMembership.State.EXPIRED, "old");
        assertState(id, IMembership.State.OPEN, "new");
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotOpen.selector, old, IMembership.State.EXPIRED));
        membership.close(old);
        vm.expectRevert(abi.encodeWithSelector(IMembership.AlreadyProposed.selector, id));
        requestOf(ada);
    }

    /// @dev Closing the lapsed one first leaves the place free as well.
    function test_aClosedProposalMakesRoom() public {
        uint64 old = requestOf(ada);
        vm.warp(block.timestamp + WEEK + 1);
        membership.close(old);
        assertState(requestOf(ada), IMembership.State.OPEN, "new");
    }

    function test_aRejectedUserMayAskAgain() public {
        uint64 id = requestOf(ada);
        voteOf(founders[0], id, false);
        voteOf(founders[1], id, false);
        assertState(id, IMembership.State.REJECTED, "first");
        assertState(requestOf(ada), IMembership.State.OPEN, "second");
    }

    // -------------------------------------------------------------------------------------- by signature

    function digestOf(string memory group, uint64 uid, uint32 epoch) private view returns (bytes32) {
        return digests.request(address(membership), group, uid, epoch, deadline);
    }

    function test_forRevertsAfterTheDeadline() public {
        bytes memory signature = sign(ada.key, digestOf("network", ada.uid, 0));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, deadline));
        membership.requestFor(NETWORK, ada.account, deadline, signature);
    }

    function test_forRevertsForTheUnregistered() public {
        Person memory eve = stranger("eve");
        bytes memory signature = sign(eve.key, digestOf("network", 0, 0));
        vm.expectRevert(abi.encodeWithSelector(IMembership.NotRegistered.selector, eve.account));
        membership.requestFor(NETWORK, eve.account, deadline, signature);
    }

    function test_forRevertsOnWrongSignatures() public {
        bytes32 foreign = digests.request(address(registry), "network", ada.uid, 0, deadline);
        bytes[6] memory wrong = [
            sign(founders[0].key, digestOf("network", ada.uid, 0)),
            sign(ada.deviceKey, digestOf("network", ada.uid, 0)), // claimed for the account below
            sign(ada.key, digestOf("club", ada.uid, 0)),
            sign(ada.key, digestOf("network", founders[0].uid, 0)),
            sign(ada.key, digestOf("network", ada.uid, 1)),
            sign(ada.key, foreign)
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            membership.requestFor(NETWORK, ada.account, deadline, wrong[i]);
        }
        bytes memory good = sign(ada.key, digestOf("network", ada.uid, 0));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.requestFor(NETWORK, ada.account, deadline + 1, good);
        vm.assertEq(membership.proposalCount(), 0, "nothing opened");
    }

    function test_forRevertsInAnotherGroup() public {
        vm.prank(founders[0].account);
        uint32 club = membership.createGroup("club", new uint64[](0), IMembership.Rules(HALF, WEEK));
        bytes memory signature = sign(ada.key, digestOf("network", ada.uid, 0));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        membership.requestFor(club, ada.account, deadline, signature);
    }

    /// @dev Whoever holds the signature cannot ask again in the user's name after a rejection.
    function test_forRevertsOnReplay() public {
        bytes32 digest = digestOf("network", ada.uid, 0);
        uint64 id = membership.requestFor(NETWORK, ada.account, deadline, sign(ada.key, digest));
        voteOf(founders[0], id, false);
        voteOf(founders[1], id, false);
        assertState(id, IMembership.State.REJECTED, "rejected");
        bytes[3] memory forms = [sign(ada.key, digest), signShort(ada.key, digest), signMalleable(ada.key, digest)];
        for (uint256 i = 0; i < forms.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMembership.SignatureUsed.selector));
            membership.requestFor(NETWORK, ada.account, deadline, forms[i]);
        }
    }

    function testFuzz_opensBySignature(bool byDevice, address carrier) public {
        bytes memory signature = sign(byDevice ? ada.deviceKey : ada.key, digestOf("network", ada.uid, 0));
        vm.prank(carrier);
        uint64 id = membership.requestFor(NETWORK, byDevice ? ada.signer : ada.account, deadline, signature);
        vm.assertEq(membership.proposal(id).subject, ada.uid, "subject");
        vm.assertEq(membership.proposal(id).proposer, ada.uid, "proposer");
    }

    function test_opensForAContractWallet() public {
        Person memory owner = stranger("owner");
        address wallet = address(new Wallet(owner.account));
        vm.prank(wallet);
        uint64 uid = registry.register("wallet", VERIFIER, KDF, RECOVERY, owner.signer, RECORD);
        bytes memory signature = sign(owner.key, digestOf("network", uid, 0));
        uint64 id = membership.requestFor(NETWORK, wallet, deadline, signature);
        vm.assertEq(membership.proposal(id).subject, uid, "subject");
    }
}
