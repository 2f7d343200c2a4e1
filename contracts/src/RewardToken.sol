// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IRewardToken} from "./interfaces/IRewardToken.sol";

/// @title CHAT, a reward for messages that arrived
/// @dev Keeps its own books instead of ERC20's, so that a claim touches one slot of the account and not two. Neither
/// half overflows: the supply is at most a total of 128 bits, and no balance or sum is more than the supply.
contract RewardToken is IRewardToken, ERC20 {
    struct Holding {
        uint128 balance;
        uint128 earned; // all that was ever minted to the account, wherever it is now
    }

    /// @inheritdoc IRewardToken
    address public immutable minter;

    uint256 private _supply;
    mapping(address account => Holding) private _holdings;

    /// @dev Its creator mints.
    constructor() ERC20("chatchain reward", "CHAT") {
        minter = msg.sender;
    }

    /// @inheritdoc IRewardToken
    function mintUpTo(address to, uint256 cumulative, uint128 total) external returns (uint256 amount) {
        if (msg.sender != minter) revert NotMinter(msg.sender);
        if (to == address(0)) revert ERC20InvalidReceiver(to);
        Holding storage holding = _holdings[to];
        (uint256 balance, uint256 had) = (holding.balance, holding.earned);
        if (cumulative <= had) revert NothingToClaim(to);
        uint256 supply = _supply;
        unchecked {
            amount = cumulative - had;
            if (total < supply || amount > total - supply) revert ExceedsTotal(total, supply, amount);

            _supply = supply + amount;
            holding.balance = uint128(balance + amount);
            holding.earned = uint128(cumulative);
        }
        emit Transfer(address(0), to, amount);
    }

    /// @inheritdoc IRewardToken
    function earned(address account) external view returns (uint256) {
        return _holdings[account].earned;
    }

    /// @inheritdoc IERC20
    function totalSupply() public view override(ERC20, IERC20) returns (uint256) {
        return _supply;
    }

    /// @inheritdoc IERC20
    function balanceOf(address account) public view override(ERC20, IERC20) returns (uint256) {
        return _holdings[account].balance;
    }

    /// @dev Only transfers come here, and neither side is the zero address: minting is above, nothing burns.
    function _update(address from, address to, uint256 value) internal override {
        Holding storage giver = _holdings[from];
        uint256 had = giver.balance;
        if (value > had) revert ERC20InsufficientBalance(from, had, value);
        unchecked {
            giver.balance = uint128(had - value);
            _holdings[to].balance += uint128(value);
        }
        emit Transfer(from, to, value);
    }
}
