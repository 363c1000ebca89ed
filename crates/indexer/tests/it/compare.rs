//! What the mirror says, beside what the contracts say.

use alloy::primitives::{Address, U256};
use anyhow::{Context as _, ensure};
use chain::Chain;
use serde::de::DeserializeOwned;
use store::{
    account::{self, Account},
    lease::Lease,
    stream::{self, Stream},
};

use super::anvil::Anvil;

/// The largest time of the contracts.
const FOREVER: u64 = (1 << 40) - 1;

fn rows<T: DeserializeOwned>(
    dump: &std::collections::BTreeMap<String, Vec<String>>,
    table: &str,
) -> Vec<T> {
    dump[table].iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

macro_rules! same {
    ($what:expr, $($ours:expr, $theirs:expr;)*) => {$(
        let (ours, theirs) = ($ours, $theirs);
        ensure!(ours == theirs, "{}: {} is {ours:?}, the contract says {theirs:?}", $what, stringify!($ours));
    )*};
}

/// Asks the contracts about every row.
pub(crate) async fn equals_contracts(anvil: &Anvil, database_url: &str) -> anyhow::Result<()> {
    let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
    let dump = store::dump(&mut store::connect(database_url).await?).await?;
    let head = chain.head().await?;
    let (number, now) = (head.number, head.timestamp);
    let payments = chain.payments();
    let accounts: Vec<Account> = rows(&dump, "account");
    ensure!(accounts.len() > 5, "there are only {} accounts", accounts.len());
    for row in &accounts {
        let view = payments.account(row.id).block(number.into()).call().await?;
        let resumed = payments.resumedAt(row.id).block(number.into()).call().await?;
        let mut clock = account::clock_of(row);
        clock.settle(now);
        same! { format!("account {}", row.id),
            row.owner, view.owner;
            clock.free.0, view.free;
            clock.lockup.0, view.lockup;
            clock.rate.0, view.rate;
            clock.clock, view.clock.to::<u64>();
            account::clock_of(row).funded_until().unwrap_or(FOREVER), view.fundedUntil.to::<u64>();
            row.resumed_at, resumed.to::<u64>();
        }
    }
    for row in rows::<Stream>(&dump, "stream") {
        let view = payments.stream(row.id.into()).block(number.into()).call().await?;
        let account = accounts.iter().find(|account| account.id == row.account);
        let mut clock = account::clock_of(account.context("a stream without an account")?);
        let mut stream = stream::clock_of(&row);
        clock.collect(&mut stream, now)?;
        let owed = stream::clock_of(&row).owed.0
            + if stream.state == protocol::clock::StreamState::Running {
                row.rate.0 * u128::from(clock.clock - row.clock_at)
            } else {
                0
            };
        same! { format!("stream {}", row.id),
            row.account, view.account;
            row.payee, view.payee;
            row.rate.0, view.rate;
            row.lock, view.lock;
            row.state as u8 + 1, view.state;
            owed, view.owed;
        }
    }
    for row in rows::<store::approval::Approval>(&dump, "approval") {
        let view = payments.approval(row.account, row.operator).block(number.into()).call().await?;
        same! { format!("approval of {} for {}", row.operator, row.account),
            row.rate_limit.0, view.rateLimit;
            row.rate_used.0, view.rateUsed;
            row.pay_limit.0, view.payLimit;
            row.max_lock, view.maxLock;
            row.expiry, view.expiry.to::<u64>();
        }
    }
    staking(&chain, &dump, number).await?;
    leases(&chain, &dump, number).await?;
    others(&chain, &dump, number).await
}

type Dump = std::collections::BTreeMap<String, Vec<String>>;

async fn staking(chain: &Chain, dump: &Dump, number: u64) -> anyhow::Result<()> {
    let staking = chain.staking();
    for row in rows::<store::bond::Bond>(dump, "bond") {
        let view = staking.bondOf(row.bonder).block(number.into()).call().await?;
        same! { format!("bond of {}", row.bonder),
            row.bonded.0, view.bonded;
            row.locked.0, view.locked;
            row.unbonding.0, view.unbonding;
            row.withdrawable_at, view.withdrawableAt.to::<u64>();
        }
    }
    for row in rows::<store::bond_lock::BondLock>(dump, "bond_lock") {
        let number_of = alloy::primitives::Uint::from(row.ref_);
        let view =
            staking.lockOf(row.bonder, row.locker, number_of).block(number.into()).call().await?;
        same! { format!("lock {} of {} on {}", row.ref_, row.locker, row.bonder),
            row.amount.0, view.amount;
            row.release_at.unwrap_or(0), view.releaseAt.to::<u64>();
        }
    }
    for row in rows::<store::locker::Locker>(dump, "locker") {
        let view = staking.isLocker(row.bonder, row.locker).block(number.into()).call().await?;
        same! { format!("locker {} on {}", row.locker, row.bonder), row.allowed, view; }
    }
    for row in rows::<store::claim::Claim>(dump, "claim") {
        let view = staking.claimable(row.beneficiary).block(number.into()).call().await?;
        same! { format!("claim of {}", row.beneficiary), U256::from(row.amount.0), view; }
    }
    Ok(())
}

async fn leases(chain: &Chain, dump: &Dump, number: u64) -> anyhow::Result<()> {
    let rows_of = rows::<Lease>(dump, "lease");
    let ids: Vec<u64> = rows_of.iter().map(|row| row.id).collect();
    let count = chain.leases().count().block(number.into()).call().await?;
    ensure!(ids.len() as u64 == count, "{} leases are here, {count} on chain", ids.len());
    let views = chain.lease_views(&ids, Some(number)).await?;
    for (row, view) in rows_of.iter().zip(views) {
        let terms = &view.lease;
        same! { format!("lease {}", row.id),
            row.state as u8, terms.state;
            row.account, view.account;
            row.provider, view.provider;
            row.slot, terms.slot.to::<u32>();
            row.start_by, terms.startBy.to::<u64>();
            row.activated_at.unwrap_or(0), terms.activatedAt.to::<u64>();
            row.closed_at.or(row.ends_at).unwrap_or(0), terms.endsAt.to::<u64>();
            row.close_reason.map_or(0, |reason| reason as u8), terms.reason;
            row.grace, terms.grace.to::<u32>();
            row.full, terms.full.to::<u32>();
            row.response, terms.response.to::<u32>();
            row.notice, terms.notice.to::<u32>();
            row.lock, view.lock;
        }
    }
    for row in rows::<store::agent::Agent>(dump, "agent") {
        let view =
            chain.leases().isAgent(row.account, row.agent).block(number.into()).call().await?;
        same! { format!("agent {}", row.agent), row.allowed, view; }
    }
    for row in rows::<store::issuer::Issuer>(dump, "issuer") {
        let view =
            chain.leases().isIssuer(row.provider, row.issuer).block(number.into()).call().await?;
        same! { format!("issuer {}", row.issuer), row.allowed, view; }
    }
    for row in rows::<store::nonce::Nonce>(dump, "nonce") {
        let bits: U256 = row.bits.into();
        for bit in [0_usize, 1, 7, bits.trailing_zeros().min(255)] {
            let nonce = (U256::from_be_bytes(row.word.0) << 8) | U256::from(bit);
            let leases = chain.leases();
            let used = leases.isNonceUsed(row.provider, nonce).block(number.into()).call().await?;
            same! { format!("nonce {nonce}"), bits.bit(bit), used; }
        }
    }
    Ok(())
}

async fn others(chain: &Chain, dump: &Dump, number: u64) -> anyhow::Result<()> {
    for row in rows::<store::provider::Provider>(dump, "provider") {
        let view = chain.registry().listingOf(row.address).block(number.into()).call().await?;
        same! { format!("provider {}", row.address),
            row.version, view.version;
            row.seen_at, view.seenAt.to::<u64>();
            row.listed, view.listed;
        }
        if row.listed {
            let listing = view.listing;
            same! { format!("provider {}", row.address),
                row.endpoint.clone(), listing.endpoint.replace('\0', "\u{fffd}");
                row.region.clone(), listing.region.replace('\0', "\u{fffd}");
                row.cpu.0, listing.prices.cpu;
                row.memory_mib.0, listing.prices.memoryMiB;
                row.storage_mib.0, listing.prices.storageMiB;
                row.measurement, listing.measurement;
            }
        }
    }
    for row in rows::<store::vouch::Vouch>(dump, "vouch") {
        let registry = chain.registry();
        let view = registry.vouchedUntil(row.provider, row.auditor, row.attribute);
        let view = view.block(number.into()).call().await?;
        same! { format!("vouch for {}", row.provider), row.expiry, view.to::<u64>(); }
    }
    for row in rows::<store::auction::Auction>(dump, "auction") {
        let view = chain.auction().orderOf(row.id).block(number.into()).call().await?;
        same! { format!("order {}", row.id),
            row.state as u8 + 1, view.state;
            row.leader.unwrap_or(Address::ZERO), view.leader;
            row.deadline, view.deadline.to::<u64>();
            row.bids, view.bids;
            row.reopened, u32::from(view.reopened);
            row.rate.0, view.rate;
            row.coverage.0, view.coverage;
            row.lease.unwrap_or(0), view.lease;
            row.payer, view.payer;
        }
    }
    for row in rows::<store::challenge::Challenge>(dump, "challenge") {
        let view = chain.sla().challengeOf(row.lease).block(number.into()).call().await?;
        let open = row.state == store::challenge::State::Open;
        same! { format!("challenge of lease {}", row.lease),
            open, !view.challenger.is_zero();
            row.since, view.since.to::<u64>();
            row.clock, view.clock.to::<u64>();
        }
    }
    for row in rows::<store::outage::Outage>(dump, "outage") {
        let view = chain.sla().outageOf(row.lease).block(number.into()).call().await?;
        same! { format!("outage of lease {}", row.lease),
            row.began, view.from.to::<u64>();
            row.ended, view.to.to::<u64>();
            row.due.0, view.due;
            row.total.0, view.total;
        }
    }
    for row in rows::<store::watcher::Watcher>(dump, "watcher") {
        let view = chain.sla().watcherOf(row.address).block(number.into()).call().await?;
        same! { format!("watcher {}", row.address),
            row.seat, view.seat;
            row.since, view.since.to::<u64>();
            row.ref_, view.r#ref.to::<u128>();
        }
    }
    for row in rows::<store::app::App>(dump, "app") {
        let view = chain.apps().appOf(row.id).block(number.into()).call().await?;
        same! { format!("app {}", row.id), row.retired_at.is_some(), view.owner.is_zero(); }
        let named = chain.apps().named(row.name.clone()).block(number.into()).call().await?;
        same! { format!("name {}", row.name), row.named, named == row.id; }
        if row.retired_at.is_none() {
            same! { format!("app {}", row.id),
                row.owner, view.owner;
                row.keeper, view.keeper;
                row.account, view.account;
                row.slot, view.slot.to::<u32>();
                row.spec, view.spec;
                row.replicas, u32::from(view.limits.replicas);
                row.max_lock, view.limits.maxLock;
                row.max_rate.0, view.limits.maxRate;
                row.pods, view.limits.pods;
            }
        }
    }
    Ok(())
}
