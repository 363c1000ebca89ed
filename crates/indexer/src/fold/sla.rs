//! Sla: challenges, outages, watchers.

use alloy::primitives::Address;
use chain::abi::Sla::SlaEvents;
use protocol::amount::Amount;
use store::{
    challenge::{self, Challenge, State as ChallengeState},
    epoch::{self, Epoch},
    event::Subject,
    lease,
    outage::{self, Outage},
    watcher::{self, Watcher},
};

use super::{At, State, Why, add, amount, take};

pub(super) fn want(state: &mut State, event: &SlaEvents) {
    let lease = match event {
        SlaEvents::Challenged(e) => e.lease,
        SlaEvents::Answered(e) => e.lease,
        SlaEvents::Resolved(e) => e.lease,
        SlaEvents::Reported(e) => {
            state.outage.want(outage::Key { lease: e.lease });
            state.lease.want(lease::Key { id: e.lease });
            return;
        }
        SlaEvents::Joined(e) => return state.watcher.want(watcher::Key { address: e.watcher }),
        SlaEvents::Left(_) => {
            state.wants_seats = true;
            return;
        }
        SlaEvents::Equivocated(e) => {
            return state.watcher.want(watcher::Key { address: e.watcher });
        }
        SlaEvents::EpochOpened(e) => return state.epoch.want(epoch::Key { epoch: e.epoch.to() }),
        SlaEvents::Rewarded(_) | SlaEvents::Claimed(_) | SlaEvents::EIP712DomainChanged(_) => {
            return;
        }
    };
    state.challenge.want(challenge::Key { lease });
    state.lease.want(lease::Key { id: lease });
}

pub(super) fn apply(state: &mut State, event: &SlaEvents, at: At) -> Result<Subject, Why> {
    match event {
        SlaEvents::Challenged(e) => {
            let row = state.challenge.edit(challenge::Key { lease: e.lease })?;
            let (challenges, answers) =
                row.as_ref().map_or((0, 0), |before| (before.challenges, before.answers));
            *row = Some(Challenge {
                lease: e.lease,
                challenger: e.challenger,
                since: at.time,
                deadline: e.deadline.to(),
                clock: e.clock.to(),
                state: ChallengeState::Open,
                compensation: Amount(0),
                challenges: challenges + 1,
                answers,
            });
            Ok(about(state, e.lease))
        }
        SlaEvents::Answered(e) => {
            let challenge = challenge_of(state, e.lease)?;
            challenge.state = ChallengeState::Answered;
            challenge.answers += 1;
            Ok(about(state, e.lease))
        }
        SlaEvents::Resolved(e) => {
            let challenge = challenge_of(state, e.lease)?;
            challenge.state = if e.dark { ChallengeState::Dark } else { ChallengeState::Moot };
            challenge.compensation = amount(e.compensation)?;
            Ok(about(state, e.lease))
        }
        SlaEvents::Reported(e) => {
            let (began, due) = (e.from.to(), Amount(e.due));
            let row = state.outage.edit(outage::Key { lease: e.lease })?;
            let outage = row.get_or_insert(Outage {
                lease: e.lease,
                began,
                ended: began,
                due: Amount(0),
                total: Amount(0),
                reports: 0,
            });
            // One that goes on costs what it cost so far and more; another begins at nothing.
            if outage.began == began {
                take(&mut outage.total, outage.due)?;
            }
            add(&mut outage.total, due)?;
            (outage.began, outage.ended, outage.due) = (began, e.to.to(), due);
            outage.reports += 1;
            Ok(about(state, e.lease))
        }
        SlaEvents::Joined(e) => {
            let row = state.watcher.edit(watcher::Key { address: e.watcher })?;
            let equivocated = row.as_ref().is_some_and(|before| before.equivocated);
            *row = Some(Watcher {
                address: e.watcher,
                seat: e.seat,
                since: e.epoch.to(),
                ref_: e.r#ref.to(),
                equivocated,
            });
            Ok(Subject::default())
        }
        SlaEvents::Left(e) => {
            leave(state, e.watcher, e.seat)?;
            Ok(Subject::default())
        }
        SlaEvents::Equivocated(e) => {
            let watcher = watcher_of(state, e.watcher)?;
            (watcher.equivocated, watcher.ref_) = (true, 0);
            Ok(Subject { lease: Some(e.lease), ..Subject::default() })
        }
        SlaEvents::EpochOpened(e) => {
            let epoch = e.epoch.to();
            *state.epoch.edit(epoch::Key { epoch })? =
                Some(Epoch { epoch, seed: e.seed, seats: e.seats });
            Ok(Subject::default())
        }
        // Shares of what was taken, and bonds that went back: they change nothing else.
        SlaEvents::Rewarded(_) | SlaEvents::Claimed(_) | SlaEvents::EIP712DomainChanged(_) => {
            Ok(Subject::default())
        }
    }
}

/// A watcher gives up its seat, which whoever has the last one gets.
fn leave(state: &mut State, watcher: Address, seat: u32) -> Result<(), Why> {
    let last = state.watcher.all().max_by_key(|watcher| watcher.seat);
    let last = last.map(|last| last.address).filter(|last| *last != watcher);
    watcher_of(state, watcher)?.seat = 0;
    if let Some(last) = last {
        watcher_of(state, last)?.seat = seat;
    }
    Ok(())
}

fn about(state: &State, lease: u64) -> Subject {
    let row = state.lease.peek(&lease::Key { id: lease });
    Subject {
        account: row.map(|lease| lease.account),
        provider: row.map(|lease| lease.provider),
        lease: Some(lease),
    }
}

fn challenge_of(state: &mut State, lease: u64) -> Result<&mut Challenge, Why> {
    let challenge = state.challenge.edit(challenge::Key { lease })?;
    challenge.as_mut().ok_or_else(|| Why::Missing(format!("challenge of lease {lease}")))
}

fn watcher_of(state: &mut State, address: Address) -> Result<&mut Watcher, Why> {
    let watcher = state.watcher.edit(watcher::Key { address })?;
    watcher.as_mut().ok_or_else(|| Why::Missing(format!("watcher {address}")))
}
