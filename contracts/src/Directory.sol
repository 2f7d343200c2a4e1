// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {IMembership} from "./interfaces/IMembership.sol";

/// @title The one address to configure
contract Directory is IDirectory {
    uint32 private constant NETWORK = 0;
    uint256 private constant MAX_RELAYS = 16;
    uint256 private constant MIN_ENDPOINT = 3;
    uint256 private constant MAX_ENDPOINT = 255;

    /// @inheritdoc IDirectory
    uint32 public constant version = 1;
    /// @inheritdoc IDirectory
    IIdentityRegistry public immutable identityRegistry;
    /// @inheritdoc IDirectory
    IMembership public immutable membership;
    /// @inheritdoc IDirectory
    address public immutable deployer;

    /// @inheritdoc IDirectory
    bool public isSealed;

    Relay[] private _relays;

    /// @param identityRegistry_ the registry that Membership reads
    /// @param membership_ the Membership that was given this address
    constructor(address identityRegistry_, address membership_) {
        if (identityRegistry_.code.length == 0) revert WrongWiring(identityRegistry_);
        if (membership_.code.length == 0) revert WrongWiring(membership_);
        if (IMembership(membership_).directory() != address(this)) revert WrongWiring(membership_);
        if (address(IMembership(membership_).registry()) != identityRegistry_) revert WrongWiring(identityRegistry_);
        identityRegistry = IIdentityRegistry(identityRegistry_);
        membership = IMembership(membership_);
        deployer = msg.sender;
    }

    /// @inheritdoc IDirectory
    function seal() external {
        if (msg.sender != deployer) revert NotDeployer(msg.sender);
        if (isSealed) revert IsSealed();
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
    function relays() external view returns (Relay[] memory) {
        return _relays;
    }
}
