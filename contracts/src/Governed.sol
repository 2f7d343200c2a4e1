// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IGoverned} from "./interfaces/IGoverned.sol";
import {IMembership} from "./interfaces/IMembership.sol";

/// @title The one place that knows who may fill an office
abstract contract Governed is IGoverned {
    /// @inheritdoc IGoverned
    address public immutable directory;
    /// @inheritdoc IGoverned
    IMembership public immutable membership;
    /// @inheritdoc IGoverned
    address public immutable deployer;

    /// @param directory_ the Directory to be, whose address follows from the deployer's nonce
    /// @param membership_ whose votes count after the seal
    constructor(address directory_, IMembership membership_) {
        directory = directory_;
        membership = membership_;
        deployer = msg.sender;
    }

    /// @dev Reverts unless the sender may fill offices now.
    function _requireGovernor() internal view {
        if (IDirectory(directory).isSealed()) {
            if (msg.sender != address(membership)) revert IsSealed();
        } else if (msg.sender != deployer) {
            revert NotDeployer(msg.sender);
        }
    }
}
