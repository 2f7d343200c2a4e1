// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "solady/utils/ECDSA.sol";
import {EIP712} from "solady/utils/EIP712.sol";
import {SignatureCheckerLib} from "solady/utils/SignatureCheckerLib.sol";
import {ISigned} from "./interfaces/ISigned.sol";

/// @title The one place where a signed action is bound to domain, time and signer
abstract contract Signed is ISigned, EIP712 {
    /// @dev Reverts after the deadline's second.
    function _requireInTime(uint256 deadline) internal view {
        if (block.timestamp > deadline) revert Expired(deadline);
    }

    /// @dev Reverts unless `signer` signed this struct for this contract on this chain. A key's signature is tried
    /// first; only when it is not the signer's own, the signer is asked as a contract through ERC-1271, in a static
    /// call that cannot re-enter.
    function _requireSigned(address signer, bytes32 structHash, bytes calldata signature) internal view {
        bytes32 digest = _hashTypedData(structHash);
        address recovered = ECDSA.tryRecoverCalldata(digest, signature);
        if (recovered == signer && recovered != address(0)) return;
        if (!SignatureCheckerLib.isValidERC1271SignatureNowCalldata(signer, digest, signature)) revert BadSignature();
    }

    function _domainNameAndVersion() internal pure override returns (string memory name, string memory version) {
        return ("chatchain", "1");
    }
}
