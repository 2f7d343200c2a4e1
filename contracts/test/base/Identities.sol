// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {World} from "./World.sol";

/// @notice A world with two users, a keeper who may recover both, and the digests of what they sign.
abstract contract Identities is World {
    uint256 internal constant KEEPER = 0x6EE9E5;
    uint256 internal constant NEXT = 0x4E087;
    uint64 internal constant DELAY = 7 days;
    uint64 internal constant INTERVAL = 30 days;
    uint64 internal constant CHANGE = 21 days;

    Person internal ada;
    Person internal bob;
    address internal keeper;
    address internal next; // the account that ada shall get
    uint256 internal deadline;

    function setUp() public virtual override {
        super.setUp();
        keeper = vm.addr(KEEPER);
        next = vm.addr(NEXT);
        ada = kept("ada");
        bob = kept("bob");
        deadline = NOW + 60;
    }

    /// @dev Registers a person whom the keeper may recover.
    function kept(string memory name) internal returns (Person memory p) {
        p = stranger(name);
        vm.prank(p.account);
        p.uid = registry.register(name, VERIFIER, KDF, keeper, p.signer, RECORD);
    }

    function propose(address account) internal {
        vm.prank(keeper);
        registry.proposeRecovery(ada.uid, account);
    }

    function finalise() internal {
        vm.warp(block.timestamp + DELAY);
        vm.prank(next);
        registry.finaliseRecovery(ada.uid);
    }

    function accountOf(uint64 uid) internal view returns (address account) {
        (account,,,,,) = registry.user(uid);
    }

    function epochOf(uint64 uid) internal view returns (uint32 epoch) {
        (, epoch,,,,) = registry.user(uid);
    }

    /// @dev The digest of a struct whose members after `uid` and `epoch` are these words.
    function digest(string memory struct_, uint64 uid, uint32 epoch, bytes memory words)
        internal
        view
        returns (bytes32)
    {
        bytes memory head = abi.encode(keccak256(bytes(struct_)), uid, epoch);
        return digests.seal(address(registry), keccak256(bytes.concat(head, words)));
    }

    /// @dev A well-formed RSA key whose modulus is drawn from a seed.
    function rsa(uint256 seed) internal pure returns (bytes memory) {
        bytes memory middle;
        for (uint256 i = 0; i < 8; ++i) {
            middle = bytes.concat(middle, keccak256(abi.encode(seed, i)));
        }
        middle[0] |= 0x80;
        middle[255] |= 0x01;
        return
            bytes.concat(
                hex"30820122300d06092a864886f70d01010105000382010f003082010a0282010100", middle, hex"0203010001"
            );
    }
}
