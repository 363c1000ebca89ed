//! Any text is read or refused without harm, and an expression means what CEL's own interpreter says that it means.

use std::{collections::BTreeSet, thread};

use alloy_primitives::{Address, B256};
use cel::{Context, Program, Value};
use proptest::prelude::*;
use protocol::{
    amount::{Amount, Rate, Token},
    criteria::{Criterion, Expression, Facts, LENGTH, Search, attribute, fits, why_not},
    resources::{Cpu, PriceList, Resources},
};

/// A stack that is small even for a thread of a server, as an expression may come from a stranger.
const STACK: usize = 512 << 10;

/// Pieces of which what looks like an expression is made.
const PIECES: &[&str] = &[
    "region",
    "price",
    "seen",
    "attested",
    "vouched",
    "true",
    "false",
    "null",
    "in",
    "&&",
    "||",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "?",
    ":",
    "-",
    "+",
    "*",
    "/",
    "%",
    "\"",
    "'",
    "\"eu\"",
    "'a'",
    "0",
    "0.02",
    "1e9",
    "1u",
    "0x1",
    "\\",
    "\n",
    " ",
    "startsWith",
    "all",
    "exists",
    "map",
    "has",
    "x",
    "r\"",
    "b'",
    "\"\"\"",
    "`",
    "é",
    "\u{0}",
    "if",
    "//",
    "duration",
    "99999999999999999999",
];

/// Names of numbers that are whole in the token of the comparison.
const NUMBERS: &[&str] = &["free_stake", "bonded", "leases", "open_leases", "dark", "seen"];

fn reads(text: &str) {
    if let Ok(expression) = Expression::parse(text, &super::token()) {
        let search = Search { expressions: vec![expression], ..super::search() };
        let whys = why_not(&search, &Facts { live: true, ..Facts::default() });
        let length: usize = whys.iter().map(|why| why.text.len()).sum();
        // Each word can name a fact, which may take as much as a region and an address together.
        assert!(length <= LENGTH * 200, "{length} bytes are told of {text:?}");
    }
}

/// In a thread with a small stack.
fn confined(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread");
    thread.join().expect("it ends well");
}

#[test]
fn the_deepest_and_longest_fit_a_small_stack() {
    confined(|| {
        let nest = |open: &str, inner: &str, close: &str, depth: usize| {
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        let longest = [
            nest("(", "true", ")", 8),
            nest("!(", "true", ")", 8),
            nest("[", "1", "]", 8),
            nest("(true && (", "true", "))", 4),
            nest("f(", "1", ")", 8),
            nest("(", "true", ")", 250),
            nest("[", "", "", 512),
            "true&&".repeat(84) + "true",
            "true||".repeat(84) + "true",
            "(true)||".repeat(63) + "true",
            "!".repeat(500) + "true",
            "a<".repeat(250) + "a",
            "a.".repeat(250) + "a",
            "a.b().".repeat(80) + "a",
            "a[0]".repeat(120),
            "(a)(a)".repeat(80),
            "(a).b".repeat(100),
            "(a)<".repeat(120) + "a",
            "a()in".repeat(100) + "a",
            "f()".repeat(170),
            "()<".repeat(170),
            "\"a\"".repeat(170),
            "\"a\"<".repeat(120),
            "\"a\" ".repeat(120),
            "[],".repeat(170),
            "a,".repeat(250),
            "(a,".repeat(8) + &"a,".repeat(200),
            "region.startsWith(\"a\")||".repeat(21),
        ];
        for text in &longest {
            reads(text);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,2048}") {
        reads(&text);
    }

    #[test]
    fn anything_like_an_expression_is_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..120)
    ) {
        confined(move || reads(&pieces.concat()));
    }

    #[test]
    fn an_expression_means_what_cel_says(
        expression in expression(),
        facts in facts(),
    ) {
        prop_assume!(expression.len() <= LENGTH);
        let read = Expression::parse(&expression, &whole());
        let read = read.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let search = Search { expressions: vec![read], ..pod() };
        let ours = why_not(&search, &facts).is_empty();
        prop_assert_eq!(ours, interpreted(&expression, &facts), "{}", expression);
    }

    #[test]
    fn what_is_not_known_is_taken_for_nothing(
        expression in expression(),
        facts in facts(),
        hidden in prop::array::uniform6(any::<bool>()),
    ) {
        prop_assume!(expression.len() + 3 <= LENGTH);
        let mut unknown = facts.clone();
        let [free, bonded, leases, open, dark, vouches] = hidden;
        unknown.free_stake = unknown.free_stake.filter(|_| !free);
        unknown.bonded = unknown.bonded.filter(|_| !bonded);
        unknown.leases = unknown.leases.filter(|_| !leases);
        unknown.open_leases = unknown.open_leases.filter(|_| !open);
        unknown.dark = unknown.dark.filter(|_| !dark);
        unknown.vouches = unknown.vouches.filter(|_| !vouches);
        let truth = interpreted(&expression, &facts);
        // Who comes into question by what is known does so by what is true; so does who is excluded.
        for (expression, truth) in [(expression.clone(), truth), (format!("!({expression})"), !truth)] {
            if let Ok(read) = Expression::parse(&expression, &whole()) {
                let search = Search { expressions: vec![read], ..pod() };
                let fits = why_not(&search, &unknown).is_empty();
                prop_assert!(!fits || truth, "{} by {:?}", expression, unknown);
                prop_assert!(hidden.contains(&true) || fits == truth, "{}", expression);
            }
        }
    }

    #[test]
    fn every_criterion_is_told_that_excludes_and_no_other(
        facts in facts(),
        live in any::<bool>(),
        most in prop::option::of(0_u128..4),
        region in prop::option::of(prop::sample::select(&["eu", "eu-west", "mars"][..])),
        address in prop::option::of(0_u8..3),
        coverage in 0_u128..4,
        room in prop::option::of(0_u32..3),
        parts in prop::collection::vec(prop::sample::select(&["seen < 2", "seen > 0", "true"][..]), 1..4),
    ) {
        let facts = Facts {
            live,
            room: room.map(|cpu| Resources { cpu: Cpu(cpu), ..Resources::default() }),
            ..facts
        };
        let read = Expression::parse(&parts.join(" && "), &whole()).expect("an expression");
        let search = Search {
            max_rate: most.map(|most| Rate(most * 1_000_000_000)),
            regions: region.into_iter().map(str::to_owned).collect(),
            addresses: address.into_iter().map(Address::repeat_byte).collect(),
            coverage: Amount(coverage),
            expressions: vec![read],
            ..pod()
        };
        let told = why_not(&search, &facts).into_iter().map(|why| why.criterion);
        let mut wanted = Vec::new();
        let mut check = |criterion, holds: bool| if !holds { wanted.push(criterion) };
        check(Criterion::Live, live);
        check(Criterion::Address, address.is_none_or(|byte| facts.provider == Address::repeat_byte(byte)));
        check(Criterion::Region, region.is_none_or(|region| facts.region.eq_ignore_ascii_case(region)));
        check(Criterion::Price, most.is_none_or(|most| facts.prices.cpu.0 <= most * 1_000_000_000));
        check(Criterion::Room, room.is_none_or(|room| room >= 1));
        check(Criterion::Coverage, facts.free_stake.expect("known").0 >= coverage);
        for part in parts {
            check(Criterion::Where, match part {
                "seen < 2" => facts.seen < 2,
                "seen > 0" => facts.seen > 0,
                _ => true,
            });
        }
        prop_assert_eq!(fits(&search, &facts), wanted.is_empty());
        prop_assert_eq!(told.collect::<Vec<_>>(), wanted);
    }
}

/// A token without decimals, since CEL's whole numbers are exact.
fn whole() -> Token {
    Token { symbol: "W".into(), decimals: 0 }
}

/// A search in that token for a pod of one millicore.
fn pod() -> Search {
    Search { token: whole(), resources: Some(super::pod()), ..super::search() }
}

/// What CEL's interpreter says.
fn interpreted(expression: &str, facts: &Facts) -> bool {
    let program = Program::compile(expression).expect("CEL");
    let mut context = Context::default();
    let mut add = |name: &str, value: Value| context.add_variable_from_value(name, value);
    let number = |number: u128| Value::Int(i64::try_from(number).expect("a small number"));
    add("region", facts.region.to_lowercase().into());
    add("address", facts.provider.to_string().to_lowercase().into());
    add("price", number(facts.prices.cpu.0 / 1_000_000_000 * 3_600));
    add("free_stake", number(facts.free_stake.expect("known").0));
    add("bonded", number(facts.bonded.expect("known").0));
    add("leases", number(facts.leases.expect("known").into()));
    add("open_leases", number(facts.open_leases.expect("known").into()));
    add("dark", number(facts.dark.expect("known").into()));
    add("seen", number(facts.seen.into()));
    let claimed = facts.measurement != B256::ZERO;
    context.add_function("attested", move || claimed).expect("a function");
    let vouches = facts.vouches.clone().expect("known");
    let vouched = move |name: std::sync::Arc<String>| {
        vouches.iter().any(|(known, _)| *known == attribute(&name))
    };
    context.add_function("vouched", vouched).expect("a function");
    match program.execute(&context) {
        Ok(Value::Bool(truth)) => truth,
        other => panic!("{expression}: {other:?}"),
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let numbers = prop::array::uniform6(0_u64..4);
    let region = prop::sample::select(&["eu", "EU-west", "us-east", "", "a"][..]);
    let attributes = prop::collection::btree_set(prop::sample::select(&["a", "b"][..]), 0..3);
    (numbers, region, 0_u8..3, any::<bool>(), attributes).prop_map(
        |([price, free, leases, open, dark, seen], region, provider, claims, attributes)| Facts {
            provider: Address::repeat_byte(provider),
            region: region.into(),
            // Whole tokens per hour: 3,600 of them come to one per second.
            prices: PriceList {
                cpu: Rate(u128::from(price) * 1_000_000_000),
                ..PriceList::default()
            },
            measurement: if claims { B256::repeat_byte(1) } else { B256::ZERO },
            live: true,
            seen,
            room: None,
            bonded: Some(Amount(3)),
            free_stake: Some(Amount(free.into())),
            leases: Some(leases),
            open_leases: Some(open),
            dark: Some(dark),
            vouches: Some(
                attributes
                    .into_iter()
                    .map(|name| (attribute(name), super::auditor()))
                    .collect::<BTreeSet<_>>(),
            ),
        },
    )
}

fn expression() -> impl Strategy<Value = String> {
    let sign = || prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let text = || prop::sample::select(&["'eu'", "\"eu-west\"", "'us-east'", "''", "\"e\""][..]);
    let address = || {
        (0_u8..4).prop_map(|byte| {
            format!("\"{}\"", Address::repeat_byte(byte).to_string().to_lowercase())
        })
    };
    let name = prop::sample::select(NUMBERS);
    let leaf = prop_oneof![
        prop::sample::select(&["true", "false", "attested()", "vouched('a')", "vouched('b')"][..])
            .prop_map(str::to_owned),
        (name.clone(), sign(), 0..5).prop_map(|(name, sign, n)| format!("{name} {sign} {n}")),
        (name.clone(), sign(), 0..5).prop_map(|(name, sign, n)| format!("{n}{sign}{name}")),
        (sign(), 0..5).prop_map(|(sign, n)| format!("price {sign} {}", n * 3_600)),
        (name, prop::collection::vec(0..5, 0..4))
            .prop_map(|(name, list)| format!("{name} in {list:?}")),
        (sign(), text()).prop_map(|(sign, text)| format!("region {sign} {text}")),
        (prop::sample::select(&["startsWith", "endsWith", "contains"][..]), text())
            .prop_map(|(how, text)| format!("region.{how}({text})")),
        (prop::sample::select(&["==", "!="][..]), address())
            .prop_map(|(sign, address)| format!("address {sign} {address}")),
        prop::sample::select(
            &["leases > open_leases", "free_stake <= bonded", "dark == leases"][..]
        )
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("!({inner})")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            prop::collection::vec(inner.clone(), 2..5).prop_map(|all| all.join(" && ")),
            prop::collection::vec(inner, 2..5).prop_map(|all| all.join("||")),
        ]
    })
}
