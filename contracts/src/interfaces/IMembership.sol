// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ISigned} from "./ISigned.sol";
import {IIdentityRegistry} from "./IIdentityRegistry.sol";

/// @title Who belongs, by vote of those who belong
/// @notice Groups of users, each governed by its members. Group 0 is the network itself. Members are uids, so a user
/// has one vote however many devices act for them, and keeps the seat when the account changes.
///
/// A proposal counts the active members at its opening (the electorate) and admits the votes of those who joined
/// before it and are still members. It passes when `yes * 10000 > electorate * threshold` and is executed by the
/// deciding vote; it is rejected as soon as it cannot pass any more, and lapses after the voting period. Members who
/// leave change neither the electorate nor the votes that they cast.
///
/// Signatures that anyone may carry here (the signer is the user's account or an active device's signer):
///
///     Request(uint32 group,uint64 uid,uint32 epoch,uint256 deadline)
///     Propose(uint32 group,uint8 kind,uint64 subject,bytes data,uint64 proposer,uint32 epoch,uint256 deadline)
///     Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)
///
/// A Request or Propose works once; a Vote needs no nonce, for a user has one vote per proposal.
interface IMembership is ISigned {
    /// @notice Who may send messages: every registered user, or members of group 0 only.
    enum Policy {
        OPEN,
        VOTE
    }

    /// @notice What a proposal does to its subject.
    enum Kind {
        ADMIT,
        EXPEL
    }

    /// @notice NONE: no such proposal. VOID: it passed, but its subject joined or left in the meantime, so nothing was
    /// done.
    enum State {
        NONE,
        OPEN,
        PASSED,
        REJECTED,
        EXPIRED,
        VOID
    }

    /// @notice How a group votes.
    /// @param threshold share of the electorate that the yes votes must exceed, in hundredths of a percent, 1 to 9999
    /// @param votingPeriod seconds from opening to lapse, 1 to 365 days
    struct Rules {
        uint16 threshold;
        uint32 votingPeriod;
    }

    /// @notice A proposal as it stands.
    /// @param group the group that votes
    /// @param kind what it does
    /// @param subject the user whom it concerns
    /// @param proposer the user who opened it
    /// @param electorate active members when it opened
    /// @param yes votes in favour
    /// @param no votes against
    /// @param deadline last second in which votes count
    /// @param state as of now: an open one whose deadline passed reads EXPIRED
    /// @param dataHash keccak256 of the data in its Proposed event
    struct ProposalInfo {
        uint32 group;
        Kind kind;
        uint64 subject;
        uint64 proposer;
        uint32 electorate;
        uint32 yes;
        uint32 no;
        uint64 deadline;
        State state;
        bytes32 dataHash;
    }

    /// @notice A group exists from now on. Emitted by the constructor for group 0, named "network".
    event GroupCreated(uint32 indexed group, string name, Policy policy, uint16 threshold, uint32 votingPeriod);

    /// @notice A user became an active member.
    /// @dev Invariants: the user is registered and was not active; `sequence` is one more than that of the group's
    /// last MemberAdded, from 1, and never given again; `epoch` is one more than in the group's last MemberAdded or
    /// MemberRemoved, from 1; `rosterHash` is keccak256(abi.encode(previous rosterHash, uint8(1), uid, sequence)),
    /// from zero.
    event MemberAdded(uint32 indexed group, uint64 indexed uid, uint32 sequence, uint32 epoch, bytes32 rosterHash);

    /// @notice A user stopped to be an active member.
    /// @dev Invariants: the user was active with this `sequence`; `epoch` as above; `rosterHash` is
    /// keccak256(abi.encode(previous rosterHash, uint8(2), uid, sequence)).
    event MemberRemoved(uint32 indexed group, uint64 indexed uid, uint32 sequence, uint32 epoch, bytes32 rosterHash);

    /// @notice A proposal opened. Ids count from 1 across all groups. Nobody has voted on it yet.
    /// @dev Invariants: `electorate` is the number of active members and not zero; no other open proposal has the same
    /// group, kind, subject and data; `proposer` was an active member, or `subject` itself for ADMIT.
    event Proposed(
        uint64 indexed id,
        uint32 indexed group,
        uint64 indexed subject,
        Kind kind,
        uint64 proposer,
        uint32 electorate,
        uint64 deadline,
        bytes data
    );

    /// @notice A vote was counted; `yes` and `no` are the totals with it.
    /// @dev Invariants: at most one per proposal and voter; exactly one of the totals is one more than before;
    /// yes + no never exceeds the electorate.
    event Voted(uint64 indexed id, uint64 indexed voter, bool support, uint32 yes, uint32 no);

    /// @notice A proposal ended: PASSED, REJECTED, EXPIRED or VOID. Last event of the proposal.
    /// @dev The effect of a PASSED one is the next event of this contract, in the same transaction.
    event Closed(uint64 indexed id, State state);

    /// @notice The user is not an active member.
    error NotMember(uint64 uid);

    /// @notice The user is already an active member.
    error AlreadyMember(uint64 uid);

    /// @notice The user's vote on this proposal was counted before.
    error AlreadyVoted(uint64 id, uint64 voter);

    /// @notice The user became a member after the proposal opened.
    error JoinedLater(uint64 id, uint64 voter);

    /// @notice No proposal has this id.
    error UnknownProposal(uint64 id);

    /// @notice The proposal is closed.
    error NotOpen(uint64 id, State state);

    /// @notice The voting period of the proposal is over.
    error VotingEnded(uint64 id, uint256 deadline);

    /// @notice The voting period of the proposal is not over.
    error StillOpen(uint64 id);

    /// @notice The same proposal is open already, under this id.
    error AlreadyProposed(uint64 id);

    /// @notice No group has this id.
    error UnknownGroup(uint32 group);

    /// @notice The group has no members, so nobody could vote.
    error NoMembers(uint32 group);

    /// @notice The address acts for no user.
    error NotRegistered(address principal);

    /// @notice No user has this uid.
    error UnknownUser(uint64 uid);

    /// @notice Only the deployer seats founders.
    error NotDeployer(address caller);

    /// @notice The network was sealed: only votes change its members.
    error IsSealed();

    /// @notice A proposal's data has up to 1024 bytes.
    error DataTooLong(uint256 length);

    /// @notice The threshold or the voting period is out of bounds.
    error BadRules();

    /// @notice This Request or Propose signature opened a proposal before.
    error SignatureUsed();

    /// @notice Makes users founding members of group 0, without a vote. The deployer, until `Directory.seal()`.
    /// @param uids registered users who are no members
    function seat(uint64[] calldata uids) external;

    /// @notice Opens the proposal to admit the sender's user.
    /// @param groupId the group to join
    /// @return id the proposal
    function request(uint32 groupId) external returns (uint64 id);

    /// @notice Opens the proposal to admit the user for whom `by` acts, with a signature over Request.
    /// @param groupId the group to join
    /// @param by the signer: the user's account or an active device's signer
    /// @param deadline last second in which the signature counts
    /// @param signature by `by`
    /// @return id the proposal
    function requestFor(uint32 groupId, address by, uint256 deadline, bytes calldata signature)
        external
        returns (uint64 id);

    /// @notice Opens a proposal in the name of the sender's user, a member. Proposing casts no vote.
    /// @param groupId the group that shall vote
    /// @param kind what to do
    /// @param subject ADMIT: a registered user who is no member; EXPEL: a member
    /// @param data free for the proposer, a reason for instance; up to 1024 bytes, public forever
    /// @return id the proposal
    function propose(uint32 groupId, Kind kind, uint64 subject, bytes calldata data) external returns (uint64 id);

    /// @notice Opens a proposal in the name of the user for whom `by` acts, with a signature over Propose.
    /// @param groupId as in `propose`
    /// @param kind as in `propose`
    /// @param subject as in `propose`
    /// @param data as in `propose`
    /// @param by the signer: the proposer's account or an active device's signer
    /// @param deadline last second in which the signature counts
    /// @param signature by `by`
    /// @return id the proposal
    function proposeFor(
        uint32 groupId,
        Kind kind,
        uint64 subject,
        bytes calldata data,
        address by,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint64 id);

    /// @notice Casts the vote of the sender's user; if it decides, the proposal is executed too.
    /// @param id an open proposal
    /// @param support yes or no, final
    function vote(uint64 id, bool support) external;

    /// @notice Casts the vote of the user for whom `voter` acts, with a signature over Vote.
    /// @param id an open proposal
    /// @param support yes or no, final
    /// @param voter the signer: the user's account or an active device's signer
    /// @param signature by `voter`
    function voteBySig(uint64 id, bool support, address voter, bytes calldata signature) external;

    /// @notice Records that an undecided proposal's voting period is over. Anyone may; nothing depends on its being
    /// done.
    /// @param id a lapsed proposal
    function close(uint64 id) external;

    /// @notice A proposal as of now; all zero and NONE when there is none.
    /// @param id the proposal
    /// @return info the proposal
    function proposal(uint64 id) external view returns (ProposalInfo memory info);

    /// @notice Whether a vote was counted under the seat that the user holds now or held last.
    /// @param id the proposal
    /// @param uid the user
    function hasVoted(uint64 id, uint64 uid) external view returns (bool);

    /// @notice A user's seat in a group.
    /// @param groupId the group
    /// @param uid the user
    /// @return active whether the user is a member now
    /// @return sequence number of the last joining, 0 when there was none
    function member(uint32 groupId, uint64 uid) external view returns (bool active, uint32 sequence);

    /// @notice A group as of now; all zero when there is none.
    /// @param id the group
    /// @return members how many are active
    /// @return epoch number of joinings and departures so far
    /// @return rosterHash commitment to all of them, in order
    /// @return policy who may send; it has a meaning in group 0 only
    /// @return threshold as in Rules
    /// @return votingPeriod as in Rules
    function group(uint32 id)
        external
        view
        returns (uint32 members, uint32 epoch, bytes32 rosterHash, Policy policy, uint16 threshold, uint32 votingPeriod);

    /// @notice Whether the network's policy lets a user send messages.
    /// @param uid the user
    function maySend(uint64 uid) external view returns (bool);

    /// @notice How many proposals were ever opened, and so the highest id.
    function proposalCount() external view returns (uint64);

    /// @notice The registry whose users are members here.
    function registry() external view returns (IIdentityRegistry);

    /// @notice The Directory whose seal ends the deployer's role.
    function directory() external view returns (address);

    /// @notice Who may seat founders until then.
    function deployer() external view returns (address);
}
