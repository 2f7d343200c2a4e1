// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MerkleProofLib} from "solady/utils/MerkleProofLib.sol";
import {Governed} from "./Governed.sol";
import {RewardToken} from "./RewardToken.sol";
import {IMembership} from "./interfaces/IMembership.sol";
import {IRewardDistributor} from "./interfaces/IRewardDistributor.sol";
import {IRewardToken} from "./interfaces/IRewardToken.sol";

/// @title Who earned how much
contract RewardDistributor is IRewardDistributor, Governed {
    uint64 private constant MAX_WINDOW = 365 days;

    /// @inheritdoc IRewardDistributor
    IRewardToken public immutable token;
    /// @inheritdoc IRewardDistributor
    uint64 public immutable challengeWindow;
    /// @inheritdoc IRewardDistributor
    uint128 public immutable epochCap;

    /// @inheritdoc IRewardDistributor
    address public setter;

    Epoch private _before; // counts until the one after it does
    Epoch private _last;

    /// @dev Creates the token too, which nobody else can then mint.
    /// @param directory_ the Directory to be, whose address follows from the deployer's nonce
    /// @param membership_ whose votes count after the seal
    /// @param challengeWindow_ seconds from the publication of a root to its effect
    /// @param epochCap_ what an epoch can add to the total
    constructor(address directory_, IMembership membership_, uint64 challengeWindow_, uint128 epochCap_)
        Governed(directory_, membership_)
    {
        if (challengeWindow_ == 0 || challengeWindow_ > MAX_WINDOW || epochCap_ == 0) revert BadTerms();
        challengeWindow = challengeWindow_;
        epochCap = epochCap_;
        token = new RewardToken();
    }

    /// @inheritdoc IRewardDistributor
    function setRoot(bytes32 root, uint64 epoch, uint128 total) external {
        if (msg.sender != setter) revert NotSetter(msg.sender);
        uint64 until = membership.pausedUntil();
        if (block.timestamp <= until) revert NetworkPaused(until);
        if (root == bytes32(0)) revert ZeroHash();
        Epoch memory counting = _counting();
        if (epoch != counting.epoch + 1) revert WrongEpoch(counting.epoch + 1, epoch);
        uint256 most = uint256(counting.total) + epochCap;
        if (total < counting.total || total > most) revert TotalOutOfBounds(counting.total, most, total);

        uint64 effectiveAt = uint64(block.timestamp) + challengeWindow;
        _before = counting;
        _last = Epoch(root, total, epoch, effectiveAt);
        emit RootSet(epoch, root, total, effectiveAt);
    }

    /// @inheritdoc IRewardDistributor
    function setSetter(address setter_) external {
        _requireGovernor();
        if (setter_ == address(0)) revert ZeroAddress();
        setter = setter_;
        if (block.timestamp < _last.effectiveAt) {
            emit RootDropped(_last.epoch, _last.root);
            _last = _before;
        }
        emit SetterSet(setter_);
    }

    /// @inheritdoc IRewardDistributor
    function claim(uint256 cumulative, bytes32 expectedRoot, bytes32[] calldata proof) external {
        _claim(msg.sender, cumulative, expectedRoot, proof);
    }

    /// @inheritdoc IRewardDistributor
    function claimFor(address account, uint256 cumulative, bytes32 expectedRoot, bytes32[] calldata proof) external {
        _claim(account, cumulative, expectedRoot, proof);
    }

    /// @inheritdoc IRewardDistributor
    function claimed(address account) external view returns (uint256) {
        return token.earned(account);
    }

    /// @inheritdoc IRewardDistributor
    function current() external view returns (Epoch memory) {
        return _counting();
    }

    /// @inheritdoc IRewardDistributor
    function pending() external view returns (Epoch memory epoch) {
        if (block.timestamp < _last.effectiveAt) epoch = _last;
    }

    /// @dev The token knows what the account was given, in the slot that it writes anyway.
    function _claim(address account, uint256 cumulative, bytes32 expectedRoot, bytes32[] calldata proof) private {
        Epoch storage counting = block.timestamp < _last.effectiveAt ? _before : _last;
        if (counting.root != expectedRoot || expectedRoot == bytes32(0)) revert WrongRoot(counting.root);
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(account, cumulative))));
        if (!MerkleProofLib.verifyCalldata(proof, expectedRoot, leaf)) revert BadProof();
        uint256 amount = token.mintUpTo(account, cumulative, counting.total);
        emit Claimed(account, amount, cumulative);
    }

    function _counting() private view returns (Epoch memory) {
        return block.timestamp < _last.effectiveAt ? _before : _last;
    }
}
