// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice EIP-712 digests written out from the specification, apart from the contracts' own code.
contract Digests {
    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    function seal(address verifier, bytes32 structHash) public view returns (bytes32) {
        bytes32 domain = keccak256(abi.encode(DOMAIN, keccak256("chatchain"), keccak256("1"), block.chainid, verifier));
        return keccak256(bytes.concat(hex"1901", domain, structHash));
    }

    struct Registration {
        string username;
        address account;
        bytes32 verifier;
        bytes kdf;
        address recovery;
        address signer;
        bytes record;
        uint256 deadline;
    }

    function register(address registry, Registration memory r) external view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,address signer,bytes record,uint256 deadline)"
        );
        bytes memory first = abi.encode(typeHash, keccak256(bytes(r.username)), r.account, r.verifier);
        bytes memory second = abi.encode(keccak256(r.kdf), r.recovery, r.signer, keccak256(r.record), r.deadline);
        return seal(registry, keccak256(bytes.concat(first, second)));
    }

    function addDevice(
        address registry,
        uint64 uid,
        uint32 epoch,
        address signer,
        bytes calldata record,
        uint256 nonce,
        uint256 deadline
    ) external view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)"
        );
        return seal(registry, keccak256(abi.encode(typeHash, uid, epoch, signer, keccak256(record), nonce, deadline)));
    }

    struct Update {
        uint64 uid;
        uint32 epoch;
        uint32 deviceId;
        uint32 version;
        address signer;
        bytes record;
        uint256 deadline;
    }

    function updateDevice(address registry, Update memory u) external view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,address signer,bytes record,uint256 deadline)"
        );
        bytes memory first = abi.encode(typeHash, u.uid, u.epoch, u.deviceId, u.version);
        bytes memory second = abi.encode(u.signer, keccak256(u.record), u.deadline);
        return seal(registry, keccak256(bytes.concat(first, second)));
    }

    function revokeDevice(address registry, uint64 uid, uint32 epoch, uint32 deviceId, uint256 deadline)
        external
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256("RevokeDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint256 deadline)");
        return seal(registry, keccak256(abi.encode(typeHash, uid, epoch, deviceId, deadline)));
    }

    function setVerifier(
        address registry,
        uint64 uid,
        uint32 epoch,
        bytes32 verifier,
        bytes calldata kdf,
        uint256 nonce,
        uint256 deadline
    ) external view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "SetVerifier(uint64 uid,uint32 epoch,bytes32 verifier,bytes kdf,uint256 nonce,uint256 deadline)"
        );
        return seal(registry, keccak256(abi.encode(typeHash, uid, epoch, verifier, keccak256(kdf), nonce, deadline)));
    }

    function request(address membership, string memory group, uint64 uid, uint32 epoch, uint256 deadline)
        external
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256("Request(string group,uint64 uid,uint32 epoch,uint256 deadline)");
        return seal(membership, keccak256(abi.encode(typeHash, keccak256(bytes(group)), uid, epoch, deadline)));
    }

    /// @notice A proposal as a wallet shows it: the struct's name and middle members as text, their words beside.
    struct Proposal {
        string struct_;
        string members;
        string action;
        string group;
        bytes words;
        uint64 proposer;
        uint32 epoch;
        uint256 deadline;
    }

    function propose(address membership, Proposal memory p) external view returns (bytes32) {
        return seal(membership, keccak256(proposal(p)));
    }

    function proposal(Proposal memory p) private pure returns (bytes memory) {
        string memory all = string.concat(
            p.struct_, "(string action,string group,", p.members, ",uint64 proposer,uint32 epoch,uint256 deadline)"
        );
        bool relays = keccak256(bytes(p.struct_)) == keccak256("ProposeRelays");
        if (relays) all = string.concat(all, "Relay(string endpoint,bytes32 spki,bytes32 nextSpki)");
        bytes memory first = abi.encode(keccak256(bytes(all)), keccak256(bytes(p.action)), keccak256(bytes(p.group)));
        return bytes.concat(first, p.words, abi.encode(p.proposer, p.epoch, p.deadline));
    }

    function vote(address membership, uint64 id, uint64 voter, uint32 epoch, bool support)
        external
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256("Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)");
        return seal(membership, keccak256(abi.encode(typeHash, id, voter, epoch, support)));
    }

    struct Creation {
        string name;
        uint64[] founders;
        uint16 threshold;
        uint32 votingPeriod;
        uint64 creator;
        uint32 epoch;
        uint256 deadline;
    }

    function createGroup(address membership, Creation memory c) external view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "CreateGroup(string name,uint64[] founders,uint16 threshold,uint32 votingPeriod,uint64 creator,uint32 epoch,uint256 deadline)"
        );
        bytes memory members;
        for (uint256 i = 0; i < c.founders.length; ++i) {
            members = bytes.concat(members, bytes32(uint256(c.founders[i])));
        }
        bytes memory first = abi.encode(typeHash, keccak256(bytes(c.name)), keccak256(members), c.threshold);
        bytes memory second = abi.encode(c.votingPeriod, c.creator, c.epoch, c.deadline);
        return seal(membership, keccak256(bytes.concat(first, second)));
    }

    function leave(address membership, string memory group, uint64 uid, uint32 sequence, uint32 epoch, uint256 deadline)
        external
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256("Leave(string group,uint64 uid,uint32 sequence,uint32 epoch,uint256 deadline)");
        return
            seal(membership, keccak256(abi.encode(typeHash, keccak256(bytes(group)), uid, sequence, epoch, deadline)));
    }

    function treeHead(address ledger, bytes32 logId, uint64 size, bytes32 root) external view returns (bytes32) {
        bytes32 typeHash = keccak256("TreeHead(bytes32 logId,uint64 size,bytes32 root)");
        return seal(ledger, keccak256(abi.encode(typeHash, logId, size, root)));
    }
}
