// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice The part of forge's cheat codes that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function chainId(uint256 id) external;
    function assume(bool condition) external pure;
    function expectRevert(bytes calldata revertData) external;
    function expectRevert() external;
    function expectEmit(address emitter) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function getNonce(address account) external view returns (uint64);
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function etch(address target, bytes calldata code) external;
    function store(address target, bytes32 slot, bytes32 value) external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function assertTrue(bool condition, string calldata label) external pure;
    function assertFalse(bool condition, string calldata label) external pure;
    function assertEq(bool a, bool b, string calldata label) external pure;
    function assertEq(uint256 a, uint256 b, string calldata label) external pure;
    function assertEq(address a, address b, string calldata label) external pure;
    function assertEq(bytes32 a, bytes32 b, string calldata label) external pure;
    function assertEq(string calldata a, string calldata b, string calldata label) external pure;
    function assertEq(bytes calldata a, bytes calldata b, string calldata label) external pure;
    function assertNotEq(uint256 a, uint256 b, string calldata label) external pure;
    function assertLe(uint256 a, uint256 b, string calldata label) external pure;
    function assertGe(uint256 a, uint256 b, string calldata label) external pure;
}
