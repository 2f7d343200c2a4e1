// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice A contract wallet that accepts the plain signatures of one key through ERC-1271.
contract Wallet {
    bytes4 private constant YES = 0x1626ba7e;
    address private immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 65) return 0xffffffff;
        address who = ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
        return who == owner && who != address(0) ? YES : bytes4(0xffffffff);
    }
}
