//! Expressions that are refused: each with what is wrong, where, and what to write.

use expect_test::expect;
use protocol::criteria::{Expression, LENGTH};

#[test]
fn mistakes_are_told_with_their_place() {
    let long = format!("region == \"{}\"", "a".repeat(LENGTH));
    let deep = format!("{}true{}", "(".repeat(9), ")".repeat(9));
    for empty in ["", " \n"] {
        let error = Expression::parse(empty, &super::token()).expect_err("it is empty");
        expect!["it is empty; leave it out for any provider (at character 1)"]
            .assert_eq(&error.to_string());
    }
    let mistakes = [
        &long,
        &deep,
        "regoin == \"eu\"",
        "seen < 60 && regoin == \"eu\"",
        "nothing == \"eu\"",
        "region",
        "vouched",
        "attested == true",
        "region == 5",
        "region == \"EU\"",
        "region.startWith(\"eu\")",
        "region.matches(\"eu.*\")",
        "region.startsWith(\"eu\", \"us\")",
        "region.startsWith(5)",
        "region.startsWith(region)",
        "price.startsWith(\"eu\")",
        "\"eu\".startsWith(region)",
        "regoin.startsWith(\"eu\")",
        "price < \"0.02\"",
        "price < 0.02/h",
        "price < 1e3",
        "price < .5",
        "price < 5.",
        "price < 0x10",
        "price < 1u",
        "price < -1",
        "price < 0.0000000000000001",
        "free_stake > 0.0000001",
        "free_stake > 99999999999999999999999999999999999999999",
        "leases > 1.5",
        "leases > 18446744073709551615",
        "seen < price",
        "1 < 2",
        "1 < price < 2",
        "price < 1 == true",
        "address < \"0x1111111111111111111111111111111111111111\"",
        "address == \"0x11\"",
        "address == \"0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAA\"",
        "address.startsWith(\"0x\")",
        "region in \"eu\"",
        "region in [region]",
        "region in [5]",
        "\"eu\" in [\"eu\"]",
        "attested(\"tdx\")",
        "attested(\"0x00\", \"0x00\")",
        "vouched()",
        "vouched(\"\")",
        "vouched(5)",
        "vouched(\"gdpr\", \"acme\")",
        "has(region.a)",
        "region.a",
        "region[0] == \"a\"",
        "[1, 2].all(x, x > 0)",
        "[1].exists(region, region == 1)",
        "atested()",
        "region(\"eu\")",
        "attested() ? true : false",
        "region == \"eu\" &&",
        "&& region == \"eu\"",
        "region == \"eu\" && && true",
        "region == \"eu\" & true",
        "region = \"eu\"",
        "region == eu",
        "region == \"eu",
        "region == \"e\\u0075\"",
        "region == \"\"\"eu\"\"\"",
        "region == b\"eu\"",
        "region == \"zürich\"",
        "region == null",
        "(region == \"eu\"",
        "region == \"eu\")",
        "(region == \"eu\"]",
        "region == \"eu\" // all of it",
        "region == \"eu\"; true",
        "{}",
        "region == \"a\"\n && regoin == \"b\"",
        "true && (region ==\n  && true)",
        "a in b in c in d in e in f",
        "!!!!!!!!!!!!!!!!!attested()",
        "price.a.b.c.d.e.f.g.h.i == 1",
        "if == 1",
        "1",
        "\"eu\"",
        "[true]",
    ];
    let lines = mistakes.iter().map(|text| {
        let error = Expression::parse(text, &super::token()).expect_err(text);
        format!("{}\n    {error}\n", text.get(..60).unwrap_or(text))
    });
    expect![[r#"
        region == "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            the expression is 524 bytes long, and 512 are the limit (at character 513)
        (((((((((true)))))))))
            brackets nest deeper than 8 (at character 9)
        regoin == "eu"
            no such name regoin; did you mean region? (at character 1)
        seen < 60 && regoin == "eu"
            no such name regoin; did you mean region? (at character 14)
        nothing == "eu"
            no such name nothing; there are region, address, price, free_stake, bonded, leases, open_leases, dark, seen, attested, vouched; a text is in quotes (at character 1)
        region
            region is a text; compare it, as in region == "eu-west" (at character 1)
        vouched
            vouched is a call; write vouched(…) (at character 1)
        attested == true
            attested is a call; write attested(…) alone (at character 1)
        region == 5
            region is a text; write it as in "eu-west" (at character 11)
        region == "EU"
            region is in lower case; write "eu" (at character 11)
        region.startWith("eu")
            no such call startWith; did you mean startsWith? (at character 8)
        region.matches("eu.*")
            no such call matches; there are startsWith, endsWith, contains (at character 8)
        region.startsWith("eu", "us")
            startsWith takes one text (at character 18)
        region.startsWith(5)
            region is a text; write it as in "eu-west" (at character 19)
        region.startsWith(region)
            a value is wanted here, in quotes (at character 19)
        price.startsWith("eu")
            price is a price in tokens per hour, and startsWith asks about a text (at character 1)
        "eu".startsWith(region)
            write region.startsWith("eu") (at character 1)
        regoin.startsWith("eu")
            no such name regoin; did you mean region? (at character 1)
        price < "0.02"
            price is a price in tokens per hour; write it as in 0.02 (at character 9)
        price < 0.02/h
            '/' has no place in an expression (at character 13)
        price < 1e3
            write a number in plain digits, as in 0.02 or 12 (at character 9)
        price < .5
            write a number in plain digits, as in 0.02 or 12 (at character 9)
        price < 5.
            it cannot be read from "." on (at character 10)
        price < 0x10
            write a number in plain digits, as in 0.02 or 12 (at character 9)
        price < 1u
            write a number in plain digits, as in 0.02 or 12 (at character 9)
        price < -1
            '-' has no place in an expression (at character 9)
        price < 0.0000000000000001
            "0.0000000000000001/h" has more digits behind the point than the token's 15 (at character 9)
        free_stake > 0.0000001
            "0.0000001" has more digits behind the point than the token's 6 (at character 14)
        free_stake > 99999999999999999999999999999999999999999
            it cannot be read from "99999999999999999999" on (at character 14)
        leases > 1.5
            "1.5" is no whole number below 2^64 (at character 10)
        leases > 18446744073709551615
            it cannot be read from "18446744073709551615" on (at character 10)
        seen < price
            seen is a number of seconds and price is a price in tokens per hour (at character 6)
        1 < 2
            neither side is a name; this is the same for everybody (at character 3)
        1 < price < 2
            compare two things at a time; join comparisons with && (at character 3)
        price < 1 == true
            compare two things at a time; join comparisons with && (at character 7)
        address < "0x1111111111111111111111111111111111111111"
            addresses are equal or not; write == or != (at character 9)
        address == "0x11"
            "0x11" is no address (0x and 40 hexadecimal digits) (at character 12)
        address == "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAA"
            "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAA" fails its checksum; copy the address anew (at character 12)
        address.startsWith("0x")
            address is an address, and startsWith asks about a text (at character 1)
        region in "eu"
            a list is wanted behind in: ["eu-west"] (at character 11)
        region in [region]
            a list is of values (at character 12)
        region in [5]
            region is a text; write it as in "eu-west" (at character 12)
        "eu" in ["eu"]
            a name is wanted in front of in (at character 1)
        attested("tdx")
            "tdx" is no measurement (0x and 64 hexadecimal digits); a listing does not say by which hardware, so write attested(), and have `roadstead attest` find out (at character 10)
        attested("0x00", "0x00")
            attested takes one measurement, or nothing (at character 18)
        vouched()
            write vouched("gdpr", "0x…"): an attribute, and who has to vouch for it (at character 8)
        vouched("")
            the attribute is empty (at character 8)
        vouched(5)
            a text in quotes is wanted here (at character 9)
        vouched("gdpr", "acme")
            "acme" is no address (0x and 40 hexadecimal digits) (at character 17)
        has(region.a)
            a condition is wanted here, as in region == "eu-west" (at character 4)
        region.a
            a condition is wanted here, as in region == "eu-west" (at character 7)
        region[0] == "a"
            a name or a value is wanted here; a condition stands alone, or with ! in front (at character 7)
        [1, 2].all(x, x > 0)
            there are no loops; write each case out (at character 11)
        [1].exists(region, region == 1)
            there are no loops; write each case out (at character 11)
        atested()
            no such call atested; did you mean attested? (at character 1)
        region("eu")
            region is no call; compare it (at character 1)
        attested() ? true : false
            '?' has no place in an expression (at character 12)
        region == "eu" &&
            a condition is missing beside && (at character 18)
        && region == "eu"
            a condition is missing beside && (at character 1)
        region == "eu" && && true
            a condition is missing beside && (at character 19)
        region == "eu" & true
            a single & means nothing; write && (at character 16)
        region = "eu"
            it cannot be read from "= \"eu\"" on (at character 8)
        region == eu
            no such name eu; there are region, address, price, free_stake, bonded, leases, open_leases, dark, seen, attested, vouched; a text is in quotes (at character 11)
        region == "eu
            this text has no end; close its quotes (at character 11)
        region == "e\u0075"
            text is printable ASCII without a backslash (at character 13)
        region == """eu"""
            one text ends here and another begins (at character 13)
        region == b"eu"
            region is a text; write it as in "eu-west" (at character 11)
        region == "zürich"
            text is printable ASCII without a backslash (at character 13)
        region == null
            region is a text; write it as in "eu-west" (at character 11)
        (region == "eu"
            this bracket is not closed (at character 1)
        region == "eu")
            this closes a bracket that was not opened (at character 15)
        (region == "eu"]
            it cannot be read from "]" on (at character 16)
        region == "eu" // all of it
            '/' has no place in an expression (at character 16)
        region == "eu"; true
            ';' has no place in an expression (at character 15)
        {}
            '{' has no place in an expression (at character 1)
        region == "a"
         && regoin == "b"
            no such name regoin; did you mean region? (at character 19)
        true && (region ==
          && true)
            it cannot be read from "&& true)" on (at character 22)
        a in b in c in d in e in f
            this goes on for too long; join comparisons with && or || (at character 21)
        !!!!!!!!!!!!!!!!!attested()
            this goes on for too long; join comparisons with && or || (at character 9)
        price.a.b.c.d.e.f.g.h.i == 1
            this goes on for too long; join comparisons with && or || (at character 13)
        if == 1
            it cannot be read from "if == 1" on (at character 1)
        1
            a condition is wanted here, as in region == "eu-west" (at character 1)
        "eu"
            a condition is wanted here, as in region == "eu-west" (at character 1)
        [true]
            a condition is wanted here, as in region == "eu-west" (at character 1)
    "#]].assert_eq(&lines.collect::<String>());
}
