// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Directory, IDirectory, IMembership, IdentityRegistry, Membership, World} from "../base/World.sol";

contract ConstructTest is World {
    function wired(address to) private returns (Membership) {
        return new Membership(registry, to, IMembership.Policy.OPEN, IMembership.Rules(HALF, WEEK));
    }

    function nextButOne() private view returns (address) {
        return vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
    }

    function test_revertsWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(0xD1)));
        new Directory(address(0xD1), address(membership));
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(0xD2)));
        new Directory(address(registry), address(0xD2));
    }

    function test_revertsForTheMembershipOfAnother() public {
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(membership)));
        new Directory(address(registry), address(membership));
    }

    function test_revertsForTheRegistryOfAnother() public {
        IdentityRegistry other = new IdentityRegistry(new string[](0));
        Membership mine = wired(nextButOne());
        vm.expectRevert(abi.encodeWithSelector(IDirectory.WrongWiring.selector, address(other)));
        new Directory(address(other), address(mine));
    }

    function test_revertsForAContractThatIsNoMembership() public {
        vm.expectRevert();
        new Directory(address(registry), address(registry));
    }

    function test_namesTheOtherContracts() public {
        Membership mine = wired(nextButOne());
        Directory made = new Directory(address(registry), address(mine));
        vm.assertEq(address(made.identityRegistry()), address(registry), "registry");
        vm.assertEq(address(made.membership()), address(mine), "membership");
        vm.assertEq(made.deployer(), address(this), "deployer");
        vm.assertEq(made.version(), 1, "version");
        vm.assertFalse(made.isSealed(), "sealed");
        vm.assertEq(made.relays().length, 0, "relays");
        vm.assertEq(mine.directory(), address(made), "and they name it");
    }
}
