// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IGoverned} from "./IGoverned.sol";
import {ISigned} from "./ISigned.sol";

/// @title The heads of the log of messages
/// @notice Keeps the last head of an append-only Merkle log (RFC 9162, SHA-256) that runs off the chain. The anchorer
/// enters heads which k of n witnesses signed. A log only grows. When its database is lost or was set back, a vote
/// starts another log, which names the last head of the one before, so that what is missing can be seen.
///
/// The contract cannot see whether a head extends the one before: whoever holds both asks for a consistency proof,
/// and `verifyConsistency` tells anyone who does not trust the asker.
///
/// What a witness signs, with a key of its own (65 bytes, or 64 of EIP-2098; no contract wallets):
///
///     TreeHead(bytes32 logId,uint64 size,bytes32 root)
interface IMessageLedger is IGoverned, ISigned {
    /// @notice A log and its last head.
    /// @param size leaves in the last head; 0 when none was anchored
    /// @param time second in which it was anchored
    /// @param open whether this is the log that grows now
    /// @param root hash of the last head
    /// @param previous the log before; zero for the first
    struct Log {
        uint64 size;
        uint64 time;
        bool open;
        bytes32 root;
        bytes32 previous;
    }

    /// @notice The log has so many leaves under this root.
    /// @dev Invariants: `logId` is that of the last LogStarted; `size` is more than in the log's last such event.
    event HeadAnchored(bytes32 indexed logId, uint64 size, bytes32 root);

    /// @notice This log grows from now on and no other. `previousSize` and `previousRoot` are the last head of
    /// `previousId` forever; all three are zero for the first log.
    /// @dev Invariants: `logId` never started before; `previousId` is that of the last LogStarted. The next event of
    /// this contract is AnchorerSet.
    event LogStarted(bytes32 indexed logId, bytes32 indexed previousId, uint64 previousSize, bytes32 previousRoot);

    /// @notice Only this address enters heads from now on, and only into this log.
    event AnchorerSet(address anchorer, bytes32 indexed logId);

    /// @notice Heads need the signatures of `quorum` of these from now on.
    /// @dev Invariants: 1 to 16 addresses, ascending; 1 <= quorum <= their number.
    event WitnessesSet(uint8 quorum, address[] witnesses);

    /// @notice Only the anchorer enters heads.
    error NotAnchorer(address caller);

    /// @notice This is not the log that grows now.
    error LogNotOpen(bytes32 logId);

    /// @notice A head has more leaves than the one before.
    error NotGrowing(uint64 size, uint64 given);

    /// @notice A root, like a log's id, is not zero.
    error ZeroHash();

    /// @notice The head needs more witnesses.
    error TooFewSignatures(uint256 needed, uint256 given);

    /// @notice This address, which the signature leads to, is no witness.
    error NotWitness(address signer);

    /// @notice Addresses, here or those of the signers, do not ascend; so one may be there twice.
    error NotAscending(address follower);

    /// @notice There are 1 to 16 witnesses, and a quorum of at least one and at most all.
    error BadQuorum(uint256 quorum, uint256 witnesses);

    /// @notice Enters a head. The anchorer.
    /// @param logId the log that grows now
    /// @param size its leaves, more than before
    /// @param root its root hash
    /// @param signatures of at least `quorum` witnesses over TreeHead, ascending by their addresses
    function anchor(bytes32 logId, uint64 size, bytes32 root, bytes[] calldata signatures) external;

    /// @notice Says who anchors, and into which log. The deployer until the seal, then a vote (SET_ANCHORER).
    /// @param anchorer_ the only address that enters heads from now on
    /// @param logId the current log to keep it, or one never used to start it
    function setAnchorer(address anchorer_, bytes32 logId) external;

    /// @notice Says who witnesses. The deployer until the seal, then a vote (SET_WITNESSES).
    /// @param quorum signatures that a head needs
    /// @param list 1 to 16 addresses, ascending
    function setWitnesses(uint8 quorum, address[] calldata list) external;

    /// @notice Who enters heads; zero when nobody does.
    function anchorer() external view returns (address);

    /// @notice The log that grows now; zero when there is none.
    function currentLog() external view returns (bytes32);

    /// @notice A log with its last head; all zero when it never started.
    /// @param logId the log
    function log(bytes32 logId) external view returns (Log memory);

    /// @notice Who witnesses.
    /// @return quorum signatures that a head needs, 0 when nobody witnesses
    /// @return list their addresses, ascending
    function witnesses() external view returns (uint8 quorum, address[] memory list);

    /// @notice Whether a leaf is in a tree (RFC 9162, section 2.1.3.2). A root does not tell its size: take both from one
    /// head, and make the leaf's hash of the entry yourself.
    /// @param leaf the leaf's hash, SHA-256(0x00 ‖ entry)
    /// @param index its position, from 0
    /// @param size leaves of the tree
    /// @param root of the tree
    /// @param proof hashes from the leaf's sibling up
    function verifyInclusion(bytes32 leaf, uint64 index, uint64 size, bytes32 root, bytes32[] calldata proof)
        external
        pure
        returns (bool);

    /// @notice Whether one tree is the beginning of another (RFC 9162, section 2.1.4.2). The empty tree, whose root is
    /// SHA-256 of nothing, begins every tree; a tree begins itself; both by the empty proof.
    /// @param size1 leaves of the smaller tree
    /// @param root1 its root
    /// @param size2 leaves of the larger tree
    /// @param root2 its root
    /// @param proof hashes as the RFC orders them
    function verifyConsistency(uint64 size1, bytes32 root1, uint64 size2, bytes32 root2, bytes32[] calldata proof)
        external
        pure
        returns (bool);
}
