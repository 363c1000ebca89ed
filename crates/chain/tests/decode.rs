//! Logs come from nodes that may send anything.

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::SolEvent as _,
};
use chain::{
    Deployment,
    abi::{
        Apps::AppsEvents, Auction::AuctionEvents, IRegistry, Leases::LeasesEvents,
        Payments::PaymentsEvents, Registry, Registry::RegistryEvents, Sla::SlaEvents,
        Staking::StakingEvents,
    },
    decode::Contracts,
};
use proptest::{collection::vec, prelude::*, sample::select};

fn deployment() -> Deployment {
    let [token, payments, staking, registry, leases, sla, auction, apps] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(Address::repeat_byte);
    let (chain_id, block) = (31_337, 0);
    Deployment { chain_id, block, token, payments, staking, registry, leases, sla, auction, apps }
}

/// Each event there is: its contract's address, and its signature.
fn signatures() -> Vec<(Address, B256)> {
    let Deployment { payments, staking, registry, leases, sla, auction, apps, .. } = deployment();
    let all: [(Address, &[[u8; 32]]); 7] = [
        (payments, PaymentsEvents::SELECTORS),
        (staking, StakingEvents::SELECTORS),
        (registry, RegistryEvents::SELECTORS),
        (leases, LeasesEvents::SELECTORS),
        (sla, SlaEvents::SELECTORS),
        (auction, AuctionEvents::SELECTORS),
        (apps, AppsEvents::SELECTORS),
    ];
    let of = |(at, known): (Address, &[[u8; 32]])| {
        known.iter().map(|one| (at, B256::from(*one))).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(of).collect()
}

/// A word: anything, a number that may be an offset or a length, or an address.
fn word() -> impl Strategy<Value = B256> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(B256::from),
        (0_u64..1_024).prop_map(|number| B256::left_padding_from(&number.to_be_bytes())),
        any::<[u8; 20]>().prop_map(|address| Address::from(address).into_word()),
        Just(B256::repeat_byte(0xff)),
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let words = vec(word(), 0..40).prop_map(|words| words.concat());
    (words, vec(any::<u8>(), 0..32)).prop_map(|(words, rest)| [words, rest].concat())
}

/// Data that decodes as any event does: its arguments are zeros, and its strings and lists empty.
const ZEROS: [u8; 32 * 32] = [0; 32 * 32];

#[test]
fn each_event_of_each_contract_is_told() {
    let contracts = Contracts::of(&deployment());
    let mut names = std::collections::BTreeSet::new();
    for (at, signature) in signatures() {
        // As many topics as it has: three indexed arguments are the most.
        let told: Vec<_> = (0..=3)
            .filter_map(|indexed| {
                let topics = [vec![signature], vec![B256::ZERO; indexed]].concat();
                contracts.decode(at, &topics, &ZEROS).ok().map(|event| (indexed, event))
            })
            .collect();
        let [(_, Some(event))] = told.as_slice() else {
            panic!("{signature} of {at} is told as {told:?}")
        };
        let args: serde_json::Value = serde_json::from_str(&event.args()).expect("it is JSON");
        assert!(args.is_object(), "{args}");
        assert!(names.insert(event.name()), "two are told as {:?}", event.name());
    }
    assert_eq!(names.len(), 58, "an event came or went: is this intended?");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is none of the events is refused, and what is one is told as JSON, no longer than it has to be.
    #[test]
    fn whatever_a_node_sends_is_told_or_refused(
        (at, signature) in select(signatures()),
        others in vec(word(), 0..5),
        data in data(),
    ) {
        let topics: Vec<B256> = [signature].into_iter().chain(others).collect();
        let contracts = Contracts::of(&deployment());
        let Ok(event) = contracts.decode(at, &topics, &data) else { return Ok(()) };
        let event = event.expect("it is of one of the contracts");
        let args = event.args();
        let read: serde_json::Value = serde_json::from_str(&args).expect("it is JSON");
        prop_assert!(read.is_object() && !args.contains('\0'), "{args}");
        // Digits of a word are three times its bytes, an escaped character six times; a list may name a word often.
        prop_assert!(args.len() <= 2_048 + 256 * data.len(), "{} of {} bytes", args.len(), data.len());
        prop_assert!(contracts.decode(Address::repeat_byte(0xee), &topics, &data)?.is_none());
    }

    /// What is emitted is told as it was, whatever the strings in it; and a byte more, less or else never harms.
    #[test]
    fn what_is_emitted_is_told_as_it_was(
        provider in any::<[u8; 20]>(),
        version in any::<u64>(),
        endpoint in ".{0,60}",
        region in ".{0,60}",
        (cut, at, byte) in (0_usize..64, 0_usize..600, any::<u8>()),
    ) {
        let event = Registry::Listed {
            provider: provider.into(),
            version,
            listing: IRegistry::Listing {
                endpoint: endpoint.clone(),
                region: region.clone(),
                prices: IRegistry::Prices { cpu: 1, memoryMiB: u128::MAX, storageMiB: 3 },
                tlsKey: B256::repeat_byte(1),
                sealKey: B256::repeat_byte(2),
                measurement: B256::ZERO,
            },
        };
        let contracts = Contracts::of(&deployment());
        let log = event.encode_log_data();
        let told = contracts.decode(deployment().registry, log.topics(), &log.data)?;
        let told = told.expect("it is of one of the contracts");
        prop_assert_eq!(told.name(), ("Registry", "Listed"));
        let args: serde_json::Value = serde_json::from_str(&told.args()).expect("it is JSON");
        let text = |name: &str| args["listing"][name].as_str().unwrap_or_default().to_owned();
        prop_assert_eq!(text("endpoint"), endpoint.replace('\0', "\u{fffd}"));
        prop_assert_eq!(text("region"), region.replace('\0', "\u{fffd}"));
        prop_assert_eq!(&args["listing"]["prices"]["memoryMiB"], &u128::MAX.to_string());

        let mut broken = log.data.to_vec();
        let place = at % broken.len();
        broken[place] = byte;
        broken.truncate(broken.len() - cut.min(broken.len()));
        let told = contracts.decode(deployment().registry, log.topics(), &Bytes::from(broken));
        if let Ok(Some(event)) = told {
            let read: Result<serde_json::Value, _> = serde_json::from_str(&event.args());
            prop_assert!(read.is_ok());
        }
    }
}
