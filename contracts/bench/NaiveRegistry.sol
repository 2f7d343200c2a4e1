// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Measured, never deployed: users as a classroom keeps them, every field a string in storage.
contract NaiveRegistry {
    struct User {
        string username;
        string passwordHash;
        string publicKey;
        bool exists;
    }

    mapping(address account => User) private _users;
    mapping(string username => address) private _accountOf;

    event Registered(address account, string username);

    function register(string calldata username, string calldata passwordHash, string calldata publicKey) external {
        require(!_users[msg.sender].exists && _accountOf[username] == address(0), "taken");
        _users[msg.sender] = User(username, passwordHash, publicKey, true);
        _accountOf[username] = msg.sender;
        emit Registered(msg.sender, username);
    }
}
