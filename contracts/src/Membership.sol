// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EfficientHashLib} from "solady/utils/EfficientHashLib.sol";
import {IDirectory} from "./interfaces/IDirectory.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {IMembership} from "./interfaces/IMembership.sol";
import {IMessageLedger} from "./interfaces/IMessageLedger.sol";
import {IRewardDistributor} from "./interfaces/IRewardDistributor.sol";
import {Names} from "./Names.sol";
import {Signed} from "./Signed.sol";

/// @title Who belongs, by vote of those who belong
contract Membership is IMembership, Signed {
    /// @dev Why a vote does not count.
    enum Refusal {
        NONE,
        NOT_OPEN,
        ENDED,
        NO_MEMBER,
        JOINED_LATER
    }

    struct Seat {
        uint32 sequence; // of the last joining; stays after a departure
        bool active;
    }

    struct Group {
        uint24 members;
        uint32 epoch;
        uint32 sequence; // of the last joining in the group
        uint32 votingPeriod; // not zero in a group that exists
        uint16 threshold;
        Policy policy;
        bytes32 rosterHash;
        bytes32 nameKey; // what EIP-712 makes of the name, so that signatures can say it
    }

    /// @dev One slot: all that a vote reads and writes besides the seat, and for a group's first seats the ballot too.
    struct Count {
        uint32 group;
        uint24 electorate;
        uint24 yes;
        uint24 no;
        uint32 sequence; // the group's when the proposal opened: later seats have no vote
        uint40 deadline;
        uint16 threshold;
        State state;
        uint56 earlyVotes; // of the seats with a sequence below 56, a bit each
    }

    /// @dev The votes of 256 seats, a bit each.
    struct Page {
        uint256 bits;
    }

    struct Proposal {
        Count count;
        uint64 subject;
        uint64 proposer;
        Kind kind;
        bytes32 dataHash;
        mapping(uint256 number => Page) pages; // of later seats; page and bit: the seat's sequence
    }

    uint32 private constant NETWORK = 0;
    uint256 private constant WHOLE = 10_000;
    uint256 private constant EARLY = 56;
    uint256 private constant MAX_REASON = 1024;
    uint256 private constant MAX_PAYLOAD = 4096;
    uint256 private constant MAX_FOUNDERS = 64;
    uint32 private constant MAX_VOTING_PERIOD = 365 days;
    uint64 private constant PAUSE_TIME = 7 days;

    // What a call may cost at most. It always gets that much, so that nobody can make it fail by sending little gas.
    uint256 private constant ENACT_GAS = 1_000_000;
    uint256 private constant ENACT_RELAYS_GAS = 5_000_000;
    uint256 private constant WALLET_GAS = 100_000;
    uint256 private constant CALL_GAS = 10_000; // spent between looking at the gas and calling

    uint8 private constant ADD = 1;
    uint8 private constant REMOVE = 2;

    bytes32 private constant CREATE_GROUP_TYPEHASH = keccak256(
        "CreateGroup(string name,uint64[] founders,uint16 threshold,uint32 votingPeriod,uint64 creator,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant REQUEST_TYPEHASH =
        keccak256("Request(string group,uint64 uid,uint32 epoch,uint256 deadline)");
    bytes32 private constant PROPOSE_TYPEHASH = keccak256(
        "Propose(string action,string group,uint64 subject,string reason,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_RULES_TYPEHASH = keccak256(
        "ProposeRules(string action,string group,bool onlyMembersSend,uint16 threshold,uint32 votingPeriod,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_ANCHORER_TYPEHASH = keccak256(
        "ProposeAnchorer(string action,string group,address anchorer,bytes32 logId,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_WITNESSES_TYPEHASH = keccak256(
        "ProposeWitnesses(string action,string group,uint8 quorum,address[] witnesses,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_RELAYS_TYPEHASH = keccak256(
        "ProposeRelays(string action,string group,Relay[] relays,uint64 proposer,uint32 epoch,uint256 deadline)Relay(string endpoint,bytes32 spki,bytes32 nextSpki)"
    );
    bytes32 private constant PROPOSE_REWARDS_TYPEHASH = keccak256(
        "ProposeRewards(string action,string group,address setter,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_SUCCESSOR_TYPEHASH = keccak256(
        "ProposeSuccessor(string action,string group,address successor,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant PROPOSE_PAUSE_TYPEHASH = keccak256(
        "ProposePause(string action,string group,string reason,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant VOTE_TYPEHASH = keccak256("Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)");
    bytes32 private constant LEAVE_TYPEHASH =
        keccak256("Leave(string group,uint64 uid,uint32 sequence,uint32 epoch,uint256 deadline)");

    /// @inheritdoc IMembership
    IIdentityRegistry public immutable registry;
    /// @inheritdoc IMembership
    address public immutable directory;
    /// @inheritdoc IMembership
    address public immutable deployer;

    /// @inheritdoc IMembership
    uint64 public proposalCount;
    /// @inheritdoc IMembership
    uint64 public pausedUntil;
    /// @inheritdoc IMembership
    uint32 public groupCount;

    mapping(uint32 id => Group) private _groups;
    mapping(uint32 groupId => mapping(uint64 uid => Seat)) private _seats;
    mapping(uint64 id => Proposal) private _proposals;
    mapping(bytes32 key => uint64 id) private _openProposals;
    mapping(bytes32 structHash => bool) private _usedSignatures;
    mapping(uint64 id => bytes) private _payloads;
    mapping(bytes32 nameKey => uint256 next) private _groupsByName; // id + 1

    /// @param registry_ whose users become members
    /// @param directory_ the Directory to be, whose address follows from the deployer's nonce
    /// @param policy who may send messages
    /// @param rules how group 0 votes
    constructor(IIdentityRegistry registry_, address directory_, Policy policy, Rules memory rules) {
        registry = registry_;
        directory = directory_;
        deployer = msg.sender;
        _found("network", policy, rules);
    }

    /// @inheritdoc IMembership
    function seat(uint64[] calldata uids) external {
        if (msg.sender != deployer) revert NotDeployer(msg.sender);
        if (IDirectory(directory).isSealed()) revert IsSealed();
        for (uint256 i = 0; i < uids.length; ++i) {
            uint64 uid = uids[i];
            _requireUser(uid);
            if (_seats[NETWORK][uid].active) revert AlreadyMember(uid);
            _join(NETWORK, uid);
        }
    }

    /// @inheritdoc IMembership
    function createGroup(string calldata name, uint64[] calldata founders, Rules calldata rules)
        external
        returns (uint32 id)
    {
        return _create(name, founders, rules, _userOf(msg.sender));
    }

    /// @inheritdoc IMembership
    function createGroupFor(
        string calldata name,
        uint64[] calldata founders,
        Rules calldata rules,
        address by,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint32 id) {
        _requireInTime(deadline);
        (uint64 creator, uint32 epoch) = _resolve(by);
        {
            // An array of words hashes like the struct, and keeps the stack within the compiler's reach.
            bytes32[8] memory words;
            words[0] = CREATE_GROUP_TYPEHASH;
            words[1] = keccak256(bytes(name));
            words[2] = keccak256(abi.encodePacked(founders));
            words[3] = bytes32(uint256(rules.threshold));
            words[4] = bytes32(uint256(rules.votingPeriod));
            words[5] = bytes32(uint256(creator));
            words[6] = bytes32(uint256(epoch));
            words[7] = bytes32(deadline);
            _requireSigned(by, keccak256(abi.encode(words)), signature);
        }
        return _create(name, founders, rules, creator);
    }

    /// @inheritdoc IMembership
    function leave(uint32 groupId) external {
        _leaveBy(groupId, _userOf(msg.sender));
    }

    /// @inheritdoc IMembership
    function leaveFor(uint32 groupId, address by, uint256 deadline, bytes calldata signature) external {
        _requireInTime(deadline);
        (uint64 uid, uint32 epoch) = _resolve(by);
        uint32 sequence = _seats[groupId][uid].sequence;
        bytes32 name = _groups[groupId].nameKey;
        _requireSigned(by, keccak256(abi.encode(LEAVE_TYPEHASH, name, uid, sequence, epoch, deadline)), signature);
        _leaveBy(groupId, uid);
    }

    /// @inheritdoc IMembership
    function request(uint32 groupId) external returns (uint64 id) {
        uint64 uid = _userOf(msg.sender);
        return _open(groupId, Kind.ADMIT, uid, "", uid);
    }

    /// @inheritdoc IMembership
    function requestFor(uint32 groupId, address by, uint256 deadline, bytes calldata signature)
        external
        returns (uint64 id)
    {
        _requireInTime(deadline);
        (uint64 uid, uint32 epoch) = _resolve(by);
        bytes32 name = _groups[groupId].nameKey;
        _useSignature(by, keccak256(abi.encode(REQUEST_TYPEHASH, name, uid, epoch, deadline)), signature);
        return _open(groupId, Kind.ADMIT, uid, "", uid);
    }

    /// @inheritdoc IMembership
    function propose(uint32 groupId, Kind kind, uint64 subject, bytes calldata data) external returns (uint64 id) {
        uint64 proposer = _userOf(msg.sender);
        return _openAsMember(groupId, kind, subject, data, proposer);
    }

    /// @inheritdoc IMembership
    function proposeFor(
        uint32 groupId,
        Kind kind,
        uint64 subject,
        bytes calldata data,
        address by,
        uint256 deadline,
        bytes calldata signature
    ) external returns (uint64 id) {
        _requireInTime(deadline);
        (uint64 proposer, uint32 epoch) = _resolve(by);
        {
            bytes memory tail = abi.encode(proposer, epoch, deadline);
            bytes32 structHash = _hashProposal(groupId, kind, subject, data, tail);
            _useSignature(by, structHash, signature);
        }
        return _openAsMember(groupId, kind, subject, data, proposer);
    }

    /// @inheritdoc IMembership
    function vote(uint64 id, bool support) external {
        _vote(id, support, _userOf(msg.sender));
    }

    /// @inheritdoc IMembership
    function voteBySig(uint64 id, bool support, address voter, bytes calldata signature) external {
        (uint64 uid, uint32 epoch) = _resolve(voter);
        _requireSigned(voter, _hashVote(id, support, uid, epoch), signature);
        _vote(id, support, uid);
    }

    /// @inheritdoc IMembership
    // slither-disable-next-line reentrancy-no-eth: see _enact
    function voteBatch(SignedVote[] calldata votes) external returns (uint256 counted) {
        uint64 id = 0; // of the proposal at hand: most batches are about one, which is read and written once
        Proposal storage p = _proposals[0];
        // slither-disable-next-line uninitialized-local: a count in state NONE, which nothing stores
        Count memory count;
        unchecked {
            for (uint256 i = 0; i < votes.length; ++i) {
                SignedVote calldata one = votes[i];
                if (one.id != id) {
                    _save(p, count);
                    id = one.id;
                    p = _proposals[id];
                    count = p.count;
                }
                if (_tryVote(id, p, count, one)) ++counted;
            }
        }
        _save(p, count);
    }

    /// @inheritdoc IMembership
    function close(uint64 id) external {
        Proposal storage p = _proposals[id];
        _requireOpen(id, p.count.state);
        if (block.timestamp <= p.count.deadline) revert StillOpen(id);
        _close(id, p, State.EXPIRED);
    }

    /// @inheritdoc IMembership
    function proposal(uint64 id) external view returns (ProposalInfo memory info) {
        Proposal storage p = _proposals[id];
        Count memory count = p.count;
        info.group = count.group;
        info.kind = p.kind;
        info.subject = p.subject;
        info.proposer = p.proposer;
        info.electorate = count.electorate;
        info.yes = count.yes;
        info.no = count.no;
        info.deadline = count.deadline;
        bool lapsed = count.state == State.OPEN && block.timestamp > count.deadline;
        info.state = lapsed ? State.EXPIRED : count.state;
        info.dataHash = p.dataHash;
    }

    /// @inheritdoc IMembership
    function hasVoted(uint64 id, uint64 uid) external view returns (bool) {
        Proposal storage p = _proposals[id];
        uint32 sequence = _seats[p.count.group][uid].sequence;
        uint256 bits = sequence < EARLY ? p.count.earlyVotes : p.pages[sequence >> 8].bits;
        return bits & _bit(sequence) != 0;
    }

    /// @inheritdoc IMembership
    function member(uint32 groupId, uint64 uid) external view returns (bool active, uint32 sequence) {
        Seat storage s = _seats[groupId][uid];
        return (s.active, s.sequence);
    }

    /// @inheritdoc IMembership
    function group(uint32 id)
        external
        view
        returns (uint32 members, uint32 epoch, bytes32 rosterHash, Policy policy, uint16 threshold, uint32 votingPeriod)
    {
        Group storage g = _groups[id];
        return (g.members, g.epoch, g.rosterHash, g.policy, g.threshold, g.votingPeriod);
    }

    /// @inheritdoc IMembership
    function groupNamed(string calldata name) external view returns (bool exists, uint32 id) {
        uint256 next = _groupsByName[keccak256(bytes(name))];
        return next == 0 ? (false, 0) : (true, uint32(next - 1));
    }

    /// @inheritdoc IMembership
    function payload(uint64 id) external view returns (bytes memory) {
        return _payloads[id];
    }

    /// @inheritdoc IMembership
    function maySend(uint64 uid) external view returns (bool) {
        return block.timestamp > pausedUntil && _isUser(uid) && _isAdmitted(uid);
    }

    /// @inheritdoc IMembership
    function isSignedBy(address signer, bytes32 structHash, bytes calldata signature) external view returns (bool) {
        return _isSigned(signer, structHash, signature);
    }

    function _create(string memory name, uint64[] memory founders, Rules memory rules, uint64 creator)
        private
        returns (uint32 id)
    {
        if (block.timestamp <= pausedUntil) revert NetworkPaused(pausedUntil);
        if (!Names.isWellFormed(name)) revert NameMalformed(name);
        if (_groupsByName[keccak256(bytes(name))] != 0) revert NameTaken(name);
        if (founders.length > MAX_FOUNDERS) revert TooManyFounders(founders.length);
        id = _found(name, Policy.OPEN, rules);
        _seatFounder(id, creator);
        for (uint256 i = 0; i < founders.length; ++i) {
            _seatFounder(id, founders[i]);
        }
    }

    /// @dev Makes an empty group.
    function _found(string memory name, Policy policy, Rules memory rules) private returns (uint32 id) {
        _requireRules(rules.threshold, rules.votingPeriod);
        id = groupCount;
        groupCount = id + 1;
        bytes32 nameKey = keccak256(bytes(name));
        _groupsByName[nameKey] = uint256(id) + 1;
        Group storage g = _groups[id];
        g.policy = policy;
        g.threshold = rules.threshold;
        g.votingPeriod = rules.votingPeriod;
        g.nameKey = nameKey;
        emit GroupCreated(id, name, policy, rules.threshold, rules.votingPeriod);
    }

    function _seatFounder(uint32 groupId, uint64 uid) private {
        _requireUser(uid);
        if (!_isAdmitted(uid)) revert NotAdmitted(uid);
        if (_seats[groupId][uid].active) revert AlreadyMember(uid);
        _join(groupId, uid);
    }

    function _leaveBy(uint32 groupId, uint64 uid) private {
        if (!_seats[groupId][uid].active) revert NotMember(uid);
        if (_groups[groupId].members == 1) revert LastMember(groupId);
        _leave(groupId, uid);
    }

    function _openAsMember(uint32 groupId, Kind kind, uint64 subject, bytes calldata data, uint64 proposer)
        private
        returns (uint64 id)
    {
        if (_groups[groupId].votingPeriod == 0) revert UnknownGroup(groupId);
        if (!_seats[groupId][proposer].active) revert NotMember(proposer);
        if (data.length > (_isReason(kind) ? MAX_REASON : MAX_PAYLOAD)) revert DataTooLong(data.length);
        return _open(groupId, kind, subject, data, proposer);
    }

    function _open(uint32 groupId, Kind kind, uint64 subject, bytes memory data, uint64 proposer)
        private
        returns (uint64 id)
    {
        _requireFitting(groupId, kind, subject, data);
        bytes32 dataHash = keccak256(data);
        bytes32 key = _key(groupId, kind, subject, dataHash);
        _clear(key);

        id = ++proposalCount;
        _openProposals[key] = id;
        Proposal storage p = _proposals[id];
        p.subject = subject;
        p.proposer = proposer;
        p.kind = kind;
        p.dataHash = dataHash;
        if (!_isReason(kind)) _payloads[id] = data;
        Count memory count = _firstCount(groupId);
        p.count = count;
        emit Proposed(id, groupId, subject, kind, proposer, count.electorate, count.deadline, data);
    }

    /// @dev No votes yet, and the group's rules and roster as they are now.
    function _firstCount(uint32 groupId) private view returns (Count memory count) {
        Group storage g = _groups[groupId];
        count.group = groupId;
        count.electorate = g.members;
        count.sequence = g.sequence;
        count.deadline = uint40(block.timestamp + g.votingPeriod);
        count.threshold = g.threshold;
        count.state = State.OPEN;
    }

    /// @dev Reverts unless a proposal of this kind about this subject makes sense now.
    function _requireFitting(uint32 groupId, Kind kind, uint64 subject, bytes memory data) private view {
        Group storage g = _groups[groupId];
        if (g.votingPeriod == 0) revert UnknownGroup(groupId);
        if (g.members == 0) revert NoMembers(groupId);
        bool inside = _seats[groupId][subject].active;
        if (kind == Kind.ADMIT) {
            _requireUser(subject);
            if (inside) revert AlreadyMember(subject);
            if (groupId != NETWORK && !_isAdmitted(subject)) revert NotAdmitted(subject);
        } else if (kind == Kind.EXPEL) {
            if (!inside) revert NotMember(subject);
            if (g.members == 1) revert LastMember(groupId);
        } else {
            if (subject != 0) revert BadSubject(subject);
            if (kind == Kind.SET_RULES) _requireSound(groupId, data);
            else if (groupId != NETWORK) revert NetworkOnly(kind);
        }
    }

    /// @dev Reverts unless the data are rules that this group can have.
    function _requireSound(uint32 groupId, bytes memory data) private pure {
        if (data.length != 96) revert BadRules();
        (uint256 policy, uint256 threshold, uint256 votingPeriod) = abi.decode(data, (uint256, uint256, uint256));
        if (policy > uint256(groupId == NETWORK ? Policy.VOTE : Policy.OPEN)) revert BadRules();
        _requireRules(threshold, votingPeriod);
    }

    function _requireRules(uint256 threshold, uint256 votingPeriod) private pure {
        if (threshold == 0 || threshold >= WHOLE) revert BadRules();
        if (votingPeriod == 0 || votingPeriod > MAX_VOTING_PERIOD) revert BadRules();
    }

    /// @dev Makes room under a key: an equal proposal that lapsed is closed on the way, one still open is in the way.
    function _clear(bytes32 key) private {
        uint64 previous = _openProposals[key];
        if (previous == 0) return;
        Proposal storage p = _proposals[previous];
        if (block.timestamp <= p.count.deadline) revert AlreadyProposed(previous);
        _close(previous, p, State.EXPIRED);
    }

    // slither-disable-next-line reentrancy-no-eth: see _enact
    function _vote(uint64 id, bool support, uint64 voter) private {
        Proposal storage p = _proposals[id];
        Count memory count = p.count;
        (Refusal refusal, uint256 sequence) = _examine(count, voter);
        if (refusal != Refusal.NONE) _refuse(refusal, id, voter, count);
        if (!_mark(p, count, sequence)) revert AlreadyVoted(id, voter);
        _count(id, p, count, voter, support);
        _save(p, count);
    }

    /// @dev Counts a signed vote, or does nothing and says so.
    function _tryVote(uint64 id, Proposal storage p, Count memory count, SignedVote calldata one)
        private
        returns (bool)
    {
        (address voter, bool support) = (one.voter, one.support);
        // slither-disable-next-line unused-return: the rest of the answer is not asked for
        (uint64 uid,, uint32 epoch) = registry.resolve(voter);
        (Refusal refusal, uint256 sequence) = _examine(count, uid); // nobody has a seat as uid 0
        if (refusal != Refusal.NONE) return false;
        if (!_isSignedCheaply(voter, _hashVote(id, support, uid, epoch), one.signature)) return false;
        if (!_mark(p, count, sequence)) return false;
        _count(id, p, count, uid, support);
        return true;
    }

    /// @dev Why a user has no vote on a proposal, if so, and the user's seat.
    function _examine(Count memory count, uint64 voter) private view returns (Refusal refusal, uint256 sequence) {
        if (count.state != State.OPEN) return (Refusal.NOT_OPEN, 0);
        if (block.timestamp > count.deadline) return (Refusal.ENDED, 0);
        Seat storage s = _seats[count.group][voter];
        sequence = s.sequence;
        if (!s.active) return (Refusal.NO_MEMBER, 0);
        if (sequence > count.sequence) return (Refusal.JOINED_LATER, 0);
    }

    /// @dev Spends the one vote of a seat, unless it was spent before: that of an early seat at hand, not in storage
    /// yet.
    function _mark(Proposal storage p, Count memory count, uint256 sequence) private returns (bool) {
        uint256 bit = _bit(sequence);
        if (sequence < EARLY) {
            if (count.earlyVotes & bit != 0) return false;
            count.earlyVotes |= uint56(bit);
            return true;
        }
        Page storage page = p.pages[sequence >> 8];
        uint256 bits = page.bits;
        if (bits & bit != 0) return false;
        page.bits = bits | bit;
        return true;
    }

    function _refuse(Refusal refusal, uint64 id, uint64 voter, Count memory count) private pure {
        if (refusal == Refusal.NOT_OPEN) _requireOpen(id, count.state);
        if (refusal == Refusal.ENDED) revert VotingEnded(id, count.deadline);
        if (refusal == Refusal.NO_MEMBER) revert NotMember(voter);
        revert JoinedLater(id, voter);
    }

    /// @dev Counts a marked vote at hand. If it settles the proposal, all is stored and done, and the count at hand is
    /// open no more.
    function _count(uint64 id, Proposal storage p, Count memory count, uint64 voter, bool support) private {
        // Nobody votes twice and later seats do not vote, so neither number can pass the electorate; all else is the
        // product of a number of 24 bits and one of 16.
        unchecked {
            if (support) ++count.yes;
            else ++count.no;
            emit Voted(id, voter, support, count.yes, count.no);

            uint256 bar = uint256(count.electorate) * count.threshold;
            if (count.yes * WHOLE > bar) {
                _save(p, count);
                count.state = State.PASSED;
                _execute(id, p, count);
            } else if ((count.electorate - count.no) * WHOLE <= bar) {
                _save(p, count);
                count.state = State.REJECTED;
                _close(id, p, State.REJECTED);
            }
        }
    }

    /// @dev Stores the votes of an open proposal.
    function _save(Proposal storage p, Count memory count) private {
        if (count.state != State.OPEN) return;
        p.count.yes = count.yes;
        p.count.no = count.no;
        p.count.earlyVotes = count.earlyVotes;
    }

    /// @dev Does what was voted, or nothing if it does not apply any more.
    function _execute(uint64 id, Proposal storage p, Count memory count) private {
        Kind kind = p.kind;
        if (kind == Kind.ADMIT || kind == Kind.EXPEL) {
            _executeOnRoster(id, p, count, kind);
        } else if (kind == Kind.PAUSE || kind == Kind.UNPAUSE) {
            _executePause(id, p, kind);
        } else if (kind == Kind.SET_RULES) {
            _close(id, p, State.PASSED);
            _setRules(count.group, _payloads[id]);
        } else {
            _closeByCall(id, p, kind);
        }
    }

    function _executeOnRoster(uint64 id, Proposal storage p, Count memory count, Kind kind) private {
        uint64 subject = p.subject;
        bool expel = kind == Kind.EXPEL;
        Seat memory s = _seats[count.group][subject];
        bool fits = s.sequence <= count.sequence && s.active == expel;
        if (expel) fits = fits && _groups[count.group].members > 1;
        else fits = fits && (count.group == NETWORK || _isAdmitted(subject));
        _close(id, p, fits ? State.PASSED : State.VOID);
        if (!fits) return;
        if (expel) _leave(count.group, subject);
        else _join(count.group, subject);
    }

    function _executePause(uint64 id, Proposal storage p, Kind kind) private {
        if (kind == Kind.PAUSE) {
            _close(id, p, State.PASSED);
            pausedUntil = uint64(block.timestamp) + PAUSE_TIME;
            emit Paused(pausedUntil);
        } else if (block.timestamp > pausedUntil) {
            _close(id, p, State.VOID);
        } else {
            _close(id, p, State.PASSED);
            pausedUntil = uint64(block.timestamp) - 1;
            emit Unpaused();
        }
    }

    function _setRules(uint32 groupId, bytes memory data) private {
        (Policy policy, uint16 threshold, uint32 votingPeriod) = abi.decode(data, (Policy, uint16, uint32));
        Group storage g = _groups[groupId];
        g.policy = policy;
        g.threshold = threshold;
        g.votingPeriod = votingPeriod;
        emit RulesSet(groupId, policy, threshold, votingPeriod);
    }

    /// @dev Calls the contract that keeps an office, with the payload as its arguments. It is given all the gas that
    /// it can need or the vote reverts, so a failure is the payload's and not that of a stingy sender. Nothing comes
    /// back in: the offices are the network's own contracts, which call nothing but `isSealed`, and the proposal is
    /// closed before.
    function _enact(uint64 id, Kind kind) private returns (bool done) {
        (address office, bytes4 verb) = _office(kind);
        uint256 limit = kind == Kind.SET_RELAYS ? ENACT_RELAYS_GAS : ENACT_GAS;
        bytes memory call = bytes.concat(verb, _payloads[id]);
        _requireGas(limit);
        (done,) = office.call{gas: limit}(call);
    }

    function _office(Kind kind) private view returns (address office, bytes4 verb) {
        IDirectory d = IDirectory(directory);
        if (kind == Kind.SET_ANCHORER) return (address(d.messageLedger()), IMessageLedger.setAnchorer.selector);
        if (kind == Kind.SET_WITNESSES) return (address(d.messageLedger()), IMessageLedger.setWitnesses.selector);
        if (kind == Kind.SET_REWARDS) return (address(d.rewardDistributor()), IRewardDistributor.setSetter.selector);
        return (directory, kind == Kind.SET_RELAYS ? IDirectory.setRelays.selector : IDirectory.setSuccessor.selector);
    }

    function _close(uint64 id, Proposal storage p, State state) private {
        _settle(p, state);
        emit Closed(id, state);
    }

    /// @dev Closes a proposal whose effect is a call; it counts as passed while the call is made.
    // slither-disable-next-line reentrancy-no-eth: see _enact
    function _closeByCall(uint64 id, Proposal storage p, Kind kind) private {
        _settle(p, State.PASSED);
        bool done = _enact(id, kind);
        if (!done) p.count.state = State.VOID;
        emit Closed(id, done ? State.PASSED : State.VOID);
    }

    function _settle(Proposal storage p, State state) private {
        p.count.state = state;
        delete _openProposals[_key(p.count.group, p.kind, p.subject, p.dataHash)];
    }

    /// @dev Reverts if something closed the proposal; its time may be over all the same.
    function _requireOpen(uint64 id, State state) private pure {
        if (state == State.OPEN) return;
        if (state == State.NONE) revert UnknownProposal(id);
        revert NotOpen(id, state);
    }

    function _join(uint32 groupId, uint64 uid) private {
        Group storage g = _groups[groupId];
        uint32 sequence = g.sequence + 1;
        g.sequence = sequence;
        g.members += 1;
        _seats[groupId][uid] = Seat(sequence, true);
        (uint32 epoch, bytes32 rosterHash) = _turn(g, ADD, uid, sequence);
        emit MemberAdded(groupId, uid, sequence, epoch, rosterHash);
    }

    function _leave(uint32 groupId, uint64 uid) private {
        Group storage g = _groups[groupId];
        g.members -= 1;
        Seat storage s = _seats[groupId][uid];
        s.active = false;
        (uint32 epoch, bytes32 rosterHash) = _turn(g, REMOVE, uid, s.sequence);
        emit MemberRemoved(groupId, uid, s.sequence, epoch, rosterHash);
    }

    /// @dev Enters a change of the roster into epoch and hash.
    function _turn(Group storage g, uint8 change, uint64 uid, uint32 sequence)
        private
        returns (uint32 epoch, bytes32 rosterHash)
    {
        epoch = g.epoch + 1;
        rosterHash = keccak256(abi.encode(g.rosterHash, change, uid, sequence));
        g.epoch = epoch;
        g.rosterHash = rosterHash;
    }

    /// @dev Accepts a signature over this struct once. Without it, whoever holds a signature could open the same
    /// proposal again after its rejection, until the signature's deadline.
    function _useSignature(address by, bytes32 structHash, bytes calldata signature) private {
        _requireSigned(by, structHash, signature);
        if (_usedSignatures[structHash]) revert SignatureUsed();
        _usedSignatures[structHash] = true;
    }

    function _resolve(address principal) private view returns (uint64 uid, uint32 epoch) {
        // slither-disable-next-line unused-return: the rest of the answer is not asked for
        (uid,, epoch) = registry.resolve(principal);
        if (uid == 0) revert NotRegistered(principal);
    }

    function _userOf(address principal) private view returns (uint64 uid) {
        uid = registry.userOf(principal);
        if (uid == 0) revert NotRegistered(principal);
    }

    function _requireUser(uint64 uid) private view {
        if (!_isUser(uid)) revert UnknownUser(uid);
    }

    /// @dev Whether the network's policy lets a registered user do more than ask to be let in.
    function _isAdmitted(uint64 uid) private view returns (bool) {
        return _groups[NETWORK].policy == Policy.OPEN || _seats[NETWORK][uid].active;
    }

    /// @dev Like `_isSigned`, but a contract wallet's answer costs the sender no more than it may, and cannot fail the
    /// transaction.
    function _isSignedCheaply(address signer, bytes32 structHash, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (_isOwnSignature(signer, _hashTypedData(structHash), signature)) return true;
        if (signer.code.length == 0) return false;
        _requireGas(WALLET_GAS);
        try this.isSignedBy{gas: WALLET_GAS}(signer, structHash, signature) returns (bool valid) {
            return valid;
        } catch {
            return false;
        }
    }

    /// @dev Reverts unless a call can be given so much, of the 63 of 64 parts that a call can be given at most.
    function _requireGas(uint256 limit) private view {
        if (gasleft() * 63 / 64 < limit + CALL_GAS) revert NotEnoughGas(limit);
    }

    /// @dev The same as of abi.encode, without its allocation.
    function _hashVote(uint256 id, bool support, uint256 uid, uint256 epoch) private pure returns (bytes32) {
        return EfficientHashLib.hash(uint256(VOTE_TYPEHASH), id, uid, epoch, support ? 1 : 0);
    }

    /// @dev A struct of its own for every sort of matter, so that a wallet shows in words and values what is proposed.
    /// Where there is no subject none is signed; another than 0 is refused elsewhere.
    function _hashProposal(uint32 groupId, Kind kind, uint64 subject, bytes calldata data, bytes memory tail)
        private
        view
        returns (bytes32)
    {
        (bytes32 typeHash, bytes32 action) = _wording(kind);
        bytes memory head = abi.encode(typeHash, action, _groups[groupId].nameKey);
        return keccak256(bytes.concat(head, _matter(kind, subject, data), tail));
    }

    /// @dev The words of EIP-712 for what a proposal is about. Values of fixed size are encoded there as in the data,
    /// which are thus taken as they are: if they are anything else, nobody can have signed them.
    function _matter(Kind kind, uint64 subject, bytes calldata data) private view returns (bytes memory) {
        if (kind <= Kind.EXPEL) return abi.encode(subject, keccak256(data));
        if (_isReason(kind)) return abi.encode(keccak256(data));
        if (kind == Kind.SET_WITNESSES) return _matterOfWitnesses(data);
        if (kind == Kind.SET_RELAYS) return _matterOfRelays(data);
        return data;
    }

    /// @dev Quorum, offset, count and witnesses, in the one form that abi.encode gives them.
    function _matterOfWitnesses(bytes calldata data) private pure returns (bytes memory) {
        bool regular = data.length >= 96 && data.length % 32 == 0 && uint256(bytes32(data[32:64])) == 64
            && uint256(bytes32(data[64:96])) == (data.length - 96) / 32;
        if (!regular) revert BadSignature();
        return abi.encode(bytes32(data[:32]), keccak256(data[96:]));
    }

    /// @dev The Directory knows its relays.
    function _matterOfRelays(bytes calldata data) private view returns (bytes memory) {
        (bool regular, bytes memory word) = directory.staticcall(bytes.concat(IDirectory.hashRelays.selector, data));
        if (!regular) revert BadSignature();
        return word;
    }

    /// @dev The struct in which a proposal of this kind is signed, and the words that it begins with.
    function _wording(Kind kind) private pure returns (bytes32 typeHash, bytes32 action) {
        if (kind == Kind.ADMIT) return (PROPOSE_TYPEHASH, keccak256("Admit a member"));
        if (kind == Kind.EXPEL) return (PROPOSE_TYPEHASH, keccak256("Expel a member"));
        if (kind == Kind.SET_RULES) return (PROPOSE_RULES_TYPEHASH, keccak256("Change the rules"));
        if (kind == Kind.SET_ANCHORER) return (PROPOSE_ANCHORER_TYPEHASH, keccak256("Choose who anchors the log"));
        if (kind == Kind.SET_WITNESSES) return (PROPOSE_WITNESSES_TYPEHASH, keccak256("Choose who witnesses the log"));
        if (kind == Kind.SET_RELAYS) return (PROPOSE_RELAYS_TYPEHASH, keccak256("Choose the relays"));
        if (kind == Kind.SET_REWARDS) return (PROPOSE_REWARDS_TYPEHASH, keccak256("Choose who publishes rewards"));
        if (kind == Kind.SUCCESSOR) return (PROPOSE_SUCCESSOR_TYPEHASH, keccak256("Recommend another network"));
        if (kind == Kind.PAUSE) return (PROPOSE_PAUSE_TYPEHASH, keccak256("Pause the network for 7 days"));
        return (PROPOSE_PAUSE_TYPEHASH, keccak256("End the pause of the network"));
    }

    function _isReason(Kind kind) private pure returns (bool) {
        return kind <= Kind.EXPEL || kind >= Kind.PAUSE;
    }

    function _isUser(uint64 uid) private view returns (bool) {
        // slither-disable-next-line unused-return: the rest of the answer is not asked for
        (address account,,,,,) = registry.user(uid);
        return account != address(0);
    }

    function _key(uint32 groupId, Kind kind, uint64 subject, bytes32 dataHash) private pure returns (bytes32) {
        return keccak256(abi.encode(groupId, kind, subject, dataHash));
    }

    function _bit(uint256 sequence) private pure returns (uint256) {
        return uint256(1) << (sequence & 0xff);
    }
}
