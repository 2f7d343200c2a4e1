// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IRewardToken} from "./interfaces/IRewardToken.sol";

/// @title CHAT, a reward for messages that arrived
contract RewardToken is IRewardToken, ERC20 {
    /// @inheritdoc IRewardToken
    address public immutable minter;

    /// @dev Its creator mints.
    constructor() ERC20("chatchain reward", "CHAT") {
        minter = msg.sender;
    }

    /// @inheritdoc IRewardToken
    function mint(address to, uint256 amount, uint256 total) external {
        if (msg.sender != minter) revert NotMinter(msg.sender);
        uint256 supply = totalSupply();
        if (total < supply || amount > total - supply) revert ExceedsTotal(total, supply, amount);
        _mint(to, amount);
    }
}
