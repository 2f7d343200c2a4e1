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

    /// @dev Reverts unless `signer` signed this struct for this contract on this chain.
    function _requireSigned(address signer, bytes32 structHash, bytes calldata signature) internal view {
        if (!_isSigned(signer, structHash, signature)) revert BadSignature();
    }

    /// @dev A key's signature is tried first; only when it is not the signer's own, the signer is asked as a contract
    /// through ERC-1271, in a static call that cannot re-enter.
    function _isSigned(address signer, bytes32 structHash, bytes calldata signature) internal view returns (bool) {
        bytes32 digest = _hashTypedData(structHash);
        return _isOwnSignature(signer, digest, signature)
            || SignatureCheckerLib.isValidERC1271SignatureNowCalldata(signer, digest, signature);
    }

    function _isOwnSignature(address signer, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        address recovered = ECDSA.tryRecoverCalldata(digest, signature);
        return recovered == signer && recovered != address(0);
    }

    function _domainNameAndVersion() internal pure override returns (string memory name, string memory version) {
        return ("chatchain", "1");
    }
}
