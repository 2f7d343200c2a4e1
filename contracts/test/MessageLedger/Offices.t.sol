// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IGoverned, IMembership, IMessageLedger, World} from "../base/World.sol";

/// @notice Who anchors and who witnesses: before the seal by the deployer, then by vote.
contract OfficesTest is World {
    bytes32 private constant FIRST = keccak256("first");
    bytes32 private constant SECOND = keccak256("second");
    address private constant ANCHORER = address(0xA4C);

    function some(uint256 count) private pure returns (address[] memory list) {
        list = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = address(uint160(0x1000 + i));
        }
    }

    function testFuzz_revertsForAnyoneButTheDeployerBeforeTheSeal(address other) public {
        vm.assume(other != address(this));
        vm.expectRevert(abi.encodeWithSelector(IGoverned.NotDeployer.selector, other));
        vm.prank(other);
        ledger.setAnchorer(ANCHORER, FIRST);
        vm.expectRevert(abi.encodeWithSelector(IGoverned.NotDeployer.selector, other));
        vm.prank(other);
        ledger.setWitnesses(1, some(1));
    }

    function test_revertsForAllButMembershipAfterTheSeal() public {
        found(1);
        seal();
        vm.expectRevert(abi.encodeWithSelector(IGoverned.IsSealed.selector));
        ledger.setAnchorer(ANCHORER, FIRST);
        vm.expectRevert(abi.encodeWithSelector(IGoverned.IsSealed.selector));
        ledger.setWitnesses(1, some(1));
        vm.prank(address(membership));
        ledger.setAnchorer(ANCHORER, FIRST);
        vm.prank(address(membership));
        ledger.setWitnesses(1, some(1));
        vm.assertEq(ledger.anchorer(), ANCHORER, "anchorer");
    }

    function test_anchorerRevertsOnZeros() public {
        vm.expectRevert(abi.encodeWithSelector(IGoverned.ZeroAddress.selector));
        ledger.setAnchorer(address(0), FIRST);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.ZeroHash.selector));
        ledger.setAnchorer(ANCHORER, 0);
    }

    function test_aLogThatWasLeftNeverOpensAgain() public {
        ledger.setAnchorer(ANCHORER, FIRST);
        ledger.setAnchorer(ANCHORER, SECOND);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.LogNotOpen.selector, FIRST));
        ledger.setAnchorer(ANCHORER, FIRST);
        vm.assertEq(ledger.currentLog(), SECOND, "current log");
    }

    function test_theFirstLogFollowsNone() public {
        vm.assertEq(ledger.anchorer(), address(0), "nobody anchors at first");
        vm.assertEq(ledger.currentLog(), 0, "no log at first");
        vm.expectEmit(address(ledger));
        emit IMessageLedger.LogStarted(FIRST, 0, 0, 0);
        vm.expectEmit(address(ledger));
        emit IMessageLedger.AnchorerSet(ANCHORER, FIRST);
        ledger.setAnchorer(ANCHORER, FIRST);
        IMessageLedger.Log memory l = ledger.log(FIRST);
        vm.assertTrue(l.open, "open");
        vm.assertEq(l.time, NOW, "time");
        vm.assertEq(l.size, 0, "size");
        vm.assertEq(ledger.currentLog(), FIRST, "current log");
    }

    function testFuzz_aLogNamesTheLastHeadOfTheOneBefore(uint64 size, bytes32 root) public {
        vm.assume(size != 0 && root != 0);
        uint256 key = uint256(keccak256("witness")) >> 8;
        address[] memory one = new address[](1);
        one[0] = vm.addr(key);
        ledger.setWitnesses(1, one);
        ledger.setAnchorer(ANCHORER, FIRST);
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = sign(key, digests.treeHead(address(ledger), FIRST, size, root));
        vm.prank(ANCHORER);
        ledger.anchor(FIRST, size, root, signatures);

        vm.expectEmit(address(ledger));
        emit IMessageLedger.LogStarted(SECOND, FIRST, size, root);
        ledger.setAnchorer(ANCHORER, SECOND);
        IMessageLedger.Log memory old = ledger.log(FIRST);
        IMessageLedger.Log memory l = ledger.log(SECOND);
        vm.assertEq(l.previous, FIRST, "previous");
        vm.assertTrue(l.open && !old.open, "only the new one is open");
        vm.assertEq(l.size, 0, "size");
        vm.assertEq(old.size, size, "the old head stays");
        vm.assertEq(old.root, root, "the old head stays");
    }

    function test_anotherAnchorerKeepsTheLog() public {
        ledger.setAnchorer(ANCHORER, FIRST);
        vm.recordLogs();
        ledger.setAnchorer(address(0xA4D), FIRST);
        vm.assertEq(vm.getRecordedLogs().length, 1, "no log started");
        vm.assertEq(ledger.anchorer(), address(0xA4D), "anchorer");
        vm.assertTrue(ledger.log(FIRST).open, "still open");
    }

    function test_witnessesRevertOnBadQuorums() public {
        uint8[4] memory quorums = [0, 0, 4, 1];
        uint8[4] memory counts = [0, 3, 3, 17];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMessageLedger.BadQuorum.selector, quorums[i], counts[i]));
            ledger.setWitnesses(quorums[i], some(counts[i]));
        }
    }

    function test_witnessesRevertUnlessTheyAscend() public {
        address[] memory list = some(3);
        list[2] = list[1];
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, list[1]));
        ledger.setWitnesses(1, list);
        list[2] = list[0];
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, list[0]));
        ledger.setWitnesses(1, list);
        list[0] = address(0);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, address(0)));
        ledger.setWitnesses(1, list);
        (uint8 quorum, address[] memory now_) = ledger.witnesses();
        vm.assertEq(quorum + now_.length, 0, "nothing of a failed call stays");
    }

    function testFuzz_replacesTheWitnesses(uint8 before, uint8 count, uint8 quorum) public {
        ledger.setWitnesses(1, some(bound(before, 1, 16)));
        address[] memory list = some(bound(count, 1, 16));
        quorum = uint8(bound(quorum, 1, list.length));
        vm.expectEmit(address(ledger));
        emit IMessageLedger.WitnessesSet(quorum, list);
        ledger.setWitnesses(quorum, list);
        (uint8 k, address[] memory found) = ledger.witnesses();
        vm.assertEq(k, quorum, "quorum");
        vm.assertEq(abi.encode(found), abi.encode(list), "list");
    }
}
