// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The form of names: of users and of groups
library Names {
    // Sets of ASCII characters, a bit each: a-z, and a-z, 0-9 and the hyphen.
    uint256 private constant HYPHEN = 0x2d;
    uint256 private constant START = ((1 << 26) - 1) << 0x61;
    uint256 private constant NEXT = START | (((1 << 10) - 1) << 0x30) | (1 << HYPHEN);

    /// @dev 3 to 32 of a-z, 0-9 and hyphen; first a letter; no hyphen at the end and no two in a row.
    function isWellFormed(string memory name) internal pure returns (bool) {
        bytes memory text = bytes(name);
        uint256 length = text.length;
        if (length < 3 || length > 32) return false;
        uint256 allowed = START; // the set of characters that may stand here
        for (uint256 i = 0; i < length; ++i) {
            uint256 c = uint8(text[i]);
            if ((allowed >> c) & 1 == 0) return false;
            allowed = c == HYPHEN ? NEXT ^ (1 << HYPHEN) : NEXT;
        }
        return text[length - 1] != "-";
    }
}
