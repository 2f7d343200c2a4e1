// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Wallet} from "../base/Wallet.sol";
import {IMessageLedger, ISigned, World} from "../base/World.sol";

contract AnchorTest is World {
    bytes32 private constant LOG = keccak256("log");
    bytes32 private constant ROOT = keccak256("root");
    address private constant ANCHORER = address(0xA4C);

    uint256[] private keys; // of the witnesses, ascending by address

    function setUp() public override {
        super.setUp();
        ledger.setAnchorer(ANCHORER, LOG);
        enter(2, 3);
    }

    /// @dev Makes so many witnesses the ones that count.
    function enter(uint8 quorum, uint256 count) private {
        delete keys;
        address[] memory list = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            keys.push(uint256(keccak256(abi.encode("witness", i, count))) >> 8);
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        for (uint256 i = 0; i < count; ++i) {
            list[i] = vm.addr(keys[i]);
        }
        ledger.setWitnesses(quorum, list);
    }

    function signed(uint64 size, bytes32 root, uint256 mask) private view returns (bytes[] memory some) {
        uint256 count;
        for (uint256 i = 0; i < keys.length; ++i) {
            count += (mask >> i) & 1;
        }
        some = new bytes[](count);
        count = 0;
        bytes32 digest = digests.treeHead(address(ledger), LOG, size, root);
        for (uint256 i = 0; i < keys.length; ++i) {
            if ((mask >> i) & 1 == 1) some[count++] = sign(keys[i], digest);
        }
    }

    function anchorBy(address who, bytes32 logId, uint64 size, bytes32 root, bytes[] memory signatures) private {
        vm.prank(who);
        ledger.anchor(logId, size, root, signatures);
    }

    function assertHead(uint64 size, bytes32 root) private view {
        IMessageLedger.Log memory l = ledger.log(LOG);
        vm.assertEq(l.size, size, "size");
        vm.assertEq(l.root, root, "root");
    }

    function testFuzz_revertsForAnyoneButTheAnchorer(address other) public {
        vm.assume(other != ANCHORER);
        bytes[] memory some = signed(5, ROOT, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAnchorer.selector, other));
        anchorBy(other, LOG, 5, ROOT, some);
        assertHead(0, 0);
    }

    function test_revertsForOtherLogs() public {
        bytes[] memory some = signed(5, ROOT, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.LogNotOpen.selector, keccak256("other")));
        anchorBy(ANCHORER, keccak256("other"), 5, ROOT, some);
    }

    function test_revertsForTheLogBefore() public {
        ledger.setAnchorer(ANCHORER, keccak256("next"));
        bytes[] memory some = signed(5, ROOT, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.LogNotOpen.selector, LOG));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    /// @dev A rollback, and a fork of equal size.
    function testFuzz_revertsUnlessTheLogGrows(uint64 size, uint64 given) public {
        size = uint64(bound(size, 1, type(uint64).max));
        given = uint64(bound(given, 0, size));
        anchorBy(ANCHORER, LOG, size, ROOT, signed(size, ROOT, 7));
        bytes[] memory some = signed(given, keccak256("fork"), 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotGrowing.selector, size, given));
        anchorBy(ANCHORER, LOG, given, keccak256("fork"), some);
        some = signed(size, ROOT, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotGrowing.selector, size, size));
        anchorBy(ANCHORER, LOG, size, ROOT, some);
        assertHead(size, ROOT);
    }

    function test_revertsOnTheEmptyTree() public {
        bytes32 empty = sha256("");
        bytes[] memory some = signed(0, empty, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotGrowing.selector, 0, 0));
        anchorBy(ANCHORER, LOG, 0, empty, some);
    }

    function test_revertsOnAZeroRoot() public {
        bytes[] memory some = signed(5, 0, 7);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.ZeroHash.selector));
        anchorBy(ANCHORER, LOG, 5, 0, some);
    }

    function test_revertsOnTooFewSignatures() public {
        for (uint256 mask = 0; mask < 8; ++mask) {
            bytes[] memory some = signed(5, ROOT, mask);
            if (some.length >= 2) continue;
            vm.expectRevert(abi.encodeWithSelector(IMessageLedger.TooFewSignatures.selector, 2, some.length));
            anchorBy(ANCHORER, LOG, 5, ROOT, some);
        }
    }

    function test_revertsWithoutWitnesses() public {
        deployAgain();
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.TooFewSignatures.selector, 0, 0));
        anchorBy(ANCHORER, LOG, 5, ROOT, new bytes[](0));
    }

    function deployAgain() private {
        super.setUp();
        ledger.setAnchorer(ANCHORER, LOG);
    }

    function test_revertsOnAWitnessTwice() public {
        bytes[] memory some = signed(5, ROOT, 3);
        some[1] = some[0];
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, vm.addr(keys[0])));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
        // The same signature in its malleable form counts no more often.
        some[1] = signMalleable(keys[0], digests.treeHead(address(ledger), LOG, 5, ROOT));
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, vm.addr(keys[0])));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    function test_revertsOnAnotherOrder() public {
        bytes[] memory some = signed(5, ROOT, 3);
        (some[0], some[1]) = (some[1], some[0]);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotAscending.selector, vm.addr(keys[0])));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    function test_revertsOnOneThatIsNoWitness() public {
        Person memory eve = stranger("eve");
        bytes[] memory some = signed(5, ROOT, 7);
        some[2] = sign(eve.key, digests.treeHead(address(ledger), LOG, 5, ROOT));
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotWitness.selector, eve.account));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    function test_revertsOnAWitnessWhoWasReplaced() public {
        bytes[] memory some = signed(5, ROOT, 3);
        address old = vm.addr(keys[0]);
        enter(2, 5);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotWitness.selector, old));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    function test_revertsOnGarbage() public {
        bytes[] memory some = signed(5, ROOT, 3);
        some[1] = "garbage";
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    /// @dev A signature over another log, size, root or contract, or for another chain, is somebody unknown's.
    function test_revertsOnSignaturesOverAnythingElse() public {
        address other = address(distributor);
        bytes32[4] memory wrong = [
            digests.treeHead(address(ledger), keccak256("other"), 5, ROOT),
            digests.treeHead(address(ledger), LOG, 6, ROOT),
            digests.treeHead(address(ledger), LOG, 5, keccak256("other")),
            digests.treeHead(other, LOG, 5, ROOT)
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            bytes[] memory some = signed(5, ROOT, 3);
            some[1] = sign(keys[1], wrong[i]);
            vm.expectRevert();
            anchorBy(ANCHORER, LOG, 5, ROOT, some);
        }
        bytes[] memory all = signed(5, ROOT, 7);
        vm.chainId(2);
        vm.expectRevert();
        anchorBy(ANCHORER, LOG, 5, ROOT, all);
        assertHead(0, 0);
    }

    function test_revertsForAContractAsWitness() public {
        address wallet = address(new Wallet(vm.addr(keys[0])));
        address[] memory list = new address[](1);
        list[0] = wallet;
        ledger.setWitnesses(1, list);
        bytes[] memory some = signed(5, ROOT, 1);
        vm.expectRevert(abi.encodeWithSelector(IMessageLedger.NotWitness.selector, vm.addr(keys[0])));
        anchorBy(ANCHORER, LOG, 5, ROOT, some);
    }

    function testFuzz_anchors(uint8 count, uint8 quorum, uint16 mask, uint64 size, bytes32 root, uint32 later) public {
        vm.assume(root != 0 && size != 0);
        count = uint8(bound(count, 1, 16));
        enter(uint8(bound(quorum, 1, count)), count);
        bytes[] memory some = signed(size, root, mask);
        if (some.length < bound(quorum, 1, count)) some = signed(size, root, type(uint16).max);
        vm.warp(NOW + later);
        vm.expectEmit(address(ledger));
        emit IMessageLedger.HeadAnchored(LOG, size, root);
        anchorBy(ANCHORER, LOG, size, root, some);
        assertHead(size, root);
        vm.assertEq(ledger.log(LOG).time, NOW + later, "time");
    }
}
