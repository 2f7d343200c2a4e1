// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Digests} from "../base/Digests.sol";
import {Wallet} from "../base/Wallet.sol";
import {IIdentityRegistry, ISigned, IdentityRegistry, World} from "../base/World.sol";

contract RegisterTest is World {
    uint256 private constant BODIES = 9e13;

    function attempt(string memory username) private {
        registry.register(username, VERIFIER, KDF, RECOVERY, address(0xD1), RECORD);
    }

    function expectMalformed(string memory username) private {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameMalformed.selector, username));
        attempt(username);
        vm.assertEq(registry.userCount(), 0, "nobody came to be");
    }

    function test_revertsOnMalformedNames() public {
        expectMalformed("");
        expectMalformed("ab");
        expectMalformed("abcdefghijklmnopqrstuvwxyz0123456"); // 33
        expectMalformed("1ada");
        expectMalformed("-ada");
        expectMalformed("ada-");
        expectMalformed("a--da");
        expectMalformed("Ada");
        expectMalformed("a_da");
        expectMalformed("ada ");
        expectMalformed("a.da");
        expectMalformed(unicode"adä");
        expectMalformed("ada\x00");
        expectMalformed("a`da"); // the neighbours of the allowed ranges
        expectMalformed("a{da");
        expectMalformed("a/da");
        expectMalformed("a:da");
        expectMalformed("a,da");
    }

    function test_acceptsTheShortestAndTheLongestName() public {
        attempt("abc");
        vm.prank(address(0xA2));
        registry.register("a-0123456789-abcdefghijklmnop-xy", VERIFIER, KDF, RECOVERY, address(0xD2), RECORD);
    }

    /// @dev One byte anywhere in a good name: accepted if and only if the rule, spelled out anew, allows it.
    function testFuzz_judgesEveryCharacter(uint8 character, uint8 position) public {
        bytes memory name = "abcdef";
        position = uint8(bound(position, 0, 5));
        name[position] = bytes1(character);
        bool lower = character >= 97 && character <= 122;
        bool digit = character >= 48 && character <= 57;
        bool good = lower || (digit && position > 0) || (character == 45 && position > 0 && position < 5);
        if (!good) vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameMalformed.selector, string(name)));
        attempt(string(name));
    }

    function test_revertsOnReservedNames() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameReserved.selector, "admin"));
        attempt("admin");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameReserved.selector, "chat-chain"));
        attempt("chat-chain");
        vm.assertEq(registry.uidOf("admin"), 0, "a reserved name belongs to nobody");
    }

    function test_constructorRevertsOnMalformedReservedNames() public {
        string[] memory names = new string[](1);
        names[0] = "No";
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameMalformed.selector, "No"));
        new IdentityRegistry(names);
    }

    function test_revertsOnTakenNames() public {
        join("ada");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameTaken.selector, "ada"));
        attempt("ada");
    }

    function test_revertsOnTakenAddresses() public {
        Person memory ada = join("ada");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, ada.account));
        vm.prank(ada.account);
        registry.register("second", VERIFIER, KDF, RECOVERY, address(0xD1), RECORD);

        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, ada.signer));
        registry.register("second", VERIFIER, KDF, RECOVERY, ada.signer, RECORD);

        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.AddressTaken.selector, address(this)));
        registry.register("second", VERIFIER, KDF, RECOVERY, address(this), RECORD);
        vm.assertEq(registry.userCount(), 1, "still only ada");
    }

    /// @dev Nobody keeps another from registering by naming the address that he sees in the waiting transaction.
    function test_aSignerThatWasOnlyNamedGivesWayToTheAccount() public {
        Person memory ada = join("ada");
        vm.prank(ada.signer);
        uint64 uid = registry.register("second", VERIFIER, KDF, RECOVERY, address(0xD1), RECORD);
        assertResolves(ada.signer, uid, 0);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NotAuthorized.selector, ada.signer));
        vm.prank(ada.signer);
        registry.updateDeviceFor(ada.uid, 1, 2, address(0xD2), RECORD, block.timestamp, ada.signer, "");
        vm.prank(ada.account);
        registry.revokeDevice(1);
        assertResolves(ada.signer, uid, 0);
    }

    function test_revertsOnMissingOrOversizedParts() public {
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.EmptyVerifier.selector));
        registry.register("ada", 0, KDF, RECOVERY, address(0xD1), RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 0));
        registry.register("ada", VERIFIER, "", RECOVERY, address(0xD1), RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 65));
        registry.register("ada", VERIFIER, new bytes(65), RECOVERY, address(0xD1), RECORD);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 0));
        registry.register("ada", VERIFIER, KDF, RECOVERY, address(0xD1), "");
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.BadLength.selector, 1025));
        registry.register("ada", VERIFIER, KDF, RECOVERY, address(0xD1), new bytes(1025));
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ZeroAddress.selector));
        registry.register("ada", VERIFIER, KDF, RECOVERY, address(0), RECORD);
        registry.register("ada", VERIFIER, new bytes(64), RECOVERY, address(0xD1), new bytes(1024));
    }

    function testFuzz_registers(
        uint256 name,
        bytes32 verifier,
        bytes memory kdf,
        address recovery,
        address signer,
        bytes memory record
    ) public {
        string memory username = string.concat("u", letters(name >> 128), "-0");
        vm.assume(verifier != 0 && signer != address(0) && signer != address(this));
        kdf = sized(kdf, 1, 64);
        record = sized(record, 1, 1024);
        uint64 uid = uidAt(1);

        vm.expectEmit(address(registry));
        emit IIdentityRegistry.Registered(uid, address(this), username, recovery);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.VerifierSet(uid, verifier, kdf);
        vm.expectEmit(address(registry));
        emit IIdentityRegistry.DeviceAdded(uid, 1, signer, record);
        vm.assertEq(registry.register(username, verifier, kdf, recovery, signer, record), uid, "uid returned");

        vm.assertEq(registry.userCount(), 1, "user count");
        vm.assertEq(registry.uidOf(username), uid, "uid of the name");
        assertResolves(address(this), uid, 0);
        assertResolves(signer, uid, 1);
        assertUser(uid, address(this), verifier, recovery);
        assertDevice(uid, 1, IIdentityRegistry.DeviceState.ACTIVE, 1, signer, firstHead(record));
    }

    function assertUser(uint64 uid, address account, bytes32 verifier, address recovery) private view {
        (address a, uint32 epoch, uint32 devices, uint32 nonce, bytes32 v, address r) = registry.user(uid);
        vm.assertEq(a, account, "account");
        vm.assertEq(epoch, 0, "epoch");
        vm.assertEq(devices, 1, "device count");
        vm.assertEq(nonce, 0, "nonce");
        vm.assertEq(v, verifier, "verifier");
        vm.assertEq(r, recovery, "recovery");
    }

    // -------------------------------------------------------------------------------------- by signature

    function registration(Person memory p, string memory name) private view returns (Digests.Registration memory) {
        return Digests.Registration(name, p.account, VERIFIER, KDF, RECOVERY, p.signer, RECORD, block.timestamp + 60);
    }

    function submit(Digests.Registration memory r, bytes memory signature) private returns (uint64) {
        return registry.registerFor(
            r.account, r.username, r.verifier, r.kdf, r.recovery, r.signer, r.record, r.deadline, signature
        );
    }

    function signed(Person memory p, Digests.Registration memory r) private view returns (bytes memory) {
        return sign(p.key, digests.register(address(registry), r));
    }

    function test_forRevertsAfterTheDeadline() public {
        Person memory ada = stranger("ada");
        Digests.Registration memory r = registration(ada, "ada");
        bytes memory signature = signed(ada, r);
        vm.warp(r.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISigned.Expired.selector, r.deadline));
        submit(r, signature);
        vm.warp(r.deadline);
        submit(r, signature);
    }

    function test_forRevertsOnAnyAlteredPart() public {
        Person memory ada = stranger("ada");
        Digests.Registration memory r = registration(ada, "ada");
        bytes memory signature = signed(ada, r);
        for (uint256 part = 0; part < 8; ++part) {
            Digests.Registration memory altered = registration(ada, "ada");
            if (part == 0) altered.username = "adb";
            if (part == 1) altered.account = stranger("eve").account;
            if (part == 2) altered.verifier = keccak256("other");
            if (part == 3) altered.kdf = hex"00";
            if (part == 4) altered.recovery = address(0);
            if (part == 5) altered.signer = stranger("eve").signer;
            if (part == 6) altered.record = "another record";
            if (part == 7) altered.deadline += 1;
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            submit(altered, signature);
        }
        vm.assertEq(registry.userCount(), 0, "nobody came to be");
    }

    function test_forRevertsOnForeignDomains() public {
        Person memory ada = stranger("ada");
        Digests.Registration memory r = registration(ada, "ada");
        bytes memory crossContract = sign(ada.key, digests.register(address(membership), r));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(r, crossContract);

        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes memory crossChain = signed(ada, r);
        vm.chainId(here);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(r, crossChain);
    }

    function test_forRevertsOnMutilatedSignatures() public {
        Person memory ada = stranger("ada");
        Digests.Registration memory r = registration(ada, "ada");
        bytes memory whole = signed(ada, r);
        uint256[5] memory lengths = [uint256(0), 1, 63, 64, 66];
        for (uint256 i = 0; i < lengths.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
            submit(r, sized(whole, lengths[i], lengths[i]));
        }
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(r, new bytes(65));
        r.account = address(0);
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(r, new bytes(65));
    }

    function test_forRevertsOnReplay() public {
        Person memory ada = stranger("ada");
        Digests.Registration memory r = registration(ada, "ada");
        bytes memory signature = signed(ada, r);
        submit(r, signature);
        vm.expectRevert(abi.encodeWithSelector(IIdentityRegistry.NameTaken.selector, "ada"));
        submit(r, signature);
    }

    function testFuzz_registersForAnother(uint256 seed, bool short) public {
        string memory name = string.concat("s", letters(seed >> 128), "x");
        Person memory p = stranger(name);
        Digests.Registration memory r = registration(p, name);
        bytes32 digest = digests.register(address(registry), r);
        uint64 uid = submit(r, short ? signShort(p.key, digest) : sign(p.key, digest));
        vm.assertEq(uid, uidAt(1), "uid");
        assertResolves(p.account, uid, 0);
        assertResolves(p.signer, uid, 1);
        assertResolves(address(this), 0, 0);
        assertUser(uid, p.account, VERIFIER, RECOVERY);
    }

    function test_registersAContractWallet() public {
        Person memory ada = stranger("ada");
        Wallet wallet = new Wallet(ada.account);
        Digests.Registration memory r = registration(ada, "ada");
        r.account = address(wallet);
        bytes memory wrong = sign(stranger("eve").key, digests.register(address(registry), r));
        vm.expectRevert(abi.encodeWithSelector(ISigned.BadSignature.selector));
        submit(r, wrong);
        uint64 uid = submit(r, signed(ada, r));
        assertResolves(address(wallet), uid, 0);
    }

    // ------------------------------------------------------------------------------------------------ uid

    /// @dev The uid of the n-th user, computed on decimal text instead of numbers.
    function uidAt(uint256 counter) private pure returns (uint64) {
        uint256 body = 1e13 + addmod(mulmod(counter, 61803398874989, BODIES), 27182818284590, BODIES);
        bytes memory digits = new bytes(14);
        uint256 rest = body;
        for (uint256 i = 14; i > 0; --i) {
            digits[i - 1] = bytes1(uint8(48 + rest % 10));
            rest /= 10;
        }
        return uint64(body * 10 + checkOf(digits));
    }

    /// @dev ISO 7064 MOD 11,10 as the standard puts it: the digit that makes the last sum congruent to 1.
    function checkOf(bytes memory digits) private pure returns (uint256 check) {
        uint256 product = 10;
        for (uint256 i = 0; i < digits.length; ++i) {
            uint256 sum = product + uint8(digits[i]) - 48;
            while (sum > 10) sum -= 10;
            product = 2 * sum;
            if (product > 10) product -= 11;
        }
        while ((product + check) % 10 != 1) ++check;
    }

    /// @dev Numbers published with their check digits fix the oracle itself.
    function test_theOracleMatchesPublishedNumbers() public pure {
        vm.assertEq(checkOf("0794"), 5, "check digit of 0794");
        vm.assertEq(checkOf("79462"), 3, "check digit of 79462");
    }

    function test_uidsFollowTheSequenceAndEndInTheCheckDigit() public {
        for (uint256 i = 1; i <= 40; ++i) {
            Person memory p = join(string.concat("user-", letters(i)));
            vm.assertEq(p.uid, uidAt(i), "uid");
            vm.assertTrue(p.uid >= 1e14 && p.uid < 1e15, "15 digits");
        }
    }

    /// @dev Without a common factor the sequence meets every body before one repeats.
    function test_theMultiplierSharesNoFactorWithTheSpan() public {
        uint256 first = join("aaa").uid / 10;
        uint256 second = join("bbb").uid / 10;
        uint256 multiplier = (second + BODIES - first) % BODIES; // as the contract behaves, not as a constant says
        vm.assertEq(multiplier, 61803398874989, "multiplier");
        (uint256 a, uint256 b) = (multiplier, BODIES);
        while (b != 0) (a, b) = (b, a % b);
        vm.assertEq(a, 1, "greatest common divisor");
    }
}
