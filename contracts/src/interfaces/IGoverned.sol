// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMembership} from "./IMembership.sol";

/// @title Who fills an office
/// @notice The deployer fills the offices until `Directory.seal()`; afterwards nobody but Membership does, by vote of
/// group 0.
interface IGoverned {
    /// @notice Only the deployer may do this before the seal, and Membership is not asked yet.
    error NotDeployer(address caller);

    /// @notice The network was sealed: only votes change this.
    error IsSealed();

    /// @notice The zero address can hold no office.
    error ZeroAddress();

    /// @notice The Directory whose seal ends the deployer's role.
    function directory() external view returns (address);

    /// @notice Whose votes count afterwards.
    function membership() external view returns (IMembership);

    /// @notice Who fills the offices until then.
    function deployer() external view returns (address);
}
