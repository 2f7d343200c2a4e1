// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IGoverned} from "./IGoverned.sol";
import {IRewardToken} from "./IRewardToken.sol";

/// @title Who earned how much
/// @notice A voted setter publishes, epoch by epoch, the root of a Merkle tree of what each account earned from the
/// beginning on. After the challenge window, in which a vote for another setter drops it, each account claims what it
/// did not claim before. What an epoch can add is capped, and so is what all accounts together can claim under a root,
/// whatever its leaves say.
///
/// A leaf is keccak256(keccak256(abi.encode(address account, uint256 cumulative))): hashed twice, so that no node of
/// the tree can be passed off as a leaf. A node is keccak256 of its two children, the smaller first.
interface IRewardDistributor is IGoverned {
    /// @notice A published root.
    /// @param root of the tree
    /// @param total that all accounts together can have claimed under it
    /// @param epoch counts from 1
    /// @param effectiveAt first second in which it counts
    struct Epoch {
        bytes32 root;
        uint128 total;
        uint64 epoch;
        uint64 effectiveAt;
    }

    /// @notice A root was published; it counts from the second `effectiveAt` unless another takes its place.
    /// @dev Invariants: `epoch` is one more than that of the last root that came to count; `total` is at least that
    /// root's and at most `epochCap` more.
    event RootSet(uint64 indexed epoch, bytes32 root, uint256 total, uint64 effectiveAt);

    /// @notice A root that did not count yet never will: the setter who published it was replaced.
    event RootDropped(uint64 indexed epoch, bytes32 root);

    /// @notice Only this address publishes roots from now on.
    event SetterSet(address setter);

    /// @notice An account was given what it earned and had not claimed yet.
    /// @dev Invariant: `cumulative` is the sum of `amount` in all such events of the account.
    event Claimed(address indexed account, uint256 amount, uint256 cumulative);

    /// @notice Only the setter publishes roots.
    error NotSetter(address caller);

    /// @notice The next root is that of another epoch.
    error WrongEpoch(uint64 expected, uint64 given);

    /// @notice The total is less than before, or more than the epoch's cap allows.
    error TotalOutOfBounds(uint256 least, uint256 most, uint256 given);

    /// @notice A root is not zero.
    error ZeroHash();

    /// @notice The network is paused up to and including this second.
    error NetworkPaused(uint256 until);

    /// @notice Another root counts now; make the proof for that one.
    error WrongRoot(bytes32 root);

    /// @notice The proof does not lead from this account and amount to the root.
    error BadProof();

    /// @notice The challenge window is 1 second to 365 days, and the cap is not zero.
    error BadTerms();

    /// @notice Publishes the root of an epoch, in place of one for the same epoch that does not count yet. The setter.
    /// @param root of the tree
    /// @param epoch one more than the one that counts
    /// @param total that all accounts together can have claimed under it
    function setRoot(bytes32 root, uint64 epoch, uint128 total) external;

    /// @notice Says who publishes roots, and drops one that does not count yet. The deployer until the seal, then a
    /// vote (SET_REWARDS).
    /// @param setter_ the only address that publishes roots from now on
    function setSetter(address setter_) external;

    /// @notice Gives the sender what it earned and did not claim yet.
    /// @param cumulative all that it earned, as in its leaf
    /// @param expectedRoot the root for which the proof was made
    /// @param proof hashes from the leaf's sibling up
    function claim(uint256 cumulative, bytes32 expectedRoot, bytes32[] calldata proof) external;

    /// @notice Gives an account what it earned and did not claim yet. Anyone may; the account gets it.
    /// @param account whose leaf it is
    /// @param cumulative all that it earned, as in its leaf
    /// @param expectedRoot the root for which the proof was made
    /// @param proof hashes from the leaf's sibling up
    function claimFor(address account, uint256 cumulative, bytes32 expectedRoot, bytes32[] calldata proof) external;

    /// @notice Who publishes roots; zero when nobody does.
    function setter() external view returns (address);

    /// @notice The root that counts now; all zero when there is none.
    function current() external view returns (Epoch memory);

    /// @notice The root that does not count yet; all zero when there is none.
    function pending() external view returns (Epoch memory);

    /// @notice All that an account was given.
    /// @param account any address
    function claimed(address account) external view returns (uint256);

    /// @notice What is given.
    function token() external view returns (IRewardToken);

    /// @notice Seconds from the publication of a root to its effect.
    function challengeWindow() external view returns (uint64);

    /// @notice What an epoch can add to the total.
    function epochCap() external view returns (uint128);
}
