// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {IMembership, ISigned, World} from "../base/World.sol";

/// @notice What was signed before the epoch rose is worth nothing afterwards, and what is signed for it works.
contract EpochTest is World {
    Person private ada;
    Person private bob;
    Person private eve;
    uint256 private deadline;

    function setUp() public override {
        super.setUp();
        Person[] memory people = found(3);
        (ada, bob) = (people[0], people[1]);
        eve = join("eve");
        deadline = block.timestamp + 60;
    }

    function expectBadSignature() private {
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
    }

    function test_request() public {
        bytes memory stale = sign(eve.key, digests.request(address(membership), "network", eve.uid, 0, deadline));
        raiseEpoch(eve.uid);
        expectBadSignature();
        membership.requestFor(NETWORK, eve.account, deadline, stale);
        bytes memory fresh = sign(eve.key, digests.request(address(membership), "network", eve.uid, 1, deadline));
        vm.assertEq(membership.requestFor(NETWORK, eve.account, deadline, fresh), 1, "id");
    }

    function propose(bytes memory signature) private returns (uint64) {
        return
            membership.proposeFor(NETWORK, IMembership.Kind.EXPEL, bob.uid, "reason", ada.account, deadline, signature);
    }

    function proposal(uint32 epoch) private view returns (bytes32) {
        bytes memory words = abi.encode(bob.uid, keccak256("reason"));
        Digests.Proposal memory p = Digests.Proposal(
            "Propose", "uint64 subject,string reason", "Expel a member", "network", words, ada.uid, epoch, deadline
        );
        return digests.propose(address(membership), p);
    }

    function test_propose() public {
        bytes memory stale = sign(ada.key, proposal(0));
        raiseEpoch(ada.uid);
        expectBadSignature();
        propose(stale);
        vm.assertEq(propose(sign(ada.key, proposal(1))), 1, "id");
    }

    function test_vote() public {
        uint64 id = requestOf(eve);
        bytes memory stale = sign(ada.deviceKey, digests.vote(address(membership), id, ada.uid, 0, true));
        raiseEpoch(ada.uid);
        expectBadSignature();
        membership.voteBySig(id, true, ada.signer, stale);
        membership.voteBySig(
            id, true, ada.signer, sign(ada.deviceKey, digests.vote(address(membership), id, ada.uid, 1, true))
        );
        vm.assertTrue(membership.hasVoted(id, ada.uid), "has voted");
    }
}
