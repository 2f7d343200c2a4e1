// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title CHAT, a reward for messages that arrived
/// @notice An ERC-20 of 18 decimals that only its RewardDistributor mints. Nothing burns it, so the supply is all that
/// was ever claimed. It has no vote and no price here.
interface IRewardToken is IERC20 {
    /// @notice Only the distributor mints.
    error NotMinter(address caller);

    /// @notice The root's leaves add up to more than its total, and the rest is too little for this claim.
    error ExceedsTotal(uint256 total, uint256 supply, uint256 wanted);

    /// @notice The account claimed all of this before.
    error NothingToClaim(address account);

    /// @notice Makes as many new tokens as an account lacks of what it earned. The distributor.
    /// @param to who gets them
    /// @param cumulative all that the account earned from the beginning on, in units of 1e-18 CHAT
    /// @param total that the supply may come to
    /// @return amount of the new tokens
    function mintUpTo(address to, uint256 cumulative, uint128 total) external returns (uint256 amount);

    /// @notice All that was ever minted to an account, whatever it holds now.
    /// @param account any address
    function earned(address account) external view returns (uint256);

    /// @notice The distributor.
    function minter() external view returns (address);
}
