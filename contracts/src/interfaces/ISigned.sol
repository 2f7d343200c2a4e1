// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The failures of an action that somebody else carries to the chain
/// @notice The EIP-712 domain of every contract that takes signatures is name "chatchain", version "1", the chain's id
/// and the contract's own address (readable through EIP-5267 `eip712Domain()`). A signature is 65 bytes `r ‖ s ‖ v`,
/// 64 bytes of EIP-2098, or, where the signing address has code, whatever that code accepts through ERC-1271.
interface ISigned {
    /// @notice The signature could be used up to and including the second `deadline`, which has passed.
    error Expired(uint256 deadline);

    /// @notice The signature was not made by the named address over exactly these values on this chain and contract.
    error BadSignature();
}
