//! Expressions about providers, and who is excluded by them.

#[path = "criteria/mistakes.rs"]
mod mistakes;
#[path = "criteria/properties.rs"]
mod properties;

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};
use expect_test::{Expect, expect};
use protocol::{
    amount::{Amount, Rate, Token},
    criteria::{Criterion, Expression, Facts, LENGTH, Name, Search, Where, attribute, why_not},
    pod::Pod,
    resources::{Bytes, Cpu, PriceList, Resources},
};

/// The guide for publishers, which has a table of all names.
const GUIDE: &str = include_str!("../../../docs/publisher.md");

fn token() -> Token {
    Token { symbol: "USD".into(), decimals: 6 }
}

fn auditor() -> Address {
    Address::repeat_byte(0xa0)
}

/// A search for nothing in particular.
fn search() -> Search {
    Search {
        token: token(),
        resources: None,
        max_rate: None,
        regions: BTreeSet::new(),
        addresses: BTreeSet::new(),
        coverage: Amount(0),
        expressions: Vec::new(),
    }
}

/// One millicore, which costs what `facts` has for one.
fn pod() -> Resources {
    Resources { cpu: Cpu(1), ..Resources::default() }
}

/// A provider of whom everything is known.
fn facts() -> Facts {
    Facts {
        provider: Address::repeat_byte(0x11),
        region: "EU-West".into(),
        // 0.02 an hour, rounded down as everything that a publisher pays.
        prices: PriceList { cpu: Rate(5_555_555_555), ..PriceList::default() },
        measurement: B256::ZERO,
        live: true,
        seen: 40,
        room: None,
        bonded: Some(Amount(100_000_000)),
        free_stake: Some(Amount(12_500_000)),
        leases: Some(9),
        open_leases: Some(2),
        dark: Some(0),
        vouches: Some(BTreeSet::from([(attribute("gdpr"), auditor())])),
    }
}

fn with(expression: &str) -> Search {
    let expression = Expression::parse(expression, &token())
        .unwrap_or_else(|error| panic!("{expression}: {error}"));
    Search { resources: Some(pod()), expressions: vec![expression], ..search() }
}

fn holds(expression: &str) -> bool {
    why_not(&with(expression), &facts()).is_empty()
}

#[test]
fn expressions_hold_or_do_not() {
    let hold = [
        "true",
        "region == \"eu-west\"",
        "region == 'eu-west'",
        "region.startsWith(\"eu\") && region.endsWith(\"west\") && region.contains(\"-\")",
        "region in [\"us-east\", \"eu-west\"]",
        "!(region in [])",
        "region != \"eu\" && region > \"eu\" && region < \"ev\"",
        "address == \"0x1111111111111111111111111111111111111111\"",
        "address in [\"0x1111111111111111111111111111111111111111\"]",
        "address != \"0x2222222222222222222222222222222222222222\"",
        "price <= 0.02 && price >= 0.02 && price == 0.02 && 0.02 == price",
        "price < 0.0200001 && price > 0.0199999",
        "0.03 > price && 0.01 < price && 1 >= price && 0 <= price",
        "price in [0.01, 0.02]",
        "free_stake == 12.5 && free_stake > 12.499999 && free_stake < 12.500001",
        "bonded == 100 && bonded == 100.000000 && free_stake < bonded",
        "leases == 9 && open_leases <= 2 && dark == 0 && open_leases < leases",
        "seen < 60 && 40 <= seen",
        "!attested()",
        "vouched(\"gdpr\") && vouched(\"gdpr\", \"0xa0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0\")",
        "!vouched(\"iso27001\") && !vouched(\"gdpr\", \"0x2222222222222222222222222222222222222222\")",
        "region == \"mars\" || seen < 60",
        "false || (true && !false)",
        "region.startsWith(\"eu\")\n  && seen < 60\n",
        "!!attested() || !!!attested()",
        "region.contains(\"\") && !region.contains(\"&& ) || (\")",
    ];
    for expression in hold {
        assert!(holds(expression), "{expression}");
        assert!(!holds(&format!("!({expression})")), "!({expression})");
    }
    let attested = Facts { measurement: B256::repeat_byte(7), ..facts() };
    let that = format!("attested() && attested(\"{}\")", B256::repeat_byte(7));
    assert!(why_not(&with(&that), &attested).is_empty(), "{that}");
    let other = format!("attested(\"{}\")", B256::repeat_byte(8));
    assert_eq!(why_not(&with(&other), &attested).len(), 1, "{other}");
}

#[test]
fn nobody_vouches_for_itself_unless_it_is_the_auditor_that_is_named() {
    let own = BTreeSet::from([(attribute("gdpr"), facts().provider)]);
    let facts = Facts { vouches: Some(own), ..facts() };
    assert_eq!(why_not(&with("vouched(\"gdpr\")"), &facts).len(), 1);
    let named = format!("vouched(\"gdpr\", \"{}\")", facts.provider);
    assert_eq!(why_not(&with(&named), &facts), []);
}

#[test]
fn what_is_not_known_excludes_unless_it_does_not_matter() {
    let unknown = Facts { leases: None, vouches: None, ..facts() };
    let judged = |expression: &str| why_not(&with(expression), &unknown);
    for expression in [
        "leases > 0",
        "leases < 0",
        "!(leases > 0)",
        "leases == leases",
        "leases in [1]",
        "vouched(\"a\")",
        "!vouched(\"a\")",
        "leases > 0 || seen > 60",
        "!(leases > 0 && seen < 60)",
    ] {
        assert_eq!(judged(expression).len(), 1, "{expression}");
    }
    for expression in ["leases > 0 || seen < 60", "!(leases > 0 && seen > 60)"] {
        assert_eq!(judged(expression), [], "{expression}");
    }
    // Without a pod there is no price.
    let no_pod = Search { resources: None, ..with("price < 1") };
    expect![[r#"price < 1 (price is not known here)"#]]
        .assert_eq(&why_not(&no_pod, &facts())[0].text);
    assert_eq!(
        with("leases > 0 && (price < 1 || vouched(\"a\")) && attested()").needs(),
        BTreeSet::from([Name::Leases, Name::Price, Name::Vouched, Name::Attested])
    );
    assert_eq!(
        Search { coverage: Amount(1), ..search() }.needs(),
        BTreeSet::from([Name::FreeStake])
    );
    let attributes = with("vouched(\"a\") || !vouched(\"b\")").attributes();
    assert_eq!(attributes.into_values().collect::<BTreeSet<_>>().len(), 2);
}

fn told(search: &Search, facts: &Facts, expect: &Expect) {
    let whys = why_not(search, facts).into_iter();
    let lines = whys.map(|why| format!("{:?}: {}\n", why.criterion, why.text));
    expect.assert_eq(&lines.collect::<String>());
}

#[test]
fn each_criterion_that_excludes_is_told() {
    let search = Search {
        max_rate: Some(Rate(1_388_888_888)),
        resources: Some(Resources { cpu: Cpu(2), memory: Bytes(1 << 30), ..Resources::default() }),
        regions: ["us-east".into(), "us-west".into()].into(),
        addresses: [Address::repeat_byte(0x22)].into(),
        coverage: Amount(20_000_000),
        ..with(
            "region.startsWith(\"us\") &&\n  (price < 0.01 || free_stake > bonded) && seen<60 && !vouched('gdpr') && false && attested()",
        )
    };
    let facts = Facts {
        live: false,
        room: Some(Resources { cpu: Cpu(1), memory: Bytes(2 << 30), ..Resources::default() }),
        ..facts()
    };
    let expect = expect![[r#"
        Live: it was last heard of 40 s ago
        Address: 0x1111111111111111111111111111111111111111 is none of the addresses
        Region: region is "eu-west", and us-east or us-west is wanted
        Price: price is 0.04/h, and 0.005/h is the limit
        Room: 0.002 cpu, 1 GiB memory, 0 B storage are needed, and 0.001 cpu, 2 GiB memory, 0 B storage are free
        Coverage: free_stake is 12.50, and 20.00 of coverage are wanted
        Where: region.startsWith("us") (region is "eu-west")
        Where: (price < 0.01 || free_stake > bonded) (price is 0.04/h, free_stake is 12.50, bonded is 100.00)
        Where: !vouched('gdpr') (it is vouched for: gdpr)
        Where: false
        Where: attested() (it claims no measurement)
    "#]];
    told(&search, &facts, &expect);
    // What the provider wrote moves no cursor, and a price beyond all bounds is one.
    let hostile = Facts {
        region: "\u{1b}[2Jeu\n".into(),
        prices: PriceList { cpu: Rate(u128::MAX), ..PriceList::default() },
        bonded: None,
        free_stake: None,
        ..Facts::default()
    };
    let search = Search {
        coverage: Amount(1),
        resources: Some(Resources { cpu: Cpu(2), ..Resources::default() }),
        ..with(
            "region == \"eu\" && price < 1 && bonded > 1 && address == \"0x1111111111111111111111111111111111111111\"",
        )
    };
    let expect = expect![[r#"
        Live: it was last heard of 0 s ago
        Coverage: free_stake is not known here, and 0.000001 of coverage are wanted
        Where: region == "eu" (region is "\u{1b}[2jeu\n")
        Where: price < 1 (price is beyond all bounds)
        Where: bonded > 1 (bonded is not known here)
        Where: address == "0x1111111111111111111111111111111111111111" (address is 0x0000000000000000000000000000000000000000)
    "#]];
    told(&search, &hostile, &expect);
}

#[test]
fn an_alternative_at_the_top_is_one_criterion() {
    let expect = expect![[r#"
        Where: seen > 60 && leases > 1 || dark > 0 (seen is 40, leases is 9, dark is 0)
    "#]];
    told(&with("seen > 60 && leases > 1 || dark > 0"), &facts(), &expect);
}

#[test]
fn what_a_machine_reads_is_stable() {
    let whys = why_not(&with("seen > 60"), &facts());
    let json = serde_json::to_string(&whys).expect("JSON");
    expect![[r#"[{"criterion":"where","text":"seen > 60 (seen is 40)"}]"#]].assert_eq(&json);
    let all = [
        Criterion::Live,
        Criterion::Address,
        Criterion::Region,
        Criterion::Price,
        Criterion::Room,
        Criterion::Coverage,
        Criterion::Where,
    ];
    expect![[r#"["live","address","region","price","room","coverage","where"]"#]]
        .assert_eq(&serde_json::to_string(&all).expect("JSON"));
    for criterion in all {
        assert_eq!(serde_json::json!(criterion), criterion.to_string());
    }
}

#[test]
fn a_pod_file_carries_an_expression_that_is_no_part_of_its_hash() {
    let file = |block: &str| {
        let yaml = format!("services: {{ web: {{ image: a@sha256:{:064} }} }}\n{block}", 0);
        Pod::from_compose(&yaml, &())
    };
    let one = file("").expect("a pod");
    let two = file("x-roadstead: { providers: { where: 'price < 0.02 && seen < 60' } }")
        .expect("a pod with an expression");
    let expression = two.wishes().providers.expression.clone();
    let wish = expression.expect("an expression");
    assert_eq!(wish.to_string(), "price < 0.02 && seen < 60");
    let search = Search::new(two.wishes(), Some(pod()), &token()).expect("a search");
    assert_eq!(why_not(&search, &facts()).len(), 1);
    let find = |_: &_, _: &_| Err("no image has to be found");
    assert_eq!(one.resolve(find).expect("a pod").hash(), two.resolve(find).expect("a pod").hash());
    let refused = file("x-roadstead: { providers: { where: 'regoin == \"eu\"' } }").unwrap_err();
    expect![
        "x-roadstead.providers.where: no such name regoin; did you mean region? (at character 1)"
    ]
    .assert_eq(&refused.to_string());
}

#[test]
fn amounts_are_those_of_the_token() {
    let wish: Where = "free_stake > 0.0000001".parse().expect("there may be such a token");
    wish.expression(&token()).unwrap_err();
    wish.expression(&Token { symbol: "ETH".into(), decimals: 18 }).expect("18 decimals");
}

#[test]
fn the_guide_has_every_name_and_bound() {
    for name in Name::ALL {
        let row = format!("| `{}", name.as_str());
        assert!(GUIDE.contains(&row), "docs/publisher.md does not have {row}");
    }
    assert!(GUIDE.contains(&format!("{LENGTH} characters")), "the length's limit");
}
