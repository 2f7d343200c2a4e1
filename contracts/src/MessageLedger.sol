// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "solady/utils/ECDSA.sol";
import {Governed} from "./Governed.sol";
import {IMembership} from "./interfaces/IMembership.sol";
import {IMessageLedger} from "./interfaces/IMessageLedger.sol";
import {Signed} from "./Signed.sol";

/// @title The heads of the log of messages
contract MessageLedger is IMessageLedger, Governed, Signed {
    /// @dev One slot: what each anchoring looks at first.
    struct Office {
        address anchorer;
        uint8 quorum;
        uint32 term; // counts the lists of witnesses
    }

    uint256 private constant MAX_WITNESSES = 16;
    bytes32 private constant EMPTY_ROOT = sha256("");
    bytes32 private constant TREE_HEAD_TYPEHASH = keccak256("TreeHead(bytes32 logId,uint64 size,bytes32 root)");

    /// @inheritdoc IMessageLedger
    bytes32 public currentLog;

    Office private _office;
    address[] private _witnesses;
    mapping(address witness => uint256 term) private _lastTerm; // an old term is none
    mapping(bytes32 logId => Log) private _logs;

    /// @param directory_ the Directory to be, whose address follows from the deployer's nonce
    /// @param membership_ whose votes count after the seal
    constructor(address directory_, IMembership membership_) Governed(directory_, membership_) {}

    /// @inheritdoc IMessageLedger
    function anchor(bytes32 logId, uint64 size, bytes32 root, bytes[] calldata signatures) external {
        Office memory office = _office;
        if (msg.sender != office.anchorer) revert NotAnchorer(msg.sender);
        Log storage l = _logs[logId];
        if (!l.open) revert LogNotOpen(logId);
        if (size <= l.size) revert NotGrowing(l.size, size);
        if (root == bytes32(0)) revert ZeroHash();
        _requireWitnessed(office, keccak256(abi.encode(TREE_HEAD_TYPEHASH, logId, size, root)), signatures);

        l.size = size;
        l.time = uint64(block.timestamp);
        l.root = root;
        emit HeadAnchored(logId, size, root);
    }

    /// @inheritdoc IMessageLedger
    function setAnchorer(address anchorer_, bytes32 logId) external {
        _requireGovernor();
        if (anchorer_ == address(0)) revert ZeroAddress();
        if (logId == bytes32(0)) revert ZeroHash();
        bytes32 before = currentLog;
        if (logId != before) _start(logId, before);
        _office.anchorer = anchorer_;
        emit AnchorerSet(anchorer_, logId);
    }

    /// @inheritdoc IMessageLedger
    function setWitnesses(uint8 quorum, address[] calldata list) external {
        _requireGovernor();
        if (quorum == 0 || quorum > list.length || list.length > MAX_WITNESSES) revert BadQuorum(quorum, list.length);
        uint32 term = _office.term + 1;
        _office.term = term;
        _office.quorum = quorum;
        _witnesses = list;
        address last = address(0);
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] <= last) revert NotAscending(list[i]);
            last = list[i];
            _lastTerm[last] = term;
        }
        emit WitnessesSet(quorum, list);
    }

    /// @inheritdoc IMessageLedger
    function anchorer() external view returns (address) {
        return _office.anchorer;
    }

    /// @inheritdoc IMessageLedger
    function log(bytes32 logId) external view returns (Log memory) {
        return _logs[logId];
    }

    /// @inheritdoc IMessageLedger
    function witnesses() external view returns (uint8 quorum, address[] memory list) {
        return (_office.quorum, _witnesses);
    }

    /// @inheritdoc IMessageLedger
    function verifyInclusion(bytes32 leaf, uint64 index, uint64 size, bytes32 root, bytes32[] calldata proof)
        external
        pure
        returns (bool)
    {
        if (index >= size) return false;
        (uint64 node, uint64 last) = (index, size - 1);
        bytes32 hash = leaf;
        for (uint256 i = 0; i < proof.length; ++i) {
            if (last == 0) return false; // the proof is longer than the path
            if (node & 1 == 1 || node == last) {
                hash = _parent(proof[i], hash);
                (node, last) = _climb(node, last);
            } else {
                hash = _parent(hash, proof[i]);
            }
            (node, last) = (node >> 1, last >> 1);
        }
        return last == 0 && hash == root;
    }

    /// @inheritdoc IMessageLedger
    function verifyConsistency(uint64 size1, bytes32 root1, uint64 size2, bytes32 root2, bytes32[] calldata proof)
        external
        pure
        returns (bool)
    {
        if (size1 > size2) return false;
        if (size1 == size2) return proof.length == 0 && root1 == root2;
        if (size1 == 0) return proof.length == 0 && root1 == EMPTY_ROOT;

        (uint64 node, uint64 last) = (size1 - 1, size2 - 1);
        while (node & 1 == 1) (node, last) = (node >> 1, last >> 1);
        // A smaller tree that is a full one is itself the first hash; the proof leaves it out.
        bool full = node == 0;
        if (!full && proof.length == 0) return false;
        bytes32 hash1 = full ? root1 : proof[0];
        bytes32 hash2 = hash1;
        for (uint256 i = full ? 0 : 1; i < proof.length; ++i) {
            if (last == 0) return false;
            if (node & 1 == 1 || node == last) {
                hash1 = _parent(proof[i], hash1);
                hash2 = _parent(proof[i], hash2);
                (node, last) = _climb(node, last);
            } else {
                hash2 = _parent(hash2, proof[i]);
            }
            (node, last) = (node >> 1, last >> 1);
        }
        return last == 0 && hash1 == root1 && hash2 == root2;
    }

    /// @dev Closes the log before, if there was one, and opens this one.
    function _start(bytes32 logId, bytes32 before) private {
        Log storage l = _logs[logId];
        if (l.time != 0) revert LogNotOpen(logId); // it started before
        Log storage old = _logs[before];
        old.open = false;
        l.open = true;
        l.time = uint64(block.timestamp);
        l.previous = before;
        currentLog = logId;
        emit LogStarted(logId, before, old.size, old.root);
    }

    /// @dev Reverts unless each signature is that of another witness, and they are enough.
    function _requireWitnessed(Office memory office, bytes32 structHash, bytes[] calldata signatures) private view {
        uint256 needed = office.quorum;
        if (needed == 0 || signatures.length < needed) revert TooFewSignatures(needed, signatures.length);
        bytes32 digest = _hashTypedData(structHash);
        address last = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = ECDSA.tryRecoverCalldata(digest, signatures[i]);
            if (signer == address(0)) revert BadSignature();
            if (_lastTerm[signer] != office.term) revert NotWitness(signer);
            if (signer <= last) revert NotAscending(signer);
            last = signer;
        }
    }

    /// @dev Goes up to where the node is a right child, past the levels on which the last node has no sibling.
    function _climb(uint64 node, uint64 last) private pure returns (uint64, uint64) {
        while (node & 1 == 0 && node != 0) (node, last) = (node >> 1, last >> 1);
        return (node, last);
    }

    function _parent(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(bytes.concat(hex"01", left, right));
    }
}
