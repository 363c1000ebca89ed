//! The account clock, the price of an outage and the quote's digest, held to the files that the contracts are held to as well.

use std::{fmt::Debug, path::Path};

use alloy_primitives::{
    Address, B256, ChainId, U256,
    aliases::{U24, U40},
};
use protocol::{
    amount::{Amount, Rate, SCALE, Units},
    clock::{Account, ClockError, Stream, StreamState},
    quote::Quote,
    sla,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};

/// What `Payments.account` says of an account that never runs dry: its largest time.
const FOREVER: u64 = (1 << 40) - 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockCase {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    time: u64,
    action: Action,
    stream: usize,
    amount: Amount,
    rate: Rate,
    lock: u32,
    start: bool,
    expect: Seen,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Action {
    Look,
    Deposit,
    Withdraw,
    Open,
    Start,
    SetRate,
    Close,
    Collect,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    refusal: String,
    collected: Amount,
    account: SeenAccount,
    streams: Vec<SeenStream>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SeenAccount {
    free: Units,
    lockup: Units,
    rate: Rate,
    clock: u64,
    funded_until: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenStream {
    rate: Rate,
    lock: u32,
    state: StreamState,
    owed: Units,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurveCase {
    name: String,
    coverage: Amount,
    #[serde(deserialize_with = "decimal")]
    duration: u64,
    #[serde(deserialize_with = "decimal")]
    grace: u32,
    #[serde(deserialize_with = "decimal")]
    full: u32,
    due: Amount,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct QuoteCase {
    name: String,
    chain_id: ChainId,
    leases: Address,
    quote: PlainQuote,
    digest: B256,
}

/// A quote with its numbers as decimal strings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PlainQuote {
    provider: Address,
    account: B256,
    #[serde(deserialize_with = "decimal")]
    lease: u64,
    pod: B256,
    rate: Rate,
    #[serde(deserialize_with = "decimal")]
    lock: u32,
    coverage: Amount,
    #[serde(deserialize_with = "decimal")]
    grace: U24,
    #[serde(deserialize_with = "decimal")]
    full: U24,
    #[serde(deserialize_with = "decimal")]
    response: U24,
    #[serde(deserialize_with = "decimal")]
    notice: U24,
    #[serde(deserialize_with = "decimal")]
    start_within: U24,
    #[serde(deserialize_with = "decimal")]
    expiry: U40,
    #[serde(deserialize_with = "decimal")]
    version: u64,
    #[serde(deserialize_with = "decimal")]
    nonce: U256,
}

#[test]
fn the_clock_is_that_of_payments() {
    let cases = read::<ClockCase>("clock.json");
    assert!(cases.len() > 20, "the file is read");
    for ClockCase { name, steps } in cases {
        let (mut account, mut streams) = (Account::default(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            let played = play(step, &mut account, &mut streams);
            let seen = see(step.time, played, &account, &streams);
            assert_eq!(seen, step.expect, "{name}, step {number}");
        }
    }
}

#[test]
fn the_curve_is_that_of_sla() {
    let cases = read::<CurveCase>("curve.json");
    assert!(cases.len() > 60, "the file is read");
    for CurveCase { name, coverage, duration, grace, full, due } in cases {
        assert_eq!(sla::due(coverage, duration, grace, full), due, "{name}");
    }
}

#[test]
fn the_digest_is_that_of_leases() {
    let cases = read::<QuoteCase>("quote.json");
    assert!(cases.len() > 20, "the file is read");
    for QuoteCase { name, chain_id, leases, quote: q, digest } in cases {
        let quote = Quote {
            provider: q.provider,
            account: q.account,
            lease: q.lease,
            pod: q.pod,
            rate: q.rate.0,
            lock: q.lock,
            coverage: q.coverage.0,
            grace: q.grace,
            full: q.full,
            response: q.response,
            notice: q.notice,
            startWithin: q.start_within,
            expiry: q.expiry,
            version: q.version,
            nonce: q.nonce,
        };
        assert_eq!(quote.digest(chain_id, leases), digest, "{name}");
    }
}

fn play(
    step: &Step,
    account: &mut Account,
    streams: &mut Vec<Stream>,
) -> Result<Amount, ClockError> {
    let &Step { time: now, action, stream, amount, rate, lock, start, .. } = step;
    match action {
        Action::Look => Ok(()),
        Action::Deposit => account.deposit(amount, now),
        Action::Withdraw => account.withdraw(amount, now),
        Action::Open => account.open(rate, lock, start, now).map(|opened| streams.push(opened)),
        Action::Start => account.start(&mut streams[stream], now),
        Action::SetRate => account.set_rate(&mut streams[stream], rate, lock, now),
        Action::Close => account.close(&mut streams[stream], now),
        Action::Collect => return account.collect(&mut streams[stream], now),
    }
    .map(|()| Amount(0))
}

/// What the views of Payments say at `now`.
fn see(
    now: u64,
    played: Result<Amount, ClockError>,
    account: &Account,
    streams: &[Stream],
) -> Seen {
    let mut settled = *account;
    settled.settle(now);
    let streams = streams.iter().map(|stream| {
        let mut due = *stream;
        // Whatever has accrued comes out in what is collected and what stays owed.
        let collected = settled.collect(&mut due, now).expect("what is owed fits");
        let owed = Units(collected.0 * SCALE + due.owed.0);
        SeenStream { rate: due.rate, lock: due.lock, state: due.state, owed }
    });
    let streams = streams.collect();
    Seen {
        refusal: played.map_or_else(refusal, |_amount| String::new()),
        collected: played.unwrap_or_default(),
        account: SeenAccount {
            free: settled.free,
            lockup: settled.lockup,
            rate: settled.rate,
            clock: settled.clock,
            funded_until: settled.funded_until().map_or(FOREVER, |end| end.min(FOREVER)),
        },
        streams,
    }
}

/// An error in the words of the file.
fn refusal(error: ClockError) -> String {
    match error {
        ClockError::Underfunded { needed, available } => {
            format!("Underfunded {needed} {available}")
        }
        ClockError::TopUpTooSmall { missing } => format!("TopUpTooSmall {missing}"),
        ClockError::WrongState(state) => format!("WrongState {state:?}"),
        ClockError::Overflow => "Overflow".into(),
    }
}

fn read<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/test/vectors");
    let text = std::fs::read(folder.join(name)).expect("the vectors are beside the contracts");
    serde_json::from_slice::<Cases<T>>(&text).expect("the file is what the generator writes").cases
}

fn decimal<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: Debug>,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(|err| D::Error::custom(format!("{text}: {err:?}")))
}
