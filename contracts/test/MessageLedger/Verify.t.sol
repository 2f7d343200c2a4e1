// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {World} from "../base/World.sol";

/// @notice The proofs of RFC 9162, against the vectors that the Python side is held against too, and against trees
/// that are built here as the RFC defines them.
contract VerifyTest is World {
    string private constant FILE = "../tests/vectors/ledger.json";

    function test_inclusionVectors() public view {
        string memory json = vm.readFile(FILE);
        uint256 count;
        for (string memory place = ".inclusion[0]"; vm.keyExistsJson(json, place); place = next(".inclusion", ++count)) {
            bool found = ledger.verifyInclusion(
                vm.parseJsonBytes32(json, string.concat(place, ".leaf")),
                uint64(vm.parseJsonUint(json, string.concat(place, ".index"))),
                uint64(vm.parseJsonUint(json, string.concat(place, ".size"))),
                vm.parseJsonBytes32(json, string.concat(place, ".root")),
                vm.parseJsonBytes32Array(json, string.concat(place, ".proof"))
            );
            assertCase(json, place, found);
        }
        vm.assertGe(count, 39, "all were read");
    }

    function test_consistencyVectors() public view {
        string memory json = vm.readFile(FILE);
        uint256 count;
        for (
            string memory place = ".consistency[0]";
            vm.keyExistsJson(json, place);
            place = next(".consistency", ++count)
        ) {
            bool found = ledger.verifyConsistency(
                uint64(vm.parseJsonUint(json, string.concat(place, ".size1"))),
                vm.parseJsonBytes32(json, string.concat(place, ".root1")),
                uint64(vm.parseJsonUint(json, string.concat(place, ".size2"))),
                vm.parseJsonBytes32(json, string.concat(place, ".root2")),
                vm.parseJsonBytes32Array(json, string.concat(place, ".proof"))
            );
            assertCase(json, place, found);
        }
        vm.assertGe(count, 39, "all were read");
    }

    function next(string memory list, uint256 index) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(index), "]");
    }

    function assertCase(string memory json, string memory place, bool found) private pure {
        bool valid = vm.parseJsonBool(json, string.concat(place, ".valid"));
        vm.assertEq(found, valid, vm.parseJsonString(json, string.concat(place, ".name")));
    }

    function testFuzz_everyLeafIsIncludedAndNothingElse(uint8 size, uint8 index, uint8 turned, bytes32 seed)
        public
        view
    {
        bytes32[] memory leaves = tree(bound(size, 1, 40), seed);
        uint64 n = uint64(leaves.length);
        uint64 position = uint64(bound(index, 0, n - 1));
        bytes32[] memory proof = path(position, leaves);
        bytes32 root = rootOf(leaves);
        vm.assertTrue(ledger.verifyInclusion(leaves[position], position, n, root, proof), "included");
        vm.assertFalse(ledger.verifyInclusion(keccak256("other"), position, n, root, proof), "another leaf");
        vm.assertFalse(
            ledger.verifyInclusion(leaves[position], position, n, root, plus(proof, root)), "a hash too many"
        );
        vm.assertFalse(ledger.verifyInclusion(leaves[position], n, n, root, proof), "index beyond");
        if (proof.length == 0) return;
        uint256 i = turned % proof.length;
        proof[i] = ~proof[i];
        vm.assertFalse(ledger.verifyInclusion(leaves[position], position, n, root, proof), "an altered hash");
    }

    function testFuzz_everyBeginningIsConsistentAndNothingElse(uint8 first, uint8 second, uint8 turned, bytes32 seed)
        public
        view
    {
        bytes32[] memory leaves = tree(bound(second, 1, 40), seed);
        uint64 n = uint64(leaves.length);
        uint64 m = uint64(bound(first, 1, n));
        (bytes32 root1, bytes32 root2) = (rootOf(part(leaves, 0, m)), rootOf(leaves));
        bytes32[] memory proof = consistency(m, leaves, true);
        vm.assertTrue(ledger.verifyConsistency(m, root1, n, root2, proof), "consistent");
        vm.assertFalse(ledger.verifyConsistency(m, ~root1, n, root2, proof), "another beginning");
        vm.assertFalse(ledger.verifyConsistency(m, root1, n, ~root2, proof), "another end");
        vm.assertFalse(ledger.verifyConsistency(m, root1, n, root2, plus(proof, root1)), "a hash too many");
        if (proof.length == 0) return;
        uint256 i = turned % proof.length;
        proof[i] = ~proof[i];
        vm.assertFalse(ledger.verifyConsistency(m, root1, n, root2, proof), "an altered hash");
    }

    /// @dev A full tree is the left half of one twice as large: its root is no leaf of that one, its proofs end half-way,
    /// and it is not that tree's end.
    function testFuzz_aProofThatEndsBelowTheRootIsNone(uint8 levels, uint8 index, bytes32 seed) public view {
        bytes32[] memory leaves = tree(uint256(1) << (levels % 6), seed);
        uint64 n = uint64(leaves.length);
        uint64 position = uint64(index % n);
        bytes32 root = rootOf(leaves);
        bytes32[] memory proof = path(position, leaves);
        vm.assertTrue(ledger.verifyInclusion(leaves[position], position, n, root, proof), "included");
        vm.assertFalse(ledger.verifyInclusion(leaves[position], position, 2 * n, root, proof), "half-way");
        vm.assertFalse(ledger.verifyInclusion(root, 0, 2, root, new bytes32[](0)), "the root as a leaf");
        vm.assertFalse(ledger.verifyConsistency(n, root, 2 * n, root, new bytes32[](0)), "the beginning as the end");
    }

    /// @dev Whatever is said, an answer comes: no loop without end, no panic.
    function testFuzz_answersAnything(uint64 a, uint64 b, bytes32 r, bytes32 s, bytes32[] calldata proof) public view {
        vm.assertFalse(ledger.verifyInclusion(r, a, b, s, proof) && r != s, "a made-up inclusion");
        vm.assertFalse(ledger.verifyConsistency(a, r, b, s, proof) && r != s, "a made-up consistency");
    }

    // --------------------------------------------------------- the definitions of RFC 9162, section 2.1

    function tree(uint256 size, bytes32 seed) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            leaves[i] = sha256(bytes.concat(hex"00", keccak256(abi.encode(seed, i))));
        }
    }

    function rootOf(bytes32[] memory leaves) private pure returns (bytes32) {
        if (leaves.length == 1) return leaves[0];
        (bytes32[] memory left, bytes32[] memory right) = split(leaves);
        return sha256(bytes.concat(hex"01", rootOf(left), rootOf(right)));
    }

    function path(uint256 index, bytes32[] memory leaves) private pure returns (bytes32[] memory) {
        if (leaves.length == 1) return new bytes32[](0);
        (bytes32[] memory left, bytes32[] memory right) = split(leaves);
        if (index < left.length) return plus(path(index, left), rootOf(right));
        return plus(path(index - left.length, right), rootOf(left));
    }

    function consistency(uint256 m, bytes32[] memory leaves, bool known) private pure returns (bytes32[] memory) {
        if (m == leaves.length) return known ? new bytes32[](0) : plus(new bytes32[](0), rootOf(leaves));
        (bytes32[] memory left, bytes32[] memory right) = split(leaves);
        if (m <= left.length) return plus(consistency(m, left, known), rootOf(right));
        return plus(consistency(m - left.length, right, false), rootOf(left));
    }

    function split(bytes32[] memory leaves) private pure returns (bytes32[] memory left, bytes32[] memory right) {
        uint256 k = 1;
        while (2 * k < leaves.length) k *= 2;
        return (part(leaves, 0, k), part(leaves, k, leaves.length));
    }

    function part(bytes32[] memory all, uint256 from, uint256 to) private pure returns (bytes32[] memory some) {
        some = new bytes32[](to - from);
        for (uint256 i = from; i < to; ++i) {
            some[i - from] = all[i];
        }
    }

    function plus(bytes32[] memory list, bytes32 last) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](list.length + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = last;
    }
}
