// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityRegistry} from "./IIdentityRegistry.sol";
import {IMembership} from "./IMembership.sol";
import {IMessageLedger} from "./IMessageLedger.sol";
import {IRewardDistributor} from "./IRewardDistributor.sol";

/// @title The one address to configure
/// @notice Names the network's other contracts, fixed at construction, and its relays with the hashes of their
/// certificates' keys, so that no server address is built in and no certificate is taken on trust. The deployer enters
/// relays until `seal()`; afterwards nobody but Membership does, by vote. When members want other contracts, they vote for
/// a successor: the Directory of another network, which clients follow after asking their user.
interface IDirectory {
    /// @notice A relay that clients may use.
    /// @param endpoint `host:port`, 3 to 255 bytes
    /// @param spki SHA-256 of the certificate's SubjectPublicKeyInfo in DER, not zero
    /// @param nextSpki the same of the key that will follow, accepted as well; zero for none
    struct Relay {
        string endpoint;
        bytes32 spki;
        bytes32 nextSpki;
    }

    /// @notice The deployer's role is over, here and in Membership.
    /// @dev Invariants: emitted at most once; group 0 had a member and a relay was entered.
    event Sealed();

    /// @notice These are the relays from now on, and no others.
    /// @dev Invariants: equals what `relays()` returns until the next such event; at most 16.
    event RelaysSet(Relay[] relays);

    /// @notice Members recommend the network of this Directory; zero withdraws what was recommended before.
    /// @dev Invariant: equals what `successor()` returns until the next such event.
    event SuccessorSet(address successor);

    /// @notice The address has no code, or belongs to another network.
    error WrongWiring(address wrong);

    /// @notice Only the deployer may do this before the seal, and Membership is not asked yet.
    error NotDeployer(address caller);

    /// @notice The network was sealed: only votes change its relays.
    error IsSealed();

    /// @notice Only a vote recommends a successor.
    error NotMembership(address caller);

    /// @notice Group 0 has no members.
    error NoFounders();

    /// @notice No relay was entered.
    error NoRelays();

    /// @notice A network names at most 16 relays.
    error TooManyRelays(uint256 count);

    /// @notice The endpoint's length is out of bounds, or the certificate's hash is missing.
    error BadRelay(string endpoint);

    /// @notice The list is not encoded as `abi.encode` does it.
    error IrregularData();

    /// @notice Ends the deployer's role. The deployer, once, with at least one member and one relay.
    function seal() external;

    /// @notice Replaces the list of relays. The deployer until the seal, then Membership.
    /// @param list at most 16 relays, in order of preference
    function setRelays(Relay[] calldata list) external;

    /// @notice Recommends another network. Membership, by vote (SUCCESSOR); the deployer never.
    /// @param successor_ a Directory, another than this one, or zero
    function setSuccessor(address successor_) external;

    /// @notice What EIP-712 makes of a field `Relay[]`, for Membership to check signatures over proposals of relays.
    /// @param list any relays
    function hashRelays(Relay[] calldata list) external pure returns (bytes32);

    /// @notice The Directory that members recommend to go on with, zero for none.
    function successor() external view returns (address);

    /// @notice The relays, in order of preference.
    function relays() external view returns (Relay[] memory);

    /// @notice Whether the deployer's role is over.
    function isSealed() external view returns (bool);

    /// @notice Who is who in this network.
    function identityRegistry() external view returns (IIdentityRegistry);

    /// @notice Who belongs to this network.
    function membership() external view returns (IMembership);

    /// @notice What was said in this network, as hashes.
    function messageLedger() external view returns (IMessageLedger);

    /// @notice What is earned in this network.
    function rewardDistributor() external view returns (IRewardDistributor);

    /// @notice Who may enter relays and seal.
    function deployer() external view returns (address);

    /// @notice Version of this layout of contracts.
    function version() external pure returns (uint32);
}
