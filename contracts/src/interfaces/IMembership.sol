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
/// leave change neither the electorate nor the votes that they cast. A group never loses its last member.
///
/// Group 0 also fills the network's offices: who anchors, who witnesses, which relays serve, who computes rewards, and
/// which network follows this one. No other group can.
///
/// Signatures that anyone may carry here (the signer is the user's account or an active device's signer):
///
///     CreateGroup(string name,uint64[] founders,uint16 threshold,uint32 votingPeriod,uint64 creator,uint32 epoch,
///                 uint256 deadline)
///     Request(string group,uint64 uid,uint32 epoch,uint256 deadline)
///     Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)
///     Leave(string group,uint64 uid,uint32 sequence,uint32 epoch,uint256 deadline)
///
/// and for proposals the struct of their kind, so that a wallet shows in words what it signs. Each begins with
/// `string action,string group`, ends with `uint64 proposer,uint32 epoch,uint256 deadline`, and has in between:
///
///     Propose           uint64 subject,string reason     Admit a member; Expel a member
///     ProposeRules      bool onlyMembersSend,uint16 threshold,uint32 votingPeriod     Change the rules
///     ProposeAnchorer   address anchorer,bytes32 logId   Choose who anchors the log
///     ProposeWitnesses  uint8 quorum,address[] witnesses Choose who witnesses the log
///     ProposeRelays     Relay[] relays                   Choose the relays
///     ProposeRewards    address setter                   Choose who publishes rewards
///     ProposeSuccessor  address successor                Recommend another network
///     ProposePause      string reason                    Pause the network for 7 days; End the pause of the network
///
/// with `Relay(string endpoint,bytes32 spki,bytes32 nextSpki)`; the words on the right are the action. `group` is the
/// group's name. Data that are not exactly what `abi.encode` makes of such values cannot be signed for.
///
/// A CreateGroup works once, as its name is taken afterwards, a Request or a proposal because it is remembered, a Leave
/// because a seat is left once; a Vote needs no nonce, for a user has one vote per proposal.
interface IMembership is ISigned {
    /// @notice Who may send messages: every registered user, or members of group 0 only.
    enum Policy {
        OPEN,
        VOTE
    }

    /// @notice What a proposal does, and what its `subject` and `data` are. All from SET_ANCHORER on are for group 0
    /// only. A subject that is no user is 0. Where `data` is a reason, it is free text of up to 1024 bytes; elsewhere
    /// it is what `abi.encode` makes of the values named here, up to 4096 bytes.
    ///
    /// - ADMIT: subject, a registered user who is no member, joins. Data: a reason.
    /// - EXPEL: subject, a member, leaves. Data: a reason.
    /// - SET_RULES: (Policy policy, uint16 threshold, uint32 votingPeriod). The policy of other groups is OPEN.
    /// - SET_ANCHORER: (address anchorer, bytes32 logId), for `MessageLedger.setAnchorer`
    /// - SET_WITNESSES: (uint8 quorum, address[] witnesses), for `MessageLedger.setWitnesses`
    /// - SET_RELAYS: (Relay[] relays), for `Directory.setRelays`
    /// - SET_REWARDS: (address setter), for `RewardDistributor.setSetter`
    /// - SUCCESSOR: (address successor), for `Directory.setSuccessor`
    /// - PAUSE: for 7 days nobody may send, no group is created and no reward root is set. Data: a reason.
    /// - UNPAUSE: ends a pause. Data: a reason.
    enum Kind {
        ADMIT,
        EXPEL,
        SET_RULES,
        SET_ANCHORER,
        SET_WITNESSES,
        SET_RELAYS,
        SET_REWARDS,
        SUCCESSOR,
        PAUSE,
        UNPAUSE
    }

    /// @notice NONE: no such proposal. VOID: it passed, but it did not apply any more (its subject joined or left in
    /// the meantime, is the last member, or the contract concerned refuses the data), so nothing was done.
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

    /// @notice A vote with its signature, as `voteBySig` takes it.
    /// @param id an open proposal
    /// @param support yes or no
    /// @param voter the signer: the user's account or an active device's signer
    /// @param signature by `voter` over Vote
    struct SignedVote {
        uint64 id;
        bool support;
        address voter;
        bytes signature;
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

    /// @notice A group exists from now on. Emitted by the constructor for group 0, named "network"; for others ids
    /// count from 1, the policy is OPEN and means nothing, and a MemberAdded for each founder follows, the creator's
    /// first.
    /// @dev Invariants: `group` is one more than that of the last such event; `name` was never used before.
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
    /// @dev The effect of a PASSED one is in the same transaction: the next event of this contract, or, where another
    /// contract is concerned (SET_ANCHORER to SUCCESSOR), the last event of that contract before this one.
    event Closed(uint64 indexed id, State state);

    /// @notice A group votes by these rules from now on; proposals that are open keep theirs.
    event RulesSet(uint32 indexed group, Policy policy, uint16 threshold, uint32 votingPeriod);

    /// @notice The network is paused up to and including the second `until`, unless it is unpaused before.
    event Paused(uint64 until);

    /// @notice The pause is over before its time.
    event Unpaused();

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

    /// @notice A proposal's data has up to 1024 bytes, or 4096 where it is no reason.
    error DataTooLong(uint256 length);

    /// @notice The threshold or the voting period is out of bounds.
    error BadRules();

    /// @notice This Request or Propose signature opened a proposal before.
    error SignatureUsed();

    /// @notice A name is 3 to 32 of a-z, 0-9 and hyphen, starts with a letter, and has no hyphen at its end and no two
    /// in a row.
    error NameMalformed(string name);

    /// @notice A group has this name.
    error NameTaken(string name);

    /// @notice A group is founded by up to 64 users besides its creator.
    error TooManyFounders(uint256 count);

    /// @notice The group would be left without members.
    error LastMember(uint32 group);

    /// @notice Only group 0 votes on this.
    error NetworkOnly(Kind kind);

    /// @notice A proposal of this kind is about no user.
    error BadSubject(uint64 subject);

    /// @notice The network lets only its own members do this, and the user is none.
    error NotAdmitted(uint64 uid);

    /// @notice The network is paused up to and including this second.
    error NetworkPaused(uint256 until);

    /// @notice The transaction has too little gas to tell a failure from a lack of gas.
    error NotEnoughGas(uint256 needed);

    /// @notice Makes users founding members of group 0, without a vote. The deployer, until `Directory.seal()`.
    /// @param uids registered users who are no members
    function seat(uint64[] calldata uids) external;

    /// @notice Creates a group. Its members are the sender's user and the users named, without asking them: to be
    /// named a founder is the creator's statement, and whoever does not want the seat leaves.
    /// @param name under the rules of usernames; unique among groups, forever
    /// @param founders up to 64 other users, each registered and, under policy VOTE, a member of group 0
    /// @param rules how it votes
    /// @return id the group
    function createGroup(string calldata name, uint64[] calldata founders, Rules calldata rules)
        external
        returns (uint32 id);

    /// @notice Creates a group for the user for whom `by` acts, with a signature over CreateGroup.
    /// @param name as in `createGroup`
    /// @param founders as in `createGroup`
    /// @param rules as in `createGroup`
    /// @param by the signer: the creator's account or an active device's signer
    /// @param deadline last second in which the signature counts
    /// @param signature by `by`
    /// @return id the group
    function createGroupFor(
        string calldata name,
        uint64[] calldata founders,
        Rules calldata rules,
        address by,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint32 id);

    /// @notice Gives up the sender's user's seat. The last member stays.
    /// @param groupId the group
    function leave(uint32 groupId) external;

    /// @notice Gives up the seat of the user for whom `by` acts, with a signature over Leave.
    /// @param groupId the group
    /// @param by the signer: the user's account or an active device's signer
    /// @param deadline last second in which the signature counts
    /// @param signature by `by`
    function leaveFor(uint32 groupId, address by, uint256 deadline, bytes calldata signature) external;

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
    /// @param subject as Kind says
    /// @param data as Kind says; public forever
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

    /// @notice Casts many votes by signature. One that does not count (unknown, closed or lapsed proposal, no seat,
    /// counted before, bad signature) is passed over and spoils none of the others; a contract wallet has 100,000 gas
    /// for its answer.
    /// @param votes in any order, of any proposals
    /// @return counted how many counted; which ones is in the Voted events
    function voteBatch(SignedVote[] calldata votes) external returns (uint256 counted);

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

    /// @notice Whether the network's policy lets a user send messages, and it is not paused.
    /// @param uid the user
    function maySend(uint64 uid) external view returns (bool);

    /// @notice What a proposal would enact; empty where its data is a reason.
    /// @param id the proposal
    function payload(uint64 id) external view returns (bytes memory);

    /// @notice Whether a signature over a struct of this contract counts for an address.
    /// @param signer any address
    /// @param structHash EIP-712's hash of the struct
    /// @param signature as ISigned says
    function isSignedBy(address signer, bytes32 structHash, bytes calldata signature) external view returns (bool);

    /// @notice The group that has this name.
    /// @param name any text
    /// @return exists whether there is one
    /// @return id the group
    function groupNamed(string calldata name) external view returns (bool exists, uint32 id);

    /// @notice How many groups there are, group 0 among them, and so the next id.
    function groupCount() external view returns (uint32);

    /// @notice Last second of the last pause; the network is paused until then.
    function pausedUntil() external view returns (uint64);

    /// @notice How many proposals were ever opened, and so the highest id.
    function proposalCount() external view returns (uint64);

    /// @notice The registry whose users are members here.
    function registry() external view returns (IIdentityRegistry);

    /// @notice The Directory whose seal ends the deployer's role.
    function directory() external view returns (address);

    /// @notice Who may seat founders until then.
    function deployer() external view returns (address);
}
