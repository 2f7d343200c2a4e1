// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {
    Directory,
    IDirectory,
    IGoverned,
    IIdentityRegistry,
    IMembership,
    IMessageLedger,
    IRewardDistributor,
    IdentityRegistry,
    Membership,
    MessageLedger,
    RewardDistributor,
    World
} from "../base/World.sol";

/// @dev Deploys a ledger, so that somebody else is its deployer.
contract Somebody {
    function build(address to, IMembership whose) external returns (MessageLedger) {
        return new MessageLedger(to, whose);
    }
}

contract ConstructTest is World {
    Membership private mine;
    MessageLedger private log;
    RewardDistributor private rewards;

    function later(uint256 creations) private view returns (address) {
        return vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + creations);
    }

    /// @dev Three parts that name a Directory which is so many creations away when they stand.
    function wire(uint256 creations) private returns (address to) {
        to = later(creations + 3);
        mine = new Membership(registry, to, IMembership.Policy.OPEN, IMembership.Rules(HALF, WEEK));
        log = new MessageLedger(to, mine);
        rewards = new RewardDistributor(to, mine, WINDOW, CAP);
    }

    function expectWrong(address part) private {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, part));
    }

    function test_revertsWithoutCode() public {
        expectWrong(address(0xD1));
        new Directory(IIdentityRegistry(address(0xD1)), membership, ledger, distributor);
        expectWrong(address(0xD2));
        new Directory(registry, IMembership(address(0xD2)), ledger, distributor);
        wire(0);
        expectWrong(address(0xD3));
        new Directory(registry, mine, IMessageLedger(address(0xD3)), rewards);
        wire(0);
        expectWrong(address(0xD4));
        new Directory(registry, mine, log, IRewardDistributor(address(0xD4)));
    }

    function test_revertsForThePartsOfAnother() public {
        expectWrong(address(membership));
        new Directory(registry, membership, ledger, distributor);
        wire(0);
        expectWrong(address(ledger));
        new Directory(registry, mine, ledger, rewards);
        wire(0);
        expectWrong(address(distributor));
        new Directory(registry, mine, log, distributor);
    }

    function test_revertsForTheRegistryOfAnother() public {
        IdentityRegistry other = new IdentityRegistry(new string[](0));
        wire(0);
        expectWrong(address(other));
        new Directory(other, mine, log, rewards);
    }

    function test_revertsForAPartThatObeysAnotherMembership() public {
        address to = wire(1);
        MessageLedger foreign = new MessageLedger(to, membership);
        expectWrong(address(foreign));
        new Directory(registry, mine, foreign, rewards);
    }

    function test_revertsForAPartThatObeysAnotherDeployer() public {
        Somebody other = new Somebody();
        address to = wire(0);
        MessageLedger foreign = other.build(to, mine);
        expectWrong(address(foreign));
        new Directory(registry, mine, foreign, rewards);
    }

    function test_revertsForAContractThatIsNoMembership() public {
        vm.expectRevert();
        new Directory(registry, IMembership(address(registry)), ledger, distributor);
    }

    function test_namesTheOtherContracts() public {
        wire(0);
        Directory made = new Directory(registry, mine, log, rewards);
        vm.assertEq(address(made.identityRegistry()), address(registry), "registry");
        vm.assertEq(address(made.membership()), address(mine), "membership");
        vm.assertEq(address(made.messageLedger()), address(log), "ledger");
        vm.assertEq(address(made.rewardDistributor()), address(rewards), "distributor");
        vm.assertEq(made.deployer(), address(this), "deployer");
        vm.assertEq(made.version(), 2, "version");
        vm.assertFalse(made.isSealed(), "sealed");
        vm.assertEq(made.relays().length, 0, "relays");
        vm.assertEq(made.successor(), address(0), "successor");
        vm.assertEq(mine.directory(), address(made), "and they name it");
        vm.assertEq(IGoverned(log).directory(), address(made), "and they name it");
        vm.assertEq(rewards.directory(), address(made), "and they name it");
        vm.assertEq(rewards.token().minter(), address(rewards), "minter");
    }
}
