// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {IMembership} from "./interfaces/IMembership.sol";
import {Signed} from "./Signed.sol";

/// @title Who belongs, by vote of those who belong
contract Membership is IMembership, Signed {
    struct Seat {
        uint32 sequence; // of the last joining; stays after a departure
        bool active;
    }

    struct Group {
        uint32 members;
        uint32 epoch;
        uint32 sequence; // of the last joining in the group
        uint32 votingPeriod; // not zero in a group that exists
        uint16 threshold;
        Policy policy;
        bytes32 rosterHash;
    }

    /// @dev One slot: all that a vote reads and writes besides the seat and the ballot.
    struct Count {
        uint32 group;
        uint32 electorate;
        uint32 yes;
        uint32 no;
        uint32 sequence; // the group's when the proposal opened: later seats have no vote
        uint40 deadline;
        uint16 threshold;
        State state;
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
        mapping(uint256 number => Page) pages; // page and bit: the seat's sequence
    }

    uint32 private constant NETWORK = 0;
    uint256 private constant WHOLE = 10_000;
    uint256 private constant MAX_DATA = 1024;
    uint32 private constant MAX_VOTING_PERIOD = 365 days;
    uint8 private constant ADD = 1;
    uint8 private constant REMOVE = 2;

    bytes32 private constant REQUEST_TYPEHASH =
        keccak256("Request(uint32 group,uint64 uid,uint32 epoch,uint256 deadline)");
    bytes32 private constant PROPOSE_TYPEHASH = keccak256(
        "Propose(uint32 group,uint8 kind,uint64 subject,bytes data,uint64 proposer,uint32 epoch,uint256 deadline)"
    );
    bytes32 private constant VOTE_TYPEHASH = keccak256("Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)");

    /// @inheritdoc IMembership
    IIdentityRegistry public immutable registry;
    /// @inheritdoc IMembership
    address public immutable directory;
    /// @inheritdoc IMembership
    address public immutable deployer;

    /// @inheritdoc IMembership
    uint64 public proposalCount;

    mapping(uint32 id => Group) private _groups;
    mapping(uint32 groupId => mapping(uint64 uid => Seat)) private _seats;
    mapping(uint64 id => Proposal) private _proposals;
    mapping(bytes32 key => uint64 id) private _openProposals;
    mapping(bytes32 structHash => bool) private _usedSignatures;

    /// @param registry_ whose users become members
    /// @param directory_ the Directory to be, whose address follows from the deployer's nonce
    /// @param policy who may send messages
    /// @param rules how group 0 votes
    constructor(IIdentityRegistry registry_, address directory_, Policy policy, Rules memory rules) {
        if (rules.threshold == 0 || rules.threshold >= WHOLE) revert BadRules();
        if (rules.votingPeriod == 0 || rules.votingPeriod > MAX_VOTING_PERIOD) revert BadRules();
        registry = registry_;
        directory = directory_;
        deployer = msg.sender;
        Group storage network = _groups[NETWORK];
        network.policy = policy;
        network.threshold = rules.threshold;
        network.votingPeriod = rules.votingPeriod;
        emit GroupCreated(NETWORK, "network", policy, rules.threshold, rules.votingPeriod);
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
        _useSignature(by, keccak256(abi.encode(REQUEST_TYPEHASH, groupId, uid, epoch, deadline)), signature);
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
            // An array of words hashes like the struct, and keeps the stack within the compiler's reach.
            bytes32[8] memory words;
            words[0] = PROPOSE_TYPEHASH;
            words[1] = bytes32(uint256(groupId));
            words[2] = bytes32(uint256(kind));
            words[3] = bytes32(uint256(subject));
            words[4] = keccak256(data);
            words[5] = bytes32(uint256(proposer));
            words[6] = bytes32(uint256(epoch));
            words[7] = bytes32(deadline);
            _useSignature(by, keccak256(abi.encode(words)), signature);
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
        _requireSigned(voter, keccak256(abi.encode(VOTE_TYPEHASH, id, uid, epoch, support)), signature);
        _vote(id, support, uid);
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
        return p.pages[sequence >> 8].bits & _bit(sequence) != 0;
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
    function maySend(uint64 uid) external view returns (bool) {
        return _groups[NETWORK].policy == Policy.OPEN ? _isUser(uid) : _seats[NETWORK][uid].active;
    }

    function _openAsMember(uint32 groupId, Kind kind, uint64 subject, bytes calldata data, uint64 proposer)
        private
        returns (uint64 id)
    {
        if (_groups[groupId].votingPeriod == 0) revert UnknownGroup(groupId);
        if (!_seats[groupId][proposer].active) revert NotMember(proposer);
        if (data.length > MAX_DATA) revert DataTooLong(data.length);
        return _open(groupId, kind, subject, data, proposer);
    }

    function _open(uint32 groupId, Kind kind, uint64 subject, bytes memory data, uint64 proposer)
        private
        returns (uint64 id)
    {
        _requireFitting(groupId, kind, subject);
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
    function _requireFitting(uint32 groupId, Kind kind, uint64 subject) private view {
        Group storage g = _groups[groupId];
        if (g.votingPeriod == 0) revert UnknownGroup(groupId);
        if (g.members == 0) revert NoMembers(groupId);
        bool inside = _seats[groupId][subject].active;
        if (kind == Kind.ADMIT) {
            _requireUser(subject);
            if (inside) revert AlreadyMember(subject);
        } else if (!inside) {
            revert NotMember(subject);
        }
    }

    /// @dev Makes room under a key: an equal proposal that lapsed is closed on the way, one still open is in the way.
    function _clear(bytes32 key) private {
        uint64 previous = _openProposals[key];
        if (previous == 0) return;
        Proposal storage p = _proposals[previous];
        if (block.timestamp <= p.count.deadline) revert AlreadyProposed(previous);
        _close(previous, p, State.EXPIRED);
    }

    function _vote(uint64 id, bool support, uint64 voter) private {
        Proposal storage p = _proposals[id];
        Count memory count = p.count;
        _requireOpen(id, count.state);
        if (block.timestamp > count.deadline) revert VotingEnded(id, count.deadline);
        _markVoted(id, p, voter, count);

        // Nobody votes twice and later seats do not vote, so neither number can pass the electorate; all else is the
        // product of a number of 32 bits and one of 16.
        unchecked {
            if (support) p.count.yes = ++count.yes;
            else p.count.no = ++count.no;
            emit Voted(id, voter, support, count.yes, count.no);

            uint256 bar = uint256(count.electorate) * count.threshold;
            if (count.yes * WHOLE > bar) {
                _execute(id, p, count);
            } else if ((count.electorate - count.no) * WHOLE <= bar) {
                _close(id, p, State.REJECTED);
            }
        }
    }

    /// @dev Spends the one vote that a seat has on a proposal which opened after its joining.
    function _markVoted(uint64 id, Proposal storage p, uint64 voter, Count memory count) private {
        Seat storage s = _seats[count.group][voter];
        (uint32 sequence, bool active) = (s.sequence, s.active);
        if (!active) revert NotMember(voter);
        if (sequence > count.sequence) revert JoinedLater(id, voter);
        Page storage page = p.pages[sequence >> 8];
        uint256 bit = _bit(sequence);
        uint256 bits = page.bits;
        if (bits & bit != 0) revert AlreadyVoted(id, voter);
        page.bits = bits | bit;
    }

    /// @dev Does what was voted, or nothing if the subject joined or left since the proposal opened.
    function _execute(uint64 id, Proposal storage p, Count memory count) private {
        uint64 subject = p.subject;
        bool expel = p.kind == Kind.EXPEL;
        Seat memory s = _seats[count.group][subject];
        if (s.sequence > count.sequence || s.active != expel) {
            _close(id, p, State.VOID);
        } else {
            _close(id, p, State.PASSED);
            if (expel) _leave(count.group, subject);
            else _join(count.group, subject);
        }
    }

    function _close(uint64 id, Proposal storage p, State state) private {
        p.count.state = state;
        delete _openProposals[_key(p.count.group, p.kind, p.subject, p.dataHash)];
        emit Closed(id, state);
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

    function _isUser(uint64 uid) private view returns (bool) {
        (address account,,,,,) = registry.user(uid);
        return account != address(0);
    }

    function _key(uint32 groupId, Kind kind, uint64 subject, bytes32 dataHash) private pure returns (bytes32) {
        return keccak256(abi.encode(groupId, kind, subject, dataHash));
    }

    function _bit(uint32 sequence) private pure returns (uint256) {
        return uint256(1) << (sequence & 0xff);
    }
}
