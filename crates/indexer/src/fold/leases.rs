//! Leases: from quote to close.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};
use chain::abi::{ILeases::Quote, Leases::LeasesEvents};
use protocol::{
    amount::{Amount, Rate},
    lease::{CloseReason, State as LeaseState},
};
use store::{
    agent::{self, Agent},
    event::Subject,
    issuer::{self, Issuer},
    lease::{self, Lease},
    nonce::{self, Nonce},
    tally::{self, Tally},
};

use super::{At, State, Why, amount};

pub(super) fn want(state: &mut State, event: &LeasesEvents) {
    match event {
        LeasesEvents::Opened(e) => {
            state.lease.want(lease::Key { id: e.id });
            state.tally.want(tally::Key { provider: e.provider });
            state.nonce.want(nonce_key(&e.quote));
            state.issuer.want(issuer::Key { provider: e.provider, issuer: e.opener });
        }
        LeasesEvents::Amended(e) => {
            state.lease.want(lease::Key { id: e.id });
            state.nonce.want(nonce_key(&e.quote));
            state.issuer.want(issuer::Key { provider: e.provider, issuer: e.amender });
        }
        LeasesEvents::Activated(e) => state.lease.want(lease::Key { id: e.id }),
        LeasesEvents::NoticeGiven(e) => state.lease.want(lease::Key { id: e.id }),
        LeasesEvents::Closed(e) => {
            state.lease.want(lease::Key { id: e.id });
            state.tally.want(tally::Key { provider: e.provider });
        }
        LeasesEvents::AgentSet(e) => {
            state.agent.want(agent::Key { account: e.account, agent: e.agent });
        }
        LeasesEvents::IssuerSet(e) => {
            state.issuer.want(issuer::Key { provider: e.provider, issuer: e.issuer });
        }
        LeasesEvents::NoncesCancelled(e) => {
            state.nonce.want(nonce::Key { provider: e.provider, word: e.word.into() });
        }
        LeasesEvents::EIP712DomainChanged(_) => (),
    }
}

pub(super) fn apply(state: &mut State, event: &LeasesEvents, at: At) -> Result<Subject, Why> {
    match event {
        LeasesEvents::Opened(e) => {
            let q = &e.quote;
            let row = state.lease.edit(lease::Key { id: e.id })?;
            if row.is_some() {
                return Err(Why::Exists(format!("lease {}", e.id)));
            }
            let lease = row.insert(Lease {
                id: e.id,
                provider: e.provider,
                account: e.account,
                slot: e.slot,
                state: LeaseState::Pending,
                opener: e.opener,
                pod: B256::ZERO,
                rate: Rate(0),
                lock: 0,
                coverage: Amount(0),
                grace: 0,
                full: 0,
                response: 0,
                notice: 0,
                start_by: e.startBy.to(),
                version: 0,
                opened_at: at.time,
                opened_block: at.block,
                amended_at: None,
                activated_at: None,
                notice_reason: None,
                ends_at: None,
                closed_at: None,
                close_reason: None,
                closer: None,
                penalty: Amount(0),
            });
            agree(lease, q);
            let subject = about(lease);
            let tally = tally_of(state, e.provider)?;
            tally.opened += 1;
            tally.open += 1;
            use_nonce(state, q, e.opener)?;
            Ok(subject)
        }
        LeasesEvents::Activated(e) => {
            let lease = lease_of(state, e.id)?;
            (lease.state, lease.activated_at) = (LeaseState::Active, Some(at.time));
            Ok(about(lease))
        }
        LeasesEvents::Amended(e) => {
            let lease = lease_of(state, e.id)?;
            agree(lease, &e.quote);
            lease.amended_at = Some(at.time);
            let subject = about(lease);
            use_nonce(state, &e.quote, e.amender)?;
            Ok(subject)
        }
        LeasesEvents::NoticeGiven(e) => {
            let lease = lease_of(state, e.id)?;
            lease.notice_reason = Some(CloseReason::try_from(e.reason)?);
            lease.ends_at = Some(e.endsAt.to());
            Ok(about(lease))
        }
        LeasesEvents::Closed(e) => {
            let lease = lease_of(state, e.id)?;
            lease.state = LeaseState::Closed;
            lease.closed_at = Some(at.time);
            let reason = CloseReason::try_from(e.reason)?;
            lease.close_reason = Some(reason);
            lease.closer = Some(e.closer);
            lease.penalty = amount(e.penalty)?;
            let subject = about(lease);
            let tally = tally_of(state, e.provider)?;
            tally.open = tally.open.checked_sub(1).ok_or(Why::TooMuch)?;
            *tally.closed.entry(reason).or_default() += 1;
            if reason == CloseReason::ProviderFull {
                tally.full_at = at.time;
            }
            Ok(subject)
        }
        LeasesEvents::AgentSet(e) => {
            let (account, agent) = (e.account, e.agent);
            *state.agent.edit(agent::Key { account, agent })? =
                Some(Agent { account, agent, allowed: e.allowed });
            Ok(Subject { account: Some(account), ..Subject::default() })
        }
        LeasesEvents::IssuerSet(e) => {
            let (provider, issuer) = (e.provider, e.issuer);
            *state.issuer.edit(issuer::Key { provider, issuer })? =
                Some(Issuer { provider, issuer, allowed: e.allowed });
            Ok(Subject { provider: Some(provider), ..Subject::default() })
        }
        LeasesEvents::NoncesCancelled(e) => {
            use_up(state, e.provider, e.word.into(), e.mask)?;
            Ok(Subject { provider: Some(e.provider), ..Subject::default() })
        }
        LeasesEvents::EIP712DomainChanged(_) => Ok(Subject::default()),
    }
}

fn about(lease: &Lease) -> Subject {
    Subject { account: Some(lease.account), provider: Some(lease.provider), lease: Some(lease.id) }
}

/// Puts the terms of a quote into force.
fn agree(lease: &mut Lease, q: &Quote) {
    lease.pod = q.pod;
    lease.rate = Rate(q.rate);
    lease.lock = q.lock;
    lease.coverage = Amount(q.coverage);
    lease.grace = q.grace.to();
    lease.full = q.full.to();
    lease.response = q.response.to();
    lease.notice = q.notice.to();
    lease.version = q.version;
}

fn lease_of(state: &mut State, id: u64) -> Result<&mut Lease, Why> {
    let lease = state.lease.edit(lease::Key { id })?;
    lease.as_mut().ok_or_else(|| Why::Missing(format!("lease {id}")))
}

fn tally_of(state: &mut State, provider: Address) -> Result<&mut Tally, Why> {
    let row = state.tally.edit(tally::Key { provider })?;
    let closed = BTreeMap::new();
    Ok(row.get_or_insert_with(|| Tally { provider, opened: 0, open: 0, closed, full_at: 0 }))
}

fn nonce_key(q: &Quote) -> nonce::Key {
    nonce::Key { provider: q.provider, word: (q.nonce >> 8_usize).into() }
}

/// Uses a quote's nonce up, unless it comes from somebody who needs no signature of the provider's.
fn use_nonce(state: &mut State, q: &Quote, by: Address) -> Result<(), Why> {
    let issuer = state.issuer.peek(&issuer::Key { provider: q.provider, issuer: by });
    if issuer.is_some_and(|issuer| issuer.allowed) {
        return Ok(());
    }
    let bit = U256::from(1) << (q.nonce & U256::from(0xff_u8)).to::<usize>();
    use_up(state, q.provider, nonce_key(q).word, bit)
}

fn use_up(state: &mut State, provider: Address, word: B256, mask: U256) -> Result<(), Why> {
    let nonce = state.nonce.edit(nonce::Key { provider, word })?;
    let nonce = nonce.get_or_insert_with(|| Nonce { provider, word, bits: B256::ZERO });
    nonce.bits |= B256::from(mask);
    Ok(())
}
