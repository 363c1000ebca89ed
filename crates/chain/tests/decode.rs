//! Whatever a log holds, decoding it ends in an event or an error.

#![expect(clippy::unwrap_used, reason = "a test's helpers are tests, too")]

use alloy::primitives::{Address, B256, keccak256};
use chain::{
    Deployment,
    decode::{Contracts, Event},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// How many logs are tried.
const LOGS: usize = 10_000;

fn contracts() -> Contracts {
    let at = |byte: u8| Address::repeat_byte(byte);
    Contracts::of(&Deployment {
        chain_id: 1,
        block: 0,
        token: at(8),
        payments: at(1),
        staking: at(2),
        registry: at(3),
        leases: at(4),
        sla: at(5),
        auction: at(6),
        apps: at(7),
    })
}

/// The first topics of all events, with how many topics and bytes they have: as the ABI that the bindings are made of says.
fn events() -> Vec<(B256, usize)> {
    let abis = [
        include_str!("../abi/Payments.json"),
        include_str!("../abi/Staking.json"),
        include_str!("../abi/Registry.json"),
        include_str!("../abi/Leases.json"),
        include_str!("../abi/Sla.json"),
        include_str!("../abi/Auction.json"),
        include_str!("../abi/Apps.json"),
    ];
    let mut events = Vec::new();
    for abi in abis {
        let abi: alloy::json_abi::JsonAbi = serde_json::from_str(abi).unwrap();
        for event in abi.events() {
            let indexed = event.inputs.iter().filter(|input| input.indexed).count();
            events.push((event.selector(), indexed + 1));
        }
    }
    events
}

#[test]
fn arbitrary_logs_never_panic() {
    let (contracts, events) = (contracts(), events());
    let mut rng = StdRng::seed_from_u64(rand::random());
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..LOGS {
        let address = Address::repeat_byte(rng.random_range(1..=8));
        let (selector, count) = events[rng.random_range(0..events.len())];
        let count = if rng.random_bool(0.9) { count } else { rng.random_range(0..6) };
        let mut topics: Vec<B256> = (0..count).map(|_| word(&mut rng)).collect();
        if let Some(first) = topics.first_mut().filter(|_| rng.random_bool(0.95)) {
            *first = selector;
        }
        let words = rng.random_range(0..40);
        let mut data: Vec<u8> = (0..words).flat_map(|_| word(&mut rng).0).collect();
        data.truncate(data.len().saturating_sub(rng.random_range(0..40) / 39));
        match contracts.decode(address, &topics, &data) {
            Ok(Some(event)) => {
                decoded += 1;
                check(&event);
            }
            Ok(None) => assert_eq!(address, Address::repeat_byte(8)),
            Err(_) => refused += 1,
        }
    }
    assert!(decoded > 100 && refused > 100, "{decoded} were events, {refused} were not");
}

/// Small numbers and offsets are what gets past the first checks.
fn word(rng: &mut StdRng) -> B256 {
    match rng.random_range(0..4) {
        0 => keccak256([rng.random::<u8>()]),
        1 => B256::with_last_byte(32 * rng.random_range(0..8)),
        _ => B256::with_last_byte(rng.random_range(0..4)),
    }
}

/// What is shown of an event is JSON, which any reader takes.
fn check(event: &Event) {
    let args = event.args();
    let read: serde_json::Value = serde_json::from_str(&args).unwrap();
    assert!(read.is_object() && !args.contains('\0') && !args.contains("\\u0000"), "{args}");
    let (contract, name) = event.name();
    assert!(!contract.is_empty() && !name.is_empty());
}
