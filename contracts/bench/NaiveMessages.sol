// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Measured, never deployed: a chat as a classroom keeps it, every message in storage.
contract NaiveMessages {
    struct Message {
        address sender;
        address recipient;
        uint256 time;
        bytes text;
    }

    Message[] private _messages;

    event Sent(address indexed sender, address indexed recipient, uint256 index);

    function send(address recipient, bytes calldata text) external {
        _messages.push(Message(msg.sender, recipient, block.timestamp, text));
        emit Sent(msg.sender, recipient, _messages.length - 1);
    }
}
