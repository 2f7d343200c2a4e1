// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IGoverned} from "./interfaces/IGoverned.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {IMembership} from "./interfaces/IMembership.sol";
import {IMessageLedger} from "./interfaces/IMessageLedger.sol";
import {IRewardDistributor} from "./interfaces/IRewardDistributor.sol";

/// @title The one address to configure
contract Directory is IDirectory {
    uint32 private constant NETWORK = 0;
    uint256 private constant MAX_RELAYS = 16;
    uint256 private constant MIN_ENDPOINT = 3;
    uint256 private constant MAX_ENDPOINT = 255;
    bytes32 private constant RELAY_TYPEHASH = keccak256("Relay(string endpoint,bytes32 spki,bytes32 nextSpki)");

    /// @inheritdoc IDirectory
    uint32 public constant version = 2;
    /// @inheritdoc IDirectory
    IIdentityRegistry public immutable identityRegistry;
    /// @inheritdoc IDirectory
    IMembership public immutable membership;
    /// @inheritdoc IDirectory
    IMessageLedger public immutable messageLedger;
    /// @inheritdoc IDirectory
    IRewardDistributor public immutable rewardDistributor;
    /// @inheritdoc IDirectory
    address public immutable deployer;

    /// @inheritdoc IDirectory
    bool public isSealed;
    /// @inheritdoc IDirectory
    address public successor;

    Relay[] private _relays;

    /// @param identityRegistry_ the registry that Membership reads
    /// @param membership_ the Membership that was given this address
    /// @param messageLedger_ the MessageLedger that was given this address
    /// @param rewardDistributor_ the RewardDistributor that was given this address
    constructor(
        IIdentityRegistry identityRegistry_,
        IMembership membership_,
        IMessageLedger messageLedger_,
        IRewardDistributor rewardDistributor_
    ) {
        if (address(identityRegistry_).code.length == 0) {
            revert WrongWiring(address(identityRegistry_));
        }
        if (address(membership_).code.length == 0) revert WrongWiring(address(membership_));
        if (membership_.directory() != address(this)) revert WrongWiring(address(membership_));
        if (address(membership_.registry()) != address(identityRegistry_)) {
            revert WrongWiring(address(identityRegistry_));
        }
        identityRegistry = identityRegistry_;
        membership = membership_;
        messageLedger = messageLedger_;
        rewardDistributor = rewardDistributor_;
        deployer = msg.sender;
        _requireWired(messageLedger_, membership_);
        _requireWired(rewardDistributor_, membership_);
    }

    /// @inheritdoc IDirectory
    function seal() external {
        if (msg.sender != deployer) revert NotDeployer(msg.sender);
        if (isSealed) revert IsSealed();
        // slither-disable-next-line unused-return: the rest of the answer is not asked for
        (uint32 members,,,,,) = membership.group(NETWORK);
        if (members == 0) revert NoFounders();
        if (_relays.length == 0) revert NoRelays();
        isSealed = true;
        emit Sealed();
    }

    /// @inheritdoc IDirectory
    function setRelays(Relay[] calldata list) external {
        if (isSealed) {
            if (msg.sender != address(membership)) revert IsSealed();
        } else if (msg.sender != deployer) {
            revert NotDeployer(msg.sender);
        }
        if (list.length > MAX_RELAYS) revert TooManyRelays(list.length);
        delete _relays;
        for (uint256 i = 0; i < list.length; ++i) {
            uint256 length = bytes(list[i].endpoint).length;
            if (length < MIN_ENDPOINT || length > MAX_ENDPOINT || list[i].spki == bytes32(0)) {
                revert BadRelay(list[i].endpoint);
            }
            _relays.push(list[i]);
        }
        emit RelaysSet(list);
    }

    /// @inheritdoc IDirectory
    function setSuccessor(address successor_) external {
        if (msg.sender != address(membership)) revert NotMembership(msg.sender);
        if (successor_ == address(this) || (successor_ != address(0) && successor_.code.length == 0)) {
            revert WrongWiring(successor_);
        }
        successor = successor_;
        emit SuccessorSet(successor_);
    }

    /// @inheritdoc IDirectory
    function relays() external view returns (Relay[] memory) {
        return _relays;
    }

    /// @inheritdoc IDirectory
    function hashRelays(Relay[] calldata list) external pure returns (bytes32) {
        if (keccak256(abi.encode(list)) != keccak256(msg.data[4:])) revert IrregularData();
        bytes32[] memory hashes = new bytes32[](list.length);
        for (uint256 i = 0; i < list.length; ++i) {
            Relay calldata one = list[i];
            hashes[i] = keccak256(abi.encode(RELAY_TYPEHASH, keccak256(bytes(one.endpoint)), one.spki, one.nextSpki));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    /// @dev Reverts unless a contract with offices belongs to this network.
    function _requireWired(IGoverned part, IMembership membership_) private view {
        if (address(part).code.length == 0) revert WrongWiring(address(part));
        if (part.directory() != address(this)) revert WrongWiring(address(part));
        if (address(part.membership()) != address(membership_)) revert WrongWiring(address(part));
        if (part.deployer() != msg.sender) revert WrongWiring(address(part));
    }
}
